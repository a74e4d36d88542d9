//! From what was heard to events.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use wa::message::protocol_message::Type as ProtocolType;
use wasel_domain::event::{
    Actor, Edit, InboundMessage, Party, ProviderError, Reaction, Revoke, SamePerson, StatusEvent,
};
use wasel_domain::{MessageStatus, ProviderEvent};
use whatsapp_rust::prelude::wa;
use whatsapp_rust::waproto::codec;

use super::{Heard, Item, Receipt, content};

pub(super) fn of(item: &Item) -> Vec<ProviderEvent> {
    match item {
        Item::Message(heard) => message(heard),
        Item::Receipt { ids, receipt, at } => ids
            .iter()
            .map(|id| status(id, *receipt, time(*at)))
            .collect(),
        Item::Nack { id, code, at } => vec![ProviderEvent::Status(StatusEvent {
            provider_message_id: id.clone(),
            attempt_id: None,
            status: MessageStatus::Failed,
            at: time(*at),
            error: Some(ProviderError {
                code: code.clone(),
                message: refusal(code).to_owned(),
            }),
            detail: Value::Null,
        })],
        Item::NumberChanged { before, now, at } => vec![ProviderEvent::SamePerson(SamePerson {
            known: before.identities(),
            now: now.identities(),
            text: None,
            provider_message_id: None,
            at: time(*at),
        })],
    }
}

/// Why WhatsApp's server does not take a message. The codes are the ones its web client knows
/// (`WAWebSendMsgErrors`).
fn refusal(code: &str) -> &'static str {
    match code {
        "463" => "WhatsApp does not let this account start new chats for now",
        "479" => "WhatsApp could not read the message",
        "404" => "WhatsApp does not know the recipient",
        "429" => "WhatsApp asks for a slower pace",
        _ => "WhatsApp refused the message",
    }
}

/// Seconds of WhatsApp's clock.
fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

pub(crate) fn receipt(ids: Vec<String>, receipt: Receipt, at: DateTime<Utc>) -> Item {
    Item::Receipt {
        ids,
        receipt,
        at: at.timestamp(),
    }
}

pub(crate) fn nack(id: String, code: String, at: DateTime<Utc>) -> Item {
    Item::Nack {
        id,
        code,
        at: at.timestamp(),
    }
}

fn status(id: &str, receipt: Receipt, at: DateTime<Utc>) -> ProviderEvent {
    ProviderEvent::Status(StatusEvent {
        provider_message_id: id.to_owned(),
        attempt_id: None,
        status: match receipt {
            Receipt::Delivered => MessageStatus::Delivered,
            Receipt::Read | Receipt::Played => MessageStatus::Read,
        },
        at,
        error: None,
        detail: if receipt == Receipt::Played {
            json!({"played": true})
        } else {
            Value::Null
        },
    })
}

fn message(heard: &Heard) -> Vec<ProviderEvent> {
    let decoded = BASE64_STANDARD
        .decode(&heard.message)
        .ok()
        .and_then(|bytes| codec::message_decode(&bytes).ok());
    decoded
        .map(|message| translate(heard, &message))
        .unwrap_or_default()
}

/// The events of a message whose protobuf is at hand.
pub(crate) fn translate(heard: &Heard, message: &wa::Message) -> Vec<ProviderEvent> {
    let inner = content::unwrap(message);
    let at = time(heard.at);
    let customer = || Party {
        identities: heard.who.identities(),
        name: heard.name.clone().filter(|name| !name.is_empty()),
    };

    if let Some(protocol) = inner.protocol_message.as_option() {
        let by = if heard.from_us {
            Actor::Us
        } else {
            Actor::Customer(customer())
        };
        return about_another(protocol, by, at).into_iter().collect();
    }
    if let Some(reaction) = inner.reaction_message.as_option() {
        let target = reaction.key.as_option().and_then(|key| key.id.clone());
        return target
            .map(|target_message_id| {
                ProviderEvent::Reaction(Reaction {
                    provider_message_id: heard.id.clone(),
                    target_message_id,
                    customer: customer(),
                    emoji: reaction.text.clone().filter(|emoji| !emoji.is_empty()),
                    at,
                    from_us: heard.from_us,
                })
            })
            .into_iter()
            .collect();
    }
    let Some(content) = content::read(inner) else {
        return Vec::new();
    };
    let context = content::context(inner);
    let inbound = InboundMessage {
        provider_message_id: heard.id.clone(),
        customer: customer(),
        sent_at: at,
        content,
        quoted_message_id: context.and_then(|context| context.stanza_id.clone()),
        thread_ids: Vec::new(),
        forwarded: context.is_some_and(|context| context.is_forwarded == Some(true)),
        referral: context.and_then(content::referral),
        group_id: heard.group.clone(),
        from_history: heard.from_history,
    };
    let mut events = vec![if heard.from_us {
        ProviderEvent::Echo(inbound)
    } else {
        ProviderEvent::Message(inbound)
    }];
    events.extend(heard.past.map(|past| status(&heard.id, past, at)));
    events
}

/// An edit or a deletion. Everything else of this family is between a phone and its linked devices.
fn about_another(
    protocol: &wa::message::ProtocolMessage,
    by: Actor,
    at: DateTime<Utc>,
) -> Option<ProviderEvent> {
    let target_message_id = protocol.key.as_option()?.id.clone()?;
    match protocol.r#type? {
        ProtocolType::REVOKE => Some(ProviderEvent::Revoke(Revoke {
            target_message_id,
            by,
            at,
        })),
        ProtocolType::MESSAGE_EDIT => {
            let edited = content::unwrap(protocol.edited_message.as_option()?);
            let content = content::read(edited)?;
            // Two edits within one second are two.
            let at = protocol
                .timestamp_ms
                .and_then(DateTime::from_timestamp_millis)
                .unwrap_or(at);
            Some(ProviderEvent::Edit(Edit {
                target_message_id,
                by,
                content,
                at,
            }))
        }
        _ => None,
    }
}
