//! `sessions`: linked phones in one process: what they hold in memory, what messages cost, and how soon they are back
//! after a restart, beside Baileys on the same simulated WhatsApp in the same run.

mod baileys;
mod fleet;
pub mod soak;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use wasel_simulator::Simulator;

use crate::bounded::{bounded, ground};
use crate::print;
use crate::report::{Bar, Figures, machine};
use fleet::Fleet;

/// A run that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(9 * 60 + 30);
/// What is aimed for, in megabytes a session, seconds, and as a ratio.
const MEGABYTES_EACH: f64 = 0.3;
const BACK_WITHIN: f64 = 5.0;
const TIMES_LESS_MEMORY: f64 = 5.0;

#[derive(clap::Args)]
pub struct Args {
    /// Sizes of the fleets, each measured by itself.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    sessions: Vec<u32>,
    /// Messages each session gets, and sends.
    #[arg(long, default_value_t = 20)]
    messages: u32,
    /// Sessions of Baileys beside them; 0 leaves it out.
    #[arg(long, default_value_t = 100)]
    baileys: u32,
    /// The server's program, built with the feature simulated-phones; without it a release build is made.
    #[arg(long)]
    wasel: Option<PathBuf>,
    /// Where the data directory is made (and removed again); must be on a real disk. Default: the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<()> {
    if args.sessions.contains(&0) || args.messages == 0 {
        bail!("at least one session and one message");
    }
    let features = ["simulated-phones"];
    let (program, directory) = ground(args.wasel.as_ref(), args.dir.as_ref(), &features).await?;
    bounded(LIMIT, async {
        print(&format!("machine {}", machine()));
        let mut figures = Figures::default();
        for (nth, count) in args.sessions.iter().enumerate() {
            let place = directory.path().join(nth.to_string());
            std::fs::create_dir(&place)?;
            // A world of its own for each: what one fleet left behind must not slow the next.
            let simulator = Simulator::start(([127, 0, 0, 1], 0).into()).await?;
            let mut fleet = Fleet::new(&program, &place, &simulator, *count, args.messages)?;
            let result = fleet.measure(&mut figures).await;
            fleet.clear().await.and(result)?;
            simulator.stop().await;
        }
        if args.baileys > 0 {
            let simulator = Simulator::start(([127, 0, 0, 1], 0).into()).await?;
            baileys::measure(&simulator, args.baileys, args.messages, &mut figures).await?;
            simulator.stop().await;
        }
        figures.print();
        print_bars(&args, &figures);
        Ok(())
    })
    .await
}

fn print_bars(args: &Args, figures: &Figures) {
    for count in &args.sessions {
        let name = |what: &str| format!("wasel_{count}_{what}");
        if *count >= 1000 {
            let each = figures.median(&name("each_after"));
            Figures::print_bar(&name("each_after"), each, "MB", Bar::AtMost(MEGABYTES_EACH));
        }
        let back = figures.median(&name("back_in"));
        Figures::print_bar(&name("back_in"), back, "s", Bar::AtMost(BACK_WITHIN));
    }
    if args.baileys > 0 && args.sessions.contains(&args.baileys) {
        for what in ["each_idle", "each_after"] {
            let ours = figures.median(&format!("wasel_{}_{what}", args.baileys));
            let theirs = figures.median(&format!("baileys_{}_{what}", args.baileys));
            let name = format!("baileys_{what}_vs_wasel");
            Figures::print_bar(
                &name,
                theirs / ours,
                "times",
                Bar::AtLeast(TIMES_LESS_MEMORY),
            );
        }
    }
}

/// The number of the phone that session `n` is linked to.
fn business(n: u32) -> String {
    format!("+2010{n:08}")
}

/// The number of its one customer.
fn customer(n: u32) -> String {
    format!("+2011{n:08}")
}

const MEGABYTE: f64 = 1024.0 * 1024.0;
