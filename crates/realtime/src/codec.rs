//! The two serialisers of the Supabase Realtime protocol.
//!
//! Version 1.0.0 writes objects, version 2.0.0 arrays and two binary kinds for broadcasts. Decoding is total: whatever
//! a client sends gives a message or `None`, and `None` means that the frame is dropped while the socket lives on.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

/// First byte of a broadcast that a client sends.
const KIND_CLIENT_BROADCAST: u8 = 3;
/// First byte of a broadcast that the server sends. The client decodes no other binary kind.
const KIND_SERVER_BROADCAST: u8 = 4;
/// Encoding byte of a broadcast whose payload is plain bytes.
const ENCODING_RAW: u8 = 0;
/// Encoding byte of a broadcast whose payload is JSON.
const ENCODING_JSON: u8 = 1;

/// Protocol version, the `vsn` parameter of the socket's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vsn {
    /// Text frames with objects; what a URL without `vsn` means.
    V1,
    /// Text frames with arrays, and binary broadcasts.
    V2,
}

impl Vsn {
    /// Reads the `vsn` query parameter. An absent one means 1.0.0; an unknown version gives `None`.
    pub fn from_param(param: Option<&str>) -> Option<Self> {
        match param {
            None | Some("" | "1.0.0") => Some(Self::V1),
            Some("2.0.0") => Some(Self::V2),
            Some(_) => None,
        }
    }
}

/// One message from a client.
#[derive(Debug)]
pub struct Incoming {
    /// Reference of the join this message belongs to.
    pub join_ref: Option<String>,
    /// Reference that the answer must carry.
    pub reference: Option<String>,
    /// Full topic, such as `realtime:room`, or `phoenix` for heartbeats.
    pub topic: String,
    /// What the client wants.
    pub body: Body,
}

/// The event and the payload of a message from a client.
#[derive(Debug)]
pub enum Body {
    /// A text frame: the event's name and its payload as JSON text.
    Event {
        name: String,
        payload: Box<RawValue>,
    },
    /// A binary frame: a broadcast of the named user event.
    Broadcast {
        event: String,
        payload: BroadcastPayload,
    },
}

/// What a broadcast carries.
#[derive(Clone, Debug)]
pub enum BroadcastPayload {
    /// JSON text, passed on as it was written.
    Json(Box<RawValue>),
    /// Plain bytes. They can only reach sockets of version 2.0.0.
    Raw(Bytes),
}

impl BroadcastPayload {
    /// Size of the payload in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(json) => json.get().len(),
            Self::Raw(bytes) => bytes.len(),
        }
    }

    /// True for a payload of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Deserialize)]
struct ObjectFrame {
    topic: String,
    event: String,
    payload: Option<Box<RawValue>>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    join_ref: Option<String>,
}

type ArrayFrame = (
    Option<String>,
    Option<String>,
    String,
    String,
    Box<RawValue>,
);

/// Reads a text frame. `None` for anything that is not a message of this version.
pub fn decode_text(vsn: Vsn, text: &[u8]) -> Option<Incoming> {
    let (join_ref, reference, topic, name, payload) = match vsn {
        Vsn::V1 => {
            let frame: ObjectFrame = serde_json::from_slice(text).ok()?;
            let payload = match frame.payload {
                Some(payload) => payload,
                None => RawValue::from_string("null".to_owned()).ok()?,
            };
            (
                frame.join_ref,
                frame.reference,
                frame.topic,
                frame.event,
                payload,
            )
        }
        Vsn::V2 => serde_json::from_slice::<ArrayFrame>(text).ok()?,
    };
    Some(Incoming {
        join_ref,
        reference,
        topic,
        body: Body::Event { name, payload },
    })
}

/// Reads a binary frame: a broadcast of version 2.0.0. `None` for anything else.
pub fn decode_binary(vsn: Vsn, frame: &Bytes) -> Option<Incoming> {
    if vsn != Vsn::V2 {
        return None;
    }
    let header: [u8; 7] = frame.get(..7)?.try_into().ok()?;
    let [kind, join_ref, reference, topic, event, meta, encoding] = header;
    if kind != KIND_CLIENT_BROADCAST {
        return None;
    }
    let mut at = header.len();
    let mut string = |len: u8| {
        let end = at + usize::from(len);
        let text = std::str::from_utf8(frame.get(at..end)?).ok()?;
        at = end;
        Some(text.to_owned())
    };
    let join_ref = string(join_ref)?;
    let reference = string(reference)?;
    let topic = string(topic)?;
    let event = string(event)?;
    // The metadata speaks of storing the broadcast, which this server does not do.
    string(meta)?;
    let payload = frame.slice(at..);
    let payload = match encoding {
        ENCODING_RAW => BroadcastPayload::Raw(payload),
        ENCODING_JSON => BroadcastPayload::Json(serde_json::from_slice(&payload).ok()?),
        _ => return None,
    };
    Some(Incoming {
        join_ref: (!join_ref.is_empty()).then_some(join_ref),
        reference: (!reference.is_empty()).then_some(reference),
        topic,
        body: Body::Broadcast { event, payload },
    })
}

