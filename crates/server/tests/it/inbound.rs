//! From a provider's webhook to the screen: nothing authentic is lost, nothing forged gets in, nothing doubles.

use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};
use wasel_simulator::CustomerSend;
use wasel_testkit::{Answer, Chaos, TestApp, TestDb, meta, twilio, wait_until};

/// Meta's sample of a text message, with the number of a tenant.
const SAMPLE: &str = include_str!("../../../providers/tests/payloads/whatsapp_cloud/text.json");

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn metas_sample_message_is_in_the_live_chat_and_in_the_api() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let sample = SAMPLE.replace("106540352242922", &org.phone_number_id);
    let answer = app
        .meta_webhook_signed(&org.app_secret, sample.into_bytes())
        .await;
    assert_eq!(answer.clone().expect(200), json!({ "success": true }));

    // S1.2
    let list = app
        .get(org.owner(), "/api/live-chat/conversations")
        .await
        .expect(200);
    assert_eq!(keys(&list), ["conversations", "success"]);
    let conversation = &list["conversations"][0];
    let id = conversation["id"].as_str().unwrap();
    assert_eq!(
        *conversation,
        json!({
            "id": id, "customer_phone": "+16505551234", "customer_name": "Sheena Nelson",
            "last_message": "Does it come in another color?", "last_message_time": "2025-06-08T20:59:43Z",
            "unread_count": 1, "status": "active",
        })
    );
    let by_number = format!(
        "/api/live-chat/conversations?phone_number_id={}",
        org.phone_number_id
    );
    assert_eq!(app.get(org.owner(), &by_number).await.expect(200), list);
    let of_no_number = app
        .get(
            org.owner(),
            "/api/live-chat/conversations?phone_number_id=1",
        )
        .await
        .expect(200);
    assert_eq!(of_no_number["conversations"], json!([]));

    // S1.3
    let thread = app
        .get(
            org.owner(),
            &format!("/api/live-chat/messages?conversation_id={id}"),
        )
        .await
        .expect(200);
    assert_eq!(thread["success"], true);
    let message = &thread["messages"][0];
    assert_eq!(
        *message,
        json!({
            "id": message["id"], "content": "Does it come in another color?", "message_type": "text",
            "sender": "customer", "timestamp": "2025-06-08T20:59:43Z", "status": "delivered",
            "media_url": null, "media_caption": null,
        })
    );

    // Ours.
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["unread_count"], 1);
    assert_eq!(conversation["channel_id"], json!(org.whatsapp));
    let thread = org.thread(&app, &conversation).await;
    assert_eq!(thread.len(), 1);
    assert_eq!(thread[0]["status"], "received");
    assert_eq!(thread[0]["direction"], "inbound");
    assert_eq!(thread[0]["id"], message["id"]);
    let contacts = app.get(org.owner(), "/v1/contacts").await.expect(200);
    let identities = contacts["data"][0]["identities"].as_array().unwrap();
    assert!(
        identities.contains(&json!({ "kind": "phone", "value": "+16505551234" })),
        "{contacts}"
    );
    assert!(
        identities.contains(&json!({ "kind": "bsuid", "value": "US.13491208655302741918" })),
        "{contacts}"
    );
}

