//! Which lanes have ready rows, and from where each is read on.
//!
//! Rows that are done stay in the index until they are cleaned away, which a long transaction anywhere (a backup, a
//! report) prevents for as long as it lasts. They lie at the beginning of each lane, so whoever begins there steps over
//! every one of them, each time. So lanes are read from where the last claim ended, and only what lies between the known
//! lanes is searched for new ones. What comes to lie before such a place (a more urgent message, one that was put off) is
//! found when all is read from the beginning again: several times a second, or more rarely where that has become
//! expensive.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use uuid::Uuid;

use super::claim::{Cursor, Lane, Leased};
use crate::Result;

/// How long a reading from the beginning is good for at least.
const FRESH: Duration = Duration::from_millis(250);
/// Reading from the beginning may take one part in so many of the time.
const SHARE: u32 = 10;
/// It is done so often at least, whatever it costs.
const LONGEST: Duration = Duration::from_secs(10);

/// How far each lane has been read.
#[derive(Debug, Default)]
pub struct LaneReader {
    /// Of every lane that was seen since the last reading from the beginning.
    cursors: BTreeMap<Lane, Cursor>,
    read_at: Option<Instant>,
    /// What the last reading from the beginning took.
    cost: Duration,
    /// Rows came to lie before the places reached.
    behind: bool,
}

impl LaneReader {
    /// The lanes with ready rows, in their order.
    pub async fn read(&mut self, connection: &mut PgConnection) -> Result<Vec<Lane>> {
        let begun = Instant::now();
        let least = if self.behind { Duration::ZERO } else { FRESH };
        let pause = (self.cost * SHARE).clamp(least, LONGEST);
        if self
            .read_at
            .is_some_and(|at| begun.duration_since(at) < pause)
        {
            let lanes = list_from(connection, &self.cursors).await?;
            for lane in &lanes {
                self.cursors.entry(*lane).or_insert(Cursor::START);
            }
            return Ok(lanes);
        }
        let lanes = list_all(connection).await?;
        // The first claim from each lane's beginning costs as much again.
        self.cost = begun.elapsed() * 2;
        (self.read_at, self.behind) = (Some(Instant::now()), false);
        self.cursors = lanes.iter().map(|lane| (*lane, Cursor::START)).collect();
        Ok(lanes)
    }

    /// From where to read a lane.
    #[must_use]
    pub fn cursor(&self, lane: Lane) -> Cursor {
        self.cursors.get(&lane).copied().unwrap_or(Cursor::START)
    }

    /// These rows, in the order in which the claim returned them, were taken.
    pub fn took(&mut self, rows: &[Leased]) {
        for row in rows {
            let lane = Lane {
                org_id: row.org_id,
                channel_id: row.channel_id,
                lane: row.lane,
            };
            let cursor = Cursor {
                priority: row.priority,
                message_id: row.message_id,
            };
            self.cursors.insert(lane, cursor);
        }
    }

    /// Rows may have come to lie before the places reached: the next reading is from the beginning, as soon as that may
    /// be done again.
    pub fn look_behind(&mut self) {
        self.behind = true;
    }
}

/// From the beginning: one index probe for each lane.
async fn list_all(connection: &mut PgConnection) -> Result<Vec<Lane>> {
    Ok(sqlx::query_as(
        "WITH RECURSIVE lanes AS (
             (SELECT org_id, channel_id, lane FROM outbox WHERE due_at IS NULL AND leased_until IS NULL
              ORDER BY org_id, channel_id, lane LIMIT 1)
             UNION ALL
             SELECT next.* FROM lanes l CROSS JOIN LATERAL (
                 SELECT o.org_id, o.channel_id, o.lane FROM outbox o WHERE o.due_at IS NULL AND o.leased_until IS NULL
                     AND (o.org_id, o.channel_id, o.lane) > (l.org_id, l.channel_id, l.lane)
                 ORDER BY o.org_id, o.channel_id, o.lane LIMIT 1) next
         )
         SELECT org_id, channel_id, lane FROM lanes",
    )
    .fetch_all(connection)
    .await?)
}

/// Known lanes with rows after their cursors, and the lanes between them: one index probe for each of both.
async fn list_from(
    connection: &mut PgConnection,
    cursors: &BTreeMap<Lane, Cursor>,
) -> Result<Vec<Lane>> {
    let column = |of: fn(&Lane) -> Uuid| cursors.keys().map(of).collect::<Vec<Uuid>>();
    let priorities: Vec<i16> = cursors.values().map(|cursor| cursor.priority).collect();
    let ids: Vec<Uuid> = cursors.values().map(|cursor| cursor.message_id).collect();
    Ok(sqlx::query_as(
        "WITH RECURSIVE known AS MATERIALIZED (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::uuid[])
                 AS k(org_id, channel_id, lane, after_priority, after_id)
         ), gap AS MATERIALIZED (
             SELECT org_id, channel_id, lane, lead(org_id, 1, $7) OVER along AS to_org, lead(channel_id, 1, $7) OVER along AS to_channel,
                 lead(lane, 1, $7) OVER along AS to_lane
             FROM (SELECT org_id, channel_id, lane FROM known UNION ALL SELECT $6, $6, $6) k
             WINDOW along AS (ORDER BY org_id, channel_id, lane)
         ), found AS (
             SELECT n.*, g.to_org, g.to_channel, g.to_lane FROM gap g CROSS JOIN LATERAL (
                 SELECT o.org_id, o.channel_id, o.lane FROM outbox o WHERE o.due_at IS NULL AND o.leased_until IS NULL
                     AND (o.org_id, o.channel_id, o.lane) > (g.org_id, g.channel_id, g.lane)
                     AND (o.org_id, o.channel_id, o.lane) < (g.to_org, g.to_channel, g.to_lane)
                 ORDER BY o.org_id, o.channel_id, o.lane LIMIT 1) n
             UNION ALL
             SELECT n.*, f.to_org, f.to_channel, f.to_lane FROM found f CROSS JOIN LATERAL (
                 SELECT o.org_id, o.channel_id, o.lane FROM outbox o WHERE o.due_at IS NULL AND o.leased_until IS NULL
                     AND (o.org_id, o.channel_id, o.lane) > (f.org_id, f.channel_id, f.lane)
                     AND (o.org_id, o.channel_id, o.lane) < (f.to_org, f.to_channel, f.to_lane)
                 ORDER BY o.org_id, o.channel_id, o.lane LIMIT 1) n
         )
         SELECT k.org_id, k.channel_id, k.lane FROM known k CROSS JOIN LATERAL (
             SELECT FROM outbox o
             WHERE o.org_id = k.org_id AND o.channel_id = k.channel_id AND o.lane = k.lane
               AND o.due_at IS NULL AND o.leased_until IS NULL
               AND (o.priority, o.message_id) > (k.after_priority, k.after_id)
             ORDER BY o.priority, o.message_id LIMIT 1) o
         UNION ALL
         SELECT org_id, channel_id, lane FROM found
         ORDER BY org_id, channel_id, lane",
    )
    .bind(column(|lane| lane.org_id))
    .bind(column(|lane| lane.channel_id))
    .bind(column(|lane| lane.lane))
    .bind(priorities)
    .bind(ids)
    .bind(Uuid::nil())
    .bind(Uuid::max())
    .fetch_all(connection)
    .await?)
}
