use std::time::Duration;

use serde_json::{Value, json};
use wasel_simulator::{BusinessEcho, Content, Customer, CustomerMedia, CustomerSend, Event, Tick};

use crate::support::{
    CUSTOMER, PHONE, Stage, TOKEN, WABA, answer, assert_signed_by_meta, id_of, number, status_of,
    text,
};

fn write(stage: &Stage, body: &str) -> String {
    stage
        .world
        .send_as_customer(CustomerSend::text(PHONE, CUSTOMER, body))
        .expect("customer writes")
}

fn code(answer: &(u16, Value)) -> u64 {
    answer.1["error"]["code"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn a_text_inside_the_window_is_accepted_and_its_ticks_come_back_with_our_reference() {
    let stage = Stage::new().await;
    write(&stage, "hello");
    let (status, answer) = stage.meta(text("hi", "attempt-1")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["contacts"][0]["wa_id"], "201001234567");
    assert_eq!(answer["contacts"][0]["input"], CUSTOMER);
    let id = id_of(&answer);

    let statuses = stage.receiver.wait_for(2, |h| status_of(h).is_some()).await;
    for hook in &statuses {
        assert_signed_by_meta(hook);
        let entry = hook.change()["statuses"][0].clone();
        assert_eq!(entry["id"], *id);
        assert_eq!(entry["biz_opaque_callback_data"], "attempt-1");
        assert_eq!(hook.change()["metadata"]["phone_number_id"], PHONE);
        assert!(entry["timestamp"].is_string());
    }
    let order: Vec<_> = statuses.iter().filter_map(status_of).collect();
    assert_eq!(order, ["sent", "delivered"]);

    assert_eq!(stage.world.mark_read(PHONE, CUSTOMER), 1);
    let read = stage
        .receiver
        .wait_for(1, |h| status_of(h).as_deref() == Some("read"))
        .await;
    assert!(read[0].change()["statuses"][0].get("pricing").is_none());
    assert_eq!(
        stage.world.mark_read(PHONE, CUSTOMER),
        0,
        "ticks go forward only"
    );
    assert_eq!(stage.world.accepted_with("attempt-1").len(), 1);
}

#[tokio::test]
async fn an_arabic_message_arrives_escaped_as_meta_does_and_signed_over_those_bytes() {
    let stage = Stage::new().await;
    write(&stage, "مرحبا/ä🚀");
    let hook = stage.receiver.wait(1).await.remove(0);
    assert_signed_by_meta(&hook);
    let raw = String::from_utf8(hook.body.to_vec()).expect("text");
    assert!(raw.is_ascii() && raw.contains(r"\u0645") && raw.contains(r"\/\u00e4\ud83d\ude80"));
    let change = hook.change();
    assert_eq!(change["messages"][0]["text"]["body"], "مرحبا/ä🚀");
    assert_eq!(change["messages"][0]["from"], "201001234567");
    assert_eq!(change["contacts"][0]["wa_id"], "201001234567");
    assert!(
        change["contacts"][0]["user_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("EG."))
    );
}

#[tokio::test]
async fn outside_the_window_free_text_fails_later_and_a_template_goes_through() {
    let stage = Stage::new().await;
    write(&stage, "hello");
    stage.world.advance(Duration::from_secs(24 * 3_600 + 1));
    let late = stage.meta_text("too late", "r1").await;
    let failed = stage
        .receiver
        .wait_for(1, |h| status_of(h).as_deref() == Some("failed"))
        .await;
    let entry = failed[0].change()["statuses"][0].clone();
    assert_eq!(entry["id"], *late);
    assert_eq!(entry["errors"][0]["code"], 131_047);

    let template = |name: &str, parameters: Value| {
        json!({"messaging_product": "whatsapp", "to": CUSTOMER, "type": "template", "template":
            {"name": name, "language": {"code": "ar"}, "components": [{"type": "body", "parameters": parameters}]}})
    };
    let mona = json!([{"type": "text", "text": "منى"}]);
    let taken = stage.meta(template("order_ready", mona.clone())).await;
    assert_eq!(taken.0, 200, "{}", taken.1);
    let message = stage
        .wait_message(&id_of(&taken.1), |m| m.tick == Tick::Delivered)
        .await;
    assert_eq!(message.text.as_deref(), Some("مرحبا منى"));

    let short = stage.meta(template("order_ready", json!([]))).await;
    assert_eq!((short.0, code(&short)), (400, 132_000));
    assert!(short.1["error"]["error_data"]["details"].is_string());
    let unknown = stage.meta(template("nope", mona)).await;
    assert_eq!((unknown.0, code(&unknown)), (404, 132_001));
    let mut paused = template("offer", json!([]));
    paused["template"]["language"]["code"] = json!("en");
    assert_eq!(code(&stage.meta(paused).await), 132_015);
}

#[tokio::test]
async fn bad_tokens_numbers_and_bodies_are_refused_with_metas_codes() {
    let stage = Stage::new().await;
    let url = stage.url(&format!("/v26.0/{PHONE}/messages"));
    let body = text("x", "r");
    let wrong = answer(stage.http.post(&url).bearer_auth("nope").json(&body)).await;
    assert_eq!((wrong.0, code(&wrong)), (401, 190));
    assert!(wrong.1["error"]["fbtrace_id"].is_string());
    let none = answer(stage.http.post(&url).json(&body)).await;
    assert_eq!((none.0, code(&none)), (401, 190));
    let other = stage.url("/v26.0/999/messages");
    let other = answer(stage.http.post(&other).bearer_auth(TOKEN).json(&body)).await;
    assert_eq!((other.0, code(&other)), (400, 100));
    assert_eq!(other.1["error"]["error_subcode"], 33);

    let change = |key: &str, value: Value| {
        let mut body = text("x", "r");
        body[key] = value;
        body
    };
    for (body, expected) in [
        (change("messaging_product", Value::Null), 100),
        (change("to", Value::Null), 100),
        (change("to", json!("EG.123")), 131_009),
        (change("to", json!("+1 (415) 555-0100")), 131_021),
        (change("text", Value::Null), 131_008),
        (
            change("biz_opaque_callback_data", json!("x".repeat(513))),
            100,
        ),
        (change("type", json!("hologram")), 100),
    ] {
        let got = stage.meta(body.clone()).await;
        assert_eq!(code(&got), expected, "{body}");
    }
    assert!(stage.world.accepted().is_empty());
}

#[tokio::test]
async fn uploaded_media_needs_the_token_and_its_address_lives_five_minutes() {
    let stage = Stage::new().await;
    write(&stage, "hello");
    let upload = async |bytes: Vec<u8>, kind: &str| {
        let part = reqwest::multipart::Part::bytes(bytes)
            .file_name("a.bin")
            .mime_str(kind)
            .expect("mime");
        let form = reqwest::multipart::Form::new()
            .text("messaging_product", "whatsapp")
            .text("type", kind.to_owned())
            .part("file", part);
        let url = stage.url(&format!("/v26.0/{PHONE}/media"));
        answer(stage.http.post(url).bearer_auth(TOKEN).multipart(form)).await
    };
    let lie = upload(b"%PDF-1.4".to_vec(), "image/png").await;
    assert_eq!(code(&lie), 131_053);
    assert_eq!(
        code(&upload(b"x".to_vec(), "application/x-thing").await),
        100
    );
    let big = upload(vec![0; 5 * 1024 * 1024 + 1], "image/jpeg").await;
    assert_eq!(code(&big), 131_053);

    let bytes = b"%PDF-1.4 hello".to_vec();
    let (status, uploaded) = upload(bytes.clone(), "application/pdf").await;
    assert_eq!(status, 200, "{uploaded}");
    let id = uploaded["id"].as_str().expect("id").to_owned();

    let as_document = json!({"messaging_product": "whatsapp", "to": CUSTOMER, "type": "document", "document": {"id": id, "filename": "a.pdf"}});
    assert_eq!(stage.meta(as_document).await.0, 200);
    let as_image = json!({"messaging_product": "whatsapp", "to": CUSTOMER, "type": "image", "image": {"id": id}});
    let as_image = stage.meta(as_image).await;
    let failed = stage
        .wait_message(&id_of(&as_image.1), |m| m.tick == Tick::Failed)
        .await;
    assert_eq!(failed.error_code, Some(131_053));
    let unknown = json!({"messaging_product": "whatsapp", "to": CUSTOMER, "type": "image", "image": {"id": "1"}});
    assert_eq!(code(&stage.meta(unknown).await), 100);

    let path = format!("/v26.0/{id}");
    let (_, described) = stage.meta_get(&path).await;
    assert_eq!(described["mime_type"], "application/pdf");
    assert_eq!(described["file_size"], bytes.len());
    let url = described["url"].as_str().expect("url").to_owned();
    let got = stage
        .http
        .get(&url)
        .bearer_auth(TOKEN)
        .send()
        .await
        .expect("answer");
    assert_eq!(got.bytes().await.expect("bytes"), bytes);
    let bare = stage.http.get(&url).send().await.expect("answer");
    assert_eq!(bare.status(), 401);
    stage.world.advance(Duration::from_secs(301));
    let stale = stage
        .http
        .get(&url)
        .bearer_auth(TOKEN)
        .send()
        .await
        .expect("answer");
    assert_eq!(stale.status(), 404);

    let delete = stage.http.delete(stage.url(&path)).bearer_auth(TOKEN);
    assert_eq!(answer(delete).await.1["success"], true);
    assert_eq!(stage.meta_get(&path).await.0, 400);
}

#[tokio::test]
async fn every_kind_a_customer_can_send_arrives_under_its_own_type() {
    let stage = Stage::new().await;
    let first = write(&stage, "first");
    let media = CustomerMedia::default;
    let kinds = [
        (Content::Image(media()), "image"),
        (Content::Audio(media()), "audio"),
        (Content::Video(media()), "video"),
        (Content::Document(media()), "document"),
        (Content::Sticker(media()), "sticker"),
        (
            Content::Location {
                latitude: 30.0,
                longitude: 31.2,
                name: None,
                address: None,
            },
            "location",
        ),
        (
            Content::Contacts {
                contacts: vec![json!({"vcard": "BEGIN:VCARD"})],
            },
            "contacts",
        ),
        (
            Content::ButtonReply {
                id: "b".into(),
                title: "Yes".into(),
            },
            "interactive",
        ),
        (
            Content::ListReply {
                id: "l".into(),
                title: "One".into(),
                description: None,
            },
            "interactive",
        ),
        (
            Content::FlowReply {
                name: "flow".into(),
                response_json: "[]".into(),
            },
            "interactive",
        ),
        (
            Content::Button {
                payload: "p".into(),
                text: "t".into(),
            },
            "button",
        ),
        (
            Content::Reaction {
                message_id: first.clone(),
                emoji: Some("👍".into()),
            },
            "reaction",
        ),
        (
            Content::Order {
                catalog_id: "c".into(),
                text: String::new(),
                product_items: vec![json!({"product_retailer_id": "1"})],
            },
            "order",
        ),
        (Content::Unsupported, "unsupported"),
        (
            Content::Edit {
                message_id: first.clone(),
                body: "better".into(),
            },
            "edit",
        ),
        (
            Content::NumberChange {
                new_number: "+201112223334".into(),
            },
            "system",
        ),
        (
            Content::Revoke {
                message_id: first.clone(),
            },
            "revoke",
        ),
    ];
    let expected: Vec<&str> = std::iter::once("text")
        .chain(kinds.iter().map(|(_, kind)| *kind))
        .collect();
    for (content, _) in kinds {
        let mut send = CustomerSend::new(PHONE, CUSTOMER, content);
        send.context_id = Some(first.clone());
        stage.world.send_as_customer(send).expect("customer writes");
    }
    let hooks = stage.receiver.wait(expected.len()).await;
    let messages: Vec<Value> = hooks
        .iter()
        .map(|h| h.change()["messages"][0].clone())
        .collect();
    let order: Vec<&str> = messages.iter().filter_map(|m| m["type"].as_str()).collect();
    assert_eq!(order, expected, "one customer's webhooks keep their order");
    for (message, hook) in messages.iter().zip(&hooks) {
        let kind = message["type"].as_str().expect("type");
        assert!(!message[kind].is_null(), "{message}");
        assert_eq!(hook.change().get("contacts").is_none(), kind == "system");
    }
    assert_eq!(messages[1]["context"]["id"], *first);
    assert_eq!(messages[14]["errors"][0]["code"], 131_051);
    let changed = stage.world.message(&first).expect("kept");
    assert!(changed.edited && changed.revoked);
    assert_eq!(changed.customer_reaction.as_deref(), Some("👍"));

    let url = messages[1]["image"]["url"].as_str().expect("url");
    let got = stage
        .http
        .get(url)
        .bearer_auth(TOKEN)
        .send()
        .await
        .expect("answer");
    assert!(got.bytes().await.expect("bytes").starts_with(b"\x89PNG"));
}

#[tokio::test]
async fn a_customer_with_a_username_comes_without_a_number_and_is_reached_by_user_id() {
    let stage = Stage::new().await;
    let customer = json!({"number": CUSTOMER, "name": "Mona", "username": "mona"});
    let customer: Customer = serde_json::from_value(customer).expect("customer");
    stage.world.put_customer(customer).expect("put");
    write(&stage, "hello");
    let change = stage.receiver.wait(1).await[0].change();
    assert!(change["messages"][0].get("from").is_none());
    assert!(change["contacts"][0].get("wa_id").is_none());
    let user_id = change["messages"][0]["from_user_id"].as_str().expect("id");
    let body = json!({"messaging_product": "whatsapp", "recipient": user_id, "type": "text", "text": {"body": "hi"}});
    let (status, answer) = stage.meta(body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["contacts"][0].get("wa_id").is_none());
    let hook = stage.receiver.wait_for(1, |h| status_of(h).is_some()).await;
    assert!(
        hook[0].change()["statuses"][0]
            .get("recipient_id")
            .is_none()
    );
}

#[tokio::test]
async fn a_webhook_not_answered_200_comes_again_with_the_same_bytes() {
    let stage = Stage::new().await;
    stage.receiver.will_answer([(503, "", ""), (201, "", "")]);
    write(&stage, "hello");
    let hooks = stage.receiver.wait(3).await;
    assert_eq!(hooks[0].body, hooks[1].body);
    assert_eq!(hooks[1].body, hooks[2].body);
    let attempts = stage
        .wait_until(|| Some(stage.world.webhooks()).filter(|all| all.len() == 3))
        .await;
    let statuses: Vec<_> = attempts.iter().filter_map(|a| a.status).collect();
    assert_eq!(statuses, [503, 201, 200]);
}

#[tokio::test]
async fn the_handshake_succeeds_with_the_right_token_only() {
    let stage = Stage::new().await;
    assert_eq!(stage.world.verify_meta_webhook(PHONE).await, Ok(()));
    stage.receiver.expect_token("another");
    assert!(stage.world.verify_meta_webhook(PHONE).await.is_err());
}

#[tokio::test]
async fn both_rates_are_kept_once_switched_on() {
    let stage = Stage::new().await;
    let mut settings = stage.world.settings();
    settings.pair_rate = true;
    stage.world.set_settings(settings.clone());
    // A slow machine may earn a message or two meanwhile.
    let mut taken = 0;
    let over = loop {
        let answer = stage.meta(text("x", "r")).await;
        if answer.0 != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 200, "no limit");
    };
    assert!(taken >= 45, "{taken}");
    assert_eq!(code(&over), 131_056);
    let mut elsewhere = text("x", "r");
    elsewhere["to"] = json!("+201009999999");
    assert_eq!(
        stage.meta(elsewhere.clone()).await.0,
        200,
        "only the pair is limited"
    );

    settings.throughput_per_second = Some(1);
    stage.world.set_settings(settings);
    assert_eq!(stage.meta(elsewhere.clone()).await.0, 200);
    let mut over = stage.meta(elsewhere.clone()).await;
    for _ in 0..50 {
        if over.0 == 200 {
            over = stage.meta(elsewhere.clone()).await;
        }
    }
    assert_eq!((over.0, code(&over)), (429, 130_429));
}

#[tokio::test]
async fn a_read_receipt_marks_the_customers_message_read_and_shows_typing() {
    let stage = Stage::new().await;
    let id = write(&stage, "hello");
    let mut events = stage.world.events();
    let receipt = |id: &str| json!({"messaging_product": "whatsapp", "status": "read", "message_id": id, "typing_indicator": {"type": "text"}});
    let (status, answer) = stage.meta(receipt(&id)).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)));
    assert_eq!(stage.world.message(&id).map(|m| m.tick), Some(Tick::Read));
    let mut typing = false;
    while let Ok(event) = events.try_recv() {
        typing |= matches!(event, Event::Typing { .. });
    }
    assert!(typing);
    assert_eq!(code(&stage.meta(receipt("wamid.none")).await), 131_009);
}

