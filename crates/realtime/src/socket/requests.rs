//! Reading what clients put into their messages.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::codec::{Body, BroadcastPayload};

/// The payload of a text message as `T`; `None` when it is something else.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a Body) -> Option<T> {
    match body {
        Body::Event { payload, .. } => serde_json::from_str(payload.get()).ok(),
        Body::Broadcast { .. } => None,
    }
}

/// The user's event and payload of a broadcast in either form.
pub(super) fn read_broadcast(body: &Body) -> Option<(String, BroadcastPayload)> {
    #[derive(Deserialize)]
    struct Text {
        event: String,
        payload: Option<Box<RawValue>>,
    }
    match body {
        Body::Broadcast { event, payload } => Some((event.clone(), payload.clone())),
        Body::Event { .. } => {
            let text: Text = parse(body)?;
            let payload = match text.payload {
                Some(payload) => payload,
                None => RawValue::from_string("{}".to_owned()).ok()?,
            };
            Some((text.event, BroadcastPayload::Json(payload)))
        }
    }
}

/// What a presence call tracks; `None` ends it.
pub(super) fn read_presence(
    body: &Body,
    max_bytes: usize,
) -> Result<Option<Map<String, Value>>, &'static str> {
    #[derive(Deserialize)]
    struct Call {
        event: String,
        payload: Option<Box<RawValue>>,
    }
    let call: Call = parse(body).ok_or("Malformed presence message")?;
    match call.event.to_ascii_lowercase().as_str() {
        "untrack" => Ok(None),
        "track" => {
            let payload = call.payload.ok_or("Presence payload must be an object")?;
            if payload.get().len() > max_bytes {
                return Err("Presence payload is too large");
            }
            serde_json::from_str(payload.get())
                .map(Some)
                .map_err(|_| "Presence payload must be an object")
        }
        _ => Err("Unknown presence event"),
    }
}
