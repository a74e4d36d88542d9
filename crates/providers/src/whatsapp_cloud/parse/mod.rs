//! Webhooks to events.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview>
//!
//! One request holds any number of entries (accounts), each any number of changes, each any number of messages,
//! statuses and errors. Whatever is not understood becomes an event that says so; only a body that is no webhook
//! at all is an error. Nothing here reads a clock: the same bytes always give the same events.
//!
//! - [`json`]: lenient reading of single members
//! - [`people`]: who an event is about
//! - [`messages`], [`content`], [`history`]: conversations
//! - [`statuses`]: what became of our messages
//! - [`templates`]: news about message templates
//! - [`account`]: everything else

mod account;
mod content;
mod history;
mod json;
mod messages;
mod people;
mod statuses;
mod templates;

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wasel_domain::event::{Notice, ProviderEvent, RoutedEvent};

pub(super) use people::identities;

use crate::ParseError;
use json::{Object, repaired, text_of, value_of};
use people::Contacts;

/// More than fit into the 3 MB that Meta sends at most, in entries of real length. An event takes a hundred times
/// the memory of the shortest entry, and the body is not yet known to be Meta's.
const MAX_EVENTS: usize = 50_000;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    object: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entry: Option<Vec<Entry<'a>>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    /// The WABA.
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    /// When it happened, in seconds.
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    changes: Option<Vec<Change<'a>>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    field: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

pub(super) fn phone_route(phone_number_id: &str) -> String {
    format!("meta:phone:{phone_number_id}")
}

pub(super) fn waba_route(waba_id: &str) -> String {
    format!("meta:waba:{waba_id}")
}

/// Meta's ids are digits; its samples have words. Short, for the route goes into every event.
fn is_graph_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 64
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

pub(super) fn parse(body: &[u8]) -> Result<Vec<RoutedEvent>, ParseError> {
    let body = repaired(body);
    let envelope: Envelope<'_> = serde_json::from_slice(&body).map_err(|error| describe(&error))?;
    if envelope.object.as_deref() != Some("whatsapp_business_account") {
        return Err(ParseError(
            "`object` is not `whatsapp_business_account`".to_owned(),
        ));
    }
    let entries = envelope
        .entry
        .ok_or_else(|| ParseError("`entry` is missing".to_owned()))?;

    let mut events = Vec::new();
    for entry in entries {
        let waba_id = entry.id.and_then(text_of).filter(|id| is_graph_id(id));
        let at = entry.time.map_or(DateTime::UNIX_EPOCH, json::time_of);
        for change in entry.changes.unwrap_or_default() {
            read_change(&change, waba_id.as_deref(), at, &mut events);
        }
    }
    if events.len() > MAX_EVENTS {
        return Err(ParseError(format!("holds more than {MAX_EVENTS} events")));
    }
    Ok(events)
}

fn read_change(
    change: &Change<'_>,
    waba_id: Option<&str>,
    at: DateTime<Utc>,
    events: &mut Vec<RoutedEvent>,
) {
    let field = change.field.as_deref().unwrap_or("unknown");
    let mut out = Sink {
        routes: Vec::with_capacity(1),
        events,
    };
    let value = change.value.and_then(Object::read);
    let metadata = value.as_ref().and_then(|value| value.object("metadata"));
    let metadata = metadata.as_ref();
    let number_id = metadata.and_then(|metadata| metadata.text("phone_number_id"));
    let number_id = number_id.filter(|id| is_graph_id(id));
    // What names a number is for that number alone: an unknown one must not fall to another of the same account.
    out.routes.extend(match number_id.as_deref() {
        Some(number_id) => Some(phone_route(number_id)),
        None => waba_id.map(waba_route),
    });

    let Some(value) = value else {
        return out.malformed(field, change.value);
    };
    match field {
        "messages" | "smb_message_echoes" | "message_echoes" | "history" => {
            let contacts = Contacts::read(&value);
            for message in value.list("messages") {
                messages::received(message, &contacts, &mut out);
            }
            for status in value.list("statuses") {
                statuses::read(status, &mut out);
            }
            for echo in value.list("message_echoes") {
                messages::echoed(echo, &contacts, &mut out);
            }
            let chunks = value.list("history");
            if !chunks.is_empty() {
                let our_number =
                    metadata.and_then(|metadata| metadata.string("display_phone_number"));
                let our_number = our_number.unwrap_or_default();
                history::read(chunks, &our_number, &contacts, &mut out);
            }
            for error in value.list("errors") {
                account::error(field, error, &mut out);
            }
        }
        "user_preferences" => account::preferences(&value, &mut out),
        "user_id_update" => account::user_ids(&value, &mut out),
        "account_update" => account::update(&value, &mut out),
        field if templates::FIELDS.contains(&field) => {
            templates::update(field, &value, at, &mut out);
        }
        _ => out.notice(field, false, value.to_value()),
    }
}

/// Collects the events of one change.
struct Sink<'a> {
    routes: Vec<String>,
    events: &'a mut Vec<RoutedEvent>,
}

impl Sink<'_> {
    fn push(&mut self, event: ProviderEvent) {
        if self.events.len() > MAX_EVENTS {
            // One too many already: the whole is refused.
            return;
        }
        self.events.push(RoutedEvent {
            routes: self.routes.clone(),
            event,
        });
    }

    fn notice(&mut self, topic: &str, pauses_channel: bool, detail: Value) {
        self.push(ProviderEvent::Notice(Notice {
            topic: topic.to_owned(),
            pauses_channel,
            detail,
        }));
    }

    /// Says that a part of the webhook could not be read and keeps it, so that the parts beside it are not lost.
    fn malformed(&mut self, part: &str, raw: Option<&RawValue>) {
        let detail = json!({"part": part, "raw": raw.map_or(Value::Null, value_of)});
        self.notice("malformed", false, detail);
    }
}

/// Where the JSON breaks. Not the parser's own words: they quote the body.
fn describe(error: &serde_json::Error) -> ParseError {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the JSON ends too early",
        serde_json::error::Category::Data => "the JSON has another shape than a webhook",
        _ => "the body is not JSON",
    };
    ParseError(format!(
        "{what}, at line {} column {}",
        error.line(),
        error.column()
    ))
}
