//! Writing the log by the documents' names: what a document's own SQL logs is one of our messages.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;
use wasel_testkit::{Org, TestApp, TestDb, twilio};

/// A connection with the rights of a signed-in person, as PostgREST makes them.
async fn as_person(db: &TestDb, org: Uuid, user: Uuid) -> PgConnection {
    let claims = json!({ "sub": user, "role": "authenticated", "app_metadata": { "org_id": org } });
    let mut connection = db.connect().await;
    run(
        &mut connection,
        &format!("SET request.jwt.claims = '{claims}'; SET ROLE authenticated"),
    )
    .await
    .unwrap();
    connection
}

/// The same with the service-role key, which names no tenant.
async fn as_service(db: &TestDb) -> PgConnection {
    let mut connection = db.connect().await;
    run(
        &mut connection,
        r#"SET request.jwt.claims = '{"role": "service_role"}'; SET ROLE service_role"#,
    )
    .await
    .unwrap();
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .map(|_| ())
}

/// The one row a statement returns, as JSON.
async fn row(connection: &mut PgConnection, sql: &str) -> Value {
    sqlx::query_scalar(AssertSqlSafe(format!(
        "WITH r AS ({sql}) SELECT to_jsonb(r) FROM r"
    )))
    .fetch_one(connection)
    .await
    .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[track_caller]
fn message_of(result: sqlx::Result<()>) -> String {
    let error = result.expect_err("a refusal");
    error
        .as_database_error()
        .map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

async fn callback(app: &TestApp, org: &Org, sid: &str, status: &str) {
    let (from, to) = (org.sms_number.as_str(), "+201012345678");
    let form = twilio::status(&org.account_sid, from, to, sid, status);
    app.twilio_webhook(org, "/functions/v1/twilio-delivery-status", &form)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_row_logged_by_a_documents_own_function_is_moved_by_the_status_webhook() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    // S2.5: an Edge Function logs what it sent, with the service-role key and no tenant in sight.
    let mut service = as_service(&app.db).await;
    let sid = format!("SM{:032x}", 7);
    let logged = row(
        &mut service,
        &format!(
            "INSERT INTO message_logs (request_id, recipient, message_type, message_content, provider, status, external_id, metadata, sender_id)
             VALUES ('req-7', '٠١٠ ١٢٣٤ ٥٦٧٨', 'sms', 'موعدك غداً', 'twilio', 'queued', '{sid}', '{{\"unit\": 12}}', '{}') RETURNING *",
            org.people.owner
        ),
    )
    .await;
    assert_eq!(logged["recipient"], "+201012345678");
    assert_eq!(logged["org_id"], json!(org.id));
    assert_eq!(logged["status"], "queued");
    assert_eq!(logged["metadata"], json!({ "unit": 12 }));

    for status in ["delivered", "sent", "delivered"] {
        callback(&app, &org, &sid, status).await;
    }
    let now = row(&mut service, "SELECT * FROM message_logs").await;
    assert_eq!(now["status"], "delivered");
    assert!(now["delivered_at"].is_string() && now["sent_at"].is_string());
    assert_eq!(now["request_id"], "req-7");
    assert_eq!(now["sender_id"], json!(org.people.owner));
    assert_eq!(
        app.count("SELECT count(*) FROM outbox").await,
        0,
        "a record is never sent"
    );
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["last_message"], "موعدك غداً");
}

#[tokio::test]
async fn a_callback_that_comes_before_its_row_is_not_lost() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let sid = format!("SM{:032x}", 8);
    callback(&app, &org, &sid, "delivered").await;
    let mut service = as_service(&app.db).await;
    run(
        &mut service,
        &format!("INSERT INTO message_logs (recipient, message_type, message_content, external_id, status) VALUES ('+201012345678', 'sms', 'x', '{sid}', 'queued')"),
    )
    .await
    .unwrap();
    app.wait_count(
        "SELECT count(*) FROM messages WHERE status = 'delivered'",
        1,
    )
    .await;
}

