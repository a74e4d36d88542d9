//! Linked phones, from the API's side: finding their rows, saying what is wanted of one, and asking the node that runs
//! it. What a session does itself is written by that node.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{ChannelId, OrgId};

use crate::channels;
use crate::{Result, SystemTx, sessions};

/// `channels.kind` of linked phones.
pub const CHANNEL_KIND: &str = "whatsapp_web";

const COLUMNS: &str = "s.org_id, s.id, s.channel_id, c.name AS channel_name, s.status, s.should_run, s.phone_number,
    s.whatsapp_id, s.display_name, s.qr_code, s.qr_expires_at, s.pairing_code, s.pair_with_phone, s.passkey_request,
    s.passkey_code, s.stop_reason, s.connection_error, s.retry_count, s.auto_reconnect, s.enabled, s.history_days,
    s.linked_at, s.last_connected_at, s.last_disconnected_at, s.created_at, s.updated_at";

/// What an agent limited to some channels sees, and where the channel's name comes from.
const FROM: &str =
    "FROM whatsapp_sessions s LEFT JOIN channels c ON c.org_id = s.org_id AND c.id = s.channel_id";
const VISIBLE: &str = "((SELECT wasel.channel_scope()) IS NULL OR s.channel_id = ANY ((SELECT wasel.channel_scope())::uuid[]))";

/// A row of `whatsapp_sessions`.
#[derive(Clone, Debug, FromRow)]
pub struct LinkedPhone {
    pub org_id: Uuid,
    pub id: Uuid,
    /// `None` for one that was imported and never linked here.
    pub channel_id: Option<Uuid>,
    pub channel_name: Option<String>,
    /// `disconnected`, `connecting`, `qr_pending`, `connected`, `error`.
    pub status: String,
    pub should_run: bool,
    pub phone_number: Option<String>,
    /// The JID.
    pub whatsapp_id: Option<String>,
    pub display_name: Option<String>,
    /// A PNG as data URL.
    pub qr_code: Option<String>,
    /// Of the QR code and of the pairing code.
    pub qr_expires_at: Option<DateTime<Utc>>,
    pub pairing_code: Option<String>,
    /// E.164.
    pub pair_with_phone: Option<String>,
    pub passkey_request: Option<Value>,
    pub passkey_code: Option<String>,
    pub stop_reason: Option<String>,
    pub connection_error: Option<String>,
    pub retry_count: i32,
    pub auto_reconnect: bool,
    pub enabled: bool,
    pub history_days: i16,
    pub linked_at: Option<DateTime<Utc>>,
    pub last_connected_at: Option<DateTime<Utc>>,
    pub last_disconnected_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The sessions the caller sees, the newest first, from before `before`.
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<LinkedPhone>> {
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE s.org_id = $1 AND {VISIBLE}
           AND ($2::timestamptz IS NULL OR (s.created_at, s.id) < ($2, $3))
         ORDER BY s.created_at DESC, s.id DESC LIMIT $4"
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(org.0)
        .bind(before.map(|(at, _)| at))
        .bind(before.map(|(_, id)| id))
        .bind(limit)
        .fetch_all(connection)
        .await?)
}

/// One session the caller sees.
pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<LinkedPhone>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE s.org_id = $1 AND s.id = $2 AND {VISIBLE}");
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(org.0)
        .bind(id)
        .fetch_optional(connection)
        .await?)
}

/// The session the documents mean, who know one per organisation: the oldest that serves a channel, else the oldest.
pub async fn find_first(connection: &mut PgConnection, org: OrgId) -> Result<Option<LinkedPhone>> {
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE s.org_id = $1 AND {VISIBLE}
         ORDER BY s.channel_id IS NULL, s.created_at, s.id LIMIT 1"
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(org.0)
        .fetch_optional(connection)
        .await?)
}

