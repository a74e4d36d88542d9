//! The sender under trouble: providers that fail, nodes that die, campaigns that are large, channels that have limits.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use uuid::Uuid;
use wasel_simulator::{Fault, FaultKind, FaultPlan, Simulator};
use wasel_testkit::{Org, TestApp, TestDb, wait_until};

use crate::binary::{Server, data_dir, succeed, wasel};

/// The `n`th of many people.
fn person(n: usize) -> String {
    format!("+2010{:08}", 10_000_000 + n)
}

fn with_faults(app: &TestApp, faults: Vec<Fault>) {
    app.world().set_faults(FaultPlan { seed: 11, faults });
}

async fn set_rate(app: &TestApp, org: &Org, channel: Uuid, per_second: f64) {
    let limits = json!({ "limits": { "messages_per_second": per_second } });
    app.patch(org.owner(), &format!("/v1/channels/{channel}"), &limits)
        .await
        .expect(200);
    // The channel's new limits reach the sender by the change feed.
    wait_until("the limits are known", async || {
        let channel = app.state().registry.by_id(channel.into())?;
        (channel.messages_per_second() == per_second).then_some(())
    })
    .await;
}

async fn queue(app: &TestApp, org: &Org, count: usize, policy: &str) -> Vec<String> {
    let mut ids = Vec::with_capacity(count);
    for n in 0..count {
        let request = json!({ "channel_id": org.sms, "to": person(n), "delivery_policy": policy,
            "content": { "type": "text", "body": format!("message {n}") } });
        let sent = app
            .post(org.owner(), "/v1/messages", &request)
            .await
            .expect(202);
        ids.push(sent["id"].as_str().unwrap().to_owned());
    }
    ids
}

async fn outbox_is_empty(app: &TestApp) {
    wait_until("the outbox is empty", async || {
        (app.count("SELECT count(*) FROM outbox").await == 0).then_some(())
    })
    .await;
}

