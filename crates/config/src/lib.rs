//! The configuration: defaults, then a file, then the environment.
//!
//! `config.default.toml` is default, manual and sample at once: its text is compiled in and is the only place where a
//! default is written. Each of its sections is one struct in one file here.
//!
//! To add a setting: a commented line in `config.default.toml` and a field in the section's struct; where the
//! variable is not to be called `WASEL_<SECTION>_<KEY>`, or the value is a secret, a line in `settings.rs` as well.
//! The tests fail when one of them is forgotten.

mod dump;
mod error;
mod load;
mod settings;
mod source;
mod values;

pub mod auth;
pub mod database;
pub mod limits;
pub mod logging;
pub mod outbox;
pub mod providers;
pub mod reserved;
pub mod retention;
pub mod secrets;
pub mod server;
pub mod storage;

use serde::{Deserialize, Serialize};

pub use auth::Auth;
pub use database::Database;
pub use error::ConfigError;
pub use limits::Limits;
pub use load::process_environment;
pub use logging::{LogFormat, Logging};
pub use outbox::Outbox;
pub use providers::Providers;
pub use reserved::Reserved;
pub use retention::Retention;
pub use secrets::Secrets;
pub use server::Server;
pub use settings::{Setting, settings};
pub use source::Source;
pub use storage::{Storage, Switch};
pub use values::{Secret, SocketUrl, WebUrl, parse_duration};

/// The text of `config.default.toml`.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The whole configuration, checked. Made by [`Config::load`]; `Config::default()` is `config.default.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub database: Database,
    pub auth: Auth,
    pub secrets: Secrets,
    pub providers: Providers,
    pub limits: Limits,
    pub outbox: Outbox,
    pub storage: Storage,
    pub retention: Retention,
    pub logging: Logging,
    pub reserved: Reserved,
    /// Where each setting that is not a default came from, by key (`server.port`).
    #[serde(skip)]
    pub sources: std::collections::BTreeMap<String, Source>,
}

impl Default for Config {
    fn default() -> Self {
        load::parse(load::default_table()).expect("config.default.toml is valid: a test reads it")
    }
}

impl Config {
    /// Advice about values that are accepted but unwise, one sentence each, without secrets.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        // RFC 7518 §3.2: an HS256 key is at least as long as the hash.
        if self
            .auth
            .jwt_secret
            .as_ref()
            .is_some_and(|secret| secret.expose().len() < 32)
        {
            warnings.push("JWT_SECRET is shorter than 32 bytes and can be guessed".to_owned());
        }
        if self
            .server
            .public_url
            .as_ref()
            .is_some_and(|url| url.as_str().starts_with("http:"))
        {
            warnings
                .push("PUBLIC_URL is not https: providers call https addresses only".to_owned());
        }
        if self.providers.mail_from.is_some() && self.providers.smtp_url.is_none() {
            warnings.push("MAIL_FROM has no effect without SMTP_URL".to_owned());
        }
        warnings
    }
}
