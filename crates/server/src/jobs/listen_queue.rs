//! Hears that rows of the notification queue became ready, whoever wrote them, and wakes the processor.
//!
//! Where nothing is heard (a pooler that hands connections round) the processor's own poll sees the rows.

use std::time::Duration;

use async_trait::async_trait;
use wasel_db::notification_queue::Listener;
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

pub struct ListenQueue(pub AppState);

#[async_trait]
impl Job for ListenQueue {
    const NAME: &'static str = "listen_queue";

    /// One round is one connection: it lasts until that is lost or the server stops.
    async fn run(&self) -> Result<Next, JobError> {
        let state = &self.0;
        let mut listener = Listener::open(&state.db).await?;
        loop {
            // Also at first: what became ready before is not said again.
            state.signals.queue.notify_one();
            tokio::select! {
                () = state.shutdown.cancelled() => return Ok(Next::After(Duration::ZERO)),
                heard = listener.wait() => heard?,
            }
        }
    }
}
