//! Keeps Postgres running until the server stops it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep};

use super::ClusterError;
use super::places::DirectoryLock;
use super::postmaster::{Launcher, Postmaster};

/// The pause before the first restart, doubled for each one after it.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A run this long ends a row of failures.
const STEADY: Duration = Duration::from_secs(30);
const LOG_CHECK: Duration = Duration::from_secs(60);

/// How long a start and an orderly stop may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub start: Duration,
    pub stop: Duration,
}

/// Runs until told to stop (or until whoever could tell is gone), and reaps and restarts Postgres
/// whenever it ends. Holds the lock until Postgres has ended.
pub(super) async fn supervise(
    launcher: Launcher,
    mut postmaster: Postmaster,
    mut stop: oneshot::Receiver<()>,
    patience: Patience,
    _lock: DirectoryLock,
) -> Result<(), ClusterError> {
    let mut log_check = interval(LOG_CHECK);
    let mut pause = FIRST_PAUSE;
    let mut begun = Instant::now();
    loop {
        let how = tokio::select! {
            biased;
            _ = &mut stop => return postmaster.stop(patience.stop).await,
            how = postmaster.wait() => how,
            _ = log_check.tick() => {
                launcher.places().log.keep_small().await;
                continue;
            }
        };
        if begun.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        tracing::error!(%how, "Postgres ended by itself; starting it again");
        let restarted = tokio::select! {
            biased;
            _ = &mut stop => None,
            restarted = restart(&launcher, &mut pause, patience.start) => Some(restarted),
        };
        postmaster = match restarted {
            Some(restarted) => restarted,
            None => {
                // Breaking off a restart leaves a Postgres that was asked to end.
                return match launcher.running() {
                    Some(leftover) => leftover.stop(patience.stop).await,
                    None => Ok(()),
                };
            }
        };
        begun = Instant::now();
        tracing::info!("Postgres accepts connections again");
    }
}

/// Tries until Postgres is up.
async fn restart(launcher: &Launcher, pause: &mut Duration, patience: Duration) -> Postmaster {
    loop {
        sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        match launcher.bring_up(Instant::now() + patience).await {
            Ok(postmaster) => return postmaster,
            Err(error) => tracing::error!(%error, "Postgres does not start; trying again"),
        }
    }
}
