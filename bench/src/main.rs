//! Measurements of Wasel as ratios in one run. `bench/README.md` tells how to repeat them and what they mean.

mod baseline_tx;
mod bounded;
mod children;
mod cpu;
mod import;
mod ingest;
mod load;
mod queue;
mod raw_group;
mod realtime;
mod report;
mod sessions;
mod verify;
mod world;

use anyhow::Result;
use clap::Parser;

/// The same allocator as the server's, for the baseline server that is this program too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "wasel-bench",
    about = "Measures Wasel against baselines in the same run"
)]
enum Command {
    /// Webhooks in: the server against a transaction per message and against the database's own limit.
    Ingest(ingest::Args),
    /// Old tables in: `wasel import` against a plain COPY.
    Import(import::Args),
    /// Messages out: claims, sends against a row-at-a-time worker, and fairness.
    Queue(queue::Args),
    /// A bulk job at a number's rate, with the server killed on the way.
    Bulk(queue::bulk::Args),
    /// Linked phones: memory, CPU and the way back after a restart, beside Baileys.
    Sessions(sessions::Args),
    /// Linked phones through a day in minutes: lost sockets, storms, restarts.
    Soak(sessions::soak::Args),
    /// Changes out: deliveries to many sockets, beside a bare WebSocket broadcast.
    Realtime(realtime::Args),
    /// The bare broadcast; `realtime` starts it.
    #[command(hide = true)]
    BareBroadcast(realtime::bare::Args),
    /// The server of the baseline; `ingest` starts it.
    #[command(hide = true)]
    BaselineTx(baseline_tx::Args),
}

fn main() -> Result<()> {
    let command = Command::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            match command {
                Command::Ingest(args) => ingest::run(args).await,
                Command::Import(args) => import::run(args).await,
                Command::Queue(args) => queue::run(args).await,
                Command::Bulk(args) => queue::bulk::run(args).await,
                Command::Sessions(args) => sessions::run(args).await,
                Command::Soak(args) => sessions::soak::run(args).await,
                Command::Realtime(args) => realtime::run(args).await,
                Command::BareBroadcast(args) => realtime::bare::run(args).await,
                Command::BaselineTx(args) => baseline_tx::run(args).await,
            }
        })
}

/// Prints a line of the result.
#[expect(clippy::print_stdout, reason = "the figures go to standard output")]
fn print(line: &str) {
    println!("{line}");
}
