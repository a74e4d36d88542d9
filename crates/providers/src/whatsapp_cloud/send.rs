//! Sending: `POST /{version}/{phone_number_id}/messages`.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/send-messages>

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wasel_domain::content::{MediaSource, OutboundContent, OutboundMedia, OutboundTemplate};
use wasel_domain::event::{Identity, IdentityKind};

use super::graph::{Graph, repeatable};
use super::parse::identities;
use crate::{Accepted, ErrorClass, Outbound, ReadReceipt, SendError};

pub(super) async fn send(
    graph: &Graph,
    http: &reqwest::Client,
    message: &Outbound<'_>,
) -> Result<Accepted, SendError> {
    let request = http
        .post(graph.url(&[&graph.phone_number_id, "messages"]))
        .json(&envelope(message)?);
    let body = graph.call(request, &[&message.to.value]).await?;
    accepted(&body)
}

pub(super) async fn mark_read(
    graph: &Graph,
    http: &reqwest::Client,
    receipt: &ReadReceipt<'_>,
) -> Result<(), SendError> {
    let mut body = json!({
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": receipt.provider_message_id,
    });
    if receipt.typing {
        // Shown until we answer, 25 seconds at most.
        body["typing_indicator"] = json!({"type": "text"});
    }
    let request = http
        .post(graph.url(&[&graph.phone_number_id, "messages"]))
        .json(&body);
    // Reading twice is reading once.
    graph.call(request, &[]).await.map_err(repeatable)?;
    Ok(())
}

fn envelope(message: &Outbound<'_>) -> Result<Value, SendError> {
    let (addressee, address) = address(message.to)?;
    let (kind, content) = content(message.content);
    let mut envelope = json!({
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "type": kind,
        // Comes back in every status: the only way to learn that a request with a lost answer was taken.
        "biz_opaque_callback_data": message.attempt_id.to_string(),
    });
    envelope[addressee] = address.into();
    envelope[kind] = content;
    if let Some(id) = message.quoted_message_id {
        envelope["context"] = json!({"message_id": id});
    }
    Ok(envelope)
}

fn address(to: &Identity) -> Result<(&'static str, String), SendError> {
    match to.kind {
        // With `+`, or Meta guesses a country.
        IdentityKind::Phone => Ok(("to", format!("+{}", to.value.trim_start_matches('+')))),
        IdentityKind::Bsuid => Ok(("recipient", to.value.clone())),
        IdentityKind::Jid | IdentityKind::Lid | IdentityKind::Email => Err(SendError {
            class: ErrorClass::Recipient,
            code: None,
            detail: "WhatsApp Cloud writes to phone numbers and business-scoped user ids only"
                .to_owned(),
            retry_after: None,
        }),
    }
}

/// The message's type and the object under that name.
fn content(content: &OutboundContent) -> (&'static str, Value) {
    let body = match content {
        OutboundContent::Text { body, preview_url } => {
            json!({"body": body, "preview_url": preview_url})
        }
        // Refused by `check`; its text is what there would be to send.
        OutboundContent::Email { .. } => json!({"body": content.text()}),
        OutboundContent::Image(file)
        | OutboundContent::Video(file)
        | OutboundContent::Sticker(file) => media(file),
        OutboundContent::Audio(file) => {
            let mut body = media(file);
            if file.voice {
                body["voice"] = true.into();
            }
            body
        }
        OutboundContent::Document(file) => {
            let mut body = media(file);
            if let Some(name) = &file.filename {
                body["filename"] = name.as_str().into();
            }
            body
        }
        OutboundContent::Location {
            latitude,
            longitude,
            name,
            address,
        } => {
            let mut body = json!({"latitude": latitude, "longitude": longitude});
            if let Some(name) = name {
                body["name"] = name.as_str().into();
            }
            if let Some(address) = address {
                body["address"] = address.as_str().into();
            }
            body
        }
        OutboundContent::Contacts { contacts } => contacts.clone().into(),
        OutboundContent::Interactive { interactive } => interactive.clone(),
        OutboundContent::Template(named) => template(named),
        OutboundContent::Reaction { message_id, emoji } => {
            json!({"message_id": message_id, "emoji": emoji})
        }
    };
    // Meta's names of the types are the same words as ours.
    (content.kind().as_str(), body)
}

fn media(file: &OutboundMedia) -> Value {
    let mut body = match &file.source {
        MediaSource::Link(link) => json!({"link": link}),
        MediaSource::ProviderId(id) => json!({"id": id}),
    };
    if let Some(caption) = &file.caption {
        body["caption"] = caption.as_str().into();
    }
    body
}

fn template(template: &OutboundTemplate) -> Value {
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(template.name));
    body.insert("language".to_owned(), json!({"code": template.language}));
    if !template.components.is_empty() {
        body.insert("components".to_owned(), json!(template.components));
    }
    body.into()
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    contacts: Vec<AnswerContact>,
    messages: Vec<AnswerMessage>,
}

#[derive(Deserialize)]
struct AnswerContact {
    wa_id: Option<String>,
    user_id: Option<String>,
}

/// `message_status` is not read: `held_for_quality_assessment` and `paused` are accepted too, and statuses follow.
#[derive(Deserialize)]
struct AnswerMessage {
    id: String,
}

fn accepted(body: &[u8]) -> Result<Accepted, SendError> {
    // A 2xx means taken, but without an id nothing that follows can be matched except by our attempt id.
    let unreadable = || SendError {
        class: ErrorClass::Ambiguous,
        code: None,
        detail: "the provider's answer could not be read".to_owned(),
        retry_after: None,
    };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unreadable())?;
    let message = answer.messages.into_iter().next();
    let id = message
        .map(|message| message.id)
        .filter(|id| !id.is_empty());
    let recipient = answer.contacts.into_iter().next();
    Ok(Accepted {
        provider_message_id: id.ok_or_else(unreadable)?,
        status: None,
        recipient: recipient.map_or_else(Vec::new, |contact| {
            identities([contact.wa_id.as_deref(), contact.user_id.as_deref()])
        }),
    })
}
