use serde::{Deserialize, Serialize};

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// In the syntax of `tracing-subscriber`'s `EnvFilter`, which checks it at the start.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Logging {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.filter.trim().is_empty() {
            return Err("must not be empty; use \"off\" to log nothing".to_owned());
        }
        Ok(())
    }
}
