//! Requests to Meta's Graph API for one number.

use std::time::Duration;

use bytes::Bytes;
use reqwest::RequestBuilder;
use url::Url;

use super::errors;
use super::settings::{Secret, Settings};
use crate::{ErrorClass, ProviderConfig, SendError, SettingsError};

/// Meta's own server, where the configuration names no other.
const DEFAULT_BASE: &str = "https://graph.facebook.com";
/// The Graph version this code was checked against.
const DEFAULT_VERSION: &str = "v26.0";
/// For one request with its answer, files aside.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Graph {
    base: Url,
    version: String,
    pub phone_number_id: String,
    pub access_token: Secret,
}

impl Graph {
    pub fn new(config: &ProviderConfig, settings: &Settings) -> Result<Self, SettingsError> {
        let base = or_default(config.meta_graph_base.trim_end_matches('/'), DEFAULT_BASE);
        let wrong_base = || SettingsError {
            field: "META_GRAPH_BASE",
            reason: "must be an http or https address".to_owned(),
        };
        let base = Url::parse(base).map_err(|_| wrong_base())?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong_base());
        }
        Ok(Self {
            base,
            version: or_default(&config.meta_graph_version, DEFAULT_VERSION).to_owned(),
            phone_number_id: settings.phone_number_id.clone(),
            access_token: settings.access_token.clone(),
        })
    }

    /// The configured server: scheme, host and port.
    pub fn is_own_server(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// `{base}/{version}/{path}`, each segment escaped.
    pub fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&self.version).extend(path);
        }
        url
    }

    /// Sends a request with our token and hands back the body of a successful answer.
    pub async fn call(
        &self,
        request: RequestBuilder,
        private: &[&str],
    ) -> Result<Bytes, SendError> {
        let response = request
            .bearer_auth(self.access_token.expose())
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| SendError::from_http(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match response.bytes().await {
            Ok(body) => body,
            // The status line of a refusal is enough to know that nothing was taken.
            Err(_) if !status.is_success() => return Err(errors::from_status(status, &headers)),
            Err(error) => return Err(SendError::from_http(&error)),
        };
        let mut hidden = vec![self.access_token.expose()];
        hidden.extend(private);
        if let Some(error) = errors::from_answer(status, &headers, &body, &hidden) {
            return Err(error);
        }
        if !status.is_success() {
            return Err(errors::from_status(status, &headers));
        }
        Ok(body)
    }
}

/// For requests that change nothing or can be repeated: a lost answer is only trouble.
pub(super) fn repeatable(mut error: SendError) -> SendError {
    if error.class == ErrorClass::Ambiguous {
        error.class = ErrorClass::Transient;
    }
    error
}

fn or_default<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}
