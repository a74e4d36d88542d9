//! Taking rows to send.
//!
//! A lane is the ready rows of one channel, or of one bulk job in it. The sender decides how many to take from each lane
//! (fair shares, the channel's rate); here each lane is one probe of one index, however long the lanes are.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{Executor, FromRow, PgConnection};
use uuid::Uuid;

use super::Claimed;
use crate::{Result, SystemTx};

/// One queue within the outbox. Sorted by organisation, so that neighbours belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromRow)]
pub struct Lane {
    pub org_id: Uuid,
    pub channel_id: Uuid,
    /// The bulk job; nil for everything else.
    pub lane: Uuid,
}

/// Where a lane is read from: everything before it was taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub priority: i16,
    pub message_id: Uuid,
}

impl Cursor {
    /// The lane's beginning.
    pub const START: Self = Self {
        priority: 0,
        message_id: Uuid::nil(),
    };
}

/// How many rows to take from a lane.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub lane: Lane,
    pub count: i32,
    pub after: Cursor,
}

/// A row of the outbox that is now leased to the worker.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Leased {
    pub org_id: Uuid,
    pub message_id: Uuid,
    pub channel_id: Uuid,
    pub lane: Uuid,
    pub priority: i16,
    pub attempt_id: Uuid,
    /// The attempt before, should this one not be made after all.
    pub previous_attempt_id: Option<Uuid>,
    /// An earlier message of its conversation goes first: it was put off, not leased.
    pub blocked: bool,
}

/// A message put off by the governor.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    pub reason: &'a str,
    pub until: DateTime<Utc>,
}

/// Those of `lanes` whose bulk job is not running.
pub async fn list_resting(connection: &mut PgConnection, lanes: &[Lane]) -> Result<HashSet<Lane>> {
    let jobs: Vec<&Lane> = lanes.iter().filter(|lane| !lane.lane.is_nil()).collect();
    if jobs.is_empty() {
        return Ok(HashSet::new());
    }
    let resting: Vec<Lane> = sqlx::query_as(
        "SELECT l.org_id, l.channel_id, l.lane FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS l(org_id, channel_id, lane)
         JOIN bulk_jobs j ON j.org_id = l.org_id AND j.id = l.lane WHERE j.status <> 'running'",
    )
    .bind(jobs.iter().map(|lane| lane.org_id).collect::<Vec<_>>())
    .bind(jobs.iter().map(|lane| lane.channel_id).collect::<Vec<_>>())
    .bind(jobs.iter().map(|lane| lane.lane).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(resting.into_iter().collect())
}

/// Makes waiting rows ready whose time has come, up to `limit`. A message that must never be sent twice and may have
/// been sent is not among them.
pub async fn ripen(tx: &mut SystemTx, limit: i64) -> Result<u64> {
    let done = sqlx::query(
        "UPDATE outbox SET due_at = NULL WHERE (org_id, message_id) IN (
             SELECT org_id, message_id FROM outbox
             WHERE due_at <= now() AND leased_until IS NULL AND NOT (at_most_once AND unknown_since IS NOT NULL)
             ORDER BY due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)",
    )
    .bind(limit)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// How long until the next waiting row is due; `None` where nothing waits.
pub async fn next_due_in(connection: &mut PgConnection) -> Result<Option<Duration>> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM min(due_at) - now())::float8 FROM outbox
         WHERE due_at IS NOT NULL AND leased_until IS NULL AND NOT (at_most_once AND unknown_since IS NOT NULL)",
    )
    .fetch_one(connection)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))))
}

/// Leases the first rows of each lane to `worker`, by priority and age, each with a new attempt. A row that must wait
/// for an earlier message of its conversation is put off for a moment instead, the longer the more go before it; when
/// its turn comes it is called ([`super::record`]).
pub async fn lock_next(
    tx: &mut SystemTx,
    worker: Uuid,
    lease: Duration,
    wants: &[Want],
) -> Result<Vec<Leased>> {
    (&mut **tx).execute(super::BY_INDEX).await?;
    let column = |f: fn(&Want) -> Uuid| wants.iter().map(f).collect::<Vec<Uuid>>();
    Ok(sqlx::query_as(
        "WITH picked AS MATERIALIZED (
             SELECT o.* FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::smallint[], $6::uuid[])
                 AS l(org_id, channel_id, lane, wanted, after_priority, after_id)
             CROSS JOIN LATERAL (
                 SELECT o.org_id, o.message_id, o.channel_id, o.lane, o.priority, o.conversation_id, o.ordered,
                     o.attempt_id AS previous_attempt_id
                 FROM outbox o
                 WHERE o.org_id = l.org_id AND o.channel_id = l.channel_id AND o.lane = l.lane
                   AND o.due_at IS NULL AND o.leased_until IS NULL
                   AND (o.priority, o.message_id) > (l.after_priority, l.after_id)
                 ORDER BY o.priority, o.message_id LIMIT l.wanted FOR NO KEY UPDATE SKIP LOCKED) o
         ), judged AS MATERIALIZED (
             SELECT p.*, CASE WHEN p.ordered THEN (SELECT count(*) FROM (
                 SELECT FROM outbox e WHERE e.org_id = p.org_id AND e.conversation_id = p.conversation_id
                     AND e.message_id < p.message_id AND e.ordered LIMIT 40) e) ELSE 0 END AS before
             FROM picked p
         ), put_off AS (
             UPDATE outbox o SET due_at = now() + j.before * interval '250 milliseconds', hold_reason = 'order'
             FROM judged j WHERE o.org_id = j.org_id AND o.message_id = j.message_id AND j.before > 0
         ), numbered AS MATERIALIZED (
             -- By the database's clock: which of two attempts is the newer one must not depend on two nodes' clocks.
             SELECT j.*, wasel.uuid7() AS attempt_id FROM judged j WHERE j.before = 0
         ), leased AS (
             UPDATE outbox o SET lease_owner = $7, leased_until = now() + make_interval(secs => $8), claimed_at = now(),
                 attempts = o.attempts + 1, attempt_id = n.attempt_id, unknown_since = NULL
             FROM numbered n WHERE o.org_id = n.org_id AND o.message_id = n.message_id
         )
         SELECT org_id, message_id, channel_id, lane, priority, attempt_id, previous_attempt_id, false AS blocked FROM numbered
         UNION ALL
         SELECT org_id, message_id, channel_id, lane, priority, $9, previous_attempt_id, true FROM judged WHERE before > 0
         ORDER BY org_id, channel_id, lane, priority, message_id",
    )
    .bind(column(|want| want.lane.org_id))
    .bind(column(|want| want.lane.channel_id))
    .bind(column(|want| want.lane.lane))
    .bind(wants.iter().map(|want| want.count).collect::<Vec<_>>())
    .bind(wants.iter().map(|want| want.after.priority).collect::<Vec<_>>())
    .bind(column(|want| want.after.message_id))
    .bind(worker)
    .bind(lease.as_secs_f64())
    .bind(Uuid::nil())
    .fetch_all(&mut **tx)
    .await?)
}

