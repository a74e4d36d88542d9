//! What makes a channel.
//!
//! Settings: `{from, smtp_ca?}`. `from` is the mailbox customers see and answer to, `Name <a@b>` or `a@b`;
//! `smtp_ca` is the PEM certificate of a private mail server's root, trusted instead of the system's. Secrets:
//! `{smtp_url?, webhook_secret?}`; without them the server's `SMTP_URL` and `EMAIL_WEBHOOK_SECRET` serve.
//! `webhook_secret` may be a list while it is being rotated.
//!
//! `smtp_url` is `smtps://user:password@host[:465]` (TLS from the start) or `smtp://user:password@host[:587]`, which
//! asks for STARTTLS and gives up without. `?tls=opportunistic` goes on in clear where the server has no TLS, and so
//! may carry no password; on a loopback address, where nobody listens in, nothing is asked for unless
//! `?tls=required` says so. A path names us to the server (`smtp://host/mail.example.com`). User and password are
//! percent-encoded.

use std::net::IpAddr;

use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::Certificate;
use lettre::transport::smtp::extension::ClientId;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

use crate::{ProviderConfig, SettingsError};

/// No `Debug`: it holds the secrets.
pub(super) struct Settings {
    pub from: Mailbox,
    /// `None`: the channel only receives.
    pub server: Option<Server>,
    /// Any of them signs inbound mail. May be empty: the channel only sends.
    pub webhook_secrets: Vec<String>,
}

/// The mail server that takes our messages.
#[derive(Clone)]
pub(super) struct Server {
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub credentials: Option<Credentials>,
    /// Trusted instead of the system's roots.
    pub root: Option<Certificate>,
    /// How we introduce ourselves.
    pub hello: ClientId,
    /// The password, so that it can be kept out of errors.
    pub password: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// Only on loopback addresses.
    Plain,
    /// STARTTLS where the server offers it.
    Opportunistic,
    /// STARTTLS or nothing.
    StartTls,
    /// TLS from the first byte.
    Tls,
}

impl Settings {
    pub fn read(
        config: &ProviderConfig,
        settings: &Value,
        secrets: &Value,
    ) -> Result<Self, SettingsError> {
        let from = text(settings, "from")?.ok_or_else(|| error("from", "is missing"))?;
        let root = text(settings, "smtp_ca")?
            .map(|pem| certificate(&pem))
            .transpose()?;
        let url = text(secrets, "smtp_url")?.or_else(|| {
            let shared = config.smtp_url.clone();
            shared.filter(|url| !url.is_empty())
        });
        Ok(Self {
            from: mailbox(&from)?,
            server: url.map(|url| server(&url, root)).transpose()?,
            webhook_secrets: webhook_secrets(secrets, config.email_webhook_secret.as_deref())?,
        })
    }
}

fn error(field: &'static str, reason: &str) -> SettingsError {
    SettingsError {
        field,
        reason: reason.to_owned(),
    }
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

fn mailbox(from: &str) -> Result<Mailbox, SettingsError> {
    if from.chars().any(char::is_control) {
        return Err(error(
            "from",
            "holds a line break or another control character",
        ));
    }
    from.parse()
        .map_err(|_| error("from", "is not a mailbox such as Name <name@example.com>"))
}

fn certificate(pem: &str) -> Result<Certificate, SettingsError> {
    let invalid = || error("smtp_ca", "is not a certificate in PEM form");
    // An empty list of certificates would be accepted, and would then trust nobody.
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(invalid());
    }
    Certificate::from_pem(pem.as_bytes()).map_err(|_| invalid())
}

