//! Sends the identity's own mails: invitations, recovery, a new address.

use std::time::Duration;

use async_trait::async_trait;
use wasel_jobs::{Job, JobError, Next};

use crate::auth::Mailer;

/// A mail wakes the job; nothing else is waited for.
const IDLE: Duration = Duration::from_secs(3600);

pub struct SendMail(pub Mailer);

#[async_trait]
impl Job for SendMail {
    const NAME: &'static str = "send_mail";

    async fn run(&self) -> Result<Next, JobError> {
        Ok(Next::After(self.0.send_due().await.unwrap_or(IDLE)))
    }

    async fn finish(&self) {
        self.0.send_due().await;
    }
}
