//! The stand-in for Meta's Graph API: takes every message after a fixed time and remembers what came, when and from which
//! number.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What stands before the number in a message's text.
pub const PREFIX: &str = "No. ";

/// One message that came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When its request had been read.
    pub at: Instant,
    /// The sending number.
    pub phone_number_id: u64,
    /// From its text; the same for a message sent twice, whatever the attempt.
    pub number: u64,
}

#[derive(Clone)]
pub struct Provider {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    delay: Duration,
    arrivals: Mutex<Vec<Arrival>>,
    came: Notify,
}

/// What matters here of `POST /{version}/{phone_number_id}/messages`.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    text: Text<'a>,
}

#[derive(Deserialize)]
struct Text<'a> {
    #[serde(borrow)]
    body: Cow<'a, str>,
}

impl Provider {
    /// Listens on a free port of this machine until the program ends.
    pub async fn start(delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            delay,
            arrivals: Mutex::default(),
            came: Notify::new(),
        });
        let router = Router::new()
            .route("/{version}/{phone_number_id}/messages", post(take))
            .with_state(shared.clone());
        let listener = listener.tap_io(|stream| {
            // Where it cannot be set, answers merely come later.
            let _ = stream.set_nodelay(true);
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, shared })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.shared
            .arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what came until now and returns it, oldest first.
    pub fn take_arrivals(&self) -> Vec<Arrival> {
        let mut arrivals = std::mem::take(&mut *self.lock());
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// When the message with this number came, waiting for it for `limit` at most.
    pub async fn wait_for(&self, number: u64, limit: Duration) -> Result<Instant> {
        let search = async {
            loop {
                let came = self.shared.came.notified();
                let found = self
                    .lock()
                    .iter()
                    .rev()
                    .find(|arrival| arrival.number == number)
                    .map(|arrival| arrival.at);
                match found {
                    Some(at) => return at,
                    None => came.await,
                }
            }
        };
        tokio::time::timeout(limit, search)
            .await
            .with_context(|| format!("message {number} did not come within {limit:?}"))
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    Path((_version, phone_number_id)): Path<(String, u64)>,
    body: Bytes,
) -> Response {
    let at = Instant::now();
    let Some((to, number)) = read(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let nth = {
        let mut arrivals = shared
            .arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        arrivals.push(Arrival {
            at,
            phone_number_id,
            number,
        });
        arrivals.len()
    };
    shared.came.notify_waiters();
    tokio::time::sleep(shared.delay).await;
    let answer = format!(
        r#"{{"messaging_product":"whatsapp","contacts":[{{"input":"{to}","wa_id":"{wa_id}"}}],"messages":[{{"id":"wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI{number:016X}{nth:08X}AA=="}}]}}"#,
        wa_id = to.trim_start_matches('+'),
    );
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

/// The address and the number of a message.
fn read(body: &[u8]) -> Option<(Cow<'_, str>, u64)> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let number = number_in(&body.text.body)?;
    Some((body.to, number))
}

/// The number in a message's text.
pub fn number_in(text: &str) -> Option<u64> {
    text.strip_prefix(PREFIX)?.split(':').next()?.parse().ok()
}

/// How many arrivals repeat an earlier one.
pub fn doubles(arrivals: &[Arrival]) -> usize {
    let distinct: HashSet<u64> = arrivals.iter().map(|arrival| arrival.number).collect();
    arrivals.len() - distinct.len()
}

/// The most arrivals in any second, wherever it begins. `arrivals`: oldest first.
pub fn most_in_a_second<'a>(arrivals: impl Iterator<Item = &'a Arrival> + Clone) -> usize {
    let mut ends = arrivals.clone().enumerate().peekable();
    let mut most = 0;
    let mut behind = 0;
    for (index, first) in arrivals.enumerate() {
        while let Some((end, _)) =
            ends.next_if(|(_, later)| later.at.duration_since(first.at) < Duration::from_secs(1))
        {
            behind = end + 1;
        }
        most = most.max(behind - index);
    }
    most
}

/// The most that any number sent by the least that any of `numbers` did, in the middle half of the time. `arrivals`:
/// oldest first.
pub fn spread(arrivals: &[Arrival], numbers: &[u64]) -> f64 {
    let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) else {
        return f64::NAN;
    };
    let quarter = last.at.duration_since(first.at) / 4;
    let middle = first.at + quarter..last.at - quarter;
    let mut counts: HashMap<u64, u32> = numbers.iter().map(|number| (*number, 0)).collect();
    for arrival in arrivals
        .iter()
        .filter(|arrival| middle.contains(&arrival.at))
    {
        if let Some(count) = counts.get_mut(&arrival.phone_number_id) {
            *count += 1;
        }
    }
    let most = counts.values().max().copied().unwrap_or(0);
    let least = counts.values().min().copied().unwrap_or(0);
    f64::from(most) / f64::from(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(at_ms: &[u64]) -> Vec<Arrival> {
        let begin = Instant::now();
        let arrival = |ms: &u64| Arrival {
            at: begin + Duration::from_millis(*ms),
            phone_number_id: ms % 2,
            number: *ms,
        };
        at_ms.iter().map(arrival).collect()
    }

    #[test]
    fn the_fullest_second_is_found_wherever_it_begins() {
        let most = |at_ms: &[u64]| most_in_a_second(arrivals(at_ms).iter());
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[0, 999, 1000, 1001, 1998, 3000]), 4);
        assert_eq!(most(&[0, 1000, 2000]), 1);
    }

    #[test]
    fn a_message_sent_by_two_attempts_is_a_double() {
        let mut arrivals = arrivals(&[1, 2, 3]);
        assert_eq!(doubles(&arrivals), 0);
        arrivals[2].number = 1;
        assert_eq!(doubles(&arrivals), 1);
    }

    #[test]
    fn the_spread_counts_the_middle_and_those_who_got_nothing() {
        // The middle is 100 to 300; number 0 sends three there, number 1 two.
        let arrivals = arrivals(&[0, 100, 101, 200, 201, 202, 300, 400]);
        assert_eq!(spread(&arrivals, &[0, 1]), 1.5);
        assert_eq!(spread(&arrivals, &[0, 1, 7]), f64::INFINITY);
    }

    #[test]
    fn the_number_is_read_from_the_text() {
        let body = br#"{"to":"+16501","type":"text","text":{"body":"No. 42: \u0645"},"biz_opaque_callback_data":"x"}"#;
        assert_eq!(read(body), Some(("+16501".into(), 42)));
        assert_eq!(read(br#"{"to":"+16501","text":{"body":"hello"}}"#), None);
    }
}
