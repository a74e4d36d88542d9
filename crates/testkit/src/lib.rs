//! What tests of the whole are made of. For development only.
//!
//! - [`TestDb`]: a database of the test's own, cloned from one migrated template.
//! - [`TestApp`]: the real server in this process, with a simulator for its providers.
//! - [`Org`]: a tenant with people and channels, declared as an operator would.
//! - [`Chaos`]: a proxy that breaks the way to the database or to a provider.
//! - [`meta`] and [`twilio`]: webhooks signed as the providers sign them.
//!
//! Everything here panics where a test could not go on: this is test code in a crate of its own.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "test code: a failure here is a failed test"
)]

mod app;
mod chaos;
mod db;
pub mod meta;
mod org;
mod server;
pub mod twilio;
mod wait;

pub use app::{Answer, TestApp, TestAppBuilder};
pub use chaos::Chaos;
pub use db::TestDb;
pub use org::{Mailbox, Org, People};
pub use wait::{PATIENCE, wait_until};
