//! Bulk jobs: from a list with all its mistakes to every person's own text, once.

use std::collections::{BTreeMap, HashMap};

use chrono::{TimeDelta, Utc};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use wasel_simulator::CustomerSend;
use wasel_testkit::{Answer, Org, TestApp, wait_until};

fn number(n: usize) -> String {
    format!("+2010{:08}", 12_340_000 + n)
}

fn path(job: &Value, rest: &str) -> String {
    format!("/v1/bulk-jobs/{}{rest}", job["id"].as_str().unwrap())
}

async fn sql(app: &TestApp, text: &str) {
    sqlx::query(AssertSqlSafe(text.to_owned()))
        .execute(&app.owner)
        .await
        .unwrap();
}

/// So that a test need not wait for the pace, or that the feeder keeps little in the outbox.
async fn set_pace(app: &TestApp, per_second: u32) {
    sql(
        app,
        &format!("UPDATE channels SET limits = '{{\"messages_per_second\": {per_second}}}'"),
    )
    .await;
    app.state().registry.reload().await.unwrap();
}

async fn set_channels(app: &TestApp, status: &str) {
    sql(app, &format!("UPDATE channels SET status = '{status}'")).await;
    app.state().registry.reload().await.unwrap();
}

async fn ready() -> (TestApp, Org) {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    set_pace(&app, 1000).await;
    (app, org)
}

async fn template(app: &TestApp, org: &Org, text: &str) -> Value {
    let body = json!({ "name": "t", "message_template": text });
    app.post(org.owner(), "/v1/templates", &body)
        .await
        .expect(201)
}

async fn create(app: &TestApp, org: &Org, body: Value) -> Value {
    app.post(org.owner(), "/v1/bulk-jobs", &body)
        .await
        .expect(201)
}

async fn step(app: &TestApp, org: &Org, job: &Value, step: &str) -> Answer {
    app.post(org.owner(), &path(job, &format!("/{step}")), &json!({}))
        .await
}

/// The job once it has this status and nothing is under way.
async fn ended(app: &TestApp, org: &Org, job: &Value, status: &str) -> Value {
    wait_until(&format!("the job is {status}"), async || {
        let now = app.get(org.owner(), &path(job, "")).await.expect(200);
        (now["status"] == status && now["finished_at"].is_string()).then_some(now)
    })
    .await
}

async fn recipients(app: &TestApp, org: &Org, job: &Value, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = format!("/recipients?limit=200{query}{cursor}");
        let page = app.get(org.agent(), &path(job, &page)).await.expect(200);
        all.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// What each customer's phone got by SMS.
fn texts(app: &TestApp, org: &Org) -> BTreeMap<String, Vec<String>> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sent in app.world().accepted() {
        let message = app.world().message(&sent.message_id).unwrap();
        assert_eq!(message.line, org.sms_number);
        texts
            .entry(sent.customer)
            .or_default()
            .push(message.text.unwrap_or_default());
    }
    texts
}

fn people(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| json!({ "to": number(n), "variables": { "n": n } }))
        .collect()
}

