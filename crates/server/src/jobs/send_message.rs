//! Takes messages from the outbox and hands them to their providers.
//!
//! The one place where a provider's answer becomes a status. A message is marked `sending` before anything leaves, so
//! that a crash in between leaves a trace (`jobs::reconcile`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use wasel_db::messages::{self, StatusUpdate};
use wasel_db::outbox::{self, Claimed, Failure, Next as After};
use wasel_db::{channels, consents};
use wasel_domain::consent::Consent;
use wasel_domain::event::StatusEvent;
use wasel_domain::{AttemptId, ContactId, OrgId, OutboundContent};
use wasel_jobs::{Job, JobError, Next};
use wasel_providers::{Accepted, ErrorClass, Outbound, SendError, Thread};

use crate::registry::Channel;
use crate::state::AppState;

/// Messages claimed in one statement.
const CLAIM: usize = 64;
/// Rows written by other programs are seen within this time.
const POLL: Duration = Duration::from_millis(500);
/// Meta's pace for one recipient after a refusal: 4ⁿ seconds (contract of error 131056).
const PAIR_BASE: f64 = 4.0;
/// Earlier messages an e-mail refers to.
const THREAD_IDS: i64 = 10;
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// While the database is away.
const MAX_REPEAT_PAUSE: Duration = Duration::from_secs(2);

/// The sender.
pub struct SendMessage {
    state: AppState,
    worker: Uuid,
    slots: Arc<Semaphore>,
    sends: TaskTracker,
    under_way: UnderWay,
}

/// The attempts this process has under way.
#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<HashSet<Uuid>>>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the leases of what is under way for as long as this process lives, so that a lease can be short and the
/// messages of a dead process are taken up soon.
pub struct RenewLeases {
    state: AppState,
    worker: Uuid,
    under_way: UnderWay,
}

impl SendMessage {
    #[must_use]
    pub fn new(state: AppState) -> (Self, RenewLeases) {
        let in_flight = state.config.outbox.in_flight.get() as usize;
        let (worker, under_way) = (Uuid::now_v7(), UnderWay::default());
        let renew = RenewLeases {
            state: state.clone(),
            worker,
            under_way: under_way.clone(),
        };
        let slots = Arc::new(Semaphore::new(in_flight));
        (
            Self {
                state,
                worker,
                slots,
                sends: TaskTracker::new(),
                under_way,
            },
            renew,
        )
    }
}

#[async_trait]
impl Job for RenewLeases {
    const NAME: &'static str = "renew_leases";

    async fn run(&self) -> Result<Next, JobError> {
        let attempts: Vec<Uuid> = self.under_way.lock().iter().copied().collect();
        let lease = self.state.config.outbox.lease;
        if !attempts.is_empty() {
            let mut tx = self.state.db.system().await?;
            outbox::update_leases(&mut tx, self.worker, &attempts, lease).await?;
            tx.commit().await?;
        }
        Ok(Next::After(lease / 4))
    }
}

#[async_trait]
impl Job for SendMessage {
    const NAME: &'static str = "send_message";

    async fn run(&self) -> Result<Next, JobError> {
        // Wait for a free slot, then take all that are free.
        let first = self.slots.clone().acquire_owned().await?;
        let mut permits = vec![first];
        while permits.len() < CLAIM {
            match self.slots.clone().try_acquire_owned() {
                Ok(permit) => permits.push(permit),
                Err(_) => break,
            }
        }
        let mut tx = self.state.db.system().await?;
        let claimed = outbox::lock_next(
            &mut tx,
            self.worker,
            permits.len(),
            self.state.config.outbox.lease,
        )
        .await?;
        let next_due = if claimed.is_empty() {
            outbox::next_due_in(&mut tx).await?
        } else {
            None
        };
        tx.commit().await?;
        if claimed.is_empty() {
            // A row can be due and yet held (an earlier one of its conversation waits): do not spin on it.
            let wait = next_due
                .unwrap_or(POLL)
                .clamp(Duration::from_millis(20), POLL);
            return Ok(Next::After(wait));
        }
        self.state.signals.commits.changes.notify_one();
        let all = claimed.len() == permits.len();
        for (message, permit) in claimed.into_iter().zip(permits) {
            self.under_way.lock().insert(message.attempt_id);
            let (state, under_way) = (self.state.clone(), self.under_way.clone());
            self.sends.spawn(async move {
                let attempt = message.attempt_id;
                send(state, message).await;
                under_way.lock().remove(&attempt);
                drop(permit);
            });
        }
        Ok(if all { Next::Now } else { Next::After(POLL) })
    }

