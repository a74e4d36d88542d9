//! Templates that Meta keeps: handed in, synced, changed by webhook, sent in place of ours, checked before queueing.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use wasel_simulator::{CustomerSend, Message};
use wasel_testkit::{Answer, Org, TestApp, wait_until};

const CUSTOMER: &str = "+201012345678";

/// A tenant whose WhatsApp messages go by the Cloud API.
async fn ready() -> (TestApp, Org) {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let twilio = format!("/v1/channels/{}", org.twilio_whatsapp);
    app.patch(org.owner(), &twilio, &json!({ "status": "paused" }))
        .await
        .expect(200);
    app.state().registry.reload().await.unwrap();
    (app, org)
}

fn waba(app: &TestApp, org: &Org) -> String {
    let numbers = app.world().meta_numbers();
    let number = numbers
        .iter()
        .find(|number| number.phone_number_id == org.phone_number_id);
    number.unwrap().waba_id.clone()
}

/// Meta's templates of the tenant, besides `order_ready`.
fn add_theirs(app: &TestApp, org: &Org, templates: Value) {
    let numbers = app.world().meta_numbers();
    let number = numbers
        .iter()
        .find(|number| number.phone_number_id == org.phone_number_id)
        .unwrap();
    let mut number = serde_json::to_value(number).unwrap();
    number["templates"] = templates;
    app.world()
        .register_meta_number(serde_json::from_value(number).unwrap())
        .unwrap();
}

fn by_hand(app: &TestApp) {
    let mut settings = app.world().settings();
    settings.approve_templates = false;
    app.world().set_settings(settings);
}

fn theirs(org: &Org) -> String {
    format!("/v1/channels/{}/provider-templates", org.whatsapp)
}

fn mapping(org: &Org, ours: &str) -> String {
    format!("/v1/templates/{ours}/mappings/{}", org.whatsapp)
}

async fn ask(app: &TestApp, token: &str, method: Method, path: &str, body: &Value) -> Answer {
    Answer::of(app.request(method, path).bearer_auth(token).json(body)).await
}

async fn sync(app: &TestApp, org: &Org) -> Value {
    let path = format!("{}/sync", theirs(org));
    app.post(org.owner(), &path, &json!({})).await.expect(200)
}

async fn ours(app: &TestApp, org: &Org, fields: Value) -> String {
    let made = app
        .post(org.owner(), "/v1/templates", &fields)
        .await
        .expect(201);
    made["id"].as_str().unwrap().to_owned()
}

async fn map(app: &TestApp, org: &Org, ours: &str, body: Value) -> Answer {
    ask(app, org.owner(), Method::PUT, &mapping(org, ours), &body).await
}

/// Sends a template of ours to the customer, as the documents' front end does.
async fn send(app: &TestApp, org: &Org, ours: &str, variables: Value) -> Answer {
    let body = json!({ "to": CUSTOMER, "template_id": ours, "variables": variables });
    app.post(org.owner(), "/functions/v1/send-whatsapp", &body)
        .await
}

/// Sends one of Meta's by its name.
async fn send_named(app: &TestApp, org: &Org, content: Value) -> Answer {
    let mut content = content;
    content["type"] = json!("template");
    let body = json!({ "channel_id": org.whatsapp, "to": CUSTOMER, "content": content });
    app.post(org.owner(), "/v1/messages", &body).await
}

async fn delivered(app: &TestApp, org: &Org, sent: &Value) -> Value {
    let id = sent["message_id"].as_str().or(sent["id"].as_str()).unwrap();
    app.wait_status(org.owner(), id, "delivered").await
}

/// What the customer's phone shows last.
fn last_shown(app: &TestApp, org: &Org) -> Message {
    let thread = app.world().thread(&org.phone_number_id, CUSTOMER, 50);
    thread.last().unwrap().clone()
}

async fn open_window(app: &TestApp, org: &Org) {
    app.world()
        .send_as_customer(CustomerSend::text(&org.phone_number_id, CUSTOMER, "hi"))
        .unwrap();
    let inbound = "SELECT count(*) FROM messages WHERE direction = 'inbound'";
    app.wait_count(inbound, 1).await;
}

async fn wait_theirs(app: &TestApp, name: &str, column: &str, value: &str) {
    let sql = format!(
        "SELECT count(*) FROM provider_templates WHERE name = '{name}' AND {column} = '{value}'"
    );
    wait_until(&format!("{name} has {column} {value}"), async || {
        (app.count(&sql).await > 0).then_some(())
    })
    .await;
}

