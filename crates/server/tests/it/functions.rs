//! Document S2's functions, and what follows a failure: the next channel, or one notification.

use serde_json::{Value, json};
use wasel_domain::OrgId;
use wasel_simulator::CustomerSend;
use wasel_testkit::{Answer, Org, TestApp, twilio, wait_until};

const CUSTOMER: &str = "+201012345678";

async fn ready() -> (TestApp, Org) {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    (app, org)
}

/// The service-role key, which is what server functions hold.
fn service_key(app: &TestApp) -> String {
    app.state()
        .config
        .auth
        .supabase_service_role_key
        .as_ref()
        .expect("the server made one")
        .expose()
        .to_owned()
}

async fn call(app: &TestApp, token: &str, function: &str, body: Value) -> Answer {
    app.post(token, &format!("/functions/v1/{function}"), &body)
        .await
}

/// Opens Twilio's 24-hour window.
async fn open_window(app: &TestApp, org: &Org) {
    let line = format!("whatsapp:{}", org.whatsapp_number);
    app.world()
        .send_as_customer(CustomerSend::text(line, CUSTOMER, "hi"))
        .unwrap();
    app.wait_count(
        "SELECT count(*) FROM messages WHERE direction = 'inbound'",
        1,
    )
    .await;
}

/// A callback of Twilio for this message.
async fn callback(app: &TestApp, org: &Org, message: &Value, status: &str, code: &str) {
    let sid = message["provider_message_id"].as_str().unwrap();
    let (from, to) = if message["channel_id"] == json!(org.sms) {
        (org.sms_number.clone(), CUSTOMER.to_owned())
    } else {
        let whatsapp = |number: &str| format!("whatsapp:{number}");
        (whatsapp(&org.whatsapp_number), whatsapp(CUSTOMER))
    };
    let mut form = twilio::status(&org.account_sid, &from, &to, sid, status);
    form.retain(|(name, _)| *name != "ErrorCode");
    if !code.is_empty() {
        form.push(("ErrorCode", code));
    }
    app.twilio_webhook(org, "/functions/v1/twilio-delivery-status", &form)
        .await
        .expect(200);
}

fn still(app: &TestApp) {
    let mut settings = app.world().settings();
    (settings.sent_after_ms, settings.delivered_after_ms) = (None, None);
    app.world().set_settings(settings);
}