#[tokio::test]
async fn a_wrong_signature_is_refused_and_stores_nothing() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let body = meta::change(
        &org.phone_number_id,
        meta::text("201001234567", "wamid.1", "hi"),
    )
    .to_string();
    app.meta_webhook_signed("another secret", body.clone().into_bytes())
        .await
        .expect(401);
    let unsigned = app
        .request(Method::POST, "/api/webhooks/whatsapp")
        .body(body.clone());
    Answer::of(unsigned).await.expect(401);
    let own = format!("/api/webhooks/whatsapp/{}", org.whatsapp);
    let forged = app
        .request(Method::POST, &own)
        .header("x-hub-signature-256", "sha256=00")
        .body(body);
    let refused = Answer::of(forged).await.expect(401);
    assert_eq!(refused["success"], false);
    assert!(refused["error"].is_string(), "{refused}");
    let form = twilio::inbound(
        &org.account_sid,
        "+201001234567",
        &org.sms_number,
        "SM1",
        "hi",
    );
    let forged = app
        .request(Method::POST, "/api/webhooks/twilio")
        .header("content-type", "application/x-www-form-urlencoded")
        .header(
            "x-twilio-signature",
            twilio::signature(
                "another token",
                &format!("{}/api/webhooks/twilio", app.base),
                &form,
            ),
        )
        .body(twilio::body(&form));
    Answer::of(forged).await.expect(401);
    for table in ["webhook_events", "messages", "conversations", "contacts"] {
        assert_eq!(
            app.count(&format!("SELECT count(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
}

#[tokio::test]
async fn truncated_json_that_is_authentic_is_kept_as_a_dead_letter_with_its_reason() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let body = meta::change(
        &org.phone_number_id,
        meta::text("201001234567", "wamid.1", "hi"),
    )
    .to_string();
    let half = body.as_bytes()[..body.len() / 2].to_vec();
    app.meta_webhook_signed(&org.app_secret, half.clone())
        .await
        .expect(200);
    let dead = app
        .get(org.owner(), "/v1/webhook-events?outcome=dead_letter")
        .await
        .expect(200);
    assert_eq!(dead["data"].as_array().unwrap().len(), 1, "{dead}");
    assert!(
        dead["data"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("not understood"),
        "{dead}"
    );
    let kept: Vec<u8> = sqlx::query_scalar("SELECT body FROM webhook_events")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert_eq!(kept, half);
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 0);
    app.get(org.agent(), "/v1/webhook-events").await.expect(403);
}

#[tokio::test]
async fn an_authentic_event_for_an_unknown_number_waits_and_is_replayed_once_the_channel_is_there()
{
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let payload = meta::change(
        "999",
        meta::text("201001234567", "wamid.1", "are you there?"),
    );
    app.meta_webhook(&org, &payload).await.expect(200);
    let dead = app
        .get(org.owner(), "/v1/webhook-events?outcome=dead_letter")
        .await
        .expect(200);
    let event = &dead["data"][0];
    assert!(event["reason"].as_str().unwrap().contains("999"), "{dead}");
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 0);

    let replay = format!(
        "/v1/webhook-events/{}/replay",
        event["id"].as_str().unwrap()
    );
    let still = app.post(org.owner(), &replay, &json!({})).await.expect(200);
    assert_eq!(still["outcome"], "dead_letter");
    app.apply(&format!(
        r#"
        [[organizations]]
        slug = "a"
        name = "Organisation a"
        [[organizations.channels]]
        kind = "whatsapp_cloud"
        name = "A second number"
        waba_id = "1"
        phone_number_id = "999"
        display_phone_number = "+14155559999"
        access_token = "t"
        app_secret = "{}"
        verify_token = "v"
        "#,
        org.app_secret
    ))
    .await;
    let replayed = app.post(org.owner(), &replay, &json!({})).await.expect(200);
    assert_eq!(replayed["outcome"], "stored", "{replayed}");
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["last_message"], "are you there?");
    // Once more changes nothing.
    app.post(org.owner(), &replay, &json!({})).await.expect(200);
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM webhook_events").await, 1);
}

#[tokio::test]
async fn a_body_of_five_megabytes_is_refused_as_too_large() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let answer = app
        .meta_webhook_signed(&org.app_secret, vec![b' '; 5 << 20])
        .await;
    let body = answer.expect(413);
    assert_eq!(body["success"], false);
    assert_eq!(app.count("SELECT count(*) FROM webhook_events").await, 0);
    // What Meta may send is taken: 3 MB.
    let long = "x".repeat(2_900_000);
    let payload = meta::change(
        &org.phone_number_id,
        meta::text("201001234567", "wamid.big", &long),
    );
    app.meta_webhook(&org, &payload).await.expect(200);
}