async fn execute(app: &TestApp, sql: String) {
    sqlx::query(AssertSqlSafe(sql))
        .execute(&app.owner)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_template_is_handed_in_approved_by_webhook_and_sent_outside_the_window_with_the_values_right()
 {
    let (app, org) = ready().await;
    by_hand(&app);
    let id = ours(
        &app,
        &org,
        json!({ "name": "visit", "message_template": "مرحباً {{اسم العميل}}، زيارتك يوم {{day}}، نراك قريباً." }),
    )
    .await;
    let body = json!({ "template_id": id, "language": "ar", "category": "UTILITY",
        "examples": { "اسم العميل": "منى", "day": "الأحد" }, "footer": "العيادة",
        "buttons": [{ "type": "url", "text": "الموعد", "url": "https://x.test/v/{{day}}" }] });
    let made = app
        .post(org.owner(), &theirs(&org), &body)
        .await
        .expect(201);
    assert_eq!(
        (&made["status"], &made["name"]),
        (&json!("PENDING"), &json!("visit"))
    );
    assert!(
        made["provider_id"]
            .as_str()
            .unwrap()
            .bytes()
            .all(|b| b.is_ascii_digit())
    );
    let again = app
        .post(org.owner(), &theirs(&org), &body)
        .await
        .expect(409);
    assert_eq!(again["error"]["field"], "name");
    let mapped = app
        .get(org.agent(), &format!("/v1/templates/{id}/mappings"))
        .await
        .expect(200);
    assert_eq!(
        mapped["data"][0]["variable_map"],
        json!({ "body": { "1": "اسم العميل", "2": "day" }, "buttons": { "0": "day" } })
    );

    let variables = json!({ "اسم العميل": "سارة", "day": "الاثنين" });
    let refused = send(&app, &org, &id, variables.clone()).await.expect(422);
    assert_eq!(refused["code"], "window_closed");
    assert_eq!(refused["details"], json!({ "suggested_templates": [] }));

    app.world()
        .set_template_status(&waba(&app, &org), "visit", "ar", "APPROVED", None)
        .unwrap();
    wait_theirs(&app, "visit", "status", "APPROVED").await;
    let letters = app
        .count("SELECT count(*) FROM webhook_events WHERE outcome = 'dead_letter'")
        .await;
    assert_eq!(letters, 0);
    let sent = send(&app, &org, &id, variables.clone()).await.expect(200);
    let message = delivered(&app, &org, &sent).await;
    let read = "مرحباً سارة، زيارتك يوم الاثنين، نراك قريباً.";
    assert_eq!(
        (&message["message_type"], &message["body"]),
        (&json!("template"), &json!(read))
    );
    assert_eq!(message["content"]["name"], "visit");
    assert_eq!(last_shown(&app, &org).text.as_deref(), Some(read));
    let filed = "SELECT count(*) FROM messages WHERE category = 'utility'";
    assert_eq!(app.count(filed).await, 1);
    let uses = "SELECT usage_count FROM templates WHERE name = 'visit'";
    assert_eq!(app.count(uses).await, 1);
    // What Meta would refuse is refused now.
    let broken = json!({ "اسم العميل": "سطر\nسطر", "day": "x" });
    let refused = send(&app, &org, &id, broken).await.expect(422);
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .starts_with("variables.اسم العميل: "),
        "{refused}"
    );

    // Inside the window it is a text, for nothing.
    open_window(&app, &org).await;
    let sent = send(&app, &org, &id, variables).await.expect(200);
    let message = delivered(&app, &org, &sent).await;
    assert_eq!(
        (&message["message_type"], &message["body"]),
        (&json!("text"), &json!(read))
    );
    assert_eq!(last_shown(&app, &org).kind, "text");
}

#[tokio::test]
async fn a_decision_that_overtakes_the_answer_stays_and_a_one_time_password_is_sent() {
    let (app, org) = ready().await;
    let id = ours(
        &app,
        &org,
        json!({ "name": "otp", "message_template": "رمزك {{code}}" }),
    )
    .await;
    // The simulator approves before it answers.
    let body = json!({ "template_id": id, "language": "en_US", "category": "AUTHENTICATION" });
    app.post(org.owner(), &theirs(&org), &body)
        .await
        .expect(201);
    wait_theirs(&app, "otp", "status", "APPROVED").await;
    let sent = send(&app, &org, &id, json!({ "code": "123456" }))
        .await
        .expect(200);
    delivered(&app, &org, &sent).await;
    let shown = last_shown(&app, &org).text;
    assert_eq!(
        shown.as_deref(),
        Some("*123456* is your verification code.")
    );
    // As Meta has it, so it stays after a sync.
    sync(&app, &org).await;
    let sent = send(&app, &org, &id, json!({ "code": "654321" }))
        .await
        .expect(200);
    let message = delivered(&app, &org, &sent).await;
    assert_eq!(message["body"], "*654321* is your verification code.");
}

