//! Linked phones: what the sessions need of the server.

pub mod key_rows;