#[tokio::test]
async fn the_old_table_is_written_and_updated_forward_only() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let mut owner = as_person(&app.db, org.id, org.people.owner).await;
    // S2.6: insert first, the SID when Twilio has answered, the status as it moves.
    let made = row(
        &mut owner,
        "INSERT INTO whatsapp_messages (recipient_phone, message_content, media_url, status)
         VALUES ('01012345678', 'hello', 'https://files.example/a.jpg', 'queued') RETURNING *",
    )
    .await;
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["message_type"], "image");
    assert_eq!(made["session_id"], json!(org.twilio_whatsapp));
    run(
        &mut owner,
        &format!("UPDATE whatsapp_messages SET message_sid = 'SM77', status = 'sent', sent_at = now() WHERE id = '{id}'"),
    )
    .await
    .unwrap();
    run(
        &mut owner,
        "UPDATE whatsapp_messages SET status = 'read', read_at = '2026-11-01T10:00:00Z' WHERE message_sid = 'SM77'",
    )
    .await
    .unwrap();
    let late = row(
        &mut owner,
        "UPDATE whatsapp_messages SET status = 'delivered', metadata = '{\"seen\": true}' WHERE message_sid = 'SM77' RETURNING *",
    )
    .await;
    assert_eq!(late["status"], "read", "a status never goes back");
    assert_eq!(late["metadata"], json!({ "seen": true }));
    let message = app
        .get(org.owner(), &format!("/v1/messages/{id}"))
        .await
        .expect(200);
    assert_eq!(message["status"], "read");
    assert_eq!(message["read_at"], "2026-11-01T10:00:00Z");

    let refused = run(
        &mut owner,
        "UPDATE whatsapp_messages SET message_sid = 'SM78' WHERE message_sid = 'SM77'",
    )
    .await;
    assert!(message_of(refused).starts_with("external_id: "));
    let refused = run(
        &mut owner,
        "UPDATE whatsapp_messages SET recipient_phone = '+201112345678'",
    )
    .await;
    assert!(message_of(refused).starts_with("recipient_phone: "));
    let refused = run(&mut owner, "UPDATE whatsapp_messages SET status = 'flying'").await;
    assert!(message_of(refused).starts_with("status: "));
    run(
        &mut owner,
        &format!("DELETE FROM whatsapp_messages WHERE id = '{id}'"),
    )
    .await
    .unwrap();
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 0);
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_is_refused_by_the_name_of_its_column() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let mut owner = as_person(&app.db, org.id, org.people.owner).await;
    for (columns, values, expected) in [
        ("recipient, message_type", "'hello', 'sms'", "recipient: "),
        (
            "recipient, message_type",
            "'01012345678', 'fax'",
            "message_type: ",
        ),
        (
            "recipient, message_type",
            "'a@b.example', 'email'",
            "message_type: this organisation has no email",
        ),
        (
            "recipient, message_type, status",
            "'01012345678', 'sms', 'flying'",
            "status: ",
        ),
    ] {
        let sql = format!("INSERT INTO message_logs ({columns}) VALUES ({values})");
        let message = message_of(run(&mut owner, &sql).await);
        assert!(message.starts_with(expected), "{sql}: {message}");
    }
    let sql = format!(
        "INSERT INTO whatsapp_messages (conversation_id, content) VALUES ('{}', 'x')",
        Uuid::now_v7()
    );
    let message = message_of(run(&mut owner, &sql).await);
    assert!(message.starts_with("conversation_id: "), "{message}");
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 0);
    assert_eq!(
        app.count("SELECT count(*) FROM contacts").await,
        0,
        "nothing is left behind"
    );
}