#[tokio::test]
async fn a_sync_reads_every_page_and_forgets_what_is_gone() {
    let (app, org) = ready().await;
    let many: Vec<Value> = (0..230)
        .map(|n| json!({ "name": format!("t{n:03}"), "language": "en_US", "category": "MARKETING",
            "components": [{ "type": "BODY", "text": "Hi {{name}}" }], "parameter_format": "NAMED" }))
        .collect();
    add_theirs(&app, &org, json!(many));
    let synced = sync(&app, &org).await;
    assert_eq!(
        (&synced["total"], &synced["changed"], &synced["removed"]),
        (&json!(231), &json!(231), &json!(0))
    );
    let again = sync(&app, &org).await;
    assert_eq!(
        (&again["changed"], &again["removed"]),
        (&json!(0), &json!(0))
    );

    let list = async |query: &str| {
        let path = format!("{}{query}", theirs(&org));
        app.get(org.agent(), &path).await.expect(200)
    };
    let first = list("?limit=200&language=en_US").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = list(&format!("?limit=200&language=en_US&cursor={cursor}")).await;
    assert_eq!(second["next_cursor"], Value::Null);
    let count = |page: &Value| page["data"].as_array().unwrap().len();
    assert_eq!((count(&first), count(&second)), (200, 30));
    assert_eq!(count(&list("?q=t01").await), 10);
    assert_eq!(count(&list("?category=UTILITY").await), 1);
    assert_eq!(count(&list("?status=PENDING").await), 0);
    let found = list("?q=t007").await["data"][0].clone();
    assert_eq!(found["parameter_format"], "named");
    assert_eq!(found["components"][0]["text"], "Hi {{name}}");

    let one = format!("{}/{}", theirs(&org), found["id"].as_str().unwrap());
    assert_eq!(app.get(org.agent(), &one).await.expect(200), found);
    ask(&app, org.agent(), Method::DELETE, &one, &json!({}))
        .await
        .expect(403);
    ask(&app, org.owner(), Method::DELETE, &one, &json!({}))
        .await
        .expect(204);
    app.get(org.owner(), &one).await.expect(404);
    let left = app.world().templates(&waba(&app, &org));
    assert!(left.len() == 230 && left.iter().all(|template| template.name != "t007"));
    // Removed in Meta's own manager.
    let url = format!(
        "{}/v26.0/{}/message_templates?name=t008",
        app.simulator.meta_base(),
        waba(&app, &org)
    );
    let gone = app.http.delete(url).bearer_auth("access-token-of-a").send();
    assert!(gone.await.unwrap().status().is_success());
    assert_eq!(sync(&app, &org).await["removed"], 1);
}

