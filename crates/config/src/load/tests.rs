use std::collections::HashMap;
use std::fs;

use super::*;
use crate::LogFormat;

/// Every variable with a value that is valid and differs from the default, and what its setting then is in TOML.
/// Secrets are shown as `***`.
const VARIABLES: &[(&str, &str, &str, &str)] = &[
    ("PORT", "8080", "server.port", "8080"),
    ("WASEL_SERVER_LISTEN", "::1", "server.listen", "'::1'"),
    (
        "PUBLIC_URL",
        "https://chat.example.com/",
        "server.public_url",
        "'https://chat.example.com'",
    ),
    (
        "ALLOWED_ORIGINS",
        "https://a.example, https://b.example",
        "server.allowed_origins",
        "['https://a.example', 'https://b.example']",
    ),
    (
        "WASEL_SERVER_TRUSTED_PROXY_HOPS",
        "2",
        "server.trusted_proxy_hops",
        "2",
    ),
    (
        "WASEL_SERVER_SHUTDOWN_GRACE",
        "0s",
        "server.shutdown_grace",
        "'0s'",
    ),
    (
        "DATABASE_URL",
        "postgres://wasel:hunter2@db:5432/wasel",
        "database.url",
        "'***'",
    ),
    (
        "WASEL_DATA_DIR",
        "/var/lib/wasel",
        "database.data_dir",
        "'/var/lib/wasel'",
    ),
    (
        "WASEL_DATABASE_TENANT_CONNECTIONS",
        "40",
        "database.tenant_connections",
        "40",
    ),
    (
        "WASEL_DATABASE_SYSTEM_CONNECTIONS",
        "20",
        "database.system_connections",
        "20",
    ),
    (
        "WASEL_DATABASE_INGEST_CONNECTIONS",
        "4",
        "database.ingest_connections",
        "4",
    ),
    (
        "JWT_SECRET",
        "hunter2 hunter2 hunter2 hunter2 hunter2",
        "auth.jwt_secret",
        "'***'",
    ),
    (
        "JWKS_URL",
        "https://p.supabase.co/auth/v1/.well-known/jwks.json",
        "auth.jwks_url",
        "'https://p.supabase.co/auth/v1/.well-known/jwks.json'",
    ),
    (
        "SUPABASE_URL",
        "https://p.supabase.co",
        "auth.supabase_url",
        "'https://p.supabase.co'",
    ),
    (
        "SUPABASE_ANON_KEY",
        "hunter2",
        "auth.supabase_anon_key",
        "'***'",
    ),
    (
        "SUPABASE_SERVICE_ROLE_KEY",
        "hunter2",
        "auth.supabase_service_role_key",
        "'***'",
    ),
    (
        "WASEL_AUTH_ACCESS_TOKEN_TTL",
        "10m",
        "auth.access_token_ttl",
        "'10m'",
    ),
    (
        "WASEL_AUTH_REFRESH_REUSE_WINDOW",
        "0s",
        "auth.refresh_reuse_window",
        "'0s'",
    ),
    (
        "ENCRYPTION_KEY",
        "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF",
        "secrets.encryption_key",
        "'***'",
    ),
    (
        "PREVIOUS_ENCRYPTION_KEYS",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff,ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "secrets.previous_encryption_keys",
        "['***', '***']",
    ),
    (
        "META_GRAPH_BASE",
        "http://127.0.0.1:4000/meta/",
        "providers.meta_graph_base",
        "'http://127.0.0.1:4000/meta'",
    ),
    (
        "WASEL_PROVIDERS_META_GRAPH_VERSION",
        "v25.0",
        "providers.meta_graph_version",
        "'v25.0'",
    ),
    (
        "META_APP_SECRET",
        "hunter2",
        "providers.meta_app_secret",
        "'***'",
    ),
    (
        "META_VERIFY_TOKEN",
        "hunter2",
        "providers.meta_verify_token",
        "'***'",
    ),
    (
        "WHATSAPP_WEBHOOK_SECRET",
        "hunter2",
        "providers.meta_verify_token",
        "'***'",
    ),
    (
        "TWILIO_ACCOUNT_SID",
        "AC0123456789abcdef0123456789abcdef",
        "providers.twilio_account_sid",
        "'AC0123456789abcdef0123456789abcdef'",
    ),
    (
        "TWILIO_AUTH_TOKEN",
        "hunter2",
        "providers.twilio_auth_token",
        "'***'",
    ),
    (
        "TWILIO_PHONE_NUMBER",
        "+14155238886",
        "providers.twilio_phone_number",
        "'+14155238886'",
    ),
    (
        "TWILIO_API_BASE",
        "http://127.0.0.1:4000",
        "providers.twilio_api_base",
        "'http://127.0.0.1:4000'",
    ),
    (
        "WHATSAPP_WEB_URL",
        "ws://127.0.0.1:4000/ws/chat",
        "providers.whatsapp_web_url",
        "'ws://127.0.0.1:4000/ws/chat'",
    ),
    (
        "SMTP_URL",
        "smtps://wasel:hunter2@mail.example.com:465",
        "providers.smtp_url",
        "'***'",
    ),
    (
        "MAIL_FROM",
        "Wasel <no-reply@example.com>",
        "providers.mail_from",
        "'Wasel <no-reply@example.com>'",
    ),
    (
        "EMAIL_WEBHOOK_SECRET",
        "hunter2",
        "providers.email_webhook_secret",
        "'***'",
    ),
    (
        "WASEL_PROVIDERS_CONNECT_TIMEOUT",
        "2s",
        "providers.connect_timeout",
        "'2s'",
    ),
    (
        "WASEL_PROVIDERS_REQUEST_TIMEOUT",
        "30s",
        "providers.request_timeout",
        "'30s'",
    ),
    (
        "WASEL_PROVIDERS_MEDIA_TIMEOUT",
        "1m",
        "providers.media_timeout",
        "'1m'",
    ),
    ("WASEL_LIMITS_API_REQUESTS", "0", "limits.api_requests", "0"),
    ("WASEL_LIMITS_API_WINDOW", "1m", "limits.api_window", "'1m'"),
    (
        "WASEL_LIMITS_ORG_SENDS_PER_MINUTE",
        "100",
        "limits.org_sends_per_minute",
        "100",
    ),
    (
        "WASEL_LIMITS_USER_SENDS_PER_MINUTE",
        "50",
        "limits.user_sends_per_minute",
        "50",
    ),
    ("WASEL_LIMITS_BODY", "512KiB", "limits.body", "'512KiB'"),
    (
        "WASEL_LIMITS_WEBHOOK_BODY",
        "4MiB",
        "limits.webhook_body",
        "'4MiB'",
    ),
    (
        "WASEL_LIMITS_EMAIL_BODY",
        "10MiB",
        "limits.email_body",
        "'10MiB'",
    ),
    (
        "WASEL_LIMITS_REST_MAX_ROWS",
        "50",
        "limits.rest_max_rows",
        "50",
    ),
    ("OUTBOX_RETRY_BASE", "50ms", "outbox.retry_base", "'50ms'"),
    (
        "OUTBOX_RECONCILE_WAIT",
        "500ms",
        "outbox.reconcile_wait",
        "'500ms'",
    ),
    ("WASEL_OUTBOX_MAX_ATTEMPTS", "3", "outbox.max_attempts", "3"),
    ("WASEL_OUTBOX_IN_FLIGHT", "128", "outbox.in_flight", "128"),
    ("WASEL_OUTBOX_LEASE", "5m", "outbox.lease", "'5m'"),
    (
        "WASEL_OUTBOX_CHECK_AFTER",
        "1h",
        "outbox.check_after",
        "'1h'",
    ),
    (
        "WASEL_STORAGE_URL",
        "s3://files/wasel",
        "storage.url",
        "'s3://files/wasel'",
    ),
    (
        "WASEL_STORAGE_ENDPOINT",
        "https://s3.example.com",
        "storage.endpoint",
        "'https://s3.example.com'",
    ),
    (
        "WASEL_STORAGE_REGION",
        "eu-central-1",
        "storage.region",
        "'eu-central-1'",
    ),
    (
        "WASEL_STORAGE_ACCESS_KEY_ID",
        "AKIA",
        "storage.access_key_id",
        "'AKIA'",
    ),
    (
        "WASEL_STORAGE_SECRET_ACCESS_KEY",
        "hunter2",
        "storage.secret_access_key",
        "'***'",
    ),
    (
        "WASEL_STORAGE_MAX_FILE",
        "5MiB",
        "storage.max_file",
        "'5MiB'",
    ),
    (
        "WASEL_STORAGE_PUBLIC_MEDIA",
        "off",
        "storage.public_media",
        "'off'",
    ),
    (
        "WASEL_RETENTION_CHANGE_LOG",
        "7d",
        "retention.change_log",
        "'7d'",
    ),
    ("WASEL_RETENTION_LEDGER", "60d", "retention.ledger", "'60d'"),
    (
        "WASEL_RETENTION_DEAD_LETTERS",
        "1d",
        "retention.dead_letters",
        "'1d'",
    ),
    (
        "WASEL_RETENTION_IDEMPOTENCY_KEYS",
        "36h",
        "retention.idempotency_keys",
        "'36h'",
    ),
    (
        "WASEL_LOGGING_FILTER",
        "info,sqlx=warn",
        "logging.filter",
        "'info,sqlx=warn'",
    ),
    ("WASEL_LOGGING_FORMAT", "json", "logging.format", "'json'"),
    (
        "OPENAI_BASE_URL",
        "http://127.0.0.1:11434/v1",
        "reserved.openai_base_url",
        "'http://127.0.0.1:11434/v1'",
    ),
    (
        "OPENAI_API_KEY",
        "hunter2",
        "reserved.openai_api_key",
        "'***'",
    ),
    (
        "SENTRY_DSN",
        "https://hunter2@sentry.example.com/1",
        "reserved.sentry_dsn",
        "'***'",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://127.0.0.1:4318",
        "reserved.otel_exporter_otlp_endpoint",
        "'http://127.0.0.1:4318'",
    ),
];

