//! A loopback WhatsApp multi-device server and the phones on it.
//!
//! Clients of WhatsApp Web (linked devices) connect to [`WhatsappWeb::url`], show a QR or a code, and are linked when
//! a simulated phone scans it. From then on everything is as with the real thing: Noise on the socket, Signal end to
//! end, one-time keys, fan-out to all devices, receipts, an offline queue. The phones really encrypt and decrypt.
//! Everything is in memory and ends with the simulator.
//!
//! The server signs its certificates with a root of its own, so a client has to be built to accept that. Media goes
//! over plain HTTP on the same port: the host the server names is `127.0.0.1:PORT`, and a client that builds an
//! `https` address from it has to say `http` instead.
//!
//! [`control`] lists the routes below `/sim/whatsapp-web`.

mod code;
mod content;
pub(crate) mod control;
mod faults;
mod frames;
mod groups;
mod iq;
mod keys;
mod login;
mod media;
mod messages;
mod model;
mod noise;
mod pairing;
mod passkey;
mod phone;
mod receipts;
mod seal;
mod send;
mod socket;
mod state;
mod usync;
mod view;
mod welcome;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio_util::sync::CancellationToken;

pub use model::*;
use noise::ServerKeys;
use state::State;

/// Why a phone would not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum WhatsappWebError {
    #[error("no such phone is registered")]
    UnknownPhone,
    #[error("no such message")]
    UnknownMessage,
    #[error("no such group")]
    UnknownGroup,
    /// The QR is not shown by any device, or no longer.
    #[error("no device shows this code")]
    UnknownCode,
    #[error("the device did not complete the linking: {0}")]
    NotLinked(String),
    #[error("{0}")]
    Invalid(String),
}

/// What a client sent that cannot be right. Ends its connection, or is answered with an error.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("handshake: {0}")]
    Handshake(&'static str),
    #[error("frame: {0}")]
    Frame(&'static str),
    #[error("stanza: {0}")]
    Stanza(&'static str),
    #[error("{0}")]
    Crypto(String),
    /// Read before.
    #[error("a message was read before")]
    Duplicate,
}

impl Broken {
    fn crypto(error: impl std::fmt::Display) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// Handle to the simulated WhatsApp; clones share it.
#[derive(Clone)]
pub struct WhatsappWeb {
    hub: Arc<Hub>,
}

struct Hub {
    me: Weak<Hub>,
    /// Never locked before a phone: a phone's lock comes first, and no two phones are locked at once.
    state: Mutex<State>,
    media: Mutex<media::Store>,
    keys: ServerKeys,
    /// `host:port` of the HTTP server.
    host: String,
    stop: CancellationToken,
    tasks: tokio_util::task::TaskTracker,
}

impl WhatsappWeb {
    pub(crate) fn new(host: String, stop: CancellationToken) -> std::io::Result<Self> {
        let keys = ServerKeys::generate().map_err(std::io::Error::other)?;
        Ok(Self {
            hub: Arc::new_cyclic(|me| Hub {
                me: me.clone(),
                state: Mutex::default(),
                media: Mutex::default(),
                keys,
                host,
                stop,
                tasks: tokio_util::task::TaskTracker::new(),
            }),
        })
    }

    /// For `WHATSAPP_WEB_URL`.
    pub fn url(&self) -> String {
        format!("ws://{}/whatsapp-web/ws/chat", self.hub.host)
    }

    /// The root key this server's certificates lead to, in hexadecimal: for clients that can be told another one than
    /// WhatsApp's, as Baileys can by `WA_CERT_DETAILS.PUBLIC_KEY`.
    pub fn root_key(&self) -> String {
        hex::encode(self.hub.keys.root)
    }

    /// The routes clients use: the socket and the media store.
    pub(crate) fn router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        socket::router()
            .merge(media::router())
            .with_state(Arc::clone(&self.hub))
    }

    pub(crate) async fn stopped(&self) {
        self.hub.tasks.close();
        self.hub.tasks.wait().await;
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Runs `work` in the background until it ends or the simulator stops.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// A panic under a lock is a bug, but its test should fail, not every other one.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Digits of a number written in any usual way.
///
/// # Errors
/// When it is not a phone number.
fn digits(number: &str) -> Result<String, WhatsappWebError> {
    let digits: String = number
        .trim()
        .trim_start_matches('+')
        .chars()
        .filter(|c| !matches!(c, ' ' | '-' | '(' | ')'))
        .collect();
    let plausible = (5..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if plausible {
        Ok(digits)
    } else {
        Err(WhatsappWebError::Invalid("not a phone number".to_owned()))
    }
}