#[tokio::test]
async fn the_names_are_written_only_by_those_who_may_and_only_in_their_own_tenant() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let insert = "INSERT INTO message_logs (recipient, message_type, message_content, status) VALUES ('01012345678', 'sms', 'x', 'sent')";
    let mut viewer = as_person(&app.db, a.id, a.people.viewer).await;
    let refused = message_of(run(&mut viewer, insert).await);
    assert!(refused.contains("row-level security"), "{refused}");
    let mut agent = as_person(&app.db, a.id, a.people.agent).await;
    run(&mut agent, insert).await.unwrap();
    let refused = message_of(run(&mut viewer, "UPDATE message_logs SET status = 'read'").await);
    assert!(
        refused.contains("your role may not change messages"),
        "{refused}"
    );
    let refused = message_of(run(&mut viewer, "DELETE FROM message_logs").await);
    assert!(
        refused.contains("your role may not delete messages"),
        "{refused}"
    );

    let mut stranger = as_person(&app.db, b.id, b.people.owner).await;
    for sql in [
        "UPDATE message_logs SET status = 'read'",
        "DELETE FROM message_logs",
    ] {
        run(&mut stranger, sql).await.unwrap();
    }
    let foreign = format!(
        "INSERT INTO message_logs (org_id, recipient, message_type, message_content) VALUES ('{}', '+201012345678', 'sms', 'x')",
        a.id
    );
    run(&mut stranger, &foreign)
        .await
        .expect_err("another tenant's log");
    assert_eq!(
        app.count("SELECT count(*) FROM messages WHERE status = 'sent'")
            .await,
        1,
        "a stranger changed nothing"
    );
    // Two tenants: the service-role key must name one.
    let mut service = as_service(&app.db).await;
    let refused = message_of(run(&mut service, insert).await);
    assert!(refused.starts_with("org_id: "), "{refused}");
}

#[tokio::test]
async fn a_message_of_ours_ended_by_sql_leaves_the_queue_and_does_not_hold_up_its_conversation() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let pause = format!("/v1/channels/{}", org.sms);
    app.patch(org.owner(), &pause, &json!({ "status": "paused" }))
        .await
        .expect(200);
    let first = org
        .send(&app, org.sms, "+201012345678", "not this")
        .await
        .expect(202);
    let second = org
        .send(&app, org.sms, "+201012345678", "but this")
        .await
        .expect(202);
    let mut owner = as_person(&app.db, org.id, org.people.owner).await;
    let cancel = format!(
        "UPDATE message_logs SET status = 'cancelled' WHERE id = '{}'",
        first["id"].as_str().unwrap()
    );
    run(&mut owner, &cancel).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 1);
    app.patch(org.owner(), &pause, &json!({ "status": "active" }))
        .await
        .expect(200);
    app.wait_status(org.owner(), second["id"].as_str().unwrap(), "delivered")
        .await;
    let first = app
        .get(
            org.owner(),
            &format!("/v1/messages/{}", first["id"].as_str().unwrap()),
        )
        .await
        .expect(200);
    assert_eq!(first["status"], "cancelled");
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 0);
}

#[tokio::test]
async fn a_sid_found_out_by_hand_settles_a_message_whose_answer_was_lost() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let mut owner = as_person(&app.db, org.id, org.people.owner).await;
    let logged = row(
        &mut owner,
        "INSERT INTO message_logs (recipient, message_type, message_content, status) VALUES ('01012345678', 'sms', 'x', 'sending') RETURNING *",
    )
    .await;
    let id = logged["id"].as_str().unwrap();
    // As after a lost answer: an attempt, and nobody knows its id.
    sqlx::query("INSERT INTO message_attempts (org_id, id, message_id, channel_id, status) VALUES ($1, $2, $3::uuid, $4, 'unknown')")
        .bind(org.id)
        .bind(Uuid::now_v7())
        .bind(id)
        .bind(org.sms)
        .execute(&app.owner)
        .await
        .unwrap();
    let sid = format!("SM{:032x}", 9);
    run(
        &mut owner,
        &format!(
            "UPDATE message_logs SET external_id = '{sid}', status = 'sent' WHERE id = '{id}'"
        ),
    )
    .await
    .unwrap();
    callback(&app, &org, &sid, "delivered").await;
    let now = row(&mut owner, "SELECT * FROM message_logs").await;
    assert_eq!(now["status"], "delivered");
    assert_eq!(app.count("SELECT count(*) FROM pending_statuses").await, 0);
}

