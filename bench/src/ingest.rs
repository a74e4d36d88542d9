//! `ingest`: webhooks in. The real server against a transaction per message and against the database's own limit,
//! in alternating rounds on one Postgres cluster, which the server itself started.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::process::Command;
use uuid::Uuid;

use crate::baseline_tx::Handed;
use crate::bounded::{bounded, ground};
use crate::children::{Cluster, Server, free_port, output_of, wasel};
use crate::cpu::{self, Used};
use crate::load::{self, Http, Sender, Sent};
use crate::print;
use crate::raw_group::RawGroup;
use crate::report::{Bar, Figures, machine};
use crate::verify::Acknowledged;
use crate::world::World;

/// A run that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(9 * 60);
/// After each case: the server's followers of the change log finish what the case caused, and it is charged for that.
const SETTLE: Duration = Duration::from_millis(250);
/// A transaction per message cannot hold a higher rate in the open loop; its queue would only grow.
const HIGHEST_TX_RATE: u32 = 1_000;

#[derive(clap::Args)]
pub struct Args {
    /// Length of one case.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[arg(long, default_value_t = 50)]
    tenants: u32,
    /// Per tenant.
    #[arg(long, default_value_t = 200)]
    customers: u32,
    /// The server's program; without it a release build is made.
    #[arg(long)]
    wasel: Option<PathBuf>,
    /// Where the data directory is made (and removed again); must be on a real disk. Default: the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Connections of the closed loop.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    connections: Vec<usize>,
    /// Messages a second in the open loop.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 8_000])]
    rates: Vec<u32>,
    /// Measure the server alone.
    #[arg(long)]
    server_only: bool,
    /// SQL to run in the databases before the load, to try a change of the schema.
    #[arg(long)]
    sql: Option<PathBuf>,
    /// When done, wait this many seconds with everything still running, to look around in the database.
    #[arg(long, default_value_t = 0)]
    hold: u64,
}

pub async fn run(args: Args) -> Result<()> {
    if args.tenants == 0
        || args.customers == 0
        || args.rounds == 0
        || args.tenants > 700
        || args.customers > 9999
    {
        bail!("1 to 700 tenants, 1 to 9999 customers each, at least one round");
    }
    let (program, directory) = ground(args.wasel.as_ref(), args.dir.as_ref(), &[]).await?;
    let mut stage = Stage {
        servers: Vec::new(),
        cluster: None,
    };
    let result = bounded(
        LIMIT,
        measure(&args, &program, directory.path(), &mut stage),
    )
    .await;
    stage.clear().await.and(result)
}

/// What runs, and must not run any more at the end.
struct Stage {
    servers: Vec<Server>,
    cluster: Option<Cluster>,
}

impl Stage {
    async fn clear(mut self) -> Result<()> {
        let mut result = Ok(());
        // The one that owns the cluster was started first.
        for server in self.servers.iter_mut().rev() {
            result = result.and(server.stop().await);
        }
        if let Some(cluster) = &self.cluster {
            result = result.and(cluster.stop_if_running().await);
        }
        result
    }
}

/// What `wasel apply --json` prints, as far as it matters here.
#[derive(Deserialize)]
struct Applied {
    organizations: Vec<AppliedOrganization>,
}

#[derive(Deserialize)]
struct AppliedOrganization {
    id: Uuid,
    slug: String,
    channels: Vec<AppliedChannel>,
}

#[derive(Deserialize)]
struct AppliedChannel {
    id: Uuid,
}

/// A server under load, with what it has acknowledged.
struct Subject {
    name: &'static str,
    server: usize,
    pool: PgPool,
    acknowledged: Acknowledged,
}

