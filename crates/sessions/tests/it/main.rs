//! Sessions against the simulated WhatsApp: real sockets, real encryption, and a host in memory.

mod host;
mod lease;
mod life;
mod link;
mod talk;
