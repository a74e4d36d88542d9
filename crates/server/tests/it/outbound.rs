//! From asking for a message to the customer's ticks, through both simulated providers, with everything that goes
//! wrong on the way.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use wasel_simulator::{CustomerSend, Fault, FaultKind, FaultPlan, Settings, Tick};
use wasel_testkit::{Answer, Chaos, Org, TestApp, twilio, wait_until};

const CUSTOMER: &str = "+201001234567";

fn with_settings(app: &TestApp, change: impl FnOnce(&mut Settings)) {
    let mut settings = app.world().settings();
    change(&mut settings);
    app.world().set_settings(settings);
}

fn with_faults(app: &TestApp, faults: Vec<Fault>) {
    app.world().set_faults(FaultPlan { seed: 7, faults });
}

/// Opens the 24-hour windows by a message from the customer on every line.
async fn open_windows(app: &TestApp, org: &Org) {
    let lines = [
        org.phone_number_id.clone(),
        format!("whatsapp:{}", org.whatsapp_number),
    ];
    for line in lines {
        app.world()
            .send_as_customer(CustomerSend::text(line, CUSTOMER, "hi"))
            .unwrap();
    }
    app.wait_count(
        &format!("SELECT count(*) FROM messages WHERE org_id = '{}'", org.id),
        2,
    )
    .await;
}

async fn ready() -> (TestApp, Org) {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    open_windows(&app, &org).await;
    (app, org)
}

fn id_of(message: &Value) -> &str {
    message["id"].as_str().unwrap()
}

fn events(message: &Value) -> Vec<&str> {
    message["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_message_passes_every_step_to_read_with_its_times_on_each_channel() {
    let (app, org) = ready().await;
    with_settings(&app, |s| s.read_after_ms = Some(10));
    for channel in [org.whatsapp, org.twilio_whatsapp] {
        let sent = org.send(&app, channel, CUSTOMER, "hello").await.expect(202);
        assert_eq!(sent["status"], "queued");
        let message = app.wait_status(org.owner(), id_of(&sent), "read").await;
        let timeline = events(&message);
        for step in ["queued", "sending", "sent", "delivered", "read"] {
            assert!(
                timeline.contains(&step),
                "{step} is missing in {timeline:?}"
            );
        }
        let times: Vec<&str> = ["created_at", "sent_at", "delivered_at", "read_at"]
            .map(|f| message[f].as_str().unwrap())
            .into();
        assert!(times.windows(2).skip(1).all(|w| w[0] <= w[1]), "{times:?}");
        assert!(message["provider_message_id"].is_string());
    }
    let sent = org
        .send(&app, org.sms, CUSTOMER, "by SMS")
        .await
        .expect(202);
    app.wait_status(org.owner(), id_of(&sent), "delivered")
        .await;
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 0);
    assert!(app.world().double_sends().is_empty());
}

