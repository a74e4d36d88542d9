//! What a claim costs with few and with many rows waiting, and while a snapshot held elsewhere keeps dead rows from being
//! cleaned away. The server's own statements, on its own schema, in a database of their own; nothing is sent.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use uuid::Uuid;
use wasel_db::outbox::claim::{self, Lane, Leased, Want};
use wasel_db::outbox::lanes::LaneReader;
use wasel_db::{Db, PoolSizes};

use crate::cpu::{self, Used};
use crate::print;
use crate::report::Figures;

/// As the server: how long what was read of the lanes is believed.
const FRESH: Duration = Duration::from_millis(250);
/// As the server's default.
const LEASE: Duration = Duration::from_secs(10);
/// Rounds before a measurement: plans are chosen, pages are read.
const WARM_UP: u32 = 12;
/// What a waiting row takes on disk with its indexes and its share of the log while it is written, in bytes, generously.
const ROW_ON_DISK: u64 = 1_000;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub organizations: u32,
    /// Rows taken in one claim.
    pub batch: usize,
    /// Claims per size.
    pub rounds: u32,
    /// Jobs that are done while a snapshot is held, before it is measured again.
    pub held_jobs: u64,
}

/// The database with the rows.
pub struct Rows {
    db: Db,
    /// A connection that makes rows.
    maker: PgConnection,
    maker_pid: u32,
    options: PgConnectOptions,
    postmaster: u32,
    lanes: Vec<Lane>,
    next: u64,
}

/// The lanes as the server keeps them.
#[derive(Default)]
struct Lanes {
    reader: LaneReader,
    known: Vec<Lane>,
    read_at: Option<Instant>,
    turn: usize,
}

/// What some rounds took, in milliseconds.
#[derive(Debug, Default)]
struct Taken {
    claims: Vec<f64>,
    lanes: Vec<f64>,
    completions: Vec<f64>,
    jobs: u64,
    /// Of Postgres, without the making of new rows.
    cpu_us: u64,
    /// The fewest organisations in one claim.
    organizations: usize,
}

