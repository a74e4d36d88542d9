//! Waiting for something to happen, however slow the machine.

use std::time::Duration;

use tokio::time::Instant;

/// How long a test waits for what an idle machine does at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer; panics with `what` when [`PATIENCE`] ends.
pub async fn wait_until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}
