//! Drives whole sockets over in-memory transports, with the frames that the real client sends.

mod broadcast;
mod changes;
mod harness;
mod limits;
mod peers;
mod presence;
mod private;
mod resume;
mod tokens;