#[tokio::test]
async fn every_bad_row_is_reported_and_all_others_get_their_own_text_once() {
    let (app, org) = ready().await;
    let template = template(&app, &org, "مرحباً {{name}}، طلبك {{order}} من {{shop}}").await;
    let rows = json!([
        { "to": number(1), "name": "منى", "variables": { "order": 1 } },
        { "to": "٠٠٢٠١٠١٢٣٤٠٠٠١", "name": "منى ثانية", "variables": { "order": 2 } },
        { "to": "not a number", "name": "x", "variables": { "order": 3 } },
        { "to": number(2), "name": "علي" },
        { "to": number(3), "name": "سعاد", "variables": { "order": 5, "colour": "red" } },
        { "number": number(4) },
        "nonsense",
        { "to": number(5), "name": "هدى", "variables": { "order": 8, "shop": "متجر آخر" } },
        { "to": number(6), "name": "a\u{0}b", "variables": { "order": "\u{0}" } },
    ]);
    let request = json!({ "name": "عرض", "medium": "sms", "template_id": template["id"], "category": "utility",
        "variables": { "shop": "متجرنا" }, "recipients": rows });

    let preview = app
        .post(org.owner(), "/v1/bulk-jobs/preview", &request)
        .await
        .expect(200);
    app.post(org.agent(), "/v1/bulk-jobs/preview", &request)
        .await
        .expect(403);
    assert_eq!(preview["data"][0]["text"], "مرحباً منى، طلبك 1 من متجرنا");
    assert_eq!(app.count("SELECT count(*) FROM bulk_jobs").await, 0);

    let job = create(&app, &org, request).await;
    assert_eq!(job["status"], "draft");
    let counts = json!({ "total": 9, "valid": 2, "invalid": 6, "duplicates": 1 });
    assert_eq!(job["counts"], counts);
    assert_eq!(preview["counts"], counts);
    let stored = app
        .get(org.agent(), &path(&job, "/preview?limit=1"))
        .await
        .expect(200);
    assert_eq!(stored["data"].as_array().unwrap().len(), 1);
    assert_eq!(stored["data"][0], preview["data"][0]);
    assert_eq!(stored["errors"], preview["errors"]);

    let skipped = recipients(&app, &org, &job, "&state=skipped").await;
    let reasons: Vec<(i64, &str)> = skipped
        .iter()
        .map(|row| {
            (
                row["position"].as_i64().unwrap(),
                row["error_code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        reasons,
        [
            (2, "duplicate"),
            (3, "invalid_recipient"),
            (4, "template_variables"),
            (5, "template_variables"),
            (6, "invalid_row"),
            (7, "invalid_row"),
            (9, "invalid_row"),
        ]
    );
    assert_eq!(skipped[2]["error"], "variables.order: is missing");
    assert!(
        skipped[3]["error"]
            .as_str()
            .unwrap()
            .contains("variables.colour"),
        "{}",
        skipped[3]
    );

    step(&app, &org, &job, "pause").await.expect(409);
    let running = step(&app, &org, &job, "start").await.expect(200);
    assert_eq!(running["status"], "running");
    step(&app, &org, &job, "start").await.expect(409);
    let done = ended(&app, &org, &job, "completed").await;
    assert!(done["started_at"].is_string());
    app.wait_count(
        "SELECT count(*) FROM messages WHERE status = 'delivered' AND delivery_policy = 'at_most_once'
           AND category = 'utility'",
        2,
    )
    .await;
    let expected = BTreeMap::from([
        (number(1), vec!["مرحباً منى، طلبك 1 من متجرنا".to_owned()]),
        (number(5), vec!["مرحباً هدى، طلبك 8 من متجر آخر".to_owned()]),
    ]);
    assert_eq!(texts(&app, &org), expected);
    let progress = app.get(org.agent(), &path(&job, "")).await.expect(200)["progress"].clone();
    assert_eq!(progress["delivered"], 2, "{progress}");
    assert_eq!(progress["skipped"], 7, "{progress}");
    assert_eq!(progress["total"], 9, "{progress}");
    let delivered = recipients(&app, &org, &job, "&state=delivered").await;
    assert_eq!(delivered.len(), 2);
    assert!(delivered[0]["message_id"].is_string() && delivered[0]["delivered_at"].is_string());
    assert_eq!(
        app.count("SELECT count(*) FROM contacts WHERE name IN ('منى', 'هدى')")
            .await,
        2
    );
    assert_eq!(
        app.count("SELECT usage_count FROM templates WHERE name = 't'")
            .await,
        2
    );
    let list = app
        .get(org.agent(), "/v1/bulk-jobs?status=completed")
        .await
        .expect(200);
    assert_eq!(list["data"][0]["progress"], progress);
    for refused in ["pause", "resume", "start", "cancel"] {
        let answer = step(&app, &org, &job, refused).await.expect(409);
        assert_eq!(answer["error"]["code"], "wrong_state");
    }
}

#[tokio::test]
async fn a_list_is_taken_from_a_file_in_the_body_or_in_a_form() {
    let (app, org) = ready().await;
    let file = format!(
        "\u{feff}الاسم;رقم الهاتف;order;note\r\nمنى;{};7;x\r\n\"=1+1\";bad;8;\r\n;{};;\r\nعلي;٠٠٢٠١٠١٢٣٤٠٠٠٤;9;\r\n",
        number(1),
        number(3)
    );
    let send = |path: &str| {
        app.request(Method::POST, path)
            .bearer_auth(org.owner())
            .query(&[
                ("channel_id", org.sms.to_string()),
                ("category", "utility".to_owned()),
            ])
            .query(&[("message", "{{الاسم}}: {{order}}"), ("name", "from a file")])
            .header("content-type", "text/csv; charset=utf-8")
            .body(file.clone())
    };
    let preview = Answer::of(send("/v1/bulk-jobs/preview").query(&[("limit", "1")]))
        .await
        .expect(200);
    assert_eq!(preview["data"].as_array().unwrap().len(), 1);
    assert_eq!(preview["data"][0]["text"], "منى: 7");
    assert_eq!(preview["errors"][1]["position"], 3);
    let job = Answer::of(send("/v1/bulk-jobs").query(&[("start", "true")]))
        .await
        .expect(201);
    assert_eq!(job["name"], "from a file");
    assert_eq!(
        job["counts"],
        json!({ "total": 4, "valid": 2, "invalid": 2, "duplicates": 0 })
    );
    ended(&app, &org, &job, "completed").await;
    let sent = texts(&app, &org);
    assert_eq!(sent[&number(1)], ["منى: 7"]);
    assert_eq!(sent[&number(4)], ["علي: 9"]);
    assert_eq!(sent.len(), 2);

    let form = Form::new()
        .text("medium", "sms")
        .text("message", "{{greeting}} {{order}}")
        .text("variables", r#"{"greeting": "hi"}"#)
        .text("to_column", "tel2")
        .text("priority", "")
        .part(
            "file",
            Part::text("tel2\torder\n+201012349999\t1\n").file_name("a.tsv"),
        );
    let request = app
        .request(Method::POST, "/v1/bulk-jobs")
        .bearer_auth(org.owner())
        .multipart(form);
    let job = Answer::of(request).await.expect(201);
    let rows = recipients(&app, &org, &job, "").await;
    assert_eq!(rows[0]["text"], "hi 1");
    assert_eq!(rows[0]["state"], "pending");
    assert_eq!(job["category"], "marketing");
    assert_eq!(job["priority"], 7);

    // The file of results: every row, and no cell that a spreadsheet would run.
    let export = app
        .get(
            org.agent(),
            &format!(
                "/v1/bulk-jobs/{}/export",
                app.get(org.agent(), "/v1/bulk-jobs?status=completed")
                    .await
                    .expect(200)["data"][0]["id"]
                    .as_str()
                    .unwrap()
            ),
        )
        .await;
    assert_eq!(export.status, 200);
    assert_eq!(export.header("content-type"), "text/csv; charset=utf-8");
    let mut reader =
        csv::Reader::from_reader(export.text.trim_start_matches('\u{feff}').as_bytes());
    let headers = reader.headers().unwrap().clone();
    let rows: Vec<HashMap<String, String>> = reader
        .records()
        .map(|row| {
            let row = row.unwrap();
            headers
                .iter()
                .zip(row.iter())
                .map(|(name, cell)| (name.to_owned(), cell.to_owned()))
                .collect()
        })
        .collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["to"], format!("'{}", number(1)));
    assert!(
        ["sent", "delivered"].contains(&rows[0]["state"].as_str()),
        "{rows:?}"
    );
    assert!(!rows[0]["message_id"].is_empty() && !rows[0]["queued_at"].is_empty());
    assert_eq!(rows[1]["name"], "'=1+1");
    assert_eq!(rows[1]["error_code"], "invalid_recipient");
    assert_eq!(rows[2]["error_code"], "template_variables");
}

#[tokio::test]
async fn what_is_wrong_with_the_whole_is_refused_with_its_field() {
    let (app, org) = ready().await;
    let rows = || json!([{ "to": number(1) }]);
    let cases = [
        (
            json!({ "channel_id": org.sms, "message": "x" }),
            400,
            "recipients",
        ),
        (
            json!({ "message": "x", "recipients": rows() }),
            400,
            "channel_id",
        ),
        (
            json!({ "medium": "fax", "message": "x", "recipients": rows() }),
            400,
            "medium",
        ),
        (
            json!({ "medium": "sms", "recipients": rows() }),
            400,
            "message",
        ),
        (
            json!({ "medium": "sms", "message": "x", "content": { "type": "text", "body": "x" }, "recipients": rows() }),
            400,
            "message",
        ),
        (
            json!({ "medium": "sms", "content": { "type": "text" }, "recipients": rows() }),
            400,
            "content",
        ),
        (
            json!({ "medium": "sms", "message": "x", "variables": { "y": 1 }, "recipients": rows() }),
            400,
            "variables.y",
        ),
        (
            json!({ "medium": "sms", "message": "x", "priority": 11, "recipients": rows() }),
            400,
            "priority",
        ),
        (
            json!({ "medium": "sms", "template_id": uuid::Uuid::now_v7(), "recipients": rows() }),
            404,
            "template_id",
        ),
    ];
    for (body, status, field) in cases {
        let answer = app.post(org.owner(), "/v1/bulk-jobs", &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert_eq!(
            answer.body["error"]["field"], field,
            "{body}: {}",
            answer.text
        );
    }
    let good = json!({ "medium": "sms", "message": "x", "recipients": rows() });
    for token in [org.agent(), &org.people.viewer_token] {
        app.post(token, "/v1/bulk-jobs", &good).await.expect(403);
    }
    let request = || {
        app.request(Method::POST, "/v1/bulk-jobs")
            .bearer_auth(org.owner())
            .header("idempotency-key", "k")
    };
    let first = Answer::of(request().json(&good)).await.expect(201);
    let again = Answer::of(request().json(&good)).await.expect(200);
    assert_eq!(first["id"], again["id"]);
    let other = json!({ "medium": "sms", "message": "y", "recipients": rows() });
    Answer::of(request().json(&other)).await.expect(422);
    assert_eq!(app.count("SELECT count(*) FROM bulk_jobs").await, 1);
    for token in [org.agent(), &org.people.viewer_token] {
        app.post(token, &path(&first, "/start"), &json!({}))
            .await
            .expect(403);
        app.get(token, &path(&first, "")).await.expect(200);
    }
}

#[tokio::test]
async fn any_text_in_content_takes_variables() {
    let (app, org) = ready().await;
    let job = create(
        &app,
        &org,
        json!({ "channel_id": org.whatsapp, "category": "utility", "start": true,
            "content": { "type": "template", "name": "order_ready", "language": "ar",
                "components": [{ "type": "body", "parameters": [{ "type": "text", "text": "{{order}}" }] }] },
            "recipients": [{ "to": number(1), "variables": { "order": "١٢" } }, { "to": number(2) }] }),
    )
    .await;
    assert_eq!(job["counts"]["invalid"], 1);
    ended(&app, &org, &job, "completed").await;
    let sent = app.world().accepted();
    assert_eq!(sent.len(), 1);
    let message = app.world().message(&sent[0].message_id).unwrap();
    assert_eq!(message.text.as_deref(), Some("طلبك ١٢ جاهز"));
}

#[tokio::test]
async fn a_paused_job_goes_on_with_the_same_text_even_if_the_template_has_changed() {
    let (app, org) = ready().await;
    // The outbox holds 200 of a slow channel's job; the channel is paused, so that they stay.
    set_pace(&app, 20).await;
    set_channels(&app, "paused").await;
    let template = template(&app, &org, "before {{n}}").await;
    let job = create(
        &app,
        &org,
        json!({ "channel_id": org.sms, "template_id": template["id"], "category": "utility", "start": true,
            "recipients": people(260) }),
    )
    .await;
    app.wait_count("SELECT count(*) FROM outbox", 200).await;
    let paused = step(&app, &org, &job, "pause").await.expect(200);
    assert_eq!(paused["status"], "paused");
    assert_eq!(paused["paused_reason"], "by hand");
    assert_eq!(paused["estimated_finish_at"], Value::Null);
    let template_path = format!("/v1/templates/{}", template["id"].as_str().unwrap());
    app.patch(
        org.owner(),
        &template_path,
        &json!({ "message_template": "after" }),
    )
    .await
    .expect(200);
    set_pace(&app, 1000).await;
    set_channels(&app, "active").await;
    // The feeder works on: another job passes.
    let other = create(
        &app,
        &org,
        json!({ "channel_id": org.sms, "message": "other", "category": "utility", "start": true,
            "recipients": [{ "to": number(9000) }] }),
    )
    .await;
    ended(&app, &org, &other, "completed").await;
    let now = app.get(org.owner(), &path(&job, "")).await.expect(200);
    assert_eq!(now["status"], "paused");
    assert_eq!(now["progress"]["pending"], 60, "{now:#}");
    step(&app, &org, &job, "pause").await.expect(409);

    step(&app, &org, &job, "resume").await.expect(200);
    ended(&app, &org, &job, "completed").await;
    let mut sent = texts(&app, &org);
    assert_eq!(sent.remove(&number(9000)).unwrap(), ["other"]);
    assert_eq!(sent.len(), 260);
    for n in 0..260 {
        assert_eq!(sent[&number(n)], [format!("before {n}")]);
    }
}

#[tokio::test]
async fn a_cancelled_job_takes_back_what_no_sender_holds_and_ends_when_the_rest_is_settled() {
    let (app, org) = ready().await;
    set_pace(&app, 20).await;
    set_channels(&app, "paused").await;
    let job = create(
        &app,
        &org,
        json!({ "channel_id": org.sms, "message": "x {{n}}", "start": true, "recipients": people(260) }),
    )
    .await;
    app.wait_count("SELECT count(*) FROM outbox", 200).await;
    // One is being handed over this moment.
    sql(
        &app,
        "UPDATE outbox SET leased_until = now() + interval '1 hour' WHERE message_id = (SELECT min(message_id::text)::uuid FROM outbox)",
    )
    .await;
    let cancelled = step(&app, &org, &job, "cancel").await.expect(200);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(cancelled["progress"]["cancelled"], 199, "{cancelled:#}");
    assert_eq!(cancelled["progress"]["skipped"], 60);
    assert_eq!(cancelled["progress"]["queued"], 1);
    assert_eq!(cancelled["finished_at"], Value::Null);
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 1);
    let skipped = recipients(&app, &org, &job, "&state=skipped").await;
    assert!(skipped.iter().all(|row| row["error_code"] == "cancelled"));
    let one = recipients(&app, &org, &job, "&state=cancelled")
        .await
        .remove(0);
    let message = format!("/v1/messages/{}", one["message_id"].as_str().unwrap());
    let message = app.get(org.owner(), &message).await.expect(200);
    let events = message["timeline"].as_array().unwrap();
    assert_eq!(events.last().unwrap()["event"], "cancelled", "{message:#}");
    step(&app, &org, &job, "cancel").await.expect(409);
    step(&app, &org, &job, "resume").await.expect(409);
    // It comes back for another try: it does not get one.
    sql(
        &app,
        "UPDATE outbox SET leased_until = NULL, due_at = now() + interval '1 hour'",
    )
    .await;
    let done = ended(&app, &org, &job, "cancelled").await;
    assert_eq!(done["progress"]["cancelled"], 200);
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 0);
    assert!(app.world().accepted().is_empty());
}

#[tokio::test]
async fn whoever_opted_out_is_skipped_and_a_job_for_nobody_fails() {
    let (app, org) = ready().await;
    app.world()
        .send_as_customer(CustomerSend::text(&org.sms_number, number(1), "STOP"))
        .unwrap();
    app.wait_count("SELECT count(*) FROM consents", 1).await;
    let body = |rows: Value| json!({ "medium": "sms", "message": "x", "category": "utility", "start": true, "recipients": rows });
    let job = create(
        &app,
        &org,
        body(json!([{ "to": number(0) }, { "to": number(1) }, { "to": number(2) }])),
    )
    .await;
    ended(&app, &org, &job, "completed").await;
    let skipped = recipients(&app, &org, &job, "&state=skipped").await;
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0]["position"], 2);
    assert_eq!(skipped[0]["error_code"], "opted_out");
    assert_eq!(skipped[0]["message_id"], Value::Null);
    let sent: Vec<String> = texts(&app, &org).into_keys().collect();
    assert_eq!(sent, [number(0), number(2)]);
    let job = create(&app, &org, body(json!([{ "to": number(1) }]))).await;
    ended(&app, &org, &job, "failed").await;
}