#[tokio::test]
async fn twilio_callbacks_in_any_order_and_number_end_in_the_same_rows() {
    let (app, org) = ready().await;
    with_settings(&app, |s| {
        (s.sent_after_ms, s.delivered_after_ms) = (None, None)
    });
    let orders: [&[&str]; 4] = [
        &["queued", "sent", "delivered", "read"],
        &["read", "delivered", "sent", "queued"],
        &[
            "delivered",
            "delivered",
            "read",
            "sent",
            "sent",
            "read",
            "queued",
        ],
        &["sent", "read", "sent", "delivered"],
    ];
    let mut seen = Vec::new();
    for order in orders {
        let sent = org
            .send(&app, org.twilio_whatsapp, CUSTOMER, "hello")
            .await
            .expect(202);
        let accepted = app
            .wait_message(org.owner(), id_of(&sent), |m| {
                m["provider_message_id"].is_string()
            })
            .await;
        let sid = accepted["provider_message_id"].as_str().unwrap();
        let (from, to) = (
            format!("whatsapp:{}", org.whatsapp_number),
            format!("whatsapp:{CUSTOMER}"),
        );
        for status in order {
            let form = twilio::status(&org.account_sid, &from, &to, sid, status);
            let answer = app
                .twilio_webhook(&org, "/functions/v1/twilio-delivery-status", &form)
                .await;
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
        let message = app.wait_status(org.owner(), id_of(&sent), "read").await;
        let mut timeline = events(&message);
        timeline.sort_unstable();
        assert!(
            message["sent_at"].is_string()
                && message["delivered_at"].is_string()
                && message["read_at"].is_string()
        );
        timeline.retain(|event| *event != "queued");
        seen.push(timeline.join(" "));
    }
    assert!(
        seen.iter().all(|timeline| *timeline == seen[0]),
        "{seen:#?}"
    );
}

#[tokio::test]
async fn duplicated_and_reordered_webhooks_of_the_simulator_end_as_read() {
    let (app, org) = ready().await;
    with_settings(&app, |s| s.read_after_ms = Some(5));
    with_faults(
        &app,
        vec![
            Fault::always(FaultKind::DuplicateWebhook).with_probability(0.5),
            Fault::always(FaultKind::ReorderWebhook).with_probability(0.5),
        ],
    );
    let mut ids = Vec::new();
    for n in 0..8 {
        let channel = if n % 2 == 0 {
            org.whatsapp
        } else {
            org.twilio_whatsapp
        };
        ids.push(
            id_of(
                &org.send(&app, channel, CUSTOMER, &format!("message {n}"))
                    .await
                    .expect(202),
            )
            .to_owned(),
        );
    }
    for id in &ids {
        app.wait_status(org.owner(), id, "read").await;
    }
    let twice = "SELECT count(*) FROM (SELECT 1 FROM message_events WHERE attempt_id IS NOT NULL GROUP BY message_id, attempt_id, event HAVING count(*) > 1) t";
    assert_eq!(app.count(twice).await, 0);
}

#[tokio::test]
async fn what_the_provider_cannot_take_now_is_sent_again_and_arrives_once() {
    let (app, org) = ready().await;
    for (kind, channel) in [
        (FaultKind::ServerError, org.whatsapp),
        (FaultKind::ServerError, org.sms),
        (FaultKind::ResetBeforeAccept, org.twilio_whatsapp),
        (FaultKind::RateLimited, org.sms),
    ] {
        with_faults(&app, vec![Fault::next(kind, 1)]);
        let sent = org.send(&app, channel, CUSTOMER, "hello").await.expect(202);
        let message = app
            .wait_status(org.owner(), id_of(&sent), "delivered")
            .await;
        assert!(
            message["retry_count"].as_i64().unwrap() >= 1 || kind == FaultKind::ResetBeforeAccept,
            "{kind:?} {message}"
        );
        if kind == FaultKind::RateLimited {
            // Twilio's `Retry-After: 1` is longer than our own first pause of 20 ms.
            let waited: f64 = sqlx::query_scalar(
                "SELECT extract(epoch FROM max(created_at) - min(created_at))::float8 FROM message_attempts WHERE message_id = $1::uuid",
            )
            .bind(id_of(&sent))
            .fetch_one(&app.owner)
            .await
            .unwrap();
            assert!(waited >= 0.9, "{waited}");
        }
    }
    assert!(
        app.world().double_sends().is_empty(),
        "{:?}",
        app.world().double_sends()
    );
}

#[tokio::test]
async fn what_the_provider_refuses_for_good_fails_with_the_reason_and_is_not_repeated() {
    let (app, org) = ready().await;
    app.world()
        .put_customer(
            serde_json::from_value(json!({ "number": "+201005555555", "reachable": false }))
                .unwrap(),
        )
        .unwrap();
    let sent = org
        .send(&app, org.sms, "+201005555555", "hello")
        .await
        .expect(202);
    let message = app.wait_status(org.owner(), id_of(&sent), "failed").await;
    assert!(!message["error_code"].as_str().unwrap().is_empty());
    assert!(message["failed_at"].is_string());
    // A template that does not exist, refused at once by Meta.
    let template = json!({ "channel_id": org.whatsapp, "to": CUSTOMER,
        "content": { "type": "template", "name": "no_such", "language": "ar", "components": [] } });
    let sent = app
        .post(org.owner(), "/v1/messages", &template)
        .await
        .expect(202);
    let message = app.wait_status(org.owner(), id_of(&sent), "failed").await;
    assert_eq!(message["error_code"], "132001", "{message}");
    assert!(!message["error_message"].as_str().unwrap().is_empty());
    assert_eq!(events(&message), ["queued", "sending", "failed"]);
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 0);
}

