//! Linked phones: what the server does for the sessions of `wasel-sessions`.

pub mod qr;