#[tokio::test]
async fn a_job_for_later_waits_and_its_failures_raise_no_notifications() {
    let (app, org) = ready().await;
    let later = Utc::now() + TimeDelta::hours(1);
    // The simulator refuses this content with an error that is not worth repeating.
    let job = create(
        &app,
        &org,
        json!({ "channel_id": org.whatsapp, "category": "utility", "start": true, "scheduled_for": later,
            "content": { "type": "template", "name": "no_such_template", "language": "ar" },
            "recipients": [{ "to": number(1) }] }),
    )
    .await;
    assert_eq!(job["status"], "running");
    assert!(job["estimated_finish_at"].as_str().unwrap() >= job["scheduled_for"].as_str().unwrap());
    let now = create(
        &app,
        &org,
        json!({ "medium": "sms", "message": "now", "category": "utility", "start": true, "recipients": [{ "to": number(2) }] }),
    )
    .await;
    ended(&app, &org, &now, "completed").await;
    let waiting = app.get(org.owner(), &path(&job, "")).await.expect(200);
    assert_eq!(waiting["progress"]["pending"], 1);
    sql(&app, "UPDATE bulk_jobs SET scheduled_for = now()").await;
    let done = ended(&app, &org, &job, "completed").await;
    assert_eq!(done["progress"]["failed"], 1, "{done:#}");
    let failed = recipients(&app, &org, &job, "&state=failed").await;
    assert!(failed[0]["error_code"].is_string());
    assert_eq!(app.count("SELECT count(*) FROM message_failures").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM notifications").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_feed_jobs_of_two_tenants_and_everybody_gets_one_message() {
    let (app, org) = ready().await;
    let second = TestApp::builder()
        .on(app.db.clone())
        .with_simulator(app.simulator.clone())
        .start()
        .await;
    let other = app.org("b").await;
    set_pace(&app, 1000).await;
    second.state().registry.reload().await.unwrap();
    let mut jobs = Vec::new();
    for (org, count) in [(&org, 160), (&org, 40), (&other, 80)] {
        let rows: Vec<Value> = (0..count)
            .map(|n| json!({ "to": number(n + jobs.len() * 1000), "name": "x", "variables": { "n": n } }))
            .collect();
        let body = json!({ "medium": "sms", "message": "{{n}}", "category": "utility", "start": true, "recipients": rows });
        jobs.push((org, create(&app, org, body).await, count));
    }
    for (org, job, count) in &jobs {
        let done = ended(&app, org, job, "completed").await;
        assert_eq!(done["progress"]["total"], *count);
        assert_eq!(done["progress"]["skipped"], 0, "{done:#}");
    }
    let mut by_customer: HashMap<(String, String), usize> = HashMap::new();
    for sent in app.world().accepted() {
        *by_customer.entry((sent.line, sent.customer)).or_default() += 1;
    }
    assert_eq!(by_customer.len(), 280);
    assert!(by_customer.values().all(|count| *count == 1));
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 280);
    drop(second.stop().await);
}

