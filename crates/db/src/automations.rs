//! Automations: rules that fill `notification_queue` when a row comes or when it is time. The work is done by
//! `wasel.run_automation` and the trigger `wasel.run_automations` (migration 0020); who may read what through them is
//! said in `docs/automations.md`.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Connection, FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::{Result, SystemTx, TenantTx};

/// The constraint that refuses a second rule of one name.
pub const UNIQUE_NAME: &str = "automations_org_id_name_key";

/// How long a run may take: its audience is somebody else's table.
const RUN_SECONDS: u32 = 60;
const PREVIEW_SECONDS: u32 = 10;

#[derive(Clone, Debug, FromRow)]
pub struct Automation {
    pub org_id: Uuid,
    pub id: Uuid,
    #[sqlx(flatten)]
    pub fields: AutomationFields,
    /// `None`: not computed yet, or an event.
    pub next_run_at: Option<DateTime<Utc>>,
    pub last_run_at: Option<DateTime<Utc>>,
    /// `ok` or `error`.
    pub last_run_status: Option<String>,
    pub last_error: Option<String>,
    pub last_count: Option<i32>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What people write.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct AutomationFields {
    pub name: String,
    pub description: Option<String>,
    /// `event` or `cron`.
    pub kind: String,
    pub enabled: bool,
    pub template_id: Uuid,
    /// `whatsapp`, `email`, `sms`.
    pub notification_type: String,
    pub priority: i16,
    pub source_schema: String,
    pub source_table: String,
    /// `insert` or `update`, for an event.
    pub operation: Option<String>,
    /// `[{column, op, value}]`.
    pub filters: Value,
    pub window_column: Option<String>,
    /// Days.
    pub window_days: Option<i32>,
    pub mapping: Value,
    /// `once`, `day`, `tick`.
    pub repeat: String,
    pub cron_expression: Option<String>,
    /// IANA; `None`: the organisation's.
    pub timezone: Option<String>,
}

/// One entry of a rule's history.
#[derive(Clone, Debug, FromRow)]
pub struct Run {
    pub id: Uuid,
    /// `tick`, `manual`, `event`.
    pub cause: String,
    pub tick: Option<DateTime<Utc>>,
    pub started_at: DateTime<Utc>,
    pub queued_count: i32,
    pub skipped_count: i32,
    pub skipped_reason: Option<String>,
    pub error: Option<String>,
}

/// What a run did.
#[derive(Clone, Debug, FromRow)]
pub struct RunOutcome {
    /// Rows put into the queue.
    pub queued: i32,
    /// Rows of the audience that cannot be written to.
    pub skipped: i32,
    /// Why, of the first.
    pub skipped_reason: Option<String>,
}

/// Somebody in a rule's audience.
#[derive(Clone, Debug, FromRow)]
pub struct PreviewRow {
    pub recipient_id: Option<Uuid>,
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    pub entity: Option<String>,
    pub message_data: Option<Value>,
    /// Why they cannot be written to.
    pub problem: Option<String>,
    pub already_sent: bool,
    /// The size of the whole audience.
    pub total: i64,
}

/// A field of a rule that will not do.
#[derive(Clone, Debug, FromRow)]
pub struct Problem {
    pub field: String,
    /// To be read after the field's name.
    pub problem: String,
}

/// A rule whose time has come, as [`list_due`] found it.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Due {
    pub org_id: Uuid,
    pub id: Uuid,
}

