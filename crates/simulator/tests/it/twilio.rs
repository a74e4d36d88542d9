use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use serde_json::{Value, json};
use wasel_simulator::{Content, CustomerMedia, CustomerSend, Origin, Tick, WorldError};

use crate::{
    receiver::Hook,
    support::{ACCOUNT, AUTH, CONTENT, CUSTOMER, SERVICE, SMS, Stage, WHATSAPP, answer},
};

const CUSTOMER_ON_WHATSAPP: &str = "whatsapp:+201001234567";

/// Computes the signature from the contract's text, apart from the simulator's own code.
fn assert_signed_by_twilio(hook: &Hook, url: &str) {
    let mut form = hook.form();
    form.sort();
    form.dedup();
    let text = form
        .iter()
        .fold(url.to_owned(), |text, (k, v)| format!("{text}{k}{v}"));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, AUTH.as_bytes());
    let tag = STANDARD
        .decode(hook.header("x-twilio-signature"))
        .expect("base64");
    hmac::verify(&key, text.as_bytes(), &tag).expect("the signature fits");
}

fn statuses(hooks: &[Hook]) -> Vec<String> {
    hooks
        .iter()
        .filter_map(|h| h.field("MessageStatus"))
        .collect()
}

fn is_status(hook: &Hook) -> bool {
    hook.field("MessageStatus").is_some()
}

fn write(stage: &Stage, line: &str, body: &str) -> String {
    stage
        .world
        .send_as_customer(CustomerSend::text(line, CUSTOMER, body))
        .expect("customer writes")
}

fn sid(answer: &(u16, Value)) -> String {
    assert_eq!(answer.0, 201, "{}", answer.1);
    answer.1["sid"].as_str().expect("sid").to_owned()
}

#[tokio::test]
async fn an_sms_is_created_queued_and_its_callbacks_stop_at_delivered() {
    let stage = Stage::new().await;
    let callback = format!("{}?attempt=7", stage.receiver.url);
    let created = stage
        .twilio(&[
            ("To", CUSTOMER),
            ("From", SMS),
            ("Body", "مرحبا"),
            ("StatusCallback", &callback),
        ])
        .await;
    let id = sid(&created);
    let body = &created.1;
    assert!(id.starts_with("SM") && id.len() == 34);
    assert_eq!(body["status"], "queued");
    assert_eq!(body["num_segments"], "1");
    assert_eq!(body["num_media"], "0");
    assert_eq!(body["direction"], "outbound-api");
    assert_eq!(
        (&body["price"], &body["date_sent"]),
        (&Value::Null, &Value::Null)
    );
    let date = body["date_created"].as_str().expect("date");
    assert!(date.ends_with("+0000") && date.contains(", "), "{date}");

    let hooks = stage.receiver.wait(3).await;
    assert_eq!(statuses(&hooks), ["sending", "sent", "delivered"]);
    for hook in &hooks {
        assert_eq!(hook.query.as_deref(), Some("attempt=7"));
        assert_signed_by_twilio(hook, &callback);
        assert_eq!(hook.field("MessageSid").as_deref(), Some(id.as_str()));
    }
    assert_eq!(
        stage.world.mark_read(SMS, CUSTOMER),
        0,
        "an SMS is never read"
    );
    assert_eq!(stage.world.accepted_with(&callback).len(), 1);
    let path = created.1["uri"].as_str().expect("uri").to_owned();
    let (_, fetched) = stage.twilio_get(&path).await;
    assert_eq!(fetched["status"], "delivered");
    assert!(fetched["date_sent"].is_string());
}