#[tokio::test]
async fn whichever_of_two_numbers_sent_a_logged_message_its_callback_finds_it() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    app.apply(&format!(
        r#"
        [[organizations]]
        slug = "a"
        name = "A"
        locale = "ar-EG"
        [[organizations.channels]]
        kind = "twilio_sms"
        name = "Another number"
        account_sid = "{}"
        auth_token = "{}"
        from = "+12025559999"
        "#,
        org.account_sid, org.auth_token
    ))
    .await;
    let sid = format!("SM{:032x}", 10);
    let mut service = as_service(&app.db).await;
    run(
        &mut service,
        &format!("INSERT INTO message_logs (recipient, message_type, message_content, status, external_id) VALUES ('+201012345678', 'sms', 'x', 'queued', '{sid}')"),
    )
    .await
    .unwrap();
    for (status, from) in [("delivered", "+12025559999"), ("sent", "+12025559999")] {
        let form = twilio::status(&org.account_sid, from, "+201012345678", &sid, status);
        app.twilio_webhook(&org, "/functions/v1/twilio-delivery-status", &form)
            .await
            .expect(200);
    }
    let now = row(&mut service, "SELECT * FROM message_logs").await;
    assert_eq!(now["status"], "delivered");
}

#[tokio::test]
async fn sql_reads_numbers_as_the_api_does() {
    let app = TestApp::start().await;
    for (spelling, region, expected) in [
        ("٠١٠ ١٢٣٤ ٥٦٧٨", "EG", Some("+201012345678")),
        ("0020 10 1234 5678", "EG", Some("+201012345678")),
        ("+20 (0)10-1234-5678", "SA", Some("+201012345678")),
        ("whatsapp:+201012345678", "", Some("+201012345678")),
        ("201012345678", "EG", Some("+201012345678")),
        ("0512345678", "SA", Some("+966512345678")),
        ("512345678", "SA", Some("+966512345678")),
        ("+5215512345678", "", Some("+525512345678")),
        ("+551187654321", "", Some("+5511987654321")),
        ("+551133334444", "", Some("+551133334444")),
        ("01012345678", "", None),
        ("hello", "EG", None),
        ("", "EG", None),
    ] {
        let found: Option<String> = sqlx::query_scalar("SELECT wasel.e164($1, nullif($2, ''))")
            .bind(spelling)
            .bind(region)
            .fetch_one(&app.owner)
            .await
            .unwrap();
        assert_eq!(found.as_deref(), expected, "{spelling} in {region}");
        if let Some(expected) = expected {
            let region = wasel_domain::phone::parse_region(region).ok();
            let plain = spelling.trim_start_matches("whatsapp:");
            assert_eq!(
                wasel_domain::E164::parse(plain, region).unwrap().as_str(),
                expected,
                "{spelling}"
            );
        }
    }
}

#[tokio::test]
async fn nobody_opens_the_24_hour_window_by_sql() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let mut person = as_person(&app.db, org.id, org.people.agent).await;
    let log = |direction: &str| {
        format!(
            "INSERT INTO whatsapp_messages (recipient_phone, message_body, direction, status)
             VALUES ('+201001234567', 'hello', '{direction}', 'delivered') RETURNING conversation_id"
        )
    };
    let logged = row(&mut person, &log("outbound")).await;
    let thread = logged["conversation_id"].as_str().unwrap();
    let refusal = run(
        &mut person,
        &format!("UPDATE conversations SET last_inbound_at = now() WHERE id = '{thread}'"),
    )
    .await;
    assert!(message_of(refusal).starts_with("last_inbound_at:"));
    // Logging what a customer wrote is fine, and opens nothing either.
    row(&mut person, &log("inbound")).await;
    let heard =
        format!("SELECT last_inbound_at, unread_count FROM conversations WHERE id = '{thread}'");
    assert_eq!(
        row(&mut person, &heard).await,
        json!({ "last_inbound_at": null, "unread_count": 1 })
    );
    // The service-role key may: an Edge Function that takes webhooks logs with it.
    let mut service = as_service(&app.db).await;
    run(
        &mut service,
        &format!("UPDATE conversations SET last_inbound_at = now() WHERE id = '{thread}'"),
    )
    .await
    .unwrap();
}
