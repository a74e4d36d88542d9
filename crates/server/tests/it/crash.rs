//! `kill -9`, of the server and of its Postgres, and an orderly end, each under load.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgConnection};
use wasel_simulator::{CustomerSend, Fault, FaultKind, FaultPlan, Simulator};
use wasel_testkit::{meta, wait_until};

use crate::binary::{Server, data_dir, run, succeed, wasel};

const LOAD: usize = 2_000;
const PARALLEL: usize = 32;
const SECRET: &str = "app-secret";
const NUMBER: &str = "106540352242922";

fn declare(data_dir: &Path) {
    let file = data_dir.join("tenants.toml");
    let declaration = format!(
        r#"
        [[organizations]]
        slug = "a"
        name = "A"
        [[organizations.users]]
        email = "owner@a.test"
        password = "a good password"
        role = "owner"
        [[organizations.channels]]
        kind = "whatsapp_cloud"
        name = "WhatsApp"
        waba_id = "1"
        phone_number_id = "{NUMBER}"
        display_phone_number = "+14155550100"
        access_token = "token"
        app_secret = "{SECRET}"
        verify_token = "verify"
        "#
    );
    std::fs::write(&file, declaration).unwrap();
    succeed(&mut wasel(data_dir, &["apply", file.to_str().unwrap()]));
}

fn http() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

/// Posts webhook `n`; whether it was answered 200.
async fn post(http: &reqwest::Client, base: &str, n: usize) -> bool {
    // Forty customers, so that conversations are shared and contended.
    let from = format!("2010{:08}", n % 40);
    let body = meta::change(NUMBER, meta::text(&from, &format!("wamid.{n}"), "load")).to_string();
    let request = http.post(format!("{base}/api/webhooks/whatsapp")).header(
        "x-hub-signature-256",
        meta::signature(SECRET, body.as_bytes()),
    );
    request
        .body(body)
        .send()
        .await
        .is_ok_and(|response| response.status() == 200)
}

/// Posts all webhooks, each once; returns which were acknowledged. `after` is called once so many were.
async fn load(base: &str, after: usize, then: impl FnOnce() + Send + 'static) -> HashSet<usize> {
    let (http, next, done) = (
        http(),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let then = Arc::new(std::sync::Mutex::new(Some(then)));
    let workers = (0..PARALLEL).map(|_| {
        let (http, base, next, done, then) = (
            http.clone(),
            base.to_owned(),
            next.clone(),
            done.clone(),
            then.clone(),
        );
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= LOAD {
                    return acknowledged;
                }
                if post(&http, &base, n).await {
                    acknowledged.push(n);
                    if done.fetch_add(1, Ordering::Relaxed) + 1 == after {
                        let then = then.lock().unwrap().take().unwrap();
                        then();
                    }
                }
            }
        })
    });
    let mut all = HashSet::new();
    for worker in workers.collect::<Vec<_>>() {
        all.extend(worker.await.unwrap());
    }
    all
}

async fn connect(data_dir: &Path) -> PgConnection {
    wasel_db::cluster::options_of_running(data_dir)
        .expect("a running cluster")
        .connect()
        .await
        .unwrap()
}

/// The stored messages by their number in the load; panics where one is stored twice.
async fn stored(connection: &mut PgConnection) -> HashSet<usize> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT provider_message_id FROM messages WHERE direction = 'inbound'")
            .fetch_all(connection)
            .await
            .unwrap();
    let numbers: HashSet<usize> = ids
        .iter()
        .map(|id| id.strip_prefix("wamid.").unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers.len(), ids.len(), "a message is stored twice");
    numbers
}

