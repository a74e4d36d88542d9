//! Providers' webhooks: verify → parse → ledger → commit → 200.
//!
//! Nothing is acknowledged that is not committed, and nothing is stored that is not authentic. Parsing comes before
//! the check of the signature because the body names the channel whose secret is to be used; the parsers are pure,
//! total and fuzzed.

mod accept;
pub mod email;
pub mod replay;
pub mod twilio;
pub mod whatsapp;

pub use accept::{Accepted, Arrival, accept, path_and_query};