/// The session that serves a channel.
pub async fn find_by_channel(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
) -> Result<Option<LinkedPhone>> {
    let sql =
        format!("SELECT {COLUMNS} {FROM} WHERE s.org_id = $1 AND s.channel_id = $2 AND {VISIBLE}");
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(org.0)
        .bind(channel.0)
        .fetch_optional(connection)
        .await?)
}

/// Makes the channel of that name, or takes the one there is. One that is blocked because its session was deleted works
/// again; where there is a session, that session says whether the channel works.
pub async fn upsert_channel(tx: &mut SystemTx, org: OrgId, name: &str) -> Result<ChannelId> {
    let id: Uuid = sqlx::query_scalar(
        "INSERT INTO channels (org_id, id, kind, name) VALUES ($1, $2, $3, $4)
         ON CONFLICT (org_id, kind, name) DO UPDATE SET (status, status_reason) = (
             SELECT CASE WHEN free THEN 'active' ELSE channels.status END, CASE WHEN NOT free THEN channels.status_reason END
             FROM (SELECT channels.status = 'blocked' AND NOT EXISTS (SELECT FROM whatsapp_sessions s
                 WHERE s.org_id = channels.org_id AND s.channel_id = channels.id) AS free) AS f)
         RETURNING id",
    )
    .bind(org.0)
    .bind(ChannelId::generate().0)
    .bind(CHANNEL_KIND)
    .bind(name)
    .fetch_one(&mut **tx)
    .await?;
    Ok(ChannelId(id))
}

/// The channel's session, made where it has none. The flag tells whether it is new.
pub async fn find_or_insert(
    tx: &mut SystemTx,
    org: OrgId,
    channel: ChannelId,
) -> Result<(Uuid, bool)> {
    let made: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO whatsapp_sessions (org_id, channel_id) VALUES ($1, $2)
         ON CONFLICT (org_id, channel_id) DO NOTHING RETURNING id",
    )
    .bind(org.0)
    .bind(channel.0)
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(id) = made {
        return Ok((id, true));
    }
    let found: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM whatsapp_sessions WHERE org_id = $1 AND channel_id = $2",
    )
    .bind(org.0)
    .bind(channel.0)
    .fetch_optional(&mut **tx)
    .await?;
    // Deleted between the two.
    found.map(|id| (id, false)).ok_or(crate::Error::Raced)
}

/// Gives a session without a channel this one. `false` if it has one by now, or the channel has a session.
pub async fn adopt(tx: &mut SystemTx, org: OrgId, id: Uuid, channel: ChannelId) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE whatsapp_sessions SET channel_id = $3, auto_reconnect = true WHERE org_id = $1 AND id = $2
           AND channel_id IS NULL AND NOT EXISTS (SELECT FROM whatsapp_sessions o WHERE o.org_id = $1 AND o.channel_id = $3)",
    )
    .bind(org.0)
    .bind(id)
    .bind(channel.0)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// What an administrator may set; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    pub enabled: Option<bool>,
    pub auto_reconnect: Option<bool>,
    pub history_days: Option<i16>,
}

/// `false` if there is no such session.
pub async fn update(tx: &mut SystemTx, org: OrgId, id: Uuid, settings: &Settings) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE whatsapp_sessions SET enabled = coalesce($3, enabled), auto_reconnect = coalesce($4, auto_reconnect),
             history_days = coalesce($5, history_days)
         WHERE org_id = $1 AND id = $2",
    )
    .bind(org.0)
    .bind(id)
    .bind(settings.enabled)
    .bind(settings.auto_reconnect)
    .bind(settings.history_days)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Somebody wants it to run: a node takes it up. What ended it before is forgotten, and so are codes that ran out;
