//! What is to be sent. Rows are claimed under a lease, marked `sending` before anything leaves, and deleted when
//! the provider's answer is recorded.
//!
//! A lease that runs out means a sender died between the two: the provider may have the message. Such a row waits
//! for the provider's callback (`unknown_since`), and after a grace time follows its policy.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::checks;
use crate::messages::status;
use crate::{Result, SystemTx};

/// A message to send now.
#[derive(Clone, Debug, FromRow)]
pub struct Claimed {
    pub org_id: Uuid,
    pub message_id: Uuid,
    pub channel_id: Uuid,
    pub conversation_id: Uuid,
    pub contact_id: Uuid,
    pub attempt_id: Uuid,
    /// This attempt's number, from 1.
    pub attempts: i32,
    pub at_most_once: bool,
    pub content: Value,
    pub quoted_message_id: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// Claims up to `limit` messages for `lease`: the oldest due, by priority, never two of one conversation at a time
/// and never a later one before an earlier one. Each gets a new attempt and the status `sending`, in this
/// transaction.
pub async fn lock_next(
    tx: &mut SystemTx,
    worker: Uuid,
    limit: usize,
    lease: Duration,
) -> Result<Vec<Claimed>> {
    let attempt_ids: Vec<Uuid> = (0..limit).map(|_| Uuid::now_v7()).collect();
    Ok(sqlx::query_as(
        "WITH due AS (
             SELECT o.org_id, o.message_id FROM outbox o
             WHERE coalesce(o.due_at <= now(), true) AND o.leased_until IS NULL AND NOT (o.at_most_once AND o.unknown_since IS NOT NULL)
               AND NOT EXISTS (
                 SELECT FROM outbox earlier WHERE earlier.org_id = o.org_id
                   AND earlier.conversation_id = o.conversation_id AND earlier.message_id < o.message_id)
               AND NOT EXISTS (
                 SELECT FROM channels c WHERE c.org_id = o.org_id AND c.id = o.channel_id AND c.status <> 'active')
             ORDER BY o.priority, o.due_at LIMIT $2 FOR UPDATE SKIP LOCKED
         ), numbered AS (
             SELECT org_id, message_id, ($4::uuid[])[row_number() OVER ()] AS attempt_id FROM due
         ), claimed AS (
             UPDATE outbox o SET lease_owner = $1, leased_until = now() + make_interval(secs => $3),
                 attempts = o.attempts + 1, attempt_id = n.attempt_id, unknown_since = NULL
             FROM numbered n WHERE o.org_id = n.org_id AND o.message_id = n.message_id
             RETURNING o.org_id, o.message_id, o.channel_id, o.conversation_id, o.attempt_id, o.attempts, o.at_most_once
         ), attempt AS (
             INSERT INTO message_attempts (org_id, id, message_id, channel_id, status)
             SELECT org_id, attempt_id, message_id, channel_id, 'sending' FROM claimed
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at)
             SELECT org_id, gen_random_uuid(), message_id, attempt_id, 'sending', now() FROM claimed
         ), message AS (
             UPDATE messages m SET status = 'sending', retry_count = c.attempts - 1, updated_at = now()
             FROM claimed c WHERE m.org_id = c.org_id AND m.id = c.message_id
               AND wasel.status_rank(m.status) <= wasel.status_rank('unknown')
             RETURNING m.org_id, m.id, m.contact_id, m.content, m.quoted_message_id, m.created_at
         )
         SELECT c.*, m.contact_id, m.content, m.quoted_message_id, m.created_at
         FROM claimed c JOIN message m ON m.org_id = c.org_id AND m.id = c.message_id",
    )
    .bind(worker)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(lease.as_secs_f64())
    .bind(&attempt_ids)
    .fetch_all(&mut **tx)
    .await?)
}

