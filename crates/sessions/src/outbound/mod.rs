//! From a message of ours to WhatsApp's, and what became of it.

mod cards;
mod compose;
mod fallback;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wasel_domain::event::Identity;
use wasel_domain::{E164, OutboundContent};
use whatsapp_rust::Jid;
use whatsapp_rust::wacore_binary::JidExt as _;

#[cfg(test)]
use compose::Stored;
pub(crate) use compose::{check, compose, upload_type};

/// A message to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Our message's id. WhatsApp's id of the message is made of it, so that each attempt at one message carries the
    /// same and a recipient shows it once.
    pub message_id: Uuid,
    pub to: Recipient,
    pub content: OutboundContent,
    /// The file of an image, a video, an audio, a document or a sticker.
    pub media: Option<MediaFile>,
    pub quoted: Option<Quoted>,
}

/// Whom to write to. Its JSON is `{"phone": "+20…"}`, `{"jid": "…"}`, `{"lid": "…"}` or `{"group": "…@g.us"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    Phone(E164),
    /// `201012345678@s.whatsapp.net`.
    Jid(String),
    /// `123456789012345@lid`; the suffix may be missing.
    Lid(String),
    /// `120363…@g.us`.
    Group(String),
}

#[derive(Clone, Debug)]
pub struct MediaFile {
    pub bytes: Bytes,
    pub mime_type: String,
}

/// The message that is answered, or, for a reaction, the one reacted to (WhatsApp wants to know who wrote it).
#[derive(Clone, Debug)]
pub struct Quoted {
    pub provider_message_id: String,
    pub from_us: bool,
    /// Its text, to show above the answer.
    pub text: Option<String>,
    /// Who wrote it, in a group: their JID or LID.
    pub participant: Option<String>,
}

/// WhatsApp's server took the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub provider_message_id: String,
    /// How the recipient is known, as far as the session learnt.
    pub recipient: Vec<Identity>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// No connection to WhatsApp from this node; nothing was sent.
    #[error("the linked phone is not connected")]
    NotConnected,
    /// WhatsApp asks for a slower pace; nothing was sent.
    #[error("WhatsApp asks for a slower pace")]
    Throttled,
    #[error("the number is not on WhatsApp")]
    NotOnWhatsapp,
    /// The message cannot be sent like this.
    #[error("{field}: {reason}")]
    Content { field: &'static str, reason: String },
    /// WhatsApp's server refused the message: 463 is the limit on new chats, 479 a message it cannot read.
    #[error("WhatsApp refused the message ({code})")]
    Nack { code: u16 },
    /// It may have been sent. Trying again with the same id is harmless.
    #[error("no answer from WhatsApp")]
    Ambiguous,
    /// Another node runs the session by now; nothing was sent.
    #[error("the session moved to another node")]
    LeaseLost,
    /// Nothing was sent; trying again later may work.
    #[error("{0}")]
    Transient(String),
}

impl Recipient {
    /// The address; [`Recipient::Phone`] may turn out to have another one.
    pub(crate) fn jid(&self) -> Result<Jid, SendFailure> {
        let bad = || SendFailure::Content {
            field: "to",
            reason: "not an address at WhatsApp".to_owned(),
        };
        match self {
            Self::Phone(phone) => Ok(Jid::pn(phone.digits())),
            Self::Jid(jid) => jid.parse().map_err(|_| bad()),
            Self::Lid(lid) if lid.contains('@') => {
                lid.parse::<Jid>().ok().filter(Jid::is_lid).ok_or_else(bad)
            }
            Self::Lid(lid) if lid.bytes().all(|b| b.is_ascii_digit()) && !lid.is_empty() => {
                Ok(Jid::lid(lid.as_str()))
            }
            Self::Group(group) => group
                .parse::<Jid>()
                .ok()
                .filter(|jid| jid.is_group())
                .ok_or_else(bad),
            Self::Lid(_) => Err(bad()),
        }
    }
}

/// WhatsApp's id of a message of ours.
pub(crate) fn provider_message_id(message: Uuid) -> String {
    message.simple().to_string().to_ascii_uppercase()
}

/// Whether an id was made by [`provider_message_id`]; those of edits and receipts are others.
pub(crate) fn is_ours(id: &str) -> bool {
    id.len() == 32
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

#[cfg(test)]
mod tests;