#[tokio::test]
async fn a_paused_or_rejected_template_is_told_once_and_no_longer_sent() {
    let (app, org) = ready().await;
    sync(&app, &org).await;
    let waba = waba(&app, &org);
    let told = async || {
        let list = app
            .get(org.owner(), "/v1/notifications?kind=template_status")
            .await
            .expect(200);
        list["data"].as_array().unwrap().clone()
    };
    let set = |status: &str, reason: Option<&str>| {
        app.world()
            .set_template_status(&waba, "order_ready", "ar", status, reason)
            .unwrap();
    };
    let row = "SELECT count(*) FROM change_log WHERE table_name = 'provider_templates' AND record ->> 'status' = 'PAUSED'";
    set("PAUSED", None);
    wait_theirs(&app, "order_ready", "status", "PAUSED").await;
    assert_eq!(app.count(row).await, 1);
    let first = told().await;
    assert_eq!(first.len(), 1);
    // The organisation's language is Arabic.
    assert_eq!(
        first[0]["title"],
        "أوقف واتساب القالب مؤقتاً order_ready (ar)"
    );
    assert_eq!(
        (&first[0]["level"], &first[0]["body"]),
        (&json!("error"), &Value::Null)
    );
    let content = json!({ "name": "order_ready", "language": "ar",
        "components": [{ "type": "body", "parameters": [{ "type": "text", "text": "١٧" }] }] });
    let refused = send_named(&app, &org, content.clone()).await.expect(422);
    assert_eq!(refused["error"]["code"], "template_not_approved");
    assert_eq!(refused["error"]["field"], "content.name");

    // The same again, and then back.
    set("PAUSED", None);
    app.world()
        .set_template_quality(&waba, "order_ready", "ar", "RED")
        .unwrap();
    wait_theirs(&app, "order_ready", "quality", "RED").await;
    assert_eq!(told().await.len(), 1);
    set("REINSTATED", None);
    wait_theirs(&app, "order_ready", "status", "APPROVED").await;
    let sent = send_named(&app, &org, content.clone()).await;
    // The simulator takes the word as it stands; Meta's own status is APPROVED then.
    sent.expect(202);
    set("REJECTED", Some("INVALID_FORMAT"));
    wait_theirs(&app, "order_ready", "rejected_reason", "INVALID_FORMAT").await;
    let all = told().await;
    assert_eq!((all.len(), &all[0]["body"]), (2, &json!("INVALID_FORMAT")));
    assert_eq!(all[0]["data"]["status"], "REJECTED");
    let refused = send_named(&app, &org, content).await.expect(422);
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("INVALID_FORMAT")
    );
    // Everything was used, nothing is a dead letter.
    let letters = "SELECT count(*) FROM webhook_events WHERE outcome = 'dead_letter'";
    assert_eq!(app.count(letters).await, 0);
}

#[tokio::test]
async fn news_reach_every_number_of_the_account_and_old_ones_change_nothing() {
    let (app, org) = ready().await;
    let (slug, waba) = (&org.slug, waba(&app, &org));
    let report = app
        .apply(&format!(
            r#"
            [[organizations]]
            slug = "{slug}"
            name = "Organisation {slug}"
            locale = "en"
            [[organizations.channels]]
            kind = "whatsapp_cloud"
            name = "Second number"
            waba_id = "{waba}"
            phone_number_id = "106540352249999"
            access_token = "access-token-of-{slug}"
            app_secret = "{}"
            "#,
            org.app_secret
        ))
        .await;
    let second = report.organizations[0].channels[0].id;
    sync(&app, &org).await;
    let of = |field: &str, time: i64, value: Value| {
        json!({ "object": "whatsapp_business_account", "entry": [{ "id": waba, "time": time,
            "changes": [{ "field": field, "value": value }] }] })
    };
    let provider_id: String =
        sqlx::query_scalar("SELECT provider_id FROM provider_templates WHERE name = 'order_ready'")
            .fetch_one(&app.owner)
            .await
            .unwrap();
    let about = |more: Value| {
        let mut value = json!({ "message_template_id": provider_id.parse::<u64>().unwrap(),
            "message_template_name": "order_ready", "message_template_language": "ar" });
        value
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        value
    };
    let status = |channel: Uuid| {
        format!(
            "SELECT count(*) FROM provider_templates WHERE channel_id = '{channel}' AND status = 'DISABLED'"
        )
    };
    let now = chrono::Utc::now().timestamp();
    let disabled = of(
        "message_template_status_update",
        now + 1,
        about(json!({ "event": "DISABLED", "reason": null })),
    );
    app.meta_webhook(&org, &disabled).await.expect(200);
    assert_eq!(app.count(&status(org.whatsapp)).await, 1);
    assert_eq!(
        app.count(&status(second)).await,
        1,
        "new to the second number"
    );
    let told = "SELECT count(*) FROM notifications WHERE kind = 'template_status'";
    assert_eq!(app.count(told).await, 1);
    // Meta repeats itself, in any order.
    app.meta_webhook(&org, &disabled).await.expect(200);
    let old = of(
        "message_template_status_update",
        now - 60,
        about(json!({ "event": "APPROVED", "reason": null })),
    );
    app.meta_webhook(&org, &old).await.expect(200);
    assert_eq!(app.count(&status(org.whatsapp)).await, 1);
    assert_eq!(app.count(told).await, 1);
    let duplicates = "SELECT count(*) FROM webhook_events WHERE outcome = 'duplicate'";
    assert_eq!(app.count(duplicates).await, 2);

    let category = json!({ "new_category": "UTILITY", "correct_category": "MARKETING" });
    app.meta_webhook(&org, &of("template_category_update", now, about(category)))
        .await
        .expect(200);
    let texts = json!({ "message_template_element": "طلبك {{1}} عند {{2}} الآن" });
    app.meta_webhook(
        &org,
        &of("message_template_components_update", now, about(texts)),
    )
    .await
    .expect(200);
    let list = app.get(org.owner(), &theirs(&org)).await.expect(200);
    let row = &list["data"][0];
    assert_eq!(
        (&row["category"], &row["announced_category"]),
        (&json!("UTILITY"), &json!("MARKETING"))
    );
    assert_eq!(
        row["components"],
        json!([{ "type": "BODY", "text": "طلبك {{1}} عند {{2}} الآن" }])
    );
    // A new template took the name of one that is gone.
    let mut value = about(json!({ "event": "APPROVED", "reason": null }));
    value["message_template_id"] = json!(77);
    app.meta_webhook(&org, &of("message_template_status_update", now + 2, value))
        .await
        .expect(200);
    let ended = about(json!({ "event": "DELETED", "reason": null }));
    app.meta_webhook(&org, &of("message_template_status_update", now + 3, ended))
        .await
        .expect(200);
    let taken = "SELECT count(*) FROM provider_templates WHERE provider_id = '77' AND status = 'APPROVED' AND components IS NULL";
    assert_eq!(app.count(taken).await, 2);
}