/// The variables whose names are promised to operators.
const PROMISED: &str = "PORT DATABASE_URL WASEL_DATA_DIR JWT_SECRET JWKS_URL SUPABASE_URL SUPABASE_ANON_KEY \
    SUPABASE_SERVICE_ROLE_KEY ENCRYPTION_KEY PUBLIC_URL ALLOWED_ORIGINS TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN \
    TWILIO_PHONE_NUMBER TWILIO_API_BASE META_APP_SECRET META_VERIFY_TOKEN META_GRAPH_BASE \
    WHATSAPP_WEBHOOK_SECRET WHATSAPP_WEB_URL SMTP_URL OPENAI_BASE_URL OPENAI_API_KEY SENTRY_DSN \
    OTEL_EXPORTER_OTLP_ENDPOINT OUTBOX_RETRY_BASE OUTBOX_RECONCILE_WAIT";

/// Loads with these variables and no file.
fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load_over(None, variables)
}

fn load_over(file: Option<&Path>, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Config::load(file, &|name| {
        variables.get(name).map(|value| (*value).to_owned())
    })
}

/// Loads a file with this text.
fn load_text(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wasel.toml");
    fs::write(&path, text).unwrap();
    load_over(Some(&path), variables)
}

fn setting(config: &Config, key: &str) -> Value {
    let (section, name) = key.split_once('.').unwrap();
    Table::try_from(config).unwrap()[section][name].clone()
}

