//! Answers already given, by the caller's `Idempotency-Key`.

use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::{MessageId, OrgId};

use crate::{Result, SystemTx};

/// What a key turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// New: the message may be made, in this transaction.
    New,
    /// The same request came before and made this message.
    Repeat(MessageId),
    /// The key was used for another request.
    Conflict,
}

/// Claims the key for `message` in the caller's transaction. A concurrent request with the same key waits here for
/// the first one's outcome.
pub async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    scope: &str,
    key: &str,
    request_hash: &[u8],
    message: MessageId,
) -> Result<Claim> {
    let inserted = sqlx::query(
        "INSERT INTO idempotency_keys (org_id, scope, key, request_hash, message_id) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (org_id, scope, key) DO NOTHING",
    )
    .bind(org.0)
    .bind(scope)
    .bind(key)
    .bind(request_hash)
    .bind(message.0)
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Claim::New);
    }
    let (hash, message): (Vec<u8>, Uuid) = sqlx::query_as(
        "SELECT request_hash, message_id FROM idempotency_keys WHERE org_id = $1 AND scope = $2 AND key = $3",
    )
    .bind(org.0)
    .bind(scope)
    .bind(key)
    .fetch_one(connection)
    .await?;
    Ok(if hash == request_hash {
        Claim::Repeat(MessageId(message))
    } else {
        Claim::Conflict
    })
}

/// Forgets keys older than `hours`.
pub async fn delete_old(tx: &mut SystemTx, hours: i32) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(hours => $1)",
    )
    .bind(hours)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}
