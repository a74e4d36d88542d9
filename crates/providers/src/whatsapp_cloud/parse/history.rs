//! The past of a number that is used from the phone app too, in chunks that come in any order.

use std::borrow::Cow;

use serde_json::value::RawValue;
use wasel_domain::MessageStatus;
use wasel_domain::event::{ProviderEvent, StatusEvent};

use super::json::Object;
use super::messages::{self, Author};
use super::people::Contacts;
use super::{Sink, account};

pub(super) fn read(
    chunks: Vec<&RawValue>,
    our_number: &str,
    contacts: &Contacts<'_>,
    out: &mut Sink<'_>,
) {
    let our_number: String = our_number.chars().filter(char::is_ascii_digit).collect();
    for chunk in chunks {
        match Object::read(chunk) {
            Some(chunk) => read_chunk(&chunk, &our_number, contacts, out),
            None => out.malformed("history", Some(chunk)),
        }
    }
}

fn read_chunk(chunk: &Object<'_>, our_number: &str, contacts: &Contacts<'_>, out: &mut Sink<'_>) {
    // 2593109: the business declined to share its history.
    for error in chunk.list("errors") {
        account::error("history", error, out);
    }
    if let Some(progress) = chunk.value("metadata") {
        out.notice("history", false, progress);
    }
    for thread in chunk.list("threads") {
        let Some(thread) = Object::read(thread) else {
            out.malformed("history_thread", Some(thread));
            continue;
        };
        // The thread is named after the customer.
        let customer = thread.text("id");
        for message in thread.list("messages") {
            match Object::read(message) {
                Some(message) => {
                    past_message(&message, customer.as_deref(), our_number, contacts, out);
                }
                None => out.malformed("message", Some(message)),
            }
        }
    }
}

fn past_message(
    message: &Object<'_>,
    customer: Option<&str>,
    our_number: &str,
    contacts: &Contacts<'_>,
    out: &mut Sink<'_>,
) {
    let author = author(message, customer, our_number);
    let [id, user_id] = match author {
        Author::Customer => ["from", "from_user_id"],
        Author::Business => ["to", "to_user_id"],
    };
    let ids = [
        customer.map(Cow::Borrowed),
        message.text(id),
        message.text(user_id),
    ];
    messages::read(message, contacts.party(&ids), author, out);
    if author == Author::Business {
        past_status(message, out);
    }
}

fn author(message: &Object<'_>, customer: Option<&str>, our_number: &str) -> Author {
    let from = message.text("from");
    let is_addressed = message.get("to").or(message.get("to_user_id")).is_some();
    match from.as_deref() {
        Some(from) if customer == Some(from) => Author::Customer,
        Some(from) if is_addressed || from == our_number => Author::Business,
        None if is_addressed => Author::Business,
        _ => Author::Customer,
    }
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
