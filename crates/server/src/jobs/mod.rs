//! Background work, one file each.

pub mod check_messages;
pub mod feed_bulk_jobs;
pub mod fetch_media;
pub mod follow_failures;
pub mod housekeeping;
pub mod listen_queue;
pub mod process_queue;
pub mod reconcile;
pub mod refresh_analytics;
pub mod run_automations;
pub mod send_mail;
pub mod send_message;
pub mod send_scheduled;
pub mod sweep_storage;
pub mod watch_rights;