#[tokio::test]
async fn a_created_template_is_approved_by_webhook_and_listed_page_by_page() {
    let stage = Stage::new().await;
    let url = stage.url(&format!("/v26.0/{WABA}/message_templates"));
    let body = json!({"name": "news", "language": "en_US", "category": "UTILITY", "components": [{"type": "BODY", "text": "Hi"}]});
    let create = |body: &Value| answer(stage.http.post(&url).bearer_auth(TOKEN).json(body));
    let (status, created) = create(&body).await;
    assert_eq!(
        (status, &created["status"]),
        (200, &json!("PENDING")),
        "{created}"
    );
    let mut no_example = body.clone();
    no_example["name"] = json!("other");
    no_example["components"][0]["text"] = json!("Hi {{1}}");
    assert_eq!(code(&create(&no_example).await), 100);
    assert_eq!(
        code(&create(&body).await),
        100,
        "the same name and language twice"
    );

    let change = stage.receiver.wait(1).await[0].change();
    assert_eq!(change["event"], "APPROVED");
    assert_eq!(change["message_template_language"], "en-US");
    assert!(change["message_template_id"].is_u64() && change.get("metadata").is_none());

    let mut path = Some(format!("{url}?limit=2&fields=name,status"));
    let mut names = Vec::new();
    while let Some(next) = path {
        let (_, page) = answer(stage.http.get(next).bearer_auth(TOKEN)).await;
        for template in page["data"].as_array().expect("data") {
            names.push(template["name"].as_str().expect("name").to_owned());
            assert!(template.get("components").is_none());
        }
        path = page["paging"]["next"].as_str().map(str::to_owned);
    }
    assert_eq!(names, ["order_ready", "offer", "news"]);
    // Registering the number again keeps what was there.
    let again = serde_json::from_value(number(&stage.receiver.url)).expect("number");
    stage.world.register_meta_number(again).expect("registers");
    assert_eq!(stage.world.templates(WABA).len(), 3);
    let (_, phone) = stage
        .meta_get(&format!("/v26.0/{PHONE}?fields=quality_rating"))
        .await;
    assert_eq!(phone, json!({"id": PHONE, "quality_rating": "GREEN"}));
}

