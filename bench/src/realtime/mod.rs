//! `realtime`: changes out. Every subscriber has a filter of its own; rows are written by plain SQL and by webhooks. Beside
//! it, in the same run, a server that only hands bytes to everybody: the bare limit.

mod audience;
pub mod bare;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::process::Command;
use uuid::Uuid;

use crate::bounded::{bounded, ground};
use crate::children::{Cluster, Server, free_port, output_of, wasel};
use crate::cpu::{self, Used};
use crate::load::{Http, Sender};
use crate::print;
use crate::report::{Bar, Figures, machine};
use crate::world::{Message, World};
use audience::{Audience, Clock, Listener};
use bare::Publisher;

/// A run that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(9 * 60 + 30);
/// For what was sent to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// After joins and after a case, before anything is counted.
const SETTLE: Duration = Duration::from_secs(1);
/// Events one after the other, for the time one event takes to reach everybody.
const SINGLE_EVENTS: u32 = 10;
const BETWEEN_SINGLE_EVENTS: Duration = Duration::from_millis(500);
/// The steady load: events a second, lower where the audience is so large that they would be more deliveries than this.
const STEADY_RATE: u32 = 50;
const STEADY_DELIVERIES: u32 = 50_000;
/// Rows of the one large statement, and who listens to it.
const LARGE_STATEMENT: u32 = 100_000;
const LARGE_STATEMENT_SOCKETS: u32 = 10;
/// Of the made-up tenants; each has its own number.
const CUSTOMERS: u32 = 20;

const KEY: &str = "a key that signs tokens of this measurement only";

#[derive(clap::Args)]
pub struct Args {
    /// Sizes of the audience.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    sockets: Vec<u32>,
    /// Organisations the audience is spread over.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 200])]
    tenants: Vec<u32>,
    /// Length of the steady load.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Deliveries of the flood.
    #[arg(long, default_value_t = 1_000_000)]
    flood: u32,
    /// The server's program; without it a release build is made.
    #[arg(long)]
    wasel: Option<PathBuf>,
    /// Where the data directory is made (and removed again); must be on a real disk. Default: the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<()> {
    let uneven = |tenants: &u32| args.sockets.iter().any(|sockets| sockets % tenants != 0);
    if args.tenants.contains(&0) || args.tenants.iter().any(uneven) {
        bail!("every number of sockets must be a multiple of every number of tenants");
    }
    let (program, directory) = ground(args.wasel.as_ref(), args.dir.as_ref(), &[]).await?;
    let mut children = Vec::new();
    let mut cluster = None;
    let measurement = measure(
        &args,
        &program,
        directory.path(),
        &mut children,
        &mut cluster,
    );
    let mut result = bounded(LIMIT, measurement).await;
    for child in children.iter_mut().rev() {
        result = result.and(Server::stop(child).await);
    }
    if let Some(cluster) = cluster {
        result = result.and(cluster.stop_if_running().await);
    }
    result
}

async fn measure(
    args: &Args,
    program: &Path,
    directory: &Path,
    children: &mut Vec<Server>,
    cluster: &mut Option<Cluster>,
) -> Result<()> {
    print(&format!("machine {}", machine()));
    let clock = Clock::start();
    let mut figures = Figures::default();
    let tenants = args.tenants.iter().copied().max().unwrap_or(1);
    let stage = Stage::set(program, directory, tenants, children, cluster).await?;
    // What every server holds once it has worked is not a socket's.
    stage.warm_up(clock).await?;
    // The largest first, and only then memory: later audiences find what the first one left in the allocator.
    let mut sizes = args.sockets.clone();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut measures_memory = true;
    for sockets in sizes {
        for &tenants in &args.tenants {
            let case = format!("wasel_{sockets}_in_{tenants}");
            stage
                .measure(
                    args,
                    clock,
                    sockets,
                    tenants,
                    &case,
                    measures_memory,
                    &mut figures,
                )
                .await?;
            measures_memory = false;
        }
        let case = format!("bare_{sockets}");
        let frame = figures.median(&format!("wasel_{sockets}_in_1_frame"));
        measure_bare(
            args,
            clock,
            sockets,
            frame,
            directory,
            &case,
            &mut figures,
            children,
        )
        .await?;
    }
    stage.measure_large_statement(clock, &mut figures).await?;
    figures.print();
    print_bars(args, &figures);
    Ok(())
}

/// The server under test, with tenants and their owners.
struct Stage {
    world: Arc<World>,
    owners: Vec<Owner>,
    server: SocketAddr,
    pid: u32,
    postmaster: u32,
    pool: PgPool,
}