/// The errors never repeat the address: it holds the password.
fn server(url: &str, root: Option<Certificate>) -> Result<Server, SettingsError> {
    let invalid = |reason| error("smtp_url", reason);
    let url = Url::parse(url).map_err(|_| invalid("is not an address such as smtps://host"))?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| invalid("names no host"))?
        .trim_matches(['[', ']'])
        .to_owned();
    let user = decoded(url.username());
    let password = url.password().map(decoded);
    let has_credentials = !user.is_empty();
    if password.is_some() && !has_credentials {
        return Err(invalid("has a password without a user"));
    }

    let mut tls = None;
    for (key, value) in url.query_pairs() {
        match (&*key, &*value) {
            ("tls", "required" | "opportunistic") => tls = Some(value.into_owned()),
            ("tls", _) => {
                return Err(invalid(
                    "has a tls parameter that is neither required nor opportunistic",
                ));
            }
            _ => return Err(invalid("has a parameter other than tls")),
        }
    }
    let security = match (url.scheme(), tls.as_deref()) {
        ("smtps", None | Some("required")) => Security::Tls,
        ("smtps", _) => return Err(invalid("is smtps, where TLS is not a matter of choice")),
        ("smtp", None) if is_loopback(&host) => Security::Plain,
        ("smtp", None | Some("required")) => Security::StartTls,
        ("smtp", _) if has_credentials && !is_loopback(&host) => {
            return Err(invalid(
                "has a password that tls=opportunistic might send in clear; use tls=required or smtps",
            ));
        }
        ("smtp", _) => Security::Opportunistic,
        _ => return Err(invalid("is neither smtp:// nor smtps://")),
    };
    let default_port = if security == Security::Tls { 465 } else { 587 };
    let name = decoded(url.path().trim_matches('/'));
    if [&user, &name, password.as_ref().unwrap_or(&user)]
        .iter()
        .any(|text| text.chars().any(char::is_control))
    {
        return Err(invalid("holds a control character"));
    }
    Ok(Server {
        port: url.port().unwrap_or(default_port),
        security,
        credentials: has_credentials
            .then(|| Credentials::new(user, password.clone().unwrap_or_default())),
        root,
        hello: if name.is_empty() {
            ClientId::default()
        } else {
            ClientId::Domain(name)
        },
        host,
        password,
    })
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn webhook_secrets(secrets: &Value, shared: Option<&str>) -> Result<Vec<String>, SettingsError> {
    let own = match secrets.get("webhook_secret") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(secret)) => vec![secret.clone()],
        Some(Value::Array(secrets)) => secrets
            .iter()
            .map(|secret| secret.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| error("webhook_secret", "holds something that is not a text"))?,
        Some(_) => {
            return Err(error(
                "webhook_secret",
                "is neither a text nor a list of texts",
            ));
        }
    };
    let mut all: Vec<String> = own
        .into_iter()
        .filter(|secret| !secret.is_empty())
        .collect();
    if all.is_empty() {
        all.extend(
            shared
                .filter(|secret| !secret.is_empty())
                .map(str::to_owned),
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(url: &str) -> Result<Server, SettingsError> {
        let settings = json!({"from": "Shop <shop@example.com>"});
        Settings::read(
            &ProviderConfig::default(),
            &settings,
            &json!({"smtp_url": url}),
        )
        .map(|settings| settings.server.unwrap())
    }

    #[test]
    fn an_address_says_how_the_connection_is_protected() {
        for (url, security, port) in [
            ("smtps://u:p@mail.example.com", Security::Tls, 465),
            ("smtp://u:p@mail.example.com", Security::StartTls, 587),
            (
                "smtp://mail.example.com:25?tls=required",
                Security::StartTls,
                25,
            ),
            (
                "smtp://mail.example.com?tls=opportunistic",
                Security::Opportunistic,
                587,
            ),
            ("smtp://u:p@127.0.0.1:2525", Security::Plain, 2525),
            ("smtp://localhost?tls=required", Security::StartTls, 587),
            ("smtp://[::1]:25", Security::Plain, 25),
        ] {
            let server = read(url).map_err(|error| error.to_string()).unwrap();
            assert_eq!((server.security, server.port), (security, port), "{url}");
        }
        let server = read("smtp://a%40b:p%2Fw@127.0.0.1/mx.example.com")
            .ok()
            .unwrap();
        assert_eq!(server.hello, ClientId::Domain("mx.example.com".to_owned()));
        assert_eq!(server.password.as_deref(), Some("p/w"));
    }

    #[test]
    fn an_unsafe_or_unknown_address_is_refused_without_repeating_it() {
        for url in [
            "http://u:hunter22@mail.example.com",
            "smtp://u:hunter22@mail.example.com?tls=opportunistic",
            "smtp://u:hunter22@mail.example.com?tls=none",
            "smtp://u:hunter22@mail.example.com?verify=no",
            "smtps://u:hunter22@mail.example.com?tls=opportunistic",
            "smtp://:hunter22@mail.example.com",
            "smtp://u:hunter22%0A@mail.example.com",
            "hunter22",
        ] {
            let error = read(url).err().unwrap();
            assert_eq!(error.field, "smtp_url", "{url}");
            assert!(!error.to_string().contains("hunter22"), "{error}");
        }
    }

    #[test]
    fn a_sender_is_a_mailbox_and_a_root_is_a_certificate() {
        let config = ProviderConfig::default();
        for from in [
            "shop",
            "a@b@c",
            "Shop <shop@example.com>\r\nBcc: x@y",
            "@example.com",
        ] {
            let error = Settings::read(&config, &json!({"from": from}), &json!({})).err();
            assert_eq!(error.unwrap().field, "from", "{from}");
        }
        let settings = json!({"from": "متجر <shop@example.com>", "smtp_ca": "no PEM"});
        let error = Settings::read(&config, &settings, &json!({})).err();
        assert_eq!(error.unwrap().field, "smtp_ca");
    }
}
