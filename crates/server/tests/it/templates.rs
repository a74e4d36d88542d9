//! Templates: the tenant's own, the system's, and who may change which.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use wasel_domain::OrgId;
use wasel_domain::email::MAX_SUBJECT_CHARS;
use wasel_testkit::{Answer, Org, TestApp};

async fn create(app: &TestApp, org: &Org, body: Value) -> Value {
    app.post(org.owner(), "/v1/templates", &body)
        .await
        .expect(201)
}

async fn remove(app: &TestApp, token: &str, id: &Value) -> Answer {
    let path = format!("/v1/templates/{}", id.as_str().unwrap());
    Answer::of(app.request(Method::DELETE, &path).bearer_auth(token)).await
}

fn path(template: &Value) -> String {
    format!("/v1/templates/{}", template["id"].as_str().unwrap())
}

async fn names(app: &TestApp, token: &str, query: &str) -> Vec<String> {
    app.get(token, &format!("/v1/templates{query}"))
        .await
        .expect(200)["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|template| template["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_template_is_made_shown_changed_filled_in_and_removed() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let made = create(
        &app,
        &org,
        json!({ "name": " order ", "message_template": "مرحباً {{ اسم العميل }}، {{total}}",
            "email_subject": "Order {{number}}", "email_html": "<p>{{total}}</p>",
            "media_type": "document", "media_url": "https://files.test/a.pdf",
            "twilio_content_sid": "HX0123456789abcdef0123456789ABCDEF" }),
    )
    .await;
    assert_eq!(made["name"], "order");
    assert_eq!(made["category"], "custom");
    assert_eq!(made["variables"], json!(["اسم العميل", "total", "number"]));
    assert_eq!(made["created_by"], json!(org.people.owner));
    assert_eq!(made["is_active"], true);
    assert_eq!(made["is_system"], false);
    assert_eq!(app.get(org.agent(), &path(&made)).await.expect(200), made);

    let values = json!({ "variables": { "اسم العميل": "منى", "total": 9.5, "number": "<7>" } });
    let preview = format!("{}/preview", path(&made));
    let shown = app.post(org.agent(), &preview, &values).await.expect(200);
    assert_eq!(
        shown,
        json!({ "text": "مرحباً منى، 9.5", "subject": "Order <7>", "html": "<p>9.5</p>" })
    );
    let refused = app
        .post(
            org.owner(),
            &preview,
            &json!({ "variables": { "total": [1], "x": 1 } }),
        )
        .await
        .expect(400);
    assert_eq!(refused["error"]["field"], "variables.اسم العميل");
    assert_eq!(
        refused["error"]["message"],
        "is missing; variables.total: must be text, a number, true or false; variables.number: is missing; \
         variables.x: is not a variable of this template"
    );

    // What is left out stays, `null` empties, and the variables follow the texts.
    let change = json!({ "email_subject": null, "email_html": null, "message_template": "{{a}}", "is_active": false });
    let changed = app
        .patch(org.owner(), &path(&made), &change)
        .await
        .expect(200);
    assert_eq!(changed["variables"], json!(["a"]));
    assert_eq!(changed["email_subject"], Value::Null);
    assert_eq!(changed["media_url"], made["media_url"]);
    assert_eq!(changed["is_active"], false);
    let shown = app
        .post(org.owner(), &preview, &json!({ "variables": { "a": "x" } }))
        .await
        .expect(200);
    assert_eq!(shown, json!({ "text": "x" }));

    assert_eq!(remove(&app, org.owner(), &made["id"]).await.status, 204);
    app.get(org.owner(), &path(&made)).await.expect(404);
    assert_eq!(remove(&app, org.owner(), &made["id"]).await.status, 404);
    app.patch(org.owner(), &path(&made), &json!({ "name": "x" }))
        .await
        .expect(404);
}

#[tokio::test]
async fn each_field_that_will_not_do_is_named() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let cases = [
        (json!({ "name": " " }), "name"),
        (json!({ "name": "x".repeat(101) }), "name"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "message_template": "" }), "message_template"),
        (json!({ "message_template": " \n" }), "message_template"),
        (
            json!({ "message_template": "م".repeat(4097) }),
            "message_template",
        ),
        (json!({ "message_template": "a\u{0}b" }), "message_template"),
        (json!({ "category": "spam" }), "category"),
        (json!({ "variables": ["a"] }), "variables"),
        (
            json!({ "message_template": "{{a}} {{b}}", "variables": ["a"] }),
            "variables",
        ),
        (
            json!({ "message_template": "{{a}}", "variables": ["a", "a"] }),
            "variables",
        ),
        (json!({ "media_type": "image" }), "media_url"),
        (
            json!({ "media_url": "https://files.test/a.png" }),
            "media_type",
        ),
        (
            json!({ "media_type": "video", "media_url": "https://files.test/a" }),
            "media_type",
        ),
        (
            json!({ "media_type": "image", "media_url": "ftp://files.test/a" }),
            "media_url",
        ),
        (
            json!({ "media_type": "image", "media_url": "javascript:alert(1)" }),
            "media_url",
        ),
        (json!({ "email_subject": "a\r\nBcc: b" }), "email_subject"),
        (json!({ "email_subject": "a\u{2028}b" }), "email_subject"),
        (
            json!({ "email_subject": "م".repeat(MAX_SUBJECT_CHARS + 1) }),
            "email_subject",
        ),
        (
            json!({ "twilio_content_sid": "HX123" }),
            "twilio_content_sid",
        ),
        (
            json!({ "twilio_content_sid": format!("HX{}", "g".repeat(32)) }),
            "twilio_content_sid",
        ),
    ];
    for (wrong, field) in cases {
        let mut body = json!({ "name": "a", "message_template": "text" });
        for (name, value) in wrong.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = app
            .post(org.owner(), "/v1/templates", &body)
            .await
            .expect(400);
        assert_eq!(answer["error"]["field"], field, "{wrong}: {answer}");
    }
    let answer = app
        .post(org.owner(), "/v1/templates", &json!({ "name": "a" }))
        .await
        .expect(400);
    assert_eq!(answer["error"]["field"], "message_template");
    // At the limits, and with the variables in another order.
    let body = json!({ "name": "x".repeat(100), "message_template": format!("{{{{a}}}}{{{{b}}}}{}", "م".repeat(4086)),
        "variables": ["b", "a"], "email_subject": "م".repeat(MAX_SUBJECT_CHARS) });
    let made = create(&app, &org, body).await;
    let answer = app
        .patch(org.owner(), &path(&made), &json!({ "variables": ["a"] }))
        .await
        .expect(400);
    assert_eq!(answer["error"]["field"], "variables");
    for query in ["?category=spam", "?limit=0", "?cursor=x", "?q=%00"] {
        app.get(org.owner(), &format!("/v1/templates{query}"))
            .await
            .expect(400);
    }
}

