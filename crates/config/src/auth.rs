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
