//! The inbound path: never lose, never double.
//!
//! Requests that are waiting are grouped into one transaction, and each is answered after the commit. Nothing
//! waits on a timer: an idle writer takes the first request at once, and what arrives while it commits forms the
//! next group. Writers are split by tenant, so two of them never touch the same rows.

mod batch;
mod resolve;
mod templates;

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc, oneshot};
use wasel_domain::{ChannelId, EventId, OrgId, ProviderEvent};

use crate::{Db, Error};
use batch::Writer;

/// Requests waiting per writer before we answer "try again later": bounds memory when the database stalls.
const QUEUE: usize = 2048;
/// Requests in one transaction.
const MAX_GROUP: usize = 256;

/// One authentic webhook request, as far as it concerns one tenant.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: EventId,
    pub org_id: OrgId,
    /// The channel it came for; `None` when nobody claims it.
    pub channel_id: Option<ChannelId>,
    /// A channel kind: which parser reads the body again on replay.
    pub kind: &'static str,
    pub method: String,
    /// Path and query as received.
    pub url: String,
    pub content_type: Option<String>,
    pub body: Bytes,
    pub received_at: DateTime<Utc>,
    pub events: Vec<ChannelEvent>,
    /// Set when (part of) it could not be used: it is stored as a dead letter with this reason.
    pub dead_letter: Option<String>,
    /// A replay updates its own ledger row instead of adding one.
    pub replay: bool,
}

/// One event with the channel it belongs to.
#[derive(Clone, Debug)]
pub struct ChannelEvent {
    pub channel_id: ChannelId,
    pub event: ProviderEvent,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something new was stored.
    Stored,
    /// All of it was known already.
    Duplicate,
    /// Kept with a reason, for a person or a replay.
    DeadLetter,
}

impl Outcome {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// Why a delivery was not stored. The provider must try again: nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("too many requests are waiting for the database")]
    Overloaded,
    #[error("the database is not available")]
    Unavailable,
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Told after each commit; whoever waits looks at the tables.
#[derive(Clone, Debug, Default)]
pub struct CommitSignals {
    /// The change log grew.
    pub changes: Arc<Notify>,
    /// There are files to fetch.
    pub media: Arc<Notify>,
}

/// The handle requests use. Cheap to clone; the writers stop when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Ingest {
    writers: Arc<[mpsc::Sender<Waiting>]>,
}

struct Waiting {
    delivery: Delivery,
    answer: oneshot::Sender<Result<Outcome, IngestError>>,
}

impl Ingest {
    /// Starts `writers` writer tasks. They end when the last handle is gone and what was waiting is committed.
    #[must_use]
    pub fn start(db: &Db, writers: usize, signals: &CommitSignals) -> Self {
        let writers: Vec<_> = (0..writers.max(1))
            .map(|_| {
                let (sender, receiver) = mpsc::channel(QUEUE);
                tokio::spawn(run(Writer::new(db.clone(), signals.clone()), receiver));
                sender
            })
            .collect();
        Self {
            writers: writers.into(),
        }
    }

    /// Stores one delivery. `Ok` means committed.
    pub async fn store(&self, delivery: Delivery) -> Result<Outcome, IngestError> {
        let (answer, committed) = oneshot::channel();
        let writer = &self.writers[shard(delivery.org_id, self.writers.len())];
        writer
            .try_send(Waiting { delivery, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => IngestError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => IngestError::ShuttingDown,
            })?;
        // A writer that died without an answer has rolled back.
        committed.await.unwrap_or(Err(IngestError::Unavailable))
    }
}

/// The same tenant always goes to the same writer. The last bytes of a UUIDv7 are random.
fn shard(org: OrgId, writers: usize) -> usize {
    let bytes: [u8; 16] = *org.0.as_bytes();
    usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % writers
}

async fn run(mut writer: Writer, mut receiver: mpsc::Receiver<Waiting>) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    while receiver.recv_many(&mut group, MAX_GROUP).await > 0 {
        let (deliveries, answers): (Vec<_>, Vec<_>) = group
            .drain(..)
            .map(|waiting| (waiting.delivery, waiting.answer))
            .unzip();
        let outcomes = writer.store(deliveries).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // The requester may have hung up; the row is committed all the same.
            let _ = answer.send(outcome);
        }
    }
}

/// Postgres keeps no NUL in text; one in a customer's message must not cost the message.
pub(crate) fn clean(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{FFFD}").into()
    } else {
        text.into()
    }
}

/// JSON as text for a `jsonb` column, which keeps no `\u0000` either.
pub(crate) fn clean_json(value: &serde_json::Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let text = value.to_string();
    if !text.contains("\\u0000") {
        return Some(text);
    }
    // Parse-aware: a literal backslash followed by "u0000" is not an escape.
    fn strip(value: &serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => Value::String(clean(text).into_owned()),
            Value::Array(items) => Value::Array(items.iter().map(strip).collect()),
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(k, v)| (clean(k).into_owned(), strip(v)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
    Some(strip(value).to_string())
}

pub(crate) fn is_transient(error: &Error) -> bool {
    error.is_unavailable() || error.is_conflict()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn nul_characters_are_replaced_and_look_alikes_are_kept() {
        assert_eq!(super::clean("a\0b"), "a\u{FFFD}b");
        assert_eq!(
            super::clean_json(&json!({"k\0": ["x\0"]})).unwrap(),
            "{\"k\u{FFFD}\":[\"x\u{FFFD}\"]}"
        );
        assert_eq!(
            super::clean_json(&json!("\\u0000")).unwrap(),
            "\"\\\\u0000\""
        );
        assert_eq!(super::clean_json(&json!(null)), None);
    }
}
