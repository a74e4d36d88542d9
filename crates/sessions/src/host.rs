//! What a session needs of the server: leases, sealed rows, and somewhere to put what it hears.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;
use wasel_domain::{ChannelId, OrgId, ProviderEvent};

/// One linked phone: a row of `whatsapp_sessions` and the channel it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub org_id: OrgId,
    pub id: Uuid,
    pub channel_id: ChannelId,
}

/// The right to run a session until it runs out. A newer lease of the same session has a higher fencing token, and
/// writes under an older one are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub session: Session,
    pub token: i64,
}

/// A session this node now runs.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub lease: Lease,
    pub options: SessionOptions,
}

/// What an administrator chose for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Linking by code on this phone instead of by QR; E.164.
    pub pair_with_phone: Option<String>,
    /// Try again by itself after a lost connection.
    pub auto_reconnect: bool,
    /// How many days of old messages to take over when the phone is linked; 0 for none.
    pub history_days: u16,
}

/// Something about the session changed; the server writes it to the session's row, where front ends watch it.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionNews {
    /// Dialling, with so many failures in a row before.
    Connecting { failures: u32 },
    /// To be shown as a QR code until it expires; the next one replaces it.
    QrCode {
        code: String,
        expires_at: DateTime<Utc>,
    },
    /// To be typed in on the phone (eight characters).
    PairingCode {
        code: String,
        expires_at: DateTime<Utc>,
    },
    /// WhatsApp asks for a passkey: the options for `navigator.credentials.get` on web.whatsapp.com, as JSON.
    PasskeyRequested { request_options_json: String },
    /// The phone shows this code, too; the person compares them.
    PasskeyConfirmation { code: String },
    /// The phone accepted us. Not connected yet.
    Linked {
        jid: String,
        lid: Option<String>,
        phone: Option<String>,
        display_name: Option<String>,
    },
    /// Proven by an answered request, not only by an open socket.
    Connected {
        jid: String,
        phone: Option<String>,
        display_name: Option<String>,
    },
    /// The connection is lost and will be tried again.
    Disconnected { reason: String, failures: u32 },
    /// It ended and waits for a person. The state is kept.
    Stopped { reason: StopReason, detail: String },
    /// The phone or we unlinked it for good: the state is to be wiped.
    LoggedOut { detail: String },
}

/// Why a session does not run until somebody does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// No phone scanned a code in time.
    NotLinked,
    /// Another program connected with the same state.
    Replaced,
    /// WhatsApp blocked the account for a time.
    Banned,
    /// WhatsApp refuses this version of the client.
    Outdated,
    /// WhatsApp refused the connection for good.
    Refused,
    /// The connection was lost and `auto_reconnect` is off.
    Lost,
    /// The session's state cannot be read or written.
    State,
}

impl StopReason {
    /// As `whatsapp_sessions` and the audit log show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotLinked => "not_linked",
            Self::Replaced => "replaced",
            Self::Banned => "banned",
            Self::Outdated => "outdated",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::State => "state",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another node has the session by now: stop at once and write nothing.
    #[error("the lease is another node's")]
    LeaseLost,
    /// Try again: the database is away.
    #[error("the database is not available")]
    Unavailable,
    /// Trying again changes nothing.
    #[error("{0}")]
    Broken(String),
}

/// The server, as the sessions see it.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Takes up to `limit` enabled sessions that nobody runs, each for `ttl` from now.
    async fn claim(&self, limit: usize, ttl: Duration) -> Result<Vec<Claimed>, HostError>;

    /// Extends the leases to `ttl` from now and returns those that are still ours and still enabled.
    async fn renew(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Lease>, HostError>;

    /// Gives leases back, so that another node may go on at once.
    async fn release(&self, leases: &[Lease]) -> Result<(), HostError>;

    /// The session's own rows. Every write is refused with [`HostError::LeaseLost`] once the lease is not the newest.
    fn key_rows(&self, lease: &Lease) -> Arc<dyn KeyRows>;

    /// Records what became of a session.
    async fn news(&self, lease: &Lease, news: SessionNews) -> Result<(), HostError>;

    /// Stores what the session heard. `Ok` means committed: only then is it acknowledged to WhatsApp. `raw` is kept in
    /// the ledger, from which a replay reads the same events again.
    async fn commit(
        &self,
        session: &Session,
        raw: Bytes,
        events: Vec<ProviderEvent>,
    ) -> Result<(), HostError>;

    /// What does not last: typing, presence.
    async fn signal(&self, session: &Session, signal: LiveSignal);
}

/// Something to show now and to forget.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveSignal {
    /// A customer types (or records), or stopped. `group` is the group's JID.
    Typing {
        from: wasel_domain::event::Party,
        group: Option<String>,
        typing: bool,
        recording: bool,
    },
    Presence {
        from: wasel_domain::event::Party,
        online: bool,
        last_seen: Option<DateTime<Utc>>,
    },
}

/// One row of a session's state: keys and values in plain. What is stored hides both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Which family of rows.
    pub kind: i16,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// When the row was last of use (Unix seconds), for kinds whose old rows are deleted.
    pub touched: Option<i64>,
}

/// The rows of one session's state.
#[async_trait]
pub trait KeyRows: Send + Sync {
    /// The values of those keys that exist.
    async fn get(&self, kind: i16, keys: &[&[u8]]) -> Result<Vec<KeyRow>, HostError>;

    /// All rows of one family.
    async fn list(&self, kind: i16) -> Result<Vec<KeyRow>, HostError>;

    /// Inserts or replaces, all or nothing.
    async fn put(&self, rows: Vec<KeyRow>) -> Result<(), HostError>;

    async fn delete(&self, kind: i16, keys: &[&[u8]]) -> Result<(), HostError>;

    /// Deletes a whole family.
    async fn delete_kind(&self, kind: i16) -> Result<(), HostError>;

    /// Deletes the rows of a family last touched before `touched`; returns how many.
    async fn delete_before(&self, kind: i16, touched: i64) -> Result<u64, HostError>;
}
