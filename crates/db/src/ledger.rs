//! The inbound ledger: every authentic webhook request, and what became of it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::ingest::{Delivery, Outcome};
use crate::{Result, SystemTx};

/// A ledger row, for people and for replay.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookEvent {
    pub org_id: Uuid,
    pub id: Uuid,
    pub channel_id: Option<Uuid>,
    pub kind: String,
    pub method: String,
    pub url: String,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    pub outcome: String,
    pub reason: Option<String>,
    pub received_at: DateTime<Utc>,
    pub replayed_at: Option<DateTime<Utc>>,
}

/// Writes the ledger rows of a group (a replay updates its own row).
pub(crate) async fn insert(
    connection: &mut PgConnection,
    deliveries: &[Delivery],
    outcomes: &[Outcome],
) -> Result<()> {
    let fresh: Vec<_> = deliveries
        .iter()
        .zip(outcomes)
        .filter(|(delivery, _)| !delivery.replay)
        .collect();
    macro_rules! column {
        ($of:expr) => {
            fresh.iter().map($of).collect::<Vec<_>>()
        };
    }
    if !fresh.is_empty() {
        sqlx::query(
            "INSERT INTO webhook_events (org_id, id, channel_id, kind, method, url, content_type, body, outcome, reason, received_at)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                 $8::bytea[], $9::text[], $10::text[], $11::timestamptz[])",
        )
        .bind(column!(|(d, _)| d.org_id.0))
        .bind(column!(|(d, _)| d.id.0))
        .bind(column!(|(d, _)| d.channel_id.map(|id| id.0)))
        .bind(column!(|(d, _)| d.kind))
        .bind(column!(|(d, _)| d.method.as_str()))
        .bind(column!(|(d, _)| super::ingest::clean(&d.url).into_owned()))
        .bind(column!(|(d, _)| d.content_type.as_deref()))
        .bind(column!(|(d, _)| &d.body[..]))
        .bind(column!(|(_, outcome)| outcome.as_str()))
        .bind(column!(|(d, _)| d.dead_letter.as_deref().map(|reason| super::ingest::clean(reason).into_owned())))
        .bind(column!(|(d, _)| d.received_at))
        .execute(&mut *connection)
        .await?;
    }
    for (delivery, outcome) in deliveries
        .iter()
        .zip(outcomes)
        .filter(|(delivery, _)| delivery.replay)
    {
        sqlx::query(
            "UPDATE webhook_events SET outcome = $3, reason = $4, channel_id = coalesce($5, channel_id), replayed_at = now()
             WHERE id = $2 AND org_id = $1",
        )
        .bind(delivery.org_id.0)
        .bind(delivery.id.0)
        .bind(outcome.as_str())
        .bind(&delivery.dead_letter)
        .bind(delivery.channel_id.map(|id| id.0))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Moves a row of the system organisation to the tenant that turned out to own it, so that a replay finds it there.
pub async fn update_owner(tx: &mut SystemTx, from: OrgId, id: Uuid, to: OrgId) -> Result<()> {
    sqlx::query("UPDATE webhook_events SET org_id = $3 WHERE org_id = $1 AND id = $2")
        .bind(from.0)
        .bind(id)
        .bind(to.0)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Dead letters to replay, oldest first: of one tenant or of all, after `after`.
pub async fn list_dead(
    tx: &mut SystemTx,
    org: Option<OrgId>,
    since: Option<DateTime<Utc>>,
    after: Uuid,
    limit: i64,
) -> Result<Vec<WebhookEvent>> {
    Ok(sqlx::query_as(
        "SELECT * FROM webhook_events WHERE outcome = 'dead_letter' AND ($1::uuid IS NULL OR org_id = $1)
           AND ($2::timestamptz IS NULL OR received_at >= $2) AND id > $3
         ORDER BY id LIMIT $4",
    )
    .bind(org.map(|id| id.0))
    .bind(since)
    .bind(after)
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}

/// One ledger row of a tenant.
pub async fn find(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<Option<WebhookEvent>> {
    Ok(
        sqlx::query_as("SELECT * FROM webhook_events WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// The body of a request, while the ledger keeps it.
pub async fn find_body(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<Option<Vec<u8>>> {
    Ok(
        sqlx::query_scalar("SELECT body FROM webhook_events WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// A ledger row without its body.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookEventSummary {
    pub id: Uuid,
    pub channel_id: Option<Uuid>,
    pub kind: String,
    pub outcome: String,
    pub reason: Option<String>,
    pub received_at: DateTime<Utc>,
    pub replayed_at: Option<DateTime<Utc>>,
}

/// A tenant's ledger, newest first.
pub async fn list(
    tx: &mut SystemTx,
    org: OrgId,
    outcome: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<WebhookEventSummary>> {
    Ok(sqlx::query_as(
        "SELECT id, channel_id, kind, outcome, reason, received_at, replayed_at FROM webhook_events
         WHERE org_id = $1 AND ($2::text IS NULL OR outcome = $2) AND ($3::uuid IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4",
    )
    .bind(org.0)
    .bind(outcome)
    .bind(before)
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}

/// News about an account, for the tenant's admin.
pub(crate) async fn insert_notice(
    connection: &mut PgConnection,
    org: Uuid,
    channel: Uuid,
    topic: &str,
    detail: &Value,
) -> Result<()> {
    sqlx::query("INSERT INTO channel_notices (org_id, id, channel_id, topic, detail) VALUES ($1, $2, $3, $4, $5::jsonb)")
        .bind(org)
        .bind(Uuid::now_v7())
        .bind(channel)
        .bind(super::ingest::clean(topic))
        .bind(super::ingest::clean_json(detail).unwrap_or_else(|| "{}".to_owned()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Drops old rows in batches; dead letters stay longer. Returns how many went.
pub async fn delete_old(tx: &mut SystemTx, keep_days: i32, keep_dead_days: i32) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM webhook_events WHERE (org_id, id) IN (
             SELECT org_id, id FROM webhook_events
             WHERE received_at < now() - make_interval(days => CASE outcome WHEN 'dead_letter' THEN $2 ELSE $1 END)
             LIMIT 5000)",
    )
    .bind(keep_days)
    .bind(keep_dead_days)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}
