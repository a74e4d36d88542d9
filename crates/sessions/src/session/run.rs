//! A session's task: connects, follows what becomes of the connection, tells the host, and ends in order.
//!
//! The protocol crate reconnects by itself (Fibonacci pauses up to 15 minutes). We build its client anew only where it
//! does not help itself: its saver has halted, it hangs after a dial, or it stopped for a reason that passes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::future::OptionFuture;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use wasel_domain::E164;
use whatsapp_rust::bot::BotHandle;
use whatsapp_rust::prelude::Event;
use whatsapp_rust::types::events::MessageBatch;
use whatsapp_rust::wacore::iq::keepalive::KeepaliveSpec;
use whatsapp_rust::wacore::net::DisconnectReason;
use whatsapp_rust::wacore::store::DevicePropsOverride;
use whatsapp_rust::waproto::whatsapp::device_props::PlatformType;
use whatsapp_rust::{Client, Jid};

use super::ears::Ears;
use super::ends::{self, End};
use super::live::{Live, Note};
use super::transport::Gate;
use super::version::Version;
use super::{Orders, history};
use crate::host::{SessionNews, StopReason};
use crate::inbound::{self, Item};
use crate::store::Store;

/// How often a session looks at itself.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A start that takes longer does not hold up the others.
const START_COUNTS: Duration = Duration::from_secs(20);
const PROOF_WITHIN: Duration = Duration::from_secs(10);
/// Longer than the protocol crate ever pauses.
const SILENT_FOR: Duration = Duration::from_secs(20 * 60);
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(15);
/// Without `auto_reconnect`, this many dials may fail before it is given up.
const FIRST_DIALS: u32 = 5;

pub(super) enum Next {
    /// Build the client anew, after a pause.
    Again(Duration),
    /// In order.
    Done,
    /// The lease is another node's: nothing more in the session's name.
    LeaseLost,
}

