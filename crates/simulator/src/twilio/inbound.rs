//! Incoming messages: the webhook, and what its answer says back to the customer.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    API_VERSION, TwilioExtra, callback, new_sid,
    opt_out::{self, Keyword},
};
use crate::{
    webhook::{Payload, Webhook},
    world::{
        Content, Customer, CustomerSend, Event, NewMessage, Origin, Provider, Tick, TwilioAccount,
        TwilioChannel, TwilioNumber, World, WorldError, media::StoredMedia, phone,
    },
};

/// A customer's message arrives at a Twilio number.
pub(crate) fn receive(world: &World, send: CustomerSend) -> Result<String, WorldError> {
    let (account, number) = find_number(world, &send.line)?;
    check_kind(number.channel, &send.content)?;
    let file = match send.content.media() {
        Some((kind, media)) => Some((kind, media.resolve(kind)?)),
        None => None,
    };
    let sid = new_sid(if file.is_some() { "MM" } else { "SM" });
    let kind = file.as_ref().map_or("text", |(kind, _)| kind);
    let body = send.content.text().unwrap_or_default();
    let keyword = Keyword::of(&body).filter(|_| file.is_none());

    let (message, customer, advanced, service_sid) = {
        let mut state = world.lock();
        let customer = state.customer(&send.from).clone();
        let now = state.now();
        let service = opt_out::service_of(&state, &send.line);
        let advanced = service.is_some_and(|service| service.advanced_opt_out);
        let service_sid = service.map(|service| service.sid.clone());
        let mut media = Vec::new();
        if let Some((_, (bytes, mime_type))) = &file {
            let id = new_sid("ME");
            state.insert_media(stored(&account, &sid, &id, bytes, mime_type, now));
            media.push((id, mime_type.clone()));
        }
        state.open_window(&send.line, &send.from);
        let message = state.insert_message(NewMessage {
            id: sid.clone(),
            provider: Provider::Twilio,
            line: send.line.clone(),
            customer: send.from.clone(),
            origin: Origin::Customer,
            kind: kind.to_owned(),
            text: (!body.is_empty()).then(|| body.clone()),
            content: json!(send.content),
            tick: Tick::Delivered,
            context_id: send.context_id.clone(),
            reference: None,
            meta: None,
            twilio: Some(TwilioExtra {
                account_sid: account.account_sid.clone(),
                service_sid: service_sid.clone(),
                status: "received".to_owned(),
                from: Some(number.channel.address(&send.from)),
                to: send.line.clone(),
                segments: callback::segments(&body, number.channel),
                body: body.clone(),
                direction: "inbound",
                media: media.iter().map(|(id, _)| id.clone()).collect(),
                date_sent: Some(now),
                status_callback: None,
                send_at: None,
                failure: None,
            }),
        });
        (message, customer, advanced, service_sid)
    };
    let handled = keyword.filter(|_| number.channel == TwilioChannel::Sms || advanced);
    let mut params = common_params(world, &message, service_sid);
    if let Some(keyword) = handled {
        opt_out::note(&mut world.lock(), keyword, &send.line, &send.from);
        if advanced {
            params.push(("OptOutType".to_owned(), keyword.name().to_owned()));
        }
    }
    match number.channel {
        TwilioChannel::Sms => sms_params(&mut params, &send.from),
        TwilioChannel::Whatsapp => whatsapp_params(world, &mut params, &customer, &send),
    }
    world.emit(Event::Message { message });
    world.post(Webhook {
        provider: Provider::Twilio,
        line: send.line.clone(),
        customer: send.from.clone(),
        url: number.webhook_url.clone(),
        about: "message".to_owned(),
        message_id: Some(sid.clone()),
        payload: Payload::Twilio {
            params,
            auth_token: account.auth_token.clone(),
            fallback_url: number.fallback_url.clone(),
            is_message: true,
        },
    });
    if let Some(keyword) = handled {
        reply(world, &account, &send.line, &send.from, keyword.reply());
    }
    Ok(sid)
}

fn find_number(world: &World, line: &str) -> Result<(TwilioAccount, TwilioNumber), WorldError> {
    let state = world.lock();
    state
        .twilio_accounts
        .values()
        .find_map(|account| {
            let number = account.numbers.iter().find(|n| n.address() == line)?;
            Some((account.clone(), number.clone()))
        })
        .ok_or(WorldError::UnknownLine)
}