/// One text message to a client. `payload` must be JSON.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub join_ref: Option<&'a str>,
    pub reference: Option<&'a str>,
    pub topic: &'a str,
    pub event: &'a str,
    pub payload: &'a [u8],
}

impl Outgoing<'_> {
    /// The text frame of this message.
    pub fn encode(&self, vsn: Vsn) -> Bytes {
        let size = self.payload.len() + self.topic.len() + self.event.len() + 80;
        let mut out = BytesMut::with_capacity(size);
        match vsn {
            Vsn::V1 => {
                out.put_slice(b"{\"topic\":");
                put_string(&mut out, self.topic);
                out.put_slice(b",\"event\":");
                put_string(&mut out, self.event);
                out.put_slice(b",\"payload\":");
                out.put_slice(self.payload);
                out.put_slice(b",\"ref\":");
                put_optional(&mut out, self.reference);
                out.put_slice(b",\"join_ref\":");
                put_optional(&mut out, self.join_ref);
                out.put_u8(b'}');
            }
            Vsn::V2 => {
                out.put_u8(b'[');
                put_optional(&mut out, self.join_ref);
                out.put_u8(b',');
                put_optional(&mut out, self.reference);
                out.put_u8(b',');
                put_string(&mut out, self.topic);
                out.put_u8(b',');
                put_string(&mut out, self.event);
                out.put_u8(b',');
                out.put_slice(self.payload);
                out.put_u8(b']');
            }
        }
        out.freeze()
    }
}

/// The text payload of a broadcast: `{"type":"broadcast","event":…,"payload":…}`.
pub(crate) fn broadcast_payload(event: &str, payload: &RawValue) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.get().len() + event.len() + 48);
    out.put_slice(b"{\"type\":\"broadcast\",\"event\":");
    put_string(&mut out, event);
    out.put_slice(b",\"payload\":");
    out.put_slice(payload.get().as_bytes());
    out.put_u8(b'}');
    out.freeze()
}

/// The binary frame of a raw broadcast to a 2.0.0 socket. `None` when the topic or the event is longer than 255 bytes,
/// which the format cannot say.
pub fn encode_raw_broadcast(topic: &str, event: &str, payload: &[u8]) -> Option<Bytes> {
    let topic_len = u8::try_from(topic.len()).ok()?;
    let event_len = u8::try_from(event.len()).ok()?;
    let mut out = BytesMut::with_capacity(5 + topic.len() + event.len() + payload.len());
    out.put_slice(&[KIND_SERVER_BROADCAST, topic_len, event_len, 0, ENCODING_RAW]);
    out.put_slice(topic.as_bytes());
    out.put_slice(event.as_bytes());
    out.put_slice(payload);
    Some(out.freeze())
}

/// Appends a JSON string.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    put_json(out, text);
}

/// Appends any value as JSON.
pub(crate) fn put_json<T: serde::Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    let start = out.len();
    if let Err(error) = serde_json::to_writer(out.writer(), value) {
        // Strings and JSON values always serialise; a frame must stay well formed even if that were wrong.
        tracing::error!(%error, "a realtime value did not serialise");
        out.truncate(start);
        out.put_slice(b"null");
    }
}

