//! The notification queue (S4.5): anybody's SQL writes it, the processor turns each row into a message.
//!
//! A row is taken for as long as its transaction lives, and becomes `processing` together with its message. From then on
//! triggers end it when the message ends (migration 0017); a failure is settled by [`settle_failure`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;
use wasel_domain::{MessageId, OrgId};

use crate::{Db, Result, SystemTx};

/// The channel of `NOTIFY` that says rows are ready.
pub const WAKE_CHANNEL: &str = "wasel_queue";

/// A `processing` row without a message, from another program: after this it is taken again.
const STRAY: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, FromRow)]
pub struct Notification {
    pub org_id: Uuid,
    pub id: Uuid,
    /// `whatsapp`, `email`, `sms`.
    pub notification_type: String,
    /// A contact or a member.
    pub recipient_id: Option<Uuid>,
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    pub template_id: Option<Uuid>,
    pub message_data: Value,
    /// 1 (first) to 10.
    pub priority: i16,
    pub scheduled_for: DateTime<Utc>,
    /// `pending`, `processing`, `completed`, `failed`, `cancelled`.
    pub status: String,
    pub attempts: i32,
    pub max_attempts: i32,
    pub last_attempt_at: Option<DateTime<Utc>>,
    pub error_message: Option<String>,
    /// Our id of the newest message sent for it, whatever its channel.
    pub whatsapp_message_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub completed_at: Option<DateTime<Utc>>,
}

/// A row to be queued.
#[derive(Clone, Debug)]
pub struct NewNotification {
    pub notification_type: &'static str,
    pub recipient_id: Option<Uuid>,
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    pub template_id: Option<Uuid>,
    pub message_data: Value,
    pub priority: i16,
    /// `None`: now.
    pub scheduled_for: Option<DateTime<Utc>>,
}

/// Whatever the statistics say, the transaction's look-ups go by the partial indexes: the table keeps what is done, and
/// a cost must go with what there is to do.
async fn by_index(tx: &mut SystemTx) -> Result<()> {
    sqlx::query("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The ids of rows that are due, tenants in the order of their ids after `after`: of each up to `per_tenant`, by
/// priority, then time, then id; at most `limit` in all. With `only` of that tenant alone. Locks nothing.
pub async fn list_due(
    tx: &mut SystemTx,
    only: Option<OrgId>,
    after: Uuid,
    per_tenant: i64,
    limit: i64,
) -> Result<Vec<(Uuid, Uuid)>> {
    by_index(tx).await?;
    let any: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM notification_queue WHERE status = 'pending' AND scheduled_for <= now())",
    )
    .persistent(false)
    .fetch_one(&mut **tx)
    .await?;
    if !any {
        return Ok(Vec::new());
    }
    let mut rows: Vec<(Uuid, i32, DateTime<Utc>, Uuid)> = sqlx::query_as(
        "WITH RECURSIVE tenant AS (
             (SELECT q.org_id FROM notification_queue q
              WHERE q.status = 'pending' AND q.org_id > $1 AND ($4::uuid IS NULL OR q.org_id = $4)
              ORDER BY q.org_id LIMIT 1)
             UNION ALL
             SELECT (SELECT q.org_id FROM notification_queue q WHERE q.status = 'pending' AND q.org_id > t.org_id
                     ORDER BY q.org_id LIMIT 1)
             FROM tenant t WHERE t.org_id IS NOT NULL AND $4::uuid IS NULL
         )
         SELECT t.org_id, d.priority, d.scheduled_for, d.id FROM tenant t CROSS JOIN LATERAL (
             SELECT q.id, p.priority, q.scheduled_for FROM generate_series(1, 10) AS p(priority)
             CROSS JOIN LATERAL (
                 SELECT q.id, q.scheduled_for FROM notification_queue q
                 WHERE q.org_id = t.org_id AND q.status = 'pending' AND q.priority = p.priority AND q.scheduled_for <= now()
                 ORDER BY q.scheduled_for, q.id LIMIT $2) q
             ORDER BY p.priority, q.scheduled_for, q.id LIMIT $2) d
         WHERE t.org_id IS NOT NULL LIMIT $3",
    )
    .bind(only.map_or(after, |_| Uuid::nil()))
    .bind(per_tenant)
    .bind(limit)
    .bind(only.map(|org| org.0))
    // Planned for this one look, with the settings above.
    .persistent(false)
    .fetch_all(&mut **tx)
    .await?;
    rows.sort_unstable();
    Ok(rows.into_iter().map(|(org, _, _, id)| (org, id)).collect())
}

/// How long until the next pending row is due; `None` when there is none.
pub async fn next_due_in(tx: &mut SystemTx) -> Result<Option<Duration>> {
    by_index(tx).await?;
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM min(scheduled_for) - now())::float8 FROM notification_queue WHERE status = 'pending'",
    )
    .persistent(false)
    .fetch_one(&mut **tx)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))))
}

