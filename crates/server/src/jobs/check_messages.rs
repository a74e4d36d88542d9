//! Asks providers how messages fared, where they can be asked: a callback that found nobody is not repeated, and some
//! tell the price only so.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use wasel_db::checks::{self, Check};
use wasel_db::messages::{self, StatusUpdate};
use wasel_domain::OrgId;
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

/// Asked in one round, so a node asks at most this often a second.
const BATCH: i64 = 32;
const PARALLEL: usize = 4;
const PAUSE: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(10);

pub struct CheckMessages(pub AppState);

#[async_trait]
impl Job for CheckMessages {
    const NAME: &'static str = "check_messages";

    async fn run(&self) -> Result<Next, JobError> {
        let wait = self.0.config.outbox.check_after;
        let mut tx = self.0.db.system().await?;
        let due = checks::lock_next(&mut tx, BATCH, wait).await?;
        tx.commit().await?;
        let full = due.len() as i64 == BATCH;
        let results: Vec<Result<(), JobError>> = stream::iter(due)
            .map(|check| ask(&self.0, check))
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(Next::After(if full { PAUSE } else { IDLE.min(wait) }))
    }
}

async fn ask(state: &AppState, check: Check) -> Result<(), JobError> {
    let org = OrgId(check.org_id);
    let Some(channel) = state.registry.of_org(org, check.channel_id.into()) else {
        return Ok(());
    };
    let answer = channel
        .open
        .look_up(&state.http, &check.provider_message_id)
        .await;
    let found = match answer {
        Ok(found) => found,
        Err(error) => {
            // The next check may do better.
            tracing::info!(message.id = %check.message_id, %error, "the provider did not say how a message fared");
            return Ok(());
        }
    };
    let mut tx = state.db.system().await?;
    let update = StatusUpdate::new(check.org_id, check.channel_id, found.status);
    messages::advance_status(&mut tx, &[update]).await?;
    checks::settle(&mut tx, &check, found.pricing.as_ref()).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(())
}
