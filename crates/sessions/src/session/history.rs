//! Taking over a phone's past when it is linked.

use std::sync::Arc;

use chrono::Utc;
use whatsapp_rust::types::events::LazyHistorySync;

use super::live::Live;
use crate::inbound::{self, HistoryLimits};

/// When a phone is linked.
const MOST_MESSAGES: usize = 5_000;
/// In one commit.
const MOST_AT_ONCE: usize = 200;

/// The history goes into the ledger beside everything else, a piece at a time.
pub(super) fn take_over(live: Arc<Live>, chunk: Box<LazyHistorySync>) {
    tokio::spawn(async move {
        let days = i64::from(live.options.history_days);
        let limits = HistoryLimits {
            since: (Utc::now() - chrono::Duration::days(days)).timestamp(),
            messages: MOST_MESSAGES,
        };
        let read = tokio::task::spawn_blocking(move || inbound::read_history(&chunk, limits));
        let Ok(mut items) = read.await else {
            return;
        };
        items.truncate(live.take_history(items.len(), MOST_MESSAGES));
        while !items.is_empty() {
            let later = items.split_off(items.len().min(MOST_AT_ONCE));
            live.commit_patiently(items).await;
            items = later;
        }
    });
}
