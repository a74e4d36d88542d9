//! How a session hears: messages before they are acknowledged, everything else as it comes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use tokio::sync::mpsc;
use whatsapp_rust::prelude::{
    Client, Event, EventHandler, EventInterest, EventKind, InboundMessage,
};
use whatsapp_rust::types::events::ChatPresenceUpdate;
use whatsapp_rust::types::presence::{ChatPresence, ChatPresenceMedia, ReceiptType};
use whatsapp_rust::wacore_binary::JidExt as _;
use whatsapp_rust::{InboundDurabilityHook, anyhow};

use super::live::{Live, Note};
use super::transport::DialNews;
use crate::host::{HostError, LiveSignal};
use crate::inbound::{self, Item, Receipt, Record, Who};
use crate::outbound::is_ours;

/// How long a message may wait for the database before the connection is given up. Meanwhile nothing else is received.
const PATIENCE: Duration = Duration::from_secs(20);

/// Commits messages before WhatsApp is told that they arrived.
pub(super) struct Hook(pub(super) Arc<Live>);

#[async_trait]
impl InboundDurabilityHook for Hook {
    async fn on_messages(
        &self,
        client: Arc<Client>,
        batch: &[InboundMessage],
    ) -> anyhow::Result<()> {
        let mut items = Vec::new();
        let mut events = Vec::new();
        for inbound in batch {
            let Some(heard) = inbound::heard(&client, inbound).await else {
                continue;
            };
            let of_it = inbound::translate(&heard, &inbound.message);
            if !of_it.is_empty() {
                events.extend(of_it);
                items.push(Item::Message(heard));
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let live = &self.0;
        let raw = Record::new(items).to_bytes();
        let mut pause = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        loop {
            anyhow::ensure!(live.deadline.holds(), "the lease is over");
            let session = &live.lease.session;
            let error = match live
                .shared
                .host
                .commit(session, raw.clone(), events.clone())
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error {
                HostError::Unavailable if waited < PATIENCE => {
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                // Refused as it is: kept whole without its events, so that it is not lost and comes no second time.
                HostError::Broken(reason) if !events.is_empty() => {
                    tracing::error!(session = %session.id, reason, "messages are kept without being understood");
                    events.clear();
                }
                error => {
                    tracing::warn!(session = %session.id, %error, "messages are not stored; they will come again");
                    live.tell(Note::Redeliver);
                    return Err(error.into());
                }
            }
        }
    }
}

/// Hears everything else. Called by the protocol crate where nothing may wait.
pub(super) struct Ears {
    live: Weak<Live>,
    notes: mpsc::Sender<Note>,
}

impl Ears {
    pub(super) fn new(live: &Arc<Live>, notes: mpsc::Sender<Note>) -> Self {
        Self {
            live: Arc::downgrade(live),
            notes,
        }
    }

    fn note(&self, note: Note) {
        // The channel holds far more than a connection's life has of these; a task that is stuck is cut by its lease.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.notes.try_send(note) {
            tracing::error!("a session does not follow its own news");
        }
    }
}

impl DialNews for Ears {
    fn dialled(&self, result: Result<(), &'static str>) {
        self.note(Note::Dialled(result));
    }
}

impl EventHandler for Ears {
    fn handle_event(&self, event: Arc<Event>) {
        let Some(live) = self.live.upgrade() else {
            return;
        };
        match &*event {
            Event::Receipt(receipt) => {
                let moved = match receipt.r#type {
                    ReceiptType::Delivered => Receipt::Delivered,
                    ReceiptType::Read => Receipt::Read,
                    ReceiptType::Played => Receipt::Played,
                    // From our own phone, or between machines.
                    _ => return,
                };
                if receipt.source.is_from_me {
                    return;
                }
                let ids = receipt
                    .message_ids
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                live.collect(inbound::receipt(ids, moved, receipt.timestamp));
            }
            Event::ServerAck(ack) => {
                if ack.class.as_deref() != Some("message") || !is_ours(&ack.id) {
                    return;
                }
                let answer = match &ack.error {
                    None => Ok(()),
                    Some(code) => Err(code.parse().unwrap_or(0)),
                };
                if !live.acks.arrived(&ack.id, answer)
                    && let Some(code) = &ack.error
                {
                    let at = ack.timestamp.unwrap_or_else(Utc::now);
                    live.collect(inbound::nack(ack.id.clone(), code.clone(), at));
                }
            }
            Event::ContactNumberChanged(changed) => {
                let before = [Some(&changed.old_jid), changed.old_lid.as_ref()];
                let now = [Some(&changed.new_jid), changed.new_lid.as_ref()];
                live.collect(Item::NumberChanged {
                    before: Who::named(before.into_iter().flatten()),
                    now: Who::named(now.into_iter().flatten()),
                    at: changed.timestamp.timestamp(),
                });
            }
            Event::ChatPresence(update) => {
                if let Some(signal) = typing(update) {
                    signal_later(&live, signal);
                }
            }
            Event::Presence(presence) => signal_later(
                &live,
                LiveSignal::Presence {
                    from: inbound::party_of([&presence.from]),
                    online: !presence.unavailable,
                    last_seen: presence.last_seen,
                },
            ),
            // What the hook saw is committed; what the phone resent for us is not.
            Event::Messages(batch) if batch.hook_committed => {}
            _ => self.note(Note::Event(event)),
        }
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&[
            EventKind::Connected,
            EventKind::Disconnected,
            EventKind::PairSuccess,
            EventKind::PairError,
            EventKind::LoggedOut,
            EventKind::PairingQrCode,
            EventKind::PairingQrCodesExhausted,
            EventKind::QrScannedWithoutMultidevice,
            EventKind::PairingCode,
            EventKind::PairingCodeRefresh,
            EventKind::PairingCodeError,
            EventKind::PairPasskeyRequest,
            EventKind::PairPasskeyConfirmation,
            EventKind::PairPasskeyError,
            EventKind::ClientOutdated,
            EventKind::StreamReplaced,
            EventKind::TemporaryBan,
            EventKind::ConnectFailure,
            EventKind::Messages,
            EventKind::Receipt,
            EventKind::ServerAck,
            EventKind::ChatPresence,
            EventKind::Presence,
            EventKind::ContactNumberChanged,
            EventKind::HistorySync,
        ])
    }
}

fn typing(update: &ChatPresenceUpdate) -> Option<LiveSignal> {
    let source = &update.source;
    if source.is_from_me {
        return None;
    }
    let group = source
        .chat
        .is_group()
        .then(|| source.chat.to_non_ad_string());
    let typing = matches!(update.state, ChatPresence::Composing);
    Some(LiveSignal::Typing {
        from: inbound::party_of(
            [Some(&source.sender), source.sender_alt.as_ref()]
                .into_iter()
                .flatten(),
        ),
        group,
        typing,
        recording: typing && matches!(update.media, ChatPresenceMedia::Audio),
    })
}

fn signal_later(live: &Arc<Live>, signal: LiveSignal) {
    // What cannot be shown at once is not worth a wait.
    let Ok(turn) = live.shared.signals.clone().try_acquire_owned() else {
        return;
    };
    let live = live.clone();
    tokio::spawn(async move {
        live.shared.host.signal(&live.lease.session, signal).await;
        drop(turn);
    });
}
