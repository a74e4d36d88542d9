//! Writing down how sends ended: one transaction for as many as have ended meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Executor, PgConnection};
use uuid::Uuid;

use super::{Claimed, Failure, Next};
use crate::messages::status;
use crate::{Result, SystemTx, checks};

/// How one attempt ended.
#[derive(Clone, Debug)]
pub struct Ended<'a> {
    pub claimed: &'a Claimed,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// The provider took it; after `check_after` it is to be asked how the message fared.
    Accepted {
        provider_message_id: String,
        check_after: Option<Duration>,
    },
    Failed {
        failure: Failure,
        next: Next,
        /// No further attempt: from now on it must not be sent again.
        last: bool,
    },
}

/// The columns of a batch, one element per attempt.
#[derive(Default)]
struct Columns<'a> {
    orgs: Vec<Uuid>,
    messages: Vec<Uuid>,
    channels: Vec<Uuid>,
    attempts: Vec<Uuid>,
    numbers: Vec<i32>,
    claimed_at: Vec<chrono::DateTime<chrono::Utc>>,
    provider_ids: Vec<Option<&'a str>>,
    /// `None`: the row leaves the outbox.
    waits: Vec<Option<f64>>,
    unknown: Vec<bool>,
    last: Vec<bool>,
    attempt_statuses: Vec<&'static str>,
    message_statuses: Vec<&'static str>,
    events: Vec<&'static str>,
    codes: Vec<Option<&'a str>>,
    words: Vec<Option<&'a str>>,
    details: Vec<Value>,
}

impl<'a> Columns<'a> {
    fn of(ended: &'a [Ended<'a>]) -> Self {
        let mut columns = Self::default();
        for Ended { claimed, outcome } in ended {
            columns.orgs.push(claimed.org_id);
            columns.messages.push(claimed.message_id);
            columns.channels.push(claimed.channel_id);
            columns.attempts.push(claimed.attempt_id);
            columns.numbers.push(claimed.attempts);
            columns.claimed_at.push(claimed.claimed_at);
            match outcome {
                Outcome::Accepted {
                    provider_message_id,
                    ..
                } => columns.accepted(provider_message_id),
                Outcome::Failed {
                    failure,
                    next,
                    last,
                } => columns.failed(failure, *next, *last),
            }
        }
        columns
    }

    fn accepted(&mut self, provider_message_id: &'a str) {
        self.provider_ids.push(Some(provider_message_id));
        self.waits.push(None);
        self.unknown.push(false);
        self.last.push(false);
        // Accepted is not sent: that the provider will tell.
        self.attempt_statuses.push("sending");
        self.message_statuses.push("sending");
        self.events.push("accepted");
        self.codes.push(None);
        self.words.push(None);
        self.details
            .push(json!({ "provider_message_id": provider_message_id }));
    }

    fn failed(&mut self, failure: &'a Failure, next: Next, last: bool) {
        let (attempt, message, event, wait) = match next {
            Next::Retry(wait) => ("failed", "queued", "attempt_failed", Some(wait)),
            Next::Reconcile(wait) => ("unknown", "unknown", "unknown", Some(wait)),
            Next::Fail => ("failed", "failed", "failed", None),
        };
        self.provider_ids.push(None);
        self.waits.push(wait.map(|wait| wait.as_secs_f64()));
        self.unknown.push(matches!(next, Next::Reconcile(_)));
        self.last.push(last);
        self.attempt_statuses.push(attempt);
        self.message_statuses.push(message);
        self.events.push(event);
        self.codes.push(failure.code.as_deref());
        self.words.push(Some(&failure.message));
        let retry_in = match next {
            Next::Retry(wait) => Some(wait.as_secs_f64()),
            Next::Reconcile(_) | Next::Fail => None,
        };
        self.details.push(json!({
            "class": failure.class, "error_code": failure.code, "error_message": failure.message,
            "retry_in_seconds": retry_in,
        }));
    }
}

