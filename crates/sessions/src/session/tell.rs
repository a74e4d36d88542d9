//! Telling the host what became of the session.

use std::time::Duration;

use super::run::{Next, Task};
use crate::host::{HostError, SessionNews};

impl Task {
    pub(super) async fn end(&self, news: SessionNews) -> Next {
        if matches!(news, SessionNews::LoggedOut { .. }) {
            self.live.logged_out.cancel();
        }
        match self.tell_firmly(news).await {
            Ok(()) => Next::Done,
            Err(next) => next,
        }
    }

    /// A failure after which the client is built anew.
    pub(super) async fn again_after(&mut self, reason: &'static str) -> Next {
        self.live.set_proven(false);
        self.failures += 1;
        let news = SessionNews::Disconnected {
            reason: reason.to_owned(),
            failures: self.failures,
        };
        match self.tell(news).await {
            Ok(()) => Next::Again(Duration::from_secs(1 << self.failures.min(6))),
            Err(next) => next,
        }
    }

    /// News that the next ones replace: a few tries.
    pub(super) async fn tell(&self, news: SessionNews) -> Result<(), Next> {
        self.tell_within(news, Duration::from_secs(2)).await
    }

    /// News that nothing replaces.
    pub(super) async fn tell_firmly(&self, news: SessionNews) -> Result<(), Next> {
        self.tell_within(news, Duration::from_secs(60)).await
    }

    async fn tell_within(&self, news: SessionNews, patience: Duration) -> Result<(), Next> {
        let live = &self.live;
        let mut pause = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        loop {
            if !live.deadline.holds() || self.orders.lost.is_cancelled() {
                return Err(Next::LeaseLost);
            }
            match live.shared.host.news(&live.lease, news.clone()).await {
                Ok(()) => return Ok(()),
                Err(HostError::LeaseLost) => {
                    return Err(Next::LeaseLost);
                }
                Err(HostError::Unavailable) if waited < patience => {
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => {
                    tracing::error!(session = %live.lease.session.id, %error, "news of a session are lost");
                    return Ok(());
                }
            }
        }
    }
}