struct Owner {
    org_id: Uuid,
    token: String,
}

impl Stage {
    async fn set(
        program: &Path,
        directory: &Path,
        tenants: u32,
        children: &mut Vec<Server>,
        running: &mut Option<Cluster>,
    ) -> Result<Self> {
        let data_dir = directory.join("wasel");
        let port = free_port()?;
        let mut command = wasel(program, &data_dir);
        command
            .arg("serve")
            .env("PORT", port.to_string())
            .env("JWT_SECRET", KEY);
        let server = Server::start(command, port, "", &directory.join("wasel.log")).await?;
        let (address, pid) = (server.address, server.pid);
        children.push(server);
        let cluster = Cluster::of(&data_dir)?;
        let postmaster = cluster.postmaster;
        let options = cluster.options.clone();
        *running = Some(cluster);

        let world = Arc::new(World::new(tenants, CUSTOMERS));
        let mut apply = wasel(program, &data_dir);
        apply.args(["apply", "-", "--json"]).env("JWT_SECRET", KEY);
        output_of(apply, &world.declaration()).await?;
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_with(options)
            .await?;
        let mut owners = Vec::new();
        for tenant in &world.tenants {
            owners.push(Owner::introduce(&pool, &tenant.slug).await?);
        }
        Ok(Self {
            world,
            owners,
            server: address,
            pid,
            postmaster,
            pool,
        })
    }

