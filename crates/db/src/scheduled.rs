//! Messages for later: once, or again and again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::{Result, SystemTx};

/// What a row is read as: an interval as seconds.
const COLUMNS: &str = "org_id, id, channel_id, conversation_id, address, recipient_name, content, template_id, variables,
    category, priority, scheduled_for, timezone, recurrence, ends_at, max_runs,
    extract(epoch FROM late_limit)::float8 AS late_limit_seconds, status, message_id, last_run_at, run_count, error_code, error,
    created_by, created_at, updated_at";

#[derive(Clone, Debug, FromRow)]
pub struct ScheduledMessage {
    pub org_id: Uuid,
    pub id: Uuid,
    #[sqlx(flatten)]
    pub fields: ScheduledFields,
    pub status: String,
    pub message_id: Option<Uuid>,
    pub last_run_at: Option<DateTime<Utc>>,
    pub run_count: i32,
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What people write.
#[derive(Clone, Debug, FromRow)]
pub struct ScheduledFields {
    pub channel_id: Uuid,
    /// To the customer of this conversation, or to `address`.
    pub conversation_id: Option<Uuid>,
    pub address: Option<String>,
    pub recipient_name: Option<String>,
    /// As it will go; else a template is filled in when its time has come.
    pub content: Option<Value>,
    pub template_id: Option<Uuid>,
    pub variables: Value,
    pub category: String,
    /// 1 (first) to 10.
    pub priority: i16,
    pub scheduled_for: DateTime<Utc>,
    /// IANA name.
    pub timezone: String,
    /// A cron expression; `None`: once.
    pub recurrence: Option<String>,
    pub ends_at: Option<DateTime<Utc>>,
    pub max_runs: Option<i32>,
    /// Later than this it is not sent any more.
    pub late_limit_seconds: f64,
}

/// Which ones a list shows. All conditions hold at once.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<&'a str>,
    pub channel_id: Option<Uuid>,
    pub conversation_id: Option<Uuid>,
    pub recurring: Option<bool>,
}

pub async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    fields: &ScheduledFields,
    created_by: Option<UserId>,
) -> Result<ScheduledMessage> {
    let sql = format!(
        "INSERT INTO scheduled_messages (org_id, id, channel_id, conversation_id, address, recipient_name, content, template_id,
             variables, category, priority, scheduled_for, timezone, recurrence, ends_at, max_runs, late_limit, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, make_interval(secs => $17), $18)
         RETURNING {COLUMNS}"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(org.0)
        .bind(Uuid::now_v7())
        .bind(fields.channel_id)
        .bind(fields.conversation_id)
        .bind(&fields.address)
        .bind(&fields.recipient_name)
        .bind(&fields.content)
        .bind(fields.template_id)
        .bind(&fields.variables)
        .bind(&fields.category)
        .bind(fields.priority)
        .bind(fields.scheduled_for)
        .bind(&fields.timezone)
        .bind(&fields.recurrence)
        .bind(fields.ends_at)
        .bind(fields.max_runs)
        .bind(fields.late_limit_seconds)
        .bind(created_by.map(|user| user.0))
        .fetch_one(connection)
        .await?)
}

/// Writes all fields but the channel and the recipient of one that has not gone out; `None` if there is none.
pub async fn update(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
    fields: &ScheduledFields,
) -> Result<Option<ScheduledMessage>> {
    let sql = format!(
        "UPDATE scheduled_messages SET content = $3, template_id = $4, variables = $5, category = $6, priority = $7,
             scheduled_for = $8, timezone = $9, recurrence = $10, ends_at = $11, max_runs = $12,
             late_limit = make_interval(secs => $13)
         WHERE org_id = $1 AND id = $2 AND status = 'scheduled' RETURNING {COLUMNS}"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(org.0)
        .bind(id)
        .bind(&fields.content)
        .bind(fields.template_id)
        .bind(&fields.variables)
        .bind(&fields.category)
        .bind(fields.priority)
        .bind(fields.scheduled_for)
        .bind(&fields.timezone)
        .bind(&fields.recurrence)
        .bind(fields.ends_at)
        .bind(fields.max_runs)
        .bind(fields.late_limit_seconds)
        .fetch_optional(connection)
        .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<ScheduledMessage>> {
    let sql = format!("SELECT {COLUMNS} FROM scheduled_messages WHERE org_id = $1 AND id = $2");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(org.0)
        .bind(id)
        .fetch_optional(connection)
        .await?)
}

/// The same, locked until the transaction ends.
pub async fn find_for_update(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<ScheduledMessage>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduled_messages WHERE org_id = $1 AND id = $2 FOR UPDATE"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(org.0)
        .bind(id)
        .fetch_optional(connection)
        .await?)
}