#[tokio::test]
async fn a_one_time_password_gets_metas_own_text_and_quality_and_status_are_told_and_listed() {
    let stage = Stage::new().await;
    let url = stage.url(&format!("/v26.0/{WABA}/message_templates"));
    let create = |body: &Value| answer(stage.http.post(&url).bearer_auth(TOKEN).json(body));
    let mut body = json!({"name": "otp", "language": "en_US", "category": "AUTHENTICATION",
        "components": [{"type": "BODY", "text": "my own words"}]});
    assert_eq!(code(&create(&body).await), 100);
    body["components"] = json!([{"type": "BODY", "add_security_recommendation": true},
        {"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE"}]}]);
    let (status, _) = create(&body).await;
    assert_eq!(status, 200);
    stage.receiver.wait(1).await;
    let (_, list) = answer(stage.http.get(format!("{url}?name=otp")).bearer_auth(TOKEN)).await;
    let otp = &list["data"][0];
    assert_eq!(
        otp["components"][0]["text"],
        "*{{1}}* is your verification code."
    );
    assert_eq!(otp["quality_score"]["score"], "UNKNOWN");

    let world = &stage.world;
    world
        .set_template_quality(WABA, "otp", "en_US", "RED")
        .expect("known");
    let told = stage.receiver.wait(2).await[1].change();
    assert_eq!(
        (&told["previous_quality_score"], &told["new_quality_score"]),
        (&json!("UNKNOWN"), &json!("RED"))
    );
    world
        .set_template_status(WABA, "otp", "en_US", "REJECTED", Some("SCAM"))
        .expect("known");
    let (_, list) = answer(stage.http.get(format!("{url}?name=otp")).bearer_auth(TOKEN)).await;
    assert_eq!(list["data"][0]["rejected_reason"], "SCAM");
    assert_eq!(list["data"][0]["quality_score"]["score"], "RED");
    assert!(
        world
            .set_template_quality(WABA, "none", "ar", "RED")
            .is_err()
    );
}

