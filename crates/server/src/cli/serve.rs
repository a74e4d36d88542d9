//! `wasel serve`.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use wasel_config::Config;

use crate::app;

#[derive(clap::Args)]
pub struct Args {}

pub async fn run(config: Config, _: Args) -> Result<()> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let running = app::start(config, None).await?;
    for line in &running.news {
        tracing::info!("{line}");
    }
    tracing::info!(server.address = %running.address, server.public_url = %running.state.public_url, "ready");
    wait_for_signal().await?;
    tracing::info!("stopping");
    running.stop().await
}

/// Ctrl-C, or what a supervisor sends.
pub(super) async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
