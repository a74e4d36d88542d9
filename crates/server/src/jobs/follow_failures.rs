//! Follows failed messages up: by the next channel where the sender asked for one, else by a notification.

use std::time::Duration;

use async_trait::async_trait;
use wasel_db::failures::{self, Failure, FailureNotice};
use wasel_domain::OrgId;
use wasel_jobs::{Job, JobError, Next};
use wasel_providers::{ChannelKind, ErrorClass, Explanation, Language};

use crate::notify;
use crate::queue;
use crate::state::AppState;

const BATCH: i64 = 32;
const POLL: Duration = Duration::from_millis(500);
/// When a failure comes again whose follow-up was broken off.
const LEASE: Duration = Duration::from_secs(30);

pub struct FollowFailures(pub AppState);

#[async_trait]
impl Job for FollowFailures {
    const NAME: &'static str = "follow_failures";

    async fn run(&self) -> Result<Next, JobError> {
        let state = &self.0;
        let mut tx = state.db.system().await?;
        let found = failures::lock_next(&mut tx, BATCH, LEASE).await?;
        tx.commit().await?;
        for failure in &found {
            // One that cannot be followed up now comes again; the others need not wait for it.
            if let Err(error) = follow_up(state, failure).await {
                tracing::warn!(message.id = %failure.message_id, %error, "a failure could not be followed up yet");
            }
        }
        if found.is_empty() {
            return Ok(Next::After(POLL));
        }
        state.signals.commits.changes.notify_one();
        Ok(if found.len() as i64 == BATCH {
            Next::Now
        } else {
            Next::After(POLL)
        })
    }
}

async fn follow_up(state: &AppState, failure: &Failure) -> Result<(), JobError> {
    let goes_on = match &failure.fallback {
        Some(sealed) => {
            let org = OrgId(failure.org_id);
            notify::follow(state, org, failure.message_id, sealed)
                .await
                .map_err(|error| error.message)?
        }
        None => false,
    };
    let class = class_of(state, failure);
    let (title, words) = words(failure, class);
    let body = match &failure.error_message {
        Some(said) if !said.is_empty() => format!("{} ({said})", words.why),
        _ => words.why.to_owned(),
    };
    let notice = FailureNotice {
        title: &title,
        body: &body,
        advice: words.advice,
    };
    let mut tx = state.db.system().await?;
    let goes_on = queue::follow_failure(&mut tx, failure, class.is_retryable()).await? || goes_on;
    failures::settle(&mut tx, failure, (!goes_on).then_some(&notice)).await?;
    tx.commit().await?;
    Ok(())
}

/// What to tell the sender, in the organisation's language.
fn words(failure: &Failure, class: ErrorClass) -> (String, Explanation) {
    let language = Language::of_locale(&failure.locale);
    let whom = failure
        .customer_name
        .as_deref()
        .or(failure.address.as_deref())
        .unwrap_or("?");
    let title = match language {
        Language::Arabic => format!("لم تصل الرسالة إلى {whom}"),
        Language::English => format!("The message to {whom} was not delivered"),
    };
    (title, class.explain(language))
}

fn class_of(state: &AppState, failure: &Failure) -> ErrorClass {
    match (
        failure.error_code.as_deref(),
        ChannelKind::parse(&failure.channel_kind),
    ) {
        // Codes of our own, from `jobs::send_message` and the governor.
        (Some("opted_out"), _) => ErrorClass::OptedOut,
        (Some("channel_unusable"), _) => ErrorClass::ChannelBlocked,
        (Some("bad_content"), _) => ErrorClass::Content,
        (Some("not_addressable" | "gone"), _) => ErrorClass::Recipient,
        (Some("window_closed"), _) => ErrorClass::NeedsTemplate,
        (Some(code), Some(kind)) => state.providers.of(kind).classify(code),
        _ => ErrorClass::Transient,
    }
}
