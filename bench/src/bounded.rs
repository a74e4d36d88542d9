//! What all measurements have in common: a program and a place to measure it in, and an end that comes in any case.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// The server's program (built with these features where none is given) and a directory that goes with its value.
pub async fn ground(
    program: Option<&PathBuf>,
    parent: Option<&PathBuf>,
    features: &[&str],
) -> Result<(PathBuf, TempDir)> {
    let program = match program {
        Some(program) => program.clone(),
        None => build(features).await?,
    };
    let directory = match parent {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    Ok((program, directory))
}

/// Runs a measurement until it ends, its time is up or somebody stops it.
pub async fn bounded(limit: Duration, measurement: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::time::timeout(limit, measurement) => {
            result.unwrap_or_else(|_| bail!("stopped after {limit:?}"))
        }
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("interrupted")),
    }
}

/// Builds the server as it ships, with these features besides, and returns its program.
async fn build(features: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Beside this program, or in the same target directory when this is a debug build.
    let here = std::env::current_exe()?;
    let target = here
        .parent()
        .and_then(Path::parent)
        .context("no target directory")?;
    // Not where somebody would take it for what ships.
    let target = if features.is_empty() {
        target.to_owned()
    } else {
        target.join(features.join("+"))
    };
    let status = Command::new(cargo)
        .args(["build", "--release", "-p", "wasel-server", "--features"])
        .arg(features.join(","))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .await?;
    if !status.success() {
        bail!("the server does not build");
    }
    Ok(target.join("release/wasel"))
}