#[tokio::test]
async fn the_same_event_fifty_times_at_once_is_one_message() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let payload = meta::change(
        &org.phone_number_id,
        meta::text("201001234567", "wamid.1", "once"),
    );
    let all = (0..50).map(|_| app.meta_webhook(&org, &payload));
    for answer in futures_util::future::join_all(all).await {
        answer.expect(200);
    }
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["unread_count"], 1);
    assert_eq!(org.thread(&app, &conversation).await.len(), 1);
    assert_eq!(app.count("SELECT count(*) FROM webhook_events").await, 50);
    assert_eq!(
        app.count("SELECT count(*) FROM webhook_events WHERE outcome = 'stored'")
            .await,
        1
    );
    assert_eq!(
        app.count("SELECT count(*) FROM change_log WHERE table_name = 'messages'")
            .await,
        1
    );
}

#[tokio::test]
async fn different_messages_of_one_new_customer_at_once_make_one_conversation() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let all = (0..40).map(|n| {
        let payload = meta::change(
            &org.phone_number_id,
            meta::text("201001234567", &format!("wamid.{n}"), "hello"),
        );
        let (app, org) = (&app, &org);
        async move { app.meta_webhook(org, &payload).await }
    });
    for answer in futures_util::future::join_all(all).await {
        answer.expect(200);
    }
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["unread_count"], 40);
    assert_eq!(org.thread(&app, &conversation).await.len(), 40);
    assert_eq!(app.count("SELECT count(*) FROM contacts").await, 1);
}

#[tokio::test]
async fn a_batch_is_sorted_by_tenant_where_both_share_an_app() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    // One Meta app serves both: the same secret.
    app.apply(&format!(
        r#"
        [[organizations]]
        slug = "b"
        name = "Organisation b"
        [[organizations.channels]]
        kind = "whatsapp_cloud"
        name = "WhatsApp"
        waba_id = "2"
        phone_number_id = "{}"
        display_phone_number = "+14155558888"
        access_token = "t"
        app_secret = "{}"
        verify_token = "v"
        "#,
        b.phone_number_id, a.app_secret
    ))
    .await;
    let payload = meta::batch([
        meta::entry(
            &a.phone_number_id,
            meta::text("201001234567", "wamid.1", "to a"),
        ),
        meta::entry(
            &b.phone_number_id,
            meta::text("201001234567", "wamid.2", "to b"),
        ),
        meta::entry(
            &a.phone_number_id,
            meta::text("201007654321", "wamid.3", "to a too"),
        ),
    ]);
    app.meta_webhook(&a, &payload).await.expect(200);
    let of = async |token: &str| -> Vec<String> {
        let list = app.get(token, "/v1/conversations").await.expect(200);
        let mut texts: Vec<String> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["last_message"].as_str().unwrap().to_owned())
            .collect();
        texts.sort();
        texts
    };
    assert_eq!(of(a.owner()).await, ["to a", "to a too"]);
    assert_eq!(of(b.owner()).await, ["to b"]);
    assert_eq!(
        app.count("SELECT count(*) FROM webhook_events WHERE outcome = 'stored'")
            .await,
        2,
        "one per tenant"
    );
}

#[tokio::test]
async fn a_tenant_cannot_write_into_another_with_its_own_app_secret() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let forged = meta::change(
        &a.phone_number_id,
        meta::text("201001234567", "wamid.1", "forged"),
    );
    app.meta_webhook_signed(&b.app_secret, forged.to_string().into_bytes())
        .await;
    // Hidden in a batch beside an honest entry.
    let mixed = meta::batch([
        meta::entry(
            &b.phone_number_id,
            meta::text("201001234567", "wamid.2", "honest"),
        ),
        meta::entry(
            &a.phone_number_id,
            meta::text("201001234567", "wamid.3", "forged"),
        ),
        meta::entry(
            &a.phone_number_id,
            meta::status("201001234567", "wamid.x", "read", 1_749_416_383),
        ),
    ]);
    app.meta_webhook_signed(&b.app_secret, mixed.to_string().into_bytes())
        .await
        .expect(200);
    // By the address of b's own channel.
    let path = format!("/api/webhooks/whatsapp/{}", b.whatsapp);
    let body = forged.to_string();
    let request = app.request(Method::POST, &path).header(
        "x-hub-signature-256",
        meta::signature(&b.app_secret, body.as_bytes()),
    );
    Answer::of(request.body(body)).await;
    let form = twilio::inbound(
        &a.account_sid,
        "+201001234567",
        &a.sms_number,
        "SM00000000000000000000000000000001",
        "forged",
    );
    app.twilio_webhook(&b, "/api/webhooks/twilio", &form).await;

    let of_a = format!("org_id = '{}'", a.id);
    for table in [
        "webhook_events",
        "messages",
        "conversations",
        "contacts",
        "pending_statuses",
    ] {
        assert_eq!(
            app.count(&format!("SELECT count(*) FROM {table} WHERE {of_a}"))
                .await,
            0,
            "{table}"
        );
    }
    assert_eq!(b.conversation(&app).await["last_message"], "honest");
    let reason = app
        .get(b.owner(), "/v1/webhook-events?outcome=dead_letter")
        .await
        .expect(200);
    // What the other tenant's secret did sign is its own to explain.
    for event in reason["data"].as_array().unwrap() {
        let words = event["reason"].as_str().unwrap();
        assert!(
            words.contains("signature") || words.contains("no channel"),
            "{event}"
        );
    }
}

