//! One binary for all tests of the providers.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests"
)]

mod conformance;
mod email;
mod stand_in;
mod twilio;
mod whatsapp_cloud;
