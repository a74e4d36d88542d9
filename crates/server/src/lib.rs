//! The server: HTTP, background jobs, wiring, command line.

pub mod app;
pub mod auth;
pub mod bulk;
pub mod cli;
pub mod governor;
mod history;
pub mod holds;
pub mod http;
pub mod jobs;
pub mod linked_phones;
pub mod nodes;
pub mod notify;
pub mod outbound;
pub mod provider_templates;
pub mod queue;
pub mod registry;
pub mod scheduled;
pub mod state;
pub mod storage;
pub mod tail;
