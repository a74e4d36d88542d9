//! `bulk`: one bulk job on one number at its provider's rate, the server killed several times on the way.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::provider::{self, PREFIX};
use super::rows::{self, Batch, Tenant};
use super::stage::{Running, Setting, Stage, headers_for};
use crate::bounded::{bounded, ground};
use crate::print;
use crate::report::{Bar, Figures, machine};

/// A run that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(9 * 60 + 30);
/// How often its progress is asked for.
const POLL: Duration = Duration::from_millis(200);
/// What Meta allows a number by default.
const RATE: f64 = 80.0;
/// The bar for 10,000 recipients: 125 s at that rate, and a little for three starts.
const SECONDS_EACH: f64 = 130.0 / 10_000.0;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 10_000)]
    recipients: u64,
    /// How often the server is killed (SIGKILL) and started again.
    #[arg(long, default_value_t = 3)]
    kills: u64,
    /// Milliseconds until the provider answers.
    #[arg(long, default_value_t = 50)]
    delay: u64,
    /// The server's program; without it a release build is made.
    #[arg(long)]
    wasel: Option<PathBuf>,
    /// Where the data directory is made (and removed again); must be on a real disk. Default: the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What `GET /v1/bulk-jobs/{id}` answers, as far as it matters here.
#[derive(Deserialize)]
struct Job {
    id: Uuid,
    status: String,
    progress: Progress,
}

#[derive(Deserialize)]
struct Progress {
    unknown: u64,
    failed: u64,
    skipped: u64,
}

pub async fn run(args: Args) -> Result<()> {
    if args.recipients == 0 {
        bail!("at least one recipient");
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
        tenants: 1,
        in_flight: None,
        delay: Duration::from_millis(args.delay),
    };
    let mut stage = Stage::set(&setting, running).await?;
    let tenant = *stage.tenants.first().context("no tenant")?;
    let batch = Batch {
        first: stage.numbers(args.recipients),
        count: args.recipients,
        each: 1,
    };
    // They have written before: a plain text may be sent.
    rows::make_customers(&stage.pool, &[tenant], batch)
        .await?
        .commit()
        .await?;
    let begun = Instant::now();
    let job = create(&stage, tenant, batch).await?;
    let mut figures = Figures::default();
    figures.note(
        "bulk_created_in".to_owned(),
        begun.elapsed().as_secs_f64() * 1000.0,
        "ms",
    );
    for nth in 1..=args.kills {
        let share = args.recipients * nth / (args.kills + 1);
        while (stage.provider.count() as u64) < share {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let killed = Instant::now();
        stage.crash(running).await?;
        figures.note(
            "bulk_restarted_in".to_owned(),
            killed.elapsed().as_secs_f64() * 1000.0,
            "ms",
        );
    }
    let mut caller = stage.connect().await?;
    let headers = headers_for(tenant);
    let path = format!("/v1/bulk-jobs/{job}");
    let ended = loop {
        let (status, answer) = caller.get(&path, &headers).await?;
        if status != 200 {
            bail!("GET {path}: {status} {}", String::from_utf8_lossy(answer));
        }
        let job: Job = serde_json::from_slice(answer)?;
        if job.status != "running" {
            break job;
        }
        tokio::time::sleep(POLL).await;
    };
    let finished = begun.elapsed();
    let arrivals = stage.provider.take_arrivals();
    let last = arrivals.last().context("nothing came")?;
    figures.note(
        "bulk_sent_in".to_owned(),
        last.at.duration_since(begun).as_secs_f64(),
        "s",
    );
    figures.note("bulk_finished_in".to_owned(), finished.as_secs_f64(), "s");
    figures.note(
        "bulk_most_in_a_second".to_owned(),
        provider::most_in_a_second(arrivals.iter()) as f64,
        "messages",
    );
    figures.note(
        "bulk_doubles".to_owned(),
        provider::doubles(&arrivals) as f64,
        "messages",
    );
    let came: HashSet<u64> = arrivals.iter().map(|arrival| arrival.number).collect();
    let unknown = unknown(&stage.pool, job).await?;
    let lost = (batch.first..batch.first + batch.count)
        .filter(|number| !came.contains(number) && !unknown.contains(number))
        .count();
    figures.note("bulk_arrived".to_owned(), came.len() as f64, "messages");
    figures.note(
        "bulk_unknown".to_owned(),
        ended.progress.unknown as f64,
        "messages",
    );
    figures.note(
        "bulk_unknown_arrived".to_owned(),
        unknown.intersection(&came).count() as f64,
        "messages",
    );
    figures.note("bulk_lost".to_owned(), lost as f64, "messages");
    figures.note(
        "bulk_failed_or_skipped".to_owned(),
        (ended.progress.failed + ended.progress.skipped) as f64,
        "messages",
    );
    figures.print();
    print_bars(args, &figures);
    if figures.highest("bulk_doubles") > 0.0 || lost > 0 || ended.status != "completed" {
        bail!(
            "{}; doubles and losses must be 0, the job completed",
            ended.status
        );
    }
    Ok(())
}

async fn create(stage: &Stage, tenant: Tenant, batch: Batch) -> Result<Uuid> {
    let recipients: Vec<_> = (batch.first..batch.first + batch.count)
        .map(|number| json!({ "to": rows::phone(number), "variables": { "number": number.to_string() } }))
        .collect();
    let body = json!({
        "name": "bench",
        "channel_id": tenant.channel_id,
        "message": format!("{PREFIX}{{{{number}}}}: your order is ready; reply with the time that suits you."),
        "category": "utility",
        "start": true,
        "recipients": recipients,
    });
    let mut caller = stage.connect().await?;
    let (status, answer) = caller
        .post("/v1/bulk-jobs", &headers_for(tenant), &body.to_string())
        .await?;
    if !(200..300).contains(&status) {
        bail!(
            "POST /v1/bulk-jobs: {status} {}",
            String::from_utf8_lossy(answer)
        );
    }
    Ok(serde_json::from_slice::<Job>(answer)?.id)
}

/// The numbers of those whose end nobody knows.
async fn unknown(pool: &PgPool, job: Uuid) -> Result<HashSet<u64>> {
    let texts: Vec<String> = sqlx::query_scalar(
        "SELECT body FROM messages WHERE bulk_job_id = $1 AND status = 'unknown'",
    )
    .bind(job)
    .fetch_all(pool)
    .await?;
    Ok(texts
        .iter()
        .filter_map(|text| provider::number_in(text))
        .collect())
}

fn print_bars(args: &Args, figures: &Figures) {
    let seconds = SECONDS_EACH * args.recipients as f64;
    let most = figures.highest("bulk_most_in_a_second");
    let sent_in = figures.median("bulk_sent_in");
    Figures::print_bar("bulk_sent_in", sent_in, "s", Bar::AtMost(seconds));
    Figures::print_bar("bulk_most_in_a_second", most, "messages", Bar::AtMost(RATE));
    let doubles = figures.highest("bulk_doubles");
    Figures::print_bar("bulk_doubles", doubles, "messages", Bar::AtMost(0.0));
    let least = args.recipients as f64 / RATE;
    print(&format!(
        "ratio bulk_sent_in_vs_rate_alone {:.3}",
        sent_in / least
    ));
}