/// The messages of leased rows, in their order. One that came to its end by another hand leaves the outbox here.
pub async fn load(tx: &mut SystemTx, leased: &[Leased]) -> Result<Vec<Claimed>> {
    let orgs: Vec<Uuid> = leased.iter().map(|row| row.org_id).collect();
    let ids: Vec<Uuid> = leased.iter().map(|row| row.message_id).collect();
    let claimed: Vec<Claimed> = sqlx::query_as(
        "SELECT m.org_id, m.id AS message_id, o.channel_id, m.conversation_id, m.contact_id, o.attempt_id, o.attempts,
             m.category, o.at_most_once, m.content, m.quoted_message_id,
             m.metadata ->> 'group_id' AS group_id, o.claimed_at,
             o.hold_reason AS held_for
         FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS l(org_id, id, n)
         JOIN outbox o ON o.org_id = l.org_id AND o.message_id = l.id
         JOIN messages m ON m.org_id = l.org_id AND m.id = l.id
         WHERE wasel.status_rank(m.status) <= wasel.status_rank('unknown') ORDER BY l.n",
    )
    .bind(&orgs)
    .bind(&ids)
    .fetch_all(&mut **tx)
    .await?;
    if claimed.len() < leased.len() {
        let open: HashSet<Uuid> = claimed.iter().map(|message| message.message_id).collect();
        let ended: Vec<Uuid> = ids.into_iter().filter(|id| !open.contains(id)).collect();
        sqlx::query("DELETE FROM outbox WHERE org_id = ANY ($1) AND message_id = ANY ($2)")
            .bind(&orgs)
            .bind(&ended)
            .execute(&mut **tx)
            .await?;
    }
    Ok(claimed)
}

/// Gives leased messages back that may not leave yet. Why and until when is told in the timeline, once for each reason.
/// From now on the others of their conversations do not wait for them, but where all of these are held alike.
pub async fn hold(tx: &mut SystemTx, messages: &[(Claimed, Leased, Held<'_>)]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let details: Vec<Value> = messages
        .iter()
        .map(|(_, _, held)| json!({ "reason": held.reason, "until": held.until }))
        .collect();
    sqlx::query(
        "WITH held AS (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::bool[], $7::jsonb[], $8::uuid[])
                 AS h(org_id, message_id, previous_attempt_id, reason, until, is_news, detail, event_id)
         ), back AS (
             UPDATE outbox o SET due_at = h.until, hold_reason = h.reason,
                 ordered = o.ordered AND h.reason = 'pair_pace', lease_owner = NULL,
                 leased_until = NULL, attempts = o.attempts - 1, attempt_id = h.previous_attempt_id
             FROM held h WHERE o.org_id = h.org_id AND o.message_id = h.message_id
         )
         INSERT INTO message_events (org_id, id, message_id, event, at, detail)
         SELECT org_id, event_id, message_id, 'held', now(), detail FROM held WHERE is_news",
    )
    .bind(messages.iter().map(|(m, _, _)| m.org_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|(m, _, _)| m.message_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, l, _)| l.previous_attempt_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, _, h)| h.reason).collect::<Vec<_>>())
    .bind(messages.iter().map(|(_, _, h)| h.until).collect::<Vec<_>>())
    .bind(
        messages
            .iter()
            .map(|(m, _, h)| m.held_for.as_deref() != Some(h.reason))
            .collect::<Vec<_>>(),
    )
    .bind(&details)
    .bind(messages.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Extends the leases of the attempts that a living worker has under way.
pub async fn update_leases(
    tx: &mut SystemTx,
    worker: Uuid,
    attempts: &[Uuid],
    lease: Duration,
) -> Result<()> {
    sqlx::query(
        "UPDATE outbox SET leased_until = now() + make_interval(secs => $3)
         WHERE leased_until IS NOT NULL AND lease_owner = $1 AND attempt_id = ANY ($2)",
    )
    .bind(worker)
    .bind(attempts)
    .bind(lease.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
