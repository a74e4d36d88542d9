//! What a session's task, its protocol client and its callers share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use whatsapp_rust::{Client, Jid};

use super::Shared;
use super::outbox::Outbox;
use crate::host::{Lease, SessionOptions};
use crate::lease::Deadline;

pub(crate) struct Live {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lease: Lease,
    pub(crate) options: SessionOptions,
    pub(crate) deadline: Arc<Deadline>,
    connection: Mutex<Connection>,
    pub(super) acks: Acks,
    pub(super) outbox: Outbox,
    pub(super) numbers: Numbers,
    /// WhatsApp unlinked the device.
    pub(super) logged_out: CancellationToken,
    /// Old messages taken over since the phone was linked.
    pub(super) history_taken: AtomicUsize,
}

#[derive(Default)]
struct Connection {
    client: Option<Arc<Client>>,
    /// Proven by an answer.
    proven: bool,
    notes: Option<mpsc::Sender<Note>>,
}

/// From callers and from the session's ears to its task.
pub(super) enum Note {
    Event(Arc<whatsapp_rust::prelude::Event>),
    Dialled(Result<(), &'static str>),
    /// A commit failed for good: what was not acknowledged comes again with the next connection.
    Redeliver,
    /// WhatsApp confirmed that we unlinked ourselves.
    LoggedOut,
}

impl Live {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lease: Lease,
        options: SessionOptions,
        deadline: Arc<Deadline>,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            lease,
            options,
            deadline,
            connection: Mutex::default(),
            acks: Acks::default(),
            outbox: Outbox::default(),
            numbers: Numbers::default(),
            logged_out: CancellationToken::new(),
            history_taken: AtomicUsize::new(0),
        })
    }

    pub(crate) fn is_connected(&self) -> bool {
        lock(&self.connection).proven && self.deadline.holds()
    }

    /// The client of a proven connection.
    pub(super) fn connected(&self) -> Option<Arc<Client>> {
        let connection = lock(&self.connection);
        connection.client.clone().filter(|_| connection.proven)
    }

    /// The client, connected or not (it may be waiting to be linked).
    pub(super) fn client(&self) -> Option<Arc<Client>> {
        lock(&self.connection).client.clone()
    }

    pub(super) fn set_client(&self, client: Arc<Client>, notes: mpsc::Sender<Note>) {
        *lock(&self.connection) = Connection {
            client: Some(client),
            proven: false,
            notes: Some(notes),
        };
    }

    /// Without this the client, which holds us, would never be freed.
    pub(super) fn clear_client(&self) {
        *lock(&self.connection) = Connection::default();
        self.acks.forget();
    }

    /// Returns what it was before.
    pub(super) fn set_proven(&self, proven: bool) -> bool {
        let before = std::mem::replace(&mut lock(&self.connection).proven, proven);
        if !proven {
            self.acks.forget();
        }
        before
    }

    /// To the session's task; false if it cannot be told.
    pub(super) fn tell(&self, note: Note) -> bool {
        let notes = lock(&self.connection).notes.clone();
        notes.is_some_and(|notes| notes.try_send(note).is_ok())
    }

    /// Takes up to `wanted` of what is left of `most` old messages.
    pub(super) fn take_history(&self, wanted: usize, most: usize) -> usize {
        let mut granted = 0;
        let _ = self
            .history_taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                granted = wanted.min(most.saturating_sub(taken));
                Some(taken + granted)
            });
        granted
    }
}

/// A panic elsewhere does not make the data wrong: each is changed in one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answers of WhatsApp's server that senders wait for, by message id.
#[derive(Default)]
pub(super) struct Acks(Mutex<HashMap<String, oneshot::Sender<Result<(), u16>>>>);

impl Acks {
    /// The receiver fails when the connection is lost before the answer.
    pub(super) fn expect(&self, id: &str) -> oneshot::Receiver<Result<(), u16>> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.0).insert(id.to_owned(), sender);
        receiver
    }

    /// Whether somebody waited for it.
    pub(super) fn arrived(&self, id: &str, answer: Result<(), u16>) -> bool {
        let waiting = lock(&self.0).remove(id);
        waiting.is_some_and(|waiting| waiting.send(answer).is_ok())
    }

    pub(super) fn remove(&self, id: &str) {
        lock(&self.0).remove(id);
    }

    fn forget(&self) {
        // Assigned, not cleared: a burst's memory goes back.
        *lock(&self.0) = HashMap::new();
    }
}

/// Which numbers have WhatsApp, and under which address.
#[derive(Default)]
pub(super) struct Numbers(Mutex<HashMap<String, (Option<Jid>, Instant)>>);

impl Numbers {
    const MOST: usize = 512;
    const KEPT: Duration = Duration::from_secs(24 * 3600);
    /// A number may be registered any moment.
    const ABSENT_KEPT: Duration = Duration::from_secs(10 * 60);

    pub(super) fn get(&self, digits: &str) -> Option<Option<Jid>> {
        let known = lock(&self.0);
        let (jid, at) = known.get(digits)?;
        let kept = if jid.is_some() {
            Self::KEPT
        } else {
            Self::ABSENT_KEPT
        };
        (at.elapsed() < kept).then(|| jid.clone())
    }

    pub(super) fn put(&self, digits: &str, jid: Option<Jid>) {
        let mut known = lock(&self.0);
        if known.len() >= Self::MOST {
            *known = HashMap::new();
        }
        known.insert(digits.to_owned(), (jid, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_reaches_the_one_who_waits_and_a_lost_connection_ends_the_wait() {
        let acks = Acks::default();
        let (taken, refused, lost) = (acks.expect("A"), acks.expect("B"), acks.expect("C"));
        assert!(acks.arrived("A", Ok(())));
        assert!(acks.arrived("B", Err(463)));
        assert!(!acks.arrived("A", Ok(())), "nobody waits any more");
        acks.forget();
        assert_eq!(taken.await, Ok(Ok(())));
        assert_eq!(refused.await, Ok(Err(463)));
        assert!(lost.await.is_err());
    }

    #[test]
    fn what_is_known_of_numbers_is_bounded() {
        let numbers = Numbers::default();
        for number in 0..Numbers::MOST * 3 {
            numbers.put(&number.to_string(), None);
        }
        assert!(lock(&numbers.0).len() <= Numbers::MOST);
        numbers.put("2010", Some(Jid::pn("2010")));
        assert_eq!(numbers.get("2010"), Some(Some(Jid::pn("2010"))));
        assert_eq!(numbers.get("unknown"), None);
    }
}
