//! Messages that failed: the next channel to try, or a notification for the person who sent it.
//!
//! A trigger notes every message that becomes `failed` (migration 0011), whoever's statement moved it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{MessageId, OrgId};

use crate::{Result, SystemTx};

/// What to do should the message fail.
#[derive(Clone, Debug)]
pub struct NewFallback {
    /// What the follow-up needs to know; the caller's own shape.
    pub request: Value,
    /// A failure after this is too late to follow up.
    pub expires_at: DateTime<Utc>,
}

/// A failed message nobody has followed up yet.
#[derive(Clone, Debug, FromRow)]
pub struct Failure {
    pub org_id: Uuid,
    pub message_id: Uuid,
    pub conversation_id: Uuid,
    pub channel_id: Uuid,
    pub channel_kind: String,
    /// BCP 47, of the organisation.
    pub locale: String,
    pub sender_id: Option<Uuid>,
    pub customer_name: Option<String>,
    pub address: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// [`NewFallback::request`], while it is not too late.
    pub fallback: Option<Value>,
}

/// What a person is told about a failure.
#[derive(Clone, Debug)]
pub struct FailureNotice<'a> {
    pub title: &'a str,
    pub body: &'a str,
    pub advice: &'a str,
}

/// Keeps what is to be done if `message` fails. In the transaction that queues it.
pub async fn insert_fallback(
    connection: &mut PgConnection,
    org: OrgId,
    message: MessageId,
    fallback: &NewFallback,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO message_fallbacks (org_id, message_id, request, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(org.0)
    .bind(message.0)
    .bind(&fallback.request)
    .bind(fallback.expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// The oldest failures nobody else is following up, locked until the transaction ends.
pub async fn lock_next(tx: &mut SystemTx, limit: i64) -> Result<Vec<Failure>> {
    Ok(sqlx::query_as(
        "SELECT f.org_id, f.message_id, m.conversation_id, m.channel_id, c.kind AS channel_kind, o.locale, m.sender_id,
             m.customer_name, m.address, m.error_code, m.error_message, b.request AS fallback
         FROM message_failures f
         JOIN messages m ON m.org_id = f.org_id AND m.id = f.message_id
         JOIN channels c ON c.org_id = m.org_id AND c.id = m.channel_id
         JOIN organizations o ON o.id = f.org_id
         LEFT JOIN message_fallbacks b ON b.org_id = f.org_id AND b.message_id = f.message_id AND b.expires_at > now()
         ORDER BY f.failed_at LIMIT $1 FOR UPDATE OF f SKIP LOCKED",
    )
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}

/// Ends the follow-up: with a notification, unless the message goes on another way. A message that was delivered in
/// the meantime has no failure any more, and nobody is told of one.
pub async fn settle(
    tx: &mut SystemTx,
    failure: &Failure,
    notice: Option<&FailureNotice<'_>>,
) -> Result<()> {
    sqlx::query("DELETE FROM message_fallbacks WHERE org_id = $1 AND message_id = $2")
        .bind(failure.org_id)
        .bind(failure.message_id)
        .execute(&mut **tx)
        .await?;
    let gone = sqlx::query("DELETE FROM message_failures WHERE org_id = $1 AND message_id = $2")
        .bind(failure.org_id)
        .bind(failure.message_id)
        .execute(&mut **tx)
        .await?
        .rows_affected()
        == 0;
    let (Some(notice), false) = (notice, gone) else {
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO notifications (org_id, id, user_id, kind, level, title, body, advice, message_id, conversation_id,
             channel_id, error_code)
         VALUES ($1, $2, $3, 'message_failed', 'error', $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (org_id, message_id, kind) WHERE message_id IS NOT NULL DO NOTHING",
    )
    .bind(failure.org_id)
    .bind(Uuid::now_v7())
    .bind(failure.sender_id)
    .bind(notice.title)
    .bind(notice.body)
    .bind(notice.advice)
    .bind(failure.message_id)
    .bind(failure.conversation_id)
    .bind(failure.channel_id)
    .bind(&failure.error_code)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets fallbacks whose message did not fail in time.
pub async fn delete_expired_fallbacks(connection: &mut PgConnection) -> Result<u64> {
    let done = sqlx::query("DELETE FROM message_fallbacks WHERE expires_at < now()")
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
