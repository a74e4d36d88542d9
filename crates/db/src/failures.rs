//! Messages that failed: the next channel to try, or a notification for the person who sent it.
//!
//! A trigger notes every message that becomes `failed` (migration 0011), whoever's statement moved it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{MessageId, OrgId};

use crate::{Result, SystemTx};

/// What to do should the message fail.
#[derive(Clone, Debug)]
pub struct NewFallback {
    /// What the follow-up needs to know, sealed for this organisation and message.
    pub sealed: Vec<u8>,
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
    /// Who sent it, if they are still a member.
    pub sender_id: Option<Uuid>,
    pub customer_name: Option<String>,
    pub address: Option<String>,
    /// The row of `notification_queue` that asked for it.
    pub notification_id: Option<Uuid>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// [`NewFallback::sealed`], while it is not too late.
    pub fallback: Option<Vec<u8>>,
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
        "INSERT INTO message_fallbacks (org_id, message_id, sealed, expires_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(org.0)
    .bind(message.0)
    .bind(&fallback.sealed)
    .bind(fallback.expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the oldest failures and puts them off by `lease`: nobody else takes them meanwhile, and a crash only delays
/// them. No lock is kept, because what follows waits for other rows.
pub async fn lock_next(tx: &mut SystemTx, limit: i64, lease: Duration) -> Result<Vec<Failure>> {
    Ok(sqlx::query_as(
        "WITH taken AS (
             UPDATE message_failures SET due_at = now() + make_interval(secs => $2)
             WHERE (org_id, message_id) IN (
                 SELECT org_id, message_id FROM message_failures WHERE due_at <= now()
                 ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING org_id, message_id
         )
         SELECT f.org_id, f.message_id, m.conversation_id, m.channel_id, c.kind AS channel_kind, o.locale,
             (SELECT p.id FROM profiles p WHERE p.org_id = m.org_id AND p.id = m.sender_id) AS sender_id,
             m.customer_name, m.address, m.notification_id, m.error_code, m.error_message, b.sealed AS fallback
         FROM taken f
         JOIN messages m ON m.org_id = f.org_id AND m.id = f.message_id
         JOIN channels c ON c.org_id = m.org_id AND c.id = m.channel_id
         JOIN organizations o ON o.id = f.org_id
         LEFT JOIN message_fallbacks b ON b.org_id = f.org_id AND b.message_id = f.message_id AND b.expires_at > now()",
    )
    .bind(limit)
    .bind(lease.as_secs_f64())
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
    // The message first, as everybody does who changes or deletes it.
    sqlx::query("SELECT FROM messages WHERE org_id = $1 AND id = $2 FOR KEY SHARE")
        .bind(failure.org_id)
        .bind(failure.message_id)
        .execute(&mut **tx)
        .await?;
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
