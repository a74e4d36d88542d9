//! The notification queue, written by an outside program: by `psql`, as a sign-up trigger or a cron job would.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use wasel_db::notification_queue;
use wasel_simulator::{CustomerSend, Fault, FaultKind, FaultPlan, Settings};
use wasel_testkit::{Answer, Org, TestApp, twilio, wait_until};

const CUSTOMER: &str = "+201012345678";
/// The first of the system's templates.
const TRIAL_WELCOME: &str = "00000000-0000-7000-8000-000000000001";
const WELCOME_TEXT: &str = "مرحباً سارة! 👋\n\nشكراً لتسجيلك في MyFleet Pro. نحن سعداء بانضمامك!\n\n🎁 لديك فترة تجريبية مجانية لمدة 14 يوم للاستمتاع بجميع المميزات.\n\n📱 ابدأ الآن من: https://myfleet.app\n\nإذا كان لديك أي استفسار، نحن هنا للمساعدة!";

/// Runs SQL past the server; returns what it prints.
#[track_caller]
fn psql(app: &TestApp, sql: &str) -> String {
    let output = Command::new("psql")
        .args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql])
        .arg(app.db.url())
        .output()
        .expect("psql, of the same package as Postgres");
    assert!(
        output.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Inserts one row; returns its id.
#[track_caller]
fn insert(app: &TestApp, org: &Org, columns: &str, values: &str) -> Uuid {
    let sql = format!(
        "INSERT INTO notification_queue (org_id, {columns}) VALUES ('{}', {values}) RETURNING id",
        org.id
    );
    psql(app, &sql).parse().unwrap()
}

/// A text by SMS, which no window keeps back.
#[track_caller]
fn insert_sms(app: &TestApp, org: &Org, text: &str) -> Uuid {
    insert(
        app,
        org,
        "notification_type, recipient_phone, message_data",
        &format!("'sms', '{CUSTOMER}', '{{\"message\": \"{text}\"}}'"),
    )
}

async fn row(app: &TestApp, id: Uuid) -> Value {
    sqlx::query_scalar("SELECT to_jsonb(q) FROM notification_queue q WHERE id = $1")
        .bind(id)
        .fetch_one(&app.owner)
        .await
        .unwrap()
}

async fn wait_row(app: &TestApp, id: Uuid, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = tokio::time::timeout(wasel_testkit::PATIENCE, async {
        loop {
            last = row(app, id).await;
            if wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(
        found.is_ok(),
        "the row never came to be as wanted: {last:#}"
    );
    last
}

async fn wait_row_status(app: &TestApp, id: Uuid, status: &str) -> Value {
    wait_row(app, id, |row| row["status"] == status).await
}

fn with_settings(app: &TestApp, change: impl FnOnce(&mut Settings)) {
    let mut settings = app.world().settings();
    change(&mut settings);
    app.world().set_settings(settings);
}

/// The providers take messages and say nothing of them.
fn still(app: &TestApp) {
    with_settings(app, |s| {
        (s.sent_after_ms, s.delivered_after_ms) = (None, None)
    });
}

async fn open_window(app: &TestApp, org: &Org) {
    let line = format!("whatsapp:{}", org.whatsapp_number);
    app.world()
        .send_as_customer(CustomerSend::text(line, CUSTOMER, "hi"))
        .unwrap();
    app.wait_count(
        &format!(
            "SELECT count(*) FROM messages WHERE direction = 'inbound' AND org_id = '{}'",
            org.id
        ),
        1,
    )
    .await;
}

/// Nothing leaves on this channel, and what is queued waits.
async fn pause(app: &TestApp, org: &Org, channel: Uuid, status: &str) {
    let path = format!("/v1/channels/{channel}");
    app.patch(org.owner(), &path, &json!({ "status": status }))
        .await
        .expect(200);
    wait_until("the server knows", async || {
        let known = app.state().registry.by_id(channel.into()).unwrap();
        (known.status == status).then_some(())
    })
    .await;
}

/// A row of SMS with its message, while [`hold_messages`] keeps that from leaving.
async fn held_row(app: &TestApp, org: &Org, text: &str) -> (Uuid, String) {
    let id = insert_sms(app, org, text);
    let taken = wait_row(app, id, |row| !row["whatsapp_message_id"].is_null()).await;
    let message = taken["whatsapp_message_id"].as_str().unwrap();
    (id, message.to_owned())
}

/// Makes every message queued from here on wait an hour, as a rule of the governor may.
async fn hold_messages(app: &TestApp) {
    sqlx::raw_sql(
        "CREATE FUNCTION wasel.hold() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN NEW.due_at := now() + interval '1 hour'; RETURN NEW; END $$;
         CREATE TRIGGER hold BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION wasel.hold()",
    )
    .execute(&app.owner)
    .await
    .unwrap();
}

/// A callback of Twilio for an SMS.
async fn callback(app: &TestApp, org: &Org, message: &Value, status: &str, code: &str) {
    let sid = message["provider_message_id"].as_str().unwrap();
    let mut form = twilio::status(&org.account_sid, &org.sms_number, CUSTOMER, sid, status);
    form.retain(|(name, _)| *name != "ErrorCode");
    if !code.is_empty() {
        form.push(("ErrorCode", code));
    }
    app.twilio_webhook(org, "/functions/v1/twilio-delivery-status", &form)
        .await
        .expect(200);
}

fn service_key(app: &TestApp) -> String {
    let key = &app.state().config.auth.supabase_service_role_key;
    key.as_ref()
        .expect("the server made one")
        .expose()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_all_three_types_by_psql_end_in_delivered_messages_with_the_arabic_text_right() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let _mailbox = org.mailbox(&app).await;
    open_window(&app, &org).await;
    with_settings(&app, |s| s.read_after_ms = Some(10));
    // The row of the document's own trigger: a whole sign-up, with more in it than the template needs.
    let data = "'{\"customer_name\": \"سارة\", \"trial_days\": 14, \"app_url\": \"https://myfleet.app\", \"plan\": null,
        \"related_entity_id\": \"signup-7\", \"request_id\": \"r-1\"}'";
    let whatsapp = insert(
        &app,
        &org,
        "notification_type, recipient_phone, template_id, message_data, priority",
        &format!("'whatsapp', '01012345678', '{TRIAL_WELCOME}', {data}, 1")
            .replace("01012345678", CUSTOMER),
    );
    let sms = insert(
        &app,
        &org,
        "notification_type, recipient_phone, template_id, message_data",
        &format!(
            "'sms', '{CUSTOMER}', '{TRIAL_WELCOME}', jsonb_build_object('variables', {data}::jsonb)"
        ),
    );
    // By the person, not by the address.
    psql(
        &app,
        &format!(
            "UPDATE profiles SET email = 'sara@customer.example' WHERE id = '{}'",
            org.people.agent
        ),
    );
    let email = insert(
        &app,
        &org,
        "notification_type, recipient_id, template_id, message_data",
        &format!(
            "'email', '{}', '{TRIAL_WELCOME}', {data}::jsonb || '{{\"subject\": \"أهلاً بك\"}}'",
            org.people.agent
        ),
    );
    for (id, ends) in [(whatsapp, "read"), (sms, "delivered"), (email, "sent")] {
        let done = wait_row_status(&app, id, "completed").await;
        assert_eq!(
            (&done["attempts"], &done["error_message"]),
            (&json!(1), &Value::Null)
        );
        assert!(done["completed_at"].is_string() && done["last_attempt_at"].is_string());
        let message = done["whatsapp_message_id"].as_str().unwrap();
        let message = app.wait_status(org.owner(), message, ends).await;
        assert_eq!(message["body"], WELCOME_TEXT, "{ends}");
        assert!(message["sent_at"].is_string());
        assert_eq!(
            message["delivered_at"].is_string(),
            ends != "sent",
            "{message}"
        );
        assert_eq!(message["read_at"].is_string(), ends == "read", "{message}");
    }
    let log = app
        .count(&format!(
            "SELECT count(*) FROM whatsapp_messages WHERE trigger_type = 'trial_welcome' AND related_entity_id = 'signup-7'
                 AND read_at IS NOT NULL AND id = (SELECT whatsapp_message_id FROM notification_queue WHERE id = '{whatsapp}')"
        ))
        .await;
    assert_eq!(log, 1);
    let kept = app
        .count("SELECT count(*) FROM messages WHERE request_id = 'r-1' AND category = 'utility' AND notification_id IS NOT NULL")
        .await;
    assert_eq!(kept, 2, "at the top level of message_data");
    // What arrived, to the letter.
    let arrived: Vec<String> = [
        format!("whatsapp:{}", org.whatsapp_number),
        org.sms_number.clone(),
    ]
    .iter()
    .filter_map(|line| {
        let last = app.world().thread(line, CUSTOMER, 1).pop();
        last.and_then(|message| message.text)
    })
    .collect();
    assert_eq!(arrived, [WELCOME_TEXT, WELCOME_TEXT]);
    let mails = app.world().emails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].recipients, ["sara@customer.example"]);
    assert_eq!(mails[0].subject, "أهلاً بك");
    let text = mails[0].text.as_deref().unwrap().replace("\r\n", "\n");
    assert_eq!(text.trim_end(), WELCOME_TEXT);
    assert!(app.world().double_sends().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_row_is_said_in_its_error_message_and_it_is_not_tried_again() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let other = app.org("b").await;
    let foreign = app
        .post(
            other.owner(),
            "/v1/templates",
            &json!({ "name": "x", "message_template": "x" }),
        )
        .await
        .expect(201)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let off = app
        .post(
            org.owner(),
            "/v1/templates",
            &json!({ "name": "off", "message_template": "x", "is_active": false }),
        )
        .await
        .expect(201)["id"]
        .as_str()
        .unwrap()
        .to_owned();
    // Somebody who wrote STOP.
    let stop = twilio::inbound(
        &org.account_sid,
        "+201099999999",
        &org.sms_number,
        "SMstop",
        "STOP",
    );
    app.twilio_webhook(&org, "/api/webhooks/twilio", &stop)
        .await
        .expect(200);
    app.wait_count("SELECT count(*) FROM consents", 1).await;
    let text = "'{\"message\": \"x\"}'";
    let phone = format!("'{CUSTOMER}'");
    let nobody = Uuid::now_v7();
    let cases = [
        (
            format!(
                "'sms', {phone}, NULL, '{TRIAL_WELCOME}', '{{\"customer_name\": \"x\", \"trial_days\": null}}'"
            ),
            "variables.trial_days: is missing; variables.app_url: is missing",
        ),
        (
            format!("'sms', {phone}, NULL, '{foreign}', '{{}}'"),
            "template_id: there is no such template",
        ),
        (
            format!("'sms', {phone}, NULL, '{off}', '{{}}'"),
            "template_id: is switched off",
        ),
        (
            format!("'sms', NULL, NULL, NULL, {text}"),
            "recipient_phone: is missing",
        ),
        (
            format!("'sms', 'hello', NULL, NULL, {text}"),
            "recipient_phone: ",
        ),
        (
            format!("'sms', NULL, '{nobody}', NULL, {text}"),
            "recipient_id: there is no such contact or member",
        ),
        (
            format!("'sms', NULL, '{}', NULL, {text}", org.people.viewer),
            "recipient_id: has no phone number",
        ),
        (
            format!("'sms', NULL, '{}', NULL, {text}", other.people.owner),
            "recipient_id: there is no such",
        ),
        (
            format!("'sms', {phone}, NULL, NULL, '{{}}'"),
            "message_data.message: is missing",
        ),
        (
            format!("'sms', {phone}, NULL, NULL, '[]'"),
            "message_data: must be a JSON object",
        ),
        (
            format!("'sms', '+201099999999', NULL, NULL, {text}"),
            "recipient_phone: this person asked not to be written to",
        ),
        (
            format!("'whatsapp', {phone}, NULL, NULL, {text}"),
            "content.type: this person has not written yet",
        ),
        (
            format!("'email', NULL, NULL, NULL, {text}"),
            "this organisation has no active email channel",
        ),
    ];
    for (values, words) in cases {
        let columns = "notification_type, recipient_phone, recipient_id, template_id, message_data";
        let id = insert(&app, &org, columns, &values);
        let failed = wait_row_status(&app, id, "failed").await;
        let said = failed["error_message"].as_str().unwrap();
        assert!(said.contains(words), "{values}: {said}");
        assert_eq!(failed["attempts"], 1);
        assert_eq!(failed["whatsapp_message_id"], Value::Null);
    }
    let left = app
        .count("SELECT count(*) FROM messages WHERE direction = 'outbound'")
        .await;
    assert_eq!(left, 0, "nothing of a refused row stays");
    // A row that is used up is not tried; raising its attempts makes it go.
    let used = insert(
        &app,
        &org,
        "notification_type, recipient_phone, message_data, attempts",
        &format!("'sms', {phone}, {text}, 3"),
    );
    let failed = wait_row_status(&app, used, "failed").await;
    assert!(
        failed["error_message"]
            .as_str()
            .unwrap()
            .contains("max_attempts"),
        "{failed}"
    );
    psql(
        &app,
        &format!(
            "UPDATE notification_queue SET status = 'pending', max_attempts = 4 WHERE id = '{used}'"
        ),
    );
    wait_row_status(&app, used, "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_by_priority_then_time_and_not_before_their_time() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    // One statement, so that all are there before the first is taken.
    psql(
        &app,
        &format!(
            "INSERT INTO notification_queue (org_id, notification_type, recipient_phone, message_data, priority, scheduled_for)
             SELECT '{}', 'sms', '{CUSTOMER}', jsonb_build_object('message', t), p, now() + w FROM (VALUES
                ('4', 5, interval '0'), ('3', 5, interval '-1 hour'), ('1', 1, interval '0'), ('2', 3, interval '0'),
                ('later', 1, interval '2 seconds'), ('never', 1, interval '1 day'), ('5', 10, interval '-1 day')) v(t, p, w)",
            org.id
        ),
    );
    app.wait_count(
        "SELECT count(*) FROM notification_queue WHERE status = 'completed'",
        6,
    )
    .await;
    let order: Vec<String> =
        sqlx::query_scalar("SELECT body FROM messages WHERE direction = 'outbound' ORDER BY id")
            .fetch_all(&app.owner)
            .await
            .unwrap();
    assert_eq!(order, ["1", "2", "3", "4", "5", "later"]);
    let early = app
        .count("SELECT count(*) FROM messages m JOIN notification_queue q ON q.id = m.notification_id WHERE m.created_at < q.scheduled_for")
        .await;
    assert_eq!(early, 0);
    // Brought forward by hand.
    psql(
        &app,
        "UPDATE notification_queue SET scheduled_for = now() WHERE status = 'pending'",
    );
    app.wait_count(
        "SELECT count(*) FROM notification_queue WHERE status = 'completed'",
        7,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_cancelled_while_it_waits_or_its_message_does_and_no_later() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let waiting = insert(
        &app,
        &org,
        "notification_type, recipient_phone, message_data, scheduled_for",
        &format!("'sms', '{CUSTOMER}', '{{\"message\": \"x\"}}', now() + interval '1 hour'"),
    );
    psql(
        &app,
        &format!("UPDATE notification_queue SET status = 'cancelled' WHERE id = '{waiting}'"),
    );
    hold_messages(&app).await;
    // By SQL; by the queue's route; by the message's route.
    for way in 0..3 {
        let (id, message) = held_row(&app, &org, "held").await;
        match way {
            0 => drop(psql(
                &app,
                &format!("UPDATE notification_queue SET status = 'cancelled' WHERE id = '{id}'"),
            )),
            1 => {
                let path = format!("/v1/notification-queue/{id}/cancel");
                app.post(org.agent(), &path, &json!({})).await.expect(403);
                let done = app.post(org.owner(), &path, &json!({})).await.expect(200);
                assert_eq!(done["status"], "cancelled");
                // Once more is no harm.
                app.post(org.owner(), &path, &json!({})).await.expect(200);
            }
            _ => {
                let path = format!("/v1/messages/{message}/cancel");
                let viewer = &org.people.viewer_token;
                app.post(viewer, &path, &json!({})).await.expect(403);
                let done = app.post(org.agent(), &path, &json!({})).await.expect(200);
                assert_eq!(done["status"], "cancelled");
                app.post(org.agent(), &path, &json!({})).await.expect(200);
            }
        }
        wait_row_status(&app, id, "cancelled").await;
        let message = app.wait_status(org.owner(), &message, "cancelled").await;
        let last = message["timeline"].as_array().unwrap().last().unwrap();
        assert_eq!(last["event"], "cancelled", "{way}");
    }
    assert_eq!(app.count("SELECT count(*) FROM outbox").await, 0);
    psql(&app, "DROP TRIGGER hold ON outbox");
    // Too late: the provider has it.
    still(&app);
    let sent = insert_sms(&app, &org, "gone");
    let taken = wait_row(&app, sent, |row| !row["whatsapp_message_id"].is_null()).await;
    let message = taken["whatsapp_message_id"].as_str().unwrap();
    app.wait_message(org.owner(), message, |m| {
        m["provider_message_id"].is_string()
    })
    .await;
    psql(
        &app,
        &format!("UPDATE notification_queue SET status = 'cancelled' WHERE id = '{sent}'"),
    );
    assert_ne!(
        row(&app, sent).await["status"],
        "cancelled",
        "it says what is true"
    );
    for path in [
        format!("/v1/notification-queue/{sent}/cancel"),
        format!("/v1/messages/{message}/cancel"),
    ] {
        let refused = app.post(org.owner(), &path, &json!({})).await.expect(409);
        assert_eq!(refused["error"]["code"], "too_late");
    }
    assert_eq!(
        app.world().accepted().len(),
        1,
        "the others never left: {:?}",
        app.world().accepted()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_can_pass_is_tried_again_with_growing_waits_until_the_attempts_are_used_up()
{
    let app = TestApp::start().await;
    let org = app.org("a").await;
    still(&app);
    let id = insert_sms(&app, &org, "again");
    let mut messages = Vec::new();
    for (attempt, wait) in [(1, 30.0), (2, 120.0), (3, 0.0)] {
        let taken = wait_row(&app, id, |row| {
            row["status"] == "processing" && row["attempts"] == attempt
        })
        .await;
        let message = taken["whatsapp_message_id"].as_str().unwrap().to_owned();
        let message = app
            .wait_message(org.owner(), &message, |m| {
                m["provider_message_id"].is_string()
            })
            .await;
        callback(&app, &org, &message, "undelivered", "30008").await;
        messages.push(message);
        if attempt == 3 {
            break;
        }
        let waits = wait_row_status(&app, id, "pending").await;
        assert!(!waits["error_message"].as_str().unwrap().is_empty());
        let left: f64 = sqlx::query_scalar(
            "SELECT extract(epoch FROM scheduled_for - now())::float8 FROM notification_queue WHERE id = $1",
        )
        .bind(id)
        .fetch_one(&app.owner)
        .await
        .unwrap();
        assert!(left <= wait && left > wait - 25.0, "{attempt}: {left}");
        let told = app.count("SELECT count(*) FROM notifications").await;
        assert_eq!(told, 0, "nobody is told of what is being made good");
        psql(
            &app,
            &format!("UPDATE notification_queue SET scheduled_for = now() WHERE id = '{id}'"),
        );
    }
    let failed = wait_row_status(&app, id, "failed").await;
    assert_eq!(failed["attempts"], 3);
    app.wait_count("SELECT count(*) FROM notifications", 1)
        .await;
    // The proof that one of them arrived after all ends it.
    callback(&app, &org, &messages[2], "delivered", "").await;
    let done = wait_row_status(&app, id, "completed").await;
    assert_eq!(done["error_message"], Value::Null);

    // Delivered after all while the second attempt waits: there is none.
    let id = insert_sms(&app, &org, "crossed");
    let taken = wait_row_status(&app, id, "processing").await;
    let message = taken["whatsapp_message_id"].as_str().unwrap();
    let message = app
        .wait_message(org.owner(), message, |m| {
            m["provider_message_id"].is_string()
        })
        .await;
    callback(&app, &org, &message, "undelivered", "30008").await;
    wait_row_status(&app, id, "pending").await;
    callback(&app, &org, &message, "delivered", "").await;
    wait_row_status(&app, id, "completed").await;
    // Somebody sets it back by hand: what was sent is not sent twice.
    psql(
        &app,
        &format!(
            "UPDATE notification_queue SET status = 'pending', scheduled_for = now() WHERE id = '{id}'"
        ),
    );
    wait_row_status(&app, id, "completed").await;

    // A failure that cannot pass ends it at once.
    let id = insert_sms(&app, &org, "no such handset");
    let taken = wait_row_status(&app, id, "processing").await;
    let message = taken["whatsapp_message_id"].as_str().unwrap();
    let message = app
        .wait_message(org.owner(), message, |m| {
            m["provider_message_id"].is_string()
        })
        .await;
    callback(&app, &org, &message, "undelivered", "30005").await;
    let failed = wait_row_status(&app, id, "failed").await;
    assert_eq!(failed["attempts"], 1);
    assert_eq!(app.world().accepted().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_fails_the_row_and_nothing_is_sent_twice() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    still(&app);
    let faults = vec![Fault::next(FaultKind::ResetAfterAccept, 1)];
    app.world().set_faults(FaultPlan { seed: 7, faults });
    let id = insert_sms(&app, &org, "once");
    let failed = wait_row_status(&app, id, "failed").await;
    let words = failed["error_message"].as_str().unwrap();
    assert!(words.contains("not sent again"), "{words}");
    assert_eq!(app.world().accepted().len(), 1);
    // Another program starts it over: it is still the one message.
    psql(
        &app,
        &format!("UPDATE notification_queue SET status = 'pending' WHERE id = '{id}'"),
    );
    let failed = wait_row(&app, id, |row| {
        row["status"] == "failed" && row["error_message"] != *words
    })
    .await;
    assert!(
        failed["error_message"]
            .as_str()
            .unwrap()
            .contains("not sent twice")
    );
    assert_eq!(app.world().accepted().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_channel_puts_rows_off_and_a_stray_row_is_taken_again() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    pause(&app, &org, org.sms, "paused").await;
    let id = insert_sms(&app, &org, "later");
    let put_off = wait_row(&app, id, |row| row["attempts"] == 1).await;
    assert_eq!(put_off["status"], "pending");
    assert!(
        put_off["error_message"]
            .as_str()
            .unwrap()
            .contains("no active sms channel")
    );
    let later = app
        .count("SELECT count(*) FROM notification_queue WHERE scheduled_for > now() + interval '5 seconds'")
        .await;
    assert_eq!(later, 1);
    pause(&app, &org, org.sms, "active").await;
    psql(
        &app,
        &format!("UPDATE notification_queue SET scheduled_for = now() WHERE id = '{id}'"),
    );
    let done = wait_row_status(&app, id, "completed").await;
    assert_eq!(done["attempts"], 2);
    // Left behind by a program that died two minutes ago; one that works on its row is left alone.
    let columns = "notification_type, recipient_phone, message_data, status, last_attempt_at";
    let values = |ago: &str| {
        format!(
            "'sms', '{CUSTOMER}', '{{\"message\": \"x\"}}', 'processing', now() - interval '{ago}'"
        )
    };
    let working = insert(&app, &org, columns, &values("1 second"));
    let left = insert(&app, &org, columns, &values("2 minutes"));
    wait_row_status(&app, left, "completed").await;
    assert_eq!(row(&app, working).await["status"], "processing");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_send_each_row_once_and_a_big_tenant_does_not_delay_a_small_one() {
    let app = TestApp::start().await;
    let (big, small) = (app.org("big").await, app.org("small").await);
    let other = TestApp::builder()
        .on(app.db.clone())
        .with_simulator(app.simulator.clone())
        .start()
        .await;
    psql(
        &app,
        &format!(
            "INSERT INTO notification_queue (org_id, notification_type, recipient_phone, message_data, priority)
             SELECT '{}', 'sms', '+2010' || 10000000 + n, jsonb_build_object('message', n), 1 FROM generate_series(1, 100000) n",
            big.id
        ),
    );
    let of_big = format!(
        "SELECT count(*) FROM notification_queue WHERE org_id = '{}' AND status <> 'pending'",
        big.id
    );
    wait_until("the big one is under way", async || {
        (app.count(&of_big).await > 0).then_some(())
    })
    .await;
    let id = insert(
        &app,
        &small,
        "notification_type, recipient_phone, message_data, priority",
        &format!("'sms', '{CUSTOMER}', '{{\"message\": \"x\"}}', 10"),
    );
    wait_row(&app, id, |row| row["status"] != "pending").await;
    let done = app.count(&of_big).await;
    assert!(
        done < 5_000,
        "the small one's turn came after {done} rows of the big one"
    );
    // The rest would only take time.
    psql(
        &app,
        &format!("DELETE FROM notification_queue WHERE org_id = '{}' AND status = 'pending' AND id NOT IN (
            SELECT id FROM notification_queue WHERE org_id = '{}' AND status = 'pending' LIMIT 100)", big.id, big.id),
    );
    app.wait_count(
        "SELECT count(*) FROM notification_queue WHERE status = 'pending'",
        0,
    )
    .await;
    let doubled = app
        .count("SELECT count(*) FROM (SELECT notification_id FROM messages WHERE notification_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1) d")
        .await;
    assert_eq!(doubled, 0);
    let without = app
        .count("SELECT count(*) FROM notification_queue q WHERE attempts <> 1 OR NOT EXISTS (
                SELECT FROM messages m WHERE m.id = q.whatsapp_message_id AND m.notification_id = q.id)")
        .await;
    assert_eq!(without, 0, "each has its one message");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_wake_every_node_at_once_and_imported_ones_nobody() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let mut listener = sqlx::postgres::PgListener::connect(&app.db.url())
        .await
        .unwrap();
    listener.listen("wasel_queue").await.unwrap();
    let sql = |scheduled: &str| {
        format!(
            "INSERT INTO notification_queue (org_id, notification_type, recipient_phone, message_data, scheduled_for)
             SELECT '{}', 'sms', '{CUSTOMER}', '{{\"message\": \"x\"}}', {scheduled} FROM generate_series(1, 3)",
            org.id
        )
    };
    // Quiet: an import; rows for tomorrow; rows that are no work.
    psql(
        &app,
        &format!(
            "SET ROLE service_role; SET wasel.importing = 'on'; {}; UPDATE notification_queue SET status = 'cancelled'",
            sql("now()")
        ),
    );
    psql(&app, &sql("now() + interval '1 day'"));
    psql(
        &app,
        "UPDATE notification_queue SET priority = 2 WHERE status = 'pending'",
    );
    assert_eq!(
        app.count("SELECT count(*) FROM messages").await,
        0,
        "nothing fires"
    );
    // One word for three rows and for as many statements of a transaction; the first that is heard is this.
    psql(
        &app,
        &format!("BEGIN; {}; {}; COMMIT", sql("now()"), sql("now()")),
    );
    psql(&app, "NOTIFY wasel_queue, 'the end'");
    let mut heard = Vec::new();
    while heard.last().is_none_or(|word| word != "the end") {
        let said = tokio::time::timeout(wasel_testkit::PATIENCE, listener.recv()).await;
        heard.push(said.unwrap().unwrap().payload().to_owned());
    }
    assert_eq!(heard, ["", "the end"]);
    app.wait_count(
        "SELECT count(*) FROM notification_queue WHERE status = 'completed'",
        6,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_queue_list_and_refuse_what_could_not_be_sent() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let path = "/v1/notification-queue";
    for (body, status, field) in [
        (
            json!({ "notification_type": "fax" }),
            400,
            "notification_type",
        ),
        (
            json!({ "notification_type": "sms", "priority": 0 }),
            400,
            "priority",
        ),
        (
            json!({ "notification_type": "sms" }),
            400,
            "recipient_phone",
        ),
        (
            json!({ "notification_type": "sms", "recipient_phone": "hello", "message_data": { "message": "x" } }),
            400,
            "recipient_phone",
        ),
        (
            json!({ "notification_type": "sms", "recipient_phone": CUSTOMER }),
            400,
            "message",
        ),
        (
            json!({ "notification_type": "sms", "recipient_phone": CUSTOMER, "template_id": Uuid::now_v7() }),
            404,
            "template_id",
        ),
        (
            json!({ "notification_type": "sms", "recipient_phone": CUSTOMER, "template_id": TRIAL_WELCOME,
                "message_data": { "customer_name": "x" } }),
            422,
            "",
        ),
        (
            json!({ "recipient_phone": CUSTOMER, "message_data": { "message": "x" } }),
            422,
            "content.type",
        ),
    ] {
        let refused = app.post(org.owner(), path, &body).await.expect(status);
        assert_eq!(
            refused["error"]["field"].as_str().unwrap_or_default(),
            field,
            "{body}"
        );
    }
    assert_eq!(
        app.count(
            "SELECT (SELECT count(*) FROM notification_queue) + (SELECT count(*) FROM contacts)"
        )
        .await,
        0,
        "nothing stays of what was refused"
    );
    // The window may be open by tomorrow.
    let later = json!({ "recipient_phone": CUSTOMER, "message_data": { "message": "x" },
        "scheduled_for": chrono::Utc::now() + chrono::TimeDelta::days(1) });
    app.post(org.agent(), path, &later).await.expect(403);
    let later = app.post(org.owner(), path, &later).await.expect(201);
    assert_eq!(
        (&later["status"], &later["priority"]),
        (&json!("pending"), &json!(5))
    );
    let sms = json!({ "notification_type": "sms", "recipient_phone": "01012345678", "message_data": { "text": "x" } });
    psql(&app, "UPDATE organizations SET region = 'EG'");
    wait_until("the server knows the country", async || {
        let known = app.state().registry.by_id(org.sms.into()).unwrap();
        known.region.is_some().then_some(())
    })
    .await;
    let now = app.post(org.owner(), path, &sms).await.expect(201);
    wait_row_status(
        &app,
        now["id"].as_str().unwrap().parse().unwrap(),
        "completed",
    )
    .await;
    let ids = async |query: &str| -> (Vec<Value>, Value) {
        let list = app
            .get(org.agent(), &format!("{path}{query}"))
            .await
            .expect(200);
        let ids = list["data"].as_array().unwrap().iter();
        (
            ids.map(|row| row["id"].clone()).collect(),
            list["next_cursor"].clone(),
        )
    };
    assert_eq!(ids("").await.0, [now["id"].clone(), later["id"].clone()]);
    assert_eq!(ids("?status=pending").await.0, [later["id"].clone()]);
    assert_eq!(ids("?type=sms").await.0, [now["id"].clone()]);
    let (first, cursor) = ids("?limit=1").await;
    assert_eq!(first, [now["id"].clone()]);
    let (second, end) = ids(&format!("?limit=1&cursor={}", cursor.as_str().unwrap())).await;
    assert_eq!((second, end), (vec![later["id"].clone()], Value::Null));
    app.get(org.agent(), &format!("{path}?status=done"))
        .await
        .expect(400);
    let one = app
        .get(
            org.agent(),
            &format!("{path}/{}", now["id"].as_str().unwrap()),
        )
        .await
        .expect(200);
    assert_eq!(one["message_data"], json!({ "text": "x" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_functions_queue_a_notification_and_work_the_queue_off() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let key = service_key(&app);
    let call = async |token: &str, function: &str, body: Value| -> Answer {
        app.post(token, &format!("/functions/v1/{function}"), &body)
            .await
    };
    let body = json!({ "type": "sms", "recipient_phone": CUSTOMER, "template_id": TRIAL_WELCOME, "priority": 2,
        "variables": { "customer_name": "سارة", "trial_days": 14, "app_url": "https://myfleet.app" } });
    call(org.agent(), "send-notification", body.clone())
        .await
        .expect(403);
    for token in [key.as_str(), org.owner()] {
        let queued = call(token, "send-notification", body.clone())
            .await
            .expect(200);
        assert_eq!(
            (&queued["success"], &queued["status"]),
            (&json!(true), &json!("pending"))
        );
        let id = queued["notification_id"].as_str().unwrap().parse().unwrap();
        let done = wait_row_status(&app, id, "completed").await;
        assert_eq!(done["priority"], 2);
        let message = done["whatsapp_message_id"].as_str().unwrap();
        let message = app.wait_status(org.owner(), message, "delivered").await;
        assert_eq!(message["body"], WELCOME_TEXT);
    }
    for (body, words) in [
        (json!({ "type": "fax" }), "notification_type: "),
        (
            json!({ "type": "sms", "message": "x" }),
            "recipient_phone: ",
        ),
        (
            json!({ "type": "sms", "recipient_phone": CUSTOMER }),
            "message: ",
        ),
        (
            json!({ "type": "sms", "recipient_phone": CUSTOMER, "template_id": "x" }),
            "template_id: ",
        ),
    ] {
        let refused = call(&key, "send-notification", body.clone())
            .await
            .expect(400);
        assert_eq!(refused["success"], false);
        let said = refused["error"].as_str().unwrap();
        assert!(said.starts_with(words), "{body}: {said}");
    }
    call(org.owner(), "process-queue", json!({}))
        .await
        .expect(403);
    call(&key, "process-queue", json!({ "limit": 0 }))
        .await
        .expect(400);
    // Nobody hears of these, so that the call finds them: a paused processor, or one that sleeps.
    psql(
        &app,
        &format!(
            "SET ROLE service_role; SET wasel.importing = 'on';
             INSERT INTO notification_queue (org_id, notification_type, recipient_phone, message_data)
             SELECT '{}', 'sms', CASE n WHEN 7 THEN 'hello' ELSE '{CUSTOMER}' END, '{{\"message\": \"x\"}}' FROM generate_series(1, 20) n",
            org.id
        ),
    );
    let done = call(&key, "process-queue", json!({ "limit": 1000 }))
        .await
        .expect(200);
    assert_eq!(done["success"], true);
    let worked = done["processed"].as_u64().unwrap() + done["failed"].as_u64().unwrap();
    assert!(worked <= 20, "{done}");
    app.wait_count(
        "SELECT count(*) FROM notification_queue WHERE status = 'completed'",
        21,
    )
    .await;
    app.wait_count(
        "SELECT count(*) FROM notification_queue WHERE status = 'failed'",
        1,
    )
    .await;
    // Without a body, as a scheduler may call it.
    let request = app
        .request(reqwest::Method::POST, "/functions/v1/process-queue")
        .bearer_auth(&key);
    let idle = Answer::of(request).await.expect(200);
    assert_eq!(
        idle,
        json!({ "success": true, "processed": 0, "failed": 0, "put_off": 0 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_the_queue_costs_the_same_however_many_rows_wait() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    // Every row waits for tomorrow, most of them before the one that is due by priority.
    psql(
        &app,
        &format!(
            "INSERT INTO notification_queue (org_id, notification_type, priority, scheduled_for)
             SELECT '{}', 'sms', 1 + n % 9, now() + interval '1 day' FROM generate_series(1, 50000) n",
            org.id
        ),
    );
    // The processor finds the tenant taken, as if another node were at work on it.
    let mut other_node = app.db.connect().await;
    sqlx::query("SELECT pg_advisory_lock(hashtextextended('wasel_queue ' || $1::text, 0))")
        .bind(org.id)
        .execute(&mut other_node)
        .await
        .unwrap();
    let look = async || -> (usize, i64) {
        let mut tx = app.state().db.system().await.unwrap();
        let due = notification_queue::list_due(&mut tx, None, Uuid::nil(), 8, 64)
            .await
            .unwrap();
        let read: i64 = sqlx::query_scalar(
            "SELECT sum(pg_stat_get_xact_tuples_returned(r) + pg_stat_get_xact_tuples_fetched(r))::bigint
             FROM unnest(ARRAY['notification_queue', 'notification_queue_next', 'notification_queue_due']::regclass[]) r",
        )
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        (due.len(), read)
    };
    let (due, read) = look().await;
    assert_eq!(due, 0);
    assert!(read < 200, "{read} rows and index entries were read");
    psql(
        &app,
        "SET ROLE service_role; SET wasel.importing = 'on';
         UPDATE notification_queue SET scheduled_for = now() - interval '1 hour' WHERE priority = 5",
    );
    let (due, read) = look().await;
    assert_eq!(due, 8, "one tenant's share");
    assert!(read < 400, "{read} rows and index entries were read");
    psql(&app, "DELETE FROM notification_queue WHERE priority = 5");
    drop(other_node);
    let id = insert(
        &app,
        &org,
        "notification_type, recipient_phone, message_data, priority",
        &format!("'sms', '{CUSTOMER}', '{{\"message\": \"x\"}}', 10"),
    );
    wait_row_status(&app, id, "completed").await;
}
