//! What makes a channel.
//!
//! Settings: `{account_sid, from, messaging_service_sid?}`. `from` is a number in E.164, a short code or, for
//! SMS, an alphanumeric sender; a `whatsapp:` prefix is dropped. Secrets: `{auth_token}`, a string or, while a
//! token is being rotated, a list of strings: the first one is used to send, all of them to check signatures.
//! Without one the server's `TWILIO_AUTH_TOKEN` serves.

use serde_json::Value;

use super::address::{self, Network};
use crate::SettingsError;

/// No `Debug`: it holds the tokens.
pub(super) struct Settings {
    pub account_sid: String,
    /// Normalised as [`address::normalise`] does, so that it compares equal to a webhook's.
    pub from: String,
    pub messaging_service_sid: Option<String>,
    /// At least one.
    pub auth_tokens: Vec<String>,
}

impl Settings {
    pub fn read(
        network: Network,
        settings: &Value,
        secrets: &Value,
        shared_token: Option<&str>,
    ) -> Result<Self, SettingsError> {
        let account_sid = text(settings, "account_sid")?.ok_or_else(|| missing("account_sid"))?;
        sid("account_sid", &account_sid, "AC")?;
        let messaging_service_sid = text(settings, "messaging_service_sid")?;
        if let Some(service) = &messaging_service_sid {
            sid("messaging_service_sid", service, "MG")?;
        }
        let from = text(settings, "from")?.ok_or_else(|| missing("from"))?;
        Ok(Self {
            account_sid,
            from: sender(network, &from)?,
            messaging_service_sid,
            auth_tokens: tokens(secrets, shared_token)?,
        })
    }

    /// The token to send with.
    pub fn auth_token(&self) -> Option<&str> {
        self.auth_tokens.first().map(String::as_str)
    }
}

fn error(field: &'static str, reason: &str) -> SettingsError {
    SettingsError {
        field,
        reason: reason.to_owned(),
    }
}

fn missing(field: &'static str) -> SettingsError {
    error(field, "is missing")
}

/// A text that may be left out; empty and `null` count as left out.
fn text(object: &Value, field: &'static str) -> Result<Option<String>, SettingsError> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        }
        Some(_) => Err(error(field, "is not a text")),
    }
}

/// A SID goes into the path of a request, so it may not hold anything that means something there.
fn sid(field: &'static str, value: &str, prefix: &str) -> Result<(), SettingsError> {
    let is_plain = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if value.starts_with(prefix) && value.len() > prefix.len() && is_plain {
        Ok(())
    } else {
        Err(error(
            field,
            &format!("is not an id that starts with {prefix}"),
        ))
    }
}

fn sender(network: Network, from: &str) -> Result<String, SettingsError> {
    let from = address::normalise(address::without_prefix(from));
    let is_number = address::is_e164(&from);
    let is_sms_sender = address::is_short_code(&from) || address::is_alphanumeric_sender(&from);
    match network {
        _ if is_number => Ok(from),
        Network::Sms if is_sms_sender => Ok(from),
        Network::Sms => Err(error(
            "from",
            "is neither a number in E.164 nor a short code nor a sender name of up to 11 letters and digits",
        )),
        Network::Whatsapp => Err(error("from", "is not a number in E.164")),
    }
}

fn tokens(secrets: &Value, shared: Option<&str>) -> Result<Vec<String>, SettingsError> {
    let own = match secrets.get("auth_token") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(token)) => vec![token.clone()],
        Some(Value::Array(tokens)) => tokens
            .iter()
            .map(|token| token.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| error("auth_token", "holds something that is not a text"))?,
        Some(_) => return Err(error("auth_token", "is neither a text nor a list of texts")),
    };
    let mut tokens: Vec<String> = own.into_iter().filter(|token| !token.is_empty()).collect();
    if tokens.is_empty() {
        tokens.extend(shared.filter(|token| !token.is_empty()).map(str::to_owned));
    }
    if tokens.is_empty() {
        return Err(missing("auth_token"));
    }
    Ok(tokens)
}