fn put_optional(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client_broadcast(parts: [&str; 5], encoding: u8, payload: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(KIND_CLIENT_BROADCAST);
        for part in parts {
            out.put_u8(u8::try_from(part.len()).expect("short"));
        }
        out.put_u8(encoding);
        for part in parts {
            out.put_slice(part.as_bytes());
        }
        out.put_slice(payload);
        out.freeze()
    }

    fn text_of(body: &Body) -> (&str, &str) {
        match body {
            Body::Event { name, payload } => (name, payload.get()),
            Body::Broadcast { .. } => panic!("a text frame gave a binary broadcast"),
        }
    }

    #[test]
    fn the_join_that_was_captured_from_the_client_is_read() {
        let frame = br#"["6","6","realtime:x","phx_join",{"config":{"private":false}}]"#;
        let message = decode_text(Vsn::V2, frame).expect("valid");
        assert_eq!(message.join_ref.as_deref(), Some("6"));
        assert_eq!(message.reference.as_deref(), Some("6"));
        assert_eq!(message.topic, "realtime:x");
        assert_eq!(
            text_of(&message.body),
            ("phx_join", r#"{"config":{"private":false}}"#)
        );
    }

    #[test]
    fn a_binary_frame_to_a_version_one_socket_is_dropped() {
        let frame = client_broadcast(["1", "2", "realtime:x", "e", ""], ENCODING_RAW, b"x");
        assert!(decode_binary(Vsn::V1, &frame).is_none());
        assert!(decode_binary(Vsn::V2, &frame).is_some());
    }

    #[test]
    fn a_binary_broadcast_whose_json_is_broken_is_dropped() {
        let frame = client_broadcast(["1", "2", "realtime:x", "e", ""], ENCODING_JSON, b"{");
        assert!(decode_binary(Vsn::V2, &frame).is_none());
    }

    #[test]
    fn unknown_versions_are_not_guessed() {
        assert_eq!(Vsn::from_param(None), Some(Vsn::V1));
        assert_eq!(Vsn::from_param(Some("2.0.0")), Some(Vsn::V2));
        assert_eq!(Vsn::from_param(Some("3.0.0")), None);
    }

    proptest! {
        #[test]
        fn text_frames_survive_a_round_trip(
            v1: bool,
            join_ref in proptest::option::of(".*"),
            reference in proptest::option::of(".*"),
            topic in ".*",
            event in ".*",
            word in ".*",
        ) {
            let vsn = if v1 { Vsn::V1 } else { Vsn::V2 };
            let payload = serde_json::json!({ "word": word }).to_string();
            let frame = Outgoing {
                join_ref: join_ref.as_deref(),
                reference: reference.as_deref(),
                topic: &topic,
                event: &event,
                payload: payload.as_bytes(),
            }
            .encode(vsn);
            let message = decode_text(vsn, &frame).expect("own frames are valid");
            prop_assert_eq!(message.join_ref, join_ref);
            prop_assert_eq!(message.reference, reference);
            prop_assert_eq!(message.topic, topic);
            prop_assert_eq!(text_of(&message.body), (event.as_str(), payload.as_str()));
        }

        #[test]
        fn binary_broadcasts_survive_a_round_trip(
            join_ref in "[0-9]{1,9}",
            topic in "realtime:.{0,40}",
            event in ".{1,40}",
            meta in ".{0,40}",
            payload: Vec<u8>,
        ) {
            let frame = client_broadcast(
                [&join_ref, "7", &topic, &event, &meta],
                ENCODING_RAW,
                &payload,
            );
            let message = decode_binary(Vsn::V2, &frame).expect("valid");
            prop_assert_eq!(message.join_ref.as_deref(), Some(join_ref.as_str()));
            prop_assert_eq!(&message.topic, &topic);
            let Body::Broadcast { event: got, payload: BroadcastPayload::Raw(bytes) } = message.body else {
                panic!("not a raw broadcast");
            };
            prop_assert_eq!(&got, &event);
            prop_assert_eq!(&bytes[..], &payload[..]);

            let sent = encode_raw_broadcast(&topic, &event, &payload).expect("short names");
            prop_assert_eq!(sent[0], KIND_SERVER_BROADCAST);
            let (topic_end, event_end) = (5 + topic.len(), 5 + topic.len() + event.len());
            prop_assert_eq!(&sent[5..topic_end], topic.as_bytes());
            prop_assert_eq!(&sent[topic_end..event_end], event.as_bytes());
            prop_assert_eq!(&sent[event_end..], &payload[..]);
        }

        #[test]
        fn no_input_makes_the_decoder_panic(bytes: Vec<u8>, kind in 0u8..6) {
            let mut framed = vec![kind];
            framed.extend_from_slice(&bytes);
            for vsn in [Vsn::V1, Vsn::V2] {
                decode_text(vsn, &bytes);
                decode_binary(vsn, &Bytes::from(bytes.clone()));
                decode_binary(vsn, &Bytes::from(framed.clone()));
            }
        }
    }
}
