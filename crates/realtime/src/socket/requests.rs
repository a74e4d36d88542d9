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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Vsn, decode_binary, decode_text};

    fn body(payload: &str) -> Option<Body> {
        let frame = format!(r#"["1","2","realtime:x","presence",{payload}]"#);
        decode_text(Vsn::V2, frame.as_bytes()).map(|message| message.body)
    }

    #[test]
    fn what_is_tracked_is_an_object_of_bounded_size() {
        let read = |payload: &str, max| read_presence(&body(payload).expect("a frame"), max);
        let track = |payload: &str| format!(r#"{{"event":"track","payload":{payload}}}"#);
        let tracked = read(&track(r#"{"a":1}"#), 100).expect("an object");
        assert_eq!(tracked.expect("tracked").len(), 1);
        assert_eq!(read(r#"{"event":"untrack"}"#, 100), Ok(None));
        for bad in ["[1]", "1", "\"x\"", "null"] {
            assert!(read(&track(bad), 100).is_err(), "{bad}");
        }
        assert!(read(&track(r#"{"a":1}"#), 3).is_err());
        assert!(read(r#"{"event":"other"}"#, 100).is_err());
        assert!(read("7", 100).is_err());
    }

    proptest! {
        #[test]
        fn no_payload_makes_the_readers_panic(
            text in ".{0,80}",
            event in "(track|untrack|.{0,8})",
            lengths: [u8; 5],
            encoding in 0u8..3,
            rest: Vec<u8>,
        ) {
            let event = serde_json::to_string(&event).expect("JSON");
            let quoted = serde_json::to_string(&text).expect("JSON");
            for payload in [
                text.clone(),
                quoted.clone(),
                format!(r#"{{"event":{event},"payload":{text}}}"#),
                format!(r#"{{"event":{event},"payload":{{"a":{quoted}}}}}"#),
            ] {
                if let Some(body) = body(&payload) {
                    read_broadcast(&body);
                    read_presence(&body, 40).ok();
                }
            }
            let mut frame = vec![3];
            frame.extend(lengths.map(|length| length % 16));
            frame.push(encoding);
            frame.extend(rest);
            if let Some(message) = decode_binary(Vsn::V2, &Bytes::from(frame)) {
                read_broadcast(&message.body);
                prop_assert!(read_presence(&message.body, 40).is_err());
            }
        }
    }
}
