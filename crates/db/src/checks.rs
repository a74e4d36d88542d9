//! Messages whose provider is to be asked how they fared.

use std::time::Duration;

use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{Result, SystemTx};

/// Asked this often, each time four times as long after the one before; then it stays as it is.
const MAX_CHECKS: i32 = 5;

/// A message to ask about.
#[derive(Clone, Debug, FromRow)]
pub struct Check {
    pub org_id: Uuid,
    pub message_id: Uuid,
    pub channel_id: Uuid,
    pub provider_message_id: String,
}

/// Puts a message on the list, due after `wait`.
pub(crate) async fn insert(
    tx: &mut SystemTx,
    org: Uuid,
    message: Uuid,
    wait: Duration,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO message_checks (org_id, message_id, due_at) VALUES ($1, $2, now() + make_interval(secs => $3))
         ON CONFLICT DO NOTHING",
    )
    .bind(org)
    .bind(message)
    .bind(wait.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Takes messages that are due, and puts each off to its next check, or off the list after its last.
pub async fn lock_next(tx: &mut SystemTx, limit: i64, wait: Duration) -> Result<Vec<Check>> {
    Ok(sqlx::query_as(
        "WITH due AS (
             SELECT org_id, message_id FROM message_checks WHERE due_at <= now()
             ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
         ), taken AS (
             UPDATE message_checks k SET checks = k.checks + 1,
                 due_at = now() + make_interval(secs => $2 * power(4, k.checks + 1))
             FROM due d WHERE k.org_id = d.org_id AND k.message_id = d.message_id AND k.checks + 1 < $3
             RETURNING k.org_id, k.message_id
         ), last AS (
             DELETE FROM message_checks k USING due d
             WHERE k.org_id = d.org_id AND k.message_id = d.message_id AND k.checks + 1 >= $3
             RETURNING k.org_id, k.message_id
         )
         SELECT m.org_id, m.id AS message_id, m.channel_id, m.provider_message_id
         FROM (TABLE taken UNION ALL TABLE last) t
         JOIN messages m ON m.org_id = t.org_id AND m.id = t.message_id AND m.provider_message_id IS NOT NULL",
    )
    .bind(limit)
    .bind(wait.as_secs_f64())
    .bind(MAX_CHECKS)
    .fetch_all(&mut **tx)
    .await?)
}

/// Keeps what the provider charges, and ends the checks of a message that has come to its end and has its price.
pub async fn settle(
    connection: &mut PgConnection,
    check: &Check,
    pricing: Option<&Value>,
) -> Result<()> {
    sqlx::query(
        "UPDATE messages SET pricing = coalesce(pricing, '{}') || $3, updated_at = now()
         WHERE org_id = $1 AND id = $2 AND NOT coalesce(pricing, '{}') @> $3",
    )
    .bind(check.org_id)
    .bind(check.message_id)
    .bind(pricing.unwrap_or(&Value::Object(serde_json::Map::new())))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM message_checks k USING messages m
         WHERE k.org_id = $1 AND k.message_id = $2 AND m.org_id = $1 AND m.id = $2 AND m.pricing ? 'price'
           AND m.status IN ('delivered', 'read', 'failed', 'cancelled')",
    )
    .bind(check.org_id)
    .bind(check.message_id)
    .execute(connection)
    .await?;
    Ok(())
}
