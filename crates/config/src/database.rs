use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::values::{Secret, optional};

/// Postgres and the data directory.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Not set: the server runs its own cluster in `data_dir`.
    #[serde(with = "optional")]
    pub url: Option<Secret>,
    pub data_dir: PathBuf,
    pub tenant_connections: NonZeroU32,
    pub system_connections: NonZeroU32,
    pub ingest_connections: NonZeroU32,
}

impl Database {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.data_dir.as_os_str().is_empty() {
            return Err("must not be empty".to_owned());
        }
        let is_postgres = |url: &Secret| {
            Url::parse(url.expose())
                .is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"))
        };
        match &self.url {
            Some(url) if !is_postgres(url) => {
                Err("must be postgres://user:password@host:5432/database, \
                 with special characters of the password percent-encoded"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }
}