#[tokio::test]
async fn whatsapp_outside_the_window_ends_undelivered_with_63016_and_inside_it_is_read() {
    let stage = Stage::new().await;
    let url = stage.receiver.url.clone();
    let free = [
        ("To", CUSTOMER_ON_WHATSAPP),
        ("From", WHATSAPP),
        ("Body", "hi"),
        ("StatusCallback", &*url),
    ];
    sid(&stage.twilio(&free).await);
    let hooks = stage
        .receiver
        .wait_for(1, |h| h.field("ErrorCode").is_some())
        .await;
    assert_eq!(hooks[0].field("ErrorCode").as_deref(), Some("63016"));
    assert_eq!(
        hooks[0].field("MessageStatus").as_deref(),
        Some("undelivered")
    );

    let template = [
        ("To", CUSTOMER_ON_WHATSAPP),
        ("From", WHATSAPP),
        ("ContentSid", CONTENT),
        ("ContentVariables", r#"{"1":"Mona"}"#),
    ];
    let template = stage.twilio(&template).await;
    assert_eq!(template.1["body"], "Hi Mona");
    stage
        .wait_message(&sid(&template), |m| m.tick == Tick::Delivered)
        .await;

    write(&stage, WHATSAPP, "hello");
    let id = sid(&stage.twilio(&free).await);
    stage.wait_message(&id, |m| m.tick == Tick::Delivered).await;
    assert!(stage.world.mark_read(WHATSAPP, CUSTOMER) >= 1);
    let read = stage
        .receiver
        .wait_for(1, |h| h.field("MessageStatus").as_deref() == Some("read"))
        .await;
    assert_eq!(read[0].field("EventType").as_deref(), Some("READ"));
}

#[tokio::test]
async fn bad_requests_are_refused_with_twilios_codes() {
    let stage = Stage::new().await;
    let long = "x".repeat(1_601);
    let ok = [("To", CUSTOMER), ("From", SMS), ("Body", "x")];
    // Each case changes one thing of a good request; an empty value takes the field away.
    let cases: [(&[(&str, &str)], u64); 14] = [
        (&[("To", "")], 21_604),
        (&[("To", "01001234567")], 21_211),
        (&[("From", "")], 21_603),
        (&[("From", "+14155559999")], 21_606),
        (&[("From", WHATSAPP)], 21_910),
        (
            &[
                ("To", CUSTOMER_ON_WHATSAPP),
                ("From", "whatsapp:+14155559999"),
            ],
            63_007,
        ),
        (&[("Body", "")], 21_602),
        (&[("Body", &long)], 21_617),
        (&[("MediaUrl", "ftp://x.test/a")], 21_620),
        (&[("StatusCallback", "http://my_host.test/")], 21_609),
        (&[("ContentSid", "HX0")], 21_655),
        (
            &[("ContentSid", CONTENT), ("ContentVariables", "[1]")],
            21_656,
        ),
        (&[("ScheduleType", "fixed")], 35_118),
        (
            &[("ScheduleType", "fixed"), ("MessagingServiceSid", SERVICE)],
            35_111,
        ),
    ];
    for (changes, expected) in cases {
        let mut form = ok.to_vec();
        form.retain(|(key, _)| !changes.iter().any(|(changed, _)| changed == key));
        form.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        let (status, body) = stage.twilio(&form).await;
        assert_eq!(
            (status, &body["code"]),
            (400, &json!(expected)),
            "{changes:?} {body}"
        );
        assert_eq!(body["status"], 400);
        assert!(body["message"].is_string() && body["more_info"].is_string());
    }
    let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
    let request = stage
        .http
        .post(stage.url(&path))
        .basic_auth(ACCOUNT, Some("wrong"));
    let (status, body) = answer(request.form(&ok)).await;
    assert_eq!((status, &body["code"]), (401, &json!(20_003)));
    assert!(stage.world.accepted().is_empty());
}

#[tokio::test]
async fn stop_blocks_the_pair_until_start_and_still_reaches_the_webhook() {
    let stage = Stage::new().await;
    write(&stage, SMS, " Stop ");
    let hook = stage.receiver.wait(1).await.remove(0);
    assert_signed_by_twilio(&hook, &stage.receiver.url);
    assert_eq!(hook.field("Body").as_deref(), Some(" Stop "));
    assert_eq!(hook.field("SmsStatus").as_deref(), Some("received"));
    let send = [("To", CUSTOMER), ("From", SMS), ("Body", "x")];
    let blocked = stage.twilio(&send).await;
    assert_eq!((blocked.0, &blocked.1["code"]), (400, &json!(21_610)));
    let by_service = [
        ("To", CUSTOMER),
        ("MessagingServiceSid", SERVICE),
        ("Body", "x"),
    ];
    assert_eq!(stage.twilio(&by_service).await.1["code"], 21_610);
    let replies = stage.world.thread(SMS, CUSTOMER, 10);
    assert!(
        replies.iter().any(|m| m.origin == Origin::Reply),
        "Twilio answers STOP itself"
    );
    write(&stage, SMS, "START");
    sid(&stage.twilio(&send).await);
}

#[tokio::test]
async fn incoming_media_redirects_to_a_storage_that_takes_no_credentials() {
    let stage = Stage::new().await;
    let mut send = CustomerSend::new(WHATSAPP, CUSTOMER, Content::Image(CustomerMedia::default()));
    send.profile_name = Some("Mona".to_owned());
    stage.world.send_as_customer(send).expect("customer writes");
    let hook = stage.receiver.wait(1).await.remove(0);
    // The fragment of the configured address is neither sent nor signed.
    assert_signed_by_twilio(&hook, &format!("{}?a=1", stage.receiver.url));
    assert_eq!(hook.field("NumMedia").as_deref(), Some("1"));
    assert_eq!(
        hook.field("MediaContentType0").as_deref(),
        Some("image/png")
    );
    assert_eq!(hook.field("From").as_deref(), Some(CUSTOMER_ON_WHATSAPP));
    assert_eq!(hook.field("WaId").as_deref(), Some("201001234567"));
    assert_eq!(hook.field("ProfileName").as_deref(), Some("Mona"));

    let url = hook.field("MediaUrl0").expect("url");
    let bare = stage.http.get(&url).send().await.expect("answer");
    assert_eq!(bare.status(), 401);
    let first = stage
        .http
        .get(&url)
        .basic_auth(ACCOUNT, Some(AUTH))
        .send()
        .await
        .expect("answer");
    assert_eq!(first.status(), 307);
    let target = first.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let leaked = stage
        .http
        .get(&target)
        .basic_auth(ACCOUNT, Some(AUTH))
        .send()
        .await
        .expect("answer");
    assert_eq!(leaked.status(), 400);
    let got = stage.http.get(&target).send().await.expect("answer");
    assert!(got.bytes().await.expect("bytes").starts_with(b"\x89PNG"));

    let sid = hook.field("MessageSid").expect("sid");
    let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}/Media.json");
    let (_, list) = stage.twilio_get(&path).await;
    assert_eq!(list["media_list"][0]["content_type"], "image/png");
    let refused =
        stage
            .world
            .send_as_customer(CustomerSend::new(SMS, CUSTOMER, Content::Unsupported));
    assert!(matches!(refused, Err(WorldError::NotPossible(_))));
}

