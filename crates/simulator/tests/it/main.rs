//! The simulator seen from outside: a real HTTP client and a real webhook receiver on loopback.

mod control;
mod faults;
mod meta;
mod receiver;
mod smtp;
mod support;
mod twilio;
#[cfg(feature = "linked-phones")]
mod whatsapp_web;
