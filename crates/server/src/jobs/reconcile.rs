//! Sends whose outcome is unknown, and statuses that came before their message.

use std::time::Duration;

use async_trait::async_trait;
use wasel_db::messages::status;
use wasel_db::outbox::recover;
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

/// How often to look. Each look is three index look-ups when there is nothing to do.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Reconcile(pub AppState);

#[async_trait]
impl Job for Reconcile {
    const NAME: &'static str = "reconcile";

    async fn run(&self) -> Result<Next, JobError> {
        let settings = &self.0.config.outbox;
        let (wait, most) = (settings.reconcile_wait, settings.max_attempts.get() as i32);
        let db = &self.0.db;
        // One transaction each: they lock the same tables, each in its own order of rows.
        let mut tx = db.system().await?;
        let abandoned = recover::mark_abandoned(&mut tx, wait, most).await?;
        tx.commit().await?;
        let mut tx = db.system().await?;
        let settled = recover::settle_unknown(&mut tx).await?;
        tx.commit().await?;
        let mut tx = db.system().await?;
        let applied = status::apply_pending(&mut tx).await?;
        tx.commit().await?;
        if abandoned > 0 {
            tracing::warn!(
                outbox.abandoned = abandoned,
                "sends of a process that died wait for their callbacks"
            );
        }
        if abandoned + settled + applied as u64 > 0 {
            self.0.signals.commits.changes.notify_one();
            self.0.signals.outbox.notify_one();
        }
        Ok(Next::After(PAUSE))
    }
}