fn times(message: &Value, event: &str) -> Vec<DateTime<Utc>> {
    message["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["event"] == event)
        .map(|e| e["at"].as_str().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn whatever_a_provider_answers_every_message_ends_with_a_reason_and_no_retry_is_early() {
    let app = TestApp::builder()
        .configure(|config| {
            config.outbox.retry_base = Duration::from_millis(100);
            config.outbox.reconcile_wait = Duration::from_millis(500);
        })
        .start()
        .await;
    let org = app.org("a").await;
    set_rate(&app, &org, org.sms, 500.0).await;
    let each = 0.075;
    with_faults(
        &app,
        vec![
            Fault::always(FaultKind::RateLimited).with_probability(each),
            Fault::always(FaultKind::ServerError).with_probability(each),
            Fault::always(FaultKind::ResetBeforeAccept).with_probability(each),
            Fault::always(FaultKind::ResetAfterAccept).with_probability(each),
        ],
    );
    let ids = queue(&app, &org, 80, "at_least_once").await;
    outbox_is_empty(&app).await;
    let mut retried = 0;
    for id in &ids {
        let message = app
            .wait_message(org.owner(), id, |message| {
                ["delivered", "failed"].contains(&message["status"].as_str().unwrap())
            })
            .await;
        if message["status"] == "failed" {
            assert!(message["error_message"].is_string(), "{message}");
        }
        let tries = times(&message, "sending");
        retried += tries.len() - 1;
        // A retry comes no sooner than the attempt before it said.
        for event in message["timeline"].as_array().unwrap() {
            let Some(wait) = event["detail"]["retry_in_seconds"].as_f64() else {
                continue;
            };
            let at: DateTime<Utc> = event["recorded_at"].as_str().unwrap().parse().unwrap();
            let next = tries.iter().find(|tried| **tried > at).unwrap();
            let waited = (*next - at).as_seconds_f64();
            assert!(waited >= wait - 0.001, "{waited} of {wait} s: {message}");
        }
    }
    assert!(retried > 5, "the faults struck: {retried}");
}

#[tokio::test]
async fn a_channel_never_hands_over_more_in_a_second_than_its_rate() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_rate(&app, &org, org.sms, 25.0).await;
    queue(&app, &org, 80, "at_least_once").await;
    outbox_is_empty(&app).await;
    let mut at: Vec<DateTime<Utc>> = app.world().accepted().iter().map(|sent| sent.at).collect();
    at.sort_unstable();
    assert_eq!(at.len(), 80);
    for (n, first) in at.iter().enumerate() {
        let end = *first + TimeDelta::seconds(1);
        let within = at[n..].iter().take_while(|at| **at < end).count();
        assert!(within <= 25, "{within} in the second from {first}");
    }
}

#[tokio::test]
async fn one_message_of_a_tenant_does_not_wait_for_the_thousand_of_another() {
    let app = TestApp::start().await;
    let (large, small) = (app.org("large").await, app.org("small").await);
    // So slow that the large one cannot be done before the small one is asked for.
    set_rate(&app, &large, large.sms, 5.0).await;
    let file: Vec<Value> = (0..1000).map(|n| json!({ "to": person(n) })).collect();
    let job = json!({ "channel_id": large.sms, "message": "campaign", "recipients": file, "start": true });
    app.post(large.owner(), "/v1/bulk-jobs", &job)
        .await
        .expect(201);
    wait_until("the campaign has begun", async || {
        (app.world().accepted().len() > 2).then_some(())
    })
    .await;
    let sent = small
        .send(&app, small.sms, &person(7), "one-off")
        .await
        .expect(202);
    app.wait_status(small.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
    let before = app.world().accepted().len();
    assert!(before < 900, "{before} were sent before it");
    // Inside the tenant, too: an answer does not wait for the campaign.
    let sent = large
        .send(&app, large.sms, &person(7), "an answer")
        .await
        .expect(202);
    app.wait_status(large.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
    let before = app.world().accepted().len();
    assert!(before < 950, "{before} were sent before it");
}

#[tokio::test]
async fn a_paused_campaign_sends_nothing_of_what_is_queued_and_the_rest_when_it_goes_on() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_rate(&app, &org, org.sms, 10.0).await;
    let list: Vec<Value> = (0..60).map(|n| json!({ "to": person(n) })).collect();
    let job =
        json!({ "channel_id": org.sms, "message": "campaign", "recipients": list, "start": true });
    let job = app
        .post(org.owner(), "/v1/bulk-jobs", &job)
        .await
        .expect(201);
    let path = format!("/v1/bulk-jobs/{}", job["id"].as_str().unwrap());
    wait_until("it has begun", async || {
        (app.world().accepted().len() > 2).then_some(())
    })
    .await;
    app.post(org.owner(), &format!("{path}/pause"), &Value::Null)
        .await
        .expect(200);
    // What was being handed over at that moment ends.
    app.wait_count(
        "SELECT count(*) FROM outbox WHERE leased_until IS NOT NULL",
        0,
    )
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let sent = app.world().accepted().len();
    let waiting = app.count("SELECT count(*) FROM outbox").await;
    assert!(sent < 60 && waiting > 0, "{sent} sent, {waiting} queued");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(app.world().accepted().len(), sent, "nothing leaves");
    let queued = app
        .count("SELECT count(*) FROM messages WHERE bulk_job_id IS NOT NULL AND status = 'queued'")
        .await;
    assert_eq!(queued, waiting);
    app.post(org.owner(), &format!("{path}/resume"), &Value::Null)
        .await
        .expect(200);
    wait_until("everybody has it", async || {
        (app.world().accepted().len() == 60).then_some(())
    })
    .await;
    assert!(app.world().double_sends().is_empty());
}

#[tokio::test]
async fn a_provider_in_trouble_is_left_alone_for_a_while_and_then_tried_with_one_message() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_rate(&app, &org, org.sms, 200.0).await;
    with_faults(&app, vec![Fault::always(FaultKind::ServerError)]);
    let ids = queue(&app, &org, 12, "at_least_once").await;
    wait_until("the breaker opens", async || {
        let held = "SELECT count(*) FROM channel_pace WHERE hold_reason = 'provider_trouble' AND hold_until > now()";
        (app.count(held).await == 1).then_some(())
    })
    .await;
    let waiting = app
        .wait_message(org.owner(), ids.last().unwrap(), |message| {
            message["hold"]["reason"] == "circuit_breaker" || message["hold"]["reason"] == "retry"
        })
        .await;
    assert!(waiting["hold"]["message"].is_string(), "{waiting}");
    with_faults(&app, vec![]);
    for id in &ids {
        let message = app
            .wait_message(org.owner(), id, |message| {
                ["delivered", "failed"].contains(&message["status"].as_str().unwrap())
            })
            .await;
        assert_eq!(message["status"], "delivered", "{message}");
    }
    app.wait_count(
        "SELECT count(*) FROM channel_pace WHERE hold_until IS NULL AND strikes = 0",
        1,
    )
    .await;
}

#[tokio::test]
async fn a_throttled_channel_goes_on_at_half_the_speed() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    with_faults(&app, vec![Fault::next(FaultKind::RateLimited, 1)]);
    let ids = queue(&app, &org, 3, "at_least_once").await;
    for id in &ids {
        app.wait_status(org.owner(), id, "delivered").await;
    }
    let slowed =
        "SELECT count(*) FROM channel_pace WHERE rate_factor = 0.5 AND hold_reason = 'throttled'";
    assert_eq!(app.count(slowed).await, 1);
    let pace = app
        .get(org.owner(), &format!("/v1/channels/{}/pace", org.sms))
        .await
        .expect(200);
    assert!(pace["rate_factor"].as_f64().unwrap() < 1.0, "{pace}");
}

const ACCOUNT: &str = "ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Two processes on one database, as an operator would run them. The first is killed while its sends are under way.
#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_killed_node_are_taken_over_and_none_goes_twice() {
    const MESSAGES: usize = 60;
    let db = TestDb::empty().await;
    let simulator = Simulator::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let folders = [data_dir(), data_dir()];
    let ports = [(); 2].map(|()| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    });
    let command = |node: usize, args: &[&str]| {
        let mut command = wasel(folders[node].path(), args);
        command
            .env("PORT", ports[node].to_string())
            .env("DATABASE_URL", db.url())
            .env("JWT_SECRET", "a secret of thirty-two characters or more")
            .env("ENCRYPTION_KEY", "0".repeat(64))
            .env("TWILIO_API_BASE", simulator.twilio_base())
            // Reports go to the node that lives, as a load balancer would have it.
            .env("PUBLIC_URL", format!("http://127.0.0.1:{}", ports[1]))
            .env("WASEL_OUTBOX_LEASE", "2s")
            .env("OUTBOX_RECONCILE_WAIT", "3s");
        command
    };
    let file = folders[0].path().join("tenants.toml");
    std::fs::write(
        &file,
        format!(
            r#"
            [[organizations]]
            slug = "a"
            name = "A"
            [[organizations.channels]]
            kind = "twilio_sms"
            name = "SMS"
            account_sid = "{ACCOUNT}"
            auth_token = "token"
            from = "+14155550100"
            "#
        ),
    )
    .unwrap();
    succeed(&mut command(0, &["apply", file.to_str().unwrap()]));
    let world = simulator.world();
    world
        .register_twilio_account(
            serde_json::from_value(json!({ "account_sid": ACCOUNT, "auth_token": "token",
                "numbers": [{ "number": "+14155550100", "channel": "sms" }] }))
            .unwrap(),
        )
        .unwrap();
    sqlx::query("UPDATE channels SET limits = '{\"messages_per_second\": 100}'")
        .execute(&db.owner())
        .await
        .unwrap();
    // Answered late: many are under way when the node dies.
    world.set_faults(FaultPlan {
        seed: 3,
        faults: vec![Fault::always(FaultKind::DelayAnswer).with_delay(Duration::from_millis(400))],
    });
    let owner = db.owner();
    let first = Server::start(&mut command(0, &["serve"]));
    let _second = Server::start(&mut command(1, &["serve"]));
    fill_outbox(&owner, MESSAGES).await;
    wait_until("a third has been handed over", async || {
        (world.accepted().len() > MESSAGES / 3).then_some(())
    })
    .await;
    first.signal(Signal::SIGKILL);
    wait_until("the other node has done the rest", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&owner)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    let mut handed_over: HashMap<String, usize> = HashMap::new();
    for sent in world.accepted() {
        *handed_over.entry(sent.customer).or_default() += 1;
    }
    assert!(
        handed_over.values().all(|count| *count == 1),
        "nobody got it twice: {handed_over:?}"
    );
    // Whoever was not handed over is known by name, as `unknown`; the others end as delivered.
    wait_until("every message has ended", async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM messages WHERE status NOT IN ('delivered', 'read', 'unknown')",
        )
        .fetch_one(&owner)
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
    let unknown: Vec<String> =
        sqlx::query_scalar("SELECT address FROM messages WHERE status = 'unknown'")
            .fetch_all(&owner)
            .await
            .unwrap();
    let told: HashSet<String> = unknown.into_iter().collect();
    for n in 0..MESSAGES {
        let person = person(n);
        let arrived = handed_over.contains_key(&person);
        assert!(
            arrived != told.contains(&person),
            "{person}: arrived {arrived}, {told:?}"
        );
    }
}