async fn measure(args: &Args, program: &Path, directory: &Path, stage: &mut Stage) -> Result<()> {
    print(&format!("machine {}", machine()));
    let world = Arc::new(World::new(args.tenants, args.customers));
    let mut figures = Figures::default();

    let data_dir = directory.join("wasel");
    let port = free_port()?;
    let mut command = wasel(program, &data_dir);
    command.arg("serve").env("PORT", port.to_string());
    let server = Server::start(command, port, "", &directory.join("wasel.log")).await?;
    figures.note(
        "server_first_start".to_owned(),
        server.started_in.as_secs_f64() * 1000.0,
        "ms",
    );
    stage.servers.push(server);
    let cluster = Cluster::of(&data_dir)?;
    let options = cluster.options.clone();
    let tx_url = cluster.url("bench_tx")?;
    let postmaster = cluster.postmaster;
    stage.cluster = Some(cluster);

    let declaration = world.declaration();
    let apply = |mut command: Command| {
        command.args(["apply", "-", "--json"]);
        output_of(command, &declaration)
    };
    apply_text(apply(wasel(program, &data_dir)).await?)?;
    let mut subjects = vec![Subject::new("server", 0, options.clone()).await?];
    let mut raw = None;
    if !args.server_only {
        let admin = connect(options.clone().database("postgres")).await?;
        for database in ["CREATE DATABASE bench_tx", "CREATE DATABASE bench_raw"] {
            sqlx::query(database).execute(&admin).await?;
        }
        admin.close().await;
        let mut command = wasel(program, &directory.join("tx"));
        command.env("DATABASE_URL", &tx_url);
        let applied = apply_text(apply(command).await?)?;
        stage
            .servers
            .push(start_baseline(&world, &applied, &tx_url, directory).await?);
        subjects.push(Subject::new("tx", 1, options.clone().database("bench_tx")).await?);
        raw = Some(RawGroup::start(&world, options.clone().database("bench_raw")).await?);
    }
    let version: String = sqlx::query_scalar(
        "SELECT format('PostgreSQL %s, synchronous_commit %s, fsync %s, full_page_writes %s, shared_buffers %s',
             current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync'),
             current_setting('full_page_writes'), current_setting('shared_buffers'))",
    )
    .fetch_one(&subjects[0].pool)
    .await?;
    print(&format!("database {version}"));

    for subject in &mut subjects {
        if let Some(path) = &args.sql {
            let sql = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&subject.pool)
                .await?;
        }
        subject.introduce(&world, &stage.servers).await?;
    }
    let length = Duration::from_secs(args.seconds);
    let mut case = 0;
    for _ in 0..args.rounds {
        for &connections in &args.connections {
            for subject in &mut subjects {
                case += 1;
                let server = &stage.servers[subject.server];
                let senders = Http::connect_all(&world, server.address, connections).await?;
                let work = load::closed(&world, senders, case, length);
                let name = format!("{}_c{connections}", subject.name);
                let sent = timed(&mut figures, &name, Some(server.pid), postmaster, work).await?;
                subject.acknowledged.add(&sent);
                subject.note_memory(&mut figures, server.pid)?;
            }
            if let Some(raw) = &raw {
                case += 1;
                let work = load::closed(&world, raw.senders(&world, connections), case, length);
                timed(
                    &mut figures,
                    &format!("raw_c{connections}"),
                    None,
                    postmaster,
                    work,
                )
                .await?;
            }
        }
        for &rate in &args.rates {
            let connections = if rate <= 1_000 { 64 } else { 256 };
            for subject in subjects
                .iter_mut()
                .filter(|subject| subject.name == "server" || rate <= HIGHEST_TX_RATE)
            {
                case += 1;
                let server = &stage.servers[subject.server];
                let senders = Http::connect_all(&world, server.address, connections).await?;
                let work = load::open(&world, senders, case, rate, length);
                let name = format!("{}_open{rate}", subject.name);
                let sent = timed(&mut figures, &name, Some(server.pid), postmaster, work).await?;
                subject.acknowledged.add(&sent);
                subject.note_memory(&mut figures, server.pid)?;
            }
        }
    }
    let mut wrong = Vec::new();
    for subject in &subjects {
        let difference = subject.acknowledged.compare(&subject.pool).await?;
        figures.note(
            format!("{}_messages", subject.name),
            difference.messages as f64,
            "stored",
        );
        if !difference.is_none() {
            wrong.push(format!("{}: {difference:?}", subject.name));
        }
    }
    figures.note("wrong".to_owned(), wrong.len() as f64, "databases");
    figures.print();
    print_bars(&figures, args, raw.is_some());
    tokio::time::sleep(Duration::from_secs(args.hold)).await;
    if !wrong.is_empty() {
        bail!(
            "what is stored is not what was acknowledged: {}",
            wrong.join("; ")
        );
    }
    Ok(())
}

fn apply_text(text: String) -> Result<Applied> {
    Ok(serde_json::from_str(&text)?)
}

async fn connect(options: PgConnectOptions) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?)
}

async fn start_baseline(
    world: &World,
    applied: &Applied,
    url: &str,
    directory: &Path,
) -> Result<Server> {
    let mut handed = Vec::new();
    for tenant in &world.tenants {
        let organization = applied
            .organizations
            .iter()
            .find(|organization| organization.slug == tenant.slug);
        let organization = organization.context("a tenant was not applied")?;
        let channel = organization
            .channels
            .first()
            .context("a channel was not applied")?;
        handed.push(Handed {
            org_id: organization.id,
            channel_id: channel.id,
            settings: tenant.settings(),
            secrets: tenant.secrets(),
        });
    }
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "baseline-tx",
        "--port",
        &port.to_string(),
        "--database-url",
        url,
    ]);
    Server::start(
        command,
        port,
        &serde_json::to_string(&handed)?,
        &directory.join("tx.log"),
    )
    .await
}

