//! E-mail through the whole server: out over SMTP, in by webhook, threads, bounces, files, and what goes wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use wasel_simulator::{CustomerEmail, EmailAttachment, EmailBounce, MailFaults, ReceivedEmail};
use wasel_testkit::{Answer, Mailbox, Org, TestApp, wait_until};

const SARA: &str = "sara@customer.example";

async fn ready() -> (TestApp, Org, Mailbox) {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let mailbox = org.mailbox(&app).await;
    (app, org, mailbox)
}

async fn send(app: &TestApp, org: &Org, mailbox: &Mailbox, content: Value) -> Answer {
    let request =
        json!({ "channel_id": mailbox.channel, "to": "Sara@Customer.Example", "content": content });
    app.post(org.owner(), "/v1/messages", &request).await
}

fn email(subject: &str) -> Value {
    json!({ "type": "email", "subject": subject, "text": "موعدك غداً الساعة ٩", "html": "<p>موعدك <b>غداً</b></p>" })
}

fn id_of(message: &Value) -> &str {
    message["id"].as_str().unwrap()
}

/// What the mail server took, once it is so many.
async fn emails(app: &TestApp, count: usize) -> Vec<ReceivedEmail> {
    wait_until(&format!("{count} e-mails"), async || {
        let emails = app.world().emails();
        (emails.len() == count).then_some(emails)
    })
    .await
}

/// Posts raw mail as whoever knows `secret`.
async fn post(app: &TestApp, path: &str, secret: &str, raw: &[u8]) -> Answer {
    let seconds = chrono::Utc::now().timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, &[format!("{seconds}.").as_bytes(), raw].concat());
    let request = app
        .request(Method::POST, path)
        .header("content-type", "message/rfc822")
        .header(
            "x-wasel-signature",
            format!("t={seconds},v1={}", hex::encode(tag)),
        );
    Answer::of(request.body(raw.to_vec())).await
}

fn mail_to(address: &str, id: &str) -> Vec<u8> {
    format!("From: Sara <{SARA}>\r\nTo: {address}\r\nSubject: Question\r\nMessage-ID: <{id}>\r\n\r\nIs it open?\r\n")
        .into_bytes()
}

