//! Sessions against the simulated WhatsApp: real sockets, real encryption, and a host in memory.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod host;
mod lease;
mod life;
mod link;
mod talk;
