use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::values::{Secret, WebUrl, optional};

/// Who may call.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Set after [`crate::Config::complete_secrets`].
    #[serde(with = "optional")]
    pub jwt_secret: Option<Secret>,
    #[serde(with = "optional")]
    pub jwks_url: Option<WebUrl>,
    #[serde(with = "optional")]
    pub supabase_url: Option<WebUrl>,
    #[serde(with = "optional")]
    pub supabase_anon_key: Option<Secret>,
    #[serde(with = "optional")]
    pub supabase_service_role_key: Option<Secret>,
    #[serde(with = "crate::values::duration::positive")]
    pub access_token_ttl: Duration,
    #[serde(with = "crate::values::duration")]
    pub refresh_reuse_window: Duration,
}

impl Auth {
    /// Where the public keys are that verify ES256 and RS256 tokens: as set, else where a Supabase project has them.
    /// <https://supabase.com/docs/guides/auth/signing-keys>
    #[must_use]
    pub fn public_keys_url(&self) -> Option<String> {
        match (&self.jwks_url, &self.supabase_url) {
            (Some(url), _) => Some(url.as_str().to_owned()),
            (None, Some(project)) => Some(format!(
                "{}/auth/v1/.well-known/jwks.json",
                project.as_str()
            )),
            (None, None) => None,
        }
    }
}