/// The provider took the attempt. Statuses that came before this answer apply now; after `check_after` the provider is
/// to be asked how it fared.
pub async fn record_accepted(
    tx: &mut SystemTx,
    claimed: &Claimed,
    provider_message_id: &str,
    check_after: Option<Duration>,
) -> Result<()> {
    // The echo of our own message may have arrived first and stand in the log as one of the phone app's.
    sqlx::query(
        "DELETE FROM messages WHERE org_id = $1 AND channel_id = $2 AND provider_message_id = $3 AND id <> $4
           AND direction = 'outbound' AND NOT EXISTS (
             SELECT FROM message_events e WHERE e.org_id = $1 AND e.message_id = messages.id AND e.event = 'queued')",
    )
    .bind(claimed.org_id)
    .bind(claimed.channel_id)
    .bind(provider_message_id)
    .bind(claimed.message_id)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "WITH attempt AS (
             UPDATE message_attempts SET provider_message_id = coalesce(provider_message_id, $4),
                 accepted_at = coalesce(accepted_at, now())
             WHERE org_id = $1 AND id = $3
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at, detail)
             VALUES ($1, $5, $2, $3, 'accepted', now(), jsonb_build_object('provider_message_id', $4::text))
             ON CONFLICT (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL DO NOTHING
         ), done AS (
             DELETE FROM outbox WHERE org_id = $1 AND message_id = $2 AND attempt_id = $3
         )
         UPDATE messages SET provider_message_id = $4, error_code = NULL, error_message = NULL, updated_at = now()
         WHERE org_id = $1 AND id = $2 AND provider_message_id IS DISTINCT FROM $4
           AND NOT EXISTS (SELECT FROM message_attempts newer
                           WHERE newer.org_id = $1 AND newer.message_id = $2 AND newer.id > $3)",
    )
    .bind(claimed.org_id)
    .bind(claimed.message_id)
    .bind(claimed.attempt_id)
    .bind(provider_message_id)
    .bind(Uuid::now_v7())
    .execute(&mut **tx)
    .await?;
    if let Some(wait) = check_after {
        checks::insert(tx, claimed.org_id, claimed.message_id, wait).await?;
    }
    status::apply_pending(
        tx,
        Some((claimed.org_id, claimed.channel_id, provider_message_id)),
    )
    .await?;
    Ok(())
}

/// Why an attempt did not go through.
#[derive(Clone, Debug)]
pub struct Failure<'a> {
    /// The class's name, e.g. `ThrottledPair`.
    pub class: &'a str,
    pub code: Option<&'a str>,
    pub message: &'a str,
}

/// What to do with the message after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send again after this time.
    Retry(Duration),
    /// It is unknown whether the provider took it: wait this long for its callback, then follow the policy.
    Reconcile(Duration),
    /// Give up: the message failed.
    Fail,
}

/// Records a failed attempt and what follows.
pub async fn record_failure(
    tx: &mut SystemTx,
    claimed: &Claimed,
    failure: &Failure<'_>,
    next: Next,
) -> Result<()> {
    let (attempt_status, message_status, wait) = match next {
        Next::Retry(wait) => ("failed", "queued", Some(wait)),
        Next::Reconcile(wait) => ("unknown", "unknown", Some(wait)),
        Next::Fail => ("failed", "failed", None),
    };
    let detail = json!({
        "class": failure.class, "error_code": failure.code, "error_message": failure.message,
        "retry_in_seconds": matches!(next, Next::Retry(_)).then(|| wait.map(|w| w.as_secs_f64())),
    });
    // A callback may have settled the attempt in the meantime; then the outbox row is gone and nothing is to be done.
    let still_ours = match wait {
        Some(wait) => {
            sqlx::query(
                "UPDATE outbox SET due_at = now() + make_interval(secs => $4), lease_owner = NULL, leased_until = NULL,
                     unknown_since = CASE WHEN $5 THEN now() END
                 WHERE org_id = $1 AND message_id = $2 AND attempt_id = $3",
            )
            .bind(claimed.org_id)
            .bind(claimed.message_id)
            .bind(claimed.attempt_id)
            .bind(wait.as_secs_f64())
            .bind(matches!(next, Next::Reconcile(_)))
            .execute(&mut **tx)
            .await?
        }
        None => {
            sqlx::query("DELETE FROM outbox WHERE org_id = $1 AND message_id = $2 AND attempt_id = $3")
                .bind(claimed.org_id)
                .bind(claimed.message_id)
                .bind(claimed.attempt_id)
                .execute(&mut **tx)
                .await?
        }
    };
    if still_ours.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "WITH attempt AS (
             UPDATE message_attempts SET error_code = $5, error_message = $6,
                 status = CASE WHEN wasel.status_rank($4) > wasel.status_rank(status) THEN $4 ELSE status END
             WHERE org_id = $1 AND id = $3
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at, detail)
             VALUES ($1, $7, $2, $3, CASE WHEN $8 = 'failed' THEN 'failed' WHEN $8 = 'unknown' THEN 'unknown' ELSE 'attempt_failed' END,
                 now(), $9)
             ON CONFLICT (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL DO NOTHING
         )
         UPDATE messages SET status = $8, error_code = $5, error_message = $6, updated_at = now(),
             failed_at = CASE WHEN $8 = 'failed' THEN now() ELSE failed_at END
         WHERE org_id = $1 AND id = $2 AND wasel.status_rank(status) <= wasel.status_rank('unknown')",
    )
    .bind(claimed.org_id)
    .bind(claimed.message_id)
    .bind(claimed.attempt_id)
    .bind(attempt_status)
    .bind(failure.code)
    .bind(failure.message)
    .bind(Uuid::now_v7())
    .bind(message_status)
    .bind(detail)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Puts claimed messages back untouched: nothing was sent (shutdown, channel paused).
