//! The commands an operator types.

use serde_json::{Value, json};
use wasel_testkit::{TestDb, meta};

use crate::binary::{Server, data_dir, run, succeed, wasel};

const TENANTS: &str = r#"
[[organizations]]
slug = "a"
name = "A"
timezone = "Asia/Riyadh"
[[organizations.users]]
email = "Owner@a.test"
password = "a good password"
role = "owner"
[[organizations.channels]]
kind = "whatsapp_cloud"
name = "WhatsApp"
waba_id = "1"
phone_number_id = "100"
display_phone_number = "+14155550100"
access_token = "a-secret-access-token"
app_secret = "app-secret"
verify_token = "v"
[[organizations.channels]]
kind = "twilio_sms"
name = "SMS"
account_sid = "AC00000000000000000000000000000001"
auth_token = "auth-token"
from = "+12025550100"
"#;

/// An installation with a given database.
struct Install {
    folder: tempfile::TempDir,
    db: TestDb,
}

impl Install {
    async fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let install = Self {
            folder: data_dir(),
            db: TestDb::new().await,
        };
        std::fs::write(install.file(), TENANTS).unwrap();
        install
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("tenants.toml")
    }

    fn wasel(&self, args: &[&str]) -> std::process::Command {
        let mut command = wasel(self.folder.path(), args);
        command.env("DATABASE_URL", self.db.url());
        command
    }

    fn apply(&self) -> Value {
        let report = succeed(&mut self.wasel(&["apply", "--json", self.file().to_str().unwrap()]));
        serde_json::from_str(&report).unwrap()
    }
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn webhook(base: &str, number: &str, id: &str) -> u16 {
    let body = meta::change(number, meta::text("966512345678", id, "hello")).to_string();
    let request = http().post(format!("{base}/api/webhooks/whatsapp")).header(
        "x-hub-signature-256",
        meta::signature("app-secret", body.as_bytes()),
    );
    request.body(body).send().await.unwrap().status().as_u16()
}

