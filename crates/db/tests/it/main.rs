//! The database crate over a real Postgres.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod cluster;
mod lanes;
mod live_connections;
mod node_messages;
mod status;
