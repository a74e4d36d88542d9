//! Messages for later: once, again and again, late, too late, called off.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use wasel_simulator::CustomerSend;
use wasel_testkit::{Answer, Org, TestApp, wait_until};

use crate::tenancy::{next, subscribe};

const CUSTOMER: &str = "+201001234567";

async fn sql(app: &TestApp, text: &str) {
    sqlx::query(AssertSqlSafe(text.to_owned()))
        .execute(&app.owner)
        .await
        .unwrap();
}

async fn create(app: &TestApp, org: &Org, mut body: Value) -> Value {
    if body.get("conversation_id").is_none() {
        body["channel_id"] = json!(org.sms);
        body["to"] = json!(CUSTOMER);
    }
    app.post(org.agent(), "/v1/scheduled-messages", &body)
        .await
        .expect(201)
}

fn path(row: &Value) -> String {
    format!("/v1/scheduled-messages/{}", row["id"].as_str().unwrap())
}

async fn wait(app: &TestApp, org: &Org, row: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_until("the scheduled message is as wanted", async || {
        let now = app.get(org.agent(), &path(row)).await.expect(200);
        wanted(&now).then_some(now)
    })
    .await
}

/// What the customer got by SMS, oldest first.
fn texts(app: &TestApp, org: &Org) -> Vec<String> {
    app.world()
        .thread(&org.sms_number, CUSTOMER, 100)
        .into_iter()
        .filter_map(|message| message.text)
        .collect()
}

#[tokio::test]
async fn a_message_for_later_goes_when_its_time_has_come() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let soon = Utc::now() + TimeDelta::milliseconds(700);
    let row = create(
        &app,
        &org,
        json!({ "message": "موعدك غداً", "recipient_name": "منى", "scheduled_for": soon }),
    )
    .await;
    assert_eq!(row["status"], "scheduled");
    assert_eq!(row["timezone"], "Africa/Cairo");
    let sent = wait(&app, &org, &row, |row| row["status"] == "sent").await;
    let message = app
        .wait_status(
            org.owner(),
            sent["message_id"].as_str().unwrap(),
            "delivered",
        )
        .await;
    let queued: DateTime<Utc> = message["created_at"].as_str().unwrap().parse().unwrap();
    assert!(queued >= soon, "not before its time");
    assert_eq!(message["metadata"]["scheduled_message_id"], row["id"]);
    assert_eq!(texts(&app, &org), ["موعدك غداً"]);
    assert_eq!(
        app.count("SELECT count(*) FROM contacts WHERE name = 'منى'")
            .await,
        1
    );
    app.patch(org.agent(), &path(&row), &json!({ "message": "x" }))
        .await
        .expect(409);
}

#[tokio::test]
async fn a_recurring_message_says_what_its_template_says_each_time_and_ends() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let template = json!({ "name": "t", "message_template": "first {{x}}" });
    let template = app
        .post(org.owner(), "/v1/templates", &template)
        .await
        .expect(201);
    let row = create(
        &app,
        &org,
        json!({ "template_id": template["id"], "variables": { "x": 1 }, "recurrence": "0 9 * * 1-5", "max_runs": 2 }),
    )
    .await;
    let next_run: DateTime<Utc> = row["scheduled_for"].as_str().unwrap().parse().unwrap();
    assert!(next_run > Utc::now());
    // Its time comes, an hour late and several times over: one message.
    let due = "UPDATE scheduled_messages SET scheduled_for = now() - interval '1 hour', recurrence = '*/5 * * * *'";
    sql(&app, due).await;
    let now = wait(&app, &org, &row, |row| row["run_count"] == 1).await;
    assert_eq!(now["status"], "scheduled");
    let next_run: DateTime<Utc> = now["scheduled_for"].as_str().unwrap().parse().unwrap();
    assert!(next_run > Utc::now() - TimeDelta::minutes(1));
    let path_of_template = format!("/v1/templates/{}", template["id"].as_str().unwrap());
    app.patch(
        org.owner(),
        &path_of_template,
        &json!({ "message_template": "second {{x}}" }),
    )
    .await
    .expect(200);
    sql(&app, due).await;
    let now = wait(&app, &org, &row, |row| row["run_count"] == 2).await;
    assert_eq!(now["status"], "sent");
    app.wait_count(
        "SELECT count(*) FROM messages WHERE status = 'delivered'",
        2,
    )
    .await;
    assert_eq!(texts(&app, &org), ["first 1", "second 1"]);
}