    /// Listener `nth` of those spread over so many tenants; each has filters of its own, which all changes pass.
    fn listener(&self, nth: u32, tenants: u32) -> Listener {
        let owner = &self.owners[(nth % tenants) as usize];
        let binding = |table: &str, column: &str| {
            json!({
                "event": "INSERT", "schema": "public", "table": table,
                "filter": format!("{column}=neq.nobody-{nth}"),
            })
        };
        Listener {
            path: format!("/realtime/v1/websocket?apikey={}&vsn=2.0.0", owner.token),
            join: Some(json!({
                "access_token": owner.token,
                "config": {
                    "broadcast": {"ack": false, "self": false},
                    "presence": {"key": "", "enabled": false},
                    "postgres_changes": [binding("settings", "key"), binding("messages", "address")],
                    "private": false,
                },
            })),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of them describe the one case"
    )]
    async fn measure(
        &self,
        args: &Args,
        clock: Clock,
        sockets: u32,
        tenants: u32,
        case: &str,
        measures_memory: bool,
        figures: &mut Figures,
    ) -> Result<()> {
        let before = cpu::memory(self.pid)?.pss;
        let listeners = (0..sockets)
            .map(|nth| self.listener(nth, tenants))
            .collect();
        let audience = Audience::gather(self.server, clock, listeners).await?;
        tokio::time::sleep(SETTLE).await;
        if measures_memory {
            let grown = cpu::memory(self.pid)?.pss.saturating_sub(before) as f64;
            let each = grown / f64::from(sockets);
            figures.note("wasel_idle_socket".to_owned(), each / 1024.0, "KB");
        }

        let in_each = sockets / tenants;
        for nth in 0..SINGLE_EVENTS {
            self.receive(clock, nth % tenants..nth % tenants + 1, 1, 1)
                .await?;
            let expected = u64::from((nth + 1) * in_each);
            audience.heard.wait_for(expected, PATIENCE).await?;
            tokio::time::sleep(BETWEEN_SINGLE_EVENTS).await;
        }
        figures.note(
            format!("{case}_frame"),
            audience.heard.frame_bytes() as f64,
            "bytes",
        );
        note_latency(figures, &format!("{case}_one_event"), &audience);

        let rate = STEADY_RATE.min((STEADY_DELIVERIES / in_each).max(1));
        figures.note(format!("{case}_steady_rate"), f64::from(rate), "events/s");
        let events = rate * args.seconds;
        let begun = Measured::begin(self.pid, self.postmaster)?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        for nth in 0..events {
            ticks.tick().await;
            self.insert(clock, nth % tenants, 1, 1).await?;
        }
        let expected = u64::from(events * in_each);
        audience.heard.wait_for(expected, PATIENCE).await?;
        begun.note(figures, &format!("{case}_commit"), expected)?;
        note_latency(figures, &format!("{case}_commit"), &audience);

        let begun = Measured::begin(self.pid, self.postmaster)?;
        self.receive(clock, 0..tenants, rate, events).await?;
        audience.heard.wait_for(expected, PATIENCE).await?;
        begun.note(figures, &format!("{case}_webhook"), expected)?;
        note_latency(figures, &format!("{case}_webhook"), &audience);

        let rows = (args.flood / sockets).max(1);
        let expected = u64::from(rows * sockets);
        let begun = Measured::begin(self.pid, self.postmaster)?;
        self.insert(clock, 0, tenants, rows).await?;
        audience.heard.wait_for(expected, PATIENCE).await?;
        begun.note(figures, &format!("{case}_flood"), expected)?;
        audience.dismiss().await;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// A small audience that hears each kind of change once.
    async fn warm_up(&self, clock: Clock) -> Result<()> {
        let listeners = (0..LARGE_STATEMENT_SOCKETS)
            .map(|nth| self.listener(nth, 1))
            .collect();
        let audience = Audience::gather(self.server, clock, listeners).await?;
        self.insert(clock, 0, 1, 1).await?;
        self.receive(clock, 0..1, 1, 1).await?;
        let expected = u64::from(2 * LARGE_STATEMENT_SOCKETS);
        audience.heard.wait_for(expected, PATIENCE).await?;
        audience.dismiss().await;
        Ok(())
    }

    /// One statement that writes `rows` rows for each of `tenants` organisations from the `first` on.
    async fn insert(&self, clock: Clock, first: u32, tenants: u32, rows: u32) -> Result<()> {
        let orgs: Vec<Uuid> = self
            .owners
            .iter()
            .skip(first as usize)
            .take(tenants as usize)
            .map(|owner| owner.org_id)
            .collect();
        sqlx::query(
            "INSERT INTO settings (org_id, key, value)
             SELECT org, gen_random_uuid()::text, to_jsonb($2::text) FROM unnest($1::uuid[]) org, generate_series(1, $3)",
        )
        .bind(orgs)
        .bind(clock.stamp())
        .bind(rows as i32)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Webhooks at a steady rate. The time is the message's number, which its id carries.
    async fn receive(
        &self,
        clock: Clock,
        tenants: Range<u32>,
        rate: u32,
        events: u32,
    ) -> Result<()> {
        let mut senders = Http::connect_all(&self.world, self.server, 1).await?;
        let sender = senders.first_mut().context("no connection")?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        for nth in 0..events {
            ticks.tick().await;
            let message = Message {
                tenant: tenants.start + nth % (tenants.end - tenants.start),
                customer: nth % self.world.customers,
                number: clock.now(),
            };
            if !sender.send(message).await? {
                bail!("a webhook was refused");
            }
        }
        Ok(())
    }

    /// A statement that changes 100,000 rows arrives whole.
    async fn measure_large_statement(&self, clock: Clock, figures: &mut Figures) -> Result<()> {
        let listeners = (0..LARGE_STATEMENT_SOCKETS)
            .map(|nth| self.listener(nth, 1))
            .collect();
        let audience = Audience::gather(self.server, clock, listeners).await?;
        let expected = u64::from(LARGE_STATEMENT * LARGE_STATEMENT_SOCKETS);
        let begun = Measured::begin(self.pid, self.postmaster)?;
        self.insert(clock, 0, 1, LARGE_STATEMENT).await?;
        let arrived = audience.heard.wait_for(expected, PATIENCE).await;
        let heard = audience.heard.deliveries();
        figures.note(
            "large_statement_arrived".to_owned(),
            100.0 * heard as f64 / expected as f64,
            "%",
        );
        if let Err(error) = arrived {
            print(&format!("large statement: {error}"));
        }
        begun.note(figures, "large_statement", heard)?;
        let peak = cpu::memory(self.pid)?.peak_rss;
        figures.note("wasel_peak_rss".to_owned(), peak as f64 / 1_048_576.0, "MB");
        audience.dismiss().await;
        Ok(())
    }
}

impl Owner {
    /// Makes the owner of an organisation and signs a token, as an identity provider would.
    async fn introduce(pool: &PgPool, slug: &str) -> Result<Self> {
        let user = Uuid::now_v7();
        let org_id: Uuid = sqlx::query_scalar(
            "INSERT INTO profiles (org_id, id, role) SELECT id, $2, 'owner' FROM organizations WHERE slug = $1
             RETURNING org_id",
        )
        .bind(slug)
        .bind(user)
        .fetch_one(pool)
        .await?;
        let claims = json!({
            "sub": user,
            "aud": "authenticated",
            "role": "authenticated",
            "exp": chrono::Utc::now().timestamp() + 3600,
            "app_metadata": { "org_id": org_id },
        });
        let token = encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(KEY.as_bytes()),
        )?;
        Ok(Self { org_id, token })
    }
}

/// The same floods and single events through the bare server.
#[expect(
    clippy::too_many_arguments,
    reason = "all of them describe the one case"
)]
async fn measure_bare(
    args: &Args,
    clock: Clock,
    sockets: u32,
    frame_bytes: f64,
    directory: &Path,
    case: &str,
    figures: &mut Figures,
    children: &mut Vec<Server>,
) -> Result<()> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-broadcast", "--port", &port.to_string()]);
    let server = Server::start(command, port, "", &directory.join("bare.log")).await?;
    let (address, pid) = (server.address, server.pid);
    children.push(server);
    let before = cpu::memory(pid)?.pss;
    let listeners = (0..sockets)
        .map(|_| Listener {
            path: "/socket".to_owned(),
            join: None,
        })
        .collect();
    let audience = Audience::gather(address, clock, listeners).await?;
    tokio::time::sleep(SETTLE).await;
    let each = cpu::memory(pid)?.pss.saturating_sub(before) as f64 / f64::from(sockets);
    figures.note(format!("{case}_idle_socket"), each / 1024.0, "KB");
    let mut publisher = Publisher::connect(address, frame_bytes as usize).await?;
    for nth in 0..SINGLE_EVENTS {
        publisher.publish(clock, 1).await?;
        let expected = u64::from((nth + 1) * sockets);
        audience.heard.wait_for(expected, PATIENCE).await?;
        tokio::time::sleep(BETWEEN_SINGLE_EVENTS).await;
    }
    note_latency(figures, &format!("{case}_one_event"), &audience);
    let rows = (args.flood / sockets).max(1);
    let expected = u64::from(rows * sockets);
    // There is no database behind it.
    let begun = Measured::begin(pid, pid)?;
    publisher.publish(clock, rows).await?;
    audience.heard.wait_for(expected, PATIENCE).await?;
    begun.note(figures, &format!("{case}_flood"), expected)?;
    audience.dismiss().await;
    if let Some(mut server) = children.pop() {
        server.stop().await?;
    }
    Ok(())
}

