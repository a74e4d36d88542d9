//! From WhatsApp's messages and receipts to events.
//!
//! What a session hears becomes a [`Record`] first, which holds everything its events are made of. The record is what
//! the ledger keeps, so a replay goes the same way as the first time.

mod content;
mod events;
mod heard;
mod history;
mod people;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wasel_domain::ProviderEvent;

pub(crate) use events::{nack, receipt, translate};
pub(crate) use heard::heard;
pub(crate) use history::{Limits as HistoryLimits, read as read_history};
pub(crate) use people::{Who, party_of};

/// The form of the records; older ones stay readable.
const FORM: u8 = 1;

/// One body of the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    linked_phone: u8,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Item {
    Message(Heard),
    /// Messages of ours moved on.
    Receipt {
        ids: Vec<String>,
        receipt: Receipt,
        /// Unix seconds.
        at: i64,
    },
    /// WhatsApp's server refused a message of ours after all.
    Nack {
        id: String,
        code: String,
        at: i64,
    },
    /// Somebody changed their number.
    NumberChanged {
        before: Who,
        now: Who,
        at: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Receipt {
    Delivered,
    Read,
    Played,
}

/// A message with what its stanza said about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) id: String,
    /// The customer, whoever wrote.
    pub(crate) who: Who,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The group's JID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// The phone's owner wrote it, on the phone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) from_us: bool,
    /// Unix seconds.
    pub(crate) at: i64,
    /// The protobuf of the message, base64.
    pub(crate) message: String,
    /// Said before the phone was linked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) from_history: bool,
    /// From the phone's history: how far a message of ours had come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) past: Option<Receipt>,
}

impl Record {
    pub(crate) fn new(items: Vec<Item>) -> Self {
        Self {
            linked_phone: FORM,
            items,
        }
    }

    pub(crate) fn events(&self) -> Vec<ProviderEvent> {
        self.items.iter().flat_map(events::of).collect()
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        // Strings, numbers and lists of them always serialise.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not a linked phone's record: {0}")]
pub struct ReplayError(String);

/// Reads a record of the ledger ([`crate::Host::commit`]'s `raw`) into the events it held.
pub fn replay(raw: &[u8]) -> Result<Vec<ProviderEvent>, ReplayError> {
    let record: Record =
        serde_json::from_slice(raw).map_err(|error| ReplayError(error.to_string()))?;
    if record.linked_phone != FORM {
        return Err(ReplayError(format!("unknown form {}", record.linked_phone)));
    }
    Ok(record.events())
}

#[cfg(test)]
mod tests;