#[tokio::test]
async fn an_echo_of_the_phone_app_arrives_as_ours_and_an_unread_message_skips_delivered() {
    let stage = Stage::new().await;
    let echo = BusinessEcho {
        phone_number_id: PHONE.to_owned(),
        to: CUSTOMER.to_owned(),
        content: Content::Text {
            body: "from the app".to_owned(),
        },
    };
    stage.world.send_as_business_app(echo).expect("echo");
    let hook = stage.receiver.wait(1).await.remove(0);
    assert_eq!(
        hook.json()["entry"][0]["changes"][0]["field"],
        "smb_message_echoes"
    );
    assert_eq!(hook.change()["message_echoes"][0]["to"], "201001234567");
    assert!(stage.world.accepted().is_empty());

    let mut settings = stage.world.settings();
    settings.delivered_after_ms = None;
    stage.world.set_settings(settings);
    write(&stage, "hello");
    let id = stage.meta_text("hi", "r").await;
    stage.wait_message(&id, |m| m.tick == Tick::Sent).await;
    assert_eq!(
        stage.world.mark_read(PHONE, CUSTOMER),
        2,
        "the echo too; only the server's own message has statuses"
    );
    let read = stage.receiver.wait_for(2, |h| status_of(h).is_some()).await;
    let order: Vec<_> = read.iter().filter_map(status_of).collect();
    assert_eq!(order, ["sent", "read"]);
    assert!(read[1].change()["statuses"][0]["pricing"].is_object());
}
