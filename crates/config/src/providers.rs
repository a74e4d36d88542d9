use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::values::{Secret, SocketUrl, WebUrl, optional};

/// Where the providers are, and what channels use that name nothing of their own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Providers {
    pub meta_graph_base: WebUrl,
    pub meta_graph_version: String,
    #[serde(with = "optional")]
    pub meta_app_secret: Option<Secret>,
    #[serde(with = "optional")]
    pub meta_verify_token: Option<Secret>,
    #[serde(with = "optional")]
    pub twilio_account_sid: Option<String>,
    #[serde(with = "optional")]
    pub twilio_auth_token: Option<Secret>,
    /// E.164, with the plus sign.
    #[serde(with = "optional")]
    pub twilio_phone_number: Option<String>,
    pub twilio_api_base: WebUrl,
    #[serde(with = "optional")]
    pub whatsapp_web_url: Option<SocketUrl>,
    #[serde(with = "optional")]
    pub smtp_url: Option<Secret>,
    #[serde(with = "optional")]
    pub mail_from: Option<String>,
    #[serde(with = "optional")]
    pub email_webhook_secret: Option<Secret>,
    #[serde(with = "crate::values::duration::positive")]
    pub connect_timeout: Duration,
    #[serde(with = "crate::values::duration::positive")]
    pub request_timeout: Duration,
    #[serde(with = "crate::values::duration::positive")]
    pub media_timeout: Duration,
}

impl Providers {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_graph_version(&self.meta_graph_version) {
            return Err("must be a version such as v26.0".to_owned());
        }
        if self
            .twilio_phone_number
            .as_deref()
            .is_some_and(|number| !is_e164(number))
        {
            return Err("must be a number in E.164, such as +14155238886".to_owned());
        }
        if self
            .smtp_url
            .as_ref()
            .is_some_and(|url| !is_smtp(url.expose()))
        {
            return Err(
                "must be smtps://user:password@host:465 or smtp://user:password@host:587, \
                 with special characters of the password percent-encoded"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn is_graph_version(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_prefix('v')
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(major, minor)| number(major) && number(minor))
}

fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0')
    })
}

fn is_smtp(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "smtp" | "smtps")
            && url.host_str().is_some_and(|host| !host.is_empty())
    })
}