    async fn finish(&self) {
        self.sends.close();
        self.sends.wait().await;
    }
}

/// One attempt, from the claim to the record of its outcome. If the database stays away until we must stop, the lease
/// runs out and the attempt is taken for unknown.
async fn send(state: AppState, claimed: Claimed) {
    let Some(prepared) = repeat(&state, &claimed, || prepare(&state, &claimed)).await else {
        return;
    };
    let result = match prepared {
        Prepared::Refuse(error) => Err(error),
        Prepared::Send {
            channel,
            content,
            to,
            thread,
        } => {
            let callback = format!(
                "{}/functions/v1/twilio-delivery-status?attempt={}",
                state.public_url, claimed.attempt_id
            );
            let outbound = Outbound {
                message_id: claimed.message_id.into(),
                attempt_id: AttemptId(claimed.attempt_id),
                thread: thread.as_ref(),
                to: &to,
                content: &content,
                quoted_message_id: claimed.quoted_message_id.as_deref(),
                status_callback: Some(&callback),
            };
            channel.open.send(&state.http, &outbound).await
        }
    };
    repeat(&state, &claimed, || record(&state, &claimed, &result)).await;
    state.signals.commits.changes.notify_one();
    // The conversation's next message, or a retry, may be due.
    state.signals.outbox.notify_one();
}

/// Repeats a step until the database takes it; `None` if it did not before the server had to stop.
async fn repeat<T, F>(state: &AppState, claimed: &Claimed, mut step: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, wasel_db::Error>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        match step().await {
            Ok(done) => return Some(done),
            Err(error) if state.shutdown.is_cancelled() => {
                tracing::error!(message.id = %claimed.message_id, %error, "a send was left to the next start");
                return None;
            }
            Err(error) => {
                tracing::warn!(message.id = %claimed.message_id, %error, "a step of a send is being repeated");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_REPEAT_PAUSE);
            }
        }
    }
}

enum Prepared {
    Send {
        channel: Arc<Channel>,
        content: OutboundContent,
        to: wasel_domain::event::Identity,
        thread: Option<Thread>,
    },
    Refuse(SendError),
}

/// What may have changed since the message was queued is checked again.
async fn prepare(state: &AppState, claimed: &Claimed) -> Result<Prepared, wasel_db::Error> {
    let refuse = |class, code: &str, detail: String| {
        Ok(Prepared::Refuse(SendError {
            class,
            code: Some(code.to_owned()),
            detail,
            retry_after: None,
        }))
    };
    let org = OrgId(claimed.org_id);
    let Some(channel) = state.registry.of_org(org, claimed.channel_id.into()) else {
        return refuse(
            ErrorClass::ChannelBlocked,
            "channel_unusable",
            "the channel cannot be opened".to_owned(),
        );
    };
    let content: OutboundContent = match serde_json::from_value(claimed.content.clone()) {
        Ok(content) => content,
        Err(error) => {
            return refuse(
                ErrorClass::Content,
                "bad_content",
                format!("the stored content: {error}"),
            );
        }
    };
    let mut tx = state.db.system().await?;
    let opted_out = consents::is_opted_out(
        &mut tx,
        claimed.org_id,
        claimed.contact_id,
        claimed.channel_id,
    )
    .await?;
    let to =
        crate::outbound::recipient_of(&mut tx, org, &channel, ContactId(claimed.contact_id)).await;
    let thread = if channel.open.capabilities().threads_by_id {
        let conversation = claimed.conversation_id.into();
        let (subject, message_ids) =
            messages::find_thread(&mut tx, org, conversation, THREAD_IDS).await?;
        Some(Thread {
            subject,
            message_ids,
        })
    } else {
        None
    };
    tx.commit().await?;
    if opted_out {
        let detail = "this person asked not to be written to".to_owned();
        return refuse(ErrorClass::OptedOut, "opted_out", detail);
    }
    match to {
        Ok(to) => Ok(Prepared::Send {
            channel,
            content,
            to,
            thread,
        }),
        Err(error) => refuse(ErrorClass::Recipient, error.code, error.message),
    }
}