#[tokio::test]
async fn plain_text_answers_go_to_the_customer_and_json_is_logged_as_12300() {
    let stage = Stage::new().await;
    stage.receiver.will_answer([
        (200, "text/plain", "OK"),
        (200, "text/xml", "<Response/>"),
        (200, "application/json", "{}"),
        (
            200,
            "text/xml",
            "<Response><Message>Hi</Message></Response>",
        ),
    ]);
    for n in 0..4 {
        write(&stage, SMS, "hello");
        stage.receiver.wait(n + 1).await;
    }
    let replies = stage
        .wait_until(|| {
            let thread = stage.world.thread(SMS, CUSTOMER, 20);
            let replies: Vec<_> = thread
                .into_iter()
                .filter(|m| m.origin == Origin::Reply)
                .collect();
            (replies.len() == 2).then_some(replies)
        })
        .await;
    let texts: Vec<_> = replies.iter().filter_map(|m| m.text.as_deref()).collect();
    assert_eq!(texts, ["OK", "Hi"]);
    let alerts = stage
        .wait_until(|| Some(stage.world.alerts()).filter(|all| !all.is_empty()))
        .await;
    let codes: Vec<_> = alerts.iter().map(|a| a.code).collect();
    assert_eq!(codes, [12_300]);
    assert!(
        stage.world.accepted().is_empty(),
        "no API request made these"
    );
}

#[tokio::test]
async fn twilio_retries_only_where_the_address_asks_for_it() {
    let stage = Stage::new().await;
    stage.receiver.will_answer([(500, "", ""), (500, "", "")]);
    write(&stage, SMS, "lost");
    stage
        .wait_until(|| (stage.world.alerts().len() == 1).then_some(()))
        .await;
    assert_eq!(stage.receiver.hooks().len(), 1);
    write(&stage, WHATSAPP, "kept");
    let hooks = stage.receiver.wait(3).await;
    assert_eq!(hooks[1].body, hooks[2].body);
}

