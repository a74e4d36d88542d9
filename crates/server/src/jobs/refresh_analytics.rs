//! Keeps `analytics_daily` in step with the messages.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use wasel_db::analytics;
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

/// Between two rounds this many times what the last one took, so that counting costs a twentieth of a core at most.
const REST_PER_WORK: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

pub struct RefreshAnalytics(pub AppState);

#[async_trait]
impl Job for RefreshAnalytics {
    const NAME: &'static str = "refresh_analytics";

    async fn run(&self) -> Result<Next, JobError> {
        let started = Instant::now();
        let settled = self.0.tail.get();
        let mut tx = self.0.db.system().await?;
        analytics::refresh(&mut tx, settled).await?;
        tx.commit().await?;
        let pause = started.elapsed() * REST_PER_WORK;
        Ok(Next::After(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)))
    }
}
