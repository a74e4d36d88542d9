//! How far the log has been announced: what channels that read history wait for.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Rounds in which the log is read, and how far it was announced by the last that ended.
#[derive(Debug)]
pub(super) struct Position {
    started: AtomicU64,
    settled: watch::Sender<Option<Settled>>,
}

#[derive(Clone, Copy, Debug)]
struct Settled {
    round: u64,
    seq: i64,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            started: AtomicU64::new(0),
            settled: watch::Sender::new(None),
        }
    }
}

impl Position {
    /// A round begins; which tables it reads is decided after this.
    pub fn begin(&self) {
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    /// The round has ended: everything up to `seq` was announced.
    pub fn settle(&self, seq: i64) {
        let round = self.started.load(Ordering::SeqCst);
        self.settled.send_replace(Some(Settled { round, seq }));
    }

    /// The round under way, which may not read the tables of who enters now; the ones after it do.
    pub fn fence(&self) -> u64 {
        self.started.load(Ordering::SeqCst)
    }

    /// How far everything is announced.
    pub fn get(&self) -> Option<i64> {
        self.settled.borrow().map(|settled| settled.seq)
    }

    /// How far everything is announced, once that round has ended and it is beyond `seq`.
    pub async fn after(&self, fence: u64, seq: Option<i64>) -> i64 {
        let mut settled = self.settled.subscribe();
        let reached = settled
            .wait_for(|settled| {
                settled.is_some_and(|settled| {
                    settled.round >= fence && seq.is_none_or(|seq| settled.seq > seq)
                })
            })
            .await
            .map(|settled| settled.map(|settled| settled.seq));
        match reached {
            Ok(Some(seq)) => seq,
            // The sender lives in the hub, and so does whoever waits.
            _ => std::future::pending().await,
        }
    }
}