fn toml_value(text: &str) -> Value {
    format!("x = {text}").parse::<Table>().unwrap()["x"].clone()
}

#[test]
fn without_file_and_variables_the_defaults_hold() {
    let config = load(&[]).unwrap();
    assert_eq!(config, Config::default());
    assert!(config.sources.is_empty());
    assert!(config.warnings().is_empty());
}

#[test]
fn the_default_file_given_as_a_file_changes_nothing() {
    let config = load_text(DEFAULTS, &[]).unwrap();
    assert_eq!(
        Config {
            sources: BTreeMap::new(),
            ..config
        },
        Config::default()
    );
}

#[test]
fn the_defaults_are_those_promised() {
    let config = Config::default();
    assert_eq!(config.server.port, 3001);
    assert_eq!(
        config.server.allowed_origins,
        [
            "https://myfleet.app",
            "https://app.myfleet.app",
            "http://localhost:5173"
        ]
    );
    assert_eq!(
        (
            config.limits.api_requests,
            config.limits.api_window.as_secs()
        ),
        (100, 900)
    );
    assert_eq!(
        (
            config.limits.org_sends_per_minute,
            config.limits.user_sends_per_minute
        ),
        (10, 5)
    );
    assert!(config.limits.webhook_body >= 3_000_000);
    assert_eq!(
        config.providers.meta_graph_base.as_str(),
        "https://graph.facebook.com"
    );
    assert_eq!(config.providers.meta_graph_version, "v26.0");
    assert_eq!(
        config.providers.twilio_api_base.as_str(),
        "https://api.twilio.com"
    );
    assert_eq!(config.outbox.retry_base.as_secs(), 1);
    assert_eq!(config.outbox.reconcile_wait.as_secs(), 120);
    assert_eq!(config.retention.idempotency_keys.as_secs(), 24 * 3600);
    assert_eq!(config.auth.access_token_ttl.as_secs(), 3600);
    assert_eq!(config.logging.format, LogFormat::Text);
    assert_eq!(config.auth.jwt_secret, None);
    assert_eq!(config.database.url, None);
}