/// Records a batch of ended attempts: attempts, timelines, messages, what follows, and the statuses that came before
/// these answers. A failure of an attempt that a callback has settled meanwhile changes nothing.
///
/// # Errors
/// Two messages with one provider id in one channel are refused by a constraint: record such a batch one by one.
pub async fn record(tx: &mut SystemTx, ended: &[Ended<'_>]) -> Result<()> {
    let columns = Columns::of(ended);
    (&mut **tx).execute(super::BY_INDEX).await?;
    lock_messages(tx, &columns.orgs, &columns.messages).await?;
    settle(tx, &columns).await?;
    delete_echoes(tx, &columns).await?;
    sqlx::query(
        "WITH ended AS MATERIALIZED (
             SELECT e.* FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::timestamptz[], $7::text[],
                 $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::jsonb[], $14::uuid[])
                 AS e(org_id, message_id, channel_id, attempt_id, number, claimed_at, provider_message_id, attempt_status,
                 message_status, event, error_code, error_message, detail, event_id)
             -- Settled by a callback while the answer was on its way.
             WHERE e.event = 'accepted' OR EXISTS (SELECT FROM outbox o
                 WHERE o.org_id = e.org_id AND o.message_id = e.message_id AND o.attempt_id = e.attempt_id)
         ), attempt AS (
             INSERT INTO message_attempts AS t (org_id, id, message_id, channel_id, provider_message_id, status, error_code,
                 error_message, created_at, accepted_at)
             SELECT org_id, attempt_id, message_id, channel_id, provider_message_id, attempt_status, error_code,
                 error_message, claimed_at, CASE WHEN event = 'accepted' THEN now() END FROM ended
             ON CONFLICT (org_id, id) DO UPDATE SET
                 provider_message_id = coalesce(t.provider_message_id, excluded.provider_message_id),
                 accepted_at = coalesce(t.accepted_at, excluded.accepted_at),
                 error_code = coalesce(excluded.error_code, t.error_code),
                 error_message = coalesce(excluded.error_message, t.error_message),
                 status = CASE WHEN wasel.status_rank(excluded.status) > wasel.status_rank(t.status)
                     THEN excluded.status ELSE t.status END
         ), event AS (
             -- That it was being sent the attempt tells (messages::list_events).
             INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at, detail)
             SELECT org_id, event_id, message_id, attempt_id, event, clock_timestamp(), detail FROM ended
             ON CONFLICT (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL DO NOTHING
         )
         UPDATE messages m SET
             provider_message_id = coalesce(e.provider_message_id, m.provider_message_id),
             status = CASE WHEN wasel.status_rank(m.status) <= wasel.status_rank('unknown') THEN e.message_status ELSE m.status END,
             error_code = CASE WHEN e.event = 'accepted' AND m.status <> 'failed' THEN NULL
                 WHEN wasel.status_rank(m.status) <= wasel.status_rank('unknown') THEN e.error_code ELSE m.error_code END,
             error_message = CASE WHEN e.event = 'accepted' AND m.status <> 'failed' THEN NULL
                 WHEN wasel.status_rank(m.status) <= wasel.status_rank('unknown') THEN e.error_message ELSE m.error_message END,
             failed_at = CASE WHEN e.event = 'failed' AND wasel.status_rank(m.status) <= wasel.status_rank('unknown')
                 THEN now() ELSE m.failed_at END,
             retry_count = greatest(m.retry_count, e.number - 1),
             updated_at = now()
         FROM ended e WHERE m.org_id = e.org_id AND m.id = e.message_id
           AND NOT EXISTS (SELECT FROM message_attempts newer
                           WHERE newer.org_id = e.org_id AND newer.message_id = e.message_id AND newer.id > e.attempt_id)",
    )
    .bind(&columns.orgs)
    .bind(&columns.messages)
    .bind(&columns.channels)
    .bind(&columns.attempts)
    .bind(&columns.numbers)
    .bind(&columns.claimed_at)
    .bind(&columns.provider_ids)
    .bind(&columns.attempt_statuses)
    .bind(&columns.message_statuses)
    .bind(&columns.events)
    .bind(&columns.codes)
    .bind(&columns.words)
    .bind(&columns.details)
    .bind(ids(ended.len()))
    .execute(&mut **tx)
    .await?;
    release_done(tx, &columns).await?;
    for Ended { claimed, outcome } in ended {
        if let Outcome::Accepted {
            check_after: Some(wait),
            ..
        } = outcome
        {
            checks::insert(tx, claimed.org_id, claimed.message_id, *wait).await?;
        }
    }
    status::apply_pending_of(
        tx,
        &columns.orgs,
        &columns.channels,
        &columns.provider_ids,
        &columns.attempts,
    )
    .await?;
    Ok(())
}

fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

