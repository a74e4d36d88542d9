use serde::{Deserialize, Serialize};
use url::Url;

use crate::values::{Secret, WebUrl, optional};

/// Settings whose names are fixed already and which a later release reads.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reserved {
    pub openai_base_url: WebUrl,
    #[serde(with = "optional")]
    pub openai_api_key: Option<Secret>,
    #[serde(with = "optional")]
    pub sentry_dsn: Option<Secret>,
    #[serde(with = "optional")]
    pub otel_exporter_otlp_endpoint: Option<WebUrl>,
}

impl Reserved {
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_web = |dsn: &Secret| {
            Url::parse(dsn.expose()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        };
        match &self.sentry_dsn {
            Some(dsn) if !is_web(dsn) => {
                Err("must be an address such as https://key@host/project".to_owned())
            }
            _ => Ok(()),
        }
    }
}
