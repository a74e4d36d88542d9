//! `soak`: a day of linked phones in minutes. Each round stands for an hour: messages both ways, a tenth of the sockets
//! lost; now and then WhatsApp throws everybody out at once, and the server is restarted. At the end nothing may be lost
//! or doubled, and the memory must not have grown.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::seq::IndexedRandom;
use wasel_simulator::{Simulator, WhatsappDisruption};

use super::fleet::{DELIVERED, Fleet, INBOUND};
use super::{MEGABYTE, business};
use crate::bounded::{bounded, ground};
use crate::print;
use crate::report::{Figures, machine};

/// A run that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(9 * 60 + 30);
/// A storm in every so many rounds.
const STORM_EVERY: u32 = 4;
/// The first rounds fill caches; the slope is taken after them.
const WARM_UP: u32 = 6;
/// Sockets lost in a round.
const LOST: f64 = 0.1;
const SETTLE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 50)]
    sessions: u32,
    /// Each stands for an hour.
    #[arg(long, default_value_t = 24)]
    rounds: u32,
    /// Messages each session gets, and sends, in a round.
    #[arg(long, default_value_t = 5)]
    messages: u32,
    /// The server's program, built with the feature simulated-phones; without it a release build is made.
    #[arg(long)]
    wasel: Option<PathBuf>,
    /// Where the data directory is made (and removed again); must be on a real disk. Default: the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<()> {
    if args.sessions == 0 || args.messages == 0 || args.rounds <= WARM_UP + 1 {
        bail!(
            "at least one session, one message and {} rounds",
            WARM_UP + 2
        );
    }
    let features = ["simulated-phones"];
    let (program, directory) = ground(args.wasel.as_ref(), args.dir.as_ref(), &features).await?;
    bounded(LIMIT, async {
        print(&format!("machine {}", machine()));
        let simulator = Simulator::start(([127, 0, 0, 1], 0).into()).await?;
        let mut fleet = Fleet::new(
            &program,
            directory.path(),
            &simulator,
            args.sessions,
            args.messages,
        )?;
        let result = soak(&mut fleet, &args).await;
        fleet.clear().await.and(result)?;
        simulator.stop().await;
        Ok(())
    })
    .await
}

async fn soak(fleet: &mut Fleet, args: &Args) -> Result<()> {
    fleet.start().await?;
    let mut pool = fleet.pool().await?;
    fleet.declare(&pool).await?;
    fleet.link(&pool).await?;
    let numbers: Vec<String> = (0..fleet.count).map(business).collect();
    let each = i64::from(args.sessions * args.messages);
    let mut memory = Vec::new();
    for round in 1..=args.rounds {
        fleet.customers_write()?;
        if round % STORM_EVERY == 0 {
            fleet
                .whatsapp
                .disrupt(None, WhatsappDisruption::Unavailable)?;
        }
        let lost = (f64::from(args.sessions) * LOST).ceil() as usize;
        for number in numbers.choose_multiple(&mut rand::rng(), lost) {
            fleet
                .whatsapp
                .disrupt(Some(number), WhatsappDisruption::Drop)?;
        }
        let all = each * i64::from(round);
        fleet.until(&pool, INBOUND, all).await?;
        fleet.answer(&pool).await?;
        for number in numbers.choose_multiple(&mut rand::rng(), lost) {
            fleet
                .whatsapp
                .disrupt(Some(number), WhatsappDisruption::Drop)?;
        }
        fleet.until(&pool, DELIVERED, all).await?;
        tokio::time::sleep(SETTLE).await;
        let rss = fleet.rss()? / MEGABYTE;
        memory.push((f64::from(round), rss));
        print(&format!(
            "… round {round}: {all} messages each way, {rss:.1} MB"
        ));
        // Not in the measured part: a new process begins with an empty memory.
        if round == WARM_UP / 2 {
            fleet.stop().await?;
            fleet.start().await?;
            pool = fleet.pool().await?;
        }
    }
    fleet.check(&pool, each * i64::from(args.rounds)).await?;
    let measured = &memory[WARM_UP as usize..];
    let mut figures = Figures::default();
    figures.note("soak_rounds".to_owned(), f64::from(args.rounds), "rounds");
    figures.note(
        "soak_messages".to_owned(),
        2.0 * (each * i64::from(args.rounds)) as f64,
        "messages",
    );
    figures.note("soak_lost_or_doubled".to_owned(), 0.0, "messages");
    figures.note("soak_rss_first".to_owned(), measured[0].1, "MB");
    figures.note(
        "soak_rss_last".to_owned(),
        measured[measured.len() - 1].1,
        "MB",
    );
    figures.note("soak_slope".to_owned(), slope(measured), "MB/round");
    figures.print();
    Ok(())
}

/// Of the straight line nearest to the points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_own_slope() {
        assert!((slope(&[(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]) - 2.0).abs() < 1e-9);
    }
}