impl Rows {
    pub async fn new(options: PgConnectOptions, postmaster: u32, plan: Plan) -> Result<Self> {
        let mut maker = options.connect().await?;
        let maker_pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut maker)
            .await?;
        // Only the rows of the queue themselves: nobody looks at messages here.
        sqlx::query("SET session_replication_role = replica")
            .execute(&mut maker)
            .await?;
        let lane = |n: u128| Lane {
            org_id: Uuid::from_u128(0x0192_f000_0000_7000_8000 << 48 | n),
            channel_id: Uuid::from_u128(0x0192_f001_0000_7000_8000 << 48 | n),
            lane: Uuid::nil(),
        };
        let lanes: Vec<Lane> = (1..=u128::from(plan.organizations)).map(lane).collect();
        Ok(Self {
            db: Db::new(options.clone(), PoolSizes::default()),
            maker,
            maker_pid: maker_pid as u32,
            options,
            postmaster,
            lanes,
            next: 1,
        })
    }

    /// Measures with `size` rows waiting. With `hold`, again while a snapshot is held.
    pub async fn measure(
        &mut self,
        plan: Plan,
        size: u64,
        hold: bool,
        figures: &mut Figures,
    ) -> Result<()> {
        let begun = Instant::now();
        self.fill(size).await?;
        print(&format!(
            "{size} rows were made in {:.0} s",
            begun.elapsed().as_secs_f64()
        ));
        self.rounds(plan, WARM_UP).await?;
        let taken = self.rounds(plan, plan.rounds).await?;
        taken.note(figures, &format!("claim_{size}"));
        if hold {
            let mut holder = self.options.connect().await?;
            let mut snapshot = holder
                .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
                .await?;
            // The snapshot is taken by the first statement.
            sqlx::query("SELECT count(*) FROM pg_class")
                .execute(&mut *snapshot)
                .await?;
            let before = u32::try_from(plan.held_jobs / plan.batch as u64)?;
            self.rounds(plan, before).await?;
            let taken = self.rounds(plan, plan.rounds).await?;
            taken.note(figures, "claim_held");
            snapshot.rollback().await?;
        }
        Ok(())
    }

    /// Ends its connections.
    pub async fn close(self) -> Result<()> {
        self.maker.close().await?;
        self.db.close().await;
        Ok(())
    }

    /// Half of all rows belong to the first organisation. Indexes are built afterwards, as that is quicker.
    async fn fill(&mut self, size: u64) -> Result<()> {
        self.next = 1;
        let organizations = self.lanes.len() as i64;
        let indexes: Vec<(String, String)> = sqlx::query_as(
            "SELECT indexname::text, indexdef FROM pg_indexes WHERE tablename = 'outbox' AND indexname <> 'outbox_pkey'",
        )
        .fetch_all(&mut self.maker)
        .await?;
        sqlx::raw_sql("TRUNCATE outbox; SET maintenance_work_mem = '256MB'; ALTER TABLE outbox DROP CONSTRAINT outbox_pkey")
            .execute(&mut self.maker)
            .await?;
        for (name, _) in &indexes {
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP INDEX {name}")))
                .execute(&mut self.maker)
                .await?;
        }
        sqlx::query(
            "INSERT INTO outbox (org_id, message_id, channel_id, conversation_id, due_at)
             SELECT l.org_id, m.id, l.channel_id, m.id, NULL
             FROM generate_series(1, $1::bigint) n
             JOIN unnest($2::uuid[], $3::uuid[]) WITH ORDINALITY AS l(org_id, channel_id, place)
                 ON l.place = CASE WHEN n % 2 = 0 THEN 1 ELSE 2 + n / 2 % ($4 - 1) END,
             LATERAL (SELECT ('0192f002-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id) m",
        )
        .bind(size as i64)
        .bind(self.lanes.iter().map(|lane| lane.org_id).collect::<Vec<_>>())
        .bind(
            self.lanes
                .iter()
                .map(|lane| lane.channel_id)
                .collect::<Vec<_>>(),
        )
        .bind(organizations)
        .execute(&mut self.maker)
        .await?;
        self.next += size;
        sqlx::raw_sql(
            "ALTER TABLE outbox ADD CONSTRAINT outbox_pkey PRIMARY KEY (org_id, message_id)",
        )
        .execute(&mut self.maker)
        .await?;
        for (_, definition) in indexes {
            sqlx::raw_sql(sqlx::AssertSqlSafe(definition))
                .execute(&mut self.maker)
                .await?;
        }
        sqlx::raw_sql("VACUUM (ANALYZE) outbox")
            .execute(&mut self.maker)
            .await?;
        sqlx::raw_sql("CHECKPOINT").execute(&mut self.maker).await?;
        Ok(())
    }

    /// Claim, completion, and as many new rows, again and again.
    async fn rounds(&mut self, plan: Plan, count: u32) -> Result<Taken> {
        let mut lanes = Lanes::default();
        let mut taken = Taken {
            organizations: usize::MAX,
            ..Taken::default()
        };
        let cpu = |rows: &Self| -> Result<u64> {
            let all = Used::now(None, rows.postmaster)?.postgres;
            Ok(all.saturating_sub(cpu::of_process(rows.maker_pid)?))
        };
        let before = cpu(self)?;
        for _ in 0..count {
            let rows = self.claim(plan, &mut lanes, &mut taken).await?;
            let begun = Instant::now();
            self.complete(&rows).await?;
            taken
                .completions
                .push(begun.elapsed().as_secs_f64() * 1000.0);
            taken.jobs += rows.len() as u64;
            self.replace(&rows).await?;
        }
        taken.cpu_us = cpu(self)?.saturating_sub(before);
        Ok(taken)
    }

    async fn claim(&self, plan: Plan, lanes: &mut Lanes, taken: &mut Taken) -> Result<Vec<Leased>> {
        let mut tx = self.db.system().await?;
        if lanes.read_at.is_none_or(|at| at.elapsed() >= FRESH) {
            let begun = Instant::now();
            lanes.known = lanes.reader.read(&mut tx).await?;
            taken.lanes.push(begun.elapsed().as_secs_f64() * 1000.0);
            lanes.read_at = Some(begun);
        }
        let wants = lanes.choose(plan.batch);
        let begun = Instant::now();
        let rows = claim::lock_next(&mut tx, Uuid::nil(), LEASE, &wants).await?;
        taken.claims.push(begun.elapsed().as_secs_f64() * 1000.0);
        tx.commit().await?;
        if rows.len() != plan.batch || rows.iter().any(|row| row.blocked) {
            bail!("{} rows were claimed, not {}", rows.len(), plan.batch);
        }
        let mut organizations: Vec<Uuid> = rows.iter().map(|row| row.org_id).collect();
        organizations.dedup();
        taken.organizations = taken.organizations.min(organizations.len());
        lanes.reader.took(&rows);
        Ok(rows)
    }

    /// What happens to the queue when sends are written down.
    async fn complete(&self, rows: &[Leased]) -> Result<()> {
        let column = |of: fn(&Leased) -> Uuid| rows.iter().map(of).collect::<Vec<Uuid>>();
        let mut tx = self.db.system().await?;
        let done = sqlx::query(
            "DELETE FROM outbox o USING unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS e(org_id, message_id, attempt_id)
             WHERE o.org_id = e.org_id AND o.message_id = e.message_id AND o.attempt_id = e.attempt_id",
        )
        .bind(column(|row| row.org_id))
        .bind(column(|row| row.message_id))
        .bind(column(|row| row.attempt_id))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        if done.rows_affected() != rows.len() as u64 {
            bail!("{} of {} jobs ended", done.rows_affected(), rows.len());
        }
        Ok(())
    }

    /// A new row for each that has gone, at the end of its lane.
    async fn replace(&mut self, rows: &[Leased]) -> Result<()> {
        let id = |n: u64| Uuid::from_u128(0x0192_f002_0000_7000_8000 << 48 | u128::from(n));
        let ids: Vec<Uuid> = (self.next..).take(rows.len()).map(id).collect();
        self.next += rows.len() as u64;
        sqlx::query(
            "INSERT INTO outbox (org_id, message_id, channel_id, conversation_id, due_at)
             SELECT n.org_id, n.id, n.channel_id, n.id, NULL
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS n(org_id, channel_id, id)",
        )
        .bind(rows.iter().map(|row| row.org_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.channel_id).collect::<Vec<_>>())
        .bind(ids)
        .execute(&mut self.maker)
        .await?;
        Ok(())
    }
}

impl Lanes {
    /// Equal shares; what does not divide goes to another lane each time.
    fn choose(&mut self, batch: usize) -> Vec<Want> {
        let count = self.known.len().max(1);
        self.turn += 1;
        let shift = self.turn * (batch % count);
        self.known
            .iter()
            .enumerate()
            .map(|(place, lane)| Want {
                lane: *lane,
                count: (batch / count + usize::from((place + shift) % count < batch % count))
                    as i32,
                after: self.reader.cursor(*lane),
            })
            .filter(|want| want.count > 0)
            .collect()
    }
}

impl Taken {
    fn note(&self, figures: &mut Figures, name: &str) {
        let jobs = self.jobs.max(1) as f64;
        figures.note(format!("{name}_p50"), percentile(&self.claims, 0.5), "ms");
        figures.note(format!("{name}_p99"), percentile(&self.claims, 0.99), "ms");
        figures.note(
            format!("{name}_lanes_p50"),
            percentile(&self.lanes, 0.5),
            "ms",
        );
        let all: f64 = self.claims.iter().chain(&self.lanes).sum();
        figures.note(
            format!("{name}_mean_with_lanes"),
            all / self.claims.len().max(1) as f64,
            "ms",
        );
        figures.note(
            format!("{name}_completion_p50"),
            percentile(&self.completions, 0.5),
            "ms",
        );
        figures.note(
            format!("{name}_postgres_cpu"),
            self.cpu_us as f64 / jobs,
            "us/job",
        );
        figures.note(
            format!("{name}_organizations"),
            self.organizations as f64,
            "in the narrowest claim",
        );
    }
}

/// `share` from 0 to 1.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).max(1) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// `size`, or what half of the free space below `directory` has room for.
pub fn fitting(size: u64, directory: &std::path::Path) -> Result<u64> {
    let disk = nix::sys::statvfs::statvfs(directory).context("free space")?;
    let free = disk.blocks_available() as u64 * disk.fragment_size() as u64;
    let room = free / 2 / ROW_ON_DISK;
    if size <= room {
        return Ok(size);
    }
    let less = room / 100_000 * 100_000;
    print(&format!(
        "note {size} rows do not fit on this disk; {less} are made"
    ));
    Ok(less)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn shares_differ_by_one_and_each_lane_gets_the_rest_in_turn() {
        let mut lanes = Lanes {
            known: (0..200)
                .map(|n| Lane {
                    org_id: Uuid::from_u128(n),
                    channel_id: Uuid::nil(),
                    lane: Uuid::nil(),
                })
                .collect(),
            ..Lanes::default()
        };
        let mut sums: HashMap<Lane, i32> = HashMap::new();
        for _ in 0..2 {
            let wants = lanes.choose(500);
            assert_eq!(wants.iter().map(|want| want.count).sum::<i32>(), 500);
            for want in wants {
                *sums.entry(want.lane).or_default() += want.count;
            }
        }
        assert!(sums.values().all(|sum| *sum == 5), "{sums:?}");
    }
}
