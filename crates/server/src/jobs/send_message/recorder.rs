//! The one place where a provider's answer becomes a status: whatever has ended meanwhile is written down together.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasel_db::consents::{self, NewConsent};
use wasel_db::messages::{self, StatusUpdate};
use wasel_db::outbox::record::{self, Ended, Outcome};
use wasel_db::outbox::{Claimed, Failure};
use wasel_db::{SystemTx, contacts};
use wasel_domain::consent::Consent;
use wasel_domain::event::{Identity, StatusEvent};
use wasel_domain::{AttemptId, OrgId};
use wasel_providers::{Accepted, ErrorClass, SendError};

use super::UnderWay;
use super::breaker::{self, Breaker};
use super::lanes::{Landing, Lanes};
use super::retry::{next_step, repeat};
use crate::state::AppState;

/// The most attempts written down in one transaction.
const BATCH: usize = 500;

/// One ended attempt.
pub struct Ending {
    pub claimed: Claimed,
    /// The identity it went to.
    pub to: Option<Identity>,
    pub result: Result<Accepted, SendError>,
    /// How long the request was under way; `None` where nothing left this process.
    pub trip: Option<Duration>,
    /// Whether it showed if its channel works again.
    pub probe: bool,
    /// Free again once the end is written down: what waits for that is bounded.
    pub _permit: OwnedSemaphorePermit,
}

/// Takes ended attempts; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    endings: mpsc::Sender<Ending>,
    landings: Arc<Mutex<Vec<Landing>>>,
    closing: CancellationToken,
    worker: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

impl Recorder {
    pub fn start(state: AppState, under_way: UnderWay) -> Self {
        // Every ending holds one of the sender's places: it never fills.
        let places = state.config.outbox.in_flight.get() as usize;
        let (endings, queue) = mpsc::channel(places);
        let closing = CancellationToken::new();
        let work = Work {
            state,
            under_way,
            queue,
            closing: closing.clone(),
            breaker: Breaker::default(),
        };
        Self {
            endings,
            landings: Arc::default(),
            closing,
            worker: Arc::new(tokio::sync::Mutex::new(Some(tokio::spawn(work.run())))),
        }
    }

    /// An attempt has ended.
    pub async fn record(&self, ending: Ending) {
        self.land(&ending.claimed, ending.trip);
        if let Err(lost) = self.endings.send(ending).await {
            tracing::error!(message.id = %lost.0.claimed.message_id, "an end came after the recorder's own");
        }
    }

    /// An attempt ended, and how is not known: its lease runs out.
    pub fn abandon(&self, claimed: &Claimed) {
        self.land(claimed, Some(Duration::ZERO));
    }

    fn land(&self, claimed: &Claimed, trip: Option<Duration>) {
        let landing = Landing {
            org_id: claimed.org_id,
            channel_id: claimed.channel_id,
            trip,
            at: Instant::now(),
        };
        self.landings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(landing);
    }

    /// Tells the lanes what has landed since the last time.
    pub fn tell(&self, lanes: &mut Lanes) {
        let landings =
            std::mem::take(&mut *self.landings.lock().unwrap_or_else(PoisonError::into_inner));
        for landing in &landings {
            lanes.landed(landing);
        }
    }

    /// Writes down what is left. Call it after the last [`Self::record`].
    pub async fn finish(&self) {
        self.closing.cancel();
        if let Some(worker) = self.worker.lock().await.take()
            && worker.await.is_err()
        {
            tracing::error!("the recorder of sends panicked");
        }
    }
}

/// The recorder's own task.
struct Work {
    state: AppState,
    under_way: UnderWay,
    queue: mpsc::Receiver<Ending>,
    closing: CancellationToken,
    breaker: Breaker,
}

impl Work {
    async fn run(mut self) {
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            tokio::select! {
                biased;
                _ = self.queue.recv_many(&mut batch, BATCH) => {}
                () = self.closing.cancelled() => return,
            }
            // A fault of ours costs this batch, which will count as unknown, and not all that follow.
            if AssertUnwindSafe(self.write(&batch))
                .catch_unwind()
                .await
                .is_err()
            {
                tracing::error!(
                    send.count = batch.len(),
                    "writing down how sends ended panicked"
                );
            }
            let mut under_way = self.under_way.lock();
            for ending in &batch {
                under_way.remove(&ending.claimed.attempt_id);
            }
        }
    }

    /// All in one transaction. If one of them cannot be written the others must not suffer: then each by itself.
    async fn write(&mut self, batch: &[Ending]) {
        let all: Vec<&Ending> = batch.iter().collect();
        let actions = self.breaker.observe(&all);
        if !self.write_together(&all, &actions).await {
            for (n, ending) in batch.iter().enumerate() {
                let actions = if n == 0 { &actions[..] } else { &[] };
                if !self.write_together(&[ending], actions).await {
                    tracing::error!(
                        message.id = %ending.claimed.message_id, channel.id = %ending.claimed.channel_id,
                        "the end of a send cannot be written down; it will count as unknown"
                    );
                }
            }
        }
        self.state.signals.commits.changes.notify_one();
        // A conversation's next message, or a retry, may be due.
        self.state.signals.outbox.notify_one();
    }

    /// `false` where the database refuses what is to be written; while it is away this waits.
    async fn write_together(&self, endings: &[&Ending], actions: &[breaker::Action]) -> bool {
        let written = repeat(&self.state, "recording", async || {
            let result = write_in_one(&self.state, endings, actions).await;
            match result {
                Err(error) if !error.is_unavailable() && !error.is_conflict() => {
                    tracing::error!(%error, send.count = endings.len(), "ends of sends were refused by the database");
                    Ok(false)
                }
                other => other.map(|()| true),
            }
        });
        // Without a database until the end: the leases run out.
        written.await.unwrap_or(true)
    }
}

