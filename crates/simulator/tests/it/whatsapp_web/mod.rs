//! The simulated WhatsApp against a real client of it.

mod chats;
mod device;
mod ends;