#[tokio::test]
async fn what_was_missed_goes_late_but_not_too_late() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let row = |message: &str, ago: &str, recurrence: &str| {
        format!(
            "INSERT INTO scheduled_messages (org_id, channel_id, address, content, scheduled_for, recurrence)
             VALUES ('{}', '{}', '{CUSTOMER}', '{{\"type\": \"text\", \"body\": \"{message}\"}}', now() - interval '{ago}', {recurrence})",
            org.id, org.sms
        )
    };
    sql(&app, &row("late", "23 hours", "NULL")).await;
    sql(&app, &row("too late", "25 hours", "NULL")).await;
    sql(&app, &row("too late, again", "25 hours", "'0 9 * * *'")).await;
    app.wait_count(
        "SELECT count(*) FROM scheduled_messages WHERE run_count = 1",
        3,
    )
    .await;
    let list = app
        .get(org.agent(), "/v1/scheduled-messages?status=failed")
        .await
        .expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(list["data"][0]["error_code"], "missed");
    assert_eq!(list["data"][0]["message_id"], Value::Null);
    let recurring = app
        .get(org.agent(), "/v1/scheduled-messages?recurring=true")
        .await
        .expect(200);
    assert_eq!(recurring["data"][0]["status"], "scheduled");
    assert_eq!(recurring["data"][0]["error_code"], "missed");
    app.wait_count("SELECT count(*) FROM messages", 1).await;
    wait_until("the late one is there", async || {
        (texts(&app, &org) == ["late"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refusal_and_a_cancellation_make_no_message() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    app.world()
        .send_as_customer(CustomerSend::text(&org.sms_number, CUSTOMER, "STOP"))
        .unwrap();
    app.wait_count("SELECT count(*) FROM consents", 1).await;
    let hour = Utc::now() + TimeDelta::hours(1);
    let cancelled = create(&app, &org, json!({ "message": "x", "scheduled_for": hour })).await;
    let changed = json!({ "message": "y", "priority": 2, "timezone": "Europe/Berlin" });
    let changed = app
        .patch(org.agent(), &path(&cancelled), &changed)
        .await
        .expect(200);
    assert_eq!(changed["content"]["body"], "y");
    assert_eq!(changed["scheduled_for"], cancelled["scheduled_for"]);
    let cancel = format!("{}/cancel", path(&cancelled));
    assert_eq!(
        app.post(org.agent(), &cancel, &json!({})).await.expect(200)["status"],
        "cancelled"
    );
    app.post(org.agent(), &cancel, &json!({})).await.expect(409);
    app.post(&org.people.viewer_token, &cancel, &json!({}))
        .await
        .expect(403);
    let removed = create(&app, &org, json!({ "message": "x", "scheduled_for": hour })).await;
    let request = app
        .request(Method::DELETE, &path(&removed))
        .bearer_auth(org.agent());
    assert_eq!(Answer::of(request).await.status, 204);
    let refused = create(&app, &org, json!({ "message": "x", "scheduled_for": hour })).await;
    sql(&app, "UPDATE scheduled_messages SET scheduled_for = now()").await;
    let now = wait(&app, &org, &refused, |row| row["status"] == "failed").await;
    assert_eq!(now["error_code"], "opted_out");
    assert_eq!(
        app.count("SELECT count(*) FROM messages WHERE direction = 'outbound'")
            .await,
        0
    );
    let now = app.get(org.agent(), &path(&cancelled)).await.expect(200);
    assert_eq!(now["status"], "cancelled");

    for (body, field) in [
        (json!({ "scheduled_for": hour }), "message"),
        (json!({ "message": "x" }), "scheduled_for"),
        (
            json!({ "message": "x", "scheduled_for": "2001-01-01T00:00:00Z" }),
            "scheduled_for",
        ),
        (
            json!({ "message": "x", "scheduled_for": hour, "recurrence": "daily" }),
            "recurrence",
        ),
        (
            json!({ "message": "x", "scheduled_for": hour, "timezone": "Cairo" }),
            "timezone",
        ),
        (
            json!({ "message": "x", "scheduled_for": hour, "variables": { "a": 1 } }),
            "variables",
        ),
        (
            json!({ "message": "x", "scheduled_for": hour, "max_runs": 0 }),
            "max_runs",
        ),
        (
            json!({ "message": "x", "scheduled_for": hour, "to": "x" }),
            "to",
        ),
    ] {
        let mut body = body;
        body["channel_id"] = json!(org.sms);
        if body.get("to").is_none() {
            body["to"] = json!(CUSTOMER);
        }
        let answer = app
            .post(org.agent(), "/v1/scheduled-messages", &body)
            .await
            .expect(400);
        assert_eq!(answer["error"]["field"], field, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_send_each_run_once() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let second = TestApp::builder()
        .on(app.db.clone())
        .with_simulator(app.simulator.clone())
        .start()
        .await;
    sql(
        &app,
        &format!(
            "INSERT INTO scheduled_messages (org_id, channel_id, address, content, scheduled_for, recurrence)
             SELECT '{}', '{}', '+2010' || (12340000 + n), '{{\"type\": \"text\", \"body\": \"x\"}}', now(),
                 CASE WHEN n % 2 = 0 THEN '0 0 1 1 *' END
             FROM generate_series(1, 120) n",
            org.id, org.sms
        ),
    )
    .await;
    app.wait_count(
        "SELECT count(*) FROM scheduled_messages WHERE run_count = 1",
        120,
    )
    .await;
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 120);
    assert_eq!(
        app.count("SELECT count(DISTINCT address) FROM messages")
            .await,
        120
    );
    assert_eq!(
        app.count("SELECT count(*) FROM scheduled_messages WHERE status = 'sent'")
            .await,
        60
    );
    drop(second.stop().await);
}

#[tokio::test]
async fn the_documents_table_is_written_by_sql_and_seen_live() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let line = format!("whatsapp:{}", org.whatsapp_number);
    app.world()
        .send_as_customer(CustomerSend::text(&line, CUSTOMER, "hi"))
        .unwrap();
    app.wait_count("SELECT count(*) FROM messages", 1).await;
    let bindings =
        json!([{ "event": "*", "schema": "public", "table": "whatsapp_scheduled_messages" }]);
    let mut socket = subscribe(&app, org.agent(), bindings).await;
    let claims = json!({ "sub": org.people.agent, "role": "authenticated", "app_metadata": { "org_id": org.id } });
    let mut connection = app.db.connect().await;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "SET request.jwt.claims = '{claims}'; SET ROLE authenticated;
         INSERT INTO whatsapp_scheduled_messages (phone_number, message_content, scheduled_at) VALUES ('{CUSTOMER}', 'موعدك', now());
         INSERT INTO whatsapp_scheduled_messages (phone_number, message_content, scheduled_at, status)
             VALUES ('00201001234567', 'later', now() + interval '1 day', 'pending');
         UPDATE whatsapp_scheduled_messages SET status = 'cancelled' WHERE message_content = 'later'"
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    let mut seen = Vec::new();
    while !["sent", "cancelled"]
        .iter()
        .all(|end| seen.iter().any(|row: &Value| row["status"] == *end))
    {
        let frame = next(&mut socket).await.expect("a change");
        if frame["event"] == "postgres_changes" {
            seen.push(frame["payload"]["data"]["record"].clone());
        }
    }
    let sent = seen.iter().find(|row| row["status"] == "sent").unwrap();
    assert_eq!(sent["phone_number"], CUSTOMER);
    assert_eq!(sent["message_content"], "موعدك");
    assert!(sent["message_id"].is_string() && sent["sent_at"].is_string());
    app.wait_status(
        org.owner(),
        sent["message_id"].as_str().unwrap(),
        "delivered",
    )
    .await;
    let later = seen
        .iter()
        .find(|row| row["status"] == "cancelled")
        .unwrap();
    assert_eq!(later["phone_number"], CUSTOMER);
    for (statement, words) in [
        (
            "INSERT INTO whatsapp_scheduled_messages (message_content, scheduled_at) VALUES ('x', now())",
            "phone_number",
        ),
        (
            "INSERT INTO whatsapp_scheduled_messages (phone_number, scheduled_at) VALUES ('+201', now())",
            "message_content",
        ),
        (
            "UPDATE whatsapp_scheduled_messages SET status = 'scheduled' WHERE status = 'sent'",
            "it has gone out",
        ),
        (
            "UPDATE whatsapp_scheduled_messages SET status = 'done'",
            "status: must be",
        ),
    ] {
        let error = sqlx::raw_sql(statement)
            .execute(&mut connection)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(words), "{statement}: {error}");
    }
}