/// Messages that must never go twice, each to a person of its own, as a bulk job queues them.
async fn fill_outbox(owner: &sqlx::PgPool, count: usize) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "CREATE TEMP TABLE people AS
             SELECT o.id AS org_id, c.id AS channel_id, wasel.uuid7() AS contact_id, wasel.uuid7() AS conversation_id,
                 wasel.uuid7() AS message_id, '+2010' || (10000000 + n) AS phone
             FROM organizations o JOIN channels c ON c.org_id = o.id, generate_series(0, {count} - 1) n;
         INSERT INTO contacts (org_id, id, phone_number) SELECT org_id, contact_id, phone FROM people;
         INSERT INTO contact_identities (org_id, kind, value, contact_id) SELECT org_id, 'phone', phone, contact_id FROM people;
         INSERT INTO conversations (org_id, id, channel_id, contact_id, phone_number, last_inbound_at)
             SELECT org_id, conversation_id, channel_id, contact_id, phone, now() FROM people;
         INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body,
                 content, address, delivery_policy)
             SELECT org_id, message_id, conversation_id, channel_id, contact_id, 'outbound', 'text', 'queued', 'hello',
                 '{{\"type\": \"text\", \"body\": \"hello\"}}', phone, 'at_most_once' FROM people;
         INSERT INTO outbox (org_id, message_id, channel_id, conversation_id, at_most_once)
             SELECT org_id, message_id, channel_id, conversation_id, true FROM people;
         DROP TABLE people"
    )))
    .execute(owner)
    .await
    .unwrap();
}
