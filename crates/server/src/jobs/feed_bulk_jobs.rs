//! Feeds the recipients of bulk jobs to the outbox, a little at a time: the outbox stays short, so a job can be paused or
//! called off at once, and nobody's one-off waits behind a million rows.
//!
//! What a job has to send is frozen in its recipients. A recipient stops being `pending` in the transaction that makes
//! the message, so any number of nodes may feed one job, and a crash repeats nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use wasel_db::bulk::{self, Fed, Pending, Refusal, UnderWay};
use wasel_db::contacts;
use wasel_domain::{Category, OrgId, OutboundContent, UserId};
use wasel_jobs::{Job, JobError, Next};

use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::outbound::{self, ChannelHandle, Origin, Recipient, SendRequest};
use crate::registry::Channel;
use crate::state::AppState;

/// Recipients in one transaction. Each has a savepoint, and Postgres keeps 64 of a transaction's at hand.
const BATCH: i64 = 50;
/// A job's messages in the outbox: at least so many, or what its channel sends in [`AHEAD`].
const AT_LEAST: f64 = 200.0;
const AHEAD: Duration = Duration::from_secs(10);
/// Batches fed at the same time, each on a connection: of several jobs, or of one.
const AT_ONCE: i64 = 3;
/// Refusals that every recipient would get.
const JOBS_FAULTS: [&str; 2] = ["template_not_approved", "template_unknown"];
/// Jobs looked at in one round.
const JOBS: i64 = 1000;
/// Jobs started by other nodes and other programs are seen within this time, and so is an outbox that has run low.
const POLL: Duration = Duration::from_millis(500);

pub struct FeedBulkJobs(pub AppState);

#[async_trait]
impl Job for FeedBulkJobs {
    const NAME: &'static str = "feed_bulk_jobs";

    /// One batch for each job that has room, the tenants in turn; then a second, and a third.
    async fn run(&self) -> Result<Next, JobError> {
        let state = &self.0;
        let mut tx = state.db.system().await?;
        let jobs = bulk::list_under_way(&mut tx, JOBS).await?;
        tx.commit().await?;
        let is_fed = |job: &UnderWay| job.has_pending && !job.is_cancelled;
        let turns = (0..AT_ONCE).flat_map(|turn| {
            let of_turn = jobs.iter().filter(move |job| turn == 0 || is_fed(job));
            of_turn.cloned().map(move |job| (job, turn))
        });
        let turns: Vec<(UnderWay, i64)> = turns.collect();
        let rounds: Vec<bool> = stream::iter(turns)
            .map(|(job, turn)| attend(state.clone(), job, turn))
            .buffer_unordered(AT_ONCE as usize)
            .collect()
            .await;
        Ok(if rounds.contains(&true) {
            Next::Now
        } else {
            Next::After(POLL)
        })
    }
}

/// One job in trouble does not stop the others.
async fn attend(state: AppState, job: UnderWay, turn: i64) -> bool {
    serve(&state, &job, turn).await.unwrap_or_else(|error| {
        tracing::warn!(job.id = %job.id, %error, "a bulk job could not be fed and will be tried again");
        false
    })
}

/// Whether there is more to do for this job now.
async fn serve(state: &AppState, job: &UnderWay, turn: i64) -> Result<bool, JobError> {
    let org = OrgId(job.org_id);
    if job.is_cancelled {
        let mut tx = state.db.system().await?;
        bulk::sweep_cancelled(&mut tx, org, job.id).await?;
        tx.commit().await?;
    } else if job.has_pending {
        let channel = state.registry.find(org, job.channel_id.into()).await?;
        let Some(channel) = channel else {
            return pause(state, job, "its channel cannot be opened").await;
        };
        let room = target(&channel) - job.waiting;
        let own = (room - turn * BATCH).min(BATCH);
        if own <= 0 {
            return Ok(false);
        }
        let fed = feed(state, job, channel, own).await?;
        return Ok(fed > 0 && room > AT_ONCE * BATCH);
    } else if job.waiting > 0 {
        return Ok(false);
    }
    let mut tx = state.db.system().await?;
    let ended = bulk::finish(&mut tx, org, job.id).await?;
    tx.commit().await?;
    if ended {
        tracing::info!(job.id = %job.id, "a bulk job has ended");
        state.signals.commits.changes.notify_one();
    }
    Ok(false)
}

