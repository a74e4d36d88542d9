//! Bulk jobs: one message to many people.
//!
//! Recipients stand in a table of their own with what they will get, rendered once, and are fed to the outbox a little
//! at a time. A recipient leaves `pending` in the transaction that makes the message, so that a crash at any time
//! loses and doubles nothing.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{Category, ChannelId, OrgId, UserId};

use crate::{Result, SystemTx};

/// Rows in one INSERT.
const CHUNK: usize = 5_000;
/// How often queueing a recipient may fail on our side.
const MAX_TRIES: i16 = 10;

#[derive(Clone, Debug, FromRow)]
pub struct BulkJob {
    pub org_id: Uuid,
    pub id: Uuid,
    pub name: String,
    pub channel_id: Uuid,
    pub template_id: Option<Uuid>,
    pub message: Option<String>,
    pub content: Option<Value>,
    pub variables: Value,
    pub category: String,
    pub priority: i16,
    pub status: String,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub total: i32,
    pub valid: i32,
    pub invalid: i32,
    pub duplicates: i32,
    pub paused_reason: Option<String>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
pub struct NewBulkJob<'a> {
    pub org_id: OrgId,
    pub id: Uuid,
    pub name: &'a str,
    pub channel_id: ChannelId,
    pub template_id: Option<Uuid>,
    pub message: Option<&'a str>,
    pub content: Option<&'a Value>,
    pub variables: &'a Value,
    pub category: Category,
    pub priority: i16,
    pub running: bool,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub created_by: Option<UserId>,
}

/// One row of the list, checked and rendered.
#[derive(Clone, Debug)]
pub struct NewRecipient {
    pub address: String,
    pub name: Option<String>,
    pub variables: Value,
    /// What they will get; else why not.
    pub outcome: Result<Value, Refusal>,
}

/// Why somebody gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `duplicate`, `opted_out`, `window_closed` …
    pub code: String,
    /// For people.
    pub words: String,
}

impl Refusal {
    /// The code of the second and later rows of one address.
    pub const DUPLICATE: &'static str = "duplicate";
    pub const CANCELLED: &'static str = "cancelled";
}

/// Writes the job with all its recipients, in their order; all or none.
pub async fn insert(
    connection: &mut PgConnection,
    job: &NewBulkJob<'_>,
    recipients: &[NewRecipient],
) -> Result<BulkJob> {
    let is_duplicate = |r: &&NewRecipient| matches!(&r.outcome, Err(refusal) if refusal.code == Refusal::DUPLICATE);
    let valid = recipients.iter().filter(|r| r.outcome.is_ok()).count();
    let duplicates = recipients.iter().filter(is_duplicate).count();
    let stored = sqlx::query_as(
        "INSERT INTO bulk_jobs (org_id, id, name, channel_id, template_id, message, content, variables, category, priority,
             status, scheduled_for, total, valid, invalid, duplicates, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $11 THEN 'running' ELSE 'draft' END, $12, $13, $14, $15, $16, $17)
         RETURNING *",
    )
    .bind(job.org_id.0)
    .bind(job.id)
    .bind(job.name)
    .bind(job.channel_id.0)
    .bind(job.template_id)
    .bind(job.message)
    .bind(job.content)
    .bind(job.variables)
    .bind(job.category.as_str())
    .bind(job.priority)
    .bind(job.running)
    .bind(job.scheduled_for)
    .bind(count(recipients.len()))
    .bind(count(valid))
    .bind(count(recipients.len() - valid - duplicates))
    .bind(count(duplicates))
    .bind(job.created_by.map(|user| user.0))
    .fetch_one(&mut *connection)
    .await?;
    for (n, chunk) in recipients.chunks(CHUNK).enumerate() {
        insert_recipients(connection, job, n * CHUNK, chunk).await?;
    }
    Ok(stored)
}

fn count(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}

