//! A phone: device 0 of its account. It reads and writes like any device, and keeps what it saw.

mod records;
mod signal;
mod stores;

use std::collections::{HashMap, HashSet, VecDeque};

use waproto::whatsapp as wa;

pub(super) use records::{Arrived, Records};
pub(super) use signal::{Sealed, Signal, address, public_bytes};

use super::{
    Broken,
    model::{WhatsappFailure, WhatsappPhoneSettings},
    state::DeviceId,
};

/// Messages a phone can encrypt again when asked to.
const KEPT_FOR_RETRY: usize = 500;
const KEPT_FAILURES: usize = 1_000;

pub(super) struct Phone {
    pub(super) signal: Signal,
    pub(super) records: Records,
    pub(super) settings: WhatsappPhoneSettings,
    /// Devices that have this phone's key of a group.
    pub(super) distributed: HashMap<String, HashSet<DeviceId>>,
    /// What the other side of a chat is doing: `composing`, `recording`, `paused`.
    pub(super) moods: HashMap<String, String>,
    pub(super) failures: VecDeque<WhatsappFailure>,
    sent: VecDeque<Sent>,
}

/// A message of this phone, as it was before encryption.
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) chat: String,
    pub(super) message: wa::Message,
    pub(super) kind: &'static str,
}

impl Phone {
    pub(super) fn new(settings: WhatsappPhoneSettings) -> Result<Self, Broken> {
        Ok(Self {
            signal: Signal::generate()?,
            records: Records::default(),
            settings,
            distributed: HashMap::new(),
            moods: HashMap::new(),
            failures: VecDeque::new(),
            sent: VecDeque::new(),
        })
    }

    pub(super) fn remember_sent(&mut self, sent: Sent) {
        if self.sent.len() == KEPT_FOR_RETRY {
            self.sent.pop_front();
        }
        self.sent.push_back(sent);
    }

    pub(super) fn sent(&self, id: &str) -> Option<&Sent> {
        self.sent.iter().rev().find(|sent| sent.id == id)
    }

    /// Notes a message that could not be read; returns how often this one could not be.
    pub(super) fn failed(&mut self, failure: WhatsappFailure) -> usize {
        if self.failures.len() == KEPT_FAILURES {
            self.failures.pop_front();
        }
        let same = |f: &&WhatsappFailure| f.id == failure.id && f.device == failure.device;
        let times = self.failures.iter().filter(same).count() + 1;
        self.failures.push_back(failure);
        times
    }
}
