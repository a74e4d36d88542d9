//! The whole server over a real database and simulated providers. One binary, a module per topic.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod analytics;
mod auth;
mod automations;
mod binary;
mod bulk;
mod changes;
mod cli;
mod crash;
mod documents;
mod email;
mod engine;
mod functions;
mod governor;
mod import;
mod inbound;
mod inbound_kinds;
mod linked_phone_nodes;
mod linked_phones;
mod migrations;
mod notification_queue;
mod notifications;
mod outbound;
mod provider_templates;
mod reports;
mod rest;
mod scheduled;
#[cfg(feature = "linked-phones")]
mod session_keys;
mod sessions;
mod storage;
mod supabase_project;
mod templates;
mod tenancy;
mod written_names;