/// The tenant's rules, newest first, after `before` (an id from the page before).
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    kind: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Automation>> {
    Ok(sqlx::query_as(
        "SELECT * FROM automations WHERE org_id = $1 AND ($2::text IS NULL OR kind = $2)
           AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4",
    )
    .bind(org.0)
    .bind(kind)
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<Automation>> {
    Ok(
        sqlx::query_as("SELECT * FROM automations WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id)
            .fetch_optional(connection)
            .await?,
    )
}

/// Locked until the transaction ends.
pub async fn find_for_update(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<Automation>> {
    Ok(
        sqlx::query_as("SELECT * FROM automations WHERE org_id = $1 AND id = $2 FOR UPDATE")
            .bind(org.0)
            .bind(id)
            .fetch_optional(connection)
            .await?,
    )
}

pub async fn find_by_name(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
) -> Result<Option<Automation>> {
    Ok(
        sqlx::query_as("SELECT * FROM automations WHERE org_id = $1 AND name = $2")
            .bind(org.0)
            .bind(name)
            .fetch_optional(connection)
            .await?,
    )
}

/// # Errors
/// A second one of the same name is refused by [`UNIQUE_NAME`].
pub async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    fields: &AutomationFields,
    next_run_at: Option<DateTime<Utc>>,
    created_by: Option<UserId>,
) -> Result<Automation> {
    let insert = sqlx::query_as(
        "INSERT INTO automations (org_id, id, name, description, kind, enabled, template_id, notification_type, priority,
             source_schema, source_table, operation, filters, window_column, window_days, mapping, repeat,
             cron_expression, timezone, next_run_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
         RETURNING *",
    )
    .bind(org.0)
    .bind(Uuid::now_v7());
    Ok(bind_fields(insert, fields)
        .bind(next_run_at)
        .bind(created_by.map(|user| user.0))
        .fetch_one(connection)
        .await?)
}

/// Writes all fields; `None` if the tenant has no such rule.
///
/// # Errors
/// As [`insert`].
pub async fn update(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
    fields: &AutomationFields,
    next_run_at: Option<DateTime<Utc>>,
) -> Result<Option<Automation>> {
    let update = sqlx::query_as(
        "UPDATE automations SET name = $3, description = $4, kind = $5, enabled = $6, template_id = $7,
             notification_type = $8, priority = $9, source_schema = $10, source_table = $11, operation = $12,
             filters = $13, window_column = $14, window_days = $15, mapping = $16, repeat = $17, cron_expression = $18,
             timezone = $19, next_run_at = $20
         WHERE org_id = $1 AND id = $2 RETURNING *",
    )
    .bind(org.0)
    .bind(id);
    Ok(bind_fields(update, fields)
        .bind(next_run_at)
        .fetch_optional(connection)
        .await?)
}

type Query<'q> = sqlx::query::QueryAs<'q, sqlx::Postgres, Automation, sqlx::postgres::PgArguments>;

fn bind_fields<'q>(query: Query<'q>, fields: &'q AutomationFields) -> Query<'q> {
    query
        .bind(&fields.name)
        .bind(&fields.description)
        .bind(&fields.kind)
        .bind(fields.enabled)
        .bind(fields.template_id)
        .bind(&fields.notification_type)
        .bind(fields.priority)
        .bind(&fields.source_schema)
        .bind(&fields.source_table)
        .bind(&fields.operation)
        .bind(&fields.filters)
        .bind(&fields.window_column)
        .bind(fields.window_days)
        .bind(&fields.mapping)
        .bind(&fields.repeat)
        .bind(&fields.cron_expression)
        .bind(&fields.timezone)
}

/// Whether the tenant had such a rule. Its history goes with it.
pub async fn delete(connection: &mut PgConnection, org: OrgId, id: Uuid) -> Result<bool> {
    let done = sqlx::query("DELETE FROM automations WHERE org_id = $1 AND id = $2")
        .bind(org.0)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// The fields of a stored rule that name what is not there or not allowed.
pub async fn list_problems(tx: &mut TenantTx, org: OrgId, id: Uuid) -> Result<Vec<Problem>> {
    Ok(
        sqlx::query_as("SELECT * FROM wasel.automation_problems($1, $2)")
            .bind(org.0)
            .bind(id)
            .fetch_all(&mut **tx)
            .await?,
    )
}

/// The first of whom a run at this time would write to.
///
/// # Errors
/// The outer for trouble of ours; the inner says why the audience cannot be read.
pub async fn preview(
    tx: &mut TenantTx,
    org: OrgId,
    id: Uuid,
    at: DateTime<Utc>,
    limit: i32,
) -> Result<Result<Vec<PreviewRow>, String>> {
    set_timeout(tx, PREVIEW_SECONDS).await?;
    let mut part = tx.begin().await?;
    let rows = sqlx::query_as("SELECT * FROM wasel.preview_automation($1, $2, $3, $4)")
        .bind(org.0)
        .bind(id)
        .bind(at)
        .bind(limit)
        .fetch_all(&mut *part)
        .await;
    match rows {
        Ok(rows) => {
            part.commit().await?;
            Ok(Ok(rows))
        }
        Err(error) => {
            let reason = reason_of(error)?;
            part.rollback().await?;
            Ok(Err(reason))
        }
    }
}

/// What is to be noted down about a run.
#[derive(Clone, Copy, Debug)]
pub struct RunAt<'a> {
    /// `tick` or `manual`.
    pub cause: &'a str,
    /// The time the run stands for.
    pub tick: DateTime<Utc>,
    /// The present: what "today" and "within three days" count from.
    pub now: DateTime<Utc>,
}

/// Runs a rule of the tenant and notes it down; all of it or, where it fails, only the failure. It reads with the
/// rights of the transaction: the tenant's.
///
/// # Errors
/// The outer for trouble of ours; the inner is the failure that was noted down.
pub async fn run(
    tx: &mut TenantTx,
    org: OrgId,
    id: Uuid,
    at: RunAt<'_>,
) -> Result<Result<RunOutcome, String>> {
    set_timeout(tx, RUN_SECONDS).await?;
    let mut part = tx.begin().await?;
    let outcome: sqlx::Result<RunOutcome> =
        sqlx::query_as("SELECT * FROM wasel.run_automation($1, $2, $3, $4)")
            .bind(org.0)
            .bind(id)
            .bind(at.now)
            .bind(at.tick)
            .fetch_one(&mut *part)
            .await;
    let outcome = match outcome {
        Ok(outcome) => {
            part.commit().await?;
            Ok(outcome)
        }
        Err(error) => {
            let reason = reason_of(error)?;
            part.rollback().await?;
            Err(reason)
        }
    };
    note_run(tx, org, id, at, &outcome).await?;
    Ok(outcome)
}

async fn note_run(
    tx: &mut TenantTx,
    org: OrgId,
    id: Uuid,
    at: RunAt<'_>,
    outcome: &Result<RunOutcome, String>,
) -> Result<()> {
    let done = outcome.as_ref().ok();
    let error = outcome.as_ref().err();
    sqlx::query(
        "WITH noted AS (
             INSERT INTO automation_runs (org_id, automation_id, cause, tick, started_at, queued_count, skipped_count,
                 skipped_reason, error)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9))
         UPDATE automations SET last_run_at = $5, last_count = $6, last_error = $9,
             last_run_status = CASE WHEN $9::text IS NULL THEN 'ok' ELSE 'error' END
         WHERE org_id = $1 AND id = $2",
    )
    .bind(org.0)
    .bind(id)
    .bind(at.cause)
    .bind(at.tick)
    .bind(at.now)
    .bind(done.map_or(0, |done| done.queued))
    .bind(done.map_or(0, |done| done.skipped))
    .bind(done.and_then(|done| done.skipped_reason.as_deref()))
    .bind(error)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn set_timeout(tx: &mut TenantTx, seconds: u32) -> Result<()> {
    sqlx::query("SELECT set_config('statement_timeout', $1, true)")
        .bind(format!("{seconds}s"))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What the database said about a rule that does not work; trouble that passes is an error of ours.
fn reason_of(error: sqlx::Error) -> Result<String> {
    let said = error
        .as_database_error()
        .map(|error| error.message().to_owned());
    let error = crate::Error::from(error);
    match said {
        // 57014, the time-out, is the rule's own; the others of class 57 are the server's.
        Some(said) if said.contains("statement timeout") => {
            Ok("took too long to read its audience".to_owned())
        }
        Some(said) if !error.is_unavailable() && !error.is_conflict() => Ok(said),
        _ => Err(error),
    }
}

/// Rules whose time has come or is not computed yet, the longest waiting first. Not locked.
pub async fn list_due(tx: &mut SystemTx, now: DateTime<Utc>, limit: i64) -> Result<Vec<Due>> {
    Ok(sqlx::query_as(
        "SELECT org_id, id FROM automations
         WHERE kind = 'cron' AND enabled AND (next_run_at IS NULL OR next_run_at <= $1)
         ORDER BY next_run_at NULLS FIRST LIMIT $2",
    )
    .bind(now)
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}

/// Locks such a rule; `None` if another node has it or had it.
pub async fn lock_due(
    tx: &mut TenantTx,
    due: Due,
    now: DateTime<Utc>,
) -> Result<Option<Automation>> {
    Ok(sqlx::query_as(
        "SELECT * FROM automations
         WHERE org_id = $1 AND id = $2 AND kind = 'cron' AND enabled AND (next_run_at IS NULL OR next_run_at <= $3)
         FOR UPDATE SKIP LOCKED",
    )
    .bind(due.org_id)
    .bind(due.id)
    .bind(now)
    .fetch_optional(&mut **tx)
    .await?)
}

/// When the rule runs next.
pub async fn set_next_run(
    tx: &mut TenantTx,
    org: OrgId,
    id: Uuid,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query("UPDATE automations SET next_run_at = $3 WHERE org_id = $1 AND id = $2")
        .bind(org.0)
        .bind(id)
        .bind(at)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Switches off a rule whose schedule cannot be read (somebody's SQL wrote it), and says so in it.
pub async fn disable(tx: &mut TenantTx, org: OrgId, id: Uuid, why: &str) -> Result<()> {
    sqlx::query(
        "UPDATE automations SET enabled = false, last_run_status = 'error', last_error = $3
         WHERE org_id = $1 AND id = $2",
    )
    .bind(org.0)
    .bind(id)
    .bind(why)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A rule's history, newest first, after `before` (an id from the page before).
pub async fn list_runs(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Run>> {
    Ok(sqlx::query_as(
        "SELECT * FROM automation_runs WHERE org_id = $1 AND automation_id = $2 AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4",
    )
    .bind(org.0)
    .bind(id)
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// Forgets old runs, and the deliveries of rules that may write to the same entity again. Returns how many runs.
pub async fn delete_old(tx: &mut SystemTx, days: i32) -> Result<u64> {
    sqlx::query(
        "DELETE FROM automation_deliveries d USING automations a
         WHERE a.org_id = d.org_id AND a.id = d.automation_id AND a.repeat <> 'once' AND d.dedupe_key <> d.entity_id
           AND d.created_at < now() - make_interval(days => $1)",
    )
    .bind(days)
    .execute(&mut **tx)
    .await?;
    let done = sqlx::query(
        "DELETE FROM automation_runs WHERE started_at < now() - make_interval(days => $1)",
    )
    .bind(days)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}