#[tokio::test]
async fn a_status_that_comes_before_its_message_waits_for_it() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    app.world()
        .send_as_customer(CustomerSend::text(
            &org.phone_number_id,
            "+201001234567",
            "hi",
        ))
        .unwrap();
    app.wait_count("SELECT count(*) FROM messages", 1).await;
    let mut settings = app.world().settings();
    (settings.sent_after_ms, settings.delivered_after_ms) = (None, None);
    app.world().set_settings(settings);
    // The provider takes the message, but its answer is late: the callbacks are first.
    let mut fault = wasel_simulator::Fault::next(wasel_simulator::FaultKind::DelayAnswer, 1);
    fault.delay_ms = Some(1500);
    app.world().set_faults(wasel_simulator::FaultPlan {
        seed: 0,
        faults: vec![fault],
    });
    let sent = org
        .send(&app, org.whatsapp, "+201001234567", "hello")
        .await
        .expect(202);
    let accepted = wait_until("the provider takes it", async || {
        app.world().accepted().pop()
    })
    .await;
    let now = Utc::now().timestamp();
    for (status, at) in [("delivered", now + 1), ("sent", now)] {
        let payload = meta::change(
            &org.phone_number_id,
            meta::status("201001234567", &accepted.message_id, status, at),
        );
        app.meta_webhook(&org, &payload).await.expect(200);
    }
    assert_eq!(app.count("SELECT count(*) FROM pending_statuses").await, 2);
    let message = app
        .wait_status(org.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
    assert_eq!(message["provider_message_id"], json!(accepted.message_id));
    assert!(
        message["sent_at"].is_string() && message["delivered_at"].is_string(),
        "{message}"
    );
    assert_eq!(app.count("SELECT count(*) FROM pending_statuses").await, 0);
    assert!(app.world().double_sends().is_empty());
}