/// Until the session ends: by order, by WhatsApp, or because its lease went to another node.
pub(crate) async fn run(live: Arc<Live>, orders: Orders) {
    let mut task = Task {
        live,
        orders,
        failures: 0,
        unreadable: 0,
    };
    loop {
        match task.round().await {
            Next::Done | Next::LeaseLost => return,
            Next::Again(pause) => {
                tokio::select! {
                    () = task.orders.lost.cancelled() => return,
                    () = task.orders.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

pub(super) struct Task {
    pub(super) live: Arc<Live>,
    pub(super) orders: Orders,
    /// In a row, since the last proven connection.
    pub(super) failures: u32,
    pub(super) unreadable: u32,
}

/// One client's life, as its task follows it.
struct Round {
    client: Arc<Client>,
    version: Version,
    permit: Option<OwnedSemaphorePermit>,
    started: Instant,
    dialled: Instant,
    /// A dial succeeded and nothing was heard since.
    expects: bool,
    /// A QR or pairing code is shown: silence is what a person causes.
    waits_for_phone: bool,
    was_connected: bool,
    /// About to reconnect for messages that were not stored.
    redelivers: bool,
    /// Seen without a connection where there should be one.
    suspicious: bool,
    proof: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
}

impl Task {
    async fn round(&mut self) -> Next {
        let failures = self.failures;
        if let Err(next) = self.tell(SessionNews::Connecting { failures }).await {
            return next;
        }
        let starting = self.live.shared.starting.clone();
        let permit = tokio::select! {
            () = self.orders.lost.cancelled() => return Next::LeaseLost,
            () = self.orders.stop.cancelled() => return Next::Done,
            permit = starting.acquire_owned() => permit.ok(),
        };
        let version = tokio::select! {
            () = self.orders.lost.cancelled() => return Next::LeaseLost,
            () = self.orders.stop.cancelled() => return Next::Done,
            version = self.live.shared.versions.get() => version,
        };
        let version = match version {
            Ok(version) => version,
            Err(words) => return self.again_after(words).await,
        };
        let (sender, notes) = mpsc::channel(1024);
        let ears = Arc::new(Ears::new(&self.live, sender.clone()));
        let store = Store::new(self.live.shared.host.key_rows(&self.live.lease));
        let store_lost = store.lost();
        let gate = Arc::new(Gate::new(self.live.deadline.clone()));
        let built = self.build(store, ears.clone(), gate.clone(), version);
        let bot = match built.await {
            Ok(bot) => bot,
            Err(_) if store_lost.is_cancelled() => {
                return Next::LeaseLost;
            }
            Err(next) => return next,
        };
        self.unreadable = 0;
        let client = bot.client();
        client.subscribe_handler(ears).detach();
        // Otherwise customers see no second tick until we are shown as online.
        client.set_force_active_delivery_receipts(true);
        if client.pn().is_none() {
            let device = DevicePropsOverride::new()
                .with_os(&self.live.shared.settings.device_name)
                .with_platform_type(PlatformType::CHROME);
            client.set_device_props(device).await;
        }
        self.live.set_client(client.clone(), sender);
        let mut handle = bot.spawn();
        let round = Round {
            client,
            version,
            permit,
            started: Instant::now(),
            dialled: Instant::now(),
            expects: false,
            waits_for_phone: false,
            was_connected: false,
            redelivers: false,
            suspicious: false,
            proof: None,
        };
        let next = self.follow(round, &mut handle, notes, &store_lost).await;
        self.live.set_proven(false);
        self.shut_down(handle, &next).await;
        // Whatever did not end in time can neither write nor speak any more.
        store_lost.cancel();
        gate.close();
        next
    }

    async fn follow(
        &mut self,
        mut round: Round,
        handle: &mut BotHandle,
        mut notes: mpsc::Receiver<Note>,
        store_lost: &CancellationToken,
    ) -> Next {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        look.reset();
        loop {
            let next = tokio::select! {
                biased;
                () = self.orders.lost.cancelled() => Some(Next::LeaseLost),
                () = store_lost.cancelled() => Some(Next::LeaseLost),
                () = self.orders.stop.cancelled() => Some(Next::Done),
                Some(note) = notes.recv() => self.heard(&mut round, note).await,
                Some(proven) = OptionFuture::from(round.proof.as_mut()) => {
                    round.proof = None;
                    self.proved(&mut round, proven).await
                }
                () = &mut *handle => Some(self.again_after("the connection ended").await),
                _ = look.tick() => self.look(&mut round).await,
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    async fn heard(&mut self, round: &mut Round, note: Note) -> Option<Next> {
        match note {
            Note::Event(event) => {
                round.expects = false;
                self.event(round, &event).await
            }
            Note::Dialled(result) => self.dialled(round, result).await,
            Note::Redeliver if round.redelivers => None,
            Note::Redeliver => {
                round.redelivers = true;
                // After a pause, for the database needs one.
                let client = round.client.clone();
                let live = self.live.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    if live.deadline.holds() {
                        client.reconnect_immediately().await;
                    }
                });
                None
            }
            Note::LoggedOut => Some(
                self.end(SessionNews::LoggedOut {
                    detail: "unlinked on request".to_owned(),
                })
                .await,
            ),
        }
    }

    async fn event(&mut self, round: &mut Round, event: &Event) -> Option<Next> {
        match event {
            Event::Connected(_) => {
                round.waits_for_phone = false;
                round.redelivers = false;
                let client = round.client.clone();
                round.proof = Some(Box::pin(async move {
                    client
                        .execute(KeepaliveSpec::with_timeout(PROOF_WITHIN))
                        .await
                        .is_ok()
                }));
                None
            }
            Event::Disconnected(lost) => self.lost(round, words(&lost.reason)).await,
            Event::PairingQrCode(qr) => {
                round.permit = None;
                round.waits_for_phone = true;
                // One way at a time.
                if self.live.options.pair_with_phone.is_some() {
                    return None;
                }
                let news = SessionNews::QrCode {
                    code: qr.code.clone(),
                    expires_at: Utc::now() + qr.timeout,
                };
                self.tell(news).await.err()
            }
            Event::PairingCode(code) => {
                round.permit = None;
                round.waits_for_phone = true;
                let news = SessionNews::PairingCode {
                    code: code.code.clone(),
                    expires_at: Utc::now() + code.timeout,
                };
                self.tell(news).await.err()
            }
            // The phone wants another code: a new client asks for one.
            Event::PairingCodeRefresh(_) => Some(Next::Again(Duration::ZERO)),
            Event::PairPasskeyRequest(request) => {
                let news = SessionNews::PasskeyRequested {
                    request_options_json: request.request_options_json.clone(),
                };
                self.tell(news).await.err()
            }
            Event::PairPasskeyConfirmation(confirmation) if confirmation.skip_handoff_ux => {
                let client = round.client.clone();
                // Its failure comes as an event.
                tokio::spawn(async move { client.send_passkey_confirmation().await.ok() });
                None
            }
            Event::PairPasskeyConfirmation(confirmation) => {
                let news = SessionNews::PasskeyConfirmation {
                    code: confirmation.code.clone(),
                };
                self.tell(news).await.err()
            }
            Event::PairSuccess(paired) => {
                round.waits_for_phone = false;
                round.dialled = Instant::now();
                self.live.history_taken.store(0, Ordering::Release);
                let name = paired.business_name.trim();
                let news = SessionNews::Linked {
                    jid: paired.id.to_non_ad_string(),
                    lid: Some(paired.lid.to_non_ad_string()),
                    phone: phone(&paired.id),
                    display_name: Some(name.to_owned()).filter(|name| !name.is_empty()),
                };
                self.tell_firmly(news).await.err()
            }
            Event::HistorySync(chunk) => {
                history::take_over(self.live.clone(), chunk.clone());
                None
            }
            Event::Messages(batch) => {
                self.recovered(&round.client, batch).await;
                None
            }
            event => match ends::of(event)? {
                End::Final(news) => Some(self.end(news).await),
                End::Passing(words) => self.lost(round, words).await,
                End::Outdated => Some(self.outdated(round.version).await),
            },
        }
    }

    /// Messages that the phone resent because we could not read them, already acknowledged.
    async fn recovered(&self, client: &Client, batch: &MessageBatch) {
        for message in batch {
            if let Some(heard) = inbound::heard(client, message).await {
                self.live.collect(Item::Message(heard));
            }
        }
    }

    async fn dialled(
        &mut self,
        round: &mut Round,
        result: Result<(), &'static str>,
    ) -> Option<Next> {
        // The dial before went through and led to nothing.
        let unanswered = std::mem::replace(&mut round.expects, result.is_ok());
        round.dialled = Instant::now();
        let words = match result {
            Err(words) => words,
            Ok(()) if unanswered => "the handshake with WhatsApp failed",
            Ok(()) => return None,
        };
        self.lost(round, words).await
    }

    async fn proved(&mut self, round: &mut Round, proven: bool) -> Option<Next> {
        if !proven {
            let client = round.client.clone();
            tokio::spawn(async move { client.reconnect_immediately().await });
            return self.lost(round, "WhatsApp does not answer").await;
        }
        // Without its own address it is not linked, whatever it says.
        let jid = round.client.pn()?;
        self.failures = 0;
        round.permit = None;
        round.was_connected = true;
        round.suspicious = false;
        self.live.set_proven(true);
        let name = round.client.push_name();
        let news = SessionNews::Connected {
            phone: phone(&jid),
            jid: jid.to_non_ad_string(),
            display_name: Some(name).filter(|name| !name.is_empty()),
        };
        self.tell_firmly(news).await.err()
    }

    /// The connection is lost or did not come about; the client tries again by itself.
    async fn lost(&mut self, round: &mut Round, reason: &'static str) -> Option<Next> {
        round.permit = None;
        round.proof = None;
        round.suspicious = false;
        self.live.set_proven(false);
        self.failures += 1;
        let may_retry = self.live.options.auto_reconnect
            || (!round.was_connected && self.failures < FIRST_DIALS);
        if !may_retry {
            return Some(
                self.end(SessionNews::Stopped {
                    reason: StopReason::Lost,
                    detail: reason.to_owned(),
                })
                .await,
            );
        }
        let news = SessionNews::Disconnected {
            reason: reason.to_owned(),
            failures: self.failures,
        };
        self.tell(news).await.err()
    }

    /// What no event tells.
    async fn look(&mut self, round: &mut Round) -> Option<Next> {
        if round.started.elapsed() > START_COUNTS {
            round.permit = None;
        }
        if round.client.persistence_manager().is_saver_halted() {
            return Some(
                self.again_after("the session's state could not be written")
                    .await,
            );
        }
        if self.live.is_connected() {
            // Twice in a row: a reconnect of its own takes a moment.
            let gone = !round.client.is_connected();
            if gone && std::mem::replace(&mut round.suspicious, gone) {
                return self.lost(round, "the connection was lost").await;
            }
            round.suspicious = gone;
            return None;
        }
        if round.waits_for_phone {
            return None;
        }
        let silent = round.dialled.elapsed();
        let stuck = round.expects || round.was_connected;
        if (stuck && silent > self.live.shared.settings.rebuild_after) || silent > SILENT_FOR {
            return Some(self.again_after("the connection hangs").await);
        }
        None
    }

    async fn outdated(&mut self, refused: Version) -> Next {
        if self
            .live
            .shared
            .versions
            .after_refusal(refused)
            .await
            .is_some()
        {
            return Next::Again(Duration::from_secs(1));
        }
        self.end(SessionNews::Stopped {
            reason: StopReason::Outdated,
            detail: "WhatsApp refuses this version of its web client".to_owned(),
        })
        .await
    }

    /// Always before another client: two on one state would fight.
    async fn shut_down(&self, handle: BotHandle, next: &Next) {
        let lost = matches!(next, Next::LeaseLost);
        if lost {
            self.live.deadline.cut();
        }
        if tokio::time::timeout(SHUTDOWN_WITHIN, handle.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(session = %self.live.lease.session.id, "a session did not disconnect in time");
        }
        if !lost
            && tokio::time::timeout(SHUTDOWN_WITHIN, self.live.outbox_is_empty())
                .await
                .is_err()
        {
            tracing::warn!(session = %self.live.lease.session.id, "news of messages wait for the database");
        }
        self.live.clear_client();
    }
}

fn phone(jid: &Jid) -> Option<String> {
    E164::from_wa_id(jid.user_base()).ok().map(String::from)
}

fn words(reason: &DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::ServerClose { .. } | DisconnectReason::StreamEnded => {
            "WhatsApp closed the connection"
        }
        DisconnectReason::ReadError(_) | DisconnectReason::Unknown => "the connection was lost",
    }
}