#[tokio::test]
async fn a_send_whose_answer_was_lost_is_settled_by_its_callback_and_not_sent_twice() {
    // The callback needs a moment on a busy machine, and must be there before the message is sent again.
    let app = TestApp::builder()
        .configure(|config| config.outbox.reconcile_wait = Duration::from_secs(1))
        .start()
        .await;
    let org = app.org("a").await;
    open_windows(&app, &org).await;
    for channel in [org.whatsapp, org.twilio_whatsapp, org.sms] {
        app.world().clear_records();
        with_faults(&app, vec![Fault::next(FaultKind::ResetAfterAccept, 1)]);
        let sent = org.send(&app, channel, CUSTOMER, "hello").await.expect(202);
        let message = app
            .wait_status(org.owner(), id_of(&sent), "delivered")
            .await;
        assert!(message["provider_message_id"].is_string(), "{message}");
        // Long enough for the reconciler to have acted, had the callback not settled it.
        tokio::time::sleep(Duration::from_millis(1600)).await;
        assert_eq!(app.world().accepted().len(), 1, "{channel}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_sent_again_only_where_the_message_says_so() {
    let (app, org) = ready().await;
    with_settings(&app, |s| {
        (s.sent_after_ms, s.delivered_after_ms) = (None, None)
    });
    for (policy, tries) in [("at_least_once", 2), ("at_most_once", 1)] {
        app.world().clear_records();
        with_faults(&app, vec![Fault::next(FaultKind::ResetAfterAccept, 1)]);
        let request = json!({ "channel_id": org.whatsapp, "to": CUSTOMER, "delivery_policy": policy,
            "content": { "type": "text", "body": policy } });
        let sent = app
            .post(org.owner(), "/v1/messages", &request)
            .await
            .expect(202);
        wait_until("it is settled", async || {
            let left = app.count("SELECT count(*) FROM outbox").await;
            (left == 0).then_some(())
        })
        .await;
        assert_eq!(app.world().accepted().len(), tries, "{policy}");
        let message = app
            .get(org.owner(), &format!("/v1/messages/{}", id_of(&sent)))
            .await
            .expect(200);
        if policy == "at_most_once" {
            assert_eq!(message["status"], "unknown", "{message}");
            // The callback that comes after all still counts.
            let taken = app.world().accepted().pop().unwrap();
            app.world()
                .set_tick(&taken.message_id, Tick::Delivered)
                .unwrap();
            app.wait_status(org.owner(), id_of(&sent), "delivered")
                .await;
        }
    }
}

#[tokio::test]
async fn the_messages_of_one_conversation_leave_in_the_order_they_were_asked_for() {
    let (app, org) = ready().await;
    // The first is held up: the others must not pass it.
    with_faults(
        &app,
        vec![
            Fault::next(FaultKind::ServerError, 2),
            Fault::always(FaultKind::Delay).with_probability(0.3),
        ],
    );
    let mut last = String::new();
    for n in 0..12 {
        last = id_of(
            &org.send(&app, org.whatsapp, CUSTOMER, &format!("message {n}"))
                .await
                .expect(202),
        )
        .to_owned();
    }
    app.wait_status(org.owner(), &last, "delivered").await;
    let texts: Vec<String> = app
        .world()
        .thread(&org.phone_number_id, CUSTOMER, 100)
        .into_iter()
        .filter(|message| message.origin == wasel_simulator::Origin::Api)
        .filter_map(|message| message.text)
        .collect();
    let wanted: Vec<String> = (0..12).map(|n| format!("message {n}")).collect();
    assert_eq!(texts, wanted);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_message_of_any_number_of_requests() {
    let (app, org) = ready().await;
    let ask = async |token: &str, key: &str, body: &str| {
        let content = json!({ "channel_id": org.sms, "to": CUSTOMER, "content": { "type": "text", "body": body } });
        let request = app
            .request(Method::POST, "/v1/messages")
            .bearer_auth(token)
            .header("idempotency-key", key);
        Answer::of(request.json(&content)).await
    };
    let first = ask(org.owner(), "k1", "hello").await.expect(202);
    let second = ask(org.owner(), "k1", "hello").await.expect(200);
    assert_eq!(first["id"], second["id"]);
    let other = ask(org.owner(), "k1", "something else").await.expect(422);
    assert_eq!(other["error"]["code"], "idempotency_key_reused");
    let of_another = ask(org.agent(), "k1", "hello").await.expect(202);
    assert_ne!(of_another["id"], first["id"], "keys belong to their caller");
    let all =
        futures_util::future::join_all((0..10).map(|_| ask(org.owner(), "k2", "at once"))).await;
    let ids: Vec<String> = all
        .into_iter()
        .map(|answer| {
            assert!([200, 202].contains(&answer.status), "{}", answer.text);
            answer.body["id"].to_string()
        })
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(
        app.count("SELECT count(*) FROM messages WHERE body = 'at once'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_channel_the_provider_blocks_keeps_its_queue_until_it_is_mended() {
    let (app, org) = ready().await;
    with_faults(
        &app,
        vec![Fault::always(FaultKind::ExpiredToken).on_line(&org.phone_number_id)],
    );
    let first = org
        .send(&app, org.whatsapp, CUSTOMER, "one")
        .await
        .expect(202);
    let path = format!("/v1/channels/{}", org.whatsapp);
    wait_until("the channel is blocked", async || {
        (app.get(org.owner(), &path).await.body["status"] == "blocked").then_some(())
    })
    .await;
    let channel = app.get(org.owner(), &path).await.expect(200);
    assert!(!channel["status_reason"].as_str().unwrap().is_empty());
    let kept = app
        .get(org.owner(), &format!("/v1/messages/{}", id_of(&first)))
        .await
        .expect(200);
    assert_eq!(kept["status"], "queued", "{kept}");
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 1);
    // Another channel of the tenant goes on.
    let sms = org
        .send(&app, org.sms, CUSTOMER, "by SMS")
        .await
        .expect(202);
    app.wait_status(org.owner(), id_of(&sms), "delivered").await;
    // Somebody puts a new token in.
    app.world().set_faults(FaultPlan::default());
    sqlx::query("UPDATE channels SET status = 'active', status_reason = NULL")
        .execute(&app.owner)
        .await
        .unwrap();
    app.wait_status(org.owner(), id_of(&first), "delivered")
        .await;
}

#[tokio::test]
async fn marking_a_conversation_read_shows_the_customer_blue_ticks() {
    let (app, org) = ready().await;
    let list = app
        .get(
            org.owner(),
            &format!("/v1/conversations?channel_id={}", org.whatsapp),
        )
        .await
        .expect(200);
    let conversation = &list["data"][0];
    assert_eq!(conversation["unread_count"], 1);
    let path = format!(
        "/v1/conversations/{}/read",
        conversation["id"].as_str().unwrap()
    );
    let read = app
        .post(org.agent(), &path, &json!({ "typing": true }))
        .await
        .expect(200);
    assert_eq!(read["unread_count"], 0);
    wait_until("the receipt reaches the provider", async || {
        let requests = app.world().requests();
        requests
            .iter()
            .any(|r| {
                r.body
                    .as_deref()
                    .is_some_and(|b| b.contains("\"read\"") && b.contains("typing_indicator"))
            })
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_live_chat_sends_in_its_own_shape() {
    let (app, org) = ready().await;
    let list = app
        .get(
            org.agent(),
            &format!(
                "/api/live-chat/conversations?phone_number_id={}",
                org.phone_number_id
            ),
        )
        .await
        .expect(200);
    let conversation = list["conversations"][0]["id"].clone();
    let sent = app
        .post(org.agent(), "/api/live-chat/send-message", &json!({ "conversation_id": conversation,
            "phone_number_id": org.phone_number_id, "to": CUSTOMER, "message": "hello", "message_type": "text" }))
        .await
        .expect(200);
    assert_eq!(sent["success"], true);
    assert_eq!(sent["message"]["content"], "hello");
    assert_eq!(sent["message"]["sender"], "user");
    app.wait_status(
        org.owner(),
        sent["message_id"].as_str().unwrap(),
        "delivered",
    )
    .await;
    // To a number from a number, in the digits of the country.
    let sent = app
        .post(
            org.agent(),
            "/api/live-chat/send-message",
            &json!({ "phone_number_id": org.phone_number_id,
            "to": "01001234567", "message": "again" }),
        )
        .await
        .expect(200);
    app.wait_status(
        org.owner(),
        sent["message_id"].as_str().unwrap(),
        "delivered",
    )
    .await;
    let bad = app
        .post(
            org.agent(),
            "/api/live-chat/send-message",
            &json!({ "conversation_id": conversation }),
        )
        .await
        .expect(400);
    assert_eq!(bad["success"], false);
    assert!(bad["error"].as_str().unwrap().contains("message"), "{bad}");
    app.post(
        &org.people.viewer_token,
        "/api/live-chat/send-message",
        &json!({ "conversation_id": conversation, "message": "x" }),
    )
    .await
    .expect(403);
}

#[tokio::test]
async fn the_fleet_documents_send_answers_with_the_providers_id() {
    let (app, org) = ready().await;
    let body = json!({ "org_id": org.id, "recipient": CUSTOMER, "message": "hello", "type": "text", "channel_id": org.whatsapp });
    let sent = app
        .post(org.owner(), "/api/messages/send", &body)
        .await
        .expect(200);
    assert_eq!(sent["success"], true);
    assert_eq!(sent["status"], "sent");
    assert!(
        sent["whatsapp_message_id"]
            .as_str()
            .unwrap()
            .starts_with("wamid."),
        "{sent}"
    );
    let other = app.org("b").await;
    let forbidden = app
        .post(other.owner(), "/api/messages/send", &body)
        .await
        .expect(403);
    assert_eq!(forbidden["success"], false);
    app.post(org.agent(), "/api/messages/send", &body)
        .await
        .expect(403);
    let failed = json!({ "recipient": "12", "message": "hello" });
    app.post(org.owner(), "/api/messages/send", &failed)
        .await
        .expect(400);
    // The service-role key names its tenant in a header.
    let key = app
        .state()
        .config
        .auth
        .supabase_service_role_key
        .as_ref()
        .unwrap()
        .expose()
        .to_owned();
    let ask = |org_id: Option<String>| {
        let request = app
            .request(Method::POST, "/api/messages/send")
            .bearer_auth(&key)
            .json(&body);
        Answer::of(match org_id {
            Some(id) => request.header("x-org-id", id),
            None => request,
        })
    };
    ask(Some(org.id.to_string())).await.expect(200);
    assert!([400, 401, 403].contains(&ask(None).await.status));
}

#[tokio::test]
async fn the_documents_paths_have_their_limits_and_say_when_to_come_again() {
    let app = TestApp::builder()
        .configure(|config| {
            config.limits.api_requests = 100;
            config.limits.org_sends_per_minute = 10;
        })
        .start()
        .await;
    let org = app.org("a").await;
    open_windows(&app, &org).await;
    let other_node = TestApp::builder()
        .on(app.db.clone())
        .with_simulator(app.simulator.clone())
        .configure(|config| config.limits.org_sends_per_minute = 10)
        .start()
        .await;
    let body = json!({ "recipient": CUSTOMER, "message": "hello", "channel_id": org.whatsapp });
    for n in 0..10 {
        let node = if n % 2 == 0 { &app } else { &other_node };
        let answer = node.post(org.owner(), "/api/messages/send", &body).await;
        assert_eq!(answer.status, 200, "{n}: {}", answer.text);
    }
    for node in [&app, &other_node] {
        let refused = node.post(org.owner(), "/api/messages/send", &body).await;
        assert_eq!(refused.status, 429, "{}", refused.text);
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(refused.body["success"], false);
    }
    // Ours is not limited so.
    org.send(&app, org.sms, CUSTOMER, "hello").await.expect(202);

    // 100 requests of one caller, all at once if they like; six were made above.
    let mut refused = None;
    for _ in 0..100 {
        let answer = app.get(org.owner(), "/api/live-chat/conversations").await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        answer.expect(200);
    }
    let refused = refused.expect("the hundred and first is refused");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    app.get(org.agent(), "/api/live-chat/conversations")
        .await
        .expect(200);
}

#[tokio::test]
async fn with_the_provider_out_of_reach_messages_wait_and_go_when_it_is_back() {
    let simulator = std::sync::Arc::new(
        wasel_simulator::Simulator::start("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap(),
    );
    let chaos = Chaos::before(
        simulator
            .base_url()
            .trim_start_matches("http://")
            .to_owned(),
    )
    .await;
    let base = format!("http://{}", chaos.address);
    let app = TestApp::builder()
        .with_simulator(simulator)
        .configure(move |config| config.providers.meta_graph_base = base.try_into().unwrap())
        .start()
        .await;
    let org = app.org("a").await;
    open_windows(&app, &org).await;
    chaos.refuse();
    let sent = org
        .send(&app, org.whatsapp, CUSTOMER, "hello")
        .await
        .expect(202);
    app.wait_message(org.owner(), id_of(&sent), |m| {
        m["retry_count"].as_i64() > Some(0) || events(m).contains(&"attempt_failed")
    })
    .await;
    chaos.heal();
    app.wait_status(org.owner(), id_of(&sent), "delivered")
        .await;
    assert!(app.world().double_sends().is_empty());
}

#[tokio::test]
async fn a_lost_callback_is_made_good_by_asking_and_the_price_comes_along() {
    let app = TestApp::builder()
        .configure(|config| config.outbox.check_after = Duration::from_millis(100))
        .start()
        .await;
    let org = app.org("a").await;
    with_faults(
        &app,
        vec![Fault {
            kind: FaultKind::DropWebhook,
            provider: None,
            line: None,
            probability: 1.0,
            next: None,
            delay_ms: None,
            scope: Default::default(),
        }],
    );
    let sent = org.send(&app, org.sms, CUSTOMER, "hello").await.expect(202);
    let message = app
        .wait_status(org.owner(), id_of(&sent), "delivered")
        .await;
    assert!(message["sent_at"].is_string() && message["delivered_at"].is_string());
    app.wait_count("SELECT count(*) FROM message_checks", 0)
        .await;
    let report = app
        .get(org.owner(), "/v1/reports/messages?group_by=channel")
        .await
        .expect(200);
    assert_eq!(report["data"][0]["cost"], "0.00750");
    assert_eq!(report["data"][0]["currency"], "USD");
    assert_eq!(report["data"][0]["segments"], 1);
}
