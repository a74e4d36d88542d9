//! The server side of Supabase's Realtime protocol: codec, change hub, broadcast and presence.
//!
//! The client is the unmodified `@supabase/supabase-js`. The crate knows neither HTTP nor the database: the server hands
//! every upgraded WebSocket to [`run`], every batch of committed changes to [`Hub::publish`], answers through
//! [`Authorizer`] what a token may see, reads changes again through [`History`], and carries messages to other nodes through
//! [`Peers`].

mod auth;
mod binding;
mod catalog;
mod change;
pub mod codec;
pub mod filter;
mod history;
mod hub;
mod limits;
mod outbox;
mod peers;
mod socket;

pub use auth::{Authorizer, Claims, ErrorCode, TokenError, TopicRights};
pub use catalog::{Catalog, Column, TableInfo};
pub use change::{Change, ChangeOp};
pub use codec::{BroadcastPayload, Vsn};
pub use history::{Ask, History, HistoryError, Page};
pub use hub::{Hub, Stats};
pub use limits::Limits;
pub use peers::{PeerMessage, Peers, PresenceEntry, TopicName};
pub use socket::{ConnectParams, Disconnect, Frame, run};