#[tokio::test]
async fn a_mail_goes_out_comes_back_into_one_conversation_and_its_bounce_marks_it_failed() {
    let (app, org, mailbox) = ready().await;
    let sent = send(&app, &org, &mailbox, email("موعدك القادم"))
        .await
        .expect(202);
    let message = app.wait_status(org.owner(), id_of(&sent), "sent").await;
    assert!(message["sent_at"].is_string());
    let out = emails(&app, 1).await.remove(0);
    assert_eq!(out.recipients, [SARA]);
    assert_eq!(out.subject, "موعدك القادم");
    assert_eq!(
        out.text.as_deref().map(str::trim),
        Some("موعدك غداً الساعة ٩")
    );
    assert!(out.html.unwrap().contains("<b>غداً</b>"));
    assert_eq!(json!(out.message_id), message["provider_message_id"]);

    // She answers from another address of hers, with a file. A mail's Date counts whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let file = b"%PDF-1.4 a bill".to_vec();
    app.world()
        .send_email(CustomerEmail {
            in_reply_to: Some(out.message_id.clone()),
            from: "sara@home.example".to_owned(),
            name: "Sara Ali".to_owned(),
            text: "شكراً، الفاتورة مرفقة".to_owned(),
            attachments: vec![EmailAttachment {
                filename: "فاتورة.pdf".to_owned(),
                mime_type: "application/pdf".to_owned(),
                base64: STANDARD.encode(&file),
            }],
            ..CustomerEmail::default()
        })
        .unwrap();
    app.wait_count("SELECT count(*) FROM media WHERE status = 'stored'", 1)
        .await;
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["unread_count"], 1);
    let thread = org.thread(&app, &conversation).await;
    assert_eq!(thread.len(), 2);
    let answer = &thread[0];
    assert_eq!(answer["direction"], "inbound");
    assert_eq!(
        answer["body"], "شكراً، الفاتورة مرفقة",
        "without what it quotes"
    );
    assert_eq!(answer["address"], "sara@home.example");
    assert_eq!(answer["quoted_message_id"], json!(out.message_id));
    assert_eq!(answer["media"][0]["filename"], "فاتورة.pdf");
    let fetched = app
        .request(Method::GET, answer["media"][0]["url"].as_str().unwrap())
        .bearer_auth(org.owner())
        .send()
        .await
        .unwrap();
    assert_eq!(fetched.status(), 200);
    assert_eq!(fetched.bytes().await.unwrap(), file);

    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    // The agent answers in the conversation: it continues the thread under its subject.
    let reply = json!({ "conversation_id": conversation["id"], "content": { "type": "text", "body": "وصلت" } });
    let reply = app
        .post(org.agent(), "/v1/messages", &reply)
        .await
        .expect(202);
    app.wait_status(org.owner(), id_of(&reply), "sent").await;
    let second = emails(&app, 2).await.remove(1);
    assert_eq!(second.recipients, [SARA]);
    assert!(
        second.subject.contains("موعدك القادم"),
        "{}",
        second.subject
    );
    assert_eq!(json!(second.in_reply_to), answer["provider_message_id"]);
    assert_eq!(second.references.first(), Some(&out.message_id));

    // The mailbox turns out not to exist: a delivery report, thrice.
    for _ in 0..3 {
        app.world()
            .bounce_email(&EmailBounce::of(second.message_id.clone()))
            .unwrap();
    }
    let failed = app.wait_status(org.owner(), id_of(&reply), "failed").await;
    assert_eq!(failed["error_code"], "5.1.1");
    app.wait_count("SELECT count(*) FROM notifications", 1)
        .await;
    app.wait_count(
        "SELECT count(*) FROM webhook_events WHERE kind = 'email'",
        4,
    )
    .await;
    assert_eq!(app.count("SELECT count(*) FROM notifications").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM conversations").await, 1);
    let log = app
        .count("SELECT count(*) FROM message_logs WHERE message_type = 'email' AND recipient = 'sara@customer.example'")
        .await;
    assert_eq!(log, 2);
}

#[tokio::test]
async fn a_strangers_mail_opens_a_conversation_and_a_second_delivery_changes_nothing() {
    let (app, org, mailbox) = ready().await;
    let raw = mail_to(&mailbox.address, "q1@customer.example");
    for path in [
        "/api/webhooks/email".to_owned(),
        format!("/api/webhooks/email/{}", mailbox.channel),
    ] {
        let answer = post(&app, &path, &mailbox.secret, &raw).await.expect(200);
        assert_eq!(answer["success"], true);
    }
    let conversation = org.conversation(&app).await;
    assert_eq!(conversation["customer_name"], "Sara");
    assert_eq!(conversation["unread_count"], 1);
    let thread = org.thread(&app, &conversation).await;
    assert_eq!(thread.len(), 1);
    assert_eq!(thread[0]["body"], "Is it open?");
    assert_eq!(thread[0]["content"]["subject"], "Question");
    let contacts = app.get(org.owner(), "/v1/contacts").await.expect(200);
    assert_eq!(contacts["data"][0]["email"], SARA);
}

#[tokio::test]
async fn a_tenant_cannot_post_into_anothers_mailbox_and_nothing_unsigned_is_stored() {
    let (app, a, mailbox) = ready().await;
    let b = app.org("b").await;
    let others = b.mailbox(&app).await;
    let raw = mail_to(&mailbox.address, "q1@customer.example");
    let own = format!("/api/webhooks/email/{}", mailbox.channel);
    for path in ["/api/webhooks/email", own.as_str()] {
        for secret in ["", "wrong", others.secret.as_str()] {
            let refused = post(&app, path, secret, &raw).await.expect(401);
            assert_eq!(refused["success"], false, "{path}");
        }
        let bare = app.request(Method::POST, path).body(raw.clone());
        Answer::of(bare).await.expect(401);
    }
    assert_eq!(app.count("SELECT count(*) FROM webhook_events").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 0);
    // B's secret on B's address, with A's address in it: it stays B's, as a dead letter.
    let path = format!("/api/webhooks/email/{}", others.channel);
    post(&app, &path, &others.secret, &raw).await.expect(200);
    let events: Vec<(uuid::Uuid, String)> =
        sqlx::query_as("SELECT org_id, outcome FROM webhook_events")
            .fetch_all(&app.owner)
            .await
            .unwrap();
    assert_eq!(events, [(b.id, "dead_letter".to_owned())], "not {}", a.id);
    assert_eq!(app.count("SELECT count(*) FROM messages").await, 0);
}