#[tokio::test]
async fn messages_are_listed_by_pages_redacted_deleted_and_canceled() {
    let stage = Stage::new().await;
    for n in 0..5 {
        let body = n.to_string();
        let id = sid(&stage
            .twilio(&[("To", CUSTOMER), ("From", SMS), ("Body", &body)])
            .await);
        stage.wait_message(&id, |m| m.tick == Tick::Delivered).await;
    }
    sid(&stage
        .twilio(&[("To", "+201009999999"), ("From", SMS), ("Body", "other")])
        .await);
    let mut path = Some(format!(
        "/2010-04-01/Accounts/{ACCOUNT}/Messages.json?To=%2B201001234567&PageSize=2&DateSent%3E=2020-01-01"
    ));
    let mut bodies = Vec::new();
    let mut last = String::new();
    while let Some(next) = path {
        let (status, page) = stage.twilio_get(&next).await;
        assert_eq!(status, 200, "{page}");
        for message in page["messages"].as_array().expect("messages") {
            bodies.push(message["body"].as_str().expect("body").to_owned());
            last = message["uri"].as_str().expect("uri").to_owned();
        }
        path = page["next_page_uri"].as_str().map(str::to_owned);
    }
    assert_eq!(bodies, ["4", "3", "2", "1", "0"]);

    let post = async |path: &str, form: &[(&str, &str)]| {
        let request = stage
            .http
            .post(stage.url(path))
            .basic_auth(ACCOUNT, Some(AUTH));
        answer(request.form(form)).await
    };
    assert_eq!(post(&last, &[("Body", "")]).await.1["body"], "");
    let cancel = [("Status", "canceled")];
    assert_eq!(post(&last, &cancel).await.0, 409, "it went out long ago");
    let delete = stage
        .http
        .delete(stage.url(&last))
        .basic_auth(ACCOUNT, Some(AUTH));
    assert_eq!(answer(delete).await.0, 204);
    assert_eq!(stage.twilio_get(&last).await.1["code"], 20_404);

    let in_an_hour = (stage.world.now() + Duration::from_secs(3_600)).to_rfc3339();
    let scheduled = [
        ("To", CUSTOMER),
        ("MessagingServiceSid", SERVICE),
        ("Body", "later"),
        ("ScheduleType", "fixed"),
        ("SendAt", &*in_an_hour),
    ];
    let first = stage.twilio(&scheduled).await;
    let second = sid(&stage.twilio(&scheduled).await);
    assert_eq!(
        (&first.1["status"], &first.1["from"]),
        (&json!("scheduled"), &Value::Null)
    );
    assert_eq!(first.1["num_segments"], "0");
    let path = first.1["uri"].as_str().expect("uri");
    assert_eq!(post(path, &cancel).await.1["status"], "canceled");
    stage.world.advance(Duration::from_secs(3_601));
    stage
        .wait_message(&second, |m| m.tick == Tick::Delivered)
        .await;
    let canceled = stage.world.message(&sid(&first)).map(|m| m.tick);
    assert_eq!(canceled, Some(Tick::Canceled));
}

#[tokio::test]
async fn through_a_service_the_first_status_is_accepted_and_queued_comes_by_callback() {
    let stage = Stage::new().await;
    let url = stage.receiver.url.clone();
    let form = [
        ("To", CUSTOMER),
        ("MessagingServiceSid", SERVICE),
        ("Body", "x"),
        ("StatusCallback", &*url),
    ];
    let created = stage.twilio(&form).await;
    assert_eq!(
        (&created.1["status"], &created.1["from"]),
        (&json!("accepted"), &Value::Null)
    );
    let hooks = stage.receiver.wait_for(4, is_status).await;
    assert_eq!(statuses(&hooks), ["queued", "sending", "sent", "delivered"]);
    assert_eq!(hooks[0].field("From").as_deref(), Some(SMS));
    assert_eq!(
        hooks[0].field("MessagingServiceSid").as_deref(),
        Some(SERVICE)
    );
}