/// The newest first, before an id from the page before.
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    filter: &Filter<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ScheduledMessage>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduled_messages WHERE org_id = $1 AND ($2::text IS NULL OR status = $2)
           AND ($3::uuid IS NULL OR channel_id = $3) AND ($4::uuid IS NULL OR conversation_id = $4)
           AND ($5::boolean IS NULL OR (recurrence IS NOT NULL) = $5) AND ($6::uuid IS NULL OR id < $6)
         ORDER BY id DESC LIMIT $7"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(org.0)
        .bind(filter.status)
        .bind(filter.channel_id)
        .bind(filter.conversation_id)
        .bind(filter.recurring)
        .bind(before)
        .bind(limit)
        .fetch_all(connection)
        .await?)
}

/// Calls it off; `None` if it is not `scheduled`.
pub async fn cancel(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<ScheduledMessage>> {
    let sql = format!(
        "UPDATE scheduled_messages SET status = 'cancelled'
         WHERE org_id = $1 AND id = $2 AND status = 'scheduled' RETURNING {COLUMNS}"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(org.0)
        .bind(id)
        .fetch_optional(connection)
        .await?)
}

/// Whether there was one. A message it made stays.
pub async fn delete(connection: &mut PgConnection, org: OrgId, id: Uuid) -> Result<bool> {
    let done = sqlx::query("DELETE FROM scheduled_messages WHERE org_id = $1 AND id = $2")
        .bind(org.0)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// What is due, the longest overdue first. Not locked: [`lock_due`] does that one by one.
pub async fn list_due(tx: &mut SystemTx, limit: i64) -> Result<Vec<ScheduledMessage>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduled_messages WHERE status = 'scheduled' AND scheduled_for <= now()
         ORDER BY scheduled_for LIMIT $1"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(limit)
        .fetch_all(&mut **tx)
        .await?)
}

/// Locks this one, if it still is as it was read and nobody else has it.
pub async fn lock_due(tx: &mut SystemTx, read: &ScheduledMessage) -> Result<bool> {
    let found: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM scheduled_messages WHERE org_id = $1 AND id = $2 AND status = 'scheduled' AND updated_at = $3
         FOR UPDATE SKIP LOCKED",
    )
    .bind(read.org_id)
    .bind(read.id)
    .bind(read.updated_at)
    .fetch_optional(&mut **tx)
    .await?;
    Ok(found.is_some())
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The message it made.
    pub message_id: Option<Uuid>,
    /// Why it made none: a code, and words for people.
    pub error: Option<(String, String)>,
    /// When it goes again; `None`: never.
    pub next: Option<DateTime<Utc>>,
}

/// Records a run of a locked one.
pub async fn record_run(tx: &mut SystemTx, org: OrgId, id: Uuid, run: &Run) -> Result<()> {
    let (code, words) = run.error.clone().unzip();
    // The last run decides how the whole is remembered.
    sqlx::query(
        "UPDATE scheduled_messages SET run_count = run_count + 1, last_run_at = now(),
             message_id = coalesce($3, message_id), error_code = $4, error = $5, scheduled_for = coalesce($6, scheduled_for),
             status = CASE WHEN $6 IS NOT NULL THEN 'scheduled' WHEN $4 IS NULL THEN 'sent' ELSE 'failed' END
         WHERE org_id = $1 AND id = $2",
    )
    .bind(org.0)
    .bind(id)
    .bind(run.message_id)
    .bind(code)
    .bind(words)
    .bind(run.next)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How long until the next one is due; `None` if none is.
pub async fn next_due_in(tx: &mut SystemTx) -> Result<Option<Duration>> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM min(scheduled_for) - now())::float8 FROM scheduled_messages WHERE status = 'scheduled'",
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))))
}