/// The job waits for somebody to put something right and resume it.
async fn pause(state: &AppState, job: &UnderWay, reason: &str) -> Result<bool, JobError> {
    let mut tx = state.db.system().await?;
    bulk::pause(&mut tx, OrgId(job.org_id), job.id, reason).await?;
    tx.commit().await?;
    tracing::warn!(job.id = %job.id, channel.id = %job.channel_id, "a bulk job was paused: what it sends, or its channel, is not usable");
    state.signals.commits.changes.notify_one();
    Ok(false)
}

/// How many messages of one job should wait in the outbox.
fn target(channel: &Channel) -> i64 {
    (channel.messages_per_second() * AHEAD.as_secs_f64()).max(AT_LEAST) as i64
}

/// Queues the next recipients, in one transaction. Returns how many there were.
async fn feed(
    state: &AppState,
    job: &UnderWay,
    channel: Arc<Channel>,
    limit: i64,
) -> Result<usize, JobError> {
    let org = OrgId(job.org_id);
    let mut tx = state.db.system().await?;
    let mut pending = bulk::lock_next(&mut tx, org, job.id, limit).await?;
    if pending.is_empty() {
        return Ok(0);
    }
    // Jobs with the same people touch their conversations in one order, and so never wait for each other in a circle.
    pending.sort_by(|a, b| a.address.cmp(&b.address));
    let feeder = Feeder {
        state,
        job,
        // Whoever made the job was allowed to, and its channel was theirs to use.
        caller: Caller::service(org, job.created_by.map(UserId)),
        channel,
    };
    let mut fed = Vec::with_capacity(pending.len());
    for recipient in &pending {
        let mut savepoint = tx.begin().await?;
        let outcome = match feeder.queue(&mut savepoint, recipient).await {
            Ok(message) => {
                savepoint.commit().await?;
                Fed::Queued(message)
            }
            // The database is going: nothing of this batch was done.
            Err(error) if error.code == "unavailable" => return Err(error.message.into()),
            // About the job, not about this recipient: the rest of the list would be lost for it.
            Err(error) if JOBS_FAULTS.contains(&error.code) => {
                return {
                    drop(savepoint);
                    drop(tx);
                    pause(state, job, &error.message).await.map(|_| 0)
                };
            }
            Err(error) => {
                savepoint.rollback().await?;
                if error.status.is_server_error() {
                    tracing::warn!(job.id = %job.id, recipient.position = recipient.position, "a recipient could not be queued");
                    Fed::Again(error.message)
                } else {
                    Fed::Refused(Refusal {
                        code: error.code.to_owned(),
                        words: error.message,
                    })
                }
            }
        };
        fed.push((recipient.position, outcome));
    }
    bulk::record_fed(&mut tx, org, job, &fed).await?;
    tx.commit().await?;
    outbound::wake_sender(state);
    Ok(fed.len())
}

struct Feeder<'a> {
    state: &'a AppState,
    job: &'a UnderWay,
    caller: Caller,
    channel: Arc<Channel>,
}

impl Feeder<'_> {
    async fn queue(
        &self,
        connection: &mut PgConnection,
        recipient: &Pending,
    ) -> Result<uuid::Uuid, ApiError> {
        let content: OutboundContent = serde_json::from_value(recipient.content.clone())
            .map_err(|error| ApiError::refused("bad_content", error.to_string()))?;
        if let Some(name) = &recipient.name {
            // A new contact gets the list's name; a known one keeps their own.
            let identity = outbound::address(&self.channel, &recipient.address)?;
            let org = self.caller.org_id;
            contacts::find_or_insert(connection, org, &identity, Some(name)).await?;
        }
        let to = Recipient::Address {
            channel: Arc::new(ChannelHandle(self.channel.clone())),
            to: recipient.address.clone(),
        };
        let request = SendRequest {
            priority: self.job.priority,
            // Many people, nobody twice.
            at_most_once: true,
            category: Category::parse(&self.job.category).unwrap_or(Category::Marketing),
            metadata: json!({ "bulk_position": recipient.position }),
            origin: Origin {
                trigger_type: "bulk".to_owned(),
                bulk_job_id: Some(self.job.id),
                ..Origin::default()
            },
            ..SendRequest::new(to, content)
        };
        let queued = outbound::enqueue_in(connection, self.state, &self.caller, &request).await?;
        Ok(queued.message.id)
    }
}
