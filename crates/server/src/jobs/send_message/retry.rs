//! When to try again: a failed send, and a step that the database did not take.

use std::time::Duration;

use rand::Rng;
use wasel_db::outbox::{Claimed, Next};
use wasel_providers::{ErrorClass, SendError};

use crate::state::AppState;

/// Meta's pace for one recipient after a refusal: 4ⁿ seconds (contract of error 131056).
const PAIR_BASE: f64 = 4.0;
/// An hourly limit of the account.
const ACCOUNT_WAIT: Duration = Duration::from_secs(300);
const MAX_WAIT: Duration = Duration::from_secs(3600);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// While the database is away.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Retry, wait for a callback, or give up.
pub fn next_step(state: &AppState, claimed: &Claimed, error: &SendError) -> Next {
    let settings = &state.config.outbox;
    if error.class == ErrorClass::Ambiguous {
        return Next::Reconcile(settings.reconcile_wait);
    }
    // A blocked channel keeps its queue: the row waits until somebody unblocks it.
    let exhausted = claimed.attempts >= settings.max_attempts.get() as i32
        && error.class != ErrorClass::ChannelBlocked;
    if !error.class.is_retryable() || exhausted {
        return Next::Fail;
    }
    let tries = f64::from(claimed.attempts - 1);
    let wait = match error.class {
        ErrorClass::ThrottledPair => {
            Duration::from_secs_f64(PAIR_BASE.powf(tries).min(MAX_WAIT.as_secs_f64()))
        }
        ErrorClass::ThrottledAccount => ACCOUNT_WAIT,
        _ => settings.retry_base.mul_f64(2f64.powf(tries.min(20.0))),
    };
    let jitter = rand::rng().random_range(1.0..1.25);
    Next::Retry(
        error
            .retry_after
            .unwrap_or(Duration::ZERO)
            .max(wait.mul_f64(jitter))
            .min(MAX_WAIT),
    )
}

/// Repeats a step until the database takes it; `None` if it did not before the server had to stop.
pub async fn repeat<T, F>(
    state: &AppState,
    step: &'static str,
    mut run: impl FnMut() -> F,
) -> Option<T>
where
    F: Future<Output = wasel_db::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match run().await {
            Ok(done) => return Some(done),
            Err(error) if state.shutdown.is_cancelled() => {
                tracing::error!(send.step = step, %error, "a send was left to the next start");
                return None;
            }
            Err(error) => {
                tracing::warn!(send.step = step, %error, "a step of a send is being repeated");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}
