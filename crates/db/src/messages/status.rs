//! The only way a status moves.
//!
//! The work is the SQL function `wasel.advance_status` (migration 0009), which rows written by SQL use too: any order
//! and any number of callbacks end in the same rows (`wasel_domain::status` says why the ranks are as they are).

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::event::{ProviderError, StatusEvent};
use wasel_domain::{MessageId, MessageStatus, OrgId};

use crate::Result;
use crate::ingest::clean;

/// One thing a provider said about a message of ours.
#[derive(Clone, Debug)]
pub struct StatusUpdate {
    /// Names this update in the result.
    pub id: Uuid,
    pub org_id: Uuid,
    pub channel_id: Uuid,
    pub provider_message_id: String,
    /// Our attempt, where the provider carried it back: finds a send whose answer was lost.
    pub attempt_id: Option<Uuid>,
    pub status: MessageStatus,
    pub at: DateTime<Utc>,
    pub error: Option<ProviderError>,
    pub detail: Value,
}

impl StatusUpdate {
    #[must_use]
    pub fn new(org_id: Uuid, channel_id: Uuid, event: StatusEvent) -> Self {
        Self {
            id: Uuid::now_v7(),
            org_id,
            channel_id,
            provider_message_id: clean(&event.provider_message_id).into_owned(),
            attempt_id: event.attempt_id.map(|id| id.0),
            status: event.status,
            at: event.at,
            error: event.error,
            detail: event.detail,
        }
    }
}

/// Takes back a message that has not left. `false` where it is too late, or there is no such message.
pub async fn cancel(connection: &mut PgConnection, org: OrgId, id: MessageId) -> Result<bool> {
    Ok(sqlx::query_scalar("SELECT wasel.cancel_message($1, $2)")
        .bind(org.0)
        .bind(id.0)
        .fetch_one(connection)
        .await?)
}

/// Applies provider statuses, in any order and number. One whose message is not known yet waits in
/// `pending_statuses`. Returns the ids of the updates that told something new.
pub async fn advance_status(
    connection: &mut PgConnection,
    updates: &[StatusUpdate],
) -> Result<HashSet<Uuid>> {
    let mut ids = Vec::with_capacity(updates.len());
    let (mut orgs, mut channels, mut provider_ids, mut attempts) = (vec![], vec![], vec![], vec![]);
    let (mut statuses, mut times, mut details) = (vec![], vec![], vec![]);
    for update in updates {
        ids.push(update.id);
        orgs.push(update.org_id);
        channels.push(update.channel_id);
        provider_ids.push(update.provider_message_id.as_str());
        attempts.push(update.attempt_id);
        statuses.push(update.status.as_str());
        times.push(update.at);
        let mut detail = json!({ "provider_message_id": update.provider_message_id });
        if let Some(error) = &update.error {
            detail["error_code"] = json!(error.code);
            detail["error_message"] = json!(error.message);
        }
        if !update.detail.is_null() {
            detail["provider"] = update.detail.clone();
        }
        details.push(crate::ingest::clean_json(&detail));
    }
    let outcomes: Vec<(Uuid, String)> =
        sqlx::query_as("SELECT * FROM wasel.advance_status($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(&ids)
            .bind(&orgs)
            .bind(&channels)
            .bind(&provider_ids)
            .bind(&attempts)
            .bind(&statuses)
            .bind(&times)
            .bind(&details)
            .fetch_all(&mut *connection)
            .await?;
    let (mut fresh, mut unknown) = (HashSet::new(), vec![]);
    for (id, outcome) in outcomes {
        if outcome == "fresh" {
            fresh.insert(id);
        } else {
            unknown.push(id);
        }
    }
    if !unknown.is_empty() {
        let waiting: Vec<Uuid> = sqlx::query_scalar(
            "INSERT INTO pending_statuses (org_id, channel_id, provider_message_id, status, id, attempt_id, at, detail)
             SELECT org_id, channel_id, provider_message_id, status, id, attempt_id, at, detail::jsonb
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::timestamptz[], $8::text[])
                 AS e(id, org_id, channel_id, provider_message_id, attempt_id, status, at, detail)
             WHERE id = ANY ($9)
             ON CONFLICT DO NOTHING RETURNING id",
        )
        .bind(&ids)
        .bind(&orgs)
        .bind(&channels)
        .bind(&provider_ids)
        .bind(&attempts)
        .bind(&statuses)
        .bind(&times)
        .bind(&details)
        .bind(&unknown)
        .fetch_all(connection)
        .await?;
        fresh.extend(waiting);
    }
    Ok(fresh)
}