async fn record(
    state: &AppState,
    claimed: &Claimed,
    result: &Result<Accepted, SendError>,
) -> Result<(), wasel_db::Error> {
    let mut tx = state.db.system().await?;
    match result {
        Ok(accepted) => {
            let channel = state
                .registry
                .of_org(OrgId(claimed.org_id), claimed.channel_id.into());
            let check_after = channel
                .filter(|channel| channel.open.capabilities().answers_look_ups)
                .map(|_| state.config.outbox.check_after);
            outbox::record_accepted(&mut tx, claimed, &accepted.provider_message_id, check_after)
                .await?;
            if let Some(status) = accepted.status {
                let told = StatusEvent {
                    provider_message_id: accepted.provider_message_id.clone(),
                    attempt_id: Some(AttemptId(claimed.attempt_id)),
                    status,
                    at: chrono::Utc::now(),
                    error: None,
                    detail: serde_json::Value::Null,
                };
                let update = StatusUpdate::new(claimed.org_id, claimed.channel_id, told);
                messages::advance_status(&mut tx, &[update]).await?;
            }
            for identity in &accepted.recipient {
                wasel_db::contacts::insert_identity(
                    &mut tx,
                    claimed.org_id,
                    claimed.contact_id,
                    identity,
                )
                .await?;
            }
        }
        Err(error) => {
            let next = next_step(error, claimed, state);
            let failure = Failure {
                class: error.class.as_str(),
                code: error.code.as_deref(),
                message: &words(error),
            };
            outbox::record_failure(&mut tx, claimed, &failure, next).await?;
            follow_up(&mut tx, claimed, error).await?;
            tracing::info!(
                message.id = %claimed.message_id, channel.id = %claimed.channel_id, send.attempt = claimed.attempts,
                send.error_class = error.class.as_str(), send.error_code = error.code.as_deref(), "a send failed"
            );
        }
    }
    tx.commit().await
}

/// The provider's detail, then what to do about it.
fn words(error: &SendError) -> String {
    if error.detail.is_empty() {
        error.class.advice().to_owned()
    } else {
        format!("{} ({})", error.class.advice(), error.detail)
    }
}

/// Retry, wait for a callback, or give up.
fn next_step(error: &SendError, claimed: &Claimed, state: &AppState) -> After {
    let settings = &state.config.outbox;
    if error.class == ErrorClass::Ambiguous {
        return After::Reconcile(settings.reconcile_wait);
    }
    // A blocked channel keeps its queue: the row waits until somebody unblocks it.
    let exhausted = claimed.attempts >= settings.max_attempts.get() as i32
        && error.class != ErrorClass::ChannelBlocked;
    if !error.class.is_retryable() || exhausted {
        return After::Fail;
    }
    let tries = f64::from(claimed.attempts - 1);
    let wait = match error.class {
        ErrorClass::ThrottledPair => {
            Duration::from_secs_f64(PAIR_BASE.powf(tries).min(MAX_WAIT.as_secs_f64()))
        }
        ErrorClass::ThrottledAccount => Duration::from_secs(300),
        _ => settings.retry_base.mul_f64(2f64.powf(tries.min(20.0))),
    };
    let jitter = rand::rng().random_range(1.0..1.25);
    After::Retry(
        error
            .retry_after
            .unwrap_or(Duration::ZERO)
            .max(wait.mul_f64(jitter))
            .min(MAX_WAIT),
    )
}

/// What an error says beyond this message: about the channel, or about the person.
async fn follow_up(
    tx: &mut wasel_db::SystemTx,
    claimed: &Claimed,
    error: &SendError,
) -> Result<(), wasel_db::Error> {
    match error.class {
        ErrorClass::ChannelBlocked => {
            let (org, channel) = (claimed.org_id.into(), claimed.channel_id.into());
            if channels::update_status(tx, org, channel, "blocked", Some(&words(error))).await? {
                tracing::error!(
                    channel.id = %claimed.channel_id, send.error_code = error.code.as_deref(),
                    "a channel is blocked by its provider; its queue is kept"
                );
            }
        }
        ErrorClass::OptedOut | ErrorClass::OptedOutOfMarketing
            if error.code.as_deref() != Some("opted_out") =>
        {
            let marketing = error.class == ErrorClass::OptedOutOfMarketing;
            consents::insert(
                tx,
                &consents::NewConsent {
                    org_id: claimed.org_id,
                    contact_id: claimed.contact_id,
                    channel_id: Some(claimed.channel_id),
                    category: if marketing { "marketing" } else { "all" },
                    state: Consent::OptedOut,
                    source: "send_error",
                    at: chrono::Utc::now(),
                },
            )
            .await?;
        }
        _ => {}
    }
    Ok(())
}
