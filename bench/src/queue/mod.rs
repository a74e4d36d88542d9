//! `queue`: messages out. What a claim costs however many rows wait; how fast the server sends against a row-at-a-time
//! worker; how long one tenant waits behind another's million.
//!
//! - [`stage`]: the server, its cluster and the provider
//! - [`provider`]: the stand-in for Meta's Graph API
//! - [`rows`]: customers and messages made inside the database
//! - [`claim`], [`drain`], [`fair`]: the three measurements
//! - [`bulk`]: `wasel-bench bulk`, on the same stage
//! - [`row_at_a_time`]: the baseline of the drain
//! - [`caller`]: a connection to an HTTP server

pub mod bulk;
mod caller;
mod claim;
mod drain;
mod fair;

mod provider;
mod row_at_a_time;
mod rows;
mod stage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use self::stage::{Running, Setting, Stage};
use crate::bounded::{bounded, ground};
use crate::print;
use crate::report::{Bar, Figures, machine};

/// A run that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(9 * 60 + 30);
/// Messages a second that the measured tenants' numbers may send: their rate must not be what is measured.
const RATE: u32 = 1_000;
/// Loops of the baseline.
const LOOPS: [usize; 2] = [50, 200];

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Claim,
    Drain,
    Fair,
}

#[derive(clap::Args)]
pub struct Args {
    /// Leave parts out by naming the others.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["claim", "drain", "fair"])]
    parts: Vec<Part>,
    /// Waiting rows to claim from, the fewest first; what does not fit on the disk is made smaller.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000, 10_000_000])]
    sizes: Vec<u64>,
    /// Claims per size.
    #[arg(long, default_value_t = 150)]
    claims: u32,
    /// Rows taken in one claim.
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Jobs done while a snapshot is held, before claims are measured again.
    #[arg(long, default_value_t = 100_000)]
    held_jobs: u64,
    #[arg(long, default_value_t = 200)]
    tenants: u32,
    /// Messages in one drain.
    #[arg(long, default_value_t = 60_000)]
    messages: u64,
    /// Rounds of drain and baseline.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Length of one round of the baseline.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Sends the server may have under way.
    #[arg(long, default_value_t = 1_024)]
    in_flight: u32,
    /// Milliseconds until the provider answers.
    #[arg(long, default_value_t = 50)]
    delay: u64,
    /// Messages one tenant has waiting while another sends one.
    #[arg(long, default_value_t = 1_000_000)]
    pending: u64,
    /// The server's program; without it a release build is made.
    #[arg(long)]
    wasel: Option<PathBuf>,
    /// Where the data directory is made (and removed again); must be on a real disk. Default: the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// When done, wait this many seconds with everything still running, to look around in the database.
    #[arg(long, default_value_t = 0)]
    hold: u64,
}

pub async fn run(args: Args) -> Result<()> {
    if args.tenants < 2 || args.tenants > 600 || args.sizes.is_empty() || args.batch == 0 {
        bail!("2 to 600 tenants, at least one size and one row in a claim");
    }
    let (program, directory) = ground(args.wasel.as_ref(), args.dir.as_ref(), &[]).await?;
    let mut running = Running::default();
    let result = bounded(
        LIMIT,
        measure(&args, &program, directory.path(), &mut running),
    )
    .await;
    running.clear().await.and(result)
}

async fn measure(
    args: &Args,
    program: &Path,
    directory: &Path,
    running: &mut Running,
) -> Result<()> {
    print(&format!("machine {}", machine()));
    let setting = Setting {
        program,
        directory,
        // One more, for the long queue.
        tenants: args.tenants + 1,
        in_flight: Some(args.in_flight),
        delay: Duration::from_millis(args.delay),
    };
    let mut stage = Stage::set(&setting, running).await?;
    let mut figures = Figures::default();
    let mut sizes = Vec::new();
    if args.parts.contains(&Part::Claim) {
        sizes = measure_claims(args, directory, &stage, &mut figures).await?;
    }
    if args.parts.iter().any(|part| *part != Part::Claim) {
        measure_sends(args, &mut stage, &mut figures).await?;
    }
    figures.print();
    print_bars(args, &sizes, &figures);
    tokio::time::sleep(Duration::from_secs(args.hold)).await;
    let wrong = figures.highest("wrong");
    if wrong > 0.0 {
        bail!("what the provider got is not what was to be sent: {wrong} messages");
    }
    Ok(())
}

