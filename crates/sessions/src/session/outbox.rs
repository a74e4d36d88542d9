//! What was heard and is already acknowledged to WhatsApp: receipts, refusals, recovered messages. The protocol crate
//! does not wait for us here, so they are collected and committed as fast as the host takes them, several at a time.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::live::{Live, lock};
use crate::host::HostError;
use crate::inbound::{Item, Record};

/// In one commit.
const MOST_AT_ONCE: usize = 500;
/// Waiting for a host that is away; beyond it the newest are dropped and counted.
const MOST_WAITING: usize = 20_000;

#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Vec<Item>>,
    is_busy: AtomicBool,
    idle: Notify,
}

impl Live {
    /// Never waits.
    pub(super) fn collect(self: &Arc<Self>, item: Item) {
        {
            let mut waiting = lock(&self.outbox.waiting);
            if waiting.len() >= MOST_WAITING {
                tracing::error!(session = %self.lease.session.id, "news of messages are dropped: the database is away for too long");
                return;
            }
            waiting.push(item);
        }
        if !self.outbox.is_busy.swap(true, Ordering::AcqRel) {
            tokio::spawn(self.clone().empty_outbox());
        }
    }

    /// Until everything collected is committed, or given up.
    pub(super) async fn outbox_is_empty(&self) {
        loop {
            let idle = self.outbox.idle.notified();
            if !self.outbox.is_busy.load(Ordering::Acquire) {
                return;
            }
            idle.await;
        }
    }

    async fn empty_outbox(self: Arc<Self>) {
        loop {
            let mut items = std::mem::take(&mut *lock(&self.outbox.waiting));
            if items.is_empty() {
                self.outbox.is_busy.store(false, Ordering::Release);
                self.outbox.idle.notify_waiters();
                // Somebody may have collected between the two lines and left it to us.
                if lock(&self.outbox.waiting).is_empty()
                    || self.outbox.is_busy.swap(true, Ordering::AcqRel)
                {
                    return;
                }
                continue;
            }
            while !items.is_empty() {
                let later = items.split_off(items.len().min(MOST_AT_ONCE));
                self.commit_patiently(items).await;
                items = later;
            }
        }
    }

    /// Tries for a minute; then they are lost, and the log says so.
    pub(super) async fn commit_patiently(&self, items: Vec<Item>) {
        let count = items.len();
        let record = Record::new(items);
        let events = record.events();
        if events.is_empty() {
            return;
        }
        let raw = record.to_bytes();
        let mut pause = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        loop {
            let session = &self.lease.session;
            match self
                .shared
                .host
                .commit(session, raw.clone(), events.clone())
                .await
            {
                Ok(()) => return,
                Err(HostError::Unavailable)
                    if waited < Duration::from_secs(60) && self.deadline.holds() =>
                {
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => {
                    tracing::error!(session = %session.id, %error, count, "news of messages are lost");
                    return;
                }
            }
        }
    }
}