#[tokio::test]
async fn a_mail_that_is_too_large_or_for_nobody_is_answered_so() {
    let app = TestApp::builder()
        .configure(|config| config.limits.email_body = 200_000)
        .start()
        .await;
    let org = app.org("a").await;
    let mailbox = org.mailbox(&app).await;
    let mut raw = mail_to(&mailbox.address, "q1@customer.example");
    raw.resize(300_000, b'x');
    let refused = post(&app, "/api/webhooks/email", &mailbox.secret, &raw)
        .await
        .expect(413);
    assert_eq!(refused["success"], false);
    let nobody = mail_to("nobody@elsewhere.example", "q2@customer.example");
    post(&app, "/api/webhooks/email", &mailbox.secret, &nobody)
        .await
        .expect(200);
    let reason: String =
        sqlx::query_scalar("SELECT reason FROM webhook_events WHERE outcome = 'dead_letter'")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    assert!(reason.contains("no channel for"), "{reason}");
}

#[tokio::test]
async fn a_busy_mail_server_is_asked_again_and_an_unclear_end_follows_the_policy() {
    let (app, org, mailbox) = ready().await;
    app.world().set_mail_faults(MailFaults {
        drop_before_reply: 1,
        ..MailFaults::default()
    });
    let sent = send(&app, &org, &mailbox, email("once or twice"))
        .await
        .expect(202);
    let message = app.wait_status(org.owner(), id_of(&sent), "sent").await;
    let copies = emails(&app, 2).await;
    assert_eq!(
        copies[0].message_id, copies[1].message_id,
        "a mail server can tell that it is one"
    );
    assert_ne!(copies[0].attempt_id, copies[1].attempt_id);
    assert_eq!(json!(copies[0].message_id), message["provider_message_id"]);
    // The bounce of either copy is about the message as it stands.
    app.world()
        .bounce_email(&EmailBounce::of(copies[0].message_id.clone()))
        .unwrap();
    app.wait_status(org.owner(), id_of(&sent), "failed").await;

    app.world().set_mail_faults(MailFaults {
        drop_before_reply: 1,
        ..MailFaults::default()
    });
    let request = json!({ "channel_id": mailbox.channel, "to": SARA, "content": email("never twice"),
        "delivery_policy": "at_most_once" });
    let sent = app
        .post(org.owner(), "/v1/messages", &request)
        .await
        .expect(202);
    app.wait_message(org.owner(), id_of(&sent), |m| {
        m["error_code"] == "unknown_outcome"
    })
    .await;
    assert_eq!(app.world().emails().len(), 3);

    app.world().set_mail_faults(MailFaults {
        reject_recipient: 1,
        ..MailFaults::default()
    });
    let sent = send(&app, &org, &mailbox, email("refused"))
        .await
        .expect(202);
    let failed = app.wait_status(org.owner(), id_of(&sent), "failed").await;
    assert!(
        failed["error_message"]
            .as_str()
            .unwrap()
            .contains("cannot be reached"),
        "{failed:#}"
    );
    assert!(
        !failed["error_message"].as_str().unwrap().contains(SARA),
        "{failed:#}"
    );
}

#[tokio::test]
async fn a_refused_login_blocks_the_channel_and_keeps_its_queue() {
    let (app, org, mailbox) = ready().await;
    app.world().set_mail_faults(MailFaults {
        refuse_login: 1,
        ..MailFaults::default()
    });
    let sent = send(&app, &org, &mailbox, email("waits")).await.expect(202);
    app.wait_count(
        "SELECT count(*) FROM channels WHERE kind = 'email' AND status = 'blocked'",
        1,
    )
    .await;
    assert_eq!(app.world().emails().len(), 0);
    let path = format!("/v1/channels/{}", mailbox.channel);
    app.patch(org.owner(), &path, &json!({ "status": "active" }))
        .await
        .expect(200);
    app.wait_status(org.owner(), id_of(&sent), "sent").await;
    emails(&app, 1).await;
}