async fn write_in_one(
    state: &AppState,
    endings: &[&Ending],
    actions: &[breaker::Action],
) -> wasel_db::Result<()> {
    let ended: Vec<Ended<'_>> = endings
        .iter()
        .map(|ending| Ended {
            claimed: &ending.claimed,
            outcome: outcome_of(state, ending),
        })
        .collect();
    let mut tx = state.db.system().await?;
    record::record(&mut tx, &ended).await?;
    let proofs: Vec<StatusUpdate> = endings
        .iter()
        .filter_map(|ending| proof_in(ending))
        .collect();
    if !proofs.is_empty() {
        messages::advance_status(&mut tx, &proofs).await?;
    }
    for ending in endings {
        match &ending.result {
            Ok(accepted) => learn_identities(&mut tx, ending, accepted).await?,
            Err(error) => learn_consent(&mut tx, &ending.claimed, error).await?,
        }
    }
    for action in actions {
        action.carry_out(&mut tx, state).await?;
    }
    tx.commit().await
}

fn outcome_of(state: &AppState, ending: &Ending) -> Outcome {
    let claimed = &ending.claimed;
    match &ending.result {
        Ok(accepted) => {
            let channel = state
                .registry
                .of_org(OrgId(claimed.org_id), claimed.channel_id.into());
            Outcome::Accepted {
                provider_message_id: accepted.provider_message_id.clone(),
                check_after: channel
                    .filter(|channel| channel.open.capabilities().answers_look_ups)
                    .map(|_| state.config.outbox.check_after),
            }
        }
        Err(error) => {
            tracing::info!(
                message.id = %claimed.message_id, channel.id = %claimed.channel_id, send.attempt = claimed.attempts,
                send.error_class = error.class.as_str(), send.error_code = error.code.as_deref(), "a send failed"
            );
            Outcome::Failed {
                failure: Failure {
                    class: error.class.as_str(),
                    code: error.code.clone(),
                    message: words(error),
                },
                next: next_step(state, claimed, error),
                last: claimed.attempts >= state.config.outbox.max_attempts.get() as i32,
            }
        }
    }
}

/// The provider's detail, after what to do about it.
pub fn words(error: &SendError) -> String {
    if error.detail.is_empty() {
        error.class.advice().to_owned()
    } else {
        format!("{} ({})", error.class.advice(), error.detail)
    }
}

/// Taking the message may already prove more, where no report will follow.
fn proof_in(ending: &Ending) -> Option<StatusUpdate> {
    let accepted = ending.result.as_ref().ok()?;
    let told = StatusEvent {
        provider_message_id: accepted.provider_message_id.clone(),
        attempt_id: Some(AttemptId(ending.claimed.attempt_id)),
        status: accepted.status?,
        at: chrono::Utc::now(),
        error: None,
        detail: serde_json::Value::Null,
    };
    let (org, channel) = (ending.claimed.org_id, ending.claimed.channel_id);
    Some(StatusUpdate::new(org, channel, told))
}

/// The provider knows the person by another name than the one we dialled.
async fn learn_identities(
    tx: &mut SystemTx,
    ending: &Ending,
    accepted: &Accepted,
) -> wasel_db::Result<()> {
    for identity in &accepted.recipient {
        if ending.to.as_ref() != Some(identity) {
            let (org, contact) = (ending.claimed.org_id, ending.claimed.contact_id);
            contacts::insert_identity(tx, org, contact, identity).await?;
        }
    }
    Ok(())
}

/// The provider says that the person does not want to be written to.
async fn learn_consent(
    tx: &mut SystemTx,
    claimed: &Claimed,
    error: &SendError,
) -> wasel_db::Result<()> {
    let category = match error.class {
        ErrorClass::OptedOut => "all",
        ErrorClass::OptedOutOfMarketing => "marketing",
        _ => return Ok(()),
    };
    // Our own refusal is no news.
    if error.code.as_deref() == Some("opted_out") {
        return Ok(());
    }
    let consent = NewConsent {
        org_id: claimed.org_id,
        contact_id: claimed.contact_id,
        channel_id: Some(claimed.channel_id),
        category,
        state: Consent::OptedOut,
        source: "send_error",
        at: chrono::Utc::now(),
    };
    consents::insert(tx, &consent).await?;
    Ok(())
}
