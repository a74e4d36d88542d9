//! Mailboxes, what came in, and the faults that are left.

use std::collections::{BTreeMap, VecDeque};

use super::model::{MailFaults, MailServer, Mailbox, ReceivedEmail};

/// Newest e-mails kept.
const KEEP: usize = 10_000;

pub(crate) struct Mail {
    pub(super) server: MailServer,
    /// By address in lower case.
    pub(super) mailboxes: BTreeMap<String, Mailbox>,
    pub(super) received: VecDeque<ReceivedEmail>,
    pub(super) faults: MailFaults,
}

/// What follows a message that was taken.
pub(super) enum Taken {
    Answer,
    Silence,
}

impl Mail {
    pub(crate) fn new(server: MailServer) -> Self {
        Self {
            server,
            mailboxes: BTreeMap::new(),
            received: VecDeque::new(),
            faults: MailFaults::default(),
        }
    }

    /// Forgets what came in.
    pub(crate) fn clear(&mut self) {
        self.received.clear();
    }

    /// The address this login may send from.
    pub(super) fn log_in(&mut self, user: &str, password: &str) -> Option<String> {
        let found = self
            .mailboxes
            .values()
            .find(|mailbox| mailbox.user == user && mailbox.password == password)
            .map(|mailbox| mailbox.address.clone());
        found.filter(|_| !strikes(&mut self.faults.refuse_login))
    }

    pub(super) fn refusal_of_recipient(&mut self) -> Option<&'static str> {
        if strikes(&mut self.faults.greylist) {
            Some("450 4.2.0 greylisted, try again later")
        } else if strikes(&mut self.faults.reject_recipient) {
            Some("550 5.1.1 no such mailbox")
        } else {
            None
        }
    }

    /// Keeps an e-mail. Says how to answer, and whether it bounces.
    pub(super) fn keep(&mut self, email: ReceivedEmail) -> (Taken, bool) {
        self.received.push_back(email);
        if self.received.len() > KEEP {
            self.received.pop_front();
        }
        let answer = if strikes(&mut self.faults.drop_before_reply) {
            Taken::Silence
        } else {
            Taken::Answer
        };
        (answer, strikes(&mut self.faults.bounce))
    }

    pub(super) fn find(&self, message_id: &str) -> Option<ReceivedEmail> {
        let mut newest_first = self.received.iter().rev();
        newest_first
            .find(|email| email.message_id == message_id)
            .cloned()
    }
}

/// Takes one of what is left.
fn strikes(left: &mut u32) -> bool {
    let is_left = *left > 0;
    *left = left.saturating_sub(1);
    is_left
}