#[tokio::test]
async fn one_sent_by_its_name_is_checked_once_the_list_is_known() {
    let (app, org) = ready().await;
    let body = |texts: &[&str]| {
        let parameters: Vec<Value> = texts
            .iter()
            .map(|text| json!({ "type": "text", "text": text }))
            .collect();
        json!([{ "type": "body", "parameters": parameters }])
    };
    let content = |name: &str, language: &str, components: Value| json!({ "name": name, "language": language, "components": components });
    // Not read yet: Meta decides.
    send_named(&app, &org, content("stranger", "ar", json!([])))
        .await
        .expect(202);
    sync(&app, &org).await;
    let queued = "SELECT count(*) FROM messages WHERE direction = 'outbound'";
    assert_eq!(app.count(queued).await, 1);
    for (content, status, field) in [
        (content("stranger", "ar", json!([])), 422, "content.name"),
        (
            content("order_ready", "en_US", body(&["17"])),
            422,
            "content.language",
        ),
        (
            content("order_ready", "ar", json!([])),
            400,
            "content.components",
        ),
        (
            content("order_ready", "ar", body(&["17", "18"])),
            400,
            "content.components[0].parameters",
        ),
        (
            content("order_ready", "ar", body(&["a\nb"])),
            400,
            "content.components[0].parameters[0].text",
        ),
    ] {
        let refused = send_named(&app, &org, content.clone()).await.expect(status);
        assert_eq!(refused["error"]["field"], field, "{content}: {refused}");
    }
    assert_eq!(app.count(queued).await, 1, "nothing was queued");
    let sent = send_named(&app, &org, content("order_ready", "ar", body(&["١٧"])))
        .await
        .expect(202);
    delivered(&app, &org, &sent).await;
    assert_eq!(last_shown(&app, &org).text.as_deref(), Some("طلبك ١٧ جاهز"));
}

#[tokio::test]
async fn a_closed_window_suggests_what_may_be_sent() {
    let (app, org) = ready().await;
    add_theirs(
        &app,
        &org,
        json!([
            { "name": "welcome", "language": "ar", "components": [{ "type": "BODY", "text": "أهلاً بك {{1}} معنا" }] },
            { "name": "paused", "language": "ar", "status": "PAUSED", "components": [{ "type": "BODY", "text": "x" }] },
        ]),
    );
    sync(&app, &org).await;
    let id = ours(
        &app,
        &org,
        json!({ "name": "ترحيب", "message_template": "أهلاً {{name}}" }),
    )
    .await;
    map(
        &app,
        &org,
        &id,
        json!({ "name": "welcome", "language": "ar", "variable_map": { "body": { "1": "name" } } }),
    )
    .await
    .expect(200);
    let refused = org
        .send(&app, org.whatsapp, CUSTOMER, "hello")
        .await
        .expect(422);
    assert_eq!(refused["error"]["code"], "window_closed");
    assert_eq!(
        refused["error"]["details"]["suggested_templates"],
        json!([
            { "id": id, "name": "ترحيب", "provider_name": "welcome", "language": "ar" },
            { "id": null, "name": "order_ready", "provider_name": "order_ready", "language": "ar" },
        ])
    );
    // A template without a mapping is refused as a text is.
    let plain = ours(
        &app,
        &org,
        json!({ "name": "plain", "message_template": "x" }),
    )
    .await;
    let refused = send(&app, &org, &plain, json!({})).await.expect(422);
    assert_eq!(
        refused["details"]["suggested_templates"][0]["id"],
        json!(id)
    );
    // By Twilio: those with a Content SID.
    let sid = format!("HX{:032x}", 5);
    let content = ours(
        &app,
        &org,
        json!({ "name": "content", "message_template": "x", "twilio_content_sid": sid }),
    )
    .await;
    let refused = org
        .send(&app, org.twilio_whatsapp, CUSTOMER, "hello")
        .await
        .expect(422);
    assert_eq!(
        refused["error"]["details"]["suggested_templates"],
        json!([{ "id": content, "name": "content", "provider_name": sid, "language": null }])
    );
}

