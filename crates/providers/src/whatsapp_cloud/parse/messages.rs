//! One entry of `messages[]` or `message_echoes[]`, or of a history thread.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages>

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use wasel_domain::event::{
    Actor, Edit, InboundMessage, Party, ProviderEvent, Reaction, Revoke, SamePerson,
};
use wasel_domain::{MessageContent, MessageKind};

use super::Sink;
use super::content;
use super::json::Object;
use super::people::{Contacts, identities};

/// Who wrote a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    Customer,
    /// The business, from its phone.
    Business,
}

pub(super) fn received(raw: &RawValue, contacts: &Contacts<'_>, out: &mut Sink<'_>) {
    let Some(message) = Object::read(raw) else {
        return out.malformed("message", Some(raw));
    };
    let ids = ["from", "from_user_id", "from_parent_user_id"].map(|name| message.text(name));
    // A system message is about the person under `from`, and has no contacts.
    if message.text("type").as_deref() == Some("system") {
        return system(&message, out);
    }
    read(&message, contacts.party(&ids), Author::Customer, out);
}

pub(super) fn echoed(raw: &RawValue, contacts: &Contacts<'_>, out: &mut Sink<'_>) {
    let Some(message) = Object::read(raw) else {
        return out.malformed("message_echo", Some(raw));
    };
    let ids = ["to", "to_user_id", "to_parent_user_id"].map(|name| message.text(name));
    read(&message, contacts.party(&ids), Author::Business, out);
}

pub(super) fn read(message: &Object<'_>, customer: Party, author: Author, out: &mut Sink<'_>) {
    let id = message.string("id");
    let (Some(id), false) = (id, customer.identities.is_empty()) else {
        return out.malformed("message", Some(message.raw()));
    };
    let kind = message.text("type").unwrap_or_default();
    let at = message.time("timestamp");
    let event = match &*kind {
        "reaction" => reaction(message, &id, &customer, author, at),
        "edit" => edit(message, actor(author, &customer), at),
        "revoke" => revoke(message, actor(author, &customer), at),
        _ => None,
    };
    let event = event.unwrap_or_else(|| {
        // What could not be read is still shown to the agent as "something came".
        let content =
            content::read(message, &kind).unwrap_or_else(|| content::unsupported(message, &kind));
        let message = with_content(message, id, customer, at, content);
        match author {
            Author::Customer => ProviderEvent::Message(message),
            Author::Business => ProviderEvent::Echo(message),
        }
    });
    out.push(event);
}

fn with_content(
    message: &Object<'_>,
    id: String,
    customer: Party,
    at: DateTime<Utc>,
    content: MessageContent,
) -> InboundMessage {
    let context = message.object("context");
    let context = context.as_ref();
    let is_set = |name: &str| context.is_some_and(|context| context.flag(name));
    InboundMessage {
        provider_message_id: id,
        customer,
        sent_at: at,
        content,
        quoted_message_id: context.and_then(|context| context.string("id")),
        thread_ids: Vec::new(),
        forwarded: is_set("forwarded") || is_set("frequently_forwarded"),
        referral: message.value("referral"),
        group_id: message.string("group_id"),
        from_history: false,
    }
}

/// No emoji, or an empty one: the reaction was taken back.
fn reaction(
    message: &Object<'_>,
    id: &str,
    customer: &Party,
    author: Author,
    at: DateTime<Utc>,
) -> Option<ProviderEvent> {
    let reaction = message.object("reaction")?;
    Some(ProviderEvent::Reaction(Reaction {
        provider_message_id: id.to_owned(),
        target_message_id: reaction.string("message_id")?,
        customer: customer.clone(),
        emoji: reaction.string("emoji"),
        at,
        from_us: author == Author::Business,
    }))
}

fn actor(author: Author, customer: &Party) -> Actor {
    match author {
        Author::Customer => Actor::Customer(customer.clone()),
        Author::Business => Actor::Us,
    }
}

fn edit(message: &Object<'_>, by: Actor, at: DateTime<Utc>) -> Option<ProviderEvent> {
    let edit = message.object("edit")?;
    let edited = edit.object("message")?;
    let kind = edited.text("type")?;
    Some(ProviderEvent::Edit(Edit {
        target_message_id: edit.string("original_message_id")?,
        by,
        content: content::read(&edited, &kind)?,
        at,
    }))
}

fn revoke(message: &Object<'_>, by: Actor, at: DateTime<Utc>) -> Option<ProviderEvent> {
    let revoke = message.object("revoke")?;
    Some(ProviderEvent::Revoke(Revoke {
        target_message_id: revoke.string("original_message_id")?,
        by,
        at,
    }))
}

/// "… changed their number": the old ids are the sender's, the new ones are in `system`. The words are shown in
/// the conversation as a message of their own.
fn system(message: &Object<'_>, out: &mut Sink<'_>) {
    let id = message.string("id");
    let at = message.time("timestamp");
    let old = ["from", "from_user_id", "from_parent_user_id"].map(|name| message.text(name));
    let mut known = identities(old.iter().map(Option::as_deref));
    let mut now = Vec::new();
    let mut text = None;
    let mut detail = serde_json::Value::Null;
    if let Some(system) = message.object("system") {
        let earlier = ["previous_user_id", "previous_wa_id"].map(|name| system.text(name));
        let later =
            ["wa_id", "new_wa_id", "user_id", "parent_user_id"].map(|name| system.text(name));
        known.extend(identities(earlier.iter().map(Option::as_deref)));
        now = identities(later.iter().map(Option::as_deref));
        text = system.string("body");
        detail = system.to_value();
    }

    let is_news = !known.is_empty() && now.iter().any(|identity| !known.contains(identity));
    if is_news {
        out.push(ProviderEvent::SamePerson(SamePerson {
            known: known.clone(),
            now: now.clone(),
            text: text.clone(),
            provider_message_id: id.clone(),
            at,
        }));
    }
    let identities = if known.is_empty() { now } else { known };
    let (Some(id), false) = (id, identities.is_empty()) else {
        if !is_news {
            out.malformed("message", Some(message.raw()));
        }
        return;
    };
    let customer = Party {
        identities,
        name: None,
    };
    let content = MessageContent {
        kind: MessageKind::System,
        text,
        media: Vec::new(),
        detail,
    };
    let message = with_content(message, id, customer, at, content);
    out.push(ProviderEvent::Message(message));
}
