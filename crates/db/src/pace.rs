//! How far each channel has used its rate, and the circuit breaker: one row a channel, for all nodes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{Result, SystemTx};

/// A rate that was halved comes back by this much of the whole each second.
const RECOVERY_PER_SECOND: f32 = 0.01;

#[derive(Clone, Debug, FromRow)]
pub struct ChannelPace {
    pub org_id: Uuid,
    pub channel_id: Uuid,
    /// When the next message may leave.
    pub next_at: DateTime<Utc>,
    /// Of the channel's rate, as it was set at `updated_at`.
    pub rate_factor: f32,
    /// Nothing leaves until then, and then one message as a probe.
    pub hold_until: Option<DateTime<Utc>>,
    pub hold_reason: Option<String>,
    /// Failures in a row.
    pub strikes: i32,
    pub updated_at: DateTime<Utc>,
}

impl ChannelPace {
    /// How much of the channel's rate it has now.
    #[must_use]
    pub fn factor(&self, now: DateTime<Utc>) -> f32 {
        let since = (now - self.updated_at).num_seconds().max(0) as f32;
        (self.rate_factor + since * RECOVERY_PER_SECOND).min(1.0)
    }
}

/// A channel's place in time for `count` messages, one every `interval`.
#[derive(Clone, Copy, Debug)]
pub struct Reservation {
    pub org_id: Uuid,
    pub channel_id: Uuid,
    pub count: i32,
    pub interval: Duration,
}

/// The rows of these channels, as far as there are any.
pub async fn list(connection: &mut PgConnection, channels: &[Uuid]) -> Result<Vec<ChannelPace>> {
    Ok(
        sqlx::query_as("SELECT * FROM channel_pace WHERE channel_id = ANY ($1)")
            .bind(channels)
            .fetch_all(connection)
            .await?,
    )
}

/// Reserves the next places of each channel: how long from now until the first one, in the order asked for. Time that
/// passed unused is lost: a pause is not made up for by a burst. Ask in one order of channels everywhere.
pub async fn reserve(tx: &mut SystemTx, wanted: &[Reservation]) -> Result<Vec<Duration>> {
    let rows: Vec<(Uuid, f64)> = sqlx::query_as(
        "INSERT INTO channel_pace AS p (org_id, channel_id, next_at)
         SELECT w.org_id, w.channel_id, now() + make_interval(secs => w.span)
         FROM unnest($1::uuid[], $2::uuid[], $3::float8[]) AS w(org_id, channel_id, span)
         ON CONFLICT (org_id, channel_id) DO UPDATE
             SET next_at = greatest(p.next_at, clock_timestamp()) + (excluded.next_at - now())
         RETURNING channel_id, extract(epoch FROM next_at - clock_timestamp())::float8",
    )
    .bind(wanted.iter().map(|want| want.org_id).collect::<Vec<_>>())
    .bind(
        wanted
            .iter()
            .map(|want| want.channel_id)
            .collect::<Vec<_>>(),
    )
    .bind(wanted.iter().map(span).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    let ends: std::collections::HashMap<Uuid, f64> = rows.into_iter().collect();
    Ok(wanted
        .iter()
        .map(|want| {
            let end = ends.get(&want.channel_id).copied().unwrap_or(0.0);
            Duration::from_secs_f64((end - span(want)).max(0.0))
        })
        .collect())
}

fn span(want: &Reservation) -> f64 {
    want.interval.as_secs_f64() * f64::from(want.count)
}

/// Slows a channel down to half of the speed it has now, not below a sixteenth of its rate, and stops it for `wait`.
pub async fn slow_down(
    tx: &mut SystemTx,
    org: Uuid,
    channel: Uuid,
    wait: Duration,
    reason: &str,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO channel_pace AS p (org_id, channel_id, rate_factor, hold_until, hold_reason)
         VALUES ($1, $2, 0.5, now() + make_interval(secs => $3), $4)
         ON CONFLICT (org_id, channel_id) DO UPDATE SET
             rate_factor = greatest(0.0625, least(1, p.rate_factor + $5 * extract(epoch FROM now() - p.updated_at)) / 2),
             hold_until = greatest(p.hold_until, excluded.hold_until), updated_at = now(),
             hold_reason = CASE WHEN p.hold_until > now() AND p.hold_reason = 'channel_blocked'
                 THEN p.hold_reason ELSE excluded.hold_reason END",
    )
    .bind(org)
    .bind(channel)
    .bind(wait.as_secs_f64())
    .bind(reason)
    .bind(f64::from(RECOVERY_PER_SECOND))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Stops a channel for a while after `strikes` failures in a row; then one message may try.
pub async fn hold(
    tx: &mut SystemTx,
    org: Uuid,
    channel: Uuid,
    strikes: i32,
    wait: Duration,
    reason: &str,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO channel_pace AS p (org_id, channel_id, hold_until, hold_reason, strikes)
         VALUES ($1, $2, now() + make_interval(secs => $3), $4, $5)
         ON CONFLICT (org_id, channel_id) DO UPDATE SET hold_until = greatest(p.hold_until, excluded.hold_until),
             hold_reason = CASE WHEN p.hold_until > now() AND p.hold_reason = 'channel_blocked'
                 THEN p.hold_reason ELSE excluded.hold_reason END, strikes = excluded.strikes",
    )
    .bind(org)
    .bind(channel)
    .bind(wait.as_secs_f64())
    .bind(reason)
    .bind(strikes)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The channel works again.
pub async fn release(tx: &mut SystemTx, org: Uuid, channel: Uuid) -> Result<()> {
    sqlx::query(
        "UPDATE channel_pace SET hold_until = NULL, hold_reason = NULL, strikes = 0 WHERE org_id = $1 AND channel_id = $2",
    )
    .bind(org)
    .bind(channel)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