/// Time and CPU of one case.
struct Measured {
    server: u32,
    postmaster: u32,
    used: Used,
    begun: Instant,
}

impl Measured {
    fn begin(server: u32, postmaster: u32) -> Result<Self> {
        Ok(Self {
            server,
            postmaster,
            used: Used::now(Some(server), postmaster)?,
            begun: Instant::now(),
        })
    }

    fn note(self, figures: &mut Figures, case: &str, deliveries: u64) -> Result<()> {
        let elapsed = self.begun.elapsed();
        let used = Used::now(Some(self.server), self.postmaster)?.since(self.used);
        let each = deliveries.max(1) as f64;
        figures.note(
            format!("{case}_deliveries"),
            deliveries as f64 / elapsed.as_secs_f64(),
            "/s",
        );
        figures.note(
            format!("{case}_server_cpu"),
            used.server as f64 / each,
            "us/delivery",
        );
        if self.postmaster != self.server {
            figures.note(
                format!("{case}_postgres_cpu"),
                used.postgres as f64 / each,
                "us/delivery",
            );
        }
        Ok(())
    }
}

/// Notes and forgets how long deliveries took.
fn note_latency(figures: &mut Figures, case: &str, audience: &Audience) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        figures.note(
            format!("{case}_{name}"),
            audience.heard.percentile(share),
            "ms",
        );
    }
    audience.heard.clear();
}

fn print_bars(args: &Args, figures: &Figures) {
    let name = "wasel_idle_socket";
    Figures::print_bar(name, figures.median(name), "KB", Bar::AtMost(8.0));
    for &sockets in &args.sockets {
        if sockets == 1_000 && args.tenants.contains(&1) {
            let name = "wasel_1000_in_1_webhook_p99";
            Figures::print_bar(name, figures.median(name), "ms", Bar::AtMost(25.0));
        }
        if sockets == 10_000 && args.tenants.contains(&1) {
            let name = "wasel_10000_in_1_one_event_p99";
            Figures::print_bar(name, figures.median(name), "ms", Bar::AtMost(100.0));
        }
    }
    let name = "large_statement_arrived";
    Figures::print_bar(name, figures.median(name), "%", Bar::AtLeast(100.0));
    for &sockets in &args.sockets {
        for &tenants in &args.tenants {
            let ours = figures.median(&format!("wasel_{sockets}_in_{tenants}_flood_deliveries"));
            let bare = figures.median(&format!("bare_{sockets}_flood_deliveries"));
            Figures::print_bar(
                &format!("ratio wasel_{sockets}_in_{tenants}_vs_bare"),
                ours / bare,
                "of the bare limit",
                Bar::AtLeast(0.7),
            );
        }
    }
}
