//! What a channel is configured with.
//!
//! Settings: `{waba_id, phone_number_id, display_phone_number?}`.
//! Secrets: `{access_token, app_secret?, verify_token?}`. `app_secret` may be a list while it is being rotated:
//! a webhook signed with any of them is believed. The server's own `META_APP_SECRET` and `META_VERIFY_TOKEN` stand
//! in where a channel names none, for installations with one Meta app for all.

use serde_json::Value;

use crate::{ProviderConfig, SettingsError};

/// A text that is never printed.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[derive(Debug)]
pub(super) struct Settings {
    pub waba_id: String,
    pub phone_number_id: String,
    pub access_token: Secret,
    /// None: no webhook of this channel can be believed.
    pub app_secrets: Vec<Secret>,
    pub verify_token: Option<Secret>,
}

impl Settings {
    pub fn read(
        config: &ProviderConfig,
        settings: &Value,
        secrets: &Value,
    ) -> Result<Self, SettingsError> {
        let mut app_secrets = app_secrets(secrets)?;
        if app_secrets.is_empty() {
            app_secrets.extend(shared(config.meta_app_secret.as_deref()));
        }
        optional(settings, "display_phone_number")?;
        Ok(Self {
            waba_id: graph_id(settings, "waba_id")?,
            phone_number_id: graph_id(settings, "phone_number_id")?,
            access_token: access_token(secrets)?,
            app_secrets,
            verify_token: optional(secrets, "verify_token")?
                .map(|token| Secret(token.to_owned()))
                .or_else(|| shared(config.meta_verify_token.as_deref())),
        })
    }
}

/// An id of Meta's: digits, and part of the path of every request, so nothing else gets in.
fn graph_id(settings: &Value, field: &'static str) -> Result<String, SettingsError> {
    let id = required(settings, field)?;
    if !id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong(field, "must be an id of digits"));
    }
    Ok(id.to_owned())
}

fn access_token(secrets: &Value) -> Result<Secret, SettingsError> {
    let token = required(secrets, "access_token")?;
    // It becomes a header.
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(wrong(
            "access_token",
            "must have no spaces or other characters a token never has",
        ));
    }
    Ok(Secret(token.to_owned()))
}

fn app_secrets(secrets: &Value) -> Result<Vec<Secret>, SettingsError> {
    let Some(Value::Array(list)) = secrets.get("app_secret") else {
        let one = optional(secrets, "app_secret")?;
        return Ok(one
            .map(|text| Secret(text.to_owned()))
            .into_iter()
            .collect());
    };
    list.iter()
        .map(|item| match item.as_str() {
            Some(text) if !text.trim().is_empty() => Ok(Secret(text.trim().to_owned())),
            _ => Err(wrong("app_secret", "must be a text or a list of texts")),
        })
        .collect()
}

fn required<'a>(object: &'a Value, field: &'static str) -> Result<&'a str, SettingsError> {
    optional(object, field)?.ok_or_else(|| wrong(field, "is missing"))
}

/// An empty text counts as absent: an empty secret would let anybody sign.
fn optional<'a>(object: &'a Value, field: &'static str) -> Result<Option<&'a str>, SettingsError> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(_) => Err(wrong(field, "must be a text")),
    }
}

fn shared(text: Option<&str>) -> Option<Secret> {
    text.map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| Secret(text.to_owned()))
}

fn wrong(field: &'static str, reason: &str) -> SettingsError {
    SettingsError {
        field,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn printed_settings_hold_no_secret() {
        let settings = json!({"waba_id": "1", "phone_number_id": "2"});
        let secrets = json!({
            "access_token": "EAAGtoken", "app_secret": ["old", "new"], "verify_token": "let-me-in",
        });
        let read = Settings::read(&ProviderConfig::default(), &settings, &secrets).unwrap();
        let printed = format!("{read:?}");
        assert!(printed.contains("phone_number_id: \"2\""), "{printed}");
        for secret in ["EAAGtoken", "old", "new", "let-me-in"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}
