//! Sends whose end nobody recorded: by a slow provider, or by a process that died.

use std::time::Duration;

use uuid::Uuid;

use super::record::lock_messages;
use crate::messages::status;
use crate::{Result, SystemTx};

/// Shows attempts as `sending` that have been under way for a while; the quick ones are written down once, at their end.
pub async fn mark_sending(tx: &mut SystemTx, worker: Uuid, attempts: &[Uuid]) -> Result<()> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT o.org_id, o.message_id FROM outbox o
         WHERE o.leased_until IS NOT NULL AND o.lease_owner = $1 AND o.attempt_id = ANY ($2) AND NOT EXISTS (
             SELECT FROM message_attempts t WHERE t.org_id = o.org_id AND t.id = o.attempt_id)",
    )
    .bind(worker)
    .bind(attempts)
    .fetch_all(&mut **tx)
    .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let (orgs, messages): (Vec<Uuid>, Vec<Uuid>) = rows.into_iter().unzip();
    lock_messages(tx, &orgs, &messages).await?;
    sqlx::query(
        "WITH slow AS MATERIALIZED (
             SELECT o.* FROM unnest($1::uuid[], $2::uuid[]) AS e(org_id, message_id)
             JOIN outbox o ON o.org_id = e.org_id AND o.message_id = e.message_id
             WHERE o.leased_until IS NOT NULL AND o.lease_owner = $3
         ), attempt AS (
             INSERT INTO message_attempts (org_id, id, message_id, channel_id, status, created_at)
             SELECT org_id, attempt_id, message_id, channel_id, 'sending', claimed_at FROM slow ON CONFLICT DO NOTHING
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at)
             SELECT org_id, gen_random_uuid(), message_id, attempt_id, 'sending', claimed_at FROM slow
             ON CONFLICT (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL DO NOTHING
         )
         UPDATE messages m SET status = 'sending', updated_at = now() FROM slow s
         WHERE m.org_id = s.org_id AND m.id = s.message_id AND wasel.status_rank(m.status) <= wasel.status_rank('unknown')",
    )
    .bind(&orgs)
    .bind(&messages)
    .bind(worker)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Finds sends whose worker died: from now on they wait for the provider's callback, for `wait`. Callbacks that have
/// come already count at once.
/// After `max_attempts` a message is not sent again, whatever its policy.
pub async fn mark_abandoned(tx: &mut SystemTx, wait: Duration, max_attempts: i32) -> Result<u64> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT org_id, message_id FROM outbox WHERE leased_until < now() ORDER BY leased_until LIMIT 500",
    )
    .fetch_all(&mut **tx)
    .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let (orgs, messages): (Vec<Uuid>, Vec<Uuid>) = rows.into_iter().unzip();
    lock_messages(tx, &orgs, &messages).await?;
    let abandoned: Vec<(Uuid, Uuid, Uuid)> = sqlx::query_as(
        "WITH abandoned AS (
             UPDATE outbox o SET lease_owner = NULL, leased_until = NULL, unknown_since = now(), hold_reason = 'unknown',
                 due_at = now() + make_interval(secs => $3), at_most_once = o.at_most_once OR o.attempts >= $4
             FROM unnest($1::uuid[], $2::uuid[]) AS e(org_id, message_id)
             WHERE o.org_id = e.org_id AND o.message_id = e.message_id AND o.leased_until < now()
             RETURNING o.org_id, o.message_id, o.channel_id, o.attempt_id, o.claimed_at
         ), attempt AS (
             INSERT INTO message_attempts AS t (org_id, id, message_id, channel_id, status, created_at)
             SELECT org_id, attempt_id, message_id, channel_id, 'unknown', coalesce(claimed_at, now()) FROM abandoned
             ON CONFLICT (org_id, id) DO UPDATE SET status = 'unknown' WHERE t.status = 'sending'
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at)
             SELECT org_id, gen_random_uuid(), message_id, attempt_id, 'sending', coalesce(claimed_at, now()) FROM abandoned
             UNION ALL
             SELECT org_id, gen_random_uuid(), message_id, attempt_id, 'unknown', now() FROM abandoned
             ON CONFLICT (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL DO NOTHING
         ), message AS (
             UPDATE messages m SET status = 'unknown', updated_at = now() FROM abandoned a
             WHERE m.org_id = a.org_id AND m.id = a.message_id AND wasel.status_rank(m.status) < wasel.status_rank('unknown')
         )
         SELECT org_id, channel_id, attempt_id FROM abandoned",
    )
    .bind(&orgs)
    .bind(&messages)
    .bind(wait.as_secs_f64())
    .bind(max_attempts)
    .fetch_all(&mut **tx)
    .await?;
    // The message had come to its end already, by somebody's SQL.
    sqlx::query(
        "DELETE FROM outbox o USING messages m, unnest($1::uuid[], $2::uuid[]) AS e(org_id, message_id)
         WHERE o.org_id = e.org_id AND o.message_id = e.message_id AND m.org_id = o.org_id AND m.id = o.message_id
           AND wasel.status_rank(m.status) > wasel.status_rank('unknown')",
    )
    .bind(&orgs)
    .bind(&messages)
    .execute(&mut **tx)
    .await?;
    let (mut orgs, mut channels, mut attempts) = (vec![], vec![], vec![]);
    for (org, channel, attempt) in &abandoned {
        orgs.push(*org);
        channels.push(*channel);
        attempts.push(*attempt);
    }
    let no_ids = vec![None; abandoned.len()];
    status::apply_pending_of(tx, &orgs, &channels, &no_ids, &attempts).await?;
    Ok(abandoned.len() as u64)
}

/// Ends the wait of messages that must never be sent twice: they stay `unknown`, for a person to decide.
pub async fn settle_unknown(tx: &mut SystemTx) -> Result<u64> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT org_id, message_id FROM outbox
         WHERE at_most_once AND unknown_since IS NOT NULL AND due_at <= now() AND leased_until IS NULL LIMIT 500",
    )
    .fetch_all(&mut **tx)
    .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let (orgs, messages): (Vec<Uuid>, Vec<Uuid>) = rows.into_iter().unzip();
    lock_messages(tx, &orgs, &messages).await?;
    let done = sqlx::query(
        "WITH settled AS (
             DELETE FROM outbox o USING unnest($1::uuid[], $2::uuid[]) AS e(org_id, message_id)
             WHERE o.org_id = e.org_id AND o.message_id = e.message_id AND o.at_most_once AND o.unknown_since IS NOT NULL
               AND o.due_at <= now() AND o.leased_until IS NULL
             RETURNING o.org_id, o.message_id
         )
         UPDATE messages m SET updated_at = now(), error_code = 'unknown_outcome',
             error_message = 'The provider''s answer was lost and no callback came; it was not sent again: its policy is at_most_once, or it was tried often enough.'
         FROM settled s WHERE m.org_id = s.org_id AND m.id = s.message_id",
    )
    .bind(&orgs)
    .bind(&messages)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}