fn check_kind(channel: TwilioChannel, content: &Content) -> Result<(), WorldError> {
    let everywhere = matches!(content, Content::Text { .. }) || content.media().is_some();
    let on_whatsapp = matches!(
        content,
        Content::Location { .. }
            | Content::ButtonReply { .. }
            | Content::ListReply { .. }
            | Content::Button { .. }
    );
    if everywhere || (on_whatsapp && channel == TwilioChannel::Whatsapp) {
        Ok(())
    } else {
        Err(WorldError::NotPossible(
            "Twilio does not pass this kind on to a webhook",
        ))
    }
}

fn stored(
    account: &TwilioAccount,
    message: &str,
    id: &str,
    bytes: &Bytes,
    mime_type: &str,
    now: chrono::DateTime<chrono::Utc>,
) -> StoredMedia {
    StoredMedia {
        id: id.to_owned(),
        provider: Provider::Twilio,
        owner: account.account_sid.clone(),
        parent: Some(message.to_owned()),
        mime_type: mime_type.to_owned(),
        filename: None,
        bytes: bytes.clone(),
        external_url: None,
        created_at: now,
        expires_at: None,
    }
}

fn common_params(
    world: &World,
    message: &crate::world::Message,
    service_sid: Option<String>,
) -> Vec<(String, String)> {
    let mut params = Vec::new();
    let mut put = |key: &str, value: &str| params.push((key.to_owned(), value.to_owned()));
    let Some(extra) = &message.twilio else {
        return params;
    };
    put("ToCountry", phone::country(&extra.to));
    put("SmsMessageSid", &message.id);
    put("NumMedia", &extra.media.len().to_string());
    put("SmsSid", &message.id);
    put("SmsStatus", "received");
    put("Body", &extra.body);
    put("To", &extra.to);
    put("NumSegments", &extra.segments.to_string());
    put("MessageSid", &message.id);
    put("AccountSid", &extra.account_sid);
    put("From", extra.from.as_deref().unwrap_or_default());
    put("ApiVersion", API_VERSION);
    if let Some(service) = service_sid {
        put("MessagingServiceSid", &service);
    }
    let base = world.base();
    let state = world.lock();
    for (index, id) in extra.media.iter().enumerate() {
        let mime_type = state.media(id).map_or("", |media| &media.mime_type);
        put(&format!("MediaContentType{index}"), mime_type);
        put(
            &format!("MediaUrl{index}"),
            &format!(
                "{base}/{API_VERSION}/Accounts/{}/Messages/{}/Media/{id}",
                extra.account_sid, message.id
            ),
        );
    }
    params
}

/// Where the numbers are from. City, state and zip are empty outside North America.
fn sms_params(params: &mut Vec<(String, String)>, from: &str) {
    params.push(("FromCountry".to_owned(), phone::country(from).to_owned()));
    for side in ["From", "To"] {
        for place in ["City", "State", "Zip"] {
            params.push((format!("{side}{place}"), String::new()));
        }
    }
}

