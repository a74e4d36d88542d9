//! Background jobs: a loop, a wake-up, back-off after errors, an orderly end. Knows no job.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long to wait after the first failure; doubles up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

pub type JobError = Box<dyn std::error::Error + Send + Sync>;

/// When to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do.
    Now,
    /// Nothing to do for this long, unless woken.
    After(Duration),
}

/// One kind of background work.
#[async_trait]
pub trait Job: Send + Sync + 'static {
    /// For logs and metrics: `send_message`.
    const NAME: &'static str;

    /// Does one round. It must be safe to stop between rounds at any time.
    async fn run(&self) -> Result<Next, JobError>;

    /// Called once after the last round: wait for what is under way.
    async fn finish(&self) {}
}

/// Starts a job. It runs until `shutdown`, finishes its round, and calls [`Job::finish`]. An error or a panic costs
/// that round only.
pub fn spawn<J: Job>(job: J, wake: Arc<Notify>, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut backoff = FIRST_BACKOFF;
        while !shutdown.is_cancelled() {
            let wait = match AssertUnwindSafe(job.run()).catch_unwind().await {
                Ok(Ok(Next::Now)) => {
                    backoff = FIRST_BACKOFF;
                    // A job that always has more to do must not keep the others from the thread.
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Ok(Next::After(wait))) => {
                    backoff = FIRST_BACKOFF;
                    wait
                }
                Ok(Err(error)) => {
                    tracing::warn!(job.name = J::NAME, %error, "a job failed and will be tried again");
                    next_backoff(&mut backoff)
                }
                Err(_) => {
                    tracing::error!(job.name = J::NAME, "a job panicked and will be tried again");
                    next_backoff(&mut backoff)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        job.finish().await;
    })
}

fn next_backoff(backoff: &mut Duration) -> Duration {
    let wait = *backoff;
    *backoff = (*backoff * 2).min(MAX_BACKOFF);
    wait
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Flaky {
        rounds: Arc<AtomicUsize>,
        finished: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Job for Flaky {
        const NAME: &'static str = "flaky";

        async fn run(&self) -> Result<Next, JobError> {
            match self.rounds.fetch_add(1, Ordering::SeqCst) {
                0 => Err("first".into()),
                1 => panic!("second"),
                2 => Ok(Next::Now),
                _ => Ok(Next::After(Duration::from_secs(3600))),
            }
        }

        async fn finish(&self) {
            self.finished.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_and_a_panic_cost_one_round_each_and_a_wake_up_runs_it_at_once() {
        let (rounds, finished) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (wake, shutdown) = (Arc::new(Notify::new()), CancellationToken::new());
        let job = Flaky {
            rounds: rounds.clone(),
            finished: finished.clone(),
        };
        let task = spawn(job, wake.clone(), shutdown.clone());
        while rounds.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        wake.notify_one();
        while rounds.load(Ordering::SeqCst) < 5 {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
        task.await.unwrap();
        assert_eq!(finished.load(Ordering::SeqCst), 1);
    }
}
