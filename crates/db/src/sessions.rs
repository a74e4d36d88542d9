//! Linked phones: who runs which session, what became of it, and what people ask of it. The sealed state is in
//! `session_keys`.
//!
//! A session is run by the node that holds its lease. Each new owner gets a higher fencing token, and nothing of a
//! session is written under an older one, however late its writer wakes up.

use std::time::Duration;

use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{Result, SystemTx};

/// A session's lease: the row and the fencing token under which it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromRow)]
pub struct Lease {
    pub org_id: Uuid,
    pub session_id: Uuid,
    pub token: i64,
}

/// A session that was leased just now.
#[derive(Clone, Debug, FromRow)]
pub struct ClaimedSession {
    pub org_id: Uuid,
    pub session_id: Uuid,
    pub channel_id: Uuid,
    pub token: i64,
    pub pair_with_phone: Option<String>,
    pub auto_reconnect: bool,
    pub history_days: i16,
}

/// Leases up to `limit` sessions to `node` that are to run and that nobody runs.
pub async fn claim(
    tx: &mut SystemTx,
    node: Uuid,
    limit: i64,
    ttl: Duration,
) -> Result<Vec<ClaimedSession>> {
    Ok(sqlx::query_as(
        "WITH free AS MATERIALIZED (
             SELECT s.org_id, s.id, s.channel_id, s.pair_with_phone, s.auto_reconnect, s.history_days
             FROM whatsapp_sessions s
             JOIN channels c ON c.org_id = s.org_id AND c.id = s.channel_id AND c.kind = 'whatsapp_web'
             LEFT JOIN whatsapp_session_leases l ON l.org_id = s.org_id AND l.session_id = s.id
             WHERE s.enabled AND s.should_run
               AND (l.expires_at IS NULL OR l.expires_at <= clock_timestamp())
             ORDER BY s.org_id, s.id LIMIT $2 FOR NO KEY UPDATE OF s SKIP LOCKED
         ), taken AS (
             INSERT INTO whatsapp_session_leases AS l (org_id, session_id, node, token, expires_at)
             SELECT org_id, id, $1, 1, clock_timestamp() + make_interval(secs => $3) FROM free
             ON CONFLICT (org_id, session_id) DO UPDATE
                 SET node = $1, token = l.token + 1, expires_at = clock_timestamp() + make_interval(secs => $3)
                 WHERE l.expires_at <= clock_timestamp()
             RETURNING org_id, session_id, token
         )
         SELECT t.org_id, t.session_id, f.channel_id, t.token, f.pair_with_phone, f.auto_reconnect, f.history_days
         FROM taken t JOIN free f ON f.org_id = t.org_id AND f.id = t.session_id",
    )
    .bind(node)
    .bind(limit)
    .bind(ttl.as_secs_f64())
    .fetch_all(&mut **tx)
    .await?)
}

/// Extends leases that are still this node's, and returns those whose session is still to run. The others are shown as
/// disconnected from now on.
pub async fn renew(tx: &mut SystemTx, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>> {
    let (orgs, ids, tokens) = columns(leases);
    Ok(sqlx::query_as(
        "WITH renewed AS (
             UPDATE whatsapp_session_leases l SET expires_at = clock_timestamp() + make_interval(secs => $4)
             FROM (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS w(org_id, session_id, token)
                   ORDER BY org_id, session_id) w
             WHERE l.org_id = w.org_id AND l.session_id = w.session_id AND l.token = w.token
               AND l.expires_at > clock_timestamp()
             RETURNING l.org_id, l.session_id, l.token
         ), switched_off AS (
             UPDATE whatsapp_sessions s SET status = 'disconnected', qr_code = NULL, qr_expires_at = NULL,
                 pairing_code = NULL, passkey_request = NULL, passkey_code = NULL, last_disconnected_at = now()
             FROM renewed r WHERE s.org_id = r.org_id AND s.id = r.session_id AND NOT (s.enabled AND s.should_run)
               AND s.status NOT IN ('disconnected', 'error')
         )
         SELECT r.* FROM renewed r JOIN whatsapp_sessions s ON s.org_id = r.org_id AND s.id = r.session_id
         WHERE s.enabled AND s.should_run",
    )
    .bind(orgs)
    .bind(ids)
    .bind(tokens)
    .bind(ttl.as_secs_f64())
    .fetch_all(&mut **tx)
    .await?)
}

/// Gives leases back, and shows what was connected as disconnected. The row stays, for its token must never be used
/// again.
pub async fn release(tx: &mut SystemTx, leases: &[Lease]) -> Result<()> {
    let (orgs, ids, tokens) = columns(leases);
    sqlx::query(
        "WITH released AS (
             UPDATE whatsapp_session_leases l SET expires_at = '-infinity'
             FROM (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS w(org_id, session_id, token)
                   ORDER BY org_id, session_id) w
             WHERE l.org_id = w.org_id AND l.session_id = w.session_id AND l.token = w.token
             RETURNING l.org_id, l.session_id
         )
         UPDATE whatsapp_sessions s SET status = 'disconnected', qr_code = NULL, qr_expires_at = NULL, pairing_code = NULL,
             passkey_request = NULL, passkey_code = NULL, last_disconnected_at = now()
         FROM released r WHERE s.org_id = r.org_id AND s.id = r.session_id
           AND s.status NOT IN ('disconnected', 'error')",
    )
    .bind(orgs)
    .bind(ids)
    .bind(tokens)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn columns(leases: &[Lease]) -> (Vec<Uuid>, Vec<Uuid>, Vec<i64>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for lease in leases {
        columns.0.push(lease.org_id);
        columns.1.push(lease.session_id);
        columns.2.push(lease.token);
    }
    columns
}