/// Runs one case and notes its figures.
async fn timed(
    figures: &mut Figures,
    name: &str,
    server: Option<u32>,
    postmaster: u32,
    work: impl Future<Output = Result<Sent>>,
) -> Result<Sent> {
    let (before, begun) = (Used::now(server, postmaster)?, Instant::now());
    let sent = work.await.with_context(|| name.to_owned())?;
    tokio::time::sleep(SETTLE).await;
    let used = Used::now(server, postmaster)?.since(before);
    figures.note_case(name, &sent, used, begun.elapsed());
    Ok(sent)
}

impl Subject {
    async fn new(name: &'static str, server: usize, options: PgConnectOptions) -> Result<Self> {
        Ok(Self {
            name,
            server,
            pool: connect(options).await?,
            acknowledged: Acknowledged::default(),
        })
    }

    /// Every customer writes once, untimed, so that contacts and conversations exist; then the planner may look.
    async fn introduce(&mut self, world: &Arc<World>, servers: &[Server]) -> Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        let connections = 32;
        let senders = Http::connect_all(world, servers[self.server].address, connections).await?;
        for (first, mut sender) in (0..).zip(senders) {
            let world = world.clone();
            tasks.spawn(async move {
                let mut sent = Sent::default();
                for nth in (first..world.population()).step_by(connections) {
                    let message = world.first_message(nth);
                    if sender.send(message).await? {
                        sent.acknowledged.push(message.number);
                    } else {
                        sent.refused += 1;
                    }
                }
                anyhow::Ok(sent)
            });
        }
        while let Some(sent) = tasks.join_next().await {
            self.acknowledged.add(&sent??);
        }
        sqlx::raw_sql("ANALYZE").execute(&self.pool).await?;
        Ok(())
    }

    fn note_memory(&self, figures: &mut Figures, pid: u32) -> Result<()> {
        let memory = cpu::memory(pid)?;
        for (name, bytes) in [
            ("rss", memory.rss),
            ("pss", memory.pss),
            ("peak_rss", memory.peak_rss),
        ] {
            figures.note(
                format!("{}_{name}", self.name),
                bytes as f64 / 1_048_576.0,
                "MB",
            );
        }
        Ok(())
    }
}

/// The bars of the issue, and the ratios last.
fn print_bars(figures: &Figures, args: &Args, compared: bool) {
    let both_cpu = |case: &str| {
        figures.median(&format!("{case}_server_cpu"))
            + figures.median(&format!("{case}_postgres_cpu"))
    };
    let rate = |case: &str| figures.median(&format!("{case}_rate"));
    for (rate, limit) in [(1_000, 5.0), (8_000, 10.0)]
        .into_iter()
        .filter(|(rate, _)| args.rates.contains(rate))
    {
        let name = format!("server_open{rate}_p99");
        Figures::print_bar(&name, figures.median(&name), "ms", Bar::AtMost(limit));
    }
    for connections in args
        .connections
        .iter()
        .filter(|connections| **connections >= 64)
    {
        let case = format!("server_c{connections}");
        Figures::print_bar(
            &format!("{case}_both_cpu"),
            both_cpu(&case),
            "us/message",
            Bar::AtMost(80.0),
        );
    }
    Figures::print_bar(
        "server_peak_rss",
        figures.highest("server_peak_rss"),
        "MB",
        Bar::AtMost(30.0),
    );
    if !compared {
        return;
    }
    for &connections in &args.connections {
        let (server, tx, raw) = (
            format!("server_c{connections}"),
            format!("tx_c{connections}"),
            format!("raw_c{connections}"),
        );
        let ratios = [
            ("grouped_vs_tx", rate(&server) / rate(&tx), 3.0),
            ("grouped_vs_raw", rate(&server) / rate(&raw), 0.6),
        ];
        for (name, value, bar) in ratios.into_iter().filter(|_| connections >= 64) {
            Figures::print_bar(
                &format!("{name}_c{connections}"),
                value,
                "x",
                Bar::AtLeast(bar),
            );
        }
    }
    for &connections in &args.connections {
        let (server, tx, raw) = (
            format!("server_c{connections}"),
            format!("tx_c{connections}"),
            format!("raw_c{connections}"),
        );
        print(&format!(
            "ratio grouped_vs_tx_c{connections} {:.2} x",
            rate(&server) / rate(&tx)
        ));
        print(&format!(
            "ratio grouped_vs_raw_c{connections} {:.2} x",
            rate(&server) / rate(&raw)
        ));
        print(&format!(
            "ratio cpu_tx_vs_grouped_c{connections} {:.2} x",
            both_cpu(&tx) / both_cpu(&server)
        ));
    }
}
