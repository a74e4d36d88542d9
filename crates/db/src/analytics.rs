//! `analytics_daily`: how the messages of each day fared. Days whose messages changed are counted anew, so that repeated,
//! late and shuffled statuses end in the same figures as a count from scratch.

use chrono::NaiveDate;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{Result, SystemTx, changes};

/// One channel's day, in its organisation's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
struct ChannelDay {
    org_id: Uuid,
    channel_id: Uuid,
    day: NaiveDate,
}

/// Nothing was counted yet.
const NOWHERE: i64 = -1;

/// Counts the days of messages that changed since the last time, up to the change `settled`. Where another node is at it,
/// nothing is done.
pub async fn refresh(tx: &mut SystemTx, settled: i64) -> Result<()> {
    sqlx::query("INSERT INTO wasel.analytics_position (seq) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(NOWHERE)
        .execute(&mut **tx)
        .await?;
    let position: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM wasel.analytics_position FOR UPDATE SKIP LOCKED")
            .fetch_optional(&mut **tx)
            .await?;
    let Some(position) = position.filter(|position| *position < settled) else {
        return Ok(());
    };
    // Also after a pause longer than changes are kept for.
    let is_lost = position == NOWHERE || !changes::reaches_back_to(tx, position).await?;
    let days = if is_lost {
        list_all_days(tx).await?
    } else {
        list_changed_days(tx, position, settled).await?
    };
    count(tx, &days).await?;
    sqlx::query("UPDATE wasel.analytics_position SET seq = $1")
        .bind(settled)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn list_changed_days(tx: &mut SystemTx, after: i64, upto: i64) -> Result<Vec<ChannelDay>> {
    Ok(sqlx::query_as(
        "SELECT DISTINCT l.org_id, (r.row ->> 'channel_id')::uuid AS channel_id,
             ((r.row ->> 'created_at')::timestamptz AT TIME ZONE o.timezone)::date AS day
         FROM change_log l
         JOIN organizations o ON o.id = l.org_id
         CROSS JOIN LATERAL (SELECT coalesce(l.record, l.old_record) AS row) r
         WHERE l.seq > $1 AND l.seq <= $2 AND l.table_name = 'messages'
         UNION
         -- An organisation's days may begin at another hour from now on. What changed of it the log does not say.
         SELECT m.org_id, m.channel_id, (m.created_at AT TIME ZONE o.timezone)::date
         FROM organizations o JOIN messages m ON m.org_id = o.id
         WHERE o.id IN (SELECT org_id FROM change_log
             WHERE seq > $1 AND seq <= $2 AND table_name = 'organizations' AND op = 'UPDATE')
         UNION
         SELECT d.org_id, d.channel_id, d.day FROM analytics_daily d
         WHERE d.org_id IN (SELECT org_id FROM change_log
             WHERE seq > $1 AND seq <= $2 AND table_name = 'organizations' AND op = 'UPDATE')",
    )
    .bind(after)
    .bind(upto)
    .fetch_all(&mut **tx)
    .await?)
}

async fn list_all_days(tx: &mut SystemTx) -> Result<Vec<ChannelDay>> {
    Ok(sqlx::query_as(
        "SELECT DISTINCT m.org_id, m.channel_id, (m.created_at AT TIME ZONE o.timezone)::date AS day
         FROM messages m JOIN organizations o ON o.id = m.org_id
         UNION
         SELECT org_id, channel_id, day FROM analytics_daily",
    )
    .fetch_all(&mut **tx)
    .await?)
}

/// Writes what the messages of these days are now. A row that would stay the same is left alone, so that nobody hears of
/// it.
async fn count(tx: &mut SystemTx, days: &[ChannelDay]) -> Result<()> {
    let orgs: Vec<Uuid> = days.iter().map(|day| day.org_id).collect();
    let channels: Vec<Uuid> = days.iter().map(|day| day.channel_id).collect();
    let dates: Vec<NaiveDate> = days.iter().map(|day| day.day).collect();
    sqlx::query(
        "WITH asked AS (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::date[]) AS a(org_id, channel_id, day)
         ), org_days AS (
             SELECT DISTINCT a.org_id, a.day, a.day::timestamp AT TIME ZONE o.timezone AS starts_at,
                 (a.day + 1)::timestamp AT TIME ZONE o.timezone AS ends_at
             FROM asked a JOIN organizations o ON o.id = a.org_id
         ), windows AS (
             -- The messages of a stretch of time are read once for all organisations.
             SELECT DISTINCT starts_at, ends_at FROM org_days
         ), counted AS (
             SELECT m.org_id, d.day, m.channel_id,
                 CASE WHEN m.message_type = 'template' THEN coalesce(m.content ->> 'name', '') ELSE '' END AS template_name,
                 count(*) FILTER (WHERE m.direction = 'inbound') AS received,
                 count(*) FILTER (WHERE m.direction = 'outbound' AND m.status IN ('sent', 'delivered', 'read')) AS sent,
                 count(*) FILTER (WHERE m.direction = 'outbound' AND m.status IN ('delivered', 'read')) AS delivered,
                 count(*) FILTER (WHERE m.direction = 'outbound' AND m.status = 'read') AS read,
                 count(*) FILTER (WHERE m.direction = 'outbound' AND m.status = 'failed') AS failed
             FROM windows w
             JOIN messages m ON m.created_at >= w.starts_at AND m.created_at < w.ends_at
             JOIN org_days d ON d.org_id = m.org_id AND d.starts_at = w.starts_at
             JOIN channels c ON c.org_id = m.org_id AND c.id = m.channel_id
             GROUP BY 1, 2, 3, 4
         ), gone AS (
             DELETE FROM analytics_daily d USING asked a
             WHERE (d.org_id, d.channel_id, d.day) = (a.org_id, a.channel_id, a.day) AND NOT EXISTS (
                 SELECT FROM counted c
                 WHERE (c.org_id, c.channel_id, c.day, c.template_name) = (d.org_id, d.channel_id, d.day, d.template_name))
         )
         INSERT INTO analytics_daily AS d (org_id, day, channel_id, template_name, received, sent, delivered, read, failed)
         SELECT * FROM counted
         ON CONFLICT (org_id, day, channel_id, template_name) DO UPDATE SET received = excluded.received,
             sent = excluded.sent, delivered = excluded.delivered, read = excluded.read, failed = excluded.failed
         WHERE (d.received, d.sent, d.delivered, d.read, d.failed)
             IS DISTINCT FROM (excluded.received, excluded.sent, excluded.delivered, excluded.read, excluded.failed)",
    )
    .bind(orgs)
    .bind(channels)
    .bind(dates)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
