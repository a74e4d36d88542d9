//! How many requests of `/rest/v1` are served at the same time, over all and for each caller.
//!
//! They share their connections with the rest of the API, and what they ask for may take seconds and megabytes. So they get
//! half of the connections, and one tenant half of that: neither stops the others.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use wasel_domain::OrgId;
use wasel_rest::RestError;

/// How long a request waits for its turn: as long as for a connection.
const WAIT: Duration = Duration::from_secs(5);
/// A body up to this size is the connection's at once; a longer one goes there piece by piece.
const PIECE: usize = 64 << 10;
/// In this time the client has to have taken a long body.
const SEND_TIME: Duration = Duration::from_secs(60);

/// Whose place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// All strangers are one.
    Strangers,
    Tenant(OrgId),
    /// The service-role key without a tenant.
    Operator,
}

/// Counts the requests that are being served.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    of_each: usize,
    held: Mutex<HashMap<Holder, Weak<Semaphore>>>,
    wait: Duration,
}

/// A turn; over when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Places {
    /// For a pool of this many connections.
    #[must_use]
    pub fn of_pool(connections: u32) -> Self {
        Self::new(connections as usize, WAIT)
    }

    fn new(connections: usize, wait: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new((connections / 2).max(1))),
            of_each: (connections / 4).max(2),
            held: Mutex::default(),
            wait,
        }
    }

    /// Waits for a turn, not for long.
    pub(super) async fn enter(&self, holder: Holder) -> Result<Place, RestError> {
        let own = self.of(holder);
        let both = async {
            // Its own first: who waits for that takes nobody else's.
            let own = own.acquire_owned().await.ok()?;
            let of_all = self.all.clone().acquire_owned().await.ok()?;
            Some(Place {
                _of_all: of_all,
                _own: own,
            })
        };
        let entered = timeout(self.wait, both).await.ok().flatten();
        entered.ok_or_else(|| {
            RestError::new(
                504,
                "PGRST003",
                "Timed out acquiring connection from connection pool.",
            )
            .details("Too many requests are being served")
        })
    }

    fn of(&self, holder: Holder) -> Arc<Semaphore> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = held.get(&holder).and_then(Weak::upgrade) {
            return own;
        }
        held.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.of_each));
        held.insert(holder, Arc::downgrade(&own));
        own
    }
}

/// The body of an answer. A long one keeps the place until it is sent, so that nobody piles up answers by not reading
/// them; whoever takes too long gets no more of it.
pub(super) fn body(text: String, place: Place) -> Body {
    body_within(text, place, SEND_TIME)
}

fn body_within(text: String, place: Place, time: Duration) -> Body {
    if text.len() <= PIECE {
        return Body::from(text);
    }
    let mut left = text.len();
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let _place = place;
        let send = async {
            for piece in text.as_bytes().chunks(PIECE) {
                // A copy: what the connection still holds of it shall not keep the whole.
                if sender.send(Bytes::copy_from_slice(piece)).await.is_err() {
                    return;
                }
            }
            // The last piece was only put down; when it is fetched the receiver is dropped.
            sender.closed().await;
        };
        tokio::select! {
            () = send => {}
            () = sleep(time) => tracing::debug!("a client did not take its answer in time"),
        }
    });
    Body::from_stream(stream::poll_fn(move |context| {
        if left == 0 {
            receiver.close();
            return std::task::Poll::Ready(None);
        }
        receiver.poll_recv(context).map(|piece| match piece {
            Some(piece) => {
                left -= piece.len();
                Some(Ok(piece))
            }
            None => {
                left = 0;
                Some(Err(io::Error::from(io::ErrorKind::TimedOut)))
            }
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize) -> Places {
        Places::new(connections, Duration::from_millis(20))
    }

    #[tokio::test]
    async fn one_caller_leaves_places_to_the_others_and_all_leave_connections() {
        let places = places(16);
        let (a, b) = (Holder::Tenant(OrgId::generate()), Holder::Strangers);
        let mut of_a = Vec::new();
        for _ in 0..4 {
            of_a.push(places.enter(a).await.unwrap());
        }
        let refused = places.enter(a).await.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (504, "PGRST003"));
        let mut of_b = Vec::new();
        for _ in 0..4 {
            of_b.push(places.enter(b).await.unwrap());
        }
        assert!(
            places.enter(Holder::Operator).await.is_err(),
            "eight of sixteen"
        );
        of_a.pop();
        places.enter(Holder::Operator).await.unwrap();
        drop((of_a, of_b));
        places.enter(a).await.unwrap();
        assert_eq!(
            places.held.lock().unwrap().len(),
            1,
            "who left is forgotten"
        );
    }

    #[tokio::test]
    async fn a_long_answer_keeps_its_place_until_it_is_sent() {
        let places = places(2);
        let place = places.enter(Holder::Operator).await.unwrap();
        let text = "x".repeat(3 * PIECE + 1);
        let long = body_within(text.clone(), place, Duration::from_secs(600));
        assert!(places.enter(Holder::Operator).await.is_err());
        let sent = axum::body::to_bytes(long, usize::MAX).await.unwrap();
        assert_eq!(sent.len(), text.len());
        let patient = Places {
            wait: Duration::from_secs(60),
            ..places
        };
        let place = patient.enter(Holder::Operator).await.unwrap();
        // One that nobody reads gives its place back, and is not taken for whole.
        let unread = body_within(text, place, Duration::from_millis(1));
        let place = patient.enter(Holder::Operator).await.unwrap();
        assert!(axum::body::to_bytes(unread, usize::MAX).await.is_err());
        let short = body_within("[]".to_owned(), place, Duration::from_secs(600));
        patient.enter(Holder::Operator).await.unwrap();
        drop(short);
    }
}