#[tokio::test]
async fn a_mapping_fills_every_parameter_with_a_variable_the_template_has() {
    let (app, org) = ready().await;
    let other = app.org("b").await;
    add_theirs(
        &app,
        &org,
        json!([
            { "name": "full", "language": "ar", "components": [
                { "type": "HEADER", "format": "TEXT", "text": "طلب {{1}}" },
                { "type": "BODY", "text": "مرحباً {{1}}، طلبك {{2}} جاهز" },
                { "type": "BUTTONS", "buttons": [{ "type": "URL", "text": "x", "url": "https://x.test/{{1}}" }] }] },
            { "name": "picture", "language": "ar", "components": [
                { "type": "HEADER", "format": "IMAGE" }, { "type": "BODY", "text": "x" }] },
        ]),
    );
    sync(&app, &org).await;
    let id = ours(
        &app,
        &org,
        json!({ "name": "a", "message_template": "{{name}} {{number}}" }),
    )
    .await;
    let full = json!({ "header": { "1": "number" }, "body": { "1": "name", "2": "number" }, "buttons": { "0": "number" } });
    let with = |path: &str, value: Value| {
        let mut map = full.clone();
        match value {
            Value::Null => {
                let (part, key) = path.split_once('.').unwrap();
                map[part].as_object_mut().unwrap().remove(key);
            }
            value => {
                let (part, key) = path.split_once('.').unwrap();
                map[part][key] = value;
            }
        }
        json!({ "name": "full", "language": "ar", "variable_map": map })
    };
    for (body, status, field) in [
        (with("header.1", Value::Null), 400, "variable_map.header.1"),
        (with("body.2", Value::Null), 400, "variable_map.body.2"),
        (
            with("buttons.0", Value::Null),
            400,
            "variable_map.buttons.0",
        ),
        (
            with("body.2", json!("stranger")),
            400,
            "variable_map.body.2",
        ),
        (with("body.3", json!("name")), 400, "variable_map.body.3"),
        (
            with("buttons.1", json!("name")),
            400,
            "variable_map.buttons.1",
        ),
        (json!({ "name": "picture", "language": "ar" }), 400, "name"),
        (json!({ "name": "stranger", "language": "ar" }), 404, "name"),
        (
            json!({ "name": "full", "language": "en_US" }),
            404,
            "language",
        ),
    ] {
        let refused = map(&app, &org, &id, body.clone()).await.expect(status);
        assert_eq!(refused["error"]["field"], field, "{body}: {refused}");
    }
    let good = json!({ "name": "full", "language": "ar", "variable_map": full });
    let path = mapping(&org, &id);
    ask(&app, org.agent(), Method::PUT, &path, &good)
        .await
        .expect(403);
    let theirs_of_b = format!("/v1/templates/{id}/mappings/{}", other.whatsapp);
    ask(&app, org.owner(), Method::PUT, &theirs_of_b, &good)
        .await
        .expect(404);
    let by_twilio = format!("/v1/templates/{id}/mappings/{}", org.twilio_whatsapp);
    let refused = ask(&app, org.owner(), Method::PUT, &by_twilio, &good)
        .await
        .expect(422);
    assert_eq!(refused["error"]["code"], "no_provider_templates");
    for path in [format!(
        "/v1/channels/{}/provider-templates",
        other.whatsapp
    )] {
        app.get(org.owner(), &path).await.expect(404);
        app.post(org.owner(), &format!("{path}/sync"), &json!({}))
            .await
            .expect(404);
    }
    let made = map(&app, &org, &id, good).await.expect(200);
    assert_eq!(
        (&made["status"], &made["variable_map"]),
        (&json!("APPROVED"), &full)
    );
    let sent = send(&app, &org, &id, json!({ "name": "منى", "number": 17 }))
        .await
        .expect(200);
    let message = delivered(&app, &org, &sent).await;
    assert_eq!(message["body"], "طلب 17\n\nمرحباً منى، طلبك 17 جاهز");
    assert_eq!(
        last_shown(&app, &org).text.as_deref(),
        Some("مرحباً منى، طلبك 17 جاهز")
    );

    // The system's templates can be mapped too, and a mapping ends with its template.
    let system = "00000000-0000-7000-8000-000000000001";
    let shown = app
        .get(org.owner(), &format!("/v1/templates/{system}"))
        .await
        .expect(200);
    let variable = shown["variables"][0].clone();
    let body = json!({ "name": "order_ready", "language": "ar", "variable_map": { "body": { "1": variable } } });
    map(&app, &org, system, body).await.expect(200);
    ask(
        &app,
        org.owner(),
        Method::DELETE,
        &format!("/v1/templates/{id}"),
        &json!({}),
    )
    .await
    .expect(204);
    assert_eq!(app.count("SELECT count(*) FROM template_mappings").await, 1);
    ask(
        &app,
        org.owner(),
        Method::DELETE,
        &mapping(&org, system),
        &json!({}),
    )
    .await
    .expect(204);
    ask(
        &app,
        org.owner(),
        Method::DELETE,
        &mapping(&org, system),
        &json!({}),
    )
    .await
    .expect(404);
}

