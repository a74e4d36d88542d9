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

/// Known lanes with rows after their cursors, and the first lane of each gap between them: one index probe for each of
/// both. Of several new lanes in one gap the next ones follow at the next readings.
async fn list_from(
    connection: &mut PgConnection,
    cursors: &BTreeMap<Lane, Cursor>,
) -> Result<Vec<Lane>> {
    let column = |of: fn(&Lane) -> Uuid| cursors.keys().map(of).collect::<Vec<Uuid>>();
    let priorities: Vec<i16> = cursors.values().map(|cursor| cursor.priority).collect();
    let ids: Vec<Uuid> = cursors.values().map(|cursor| cursor.message_id).collect();
    let gaps = Gaps::between(cursors.keys());
    // Gaps by plain comparisons: where a comparison of rows ends a scan, Postgres first walks over all that is equal.
    Ok(sqlx::query_as(
        "SELECT k.org_id, k.channel_id, k.lane
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::uuid[])
             AS k(org_id, channel_id, lane, after_priority, after_id)
         CROSS JOIN LATERAL (
             SELECT FROM outbox o
             WHERE o.org_id = k.org_id AND o.channel_id = k.channel_id AND o.lane = k.lane
               AND o.due_at IS NULL AND o.leased_until IS NULL
               AND (o.priority, o.message_id) > (k.after_priority, k.after_id)
             ORDER BY o.priority, o.message_id LIMIT 1) o
         UNION ALL
         SELECT n.* FROM unnest($6::uuid[], $7::uuid[]) AS g(first, until) CROSS JOIN LATERAL (
             SELECT o.org_id, o.channel_id, o.lane FROM outbox o
             WHERE o.org_id >= g.first AND o.org_id < g.until AND o.due_at IS NULL AND o.leased_until IS NULL
             ORDER BY o.org_id, o.channel_id, o.lane LIMIT 1) n
         UNION ALL
         SELECT n.* FROM unnest($8::uuid[], $9::uuid[], $10::uuid[]) AS g(org_id, first, until) CROSS JOIN LATERAL (
             SELECT o.org_id, o.channel_id, o.lane FROM outbox o
             WHERE o.org_id = g.org_id AND o.channel_id >= g.first AND o.channel_id < g.until
               AND o.due_at IS NULL AND o.leased_until IS NULL
             ORDER BY o.channel_id, o.lane LIMIT 1) n
         UNION ALL
         SELECT n.* FROM unnest($11::uuid[], $12::uuid[], $13::uuid[], $14::uuid[]) AS g(org_id, channel_id, first, until)
         CROSS JOIN LATERAL (
             SELECT o.org_id, o.channel_id, o.lane FROM outbox o
             WHERE o.org_id = g.org_id AND o.channel_id = g.channel_id AND o.lane >= g.first AND o.lane < g.until
               AND o.due_at IS NULL AND o.leased_until IS NULL
             ORDER BY o.lane LIMIT 1) n
         ORDER BY org_id, channel_id, lane",
    )
    .bind(column(|lane| lane.org_id))
    .bind(column(|lane| lane.channel_id))
    .bind(column(|lane| lane.lane))
    .bind(priorities)
    .bind(ids)
    .bind(gaps.orgs.iter().map(|gap| gap.0).collect::<Vec<_>>())
    .bind(gaps.orgs.iter().map(|gap| gap.1).collect::<Vec<_>>())
    .bind(gaps.channels.iter().map(|gap| gap.0).collect::<Vec<_>>())
    .bind(gaps.channels.iter().map(|gap| gap.1).collect::<Vec<_>>())
    .bind(gaps.channels.iter().map(|gap| gap.2).collect::<Vec<_>>())
    .bind(gaps.lanes.iter().map(|gap| gap.0).collect::<Vec<_>>())
    .bind(gaps.lanes.iter().map(|gap| gap.1).collect::<Vec<_>>())
    .bind(gaps.lanes.iter().map(|gap| gap.2).collect::<Vec<_>>())
    .bind(gaps.lanes.iter().map(|gap| gap.3).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?)
}

/// Where unknown lanes may be: from the first id to before the second, between known organisations, between known
/// channels of one, and between known lanes of a channel.
#[derive(Debug, Default)]
struct Gaps {
    orgs: Vec<(Uuid, Uuid)>,
    channels: Vec<(Uuid, Uuid, Uuid)>,
    lanes: Vec<(Uuid, Uuid, Uuid, Uuid)>,
}

impl Gaps {
    fn between<'a>(known: impl Iterator<Item = &'a Lane>) -> Self {
        let mut tree: BTreeMap<Uuid, BTreeMap<Uuid, Vec<Uuid>>> = BTreeMap::new();
        for lane in known {
            let channels = tree.entry(lane.org_id).or_default();
            channels.entry(lane.channel_id).or_default().push(lane.lane);
        }
        let mut gaps = Self {
            orgs: around(tree.keys()),
            ..Self::default()
        };
        for (org, channels) in &tree {
            let between = around(channels.keys()).into_iter();
            gaps.channels
                .extend(between.map(|(first, until)| (*org, first, until)));
            for (channel, lanes) in channels {
                let between = around(lanes.iter()).into_iter();
                gaps.lanes
                    .extend(between.map(|(first, until)| (*org, *channel, first, until)));
            }
        }
        gaps
    }
}

/// The gaps before, between and after ids that are in order.
fn around<'a>(ids: impl Iterator<Item = &'a Uuid>) -> Vec<(Uuid, Uuid)> {
    let mut gaps = Vec::new();
    let mut first = Uuid::nil();
    for id in ids {
        if first < *id {
            gaps.push((first, *id));
        }
        first = Uuid::from_u128(id.as_u128().saturating_add(1));
    }
    gaps.push((first, Uuid::max()));
    gaps
}
