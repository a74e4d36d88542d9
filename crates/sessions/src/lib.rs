//! Linked phones: WhatsApp's multi-device protocol, one session per linked phone, many in one process.
//!
//! A [`Manager`] runs the sessions whose lease this node holds. What it needs of the rest of the product is the
//! [`Host`] the server implements: leases, the rows of a session's state, and where its traffic goes.
//!
//! The protocol crates log through `log`, with keys and addresses of people in the lines. Whoever forwards `log`
//! records (a tracing subscriber does) must switch off every target for which [`is_protocol_log`] is true.

mod command;
pub mod host;
mod http;
mod inbound;
mod lease;
mod manager;
mod media;
mod outbound;
mod session;
mod settings;
pub mod store;

pub use command::{Command, CommandError};
pub use host::{
    Claimed, Host, HostError, KeyRow, KeyRows, Lease, LiveSignal, Session, SessionNews,
    SessionOptions, StopReason,
};
pub use inbound::{ReplayError, replay};
pub use manager::{Counts, Manager};
pub use media::{FetchError, MediaLimits, fetch_media};
pub use outbound::{MediaFile, Outgoing, Quoted, Recipient, SendFailure, Sent};
pub use settings::{DEFAULT_URL, Settings, SettingsError, TRUSTS_SIMULATOR};
pub use store::Store;

/// Whether a record of this `log` target comes from the protocol crates, which print identity keys and JIDs.
#[must_use]
pub fn is_protocol_log(target: &str) -> bool {
    const MODULES: [&str; 4] = ["whatsapp_rust", "wacore", "waproto", "buffa"];
    // Names they chose instead of their module paths.
    const NAMES: [&str; 12] = [
        "AppState",
        "Blocking",
        "Bot/",
        "Chatstate",
        "Client/",
        "MessageQueue",
        "Mex",
        "PresenceHandler",
        "TcToken",
        "UnifiedSession",
        "blocklist",
        "usync",
    ];
    MODULES
        .iter()
        .chain(&NAMES)
        .any(|name| target.starts_with(name))
}
