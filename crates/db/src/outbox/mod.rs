//! What is to be sent. A row is a message's place in the queue; it goes when the provider has the message.
//!
//! - [`claim`]: taking rows, lane by lane, under a lease
//! - [`lanes`]: which lanes there are, and from where each is read on
//! - [`record`]: writing down how sends ended, many at once
//! - [`recover`]: what a dead process left behind
//!
//! A row is *ready* (`due_at` is null), *waiting* (until `due_at`) or *leased* (a process is sending it). Whoever locks
//! rows of both tables locks messages before outbox rows, as `wasel.advance_status` does; a claim locks outbox rows
//! alone and waits for nobody.

pub mod claim;
pub mod lanes;
pub mod record;
pub mod recover;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

/// For statements that join a few rows with whole tables by their indexes. The planner knows neither how many rows come
/// nor how the tables fill, and must not read one whole.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// A message a worker has taken to send now.
#[derive(Clone, Debug, FromRow)]
pub struct Claimed {
    pub org_id: Uuid,
    pub message_id: Uuid,
    pub channel_id: Uuid,
    pub conversation_id: Uuid,
    pub contact_id: Uuid,
    pub attempt_id: Uuid,
    /// This attempt's number, from 1.
    pub attempts: i32,
    /// `wasel_domain::Category`.
    pub category: String,
    pub at_most_once: bool,
    pub content: Value,
    pub quoted_message_id: Option<String>,
    /// The group it goes to, where it goes to one.
    pub group_id: Option<String>,
    /// When the worker took it.
    pub claimed_at: DateTime<Utc>,
    /// What it was last held for, if it ever was.
    pub held_for: Option<String>,
}

/// Why an attempt did not go through.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The class's name, e.g. `throttled_pair`.
    pub class: &'static str,
    pub code: Option<String>,
    /// For people.
    pub message: String,
}

/// What to do with a message after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send again after this time.
    Retry(Duration),
    /// It is unknown whether the provider took it: wait this long for its callback, then follow the policy.
    Reconcile(Duration),
    /// Give up: the message failed.
    Fail,
}
