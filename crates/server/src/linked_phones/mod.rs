//! Linked phones in this server: where the sessions' leases, state and traffic go, and how messages reach them.
//!
//! - [`phones`]: the sessions of this process
//! - `host`: what the sessions need of the server
//! - `news`: what became of a session, as its row and the people see it
//! - `key_rows`: a session's sealed state
//! - `send`: from an outbound message to the session that sends it
//! - `files`: the files messages name by a link
//! - `commands`: what people ask of a session, on whichever node it runs
//! - [`qr`]: QR codes as pictures
//!
//! Without the feature `linked-phones` there are none, and nothing of their code is linked.

#[cfg(feature = "linked-phones")]
pub mod commands;
#[cfg(feature = "linked-phones")]
mod files;
#[cfg(feature = "linked-phones")]
mod host;
#[cfg(feature = "linked-phones")]
pub mod key_rows;
#[cfg(feature = "linked-phones")]
mod news;
#[cfg(feature = "linked-phones")]
pub mod phones;
#[cfg(not(feature = "linked-phones"))]
#[path = "absent.rs"]
pub mod phones;
pub mod qr;
#[cfg(feature = "linked-phones")]
mod send;

pub use phones::{Phones, is_protocol_log};