/// A waiting status whose message has come to be known.
#[derive(sqlx::FromRow)]
struct Waiting {
    org_id: Uuid,
    channel_id: Uuid,
    provider_message_id: String,
    status: String,
    attempt_id: Option<Uuid>,
    at: DateTime<Utc>,
    detail: Value,
}

/// Applies the statuses that came before the answers to these sends: by the provider's id, or by our attempt where only
/// that is known. One element each per send.
pub async fn apply_pending_of(
    connection: &mut PgConnection,
    orgs: &[Uuid],
    channels: &[Uuid],
    provider_ids: &[Option<&str>],
    attempts: &[Uuid],
) -> Result<usize> {
    let waiting: Vec<Waiting> = sqlx::query_as(
        "WITH sends AS MATERIALIZED (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[])
                 AS e(org_id, channel_id, provider_message_id, attempt_id)
         )
         DELETE FROM pending_statuses p WHERE (p.org_id, p.channel_id, p.provider_message_id, p.status) IN (
             SELECT p.org_id, p.channel_id, p.provider_message_id, p.status FROM sends e
             JOIN pending_statuses p ON p.org_id = e.org_id AND p.channel_id = e.channel_id
                 AND p.provider_message_id = e.provider_message_id
             UNION
             SELECT p.org_id, p.channel_id, p.provider_message_id, p.status FROM sends e
             JOIN pending_statuses p ON p.org_id = e.org_id AND p.attempt_id = e.attempt_id AND p.channel_id = e.channel_id)
         RETURNING org_id, channel_id, provider_message_id, status, attempt_id, at, detail",
    )
    .bind(orgs)
    .bind(channels)
    .bind(provider_ids)
    .bind(attempts)
    .fetch_all(&mut *connection)
    .await?;
    apply(connection, waiting).await
}

/// Applies the waiting statuses whose message is known by now. Returns how many there were.
pub async fn apply_pending(connection: &mut PgConnection) -> Result<usize> {
    let waiting: Vec<Waiting> = sqlx::query_as(
        "DELETE FROM pending_statuses p WHERE (p.org_id, p.channel_id, p.provider_message_id, p.status) IN (
             SELECT p.org_id, p.channel_id, p.provider_message_id, p.status FROM pending_statuses p
             WHERE EXISTS (SELECT FROM message_attempts t WHERE t.org_id = p.org_id
                 AND t.channel_id = p.channel_id AND t.provider_message_id = p.provider_message_id)
                OR EXISTS (SELECT FROM message_attempts t WHERE t.org_id = p.org_id AND t.id = p.attempt_id
                 AND t.channel_id = p.channel_id)
                OR EXISTS (SELECT FROM messages m WHERE m.org_id = p.org_id AND m.direction = 'outbound'
                 AND m.channel_id IN (SELECT c.id FROM channels here
                     JOIN channels c ON c.org_id = here.org_id AND c.kind = here.kind
                     WHERE here.org_id = p.org_id AND here.id = p.channel_id)
                 AND m.provider_message_id = p.provider_message_id
                 AND NOT EXISTS (SELECT FROM message_attempts t WHERE t.org_id = m.org_id AND t.message_id = m.id))
             ORDER BY p.received_at LIMIT 500 FOR UPDATE SKIP LOCKED)
         RETURNING org_id, channel_id, provider_message_id, status, attempt_id, at, detail",
    )
    .fetch_all(&mut *connection)
    .await?;
    apply(connection, waiting).await
}

async fn apply(connection: &mut PgConnection, waiting: Vec<Waiting>) -> Result<usize> {
    let updates = waiting
        .into_iter()
        .map(|row| {
            let error = row
                .detail
                .get("error_code")
                .and_then(Value::as_str)
                .map(|code| ProviderError {
                    code: code.to_owned(),
                    message: row
                        .detail
                        .get("error_message")
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned(),
                });
            Ok(StatusUpdate {
                id: Uuid::now_v7(),
                org_id: row.org_id,
                channel_id: row.channel_id,
                status: row.status.parse().map_err(|_| crate::Error::Inconsistent {
                    table: "pending_statuses",
                    column: "status",
                    row: row.provider_message_id.clone(),
                })?,
                provider_message_id: row.provider_message_id,
                attempt_id: row.attempt_id,
                at: row.at,
                error,
                detail: row.detail.get("provider").cloned().unwrap_or(Value::Null),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if !updates.is_empty() {
        advance_status(connection, &updates).await?;
    }
    Ok(updates.len())
}

/// Forgets waiting statuses older than `days`: their message is not one of ours.
pub async fn delete_old_pending(connection: &mut PgConnection, days: i32) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM pending_statuses WHERE received_at < now() - make_interval(days => $1)",
    )
    .bind(days)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