/// Takes a row that is still due until the transaction ends; `None` if somebody else has it, or the tenant: rows of one
/// tenant are worked off one after the other, however many nodes there are, so that they keep their order.
pub async fn lock_due(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<Option<Notification>> {
    let ours: bool = sqlx::query_scalar(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('wasel_queue ' || $1::text, 0))",
    )
    .bind(org.0)
    .fetch_one(&mut **tx)
    .await?;
    if !ours {
        return Ok(None);
    }
    Ok(sqlx::query_as(
        "SELECT * FROM notification_queue
         WHERE org_id = $1 AND id = $2 AND status = 'pending' AND scheduled_for <= now() FOR UPDATE SKIP LOCKED",
    )
    .bind(org.0)
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?)
}

/// The newest message of a row that was or may yet be sent: with one there, another would be a second one.
pub async fn find_live_message(
    tx: &mut SystemTx,
    row: &Notification,
) -> Result<Option<(Uuid, String)>> {
    Ok(sqlx::query_as(
        "SELECT id, status FROM messages
         WHERE org_id = $1 AND notification_id = $2 AND status NOT IN ('failed', 'cancelled') ORDER BY id DESC LIMIT 1",
    )
    .bind(row.org_id)
    .bind(row.id)
    .fetch_optional(&mut **tx)
    .await?)
}