#[tokio::test]
async fn a_name_is_taken_once_per_organisation() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let body = json!({ "name": "one", "message_template": "x" });
    create(&app, &a, body.clone()).await;
    create(&app, &b, body.clone()).await;
    // The name of a system template is free.
    create(
        &app,
        &a,
        json!({ "name": "trial_welcome", "message_template": "x" }),
    )
    .await;
    let again = app
        .post(a.owner(), "/v1/templates", &body)
        .await
        .expect(409);
    assert_eq!(again["error"]["field"], "name");
    let two = create(&app, &a, json!({ "name": "two", "message_template": "x" })).await;
    let renamed = app
        .patch(a.owner(), &path(&two), &json!({ "name": "one" }))
        .await
        .expect(409);
    assert_eq!(renamed["error"]["field"], "name");
}

#[tokio::test]
async fn the_list_goes_page_by_page_and_finds() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    for (name, category, active) in [
        ("first", "custom", true),
        ("50% off", "custom", false),
        ("dues", "payment_reminder", true),
    ] {
        create(
            &app,
            &org,
            json!({ "name": name, "category": category, "message_template": "مرحبا", "is_active": active }),
        )
        .await;
    }
    let own = ["dues", "50% off", "first"];
    let all: Vec<String> = names(&app, org.people.viewer_token.as_str(), "").await;
    assert_eq!(all[..3], own);
    assert_eq!(all.len(), 7);
    assert_eq!(
        names(&app, org.owner(), "?category=payment_reminder").await,
        ["dues", "payment_reminder"]
    );
    assert_eq!(
        names(&app, org.owner(), "?is_active=false").await,
        ["50% off"]
    );
    assert_eq!(names(&app, org.owner(), "?q=%25").await, ["50% off"]);
    assert_eq!(
        names(&app, org.owner(), "?q=MyFleet&is_active=true")
            .await
            .len(),
        2
    );
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app
            .get(org.owner(), &format!("/v1/templates?limit=3{cursor}"))
            .await
            .expect(200);
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 3);
        paged.extend(data.iter().map(|t| t["name"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, all);
}

#[tokio::test]
async fn agents_and_viewers_read_templates_and_write_none() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let made = create(
        &app,
        &org,
        json!({ "name": "a", "message_template": "zzz" }),
    )
    .await;
    for token in [org.agent(), org.people.viewer_token.as_str()] {
        assert_eq!(names(&app, token, "?q=zzz").await, ["a"]);
        app.post(token, &format!("{}/preview", path(&made)), &json!({}))
            .await
            .expect(200);
        let body = json!({ "name": "b", "message_template": "zzz" });
        app.post(token, "/v1/templates", &body).await.expect(403);
        app.patch(token, &path(&made), &json!({ "name": "b" }))
            .await
            .expect(403);
        assert_eq!(remove(&app, token, &made["id"]).await.status, 403);
    }
}

