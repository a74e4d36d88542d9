//! What makes a channel. Settings: `{from}`. Secrets: `{smtp_url?, webhook_secret?}`.

use serde_json::Value;

use crate::{ProviderConfig, SettingsError};

/// No `Debug`: it holds the secrets.
pub(super) struct Settings {
    pub from: String,
}

impl Settings {
    pub fn read(
        _config: &ProviderConfig,
        settings: &Value,
        _secrets: &Value,
    ) -> Result<Self, SettingsError> {
        let from = settings
            .get("from")
            .and_then(Value::as_str)
            .ok_or(SettingsError {
                field: "from",
                reason: "is missing".to_owned(),
            })?;
        Ok(Self {
            from: from.to_owned(),
        })
    }
}