/// The row has its message: `processing` until that one ends.
pub async fn record_message(
    tx: &mut SystemTx,
    row: &Notification,
    message: MessageId,
) -> Result<()> {
    sqlx::query(
        "UPDATE notification_queue SET status = 'processing', attempts = attempts + 1, last_attempt_at = now(),
             whatsapp_message_id = $3, error_message = NULL
         WHERE org_id = $1 AND id = $2",
    )
    .bind(row.org_id)
    .bind(row.id)
    .bind(message.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The row had a message already, of this status: it goes on with that one.
pub async fn record_live_message(
    tx: &mut SystemTx,
    row: &Notification,
    (message, status): (Uuid, &str),
) -> Result<()> {
    let (status, error) = match status {
        "sent" | "delivered" | "read" => ("completed", None),
        "unknown" => (
            "failed",
            Some("it is not known whether its message arrived, and it is not sent twice"),
        ),
        _ => ("processing", None),
    };
    sqlx::query(
        "UPDATE notification_queue SET status = $3, whatsapp_message_id = $4, error_message = $5,
             completed_at = CASE $3 WHEN 'completed' THEN coalesce(completed_at, now()) END
         WHERE org_id = $1 AND id = $2",
    )
    .bind(row.org_id)
    .bind(row.id)
    .bind(status)
    .bind(message)
    .bind(error)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// An attempt that led to no message: the row waits for `again`, or has failed.
pub async fn record_refusal(
    tx: &mut SystemTx,
    row: &Notification,
    error_message: &str,
    again: Option<Duration>,
) -> Result<()> {
    sqlx::query(
        "UPDATE notification_queue SET attempts = attempts + 1, last_attempt_at = now(), error_message = $3,
             status = CASE WHEN $4::float8 IS NULL THEN 'failed' ELSE 'pending' END,
             scheduled_for = CASE WHEN $4 IS NULL THEN scheduled_for ELSE now() + make_interval(secs => $4) END
         WHERE org_id = $1 AND id = $2",
    )
    .bind(row.org_id)
    .bind(row.id)
    .bind(error_message)
    .bind(again.map(|wait| wait.as_secs_f64()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A row that may not be tried at all: no attempt is counted.
pub async fn record_exhausted(
    tx: &mut SystemTx,
    row: &Notification,
    error_message: &str,
) -> Result<()> {
    sqlx::query(
        "UPDATE notification_queue SET status = 'failed', error_message = $3 WHERE org_id = $1 AND id = $2",
    )
    .bind(row.org_id)
    .bind(row.id)
    .bind(error_message)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The message of a row has failed: with `can_pass` the row waits for its next attempt, if it has one, else it has failed,
/// too. Says whether there will be another attempt. `wait` tells how long to wait after which attempt.
pub async fn settle_failure(
    tx: &mut SystemTx,
    org: Uuid,
    id: Uuid,
    message: Uuid,
    error_message: &str,
    can_pass: bool,
    wait: impl Fn(i32) -> Duration,
) -> Result<bool> {
    // The message first, as everybody does who changes it.
    let failed: Option<bool> = sqlx::query_scalar(
        "SELECT status = 'failed' FROM messages WHERE org_id = $1 AND id = $2 FOR SHARE",
    )
    .bind(org)
    .bind(message)
    .fetch_optional(&mut **tx)
    .await?;
    let row: Option<Notification> = sqlx::query_as(
        "SELECT * FROM notification_queue
         WHERE org_id = $1 AND id = $2 AND whatsapp_message_id = $3 AND status = 'processing' FOR UPDATE",
    )
    .bind(org)
    .bind(id)
    .bind(message)
    .fetch_optional(&mut **tx)
    .await?;
    let (Some(true), Some(row)) = (failed, row) else {
        return Ok(false);
    };
    let again = (can_pass && row.attempts < row.max_attempts).then(|| wait(row.attempts));
    sqlx::query(
        "UPDATE notification_queue SET error_message = $3,
             status = CASE WHEN $4::float8 IS NULL THEN 'failed' ELSE 'pending' END,
             scheduled_for = CASE WHEN $4 IS NULL THEN scheduled_for ELSE now() + make_interval(secs => $4) END
         WHERE org_id = $1 AND id = $2",
    )
    .bind(org)
    .bind(id)
    .bind(error_message)
    .bind(again.map(|wait| wait.as_secs_f64()))
    .execute(&mut **tx)
    .await?;
    Ok(again.is_some())
}

/// Rows that another program made `processing` and left so, without a message, become `pending` again.
pub async fn release_strays(tx: &mut SystemTx) -> Result<u64> {
    by_index(tx).await?;
    let done = sqlx::query(
        "UPDATE notification_queue SET status = 'pending' WHERE (org_id, id) IN (
             SELECT org_id, id FROM notification_queue
             WHERE status = 'processing' AND whatsapp_message_id IS NULL
               AND coalesce(last_attempt_at, updated_at) < now() - make_interval(secs => $1)
             LIMIT 500 FOR UPDATE SKIP LOCKED)",
    )
    .bind(STRAY.as_secs_f64())
    .persistent(false)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

pub async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    new: &NewNotification,
) -> Result<Notification> {
    Ok(sqlx::query_as(
        "INSERT INTO notification_queue (org_id, id, notification_type, recipient_id, recipient_phone, recipient_email,
             template_id, message_data, priority, scheduled_for)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, now())) RETURNING *",
    )
    .bind(org.0)
    .bind(Uuid::now_v7())
    .bind(new.notification_type)
    .bind(new.recipient_id)
    .bind(&new.recipient_phone)
    .bind(&new.recipient_email)
    .bind(new.template_id)
    .bind(&new.message_data)
    .bind(new.priority)
    .bind(new.scheduled_for)
    .fetch_one(connection)
    .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<Notification>> {
    Ok(
        sqlx::query_as("SELECT * FROM notification_queue WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id)
            .fetch_optional(connection)
            .await?,
    )
}

/// Which rows a list shows. All conditions hold at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<&'a str>,
    pub notification_type: Option<&'a str>,
}

/// Newest first, after `before` (the last row of the page before: its time and id).
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    filter: Filter<'_>,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Notification>> {
    let mut query: QueryBuilder<Postgres> =
        QueryBuilder::new("SELECT * FROM notification_queue WHERE org_id = ");
    query.push_bind(org.0);
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.to_owned());
    }
    if let Some(kind) = filter.notification_type {
        query
            .push(" AND notification_type = ")
            .push_bind(kind.to_owned());
    }
    if let Some((at, id)) = before {
        query.push(" AND (created_at, id) < (").push_bind(at);
        query.push(", ").push_bind(id).push(")");
    }
    query
        .push(" ORDER BY created_at DESC, id DESC LIMIT ")
        .push_bind(limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

/// Cancels a row that is waiting, or whose message has not left. Returns the row as it stands then; `None` if there is
/// no such row. Where it was too late the status is not `cancelled` (the trigger of migration 0017 decides).
pub async fn cancel(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<Notification>> {
    sqlx::query(
        "UPDATE notification_queue SET status = 'cancelled'
         WHERE org_id = $1 AND id = $2 AND status IN ('pending', 'processing')",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut *connection)
    .await?;
    find(connection, org, id).await
}

/// Hears when rows became ready, whoever wrote them. Deaf behind a pooler that hands connections round: a poll must be
/// beside it.
pub struct Listener(sqlx::postgres::PgListener);

impl Listener {
    /// On a connection of its own.
    pub async fn open(db: &Db) -> Result<Self> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(db.connect_options().clone());
        let mut listener = sqlx::postgres::PgListener::connect_with(&pool).await?;
        listener.listen(WAKE_CHANNEL).await?;
        Ok(Self(listener))
    }

    /// Waits until something was said, or the connection was lost and made again: then something may have been missed.
    pub async fn wait(&mut self) -> Result<()> {
        self.0.try_recv().await?;
        Ok(())
    }
}