#[tokio::test]
async fn the_documents_send_bulk_makes_a_job_and_names_the_rows_that_will_not_go() {
    let (app, org) = ready().await;
    let template = template(&app, &org, "مرحباً {{name}}").await;
    let request = json!({ "org_id": org.id, "channel_id": org.sms, "messages": [
        { "recipient": number(1), "message": "{{as it stands}}" },
        { "recipient": "x", "message": "x" },
        { "recipient": number(2), "template_id": template["id"], "variables": { "name": "منى" } },
        { "recipient": number(3), "template_id": uuid::Uuid::now_v7() },
        { "recipient": number(4) },
        { "message": "nobody" },
    ] });
    let path = "/api/messages/send-bulk";
    let answer = app.post(org.owner(), path, &request).await.expect(200);
    assert_eq!(answer["success"], true);
    assert_eq!(answer["queued"], 2);
    let indexes: Vec<i64> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["index"].as_i64().unwrap())
        .collect();
    assert_eq!(indexes, [1, 3, 4, 5], "{answer:#}");
    let job = json!({ "id": answer["job_id"] });
    ended(&app, &org, &job, "completed").await;
    let expected = BTreeMap::from([
        (number(1), vec!["{{as it stands}}".to_owned()]),
        (number(2), vec!["مرحباً منى".to_owned()]),
    ]);
    assert_eq!(texts(&app, &org), expected);

    let none = json!({ "channel_id": org.sms, "messages": [{ "recipient": "x", "message": "x" }] });
    let answer = app.post(org.owner(), path, &none).await.expect(400);
    assert_eq!(answer["success"], false);
    assert_eq!(answer["errors"][0]["index"], 0);
    app.post(org.owner(), path, &json!({ "messages": [] }))
        .await
        .expect(400);
    app.post(org.agent(), path, &request).await.expect(403);
    assert_eq!(app.count("SELECT count(*) FROM bulk_jobs").await, 1);
}