/// Whether the lease is the newest one; if so, it stays that until the transaction ends.
pub async fn is_newest(connection: &mut PgConnection, lease: &Lease) -> Result<bool> {
    let found: Option<i32> = sqlx::query_scalar(
        "SELECT 1 FROM whatsapp_session_leases WHERE org_id = $1 AND session_id = $2 AND token = $3 FOR SHARE",
    )
    .bind(lease.org_id)
    .bind(lease.session_id)
    .bind(lease.token)
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Holds up whoever writes under the session's lease until the transaction ends: the first lock of everything that
/// changes a session from outside.
pub async fn lock_lease(tx: &mut SystemTx, org: Uuid, session: Uuid) -> Result<()> {
    sqlx::query(
        "SELECT FROM whatsapp_session_leases WHERE org_id = $1 AND session_id = $2 FOR UPDATE",
    )
    .bind(org)
    .bind(session)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends the lease for good: whatever is still being written under it is refused from now on. `false` if it was not the
/// newest any more.
pub async fn revoke(tx: &mut SystemTx, lease: &Lease) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE whatsapp_session_leases SET token = token + 1, expires_at = '-infinity'
         WHERE org_id = $1 AND session_id = $2 AND token = $3",
    )
    .bind(lease.org_id)
    .bind(lease.session_id)
    .bind(lease.token)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Changes the columns that `patch` (a JSON object) names, and leaves the others. What is not final is left out where
/// nobody wants the session to run any more.
pub async fn update(
    tx: &mut SystemTx,
    org: Uuid,
    session: Uuid,
    patch: &Value,
    is_final: bool,
) -> Result<()> {
    sqlx::query(
        "UPDATE whatsapp_sessions s SET
             (status, phone_number, whatsapp_id, whatsapp_lid, display_name, qr_code, qr_expires_at, pairing_code,
              passkey_request, passkey_code, last_connected_at, last_disconnected_at, connection_error, retry_count,
              should_run, linked_at, stop_reason, pair_with_phone)
             = (SELECT p.status, p.phone_number, p.whatsapp_id, p.whatsapp_lid, p.display_name, p.qr_code,
                  p.qr_expires_at, p.pairing_code, p.passkey_request, p.passkey_code, p.last_connected_at,
                  p.last_disconnected_at, p.connection_error, p.retry_count, p.should_run, p.linked_at, p.stop_reason,
                  p.pair_with_phone
                FROM jsonb_populate_record(s, $3) p)
         WHERE s.org_id = $1 AND s.id = $2 AND ($4 OR (s.enabled AND s.should_run))",
    )
    .bind(org)
    .bind(session)
    .bind(patch)
    .bind(is_final)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// How many sessions are connected, over all tenants.
pub async fn count_connected(connection: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM whatsapp_sessions s JOIN whatsapp_session_leases l
                 ON l.org_id = s.org_id AND l.session_id = s.id AND l.expires_at > clock_timestamp()
             WHERE s.status = 'connected'",
    )
    .fetch_one(connection)
    .await?)
}

/// Something a person asked of a session.
#[derive(Clone, Debug, FromRow)]
pub struct Command {
    pub org_id: Uuid,
    pub id: Uuid,
    pub session_id: Uuid,
    pub command: Value,
}

/// Takes what waits for these sessions, in order. What has expired is left to [`delete_old_commands`].
pub async fn lock_commands(
    tx: &mut SystemTx,
    sessions: &[Uuid],
    limit: i64,
) -> Result<Vec<Command>> {
    let mut commands: Vec<Command> = sqlx::query_as(
        "UPDATE whatsapp_session_commands c SET taken_at = now()
         FROM (SELECT org_id, id FROM whatsapp_session_commands
               WHERE session_id = ANY ($1) AND taken_at IS NULL AND expires_at > now()
               ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED) next
         WHERE c.org_id = next.org_id AND c.id = next.id
         RETURNING c.org_id, c.id, c.session_id, c.command",
    )
    .bind(sessions)
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?;
    commands.sort_by_key(|command| command.id);
    Ok(commands)
}

/// `answer` is `{ok: …}` or `{error: {code, message}}`.
pub async fn answer_command(tx: &mut SystemTx, org: Uuid, id: Uuid, answer: &Value) -> Result<()> {
    sqlx::query(
        "UPDATE whatsapp_session_commands SET answered_at = now(), answer = $3 WHERE org_id = $1 AND id = $2",
    )
    .bind(org)
    .bind(id)
    .bind(answer)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets commands, and what was in them, an hour after they could have been carried out.
pub async fn delete_old_commands(tx: &mut SystemTx) -> Result<u64> {
    let done = sqlx::query(
        "DELETE FROM whatsapp_session_commands WHERE expires_at < now() - interval '1 hour'",
    )
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}
