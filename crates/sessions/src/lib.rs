//! Linked phones: WhatsApp's multi-device protocol, one session per linked phone, many in one process.
//!
//! A manager runs the sessions whose lease this node holds. What it needs of the rest of the product is the [`Host`]
//! the server implements: leases, the rows of a session's state, and where its traffic goes.

pub mod host;
pub mod store;

pub use host::{
    Claimed, Host, HostError, KeyRow, KeyRows, Lease, LiveSignal, Session, SessionNews,
    SessionOptions, StopReason,
};
pub use store::Store;