#[tokio::test]
async fn what_meta_would_refuse_is_never_handed_in() {
    let (app, org) = ready().await;
    let id = ours(
        &app,
        &org,
        json!({ "name": "Not For Meta", "message_template": "Hi {{name}}, welcome" }),
    )
    .await;
    let start = ours(
        &app,
        &org,
        json!({ "name": "start", "message_template": "{{name}} welcome" }),
    )
    .await;
    let file = ours(
        &app,
        &org,
        json!({ "name": "file", "message_template": "Hi there", "media_type": "document", "media_url": "https://x.test/a.pdf" }),
    )
    .await;
    let examples = json!({ "name": "Mona" });
    for (body, field) in [
        (json!({ "template_id": id, "examples": examples }), "name"),
        (
            json!({ "template_id": id, "name": "good" }),
            "examples.name",
        ),
        (
            json!({ "template_id": id, "name": "good", "examples": examples, "category": "CUSTOM" }),
            "category",
        ),
        (
            json!({ "template_id": id, "name": "good", "examples": examples, "language": "en-US" }),
            "language",
        ),
        (
            json!({ "template_id": start, "examples": examples }),
            "message_template",
        ),
        (json!({ "template_id": file }), "header.type"),
        (
            json!({ "template_id": file, "header": { "type": "image", "example_handle": "4::a" } }),
            "header.type",
        ),
        (
            json!({ "template_id": file, "header": { "type": "document" } }),
            "header.example_handle",
        ),
        (
            json!({ "template_id": start, "header": { "type": "image", "example_handle": "4::a" } }),
            "header.type",
        ),
    ] {
        let mut full = json!({ "language": "en_US", "category": "UTILITY" });
        full.as_object_mut()
            .unwrap()
            .extend(body.as_object().unwrap().clone());
        let refused = app
            .post(org.owner(), &theirs(&org), &full)
            .await
            .expect(400);
        assert_eq!(refused["error"]["field"], field, "{full}: {refused}");
    }
    let handed_in = |app: &TestApp| {
        app.world()
            .requests()
            .iter()
            .filter(|request| request.method == "POST")
            .count()
    };
    assert_eq!(handed_in(&app), 0);
    // What only Meta can know is told in its words.
    let good = json!({ "template_id": id, "name": "order_ready", "language": "ar", "category": "UTILITY", "examples": examples });
    let refused = app
        .post(org.owner(), &theirs(&org), &good)
        .await
        .expect(422);
    assert_eq!(refused["error"]["code"], "provider_refused");
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("already content in this language")
    );
    app.post(org.agent(), &theirs(&org), &good)
        .await
        .expect(403);
}

