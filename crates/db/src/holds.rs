//! Why messages wait.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::Result;

/// Everything that may keep a message of the outbox from leaving now.
#[derive(Clone, Debug, FromRow)]
pub struct Waiting {
    pub message_id: Uuid,
    /// Its own reason, with `due_at`.
    pub hold_reason: Option<String>,
    pub due_at: Option<DateTime<Utc>>,
    /// It is being sent right now.
    pub is_leased: bool,
    /// `active`, `paused`, `blocked`.
    pub channel_status: String,
    pub channel_reason: Option<String>,
    /// Of the linked phone that sends it, where one does: `connected`, `disconnected` …
    pub phone_status: Option<String>,
    pub phone_reason: Option<String>,
    /// Of the bulk job it belongs to: `running`, `paused` …
    pub job_status: Option<String>,
    pub job_reason: Option<String>,
    /// The channel's circuit breaker is open until then.
    pub breaker_until: Option<DateTime<Utc>>,
    pub breaker_reason: Option<String>,
    /// When the channel's rate lets the next message leave.
    pub next_at: Option<DateTime<Utc>>,
    /// Of the organisation; for the words.
    pub locale: String,
}

/// Those of these messages that are in the outbox.
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    messages: &[Uuid],
) -> Result<Vec<Waiting>> {
    Ok(sqlx::query_as(
        "SELECT o.message_id, o.hold_reason, o.due_at, o.leased_until IS NOT NULL AS is_leased,
             c.status AS channel_status, c.status_reason AS channel_reason,
             CASE WHEN c.kind = 'whatsapp_web' THEN coalesce(s.status, 'disconnected') END AS phone_status,
             s.connection_error AS phone_reason,
             j.status AS job_status, j.paused_reason AS job_reason,
             p.hold_until AS breaker_until, p.hold_reason AS breaker_reason, p.next_at, g.locale
         FROM outbox o JOIN channels c ON c.org_id = o.org_id AND c.id = o.channel_id
         JOIN organizations g ON g.id = o.org_id
         LEFT JOIN channel_pace p ON p.org_id = o.org_id AND p.channel_id = o.channel_id
         LEFT JOIN whatsapp_sessions s ON s.org_id = o.org_id AND s.channel_id = o.channel_id
         LEFT JOIN bulk_jobs j ON j.org_id = o.org_id AND j.id = o.lane
         WHERE o.org_id = $1 AND o.message_id = ANY ($2)",
    )
    .bind(org.0)
    .bind(messages)
    .fetch_all(connection)
    .await?)
}

/// A channel's pace and what waits for it.
#[derive(Clone, Debug, FromRow)]
pub struct ChannelPace {
    pub next_at: Option<DateTime<Utc>>,
    pub rate_factor: Option<f32>,
    pub hold_until: Option<DateTime<Utc>>,
    pub hold_reason: Option<String>,
    pub strikes: Option<i32>,
    /// Messages in the outbox, counted up to a bound.
    pub backlog: i64,
    pub timezone: String,
}

/// The pace of a channel; its backlog is counted up to `count_to`.
pub async fn find_pace(
    connection: &mut PgConnection,
    org: OrgId,
    channel: Uuid,
    count_to: i64,
) -> Result<Option<ChannelPace>> {
    Ok(sqlx::query_as(
        "SELECT p.next_at, p.rate_factor, p.hold_until, p.hold_reason, p.strikes, g.timezone,
             (SELECT count(*) FROM (SELECT FROM outbox o WHERE o.org_id = $1 AND o.channel_id = $2 LIMIT $3) o) AS backlog
         FROM channels c JOIN organizations g ON g.id = c.org_id
         LEFT JOIN channel_pace p ON p.org_id = c.org_id AND p.channel_id = c.id
         WHERE c.org_id = $1 AND c.id = $2",
    )
    .bind(org.0)
    .bind(channel)
    .bind(count_to)
    .fetch_optional(connection)
    .await?)
}