#[tokio::test]
async fn stop_in_english_or_arabic_ends_sending_until_they_write_start() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    for (number, stop, start) in [
        ("201001234567", "STOP", "START"),
        ("201001234568", "إلغاء", "اشتراك"),
    ] {
        let write = async |id: &str, text: &str| {
            let payload = meta::change(
                &org.phone_number_id,
                meta::text(number, &format!("wamid.{number}.{id}"), text),
            );
            app.meta_webhook(&org, &payload).await.expect(200);
        };
        let to = format!("+{number}");
        write("1", "hello").await;
        org.send(&app, org.whatsapp, &to, "hi").await.expect(202);
        write("2", stop).await;
        let refused = org
            .send(&app, org.whatsapp, &to, "are you sure?")
            .await
            .expect(422);
        assert_eq!(refused["error"]["code"], "opted_out", "{stop}: {refused}");
        let contacts = app
            .get(org.owner(), &format!("/v1/contacts?search={number}"))
            .await
            .expect(200);
        let path = format!(
            "/v1/contacts/{}",
            contacts["data"][0]["id"].as_str().unwrap()
        );
        let contact = app.get(org.owner(), &path).await.expect(200);
        assert_eq!(contact["consents"][0]["state"], "opted_out", "{contact}");
        assert_eq!(contact["consents"][0]["source"], "keyword", "{contact}");
        write("3", start).await;
        let answer = org.send(&app, org.whatsapp, &to, "welcome back").await;
        assert_eq!(answer.status, 202, "{start}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_message_outside_the_window_is_refused_and_a_template_is_not() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let to = "+201001234567";
    let refused = org.send(&app, org.whatsapp, to, "hello").await.expect(422);
    assert_eq!(refused["error"]["code"], "window_closed", "{refused}");
    let yesterday = Utc::now().timestamp() - 25 * 3600;
    let old = meta::change(
        &org.phone_number_id,
        meta::text_at("201001234567", "wamid.1", "hi", yesterday),
    );
    app.meta_webhook(&org, &old).await.expect(200);
    let refused = org.send(&app, org.whatsapp, to, "hello").await.expect(422);
    assert_eq!(refused["error"]["code"], "window_closed", "{refused}");
    assert_eq!(
        app.count("SELECT count(*) FROM messages WHERE direction = 'outbound'")
            .await,
        0,
        "a refusal leaves nothing"
    );
    // SMS knows no window.
    org.send(&app, org.sms, to, "hello").await.expect(202);
    let template = json!({ "channel_id": org.whatsapp, "to": to, "content": { "type": "template", "name": "order_ready",
        "language": "ar", "components": [{ "type": "body", "parameters": [{ "type": "text", "text": "42" }] }] } });
    let sent = app
        .post(org.owner(), "/v1/messages", &template)
        .await
        .expect(202);
    app.wait_status(org.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
}

#[tokio::test]
async fn with_the_database_away_the_provider_is_asked_to_come_again_and_then_nothing_is_missing() {
    let db = std::sync::Arc::new(TestDb::new().await);
    let chaos = Chaos::before_database(&db).await;
    let app = TestApp::builder()
        .database_url(chaos.database_url(&db))
        .on(db)
        .start()
        .await;
    let org = app.org("a").await;
    let payload = |n: u32| {
        meta::change(
            &org.phone_number_id,
            meta::text("201001234567", &format!("wamid.{n}"), "hi"),
        )
    };
    app.meta_webhook(&org, &payload(0)).await.expect(200);
    chaos.refuse();
    let refused = app.meta_webhook(&org, &payload(1)).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(
        Answer::of(app.request(Method::GET, "/readyz")).await.status,
        503
    );
    Answer::of(app.request(Method::GET, "/healthz"))
        .await
        .expect(200);
    chaos.heal();
    wait_until("the server heals by itself", async || {
        (app.meta_webhook(&org, &payload(1)).await.status == 200).then_some(())
    })
    .await;
    // The connections that were cut in the middle, too.
    chaos.cut();
    wait_until("it heals again", async || {
        (app.meta_webhook(&org, &payload(2)).await.status == 200).then_some(())
    })
    .await;
    let thread = org.thread(&app, &org.conversation(&app).await).await;
    assert_eq!(thread.len(), 3);
    Answer::of(app.request(Method::GET, "/readyz"))
        .await
        .expect(200);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_not_doubled_by_the_providers_repetition() {
    let db = std::sync::Arc::new(TestDb::new().await);
    let chaos = Chaos::before_database(&db).await;
    let app = TestApp::builder()
        .database_url(chaos.database_url(&db))
        .on(db)
        .start()
        .await;
    let org = app.org("a").await;
    for n in 0..30 {
        let payload = meta::change(
            &org.phone_number_id,
            meta::text("201001234567", &format!("wamid.{n}"), "hi"),
        );
        let cut = async {
            tokio::time::sleep(std::time::Duration::from_millis(n % 7)).await;
            chaos.cut();
        };
        let (answer, ()) = tokio::join!(app.meta_webhook(&org, &payload), cut);
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{}", answer.text);
            wait_until("the repetition is taken", async || {
                (app.meta_webhook(&org, &payload).await.status == 200).then_some(())
            })
            .await;
        }
    }
    let conversation = org.conversation(&app).await;
    assert_eq!(org.thread(&app, &conversation).await.len(), 30);
    assert_eq!(conversation["unread_count"], 30);
}

#[tokio::test]
async fn metas_handshake_answers_the_challenge_only_to_a_known_token() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let ask = async |path: &str, token: &str| {
        let path =
            format!("{path}?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1158201444");
        Answer::of(app.request(Method::GET, &path)).await
    };
    let own = format!("/api/webhooks/whatsapp/{}", org.whatsapp);
    for path in ["/api/webhooks/whatsapp", &own] {
        let answer = ask(path, &org.verify_token).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (200, "1158201444"),
            "{path}"
        );
        assert_eq!(ask(path, "guess").await.status, 403, "{path}");
    }
    app.world()
        .verify_meta_webhook(&org.phone_number_id)
        .await
        .unwrap();
}

