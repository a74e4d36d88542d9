//! The other servers of an installation: what they tell each other, so that a person on one hears the people on another.
//!
//! Delivery is best effort, like broadcast itself: each message at most once, those of one node in order. Changes of rows
//! need none of this; every node follows the change log by itself.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::codec::BroadcastPayload;

/// Carries messages to the other nodes. The server implements it over whatever the nodes share.
pub trait Peers: Send + Sync {
    /// Whether any other node is there to hear. Nothing is encoded or sent while there is none.
    fn any(&self) -> bool;

    /// Hands a message over; must not wait.
    fn send(&self, message: &PeerMessage);

    /// Messages that could not be carried, since the start.
    fn dropped(&self) -> u64;
}

/// What a node tells the others.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// A broadcast on a topic, named as on the wire.
    Broadcast {
        org_id: Uuid,
        topic: TopicName,
        event: String,
        payload: BroadcastPayload,
    },
    /// A channel tracks this now; without `meta` it no longer does.
    Presence { org_id: Uuid, entry: PresenceEntry },
    /// All that is tracked on this node follows, up to [`Self::Introduced`].
    Introducing,
    /// Some of what the channels of a tenant track on this node.
    Presences {
        org_id: Uuid,
        entries: Vec<PresenceEntry>,
    },
    /// What was not mentioned since [`Self::Introducing`] is tracked no more.
    Introduced,
    /// Tokens of a person, or of all, are to be verified again.
    Recheck { org_id: Uuid, user_id: Option<Uuid> },
}

/// A topic and its namespace: a private topic is another than the public one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TopicName {
    pub name: String,
    pub private: bool,
}

/// What one channel of one socket tracks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PresenceEntry {
    pub topic: TopicName,
    pub key: String,
    /// Number of the socket on its node.
    pub socket: u64,
    pub meta: Option<Map<String, Value>>,
}

/// The head of an encoded message; a broadcast's payload follows it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Head {
    Broadcast {
        org_id: Uuid,
        topic: TopicName,
        event: String,
        is_json: bool,
    },
    Presence {
        org_id: Uuid,
        entry: PresenceEntry,
    },
    Presences {
        org_id: Uuid,
        entries: Vec<PresenceEntry>,
    },
    Introducing,
    Introduced,
    Recheck {
        org_id: Uuid,
        user_id: Option<Uuid>,
    },
}

impl PeerMessage {
    /// How the head of an encoded broadcast begins, after the four bytes of its length.
    pub const BROADCAST_PREFIX: &[u8] = b"{\"broadcast\":";

    /// Bytes for the way: the length of the head in four bytes, the head as JSON, the payload.
    pub fn encode(&self) -> Vec<u8> {
        let (head, payload) = match self.clone() {
            Self::Broadcast {
                org_id,
                topic,
                event,
                payload,
            } => {
                let is_json = matches!(payload, BroadcastPayload::Json(_));
                let bytes = match payload {
                    BroadcastPayload::Json(json) => Bytes::from(json.get().to_owned()),
                    BroadcastPayload::Raw(bytes) => bytes,
                };
                let head = Head::Broadcast {
                    org_id,
                    topic,
                    event,
                    is_json,
                };
                (head, bytes)
            }
            Self::Presence { org_id, entry } => (Head::Presence { org_id, entry }, Bytes::new()),
            Self::Presences { org_id, entries } => {
                (Head::Presences { org_id, entries }, Bytes::new())
            }
            Self::Introducing => (Head::Introducing, Bytes::new()),
            Self::Introduced => (Head::Introduced, Bytes::new()),
            Self::Recheck { org_id, user_id } => (Head::Recheck { org_id, user_id }, Bytes::new()),
        };
        let mut out = vec![0; 4];
        if let Err(error) = serde_json::to_writer(&mut out, &head) {
            // Strings, numbers and JSON always serialise; what is left then means nothing to the reader.
            tracing::error!(%error, "a message to other nodes did not serialise");
            return Vec::new();
        }
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&payload);
        out
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else, such as the words of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
        let end = 4usize.checked_add(usize::try_from(length).ok()?)?;
        let head: Head = serde_json::from_slice(bytes.get(4..end)?).ok()?;
        Some(match head {
            Head::Broadcast {
                org_id,
                topic,
                event,
                is_json,
            } => {
                let payload = bytes.get(end..)?;
                let payload = if is_json {
                    let text = std::str::from_utf8(payload).ok()?.to_owned();
                    BroadcastPayload::Json(RawValue::from_string(text).ok()?)
                } else {
                    BroadcastPayload::Raw(Bytes::copy_from_slice(payload))
                };
                Self::Broadcast {
                    org_id,
                    topic,
                    event,
                    payload,
                }
            }
            Head::Presence { org_id, entry } => Self::Presence { org_id, entry },
            Head::Presences { org_id, entries } => Self::Presences { org_id, entries },
            Head::Introducing => Self::Introducing,
            Head::Introduced => Self::Introduced,
            Head::Recheck { org_id, user_id } => Self::Recheck { org_id, user_id },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_way(name in ".*", event in ".*", word in ".*", raw: Vec<u8>, private: bool, json: bool) {
            let payload = if json {
                BroadcastPayload::Json(serde_json::value::to_raw_value(&word).expect("JSON"))
            } else {
                BroadcastPayload::Raw(Bytes::from(raw))
            };
            let message = PeerMessage::Broadcast {
                org_id: Uuid::from_u128(7),
                topic: TopicName { name, private },
                event,
                payload,
            };
            prop_assert!(message.encode()[4..].starts_with(PeerMessage::BROADCAST_PREFIX));
            let again = PeerMessage::decode(&message.encode()).expect("own messages are valid");
            prop_assert_eq!(format!("{message:?}"), format!("{again:?}"));
        }

        #[test]
        fn no_input_makes_the_reader_panic(bytes: Vec<u8>, length in 0u32..64) {
            PeerMessage::decode(&bytes);
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            PeerMessage::decode(&framed);
        }
    }

    #[test]
    fn presence_survives_the_way() {
        let entry = PresenceEntry {
            topic: TopicName {
                name: "realtime:online".to_owned(),
                private: true,
            },
            key: "k".to_owned(),
            socket: 5,
            meta: Some(Map::from_iter([("a".to_owned(), Value::from(1))])),
        };
        let message = PeerMessage::Presences {
            org_id: Uuid::nil(),
            entries: vec![entry.clone()],
        };
        assert!(!message.encode()[4..].starts_with(PeerMessage::BROADCAST_PREFIX));
        match PeerMessage::decode(&message.encode()) {
            Some(PeerMessage::Presences { entries, .. }) => assert_eq!(entries, [entry]),
            other => panic!("{other:?}"),
        }
    }
}
