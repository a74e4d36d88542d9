//! The encryption keys, and the secrets a server makes for itself.

mod generated;

use serde::{Deserialize, Serialize};

use crate::values::{Secret, optional};

pub use generated::{ENCRYPTION_KEY, FILE_NAME, Generated, GeneratedError, JWT_SECRET};

/// The keys that seal what the database keeps secret.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// 32 bytes as 64 hex digits. Set after [`crate::Config::complete_secrets`].
    #[serde(with = "optional")]
    pub encryption_key: Option<Secret>,
    /// Open only, never seal.
    pub previous_encryption_keys: Vec<Secret>,
}

impl Secrets {
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut keys = self
            .encryption_key
            .iter()
            .chain(&self.previous_encryption_keys);
        if keys.all(|key| is_encryption_key(key.expose())) {
            Ok(())
        } else {
            Err("must be 32 bytes as 64 hex digits; `openssl rand -hex 32` makes one".to_owned())
        }
    }
}

fn is_encryption_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