#[test]
fn every_variable_sets_its_setting_and_nothing_else() {
    let defaults = Table::try_from(Config::default()).unwrap();
    for (variable, text, key, expected) in VARIABLES {
        let config =
            load(&[(variable, text)]).unwrap_or_else(|error| panic!("{variable}: {error}"));
        let mut expected_table = defaults.clone();
        let (section, name) = key.split_once('.').unwrap();
        expected_table[section].as_table_mut().unwrap()[name] = toml_value(expected);
        assert_ne!(
            expected_table, defaults,
            "{variable}: the case shows nothing"
        );
        assert_eq!(
            Table::try_from(&config).unwrap(),
            expected_table,
            "{variable}"
        );
        let source = Source::Environment((*variable).to_owned());
        assert_eq!(
            config.sources,
            BTreeMap::from([((*key).to_owned(), source)]),
            "{variable}"
        );
    }
}

#[test]
fn every_setting_has_a_case_and_is_a_secret_where_its_type_hides_it() {
    for setting in settings() {
        let case = VARIABLES
            .iter()
            .find(|(variable, ..)| *variable == setting.variable);
        let (_, _, key, expected) =
            case.unwrap_or_else(|| panic!("no case for {}", setting.variable));
        assert_eq!(*key, setting.key);
        assert_eq!(expected.contains("***"), setting.secret, "{key}");
    }
}

#[test]
fn every_promised_variable_is_read() {
    for promised in PROMISED.split_whitespace() {
        assert!(
            VARIABLES.iter().any(|(variable, ..)| *variable == promised),
            "{promised}"
        );
    }
}

#[test]
fn secrets_and_only_secrets_are_read_from_the_file_their_twin_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    for (variable, text, key, expected) in VARIABLES {
        fs::write(&path, format!("{text}\n")).unwrap();
        let twin = format!("{variable}_FILE");
        let file = path.to_str().unwrap();
        let config = load(&[(&twin, file)]).unwrap_or_else(|error| panic!("{twin}: {error}"));
        if expected.contains("***") {
            assert_eq!(setting(&config, key), toml_value(expected), "{twin}");
            assert_eq!(config.sources[*key], Source::Environment(twin.clone()));
            let error = load(&[(variable, text), (&twin, file)])
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&twin) && error.contains("both set"),
                "{error}"
            );
            assert!(
                load(&[(variable, ""), (&twin, file)]).is_ok(),
                "an empty {variable} is not set"
            );
        } else {
            assert_eq!(config, Config::default(), "{twin}");
        }
    }
}

