//! The command line. One file per command.

pub mod apply;
mod config;
mod demo;
mod import;
mod keys;
mod migrate;
mod serve;
mod simulate;
mod token;
mod user;
mod webhooks;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use wasel_config::{Config, LogFormat, process_environment};

use crate::app::{Database, Foundation};

#[derive(Parser)]
#[command(
    name = "wasel",
    version,
    about = "Customer messaging: WhatsApp, SMS and e-mail behind one API"
)]
struct Cli {
    /// A file with settings; `wasel config dump` prints one with all of them.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Args),
    /// Run the server with simulated providers and a seeded tenant, to try it out.
    Demo(demo::Args),
    /// Run the simulated providers alone.
    Simulate(simulate::Args),
    /// Bring the database schema up to date, or print it.
    Migrate(migrate::Args),
    /// Declare organisations, users and channels from a file; safe to repeat.
    Apply(apply::Args),
    /// Move the tables of an older messaging system into an organisation; safe to repeat, sends nothing.
    Import(import::Args),
    /// Print an access token for a user.
    Token(token::Args),
    /// Add people and change passwords.
    #[command(subcommand)]
    User(user::Command),
    /// The inbound ledger.
    #[command(subcommand)]
    Webhooks(webhooks::Command),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// The key that seals secrets in the database.
    #[command(subcommand)]
    Keys(keys::Command),
}

/// Runs the command and turns its error into one line and an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Both crypto users (HTTP client, database) take this one.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("another crypto provider was installed first");
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a command's failure is told to the person who typed it"
)]
fn print_error(error: &anyhow::Error) {
    eprintln!("wasel: {error:#}");
}

fn run(cli: Cli) -> Result<()> {
    let config = Config::load(cli.config.as_deref(), &process_environment)?;
    start_logging(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(config, args).await,
            Command::Demo(args) => demo::run(config, args).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Migrate(args) => migrate::run(config, args).await,
            Command::Apply(args) => apply::run(config, args).await,
            Command::Import(args) => import::run(config, args).await,
            Command::Token(args) => token::run(config, args).await,
            Command::User(command) => user::run(config, command).await,
            Command::Webhooks(command) => webhooks::run(config, command).await,
            Command::Config(command) => config::run(config, command),
            Command::Keys(command) => keys::run(config, command).await,
        }
    })
}

fn start_logging(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.logging.filter)
        .map_err(|error| anyhow::anyhow!("logging.filter (WASEL_LOGGING_FILTER): {error}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let filter = filter.and(filter_fn(may_be_logged));
    let registry = tracing_subscriber::registry();
    match config.logging.format {
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).init(),
        LogFormat::Text => registry.with(lines.with_filter(filter)).init(),
    }
    Ok(())
}

/// Whatever the filter says: the protocol of linked phones logs keys and numbers of people.
fn may_be_logged(metadata: &tracing::Metadata<'_>) -> bool {
    !crate::linked_phones::is_protocol_log(metadata.target())
}

/// Runs a command on the database, beside a running server or without one.
async fn with_foundation<T>(
    config: Config,
    work: impl AsyncFnOnce(&Foundation) -> Result<T>,
) -> Result<T> {
    let database = Database::open_shared(&config).await?;
    let port = config.server.port;
    let result = async {
        let foundation = Foundation::lay(config, &database.options, port).await?;
        let result = work(&foundation).await;
        foundation.db.close().await;
        result
    }
    .await;
    database.close().await?;
    result
}

/// Prints a line of a command's result. Whoever stops reading (`| head`) has seen enough.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