pub async fn release(
    tx: &mut SystemTx,
    claimed: &Claimed,
    wait: Duration,
    reason: &str,
) -> Result<()> {
    record_failure(
        tx,
        claimed,
        &Failure {
            class: "Held",
            code: None,
            message: reason,
        },
        Next::Retry(wait),
    )
    .await
}

/// Extends the leases of the attempts that a living worker has under way.
pub async fn update_leases(
    tx: &mut SystemTx,
    worker: Uuid,
    attempts: &[Uuid],
    lease: Duration,
) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE outbox SET leased_until = now() + make_interval(secs => $3)
         WHERE lease_owner = $1 AND attempt_id = ANY ($2) AND leased_until IS NOT NULL",
    )
    .bind(worker)
    .bind(attempts)
    .bind(lease.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// Finds sends whose worker died: from now on they wait for the provider's callback, for `wait`.
pub async fn mark_abandoned(tx: &mut SystemTx, wait: Duration) -> Result<u64> {
    // Claimed in vain: the message had come to its end already.
    sqlx::query(
        "DELETE FROM outbox o USING messages m
         WHERE o.leased_until < now() AND m.org_id = o.org_id AND m.id = o.message_id
           AND wasel.status_rank(m.status) > wasel.status_rank('unknown')",
    )
    .execute(&mut **tx)
    .await?;
    let done = sqlx::query(
        "WITH abandoned AS (
             UPDATE outbox SET lease_owner = NULL, leased_until = NULL, unknown_since = now(),
                 due_at = now() + make_interval(secs => $1)
             WHERE (org_id, message_id) IN (
                 SELECT org_id, message_id FROM outbox WHERE leased_until < now() LIMIT 500 FOR UPDATE SKIP LOCKED)
             RETURNING org_id, message_id, attempt_id
         ), attempt AS (
             UPDATE message_attempts t SET status = 'unknown' FROM abandoned a
             WHERE t.org_id = a.org_id AND t.id = a.attempt_id AND t.status = 'sending'
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at)
             SELECT org_id, gen_random_uuid(), message_id, attempt_id, 'unknown', now() FROM abandoned
             ON CONFLICT (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL DO NOTHING
         )
         UPDATE messages m SET status = 'unknown', updated_at = now() FROM abandoned a
         WHERE m.org_id = a.org_id AND m.id = a.message_id AND wasel.status_rank(m.status) < wasel.status_rank('unknown')",
    )
    .bind(wait.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// Ends the wait of messages that must never be sent twice: they stay `unknown`, for a person to decide.
pub async fn settle_unknown(tx: &mut SystemTx) -> Result<u64> {
    let done = sqlx::query(
        "WITH settled AS (
             DELETE FROM outbox WHERE (org_id, message_id) IN (
                 SELECT org_id, message_id FROM outbox
                 WHERE at_most_once AND unknown_since IS NOT NULL AND due_at <= now() LIMIT 500 FOR UPDATE SKIP LOCKED)
             RETURNING org_id, message_id
         )
         UPDATE messages m SET updated_at = now(), error_code = 'unknown_outcome',
             error_message = 'The provider''s answer was lost and no callback came; it was not sent again because its policy is at_most_once.'
         FROM settled s WHERE m.org_id = s.org_id AND m.id = s.message_id",
    )
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// How long until the next row is due; `None` when the outbox is empty.
pub async fn next_due_in(connection: &mut PgConnection) -> Result<Option<Duration>> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM min(coalesce(due_at, now())) - now())::float8 FROM outbox WHERE leased_until IS NULL",
    )
    .fetch_one(connection)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))))
}