#[test]
fn one_line_break_at_the_end_of_a_secret_file_is_dropped_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    let path_text = path.to_str().unwrap();
    for (text, secret) in [
        ("a b", "a b"),
        (" a\n", " a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
    ] {
        fs::write(&path, text).unwrap();
        let config = load(&[("JWT_SECRET_FILE", path_text)]).unwrap();
        assert_eq!(config.auth.jwt_secret.unwrap().expose(), secret);
    }
    fs::write(&path, "\n").unwrap();
    let error = load(&[("JWT_SECRET_FILE", path_text)])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("JWT_SECRET_FILE: ") && error.ends_with("is empty"),
        "{error}"
    );
    let error = load(&[("JWT_SECRET_FILE", "/does/not/exist")])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("JWT_SECRET_FILE: cannot read /does/not/exist"),
        "{error}"
    );
}

#[test]
fn an_empty_variable_is_not_set() {
    let empty: Vec<(&str, &str)> = VARIABLES
        .iter()
        .map(|(variable, ..)| (*variable, ""))
        .collect();
    assert_eq!(load(&empty).unwrap(), Config::default());
    assert_eq!(
        load(&[("PORT", " "), ("WASEL_CONFIG", "")]).unwrap(),
        Config::default()
    );
}

#[test]
fn the_webhook_secret_is_the_verify_token_unless_that_is_set() {
    let alias = ("WHATSAPP_WEBHOOK_SECRET", "alias");
    let token = |config: Config| {
        config
            .providers
            .meta_verify_token
            .unwrap()
            .expose()
            .to_owned()
    };
    assert_eq!(token(load(&[alias]).unwrap()), "alias");
    assert_eq!(
        token(load(&[alias, ("META_VERIFY_TOKEN", "own")]).unwrap()),
        "own"
    );
    assert_eq!(
        token(load(&[alias, ("META_VERIFY_TOKEN", "")]).unwrap()),
        "alias"
    );
}