/// `phone` (E.164) asks for a pairing code instead of a QR code, where no phone is linked.
pub async fn request_start(
    tx: &mut SystemTx,
    org: OrgId,
    id: Uuid,
    phone: Option<&str>,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE whatsapp_sessions SET should_run = true, enabled = true, stop_reason = NULL,
             pair_with_phone = CASE WHEN linked_at IS NULL THEN $3 END,
             connection_error = CASE WHEN should_run AND stop_reason IS NULL THEN connection_error END,
             qr_code = CASE WHEN qr_expires_at > now() AND $3 IS NULL AND pair_with_phone IS NULL THEN qr_code END,
             pairing_code = CASE WHEN qr_expires_at > now() AND pair_with_phone = $3 THEN pairing_code END,
             passkey_request = CASE WHEN should_run THEN passkey_request END,
             passkey_code = CASE WHEN should_run THEN passkey_code END,
             qr_expires_at = CASE WHEN qr_expires_at > now() THEN qr_expires_at END
         WHERE org_id = $1 AND id = $2",
    )
    .bind(org.0)
    .bind(id)
    .bind(phone)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Nobody wants it to run, and no phone is linked: its codes are of no use any more. `false` if a phone is linked.
pub async fn request_stop(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE whatsapp_sessions SET should_run = false, status = 'disconnected', qr_code = NULL, qr_expires_at = NULL,
             pairing_code = NULL, pair_with_phone = NULL, passkey_request = NULL, passkey_code = NULL
         WHERE org_id = $1 AND id = $2 AND linked_at IS NULL",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes the session with its sealed state; its channel is blocked for `reason`. `false` if there is no such session.
pub async fn delete(tx: &mut SystemTx, org: OrgId, id: Uuid, reason: &str) -> Result<bool> {
    // In the order in which the session's own writes lock.
    sessions::lock_lease(tx, org.0, id).await?;
    let channel: Option<Option<Uuid>> = sqlx::query_scalar(
        "DELETE FROM whatsapp_sessions WHERE org_id = $1 AND id = $2 RETURNING channel_id",
    )
    .bind(org.0)
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(Some(channel)) = channel {
        channels::update_status(tx, org, channel.into(), "blocked", Some(reason)).await?;
    }
    Ok(channel.is_some())
}

/// Whether a node runs the session at the moment.
pub async fn is_running(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM whatsapp_session_leases WHERE org_id = $1 AND session_id = $2 AND expires_at > now())",
    )
    .bind(org.0)
    .bind(id)
    .fetch_one(&mut **tx)
    .await?)
}

/// Asks something of the node that runs the session, to be carried out within `ttl`. `None` if no node runs it.
pub async fn insert_command(
    tx: &mut SystemTx,
    org: OrgId,
    session: Uuid,
    command: &Value,
    ttl: Duration,
) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar(
        "INSERT INTO whatsapp_session_commands (org_id, session_id, command, expires_at)
         SELECT l.org_id, l.session_id, $3, now() + make_interval(secs => $4)
         FROM whatsapp_session_leases l WHERE l.org_id = $1 AND l.session_id = $2 AND l.expires_at > now()
         RETURNING id",
    )
    .bind(org.0)
    .bind(session)
    .bind(command)
    .bind(ttl.as_secs_f64())
    .fetch_optional(&mut **tx)
    .await?)
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Waiting,
    /// `{ok: …}` or `{error: {code, message}}`.
    Answered(Value),
    /// Its session was deleted meanwhile, or the command was too old.
    Gone,
}

pub async fn find_outcome(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<Outcome> {
    let row: Option<(Option<DateTime<Utc>>, Option<Value>)> = sqlx::query_as(
        "SELECT answered_at, answer FROM whatsapp_session_commands WHERE org_id = $1 AND id = $2",
    )
    .bind(org.0)
    .bind(id)
    .fetch_optional(&mut **tx)
    .await?;
    Ok(match row {
        None => Outcome::Gone,
        Some((None, None)) => Outcome::Waiting,
        Some((_, answer)) => Outcome::Answered(answer.unwrap_or_default()),
    })
}

/// Takes a command back that nobody has begun with. `false` if somebody has.
pub async fn withdraw_command(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "DELETE FROM whatsapp_session_commands WHERE org_id = $1 AND id = $2 AND taken_at IS NULL",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}