#[tokio::test]
async fn a_templates_file_is_its_header_outside_the_window_and_has_the_text_as_caption_inside() {
    let (app, org) = ready().await;
    let id = ours(
        &app,
        &org,
        json!({ "name": "invoice", "message_template": "فاتورتك رقم {{number}} مرفقة", "media_type": "document",
            "media_url": "https://x.test/invoice.pdf" }),
    )
    .await;
    let body = json!({ "template_id": id, "language": "ar", "category": "UTILITY", "examples": { "number": "17" },
        "header": { "type": "document", "example_handle": "4::aW52" } });
    app.post(org.owner(), &theirs(&org), &body)
        .await
        .expect(201);
    wait_theirs(&app, "invoice", "status", "APPROVED").await;
    let sent = send(&app, &org, &id, json!({ "number": "٤٢" }))
        .await
        .expect(200);
    let message = delivered(&app, &org, &sent).await;
    assert_eq!(
        message["content"]["components"][0]["parameters"][0]["document"],
        json!({ "link": "https://x.test/invoice.pdf", "filename": "invoice.pdf" })
    );
    assert_eq!(
        last_shown(&app, &org).text.as_deref(),
        Some("فاتورتك رقم ٤٢ مرفقة")
    );
    open_window(&app, &org).await;
    let sent = send(&app, &org, &id, json!({ "number": "٤٢" }))
        .await
        .expect(200);
    let message = delivered(&app, &org, &sent).await;
    assert_eq!(message["message_type"], "document");
    assert_eq!(message["body"], "فاتورتك رقم ٤٢ مرفقة");
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_same_message_though_the_window_closed_meanwhile() {
    let (app, org) = ready().await;
    sync(&app, &org).await;
    let id = ours(
        &app,
        &org,
        json!({ "name": "a", "message_template": "طلبك {{number}}" }),
    )
    .await;
    map(&app, &org, &id, json!({ "name": "order_ready", "language": "ar", "variable_map": { "body": { "1": "number" } } }))
        .await
        .expect(200);
    open_window(&app, &org).await;
    let repeat = async |number: &str| {
        let body = json!({ "to": CUSTOMER, "template_id": id, "variables": { "number": number } });
        let request = app.request(Method::POST, "/functions/v1/send-whatsapp");
        let request = request
            .bearer_auth(org.owner())
            .header("idempotency-key", "k");
        Answer::of(request.json(&body)).await
    };
    let first = repeat("17").await.expect(200);
    delivered(&app, &org, &first).await;
    execute(
        &app,
        "UPDATE conversations SET last_inbound_at = now() - interval '25 hours'".to_owned(),
    )
    .await;
    assert_eq!(
        repeat("17").await.expect(200)["message_id"],
        first["message_id"]
    );
    repeat("18").await.expect(422);
    let sent = send(&app, &org, &id, json!({ "number": "18" }))
        .await
        .expect(200);
    assert_eq!(
        delivered(&app, &org, &sent).await["message_type"],
        "template"
    );
}

#[tokio::test]
async fn twilios_content_variables_are_filled_under_their_own_names() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let fields = |variables: Value| {
        json!({ "name": "a", "message_template": "Hello {{name}}, {{day}}", "twilio_content_sid": format!("HX{:032x}", 5),
            "twilio_variables": variables })
    };
    for (variables, field) in [
        (json!({ "1": "stranger" }), "twilio_variables.1"),
        (json!({ "1": "name", "3": "day" }), "twilio_variables.2"),
        (json!({ "": "name" }), "twilio_variables"),
    ] {
        let refused = app
            .post(org.owner(), "/v1/templates", &fields(variables))
            .await
            .expect(400);
        assert_eq!(refused["error"]["field"], field, "{refused}");
    }
    let mut lonely = fields(json!({ "1": "name" }));
    lonely["twilio_content_sid"] = Value::Null;
    let refused = app
        .post(org.owner(), "/v1/templates", &lonely)
        .await
        .expect(400);
    assert_eq!(refused["error"]["field"], "twilio_variables");
    let id = ours(&app, &org, fields(json!({ "1": "name", "2": "day" }))).await;
    let sent = send(&app, &org, &id, json!({ "name": "منى", "day": 3 }))
        .await
        .expect(200);
    let message = app
        .wait_message(org.owner(), sent["message_id"].as_str().unwrap(), |m| {
            m["status"] != "queued"
        })
        .await;
    assert_eq!(
        message["content"]["variables"],
        json!({ "1": "منى", "2": 3 })
    );
    assert_eq!(message["body"], "Hello منى, 3");
    let path = format!("/v1/templates/{id}");
    let cleared = app
        .patch(org.owner(), &path, &json!({ "twilio_variables": null }))
        .await
        .expect(200);
    assert_eq!(cleared["twilio_variables"], Value::Null);
}
