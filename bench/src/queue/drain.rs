//! How fast the server empties its queue against a provider that takes its time, how evenly, and at what cost.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::provider::{self, Arrival};
use super::rows::{self, Batch, Tenant};
use super::stage::Stage;
use crate::cpu::Used;
use crate::report::Figures;

/// Rounds that take longer are given up.
const LIMIT: Duration = Duration::from_secs(120);

/// The server sends `count` messages of `tenants`, one for each customer.
pub async fn run(
    stage: &mut Stage,
    tenants: &[Tenant],
    count: u64,
    name: &str,
    figures: &mut Figures,
) -> Result<()> {
    let batch = Batch {
        first: stage.numbers(count),
        count,
        each: 1,
    };
    let made = rows::make(&stage.pool, tenants, batch).await?;
    stage.provider.take_arrivals();
    let (before, begun) = (
        Used::now(Some(stage.pid), stage.postmaster)?,
        Instant::now(),
    );
    made.commit().await?;
    while (stage.provider.count() as u64) < count || !rows::is_drained(&stage.pool, tenants).await?
    {
        if begun.elapsed() > LIMIT {
            bail!(
                "{name}: {} of {count} messages came within {LIMIT:?}",
                stage.provider.count()
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = Instant::now();
    let used = Used::now(Some(stage.pid), stage.postmaster)?.since(before);
    let arrivals = of(&stage.provider.take_arrivals(), batch);
    let first = arrivals.first().map_or(begun, |arrival| arrival.at);
    let seconds = ended.duration_since(first).as_secs_f64();
    figures.note(format!("{name}_rate"), count as f64 / seconds, "sends/s");
    figures.note(
        format!("{name}_first_after"),
        first.duration_since(begun).as_secs_f64() * 1000.0,
        "ms",
    );
    note_cpu(figures, name, used, count, begun.elapsed());
    let numbers: Vec<u64> = tenants
        .iter()
        .map(|tenant| tenant.phone_number_id)
        .collect();
    figures.note(
        format!("{name}_spread"),
        provider::spread(&arrivals, &numbers),
        "most by least of a tenant",
    );
    note_wrong(stage, name, batch, &arrivals, figures).await
}

/// Every message once, and the database knows of it.
pub async fn note_wrong(
    stage: &Stage,
    name: &str,
    batch: Batch,
    arrivals: &[Arrival],
    figures: &mut Figures,
) -> Result<()> {
    let doubles = provider::doubles(arrivals);
    let came = (arrivals.len() - doubles) as u64;
    let known = rows::count_accepted(&stage.pool, batch).await?;
    figures.note(format!("{name}_doubles"), doubles as f64, "messages");
    figures.note(
        "wrong".to_owned(),
        doubles as f64 + batch.count.abs_diff(came) as f64 + batch.count.abs_diff(known) as f64,
        "messages",
    );
    Ok(())
}

/// Those that are of this batch.
pub fn of(arrivals: &[Arrival], batch: Batch) -> Vec<Arrival> {
    let numbers = batch.first..batch.first + batch.count;
    arrivals
        .iter()
        .filter(|arrival| numbers.contains(&arrival.number))
        .copied()
        .collect()
}

/// `window`: the time over which `used` was counted.
pub fn note_cpu(figures: &mut Figures, name: &str, used: Used, messages: u64, window: Duration) {
    let each = |micros: u64| micros as f64 / messages.max(1) as f64;
    if used.server > 0 {
        figures.note(
            format!("{name}_server_cpu"),
            each(used.server),
            "us/message",
        );
    }
    figures.note(
        format!("{name}_postgres_cpu"),
        each(used.postgres),
        "us/message",
    );
    figures.note(format!("{name}_load_cpu"), each(used.load), "us/message");
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    figures.note(
        format!("{name}_foreign_cpu"),
        100.0 * used.foreign() as f64 / (window.as_micros() as f64 * cores),
        "%",
    );
}