#[tokio::test]
async fn what_no_mail_can_carry_is_refused_by_the_name_of_its_field() {
    let (app, org, mailbox) = ready().await;
    for (content, field) in [
        (
            json!({ "type": "email", "subject": "a\r\nBcc: x@y.example", "text": "x" }),
            "content.subject",
        ),
        (json!({ "type": "email", "subject": "a" }), "content.text"),
        (
            json!({ "type": "reaction", "message_id": "x", "emoji": "👍" }),
            "content.type",
        ),
    ] {
        let refused = send(&app, &org, &mailbox, content.clone())
            .await
            .expect(400);
        assert_eq!(refused["error"]["field"], field, "{content}: {refused:#}");
    }
    for (channel, to) in [
        (mailbox.channel, "01012345678"),
        (mailbox.channel, "sara@"),
        (org.sms, SARA),
    ] {
        let refused = org.send(&app, channel, to, "x").await.expect(400);
        assert_eq!(refused["error"]["field"], "to", "{to}");
    }
    let content = json!({ "type": "email", "subject": "a", "text": "b" });
    let request = json!({ "channel_id": org.sms, "to": "+201012345678", "content": content });
    let refused = app
        .post(org.owner(), "/v1/messages", &request)
        .await
        .expect(400);
    assert!(
        refused["error"]["field"].as_str().unwrap().contains("type"),
        "{refused:#}"
    );
}

#[tokio::test]
async fn a_template_with_subject_and_html_goes_by_mail_as_both_parts() {
    let (app, org, _) = ready().await;
    let template = json!({ "name": "bill", "message_template": "فاتورة {{name}}", "email_subject": "فاتورة رقم {{number}}",
        "email_html": "<p>فاتورة <b>{{name}}</b></p>" });
    let template = app
        .post(org.owner(), "/v1/templates", &template)
        .await
        .expect(201);
    let answer = app
        .post(
            org.owner(),
            "/functions/v1/send-unified-notification",
            &json!({ "channels": ["sms", "email"], "recipient_phone": "01012345678", "recipient_email": SARA,
                "template_id": template["id"], "variables": { "name": "<Sara>", "number": 17 } }),
        )
        .await
        .expect(200);
    let results = answer["results"].as_array().unwrap();
    assert!(
        results.iter().all(|result| result["success"] == true),
        "{answer:#}"
    );
    let out = emails(&app, 1).await.remove(0);
    assert_eq!(out.subject, "فاتورة رقم 17");
    assert_eq!(out.text.as_deref().map(str::trim), Some("فاتورة <Sara>"));
    assert!(out.html.unwrap().contains("<b>&lt;Sara&gt;</b>"));
    assert_eq!(out.from_name.as_deref(), Some("Shop of a"));
}

#[tokio::test]
async fn a_stranger_in_the_thread_does_not_decide_for_the_customer() {
    let (app, org, mailbox) = ready().await;
    let sent = send(&app, &org, &mailbox, email("For Sara"))
        .await
        .expect(202);
    app.wait_status(org.owner(), id_of(&sent), "sent").await;
    let out = emails(&app, 1).await.remove(0);
    let answer = |from: &str| CustomerEmail {
        in_reply_to: Some(out.message_id.clone()),
        from: from.to_owned(),
        text: "STOP".to_owned(),
        ..CustomerEmail::default()
    };
    app.world()
        .send_email(answer("mallory@elsewhere.example"))
        .unwrap();
    app.wait_count(
        "SELECT count(*) FROM messages WHERE direction = 'inbound'",
        1,
    )
    .await;
    assert_eq!(app.count("SELECT count(*) FROM consents").await, 0);
    app.world().send_email(answer(SARA)).unwrap();
    app.wait_count("SELECT count(*) FROM consents WHERE state = 'opted_out'", 1)
        .await;
    let refused = send(&app, &org, &mailbox, email("more")).await.expect(422);
    assert_eq!(refused["error"]["code"], "opted_out");
}
