//! The database crate over a real Postgres.

mod cluster;
mod live_connections;
mod status;