async fn get(base: &str, token: &str, path: &str) -> (u16, Value) {
    let response = http()
        .get(format!("{base}{path}"))
        .bearer_auth(token.trim())
        .send()
        .await
        .unwrap();
    (
        response.status().as_u16(),
        response.json().await.unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_a_declaration_twice_changes_nothing_and_a_running_server_sees_it_at_once() {
    let install = Install::new().await;
    let server = Server::start(&mut install.wasel(&["serve"]));
    assert_eq!(
        webhook(&server.base, "100", "wamid.0").await,
        401,
        "nobody's secret yet"
    );
    let first = install.apply();
    assert_eq!(webhook(&server.base, "100", "wamid.1").await, 200);
    let org = &first["organizations"][0];
    assert_eq!(org["slug"], "a");
    assert_eq!(org["users"][0]["email"], "Owner@a.test");
    let channel = &org["channels"][0];
    assert_eq!(
        (channel["kind"].as_str(), channel["name"].as_str()),
        (Some("whatsapp_cloud"), Some("WhatsApp"))
    );
    let address = channel["webhook_url"].as_str().unwrap();
    assert!(
        address.ends_with(&format!(
            "/api/webhooks/whatsapp/{}",
            channel["id"].as_str().unwrap()
        )),
        "{address}"
    );
    assert_eq!(install.apply(), first);
    let owner = install.db.owner();
    for (table, count) in [
        ("channels", 2),
        ("profiles", 1),
        ("channel_secrets", 2),
        ("wasel.users", 1),
    ] {
        let there: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
                .fetch_one(&owner)
                .await
                .unwrap();
        assert_eq!(there, count, "{table}");
    }
    // A changed secret takes effect.
    std::fs::write(
        install.file(),
        TENANTS.replace("\"app-secret\"", "\"another\""),
    )
    .unwrap();
    install.apply();
    wasel_testkit::wait_until("the new secret counts", async || {
        (webhook(&server.base, "100", "wamid.2").await == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_declaration_with_a_mistake_is_refused_whole_and_names_the_place_but_no_secret() {
    let install = Install::new().await;
    for (from, to, place) in [
        ("role = \"owner\"", "role = \"king\"", "role"),
        ("Asia/Riyadh", "Mars/Olympus", "timezone"),
        (
            "waba_id = \"1\"",
            "waba_id = \"1\"\napp_secrte = \"a-secret-access-token\"",
            "app_secrte",
        ),
        ("kind = \"twilio_sms\"", "kind = \"pigeon\"", "kind"),
        (
            "password = \"a good password\"",
            "password = \"short\"",
            "password",
        ),
        (
            "[[organizations]]\nslug",
            "[[organizations]]\nunknown = 1\nslug",
            "unknown",
        ),
    ] {
        assert!(TENANTS.contains(from), "{from}");
        std::fs::write(install.file(), TENANTS.replacen(from, to, 1)).unwrap();
        let output = run(&mut install.wasel(&["apply", install.file().to_str().unwrap()]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && said.contains(place),
            "{place}: {said}"
        );
        assert!(
            !said.contains("a-secret-access-token") && !said.contains("short"),
            "{said}"
        );
    }
    let orgs: i64 = sqlx::query_scalar("SELECT count(*) FROM organizations")
        .fetch_one(&install.db.owner())
        .await
        .unwrap();
    assert_eq!(orgs, 1, "only the system's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_users_made_by_commands_work() {
    let install = Install::new().await;
    let report = install.apply();
    let server = Server::start(&mut install.wasel(&["serve"]));
    let token = succeed(&mut install.wasel(&[
        "token",
        "--org",
        "a",
        "--email",
        "owner@a.test",
        "--ttl",
        "5m",
    ]));
    assert_eq!(get(&server.base, &token, "/v1/channels").await.0, 200);
    for (args, words) in [
        (
            ["token", "--org", "nobody", "--email", "owner@a.test"],
            "no organisation",
        ),
        (
            ["token", "--org", "a", "--email", "stranger@a.test"],
            "no user",
        ),
    ] {
        let output = run(&mut install.wasel(&args));
        assert!(
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(words),
            "{args:?}"
        );
    }

    let add = [
        "user",
        "add",
        "--org",
        "a",
        "--email",
        "agent@a.test",
        "--role",
        "agent",
    ];
    assert!(
        !run(&mut install.wasel(&add)).status.success(),
        "a new person needs a password"
    );
    succeed(
        install
            .wasel(&add)
            .env("WASEL_PASSWORD", "the first password"),
    );
    let list = succeed(&mut install.wasel(&["user", "list", "--org", "a"]));
    assert!(
        list.contains("agent\tagent@a.test") && list.contains("owner\tOwner@a.test"),
        "{list}"
    );
    let sign_in = async |password: &str| {
        let body = json!({ "email": "agent@a.test", "password": password });
        let response = http()
            .post(format!("{}/auth/v1/token?grant_type=password", server.base))
            .json(&body)
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    let (status, session) = sign_in("the first password").await;
    assert_eq!(status, 200, "{session}");
    assert_eq!(
        get(
            &server.base,
            session["access_token"].as_str().unwrap(),
            "/v1/conversations"
        )
        .await
        .0,
        200
    );
    assert_eq!(
        session["user"]["app_metadata"]["org_id"],
        report["organizations"][0]["id"]
    );
    succeed(
        install
            .wasel(&["user", "password", "--email", "agent@a.test"])
            .env("WASEL_PASSWORD", "the second password"),
    );
    assert_eq!(sign_in("the first password").await.0, 400);
    assert_eq!(sign_in("the second password").await.0, 200);
    let refresh = json!({ "refresh_token": session["refresh_token"] });
    let refreshed = http()
        .post(format!(
            "{}/auth/v1/token?grant_type=refresh_token",
            server.base
        ))
        .json(&refresh)
        .send()
        .await
        .unwrap();
    assert_eq!(
        refreshed.status(),
        400,
        "a new password ends the old sessions"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_anew_with_a_new_key_and_the_old_one_can_go() {
    let install = Install::new().await;
    let (old, new) = ("11".repeat(32), "22".repeat(32));
    let with = |args: &[&str], key: &str, previous: &str| {
        let mut command = install.wasel(args);
        command
            .env("ENCRYPTION_KEY", key)
            .env("PREVIOUS_ENCRYPTION_KEYS", previous);
        command
    };
    let file = install.file();
    succeed(&mut with(&["apply", file.to_str().unwrap()], &old, ""));
    let sealed = async || -> Vec<Vec<u8>> {
        sqlx::query_scalar("SELECT sealed FROM channel_secrets ORDER BY channel_id")
            .fetch_all(&install.db.owner())
            .await
            .unwrap()
    };
    let before = sealed().await;
    assert!(
        before
            .iter()
            .all(|bytes| !bytes.windows(10).any(|window| window == b"app-secret")),
        "sealed"
    );
    let without = run(&mut with(&["keys", "rotate"], &new, ""));
    assert!(!without.status.success(), "the old key is missing");
    assert_eq!(sealed().await, before);
    let said = succeed(&mut with(&["keys", "rotate"], &new, &old));
    assert!(said.contains('2'), "{said}");
    assert_ne!(sealed().await, before);
    let server = Server::start(&mut with(&["serve"], &new, ""));
    assert_eq!(
        webhook(&server.base, "100", "wamid.1").await,
        200,
        "{}",
        server.log()
    );
    drop(server);
    // Sealed rows and no key: refused, not made up.
    let mut command = wasel(&install.folder.path().join("elsewhere"), &["serve"]);
    let output = run(command.env("DATABASE_URL", install.db.url()));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && words.contains("ENCRYPTION_KEY"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_replayed_by_a_command_once_their_channel_is_there() {
    let install = Install::new().await;
    install.apply();
    let server = Server::start(&mut install.wasel(&["serve"]));
    for n in 0..3 {
        assert_eq!(
            webhook(&server.base, "200", &format!("wamid.{n}")).await,
            200
        );
    }
    let said = succeed(&mut install.wasel(&["webhooks", "replay", "--org", "a"]));
    assert_eq!(said.trim(), "0 stored, 3 still dead letters");
    std::fs::write(
        install.file(),
        TENANTS
            .replace("phone_number_id = \"100\"", "phone_number_id = \"200\"")
            .replace("\"WhatsApp\"", "\"Second\""),
    )
    .unwrap();
    install.apply();
    assert_eq!(
        succeed(&mut install.wasel(&["webhooks", "replay"])).trim(),
        "3 stored, 0 still dead letters"
    );
    assert_eq!(
        succeed(&mut install.wasel(&["webhooks", "replay"])).trim(),
        "0 stored, 0 still dead letters"
    );
    let token = succeed(&mut install.wasel(&["token", "--org", "a", "--email", "owner@a.test"]));
    let (_, list) = get(&server.base, &token, "/v1/conversations").await;
    assert_eq!(list["data"][0]["unread_count"], 3, "{list}");
}

#[test]
fn a_mistake_in_the_configuration_names_its_variable_and_hides_secrets() {
    let folder = data_dir();
    for (variable, value) in [
        ("PORT", "http"),
        ("DATABASE_URL", "mysql://user:hunter2secret@db/x"),
        ("ENCRYPTION_KEY", "hunter2secret"),
        ("OUTBOX_RETRY_BASE", "5"),
        ("OUTBOX_RECONCILE_WAIT", "soon"),
        ("META_GRAPH_BASE", "graph"),
        ("PUBLIC_URL", "wasel.example"),
        ("ALLOWED_ORIGINS", "https://a.example/path"),
        ("WASEL_LIMITS_BODY", "much"),
        ("WASEL_LOGGING_FORMAT", "xml"),
        ("WASEL_LOGGING_FILTER", "a=b=c"),
    ] {
        let output = run(wasel(folder.path(), &["config", "check"]).env(variable, value));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{variable}={value} was taken");
        assert!(said.contains(variable), "{variable}: {said}");
        assert!(!said.contains("hunter2secret"), "{variable}: {said}");
    }
    let weak =
        succeed(wasel(folder.path(), &["config", "check"]).env("JWT_SECRET", "hunter2secret"));
    assert!(
        weak.contains("JWT_SECRET is shorter") && !weak.contains("hunter2"),
        "{weak}"
    );
    let good = succeed(
        wasel(folder.path(), &["config", "dump"])
            .env("JWT_SECRET", "hunter2secret hunter2secret hunter2"),
    );
    assert!(
        good.contains("[server]") && !good.contains("hunter2"),
        "{good}"
    );
}

#[test]
fn a_first_start_without_any_configuration_makes_its_keys_and_keeps_them_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = data_dir();
    let server = Server::start(&mut wasel(folder.path(), &["serve"]));
    let log = server.log();
    assert!(
        log.contains("JWT_SECRET") && log.contains("ENCRYPTION_KEY"),
        "it says so: {log}"
    );
    let file = folder.path().join(wasel_config::secrets::FILE_NAME);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let kept = std::fs::read_to_string(&file).unwrap();
    for line in kept.lines().filter(|line| line.contains('=')) {
        let value = line.split_once('=').unwrap().1.trim().trim_matches('"');
        assert!(
            value.len() < 16 || !log.contains(value),
            "a secret is in the log"
        );
    }
    drop(server);
    let again = Server::start(&mut wasel(folder.path(), &["serve"]));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);
    assert!(!again.log().contains("made and kept"), "{}", again.log());
}
