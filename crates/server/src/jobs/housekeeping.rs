//! Retention, and the change log's partitions.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use wasel_db::messages::status;
use wasel_db::{
    automations, changes, failures, governor, idempotency, identity, ledger, one_time_tokens,
    sessions,
};
use wasel_domain::limits::REACH_WINDOW;
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

const PAUSE: Duration = Duration::from_secs(600);
/// A status whose message never came to be known (Meta repeats webhooks for 7 days).
const PENDING_STATUS_DAYS: i32 = 8;
/// How long an ended sign-in can still be told from an unknown one.
const SESSION_TRACES: TimeDelta = TimeDelta::days(30);

/// The history of automations.
const AUTOMATION_RUN_DAYS: i32 = 90;

pub struct Housekeeping(pub AppState);

#[async_trait]
impl Job for Housekeeping {
    const NAME: &'static str = "housekeeping";

    async fn run(&self) -> Result<Next, JobError> {
        let keep = &self.0.config.retention;
        let hours =
            |time: Duration| i32::try_from(time.as_secs().div_ceil(3600)).unwrap_or(i32::MAX);
        let days =
            |time: Duration| i32::try_from(time.as_secs().div_ceil(86_400)).unwrap_or(i32::MAX);
        let mut tx = self.0.db.system().await?;
        changes::maintain(&mut tx, hours(keep.change_log)).await?;
        // By itself: it locks the log, and the deletions below take their time.
        tx.commit().await?;
        let mut tx = self.0.db.system().await?;
        idempotency::delete_old(&mut tx, hours(keep.idempotency_keys)).await?;
        let gone = ledger::delete_old(&mut tx, days(keep.ledger), days(keep.dead_letters)).await?;
        status::delete_old_pending(&mut tx, PENDING_STATUS_DAYS).await?;
        failures::delete_expired_fallbacks(&mut tx).await?;
        sessions::delete_old_commands(&mut tx).await?;
        governor::delete_old_reach(&mut tx, Utc::now() - REACH_WINDOW).await?;
        automations::delete_old(&mut tx, AUTOMATION_RUN_DAYS).await?;
        identity::delete_before(&mut tx, Utc::now() - SESSION_TRACES).await?;
        one_time_tokens::delete_expired(&mut tx).await?;
        tx.commit().await?;
        Ok(if gone > 0 {
            Next::Now
        } else {
            Next::After(PAUSE)
        })
    }
}