/// Messages first, in one order: then nobody waits in a circle (see the module `outbox`).
pub(super) async fn lock_messages(
    connection: &mut PgConnection,
    orgs: &[Uuid],
    messages: &[Uuid],
) -> Result<()> {
    sqlx::query(
        "SELECT FROM messages m JOIN unnest($1::uuid[], $2::uuid[]) AS e(org_id, id) ON m.org_id = e.org_id AND m.id = e.id
         ORDER BY m.org_id, m.id FOR NO KEY UPDATE OF m",
    )
    .bind(orgs)
    .bind(messages)
    .execute(connection)
    .await?;
    Ok(())
}

/// Those that are tried again wait in the outbox, no longer leased.
async fn settle(tx: &mut SystemTx, columns: &Columns<'_>) -> Result<()> {
    if columns.waits.iter().all(Option::is_none) {
        return Ok(());
    }
    sqlx::query(
        "UPDATE outbox o SET due_at = now() + make_interval(secs => e.wait), lease_owner = NULL, leased_until = NULL,
             unknown_since = CASE WHEN e.unknown THEN now() END,
             hold_reason = CASE WHEN e.unknown THEN 'unknown' ELSE 'retry' END, at_most_once = o.at_most_once OR e.last
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::float8[], $5::bool[], $6::bool[])
             AS e(org_id, message_id, attempt_id, wait, unknown, last)
         WHERE o.org_id = e.org_id AND o.message_id = e.message_id AND o.attempt_id = e.attempt_id AND e.wait IS NOT NULL",
    )
    .bind(&columns.orgs)
    .bind(&columns.messages)
    .bind(&columns.attempts)
    .bind(&columns.waits)
    .bind(&columns.unknown)
    .bind(&columns.last)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The echo of our own message may have arrived first and stand in the log as one of the phone app's.
async fn delete_echoes(tx: &mut SystemTx, columns: &Columns<'_>) -> Result<()> {
    sqlx::query(
        "DELETE FROM messages m USING unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
             AS e(org_id, channel_id, provider_message_id, message_id)
         WHERE m.org_id = e.org_id AND m.channel_id = e.channel_id AND m.provider_message_id = e.provider_message_id
           AND m.id <> e.message_id AND m.direction = 'outbound' AND NOT EXISTS (
             SELECT FROM message_events q WHERE q.org_id = m.org_id AND q.message_id = m.id AND q.event = 'queued')",
    )
    .bind(&columns.orgs)
    .bind(&columns.channels)
    .bind(&columns.provider_ids)
    .bind(&columns.messages)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Those that are done leave the outbox, and the next message of each one's conversation is called.
async fn release_done(tx: &mut SystemTx, columns: &Columns<'_>) -> Result<()> {
    let done: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "DELETE FROM outbox o USING unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::float8[])
             AS e(org_id, message_id, attempt_id, wait)
         WHERE o.org_id = e.org_id AND o.message_id = e.message_id AND o.attempt_id = e.attempt_id AND e.wait IS NULL
         RETURNING o.org_id, CASE WHEN o.ordered THEN o.conversation_id END",
    )
    .bind(&columns.orgs)
    .bind(&columns.messages)
    .bind(&columns.attempts)
    .bind(&columns.waits)
    .fetch_all(&mut **tx)
    .await
    .map(|rows: Vec<(Uuid, Option<Uuid>)>| {
        rows.into_iter()
            .filter_map(|(org, conversation)| Some((org, conversation?)))
            .collect()
    })?;
    if done.is_empty() {
        return Ok(());
    }
    let (orgs, conversations): (Vec<Uuid>, Vec<Uuid>) = done.into_iter().unzip();
    sqlx::query(
        "UPDATE outbox o SET due_at = NULL
         FROM unnest($1::uuid[], $2::uuid[]) AS d(org_id, conversation_id)
         CROSS JOIN LATERAL (
             SELECT n.message_id, n.hold_reason, n.leased_until FROM outbox n
             WHERE n.org_id = d.org_id AND n.conversation_id = d.conversation_id AND n.ordered
             ORDER BY n.message_id LIMIT 1) next
         WHERE o.org_id = d.org_id AND o.message_id = next.message_id AND next.hold_reason = 'order'
           AND next.leased_until IS NULL AND o.due_at IS NOT NULL",
    )
    .bind(&orgs)
    .bind(&conversations)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
