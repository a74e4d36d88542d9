//! What was announced earlier, for channels that come back or that have fallen behind.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::change::Change;

/// Reads committed changes again. The server implements it over its change log.
#[async_trait]
pub trait History: Send + Sync {
    /// The changes of a tenant under these published names, with numbers above `after` and at most `upto`, in order. At
    /// most `limit` rows of the log, each with all names asked for.
    async fn page(&self, ask: Ask<'_>) -> Result<Page, HistoryError>;
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub org_id: Uuid,
    /// Published names, the same as in [`Change::name`].
    pub names: &'a [Arc<str>],
    pub after: i64,
    pub upto: i64,
    pub limit: usize,
}

/// A stretch of history.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order of their numbers; the names of one row follow each other.
    pub changes: Vec<Change>,
    /// Nothing up to here is missing from `changes`: `upto` as asked for, or less when the page was full.
    pub upto: i64,
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Some changes after the number asked for are gone, or the log never gave that number out.
    #[error("changes that far back are no longer kept")]
    Expired,
    /// Not now.
    #[error("the change log could not be read: {0}")]
    Unavailable(String),
}