/// Drain and fairness.
async fn measure_sends(args: &Args, stage: &mut Stage, figures: &mut Figures) -> Result<()> {
    let (campaigner, tenants) = match stage.tenants.split_last() {
        Some((last, others)) => (*last, others.to_vec()),
        None => bail!("no tenants"),
    };
    rows::set_rates(&stage.pool, &tenants, RATE).await?;
    if args.parts.contains(&Part::Drain) {
        let options = stage.database("bench_row").await?;
        // More than it can send.
        let count = u64::from(args.rounds) * args.seconds * LOOPS.len() as u64 * 3_000;
        let mut baseline = row_at_a_time::Baseline::new(options, stage, &tenants, count).await?;
        for _ in 0..args.rounds {
            drain::run(stage, &tenants, args.messages, "drain", figures).await?;
            for loops in LOOPS {
                let length = Duration::from_secs(args.seconds);
                baseline
                    .run(stage, &tenants, loops, length, figures)
                    .await?;
            }
        }
    } else if args.parts.contains(&Part::Fair) {
        // So that the tenant of the one-offs has conversations.
        let few = u64::from(args.tenants);
        drain::run(stage, &tenants, few, "few", figures).await?;
    }
    if args.parts.contains(&Part::Fair) {
        fair::fill(stage, campaigner, args.pending).await?;
        fair::run(stage, campaigner, tenants[0], figures).await?;
        if args.parts.contains(&Part::Drain) {
            let name = "drain_behind";
            drain::run(stage, &tenants, args.messages, name, figures).await?;
        }
    }
    Ok(())
}

/// Returns the sizes that fitted.
async fn measure_claims(
    args: &Args,
    directory: &Path,
    stage: &Stage,
    figures: &mut Figures,
) -> Result<Vec<u64>> {
    let plan = claim::Plan {
        organizations: args.tenants,
        batch: args.batch,
        rounds: args.claims,
        held_jobs: args.held_jobs,
    };
    let mut sizes = Vec::new();
    for size in &args.sizes {
        sizes.push(claim::fitting(*size, directory)?);
    }
    sizes.dedup();
    let name = "bench_claim";
    let options = stage.database(name).await?;
    let mut rows = claim::Rows::new(options, stage.postmaster, plan).await?;
    for (nth, size) in sizes.iter().enumerate() {
        let hold = nth + 1 == sizes.len();
        rows.measure(plan, *size, hold, figures).await?;
    }
    rows.close().await?;
    // The disk is needed again.
    sqlx::query("DROP DATABASE bench_claim WITH (FORCE)")
        .execute(&stage.pool)
        .await?;
    Ok(sizes)
}

/// The bars of the issue, and the ratios last.
fn print_bars(args: &Args, sizes: &[u64], figures: &Figures) {
    let mut ratios: Vec<(String, f64, Bar)> = Vec::new();
    if let (Some(least), Some(most)) = (sizes.first(), sizes.last()) {
        let median = |name: &str, what: &str| figures.median(&format!("claim_{name}_{what}"));
        let (least, most) = (least.to_string(), most.to_string());
        ratios.push((
            format!("claim_{most}_vs_{least}"),
            median(&most, "p50") / median(&least, "p50"),
            Bar::AtMost(1.5),
        ));
        for what in ["p50", "mean_with_lanes"] {
            ratios.push((
                format!("claim_held_vs_not_{what}"),
                median("held", what) / median(&most, what),
                Bar::AtMost(3.0),
            ));
        }
    }
    if args.parts.contains(&Part::Drain) {
        let rate = figures.median("drain_rate");
        Figures::print_bar("drain_rate", rate, "sends/s", Bar::AtLeast(12_000.0));
        for loops in LOOPS {
            ratios.push((
                format!("drain_vs_row_{loops}"),
                rate / figures.median(&format!("row_{loops}_rate")),
                Bar::AtLeast(12.0),
            ));
        }
    }
    if args.parts.contains(&Part::Fair) {
        let longest = figures.highest("one_off_max");
        Figures::print_bar("one_off_max", longest, "ms", Bar::AtMost(1_000.0));
    }
    for (name, ratio, bar) in &ratios {
        Figures::print_bar(name, *ratio, "x", *bar);
    }
    for (name, ratio, _) in &ratios {
        print(&format!("ratio {name} {ratio:.2}"));
    }
}