#[tokio::test]
async fn everybody_has_the_system_templates_word_for_word_and_nobody_can_change_them() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let wanted: Value =
        serde_json::from_str(include_str!("../../../db/src/templates/system.ar.json")).unwrap();
    let list = app
        .get(org.people.viewer_token.as_str(), "/v1/templates")
        .await
        .expect(200);
    let shown = list["data"].as_array().unwrap();
    assert_eq!(shown.len(), 4, "{list}");
    for template in wanted.as_array().unwrap() {
        let same = shown
            .iter()
            .find(|one| one["name"] == template["name"])
            .unwrap();
        for (field, value) in template.as_object().unwrap() {
            assert_eq!(&same[field], value, "{field}");
        }
        // The variables listed are those in the text.
        let text = template["message_template"].as_str().unwrap();
        assert_eq!(
            template["variables"],
            json!(wasel_domain::template::variables(text))
        );

        app.get(org.people.viewer_token.as_str(), &path(same))
            .await
            .expect(200);
        let refused = app
            .patch(org.owner(), &path(same), &json!({ "name": "mine" }))
            .await
            .expect(403);
        assert_eq!(
            refused["error"]["message"],
            "system templates cannot be changed"
        );
        let refused = remove(&app, org.owner(), &same["id"]).await.expect(403);
        assert_eq!(
            refused["error"]["message"],
            "system templates cannot be changed"
        );
    }
    let welcome = shown
        .iter()
        .find(|one| one["name"] == "trial_welcome")
        .unwrap();
    let values = json!({ "variables": { "customer_name": "منى", "trial_days": 14, "app_url": "https://a.test" } });
    let text = app
        .post(org.agent(), &format!("{}/preview", path(welcome)), &values)
        .await
        .expect(200)["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.starts_with("مرحباً منى! 👋\n\n") && text.contains("14 يوم"),
        "{text}"
    );
    // Using one is not counted as a change of it.
    let mut tx = app.state().db.system().await.unwrap();
    let id: Uuid = welcome["id"].as_str().unwrap().parse().unwrap();
    wasel_db::templates::record_use(&mut tx, OrgId(org.id), id)
        .await
        .unwrap();
    wasel_db::templates::record_use(&mut tx, OrgId::SYSTEM, id)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        &app.get(org.owner(), &path(welcome)).await.expect(200),
        welcome
    );

    // By SQL, as the owner of a tenant.
    let mut connection = app.db.connect().await;
    let claims = json!({ "sub": org.people.owner, "role": "authenticated" });
    let become_owner =
        format!("BEGIN; SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{claims}'");
    sqlx::raw_sql(AssertSqlSafe(become_owner.clone()))
        .execute(&mut connection)
        .await
        .unwrap();
    let seen: Vec<(String, bool)> = sqlx::query_as(
        "SELECT name, is_system AND org_id IS NULL FROM whatsapp_templates ORDER BY id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let expected: Vec<(String, bool)> = wanted
        .as_array()
        .unwrap()
        .iter()
        .map(|template| (template["name"].as_str().unwrap().to_owned(), true))
        .collect();
    assert_eq!(seen, expected);
    for write in [
        "UPDATE templates SET name = 'mine' WHERE is_system",
        "UPDATE templates SET usage_count = usage_count + 1",
        "DELETE FROM templates",
    ] {
        let done = sqlx::query(write).execute(&mut connection).await.unwrap();
        assert_eq!(done.rows_affected(), 0, "{write}");
    }
    let forged = sqlx::query(
        "INSERT INTO templates (org_id, id, name, message_template) VALUES ($1, $2, 'forged', 'x')",
    )
    .bind(OrgId::SYSTEM.0)
    .bind(Uuid::now_v7())
    .execute(&mut connection)
    .await
    .unwrap_err();
    assert_eq!(
        forged.as_database_error().and_then(|e| e.code()).as_deref(),
        Some("42501")
    );
}

