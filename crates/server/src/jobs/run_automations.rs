//! Runs the cron automations whose time has come.
//!
//! One run is one transaction, under the tenant's own role: the rule is locked, its audience queued, the next time
//! written. So two nodes never run the same tick, and a run that is cut off happens again as a whole. A rule that was
//! due several times while no server ran is due once: the next time is counted from now.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use wasel_db::automations::{self, Automation, Due, RunAt};
use wasel_db::{TenantClaims, TenantTx, organizations};
use wasel_domain::OrgId;
use wasel_domain::schedule::{Schedule, ScheduleError, parse_zone};
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

const BATCH: i64 = 64;
const POLL: Duration = Duration::from_secs(1);
/// Rules at a time: one with a slow audience does not hold up the others.
const AT_ONCE: usize = 4;

pub struct RunAutomations(pub AppState);

#[async_trait]
impl Job for RunAutomations {
    const NAME: &'static str = "run_automations";

    async fn run(&self) -> Result<Next, JobError> {
        let found = run_due(&self.0, Utc::now()).await?;
        Ok(if found as i64 == BATCH {
            Next::Now
        } else {
            Next::After(POLL)
        })
    }
}

/// Runs what is due at this time, up to a batch of it. Returns how many rules were found due; another node may have
/// been quicker with some.
pub async fn run_due(state: &AppState, now: DateTime<Utc>) -> Result<usize, JobError> {
    let mut tx = state.db.system().await?;
    let found = automations::list_due(&mut tx, now, BATCH).await?;
    tx.commit().await?;
    let count = found.len();
    let mut runs = stream::iter(found)
        .map(|due| async move { (due.id, run_rule(state, due, now).await) })
        .buffer_unordered(AT_ONCE);
    let mut failed = None;
    while let Some((id, outcome)) = runs.next().await {
        if let Err(error) = outcome {
            tracing::warn!(automation.id = %id, %error, "an automation could not run yet");
            failed = Some(error);
        }
    }
    if count > 0 {
        state.signals.commits.changes.notify_one();
    }
    // So that the loop backs off; what did not run is still due.
    failed.map_or(Ok(count), |error| Err(error.into()))
}

async fn run_rule(state: &AppState, due: Due, now: DateTime<Utc>) -> wasel_db::Result<()> {
    // What the rule's owner may read, it may read.
    let org = OrgId(due.org_id);
    let claims = TenantClaims {
        org_id: org,
        user_id: None,
        role: "owner".to_owned(),
    };
    let mut tx = state.db.tenant(&claims).await?;
    let Some(rule) = automations::lock_due(&mut tx, due, now).await? else {
        return Ok(());
    };
    match next_run(&mut tx, &rule, now).await? {
        Ok(next) => {
            if let Some(tick) = rule.next_run_at {
                let at = RunAt {
                    cause: "tick",
                    tick,
                    now,
                };
                let outcome = automations::run(&mut tx, org, rule.id, at).await?;
                log(&rule, &outcome);
            }
            automations::set_next_run(&mut tx, org, rule.id, next).await?;
        }
        Err(error) => {
            let why = format!("switched off: its schedule {error}");
            automations::disable(&mut tx, org, rule.id, &why).await?;
        }
    }
    tx.commit().await
}

/// When a rule runs next, by its own time zone or its organisation's.
async fn next_run(
    tx: &mut TenantTx,
    rule: &Automation,
    now: DateTime<Utc>,
) -> wasel_db::Result<Result<DateTime<Utc>, ScheduleError>> {
    let zone = match &rule.fields.timezone {
        Some(zone) => zone.clone(),
        None => organizations::find(tx, OrgId(rule.org_id))
            .await?
            .map_or_else(|| "UTC".to_owned(), |organization| organization.timezone),
    };
    let expression = rule.fields.cron_expression.as_deref().unwrap_or_default();
    Ok(parse_zone(&zone)
        .and_then(|zone| Schedule::parse(expression, zone))
        .and_then(|schedule| schedule.next_after(now)))
}

fn log(rule: &Automation, outcome: &Result<automations::RunOutcome, String>) {
    match outcome {
        Ok(done) => tracing::info!(
            automation.id = %rule.id,
            queued_count = done.queued,
            skipped_count = done.skipped,
            "an automation ran"
        ),
        // The reason may quote the tenant's names: it is in the rule, for the tenant.
        Err(_) => tracing::info!(automation.id = %rule.id, "an automation failed"),
    }
}
