//! The simulated world: businesses, customers, their messages, and a clock that can be moved.
//!
//! [`World`] is what tests use directly and what the control API (`/sim/…`) speaks for. Everything is
//! in memory and bounded: the oldest items go first.

mod customer;
mod inspect;
mod limits;
pub(crate) mod media;
mod model;
pub(crate) mod phone;
mod setup;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use customer::{BusinessEcho, Content, CustomerSend};
pub use media::CustomerMedia;
pub use model::*;
pub(crate) use setup::put_template;
pub(crate) use state::{NewMessage, State};

use crate::{
    faults::{FaultPlan, RequestVerdict},
    meta,
    smtp::{Mail, MailServer},
    twilio,
};

/// Requests to the server that may be under way at once. Providers deliver concurrently, but a
/// simulator that opened thousands of sockets would measure itself.
const CONCURRENT_WEBHOOKS: usize = 64;

/// Why the world would not do as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WorldError {
    #[error("no such line is registered")]
    UnknownLine,
    #[error("no such message")]
    UnknownMessage,
    #[error("no such template")]
    UnknownTemplate,
    /// The line's provider or channel has no such thing.
    #[error("not possible on this line: {0}")]
    NotPossible(&'static str),
    #[error("{0}")]
    Invalid(String),
    #[error("the webhook did not answer: {0}")]
    WebhookFailed(String),
}

/// Handle to the simulated world; clones share it.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Never held together with `state`.
    mail: Mutex<Mail>,
    events: broadcast::Sender<Event>,
    http: reqwest::Client,
    webhook_slots: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
    base: String,
    storage_base: String,
}

impl World {
    pub(crate) fn new(
        http: reqwest::Client,
        base: String,
        storage_base: String,
        mail_server: MailServer,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                mail: Mutex::new(Mail::new(mail_server)),
                events: broadcast::channel(1_024).0,
                http,
                webhook_slots: Semaphore::new(CONCURRENT_WEBHOOKS),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                base,
                storage_base,
            }),
        }
    }

    /// Now, as the simulated world sees it.
    pub fn now(&self) -> DateTime<Utc> {
        self.lock().now()
    }

    /// Moves the clock forward: windows close, addresses and scheduled messages come due. Timers
    /// already running (ticks, retries) keep to the real clock.
    pub fn advance(&self, by: Duration) {
        self.lock().advance_clock(by);
        twilio::release_scheduled(self);
    }

    pub fn settings(&self) -> Settings {
        self.lock().settings.clone()
    }

    pub fn set_settings(&self, settings: Settings) {
        self.lock().settings = settings;
    }

    /// The switches as they stand, with what is left of each count.
    pub fn faults(&self) -> FaultPlan {
        self.lock().faults.plan()
    }

    /// Replaces all switches. An empty plan heals everything.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.lock().faults.set(plan);
    }

    /// Everything that happens from here on. A listener that falls 1,024 events behind loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Forgets everything but the registered numbers, accounts, settings and faults.
    pub fn clear(&self) {
        self.lock().clear();
        self.mail().clear();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug, but its test should fail, not every other one.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mail(&self) -> MutexGuard<'_, Mail> {
        self.inner
            .mail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn emit(&self, event: Event) {
        // An error only says that nobody listens.
        drop(self.inner.events.send(event));
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.inner.http
    }

    pub(crate) fn webhook_slots(&self) -> &Semaphore {
        &self.inner.webhook_slots
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.inner.stop
    }

    /// Base of addresses handed out, without a trailing slash.
    pub(crate) fn base(&self) -> String {
        let public = self.lock().settings.public_base.clone();
        public.map_or_else(
            || self.inner.base.clone(),
            |base| base.trim_end_matches('/').to_owned(),
        )
    }

    /// Base of the storage host Twilio media redirects to.
    pub(crate) fn storage_base(&self) -> &str {
        &self.inner.storage_base
    }

    /// Runs `work` in the background until it ends or the simulator stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    pub(crate) async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    pub(crate) fn judge_request(
        &self,
        provider: Provider,
        lines: &[String],
        is_send: bool,
    ) -> RequestVerdict {
        self.lock().faults.judge_request(provider, lines, is_send)
    }

    /// Moves a message of the business forward and tells the server. A step that is not forward is
    /// nothing. Returns whether it moved.
    pub(crate) fn step(&self, id: &str, tick: Tick, error_code: Option<u32>) -> bool {
        let Some((message, before)) = self.lock().move_tick(id, tick, error_code) else {
            return false;
        };
        match message.provider {
            Provider::Meta => meta::tell_status(self, &message, before),
            Provider::Twilio => twilio::tell_status(self, &message, before),
        }
        self.emit(Event::MessageChanged { message });
        true
    }

    /// Lets a message of the business take its course: sent, delivered and read after the delays of the
    /// settings, or failed with `failure` instead of delivered.
    pub(crate) fn start_course(&self, id: String, failure: Option<u32>) {
        let world = self.clone();
        self.spawn(async move {
            let settings = world.settings();
            if failure.is_some() {
                pause(Some(settings.sent_after_ms.unwrap_or(0))).await;
                world.step(&id, Tick::Failed, failure);
                return;
            }
            if !pause(settings.sent_after_ms).await {
                return;
            }
            world.step(&id, Tick::Sent, None);
            if !pause(settings.delivered_after_ms).await || !world.step(&id, Tick::Delivered, None)
            {
                return;
            }
            world.auto_reply(&id);
            if pause(settings.read_after_ms).await {
                world.read_message(&id);
            }
        });
    }

    fn auto_reply(&self, id: &str) {
        let reply = {
            let state = self.lock();
            let text = state.settings.auto_reply.clone();
            state
                .message(id)
                .filter(|message| message.origin == Origin::Api)
                .zip(text)
                .map(|(message, text)| CustomerSend::text(&message.line, &message.customer, text))
        };
        if let Some(reply) = reply
            && let Err(error) = self.send_as_customer(reply)
        {
            tracing::warn!(%error, "auto-reply impossible");
        }
    }
}

/// Waits and says true; says false at once for "never".
async fn pause(millis: Option<u64>) -> bool {
    let Some(millis) = millis else {
        return false;
    };
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    true
}