fn whatsapp_params(
    world: &World,
    params: &mut Vec<(String, String)>,
    customer: &Customer,
    send: &CustomerSend,
) {
    let mut put = |key: &str, value: &str| params.push((key.to_owned(), value.to_owned()));
    put("ProfileName", &customer.name);
    put("WaId", &phone::digits(&customer.number));
    put("ExternalUserId", &customer.user_id);
    let kind = match &send.content {
        Content::Location {
            latitude,
            longitude,
            name,
            address,
        } => {
            put("Latitude", &latitude.to_string());
            put("Longitude", &longitude.to_string());
            if let Some(address) = address {
                put("Address", address);
            }
            if let Some(name) = name {
                put("Label", name);
            }
            "location"
        }
        Content::ButtonReply { id, title } => {
            put("ButtonPayload", id);
            put("ButtonText", title);
            "button"
        }
        Content::Button { payload, text } => {
            put("ButtonPayload", payload);
            put("ButtonText", text);
            "button"
        }
        Content::ListReply { id, title, .. } => {
            put("ListId", id);
            put("ListTitle", title);
            "interactive"
        }
        other => other.media().map_or("text", |(kind, _)| kind),
    };
    put("MessageType", kind);
    if send.forwarded {
        put("Forwarded", "true");
    }
    if let Some(id) = &send.context_id {
        put("OriginalRepliedMessageSid", id);
        let sender = {
            let state = world.lock();
            let original = state.message(id).and_then(|m| m.twilio.as_ref());
            original.and_then(|extra| extra.from.clone())
        };
        if let Some(sender) = sender {
            put("OriginalRepliedMessageSender", &sender);
        }
    }
    if let Some(referral) = &send.referral {
        for (theirs, ours) in [
            ("ReferralBody", "body"),
            ("ReferralHeadline", "headline"),
            ("ReferralSourceId", "source_id"),
            ("ReferralSourceType", "source_type"),
            ("ReferralSourceUrl", "source_url"),
            ("ReferralCtwaClid", "ctwa_clid"),
        ] {
            if let Some(text) = referral[ours].as_str() {
                put(theirs, text);
            }
        }
        put("ReferralNumMedia", "0");
    }
    let metadata = json!({"type": "whatsapp", "data": {"context": {
        "ProfileName": customer.name, "WaId": phone::digits(&customer.number)}}});
    put("ChannelMetadata", &metadata.to_string());
}

/// Reads the answer to an incoming message: TwiML and plain text are replies, JSON is a mistake
/// Twilio logs as 12300.
pub(crate) fn take_answer(world: &World, webhook: &Webhook, content_type: &str, body: &str) {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let words = match kind {
        _ if body.trim().is_empty() => return,
        "text/xml" | "application/xml" | "text/html" => twiml_messages(body),
        "text/plain" => vec![body.to_owned()],
        _ => {
            world.lock().record_alert(12_300, &webhook.url);
            return;
        }
    };
    let Ok((account, _)) = find_number(world, &webhook.line) else {
        return;
    };
    for text in words {
        reply(world, &account, &webhook.line, &webhook.customer, &text);
    }
}

/// The texts of `<Message>` elements, with or without `<Body>` inside.
fn twiml_messages(xml: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some((_, after)) = rest.split_once("<Message") {
        let Some((_, inside)) = after.split_once('>') else {
            break;
        };
        let Some((inner, tail)) = inside.split_once("</Message>") else {
            break;
        };
        let text = inner
            .split_once("<Body>")
            .and_then(|(_, body)| body.split_once("</Body>"))
            .map_or(inner, |(body, _)| body);
        let text = text
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&");
        if !text.trim().is_empty() {
            found.push(text.trim().to_owned());
        }
        rest = tail;
    }
    found
}

/// A message that goes out without an API request.
fn reply(world: &World, account: &TwilioAccount, line: &str, customer: &str, text: &str) {
    let channel = if line.starts_with("whatsapp:") {
        TwilioChannel::Whatsapp
    } else {
        TwilioChannel::Sms
    };
    let message = world.lock().insert_message(NewMessage {
        id: new_sid("SM"),
        provider: Provider::Twilio,
        line: line.to_owned(),
        customer: customer.to_owned(),
        origin: Origin::Reply,
        kind: "text".to_owned(),
        text: Some(text.to_owned()),
        content: Value::Null,
        tick: Tick::Accepted,
        context_id: None,
        reference: None,
        meta: None,
        twilio: Some(TwilioExtra {
            account_sid: account.account_sid.clone(),
            service_sid: None,
            status: "queued".to_owned(),
            from: Some(line.to_owned()),
            to: channel.address(customer),
            segments: callback::segments(text, channel),
            body: text.to_owned(),
            direction: "outbound-reply",
            media: Vec::new(),
            date_sent: None,
            status_callback: None,
            send_at: None,
            failure: None,
        }),
    });
    let id = message.id.clone();
    world.emit(Event::Message { message });
    callback::start_course(world, id, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twiml_replies_are_found_and_an_empty_response_is_none() {
        assert!(twiml_messages("<?xml version=\"1.0\"?><Response/>").is_empty());
        let two = "<Response><Message>a &amp; b</Message><Message to='x'><Body>c</Body></Message></Response>";
        assert_eq!(twiml_messages(two), ["a & b", "c"]);
    }
}
