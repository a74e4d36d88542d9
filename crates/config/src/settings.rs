//! The list of settings and the names of their environment variables.

use crate::DEFAULTS;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Section and name: `server.port`.
    pub key: String,
    /// Its environment variable: `PORT`.
    pub variable: String,
    /// Whether its value is never shown, and `<variable>_FILE` is read too.
    pub secret: bool,
}

/// Variables with a name of their own, which other software and the documents rely on. All other settings are called
/// `WASEL_<SECTION>_<KEY>`.
const NAMED: &[(&str, &str)] = &[
    ("server.port", "PORT"),
    ("server.public_url", "PUBLIC_URL"),
    ("server.allowed_origins", "ALLOWED_ORIGINS"),
    ("database.url", "DATABASE_URL"),
    ("database.data_dir", "WASEL_DATA_DIR"),
    ("auth.jwt_secret", "JWT_SECRET"),
    ("auth.jwks_url", "JWKS_URL"),
    ("auth.supabase_url", "SUPABASE_URL"),
    ("auth.supabase_anon_key", "SUPABASE_ANON_KEY"),
    (
        "auth.supabase_service_role_key",
        "SUPABASE_SERVICE_ROLE_KEY",
    ),
    ("secrets.encryption_key", "ENCRYPTION_KEY"),
    (
        "secrets.previous_encryption_keys",
        "PREVIOUS_ENCRYPTION_KEYS",
    ),
    ("providers.meta_graph_base", "META_GRAPH_BASE"),
    ("providers.meta_app_secret", "META_APP_SECRET"),
    ("providers.meta_verify_token", "META_VERIFY_TOKEN"),
    ("providers.twilio_account_sid", "TWILIO_ACCOUNT_SID"),
    ("providers.twilio_auth_token", "TWILIO_AUTH_TOKEN"),
    ("providers.twilio_phone_number", "TWILIO_PHONE_NUMBER"),
    ("providers.twilio_api_base", "TWILIO_API_BASE"),
    ("providers.whatsapp_web_url", "WHATSAPP_WEB_URL"),
    ("providers.smtp_url", "SMTP_URL"),
    ("providers.mail_from", "MAIL_FROM"),
    ("providers.email_webhook_secret", "EMAIL_WEBHOOK_SECRET"),
    ("outbox.retry_base", "OUTBOX_RETRY_BASE"),
    ("outbox.reconcile_wait", "OUTBOX_RECONCILE_WAIT"),
    ("reserved.openai_base_url", "OPENAI_BASE_URL"),
    ("reserved.openai_api_key", "OPENAI_API_KEY"),
    ("reserved.sentry_dsn", "SENTRY_DSN"),
    (
        "reserved.otel_exporter_otlp_endpoint",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
];

/// Second names, read where the setting's own variable is not set.
const ALIASES: &[(&str, &str)] = &[("META_VERIFY_TOKEN", "WHATSAPP_WEBHOOK_SECRET")];

const SECRET: &[&str] = &[
    "database.url",
    "auth.jwt_secret",
    "auth.supabase_anon_key",
    "auth.supabase_service_role_key",
    "secrets.encryption_key",
    "secrets.previous_encryption_keys",
    "providers.meta_app_secret",
    "providers.meta_verify_token",
    "providers.twilio_auth_token",
    "providers.smtp_url",
    "providers.email_webhook_secret",
    "storage.secret_access_key",
    "reserved.openai_api_key",
    "reserved.sentry_dsn",
];

/// Every setting, in the order of `config.default.toml`.
#[must_use]
pub fn settings() -> Vec<Setting> {
    let mut section = "";
    let mut settings = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            settings.push(Setting::new(section, name));
        }
    }
    settings
}

impl Setting {
    fn new(section: &str, name: &str) -> Self {
        let key = format!("{section}.{name}");
        let variable = NAMED.iter().find(|(named, _)| *named == key).map_or_else(
            || format!("WASEL_{section}_{name}").to_uppercase(),
            |(_, variable)| (*variable).to_owned(),
        );
        let secret = SECRET.contains(&key.as_str());
        Self {
            key,
            variable,
            secret,
        }
    }

    /// The variables to look at, the first that is set counts.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        let alias = ALIASES
            .iter()
            .find(|(variable, _)| *variable == self.variable);
        std::iter::once(self.variable.as_str()).chain(alias.map(|(_, alias)| *alias))
    }

    /// Section and name apart.
    pub(crate) fn path(&self) -> (&str, &str) {
        self.key.split_once('.').unwrap_or((&self.key, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_or_secret_setting_exists() {
        let keys: Vec<String> = settings().into_iter().map(|setting| setting.key).collect();
        for key in NAMED.iter().map(|(key, _)| key).chain(SECRET) {
            assert!(keys.iter().any(|known| known == key), "{key}");
        }
        for (variable, _) in ALIASES {
            assert!(
                NAMED.iter().any(|(_, named)| named == variable),
                "{variable}"
            );
        }
    }

    #[test]
    fn no_two_settings_share_a_variable() {
        let settings = settings();
        let mut variables: Vec<&str> = settings.iter().flat_map(Setting::variables).collect();
        let all = variables.len();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), all);
    }

    #[test]
    fn every_setting_is_explained_and_names_its_variable() {
        let lines: Vec<&str> = DEFAULTS.lines().collect();
        for setting in settings() {
            let (section, name) = setting.path();
            let start = lines
                .iter()
                .position(|line| *line == format!("[{section}]"))
                .unwrap();
            let at = start
                + lines[start..]
                    .iter()
                    .position(|line| line.starts_with(&format!("{name} = ")))
                    .unwrap();
            let comment: Vec<&str> = lines[..at]
                .iter()
                .rev()
                .take_while(|line| line.starts_with("# "))
                .copied()
                .collect();
            assert!(
                (1..=2).contains(&comment.len()),
                "{}: one or two comment lines",
                setting.key
            );
            let words = comment.join(" ");
            assert!(
                words
                    .split_whitespace()
                    .any(|word| word == setting.variable),
                "{}: the comment does not name {}",
                setting.key,
                setting.variable
            );
            assert_eq!(
                words.to_lowercase().contains("secret. ") || words.contains(", secret. "),
                setting.secret,
                "{}: the comment must say whether it is a secret",
                setting.key
            );
        }
    }
}