#[tokio::test]
async fn migrating_again_mends_the_system_templates_and_touches_nothing_else() {
    let app = TestApp::start().await;
    let all = "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM templates t";
    let before: String = sqlx::query_scalar(all).fetch_one(&app.owner).await.unwrap();
    let changes = "SELECT count(*) FROM change_log WHERE table_name = 'templates'";
    let logged = app.count(changes).await;
    wasel_db::migrate(&app.db.options()).await.unwrap();
    let after: String = sqlx::query_scalar(all).fetch_one(&app.owner).await.unwrap();
    assert_eq!(before, after);
    assert_eq!(app.count(changes).await, logged, "nothing was written");

    sqlx::query("UPDATE templates SET message_template = 'x', variables = '[]' WHERE name = 'payment_reminder'")
        .execute(&app.owner)
        .await
        .unwrap();
    sqlx::query("DELETE FROM templates WHERE name = 'trial_welcome'")
        .execute(&app.owner)
        .await
        .unwrap();
    wasel_db::migrate(&app.db.options()).await.unwrap();
    let texts = "SELECT md5(string_agg(id::text || name || message_template || variables, '|' ORDER BY id)) FROM templates";
    let mended: String = sqlx::query_scalar(texts)
        .fetch_one(&app.owner)
        .await
        .unwrap();
    let fresh = TestApp::start().await;
    let fresh: String = sqlx::query_scalar(texts)
        .fetch_one(&fresh.owner)
        .await
        .unwrap();
    assert_eq!(mended, fresh);
}

#[tokio::test]
async fn a_use_is_counted_for_the_tenants_own_template() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    let made = create(&app, &a, json!({ "name": "a", "message_template": "x" })).await;
    let id: Uuid = made["id"].as_str().unwrap().parse().unwrap();
    let mut tx = app.state().db.system().await.unwrap();
    wasel_db::templates::record_use(&mut tx, OrgId(a.id), id)
        .await
        .unwrap();
    wasel_db::templates::record_use(&mut tx, OrgId(b.id), id)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let used = app.get(a.owner(), &path(&made)).await.expect(200);
    assert_eq!(used["usage_count"], 1);
    assert!(used["last_used_at"].is_string());
}