#[tokio::test]
async fn twilio_messages_arrive_by_sms_and_whatsapp_once_each() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let own = format!("/api/webhooks/twilio/{}", org.sms);
    let sms = twilio::inbound(
        &org.account_sid,
        "+201001234567",
        &org.sms_number,
        "SM00000000000000000000000000000001",
        "مرحبا & co +1",
    );
    for path in [
        "/api/webhooks/twilio",
        &own,
        "/functions/v1/twilio-delivery-status",
    ] {
        let answer = app.twilio_webhook(&org, path, &sms).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "text/xml");
        assert!(answer.text.ends_with("<Response/>"), "{}", answer.text);
    }
    let (from, to) = (
        "whatsapp:+201001234567",
        format!("whatsapp:{}", org.whatsapp_number),
    );
    let whatsapp = twilio::inbound(
        &org.account_sid,
        from,
        &to,
        "SM00000000000000000000000000000002",
        "on WhatsApp",
    );
    app.twilio_webhook(&org, "/api/webhooks/twilio", &whatsapp)
        .await;
    let list = app.get(org.owner(), "/v1/conversations").await.expect(200);
    let mut seen: Vec<(&str, &str)> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            (
                c["channel_id"].as_str().unwrap(),
                c["last_message"].as_str().unwrap(),
            )
        })
        .collect();
    seen.sort_unstable();
    let (sms, whatsapp) = (org.sms.to_string(), org.twilio_whatsapp.to_string());
    let mut wanted = [
        (sms.as_str(), "مرحبا & co +1"),
        (whatsapp.as_str(), "on WhatsApp"),
    ];
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
    assert_eq!(
        app.count("SELECT count(*) FROM contacts").await,
        1,
        "one person, two channels"
    );
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 2);
}

#[tokio::test]
async fn one_channels_own_address_refuses_the_events_of_another_tenant() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let body = meta::change(
        &a.phone_number_id,
        meta::text("201001234567", "wamid.1", "hi"),
    )
    .to_string();
    let path = format!("/api/webhooks/whatsapp/{}", b.whatsapp);
    let signed = app.request(Method::POST, &path).header(
        "x-hub-signature-256",
        meta::signature(&a.app_secret, body.as_bytes()),
    );
    Answer::of(signed.body(body.clone())).await.expect(401);
    let unknown = app
        .request(
            Method::POST,
            &format!("/api/webhooks/whatsapp/{}", uuid::Uuid::now_v7()),
        )
        .header(
            "x-hub-signature-256",
            meta::signature(&a.app_secret, body.as_bytes()),
        );
    Answer::of(unknown.body(body)).await.expect(404);
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 0);
}

#[tokio::test]
async fn a_batch_with_one_part_that_is_not_understood_keeps_the_rest_and_the_reason() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let payload = meta::batch([
        meta::entry(
            &org.phone_number_id,
            meta::text("201001234567", "wamid.1", "good"),
        ),
        meta::entry("999", meta::text("201001234567", "wamid.2", "whose?")),
    ]);
    app.meta_webhook(&org, &payload).await.expect(200);
    assert_eq!(org.conversation(&app).await["last_message"], "good");
    let dead = app
        .get(org.owner(), "/v1/webhook-events?outcome=dead_letter")
        .await
        .expect(200);
    assert!(
        dead["data"][0]["reason"].as_str().unwrap().contains("999"),
        "{dead}"
    );
}