async fn assert_consistent(connection: &mut PgConnection) {
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM conversations c WHERE c.unread_count <> (SELECT count(*) FROM messages m
             WHERE m.org_id = c.org_id AND m.conversation_id = c.id)",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    assert_eq!(wrong, 0, "unread counts fit the messages");
    let logged: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM change_log WHERE table_name = 'messages' AND op = 'INSERT'",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    let messages: i64 = sqlx::query_scalar("SELECT count(*) FROM messages")
        .fetch_one(connection)
        .await
        .unwrap();
    assert_eq!(logged, messages, "the change log has each message once");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_webhook_that_was_acknowledged_is_there_after_the_server_was_killed() {
    let folder = data_dir();
    declare(folder.path());
    let server = Arc::new(std::sync::Mutex::new(Server::start(&mut wasel(
        folder.path(),
        &["serve"],
    ))));
    let base = server.lock().unwrap().base.clone();
    let killed = server.clone();
    let acknowledged = load(&base, LOAD / 3, move || {
        killed.lock().unwrap().signal(Signal::SIGKILL)
    })
    .await;
    assert!(
        acknowledged.len() >= LOAD / 3 && acknowledged.len() < LOAD,
        "killed in the middle: {}",
        acknowledged.len()
    );
    server.lock().unwrap().wait();

    let again = Server::start(&mut wasel(folder.path(), &["serve"]));
    let mut connection = connect(folder.path()).await;
    let kept = stored(&mut connection).await;
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    // The provider repeats everything it is not sure of, and some that it should be.
    let http = http();
    for n in 0..LOAD {
        if !acknowledged.contains(&n) || n % 10 == 0 {
            assert!(post(&http, &again.base, n).await, "{n}");
        }
    }
    assert_eq!(stored(&mut connection).await.len(), LOAD);
    assert_consistent(&mut connection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_heals_after_its_postgres_was_killed_and_nothing_acknowledged_is_lost() {
    let folder = data_dir();
    declare(folder.path());
    let server = Server::start(&mut wasel(folder.path(), &["serve"]));
    let pid_file = folder.path().join("postgres/postmaster.pid");
    let postmaster: i32 = std::fs::read_to_string(pid_file)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let acknowledged = load(&server.base, LOAD / 3, move || {
        kill(Pid::from_raw(postmaster), Signal::SIGKILL).unwrap()
    })
    .await;
    let http = http();
    wait_until("the server takes webhooks again", async || {
        post(&http, &server.base, 0).await.then_some(())
    })
    .await;
    let mut connection = connect(folder.path()).await;
    let kept = stored(&mut connection).await;
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    for n in 0..LOAD {
        if !acknowledged.contains(&n) {
            wait_until("the repetition is taken", async || {
                post(&http, &server.base, n).await.then_some(())
            })
            .await;
        }
    }
    assert_eq!(stored(&mut connection).await.len(), LOAD);
    assert_consistent(&mut connection).await;
    // The rest of it is well too.
    let ready = http
        .get(format!("{}/readyz", server.base))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_under_load_loses_nothing_that_was_acknowledged() {
    let folder = data_dir();
    declare(folder.path());
    let server = Arc::new(std::sync::Mutex::new(Server::start(&mut wasel(
        folder.path(),
        &["serve"],
    ))));
    let base = server.lock().unwrap().base.clone();
    let stopped = server.clone();
    let acknowledged = load(&base, LOAD / 3, move || {
        stopped.lock().unwrap().signal(Signal::SIGTERM)
    })
    .await;
    let status = server.lock().unwrap().wait();
    assert!(
        status.success(),
        "{status}\n{}",
        server.lock().unwrap().log()
    );
    assert!(
        !folder.path().join("postgres/postmaster.pid").exists(),
        "its Postgres ended with it"
    );
    let _again = Server::start(&mut wasel(folder.path(), &["serve"]));
    let mut connection = connect(folder.path()).await;
    let kept = stored(&mut connection).await;
    assert_eq!(acknowledged.difference(&kept).count(), 0);
    assert_consistent(&mut connection).await;
}

#[test]
fn a_second_server_on_the_same_data_directory_is_told_what_is_wrong() {
    let folder = data_dir();
    let first = Server::start(&mut wasel(folder.path(), &["serve"]));
    let second = run(&mut wasel(folder.path(), &["serve"]));
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    let last = said.lines().last().unwrap();
    assert!(last.contains("in use by another server"), "{said}");
    assert!(
        last.contains(&folder.path().canonicalize().unwrap().display().to_string()),
        "{said}"
    );
    // A command beside the running server is another matter.
    let file = folder.path().join("empty.toml");
    std::fs::write(&file, "").unwrap();
    succeed(&mut wasel(
        folder.path(),
        &["apply", file.to_str().unwrap()],
    ));
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_between_sending_and_recording_does_not_send_again() {
    let folder = data_dir();
    declare(folder.path());
    let simulator = Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    // The simulated Meta calls back at the address it was told: the port must outlive the process.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let serve = || {
        let mut command = wasel(folder.path(), &["serve"]);
        command
            .env("PORT", port.to_string())
            .env("META_GRAPH_BASE", simulator.meta_base());
        command
            .env("WASEL_OUTBOX_LEASE", "1s")
            .env("OUTBOX_RECONCILE_WAIT", "30s");
        command
    };
    let world = simulator.world();
    world
        .register_meta_number(
            serde_json::from_value(json!({
                "waba_id": "1", "phone_number_id": NUMBER, "display_phone_number": "+14155550100", "access_token": "token",
                "app_secret": SECRET, "verify_token": "verify",
                "webhook_url": format!("http://127.0.0.1:{port}/api/webhooks/whatsapp"),
            }))
            .unwrap(),
        )
        .unwrap();
    let mut server = Server::start(&mut serve());
    let token = succeed(&mut wasel(
        folder.path(),
        &["token", "--org", "a", "--email", "owner@a.test"],
    ));
    let token = token.trim();
    let http = http();
    world
        .send_as_customer(CustomerSend::text(NUMBER, "+201001234567", "hi"))
        .unwrap();
    let ask = async |path: &str| -> Value {
        let response = http
            .get(format!("http://127.0.0.1:{port}{path}"))
            .bearer_auth(token)
            .send()
            .await;
        match response {
            Ok(response) => response.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        }
    };
    let conversation = wait_until("the conversation", async || {
        let list = ask("/v1/conversations").await;
        list["data"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    // Taken at once, answered too late for this process.
    let mut slow = Fault::next(FaultKind::DelayAnswer, 1);
    slow.delay_ms = Some(60_000);
    world.set_faults(FaultPlan {
        seed: 0,
        faults: vec![slow],
    });
    let mut settings = world.settings();
    settings.delivered_after_ms = Some(300);
    world.set_settings(settings);
    let sent: Value = http
        .post(format!("http://127.0.0.1:{port}/v1/messages"))
        .bearer_auth(token)
        .json(&json!({ "conversation_id": conversation, "content": { "type": "text", "body": "once" } }))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    wait_until("the provider has it", async || {
        (!world.accepted().is_empty()).then_some(())
    })
    .await;
    server.signal(Signal::SIGKILL);
    server.wait();

    let _again = Server::start(&mut serve());
    let path = format!("/v1/messages/{}", sent["id"].as_str().unwrap());
    wait_until("the callback settles it", async || {
        (ask(&path).await["status"] == "delivered").then_some(())
    })
    .await;
    assert_eq!(world.accepted().len(), 1, "sent once");
    assert!(world.double_sends().is_empty());
}
