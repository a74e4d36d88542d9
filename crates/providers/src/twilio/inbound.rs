//! What an incoming message holds: a choice, a place, files or words; and what brought the customer here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use wasel_domain::{MediaRef, MessageContent, MessageKind};

use super::address::Network;
use super::form::Params;

/// WhatsApp only; lower case.
pub(super) fn message_type(params: &Params) -> Option<String> {
    params
        .get("MessageType")
        .map(|kind| kind.to_ascii_lowercase())
}

/// The content of a message that came in.
pub(super) fn content(params: &Params, network: Network) -> MessageContent {
    choice(params)
        .or_else(|| location(params))
        .or_else(|| files(params))
        .unwrap_or_else(|| words(params, network))
}

/// A tapped button, a chosen list row or a filled-in flow.
fn choice(params: &Params) -> Option<MessageContent> {
    let (kind, text, detail) = if params.contains("ListId") || params.contains("ListTitle") {
        let (id, title) = (params.get("ListId"), params.get("ListTitle"));
        let detail = json!({"type": "list_reply", "id": id, "title": title});
        (MessageKind::Interactive, title.or(id), detail)
    } else if params.contains("ButtonText") || params.contains("ButtonPayload") {
        let (text, payload) = (params.get("ButtonText"), params.get("ButtonPayload"));
        let text = text.or_else(|| params.get("Body")).or(payload.clone());
        let detail = json!({"payload": payload, "text": text});
        (MessageKind::Button, text, detail)
    } else if let Some(answers) = params.get("InteractiveData").or(params.get("FlowData")) {
        // An escaped NUL could not be stored once decoded; such an answer stays text.
        let response = match serde_json::from_str::<Value>(&answers) {
            Ok(response) if !answers.contains("\\u0000") => response,
            _ => Value::String(answers),
        };
        let detail = json!({"type": "nfm_reply", "response": response});
        (MessageKind::Interactive, None, detail)
    } else {
        return None;
    };
    Some(MessageContent {
        kind,
        text: text.or_else(|| params.get("Body")),
        media: Vec::new(),
        detail: without_nulls(detail),
    })
}

fn location(params: &Params) -> Option<MessageContent> {
    let latitude = coordinate(params, "Latitude", 90.0)?;
    let longitude = coordinate(params, "Longitude", 180.0)?;
    let (name, address) = (params.get("Label"), params.get("Address"));
    let detail = json!({
        "latitude": latitude,
        "longitude": longitude,
        "name": name,
        "address": address,
    });
    Some(MessageContent {
        kind: MessageKind::Location,
        text: name.or(address).or_else(|| params.get("Body")),
        media: Vec::new(),
        detail: without_nulls(detail),
    })
}

fn coordinate(params: &Params, name: &str, limit: f64) -> Option<f64> {
    let degrees: f64 = params.get(name)?.trim().parse().ok()?;
    (-limit..=limit).contains(&degrees).then_some(degrees)
}

/// Files, with the body as their caption. The first one names the kind.
fn files(params: &Params) -> Option<MessageContent> {
    // Counted by what is there, not by `NumMedia`, which is a stranger's number.
    let media: Vec<MediaRef> = (0..)
        .map_while(|n| {
            Some(MediaRef {
                url: Some(params.get(&format!("MediaUrl{n}"))?),
                mime_type: params.get(&format!("MediaContentType{n}")),
                ..MediaRef::default()
            })
        })
        .collect();
    let mime_type = media.first()?.mime_type.as_deref().unwrap_or_default();
    let kind = match mime_type.split('/').next().unwrap_or_default() {
        _ if message_type(params).as_deref() == Some("sticker") => MessageKind::Sticker,
        "image" => MessageKind::Image,
        "video" => MessageKind::Video,
        "audio" => MessageKind::Audio,
        // A contact card (text/vcard) too: its file holds the card.
        _ => MessageKind::Document,
    };
    Some(MessageContent {
        kind,
        text: params.get("Body"),
        media,
        detail: Value::Null,
    })
}

/// Plain words, or a kind that has no shape here.
fn words(params: &Params, network: Network) -> MessageContent {
    let body = params.get("Body");
    match message_type(params).as_deref() {
        None | Some("text" | "button" | "interactive") => MessageContent {
            kind: MessageKind::Text,
            text: match network {
                Network::Sms => body.map(|body| decoded_sms(&body).unwrap_or(body)),
                Network::Whatsapp => body,
            },
            media: Vec::new(),
            detail: Value::Null,
        },
        // A file or a place that did not come along, an order, whatever is invented next.
        Some(unknown) => MessageContent {
            kind: MessageKind::Unsupported,
            text: body,
            media: Vec::new(),
            detail: json!({"type": unknown}),
        },
    }
}

/// Twilio at times delivers a long concatenated SMS as the base64 of its text. Only what cannot be anything
/// else is decoded: at least 60 characters of strict base64 and nothing else but line breaks, which give
/// UTF-8 text of several words without control characters. A token, a hash or a long word stays as it is.
fn decoded_sms(body: &str) -> Option<String> {
    let encoded: String = body.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    if encoded.len() < 60 {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    let is_words = text.trim().contains(char::is_whitespace)
        && !text
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\r' | '\n' | '\t'));
    is_words.then_some(text)
}

/// The ad or post that brought the customer here: every `Referral…` parameter, named in snake case as Meta
/// names the same (`ReferralSourceUrl` → `source_url`).
pub(super) fn referral(params: &Params) -> Option<Value> {
    let referral: Map<String, Value> = params
        .iter()
        .filter_map(|(name, _)| {
            let key = snake_case(name.strip_prefix("Referral")?);
            Some((key, Value::String(params.get(name)?)))
        })
        // `ReferralNumMedia=0` alone says nothing.
        .filter(|(key, value)| !key.is_empty() && (key != "num_media" || value != "0"))
        .collect();
    (!referral.is_empty()).then_some(Value::Object(referral))
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars().filter(|c| *c != '\0') {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(object) = &mut value {
        object.retain(|_, value| !value.is_null());
    }
    value
}
