//! Background work, one file each.

pub mod check_messages;
pub mod fetch_media;
pub mod follow_failures;
pub mod housekeeping;
pub mod reconcile;
pub mod run_automations;
pub mod send_message;