async fn template(app: &TestApp, org: &Org, fields: Value) -> String {
    let made = app
        .post(org.owner(), "/v1/templates", &fields)
        .await
        .expect(201);
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_server_sends_by_sms_and_whatsapp_with_the_service_role_key_and_nobody_else_may() {
    let (app, org) = ready().await;
    open_window(&app, &org).await;
    let key = service_key(&app);
    for (kind, sender) in [("sms", &org.sms_number), ("whatsapp", &org.whatsapp_number)] {
        // No X-Org-Id: there is one organisation.
        let sent = call(
            &app,
            &key,
            "send-twilio-message",
            json!({ "to": "٠١٠١٢٣٤٥٦٧٨", "message": "تم استلام طلبك", "type": kind, "request_id": "req-1",
                "metadata": { "unit": "B12" } }),
        )
        .await
        .expect(200);
        assert_eq!(sent["success"], true);
        let message = app
            .wait_status(
                org.owner(),
                sent["message_id"].as_str().unwrap(),
                "delivered",
            )
            .await;
        assert_eq!(message["address"], CUSTOMER);
        assert_eq!(message["metadata"], json!({ "unit": "B12" }));
        let log = app
            .count(&format!(
                "SELECT count(*) FROM message_logs WHERE message_type = '{kind}' AND request_id = 'req-1' AND status = 'delivered'"
            ))
            .await;
        assert_eq!(log, 1, "{kind} from {sender}");
    }
    for token in [org.owner(), org.agent()] {
        let refused = call(
            &app,
            token,
            "send-twilio-message",
            json!({ "to": CUSTOMER, "message": "x", "type": "sms" }),
        )
        .await
        .expect(403);
        assert_eq!(refused["success"], false);
    }
    for (body, field) in [
        (
            json!({ "to": CUSTOMER, "message": "x", "type": "fax" }),
            "type",
        ),
        (json!({ "message": "x", "type": "sms" }), "to"),
        (
            json!({ "to": "hello", "message": "x", "type": "sms" }),
            "to",
        ),
        (json!({ "to": CUSTOMER, "type": "sms" }), "message"),
        (
            json!({ "to": CUSTOMER, "type": "sms", "template_id": "x" }),
            "template_id",
        ),
    ] {
        let refused = call(&app, &key, "send-twilio-message", body.clone())
            .await
            .expect(400);
        let words = refused["error"].as_str().unwrap();
        assert!(words.starts_with(&format!("{field}: ")), "{body}: {words}");
    }
    // With two organisations the key must name one.
    app.org("b").await;
    let body = json!({ "to": CUSTOMER, "message": "x", "type": "sms" });
    wait_until("the key needs a name", async || {
        let answer = call(&app, &key, "send-twilio-message", body.clone()).await;
        (answer.status == 400 && answer.text.contains("X-Org-Id")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_template_is_filled_in_before_anything_is_queued() {
    let (app, org) = ready().await;
    open_window(&app, &org).await;
    let id = template(
        &app,
        &org,
        json!({ "name": "visit", "message_template": "مرحباً {{name}}، الزيارة {{day}}" }),
    )
    .await;
    let refused = call(
        &app,
        org.owner(),
        "send-whatsapp",
        json!({ "to": CUSTOMER, "template_id": id, "variables": { "name": "سارة", "dya": "x" } }),
    )
    .await
    .expect(422);
    let words = refused["error"].as_str().unwrap();
    assert!(
        words.contains("variables.day") && words.contains("variables.dya"),
        "{words}"
    );
    let sent = call(
        &app,
        org.owner(),
        "send-whatsapp",
        json!({ "to": CUSTOMER, "template_id": id, "variables": { "name": "سارة", "day": "غداً" } }),
    )
    .await
    .expect(200);
    let message = app
        .wait_status(
            org.owner(),
            sent["message_id"].as_str().unwrap(),
            "delivered",
        )
        .await;
    assert_eq!(message["body"], "مرحباً سارة، الزيارة غداً");
    assert_eq!(message["sender_id"], json!(org.people.owner));
    let uses = app
        .count("SELECT usage_count FROM templates WHERE name = 'visit'")
        .await;
    assert_eq!(uses, 1, "a refused one is no use");

    // A template that Twilio has approved goes by its Content SID, with the same variables, outside the window too.
    let sid = format!("HX{:032x}", 5);
    let approved = template(
        &app,
        &org,
        json!({ "name": "approved", "message_template": "Hello {{name}}", "twilio_content_sid": sid }),
    )
    .await;
    let sent = call(
        &app,
        org.owner(),
        "send-whatsapp",
        json!({ "to": "+201112345678", "template_id": approved, "variables": { "name": "Ali" } }),
    )
    .await
    .expect(200);
    let message = app
        .wait_message(org.owner(), sent["message_id"].as_str().unwrap(), |m| {
            m["status"] != "queued"
        })
        .await;
    assert_eq!(message["message_type"], "template");
    assert_eq!(message["content"]["content_sid"], json!(sid));
    assert_eq!(message["content"]["variables"], json!({ "name": "Ali" }));
    assert_eq!(message["body"], "Hello Ali");
}

#[tokio::test]
async fn a_notification_goes_by_every_channel_asked_for_with_an_outcome_each() {
    let (app, org) = ready().await;
    let answer = call(
        &app,
        &service_key(&app),
        "send-unified-notification",
        json!({ "channels": ["sms", "whatsapp", "email"], "recipient_phone": "01012345678", "message": "hello",
            "request_id": "req-9" }),
    )
    .await
    .expect(200);
    assert_eq!(answer["success"], true);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 3, "{answer:#}");
    assert_eq!(results[0]["channel"], "sms");
    assert_eq!(results[0]["success"], true);
    app.wait_status(
        org.owner(),
        results[0]["message_id"].as_str().unwrap(),
        "delivered",
    )
    .await;
    assert_eq!(results[1]["success"], false, "the window is closed");
    assert_eq!(results[1]["code"], "window_closed");
    assert_eq!(results[2]["success"], false);
    assert_eq!(results[2]["code"], "no_channel");

    let none = call(
        &app,
        org.owner(),
        "send-unified-notification",
        json!({ "channels": ["email"], "recipient_email": "a@example.com", "message": "hello" }),
    )
    .await
    .expect(422);
    assert_eq!(none["success"], false);
    assert_eq!(none["results"][0]["success"], false);

    // With a key, a repetition sends nothing twice.
    let repeat = || {
        app.request(reqwest::Method::POST, "/functions/v1/send-unified-notification")
            .bearer_auth(org.owner())
            .header("idempotency-key", "once")
            .json(&json!({ "channels": ["sms", "email"], "recipient_phone": CUSTOMER, "message": "once only" }))
    };
    let (one, two) = (
        Answer::of(repeat()).await.expect(200),
        Answer::of(repeat()).await.expect(200),
    );
    assert_eq!(
        one["results"][0]["message_id"],
        two["results"][0]["message_id"]
    );
    let sent = app
        .count("SELECT count(*) FROM messages WHERE body = 'once only'")
        .await;
    assert_eq!(sent, 1);

    // A member's own number.
    let to_member = call(
        &app,
        org.owner(),
        "send-unified-notification",
        json!({ "channels": ["sms"], "recipient_id": org.people.agent, "message": "hello" }),
    )
    .await
    .expect(422);
    let words = to_member["results"][0]["error"].as_str().unwrap();
    assert!(
        words.starts_with("recipient_phone: "),
        "the agent has none: {words}"
    );
}

#[tokio::test]
async fn whatsapp_else_sms_falls_back_at_once_when_refused_and_later_when_it_fails() {
    let (app, org) = ready().await;
    let ask = json!({ "channels": ["whatsapp", "sms"], "recipient_phone": CUSTOMER, "message": "hello", "fallback": true });
    // Refused at once: nobody wrote in the last 24 hours.
    let answer = call(&app, org.owner(), "send-unified-notification", ask.clone())
        .await
        .expect(200);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 2, "{answer:#}");
    assert_eq!(
        (&results[0]["success"], &results[1]["success"]),
        (&json!(false), &json!(true))
    );
    let sms = results[1]["message_id"].as_str().unwrap();
    app.wait_status(org.owner(), sms, "delivered").await;

    // Taken, and failed by a callback: the SMS follows, once, and nobody is told of a failure.
    open_window(&app, &org).await;
    still(&app);
    let answer = call(&app, org.owner(), "send-unified-notification", ask)
        .await
        .expect(200);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 1, "{answer:#}");
    let first = results[0]["message_id"].as_str().unwrap();
    let plan: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM message_fallbacks")
        .fetch_one(&app.owner)
        .await
        .unwrap();
    assert!(
        !String::from_utf8_lossy(&plan).contains("201012345678"),
        "sealed"
    );
    let accepted = app
        .wait_message(org.owner(), first, |m| m["provider_message_id"].is_string())
        .await;
    for _ in 0..3 {
        callback(&app, &org, &accepted, "failed", "63016").await;
    }
    app.wait_count(
        &format!("SELECT count(*) FROM messages WHERE metadata ->> 'fallback_of' = '{first}'"),
        1,
    )
    .await;
    app.wait_count("SELECT count(*) FROM message_failures", 0)
        .await;
    assert_eq!(app.count("SELECT count(*) FROM notifications").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM message_fallbacks").await, 0);

    // The last channel failed too: now somebody is told, once.
    let followed: String =
        sqlx::query_scalar("SELECT id::text FROM messages WHERE metadata ? 'fallback_of'")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    let accepted = app
        .wait_message(org.owner(), &followed, |m| {
            m["provider_message_id"].is_string()
        })
        .await;
    for status in ["undelivered", "failed", "undelivered"] {
        callback(&app, &org, &accepted, status, "30003").await;
    }
    app.wait_count("SELECT count(*) FROM notifications", 1)
        .await;
}

#[tokio::test]
async fn a_failure_is_told_once_in_the_organisations_language_and_taken_back_by_proof_of_delivery()
{
    let (app, org) = ready().await;
    still(&app);
    let sent = call(
        &app,
        &service_key(&app),
        "send-twilio-message",
        json!({ "to": CUSTOMER, "message": "x", "type": "sms" }),
    )
    .await
    .expect(200);
    let id = sent["message_id"].as_str().unwrap();
    let accepted = app
        .wait_message(org.owner(), id, |m| m["provider_message_id"].is_string())
        .await;
    for status in ["failed", "undelivered", "failed", "sent"] {
        callback(
            &app,
            &org,
            &accepted,
            status,
            if status == "sent" { "" } else { "30005" },
        )
        .await;
    }
    app.wait_count("SELECT count(*) FROM notifications", 1)
        .await;
    let told = app.get(org.owner(), "/v1/notifications").await.expect(200);
    let told = &told["data"][0];
    assert_eq!(told["message_id"], json!(id));
    assert_eq!(told["kind"], "message_failed");
    assert_eq!(told["error_code"], "30005");
    assert!(
        told["title"].as_str().unwrap().contains("لم تصل"),
        "{told:#}"
    );
    assert!(
        told["advice"].as_str().unwrap().contains("الرقم"),
        "{told:#}"
    );
    app.wait_count("SELECT count(*) FROM message_failures", 0)
        .await;
    assert_eq!(app.count("SELECT count(*) FROM notifications").await, 1);

    // The provider crossed itself: it did arrive.
    callback(&app, &org, &accepted, "delivered", "").await;
    app.wait_status(org.owner(), id, "delivered").await;
    assert_eq!(app.count("SELECT count(*) FROM notifications").await, 0);
}

#[tokio::test]
async fn a_failed_send_of_a_person_is_told_to_that_person() {
    let (app, org) = ready().await;
    still(&app);
    let sent = org.send(&app, org.sms, CUSTOMER, "hello").await.expect(202);
    let accepted = app
        .wait_message(org.owner(), sent["id"].as_str().unwrap(), |m| {
            m["provider_message_id"].is_string()
        })
        .await;
    callback(&app, &org, &accepted, "undelivered", "30003").await;
    app.wait_count(
        &format!(
            "SELECT count(*) FROM notifications WHERE user_id = '{}'",
            org.people.owner
        ),
        1,
    )
    .await;
    let mut tx = app.state().db.system().await.unwrap();
    let found = wasel_db::organizations::find_only(&mut tx).await.unwrap();
    assert_eq!(found, Some(OrgId(org.id)));
}

#[tokio::test]
async fn a_person_known_by_both_forms_of_a_brazilian_or_mexican_number_is_one_contact() {
    let (app, org) = ready().await;
    let line = format!("whatsapp:{}", org.whatsapp_number);
    for (number, contacts) in [
        ("+551187654321", 1),
        ("+5511987654321", 1),
        ("+5215512345678", 2),
        ("+525512345678", 2),
    ] {
        app.world()
            .send_as_customer(CustomerSend::text(line.clone(), number, number))
            .unwrap();
        app.wait_count(
            &format!("SELECT count(*) FROM messages WHERE body = '{number}'"),
            1,
        )
        .await;
        assert_eq!(
            app.count("SELECT count(*) FROM contacts").await,
            contacts,
            "{number}"
        );
    }
    let sent = org
        .send(&app, org.twilio_whatsapp, "+5511 8765-4321", "olá")
        .await
        .expect(202);
    app.wait_status(org.owner(), sent["id"].as_str().unwrap(), "delivered")
        .await;
    assert_eq!(app.count("SELECT count(*) FROM contacts").await, 2);
}
