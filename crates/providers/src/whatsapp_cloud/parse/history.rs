//! The past of a number that is used from the phone app too, in chunks that come in any order.

use serde_json::value::RawValue;
use wasel_domain::event::{ProviderEvent, StatusEvent};
use wasel_domain::{E164, MessageStatus};

use super::json::Object;
use super::messages::{self, Author};
use super::people::Contacts;
use super::{Sink, account};

pub(super) fn read(
    raw: &RawValue,
    value: &Object<'_>,
    contacts: &Contacts<'_>,
    out: &mut Sink<'_>,
) {
    let Some(chunk) = Object::read(raw) else {
        return out.malformed("history", Some(raw));
    };
    // 2593109: the business declined to share its history.
    for error in chunk.list("errors") {
        account::error("history", error, out);
    }
    if let Some(progress) = chunk.value("metadata") {
        out.notice("history", false, progress);
    }
    let metadata = value.object("metadata");
    let our_number = metadata.and_then(|metadata| metadata.string("display_phone_number"));
    for thread in chunk.list("threads") {
        let Some(thread) = Object::read(thread) else {
            out.malformed("history_thread", Some(thread));
            continue;
        };
        for message in thread.list("messages") {
            match Object::read(message) {
                Some(message) => past_message(
                    &message,
                    &thread,
                    our_number.as_deref().unwrap_or_default(),
                    contacts,
                    out,
                ),
                None => out.malformed("message", Some(message)),
            }
        }
    }
}

fn past_message(
    message: &Object<'_>,
    thread: &Object<'_>,
    our_number: &str,
    contacts: &Contacts<'_>,
    out: &mut Sink<'_>,
) {
    let author = author(message, thread, our_number);
    let [id, user_id] = match author {
        Author::Customer => ["from", "from_user_id"],
        Author::Business => ["to", "to_user_id"],
    };
    // The thread is named after the customer.
    let ids = [thread.text("id"), message.text(id), message.text(user_id)];
    messages::read(message, contacts.party(ids), author, out);
    if author == Author::Business {
        past_status(message, out);
    }
}

fn author(message: &Object<'_>, thread: &Object<'_>, our_number: &str) -> Author {
    let from = message.text("from");
    let is_addressed = message.get("to").or(message.get("to_user_id")).is_some();
    match from {
        Some(from) if thread.text("id").as_ref() == Some(&from) => Author::Customer,
        Some(from) if is_addressed || is_same_number(&from, our_number) => Author::Business,
        None if is_addressed => Author::Business,
        _ => Author::Customer,
    }
}

fn is_same_number(wa_id: &str, displayed: &str) -> bool {
    let digits: String = displayed.chars().filter(char::is_ascii_digit).collect();
    E164::from_wa_id(wa_id).is_ok_and(|number| number.digits() == digits)
}

/// How far a message of ours had come when the history was made.
fn past_status(message: &Object<'_>, out: &mut Sink<'_>) {
    let context = message.object("history_context");
    let word = context.and_then(|context| context.string("status"));
    let status = match word.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("delivered") => MessageStatus::Delivered,
        Some("read" | "played") => MessageStatus::Read,
        _ => return,
    };
    if let Some(id) = message.string("id") {
        out.push(ProviderEvent::Status(StatusEvent {
            provider_message_id: id,
            attempt_id: None,
            status,
            at: message.time("timestamp"),
            error: None,
            detail: serde_json::Value::Null,
        }));
    }
}