async fn insert_recipients(
    connection: &mut PgConnection,
    job: &NewBulkJob<'_>,
    before: usize,
    recipients: &[NewRecipient],
) -> Result<()> {
    let positions: Vec<i32> = (1..=recipients.len()).map(|n| count(before + n)).collect();
    let mut contents = Vec::with_capacity(recipients.len());
    let (mut codes, mut words) = (vec![], vec![]);
    for recipient in recipients {
        let refusal = recipient.outcome.as_ref().err();
        contents.push(recipient.outcome.as_ref().ok().map(Value::to_string));
        codes.push(refusal.map(|refusal| refusal.code.as_str()));
        words.push(refusal.map(|refusal| refusal.words.as_str()));
    }
    sqlx::query(
        "INSERT INTO bulk_recipients (org_id, job_id, channel_id, position, address, name, variables, content, state, error_code, error)
         SELECT $1, $2, $3, r.position, r.address, r.name, r.variables::jsonb, r.content::jsonb,
             CASE WHEN r.code IS NULL THEN 'pending' ELSE 'skipped' END, r.code, r.words
         FROM unnest($4::int[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
             AS r(position, address, name, variables, content, code, words)",
    )
    .bind(job.org_id.0)
    .bind(job.id)
    .bind(job.channel_id.0)
    .bind(positions)
    .bind(recipients.iter().map(|r| r.address.as_str()).collect::<Vec<_>>())
    .bind(recipients.iter().map(|r| r.name.as_deref()).collect::<Vec<_>>())
    .bind(recipients.iter().map(|r| r.variables.to_string()).collect::<Vec<_>>())
    .bind(contents)
    .bind(codes)
    .bind(words)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn find(connection: &mut PgConnection, org: OrgId, id: Uuid) -> Result<Option<BulkJob>> {
    Ok(
        sqlx::query_as("SELECT * FROM bulk_jobs WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id)
            .fetch_optional(connection)
            .await?,
    )
}

/// The tenant's jobs, newest first, before an id from the page before.
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    status: Option<&str>,
    channel: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<BulkJob>> {
    Ok(sqlx::query_as(
        "SELECT * FROM bulk_jobs WHERE org_id = $1 AND ($2::text IS NULL OR status = $2)
           AND ($3::uuid IS NULL OR channel_id = $3) AND ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC LIMIT $5",
    )
    .bind(org.0)
    .bind(status)
    .bind(channel)
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// What a person may do with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Start,
    Pause,
    Resume,
    Cancel,
}

impl Step {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }

    const fn from(self) -> &'static [&'static str] {
        match self {
            Self::Start => &["draft"],
            Self::Pause => &["running"],
            Self::Resume => &["paused"],
            Self::Cancel => &["draft", "running", "paused"],
        }
    }

    const fn to(self) -> &'static str {
        match self {
            Self::Start | Self::Resume => "running",
            Self::Pause => "paused",
            Self::Cancel => "cancelled",
        }
    }
}

/// Takes the step if the job is where it can be taken; `None` otherwise.
pub async fn advance(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
    step: Step,
    reason: Option<&str>,
) -> Result<Option<BulkJob>> {
    let from: Vec<&str> = step.from().to_vec();
    Ok(sqlx::query_as(
        "UPDATE bulk_jobs SET status = $3, paused_reason = $4
         WHERE org_id = $1 AND id = $2 AND status = ANY ($5) RETURNING *",
    )
    .bind(org.0)
    .bind(id)
    .bind(step.to())
    .bind(reason)
    .bind(from)
    .fetch_optional(connection)
    .await?)
}

/// Stops a running job for a reason that is not its recipients': they stay pending.
pub async fn pause(tx: &mut SystemTx, org: OrgId, id: Uuid, reason: &str) -> Result<()> {
    advance(tx, org, id, Step::Pause, Some(reason)).await?;
    Ok(())
}

/// Takes back what a cancelled job has not sent: its messages that no sender holds, and everybody still pending. What a
/// sender holds this moment, or may have sent, is left; so call it again until the job is finished.
pub async fn sweep_cancelled(connection: &mut PgConnection, org: OrgId, id: Uuid) -> Result<u64> {
    // Messages before outbox rows, in one order: see `outbox`.
    sqlx::query(
        "SELECT FROM messages m WHERE m.org_id = $1 AND m.id IN (
             SELECT message_id FROM outbox WHERE org_id = $1 AND lane = $2 AND lane <> '00000000-0000-0000-0000-000000000000'
               AND leased_until IS NULL AND unknown_since IS NULL)
         ORDER BY m.id FOR NO KEY UPDATE",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut *connection)
    .await?;
    let messages = sqlx::query(
        "WITH gone AS (
             DELETE FROM outbox WHERE org_id = $1 AND lane = $2 AND lane <> '00000000-0000-0000-0000-000000000000'
               AND leased_until IS NULL AND unknown_since IS NULL
               AND EXISTS (SELECT FROM bulk_jobs j WHERE j.org_id = $1 AND j.id = $2 AND j.status = 'cancelled')
             RETURNING message_id
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, event, at, detail)
             SELECT $1, wasel.uuid7(), message_id, 'cancelled', now(), jsonb_build_object('bulk_job_id', $2::uuid) FROM gone
         )
         UPDATE messages m SET status = 'cancelled', error_code = NULL, error_message = NULL, updated_at = now()
         FROM gone WHERE m.org_id = $1 AND m.id = gone.message_id
           AND wasel.status_rank(m.status) < wasel.status_rank('cancelled')",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut *connection)
    .await?;
    let people = sqlx::query(
        "UPDATE bulk_recipients SET state = 'skipped', error_code = $3, error = 'the job was cancelled'
         WHERE org_id = $1 AND job_id = $2 AND state = 'pending'
           AND EXISTS (SELECT FROM bulk_jobs j WHERE j.org_id = $1 AND j.id = $2 AND j.status = 'cancelled')",
    )
    .bind(org.0)
    .bind(id)
    .bind(Refusal::CANCELLED)
    .execute(connection)
    .await?;
    Ok(messages.rows_affected() + people.rows_affected())
}

/// A recipient with how far their message has come.
#[derive(Clone, Debug, FromRow)]
pub struct Recipient {
    pub position: i32,
    pub address: String,
    pub name: Option<String>,
    pub variables: Value,
    pub content: Option<Value>,
    /// `pending`, `skipped`, or the status of the message.
    pub state: String,
    pub message_id: Option<Uuid>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub queued_at: Option<DateTime<Utc>>,
    pub sent_at: Option<DateTime<Utc>>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
}

/// A job's recipients in the order of the list, after a position.
pub async fn list_recipients(
    connection: &mut PgConnection,
    org: OrgId,
    job: Uuid,
    state: Option<&str>,
    after: i32,
    limit: i64,
) -> Result<Vec<Recipient>> {
    Ok(sqlx::query_as(
        "SELECT r.position, r.address, r.name, r.variables, r.content,
             CASE WHEN r.state = 'queued' THEN coalesce(m.status, 'queued') ELSE r.state END AS state,
             r.message_id, coalesce(r.error_code, m.error_code) AS error_code, coalesce(r.error, m.error_message) AS error,
             m.created_at AS queued_at, m.sent_at, m.delivered_at, m.read_at, m.failed_at
         FROM bulk_recipients r LEFT JOIN messages m ON m.org_id = r.org_id AND m.id = r.message_id
         WHERE r.org_id = $1 AND r.job_id = $2 AND r.position > $3
           AND ($4::text IS NULL OR $4 = CASE WHEN r.state = 'queued' THEN coalesce(m.status, 'queued') ELSE r.state END)
         ORDER BY r.position LIMIT $5",
    )
    .bind(org.0)
    .bind(job)
    .bind(after)
    .bind(state)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// The first recipients who get something, with what they get.
pub async fn list_contents(
    connection: &mut PgConnection,
    org: OrgId,
    job: Uuid,
    limit: i64,
) -> Result<Vec<Pending>> {
    Ok(sqlx::query_as(
        "SELECT position, address, name, content FROM bulk_recipients
         WHERE org_id = $1 AND job_id = $2 AND content IS NOT NULL ORDER BY position LIMIT $3",
    )
    .bind(org.0)
    .bind(job)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// How many of a job's recipients are in a state.
#[derive(Clone, Debug, FromRow)]
pub struct StateCount {
    pub job_id: Uuid,
    /// `pending`, `skipped`, or the status of the message.
    pub state: String,
    pub recipients: i64,
    /// Of these, sent within the time asked for.
    pub recent: i64,
}

/// How far jobs have come. `recent` counts what was sent in the last `seconds`.
pub async fn count_states(
    connection: &mut PgConnection,
    org: OrgId,
    jobs: &[Uuid],
    seconds: f64,
) -> Result<Vec<StateCount>> {
    Ok(sqlx::query_as(
        "SELECT job_id, state, count(*) AS recipients, 0::bigint AS recent FROM bulk_recipients
         WHERE org_id = $1 AND job_id = ANY ($2) AND state <> 'queued' GROUP BY 1, 2
         UNION ALL
         SELECT bulk_job_id, status, count(*), count(*) FILTER (WHERE sent_at > now() - make_interval(secs => $3))
         FROM messages WHERE org_id = $1 AND bulk_job_id = ANY ($2) GROUP BY 1, 2",
    )
    .bind(org.0)
    .bind(jobs)
    .bind(seconds)
    .fetch_all(connection)
    .await?)
}

/// A job that is running or being cancelled.
#[derive(Clone, Debug, FromRow)]
pub struct UnderWay {
    pub org_id: Uuid,
    pub id: Uuid,
    pub channel_id: Uuid,
    pub template_id: Option<Uuid>,
    pub category: String,
    pub priority: i16,
    pub created_by: Option<Uuid>,
    pub is_cancelled: bool,
    /// Its messages in the outbox.
    pub waiting: i64,
    pub has_pending: bool,
}

/// Every job there is something to do for, the tenants in turn.
pub async fn list_under_way(tx: &mut SystemTx, limit: i64) -> Result<Vec<UnderWay>> {
    Ok(sqlx::query_as(
        "SELECT j.org_id, j.id, j.channel_id, j.template_id, j.category, j.priority, j.created_by,
             j.status = 'cancelled' AS is_cancelled,
             (SELECT count(*) FROM outbox o WHERE o.org_id = j.org_id AND o.lane = j.id
                AND o.lane <> '00000000-0000-0000-0000-000000000000') AS waiting,
             EXISTS (SELECT FROM bulk_recipients r
                     WHERE r.org_id = j.org_id AND r.job_id = j.id AND r.state = 'pending') AS has_pending
         FROM (SELECT *, row_number() OVER (PARTITION BY org_id ORDER BY priority, id) AS turn FROM bulk_jobs
               WHERE finished_at IS NULL AND status IN ('running', 'cancelled')
                 AND (status = 'cancelled' OR scheduled_for IS NULL OR scheduled_for <= now())) j
         ORDER BY j.turn, j.id LIMIT $1",
    )
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}

/// Somebody with what they get.
#[derive(Clone, Debug, FromRow)]
pub struct Pending {
    pub position: i32,
    pub address: String,
    pub name: Option<String>,
    pub content: Value,
}

/// Locks the job's next recipients; none unless it is running. Other feeders take those after them.
pub async fn lock_next(
    tx: &mut SystemTx,
    org: OrgId,
    job: Uuid,
    limit: i64,
) -> Result<Vec<Pending>> {
    Ok(sqlx::query_as(
        "SELECT r.position, r.address, r.name, r.content FROM bulk_recipients r
         WHERE r.org_id = $1 AND r.job_id = $2 AND r.state = 'pending'
           AND EXISTS (SELECT FROM bulk_jobs j WHERE j.org_id = $1 AND j.id = $2 AND j.status = 'running')
         ORDER BY r.position LIMIT $3 FOR UPDATE OF r SKIP LOCKED",
    )
    .bind(org.0)
    .bind(job)
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}

/// How queueing one recipient went.
#[derive(Clone, Debug)]
pub enum Fed {
    Queued(Uuid),
    Refused(Refusal),
    /// Our own trouble: again, a few times.
    Again(String),
}

/// Records how a batch went, and counts the uses of the template.
pub async fn record_fed(
    tx: &mut SystemTx,
    org: OrgId,
    job: &UnderWay,
    fed: &[(i32, Fed)],
) -> Result<()> {
    let (mut positions, mut messages, mut codes, mut words, mut again) =
        (vec![], vec![], vec![], vec![], vec![]);
    for (position, outcome) in fed {
        let (message, code, text, is_again) = match outcome {
            Fed::Queued(message) => (Some(*message), None, None, false),
            Fed::Refused(refusal) => (
                None,
                Some(refusal.code.as_str()),
                Some(refusal.words.as_str()),
                false,
            ),
            Fed::Again(text) => (None, Some("internal"), Some(text.as_str()), true),
        };
        positions.push(*position);
        messages.push(message);
        codes.push(code);
        words.push(text);
        again.push(is_again);
    }
    sqlx::query(
        "UPDATE bulk_recipients r SET message_id = f.message_id, tries = r.tries + f.again::int,
             state = CASE WHEN f.message_id IS NOT NULL THEN 'queued' WHEN f.again AND r.tries + 1 < $8 THEN 'pending' ELSE 'skipped' END,
             error_code = CASE WHEN f.again AND r.tries + 1 < $8 THEN NULL ELSE f.code END,
             error = CASE WHEN f.again AND r.tries + 1 < $8 THEN NULL ELSE f.words END
         FROM unnest($3::int[], $4::uuid[], $5::text[], $6::text[], $7::bool[]) AS f(position, message_id, code, words, again)
         WHERE r.org_id = $1 AND r.job_id = $2 AND r.position = f.position",
    )
    .bind(org.0)
    .bind(job.id)
    .bind(&positions)
    .bind(&messages)
    .bind(&codes)
    .bind(&words)
    .bind(&again)
    .bind(MAX_TRIES)
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE bulk_jobs SET started_at = now() WHERE org_id = $1 AND id = $2 AND started_at IS NULL")
        .bind(org.0)
        .bind(job.id)
        .execute(&mut **tx)
        .await?;
    let queued = messages.iter().flatten().count();
    if let (Some(template), 1..) = (job.template_id, queued) {
        // Last, because jobs with the same template wait here for each other.
        sqlx::query(
            "UPDATE templates SET usage_count = usage_count + $3, last_used_at = now()
             WHERE org_id = $1 AND id = $2 AND NOT is_system",
        )
        .bind(org.0)
        .bind(template)
        .bind(i64::try_from(queued).unwrap_or(i64::MAX))
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Ends the job if nothing of it is left to do: `completed`, `failed` if nobody at all could be written to, or
/// `cancelled` as it is. Returns whether it ended now.
pub async fn finish(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<bool> {
    // One statement sees one moment: a feeder under way has either committed both its changes or neither.
    let done = sqlx::query(
        "UPDATE bulk_jobs j SET finished_at = now(), paused_reason = NULL, status = CASE
             WHEN j.status = 'cancelled' THEN 'cancelled'
             WHEN EXISTS (SELECT FROM bulk_recipients r WHERE r.org_id = $1 AND r.job_id = $2 AND r.state = 'queued') THEN 'completed'
             ELSE 'failed' END
         WHERE j.org_id = $1 AND j.id = $2 AND j.finished_at IS NULL AND j.status IN ('running', 'cancelled')
           AND NOT EXISTS (SELECT FROM bulk_recipients r WHERE r.org_id = $1 AND r.job_id = $2 AND r.state = 'pending')
           AND NOT EXISTS (SELECT FROM outbox o WHERE o.org_id = $1 AND o.lane = $2
                AND o.lane <> '00000000-0000-0000-0000-000000000000')",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}