#[test]
fn bad_values_name_their_variable_and_never_show_a_secret() {
    for (variable, text) in [
        ("PORT", "hunter2"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("WASEL_SERVER_LISTEN", "localhost"),
        ("PUBLIC_URL", "chat.example.com"),
        ("ALLOWED_ORIGINS", "https://a.example,*"),
        ("WASEL_SERVER_TRUSTED_PROXY_HOPS", "all"),
        ("WASEL_SERVER_SHUTDOWN_GRACE", "5"),
        ("DATABASE_URL", "mysql://wasel:hunter2@db/wasel"),
        ("DATABASE_URL", "hunter2"),
        ("WASEL_DATABASE_TENANT_CONNECTIONS", "0"),
        ("JWT_SECRET", "***"),
        ("JWKS_URL", "file:///etc/passwd"),
        ("WASEL_AUTH_ACCESS_TOKEN_TTL", "0s"),
        ("ENCRYPTION_KEY", "hunter2"),
        (
            "ENCRYPTION_KEY",
            "hunter2233445566778899aabbccddeeff00112233445566778899aabbccddee",
        ),
        ("PREVIOUS_ENCRYPTION_KEYS", "hunter2,hunter2"),
        ("META_GRAPH_BASE", "graph.facebook.com"),
        ("WASEL_PROVIDERS_META_GRAPH_VERSION", "26"),
        ("TWILIO_PHONE_NUMBER", "0550000000"),
        ("TWILIO_API_BASE", "ws://127.0.0.1"),
        ("WHATSAPP_WEB_URL", "127.0.0.1:4000"),
        ("SMTP_URL", "imap://wasel:hunter2@mail.example.com"),
        ("SMTP_URL", "smtp:hunter2"),
        ("WASEL_STORAGE_URL", "gs://hunter2/files"),
        ("WASEL_STORAGE_URL", "s3:///hunter2"),
        ("WASEL_STORAGE_ENDPOINT", "http://s3.example.com"),
        ("WASEL_STORAGE_PUBLIC_MEDIA", "yes"),
        ("WASEL_LIMITS_BODY", "3MB"),
        ("WASEL_LIMITS_API_WINDOW", "0m"),
        ("OUTBOX_RETRY_BASE", "fast"),
        ("OUTBOX_RECONCILE_WAIT", "2 minutes"),
        ("WASEL_OUTBOX_MAX_ATTEMPTS", "0"),
        ("WASEL_RETENTION_LEDGER", "9999999d"),
        ("WASEL_LOGGING_FORMAT", "xml"),
        ("SENTRY_DSN", "hunter2"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318"),
    ] {
        let error = load(&[(variable, text)]).expect_err(variable);
        assert!(
            matches!(error, ConfigError::Invalid { .. }),
            "{variable}: {error:?}"
        );
        assert!(
            error.to_string().starts_with(&format!("{variable}: ")),
            "{error}"
        );
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
}

#[test]
fn a_file_goes_over_the_defaults_and_the_environment_over_the_file() {
    let text = "[server]\nport = 4000\nlisten = '127.0.0.1'\n[outbox]\nretry_base = '3s'\n";
    let config = load_text(text, &[("PORT", "5000")]).unwrap();
    assert_eq!(config.server.socket_addr().to_string(), "127.0.0.1:5000");
    assert_eq!(config.outbox.retry_base.as_secs(), 3);
    assert_eq!(config.outbox.reconcile_wait.as_secs(), 120);
    assert_eq!(
        config.sources["server.port"],
        Source::Environment("PORT".to_owned())
    );
    assert!(matches!(config.sources["server.listen"], Source::File(_)));
}

#[test]
fn the_variable_names_the_file_unless_the_caller_does() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.toml"), dir.path().join("two.toml"));
    fs::write(&one, "server.port = 1").unwrap();
    fs::write(&two, "server.port = 2").unwrap();
    let variables = [("WASEL_CONFIG", one.to_str().unwrap())];
    assert_eq!(load(&variables).unwrap().server.port, 1);
    assert_eq!(load_over(Some(&two), &variables).unwrap().server.port, 2);
    let error = load(&[("WASEL_CONFIG", "/does/not/exist.toml")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("/does/not/exist.toml"), "{error}");
}

#[test]
fn mistakes_in_a_file_are_named_and_never_show_a_secret() {
    for (text, named) in [
        ("[sevrer]\nport = 1", "there is no setting sevrer"),
        ("[server]\nprot = 1", "there is no setting server.prot"),
        ("port = 1", "there is no setting port"),
        ("server = 1", "server in "),
        ("[server]\nport = '3001'", "server.port in "),
        ("[server]\nport = 70000", "server.port in "),
        (
            "[server]\nallowed_origins = ['https://a.example/']",
            "server.allowed_origins in ",
        ),
        ("[server]\n\nport = ", "wasel.toml line 3"),
        ("[auth]\njwt_secret = 22772277", "auth.jwt_secret in "),
        ("[auth]\njwt_secret = 22772277hunter2", "wasel.toml line 2"),
        ("[auth]\njwt_secret = 'hunter2", "wasel.toml line 2"),
        ("[auth]\njwt_secret = hunter2", "wasel.toml line 2"),
        ("[auth]\njwt_secret = \"hunter2\\q\"", "wasel.toml line 2"),
        (
            "[auth]\njwt_secret = 'a'\njwt_secret = 'hunter2'",
            "wasel.toml line 3",
        ),
        (
            "[auth.jwt_secret]\nvalue = 'hunter2'",
            "auth.jwt_secret in ",
        ),
        (
            "[secrets]\nprevious_encryption_keys = [22772277]",
            "secrets.previous_encryption_keys in ",
        ),
        (
            "[secrets]\nprevious_encryption_keys = 'hunter2'",
            "secrets.previous_encryption_keys in ",
        ),
        (
            "[secrets]\nencryption_key = ['hunter2']",
            "secrets.encryption_key in ",
        ),
        ("[database]\nurl = 'hunter2'", "database.url in "),
        ("[database]\ndata_dir = ''", "database.data_dir in "),
    ] {
        let error = load_text(text, &[]).expect_err(text);
        assert!(error.to_string().contains(named), "{text:?} gave: {error}");
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("22772277"),
            "{shown}"
        );
    }
}

#[test]
fn unwise_values_are_warned_of() {
    let variables = [
        ("JWT_SECRET", "hunter2"),
        ("PUBLIC_URL", "http://chat.example.com"),
    ];
    let warnings = load(&variables).unwrap().warnings();
    assert_eq!(warnings.len(), 2);
    assert!(!warnings.concat().contains("hunter2"));
}
