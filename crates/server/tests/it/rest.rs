//! `/rest/v1`: the dialect over the real schema, each tenant by itself.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use wasel_server::auth::ApiKeyRole;
use wasel_testkit::{Answer, Org, TestApp, meta, wait_until};

const CUSTOMER: &str = "201001234567";

/// A request with the headers given.
async fn ask(
    app: &TestApp,
    method: Method,
    token: Option<&str>,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Answer {
    let mut request = app.request(method, &format!("/rest/v1/{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::of(request).await
}

async fn get(app: &TestApp, token: &str, path: &str) -> Answer {
    ask(app, Method::GET, Some(token), path, &[], None).await
}

/// A write that answers with its rows.
async fn write(app: &TestApp, method: Method, token: &str, path: &str, body: Value) -> Answer {
    let prefer = [("prefer", "return=representation")];
    ask(app, method, Some(token), path, &prefer, Some(body)).await
}

fn service_key(app: &TestApp) -> String {
    app.state()
        .auth
        .tokens
        .issue_key(ApiKeyRole::ServiceRole)
        .unwrap()
}

/// A tenant to whom a customer wrote `body`.
async fn tenant(app: &TestApp, slug: &str, customer: &str, body: &str) -> Org {
    let org = app.org(slug).await;
    let message = meta::text(customer, &format!("wamid.{slug}"), body);
    app.meta_webhook(&org, &meta::change(&org.phone_number_id, message))
        .await
        .expect(200);
    org
}

async fn owner_sql(app: &TestApp, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&app.owner)
        .await
        .unwrap();
}

#[track_caller]
fn refused(answer: Answer, status: u16, code: &str) -> Value {
    let body = answer.expect(status);
    assert_eq!(body["code"], code, "{body}");
    for key in ["code", "message", "details", "hint"] {
        assert!(body.get(key).is_some(), "{key} in {body}");
    }
    body
}

#[tokio::test]
async fn every_name_reads_its_own_tenants_rows_with_what_belongs_to_them() {
    let app = TestApp::start().await;
    let a = tenant(&app, "a", CUSTOMER, "hello a").await;
    let b = tenant(&app, "b", "201001234568", "hello b").await;
    for (path, place, of_a, of_b) in [
        (
            "messages?select=body,conversations(phone_number,contacts(phone_number))",
            "/0/conversations/contacts/phone_number",
            "+201001234567",
            "+201001234568",
        ),
        (
            "conversations?select=*,messages(*)",
            "/0/messages/0/body",
            "hello a",
            "hello b",
        ),
        (
            "contacts?select=name,conversations(messages(body))",
            "/0/conversations/0/messages/0/body",
            "hello a",
            "hello b",
        ),
        (
            "whatsapp_messages?select=*,whatsapp_conversations(*)",
            "/0/whatsapp_conversations/last_message",
            "hello a",
            "hello b",
        ),
        (
            "whatsapp_conversations?select=*,whatsapp_messages(*)",
            "/0/whatsapp_messages/0/content",
            "hello a",
            "hello b",
        ),
        (
            "whatsapp_messages?select=*,conversations(*)",
            "/0/conversations/last_message",
            "hello a",
            "hello b",
        ),
        (
            "chat_messages?select=*,chat_conversations(*)",
            "/0/chat_conversations/last_message",
            "hello a",
            "hello b",
        ),
        (
            "chat_conversations?select=id,chat_messages(content)",
            "/0/chat_messages/0/content",
            "hello a",
            "hello b",
        ),
        (
            "whatsapp_conversations?select=id,n:whatsapp_messages(count)",
            "/0/n/0/count",
            "1",
            "1",
        ),
        (
            "whatsapp_messages?select=content,...whatsapp_conversations(phone_number)",
            "/0/phone_number",
            "+201001234567",
            "+201001234568",
        ),
    ] {
        for (org, expected) in [(&a, of_a), (&b, of_b)] {
            let rows = get(&app, org.owner(), path).await.expect(200);
            assert_eq!(rows.as_array().unwrap().len(), 1, "{path}: {rows}");
            let found = rows
                .pointer(place)
                .unwrap_or_else(|| panic!("{path}: {rows}"));
            let found = found.as_str().map_or(found.to_string(), str::to_owned);
            assert_eq!(found, expected, "{path}");
        }
    }
    // The other documents' tables answer, too.
    for table in [
        "message_logs",
        "notification_queue",
        "whatsapp_sessions",
        "templates",
        "whatsapp_templates",
        "whatsapp_scheduled_messages",
        "scheduled_messages",
        "waba_accounts",
        "phone_numbers?select=*,waba_accounts(*)",
        "profiles",
        "channels",
        "organizations",
        "notifications",
        "consents",
        "bulk_jobs",
        "notification_queue?select=*,template:whatsapp_templates(*)",
        "chat_conversations?select=*,phone_numbers(*)",
    ] {
        for org in [&a, &b] {
            let rows = get(&app, org.owner(), table).await.expect(200);
            let other = if org.id == a.id { &b } else { &a };
            assert!(
                !rows.to_string().contains(&other.id.to_string()),
                "{table}: {rows}"
            );
        }
    }
}

#[tokio::test]
async fn filters_order_pages_and_counts_are_postgrests() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let contacts: Vec<_> = (1..=5)
        .map(|n| json!({ "name": format!("Person {n}"), "attributes": { "rank": n, "of": ["x", n.to_string()] } }))
        .collect();
    let made = write(
        &app,
        Method::POST,
        org.owner(),
        "contacts?select=name,id",
        json!(contacts),
    )
    .await;
    assert_eq!(made.expect(201).as_array().unwrap().len(), 5);
    for (query, names) in [
        ("name=eq.Person 1", "1"),
        ("name=neq.Person 1&order=name.desc", "5432"),
        ("name=in.(\"Person 1\",\"Person 4\",x)&order=name", "14"),
        ("name=like.*2", "2"),
        ("name=ilike.person*&order=name.desc&limit=2", "54"),
        ("name=like(any).{*1,*2}&order=name", "12"),
        ("name=match.[34]$&order=name", "34"),
        ("attributes->>rank=gte.4&order=name", "45"),
        ("attributes->rank=eq.3", "3"),
        ("attributes=cs.{\"of\":[\"2\"]}", "2"),
        (
            "or=(name.eq.Person 1,and(name.like.*2,email.is.null))&order=name",
            "12",
        ),
        ("not.or=(name.like.*1,name.like.*2)&order=name", "345"),
        ("name=plfts(simple).person 3", "3"),
        (
            "name=not.is.null&order=attributes->rank.desc&offset=1&limit=2",
            "43",
        ),
        ("email=isdistinct.x&order=name&limit=1", "1"),
    ] {
        let rows = get(&app, org.owner(), &format!("contacts?{query}"))
            .await
            .expect(200);
        let found: String = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["name"].as_str().unwrap().replace("Person ", ""))
            .collect();
        assert_eq!(found, names, "{query}");
    }
    let count = [("prefer", "count=exact")];
    let page = ask(
        &app,
        Method::GET,
        Some(org.owner()),
        "contacts?limit=2&offset=1",
        &count,
        None,
    )
    .await;
    assert_eq!((page.status, page.header("content-range")), (206, "1-2/5"));
    assert_eq!(page.header("preference-applied"), "count=exact");
    let whole = ask(
        &app,
        Method::HEAD,
        Some(org.owner()),
        "contacts",
        &count,
        None,
    )
    .await;
    assert_eq!(
        (
            whole.status,
            whole.header("content-range"),
            whole.text.as_str()
        ),
        (200, "0-4/5", "")
    );
    let beyond = ask(
        &app,
        Method::GET,
        Some(org.owner()),
        "contacts?offset=9",
        &count,
        None,
    )
    .await;
    refused(beyond, 416, "PGRST103");
    let range = [("range", "3-9"), ("range-unit", "items")];
    let rest = ask(
        &app,
        Method::GET,
        Some(org.owner()),
        "contacts",
        &range,
        None,
    )
    .await;
    assert_eq!(rest.header("content-range"), "3-4/*");

    let csv = [("accept", "text/csv")];
    let text = ask(
        &app,
        Method::GET,
        Some(org.owner()),
        "contacts?select=n:name,email&order=name&limit=2",
        &csv,
        None,
    )
    .await;
    assert_eq!(text.text, "n,email\n\"Person 1\",\n\"Person 2\",");
    assert!(text.header("content-type").starts_with("text/csv"));

    let single = [("accept", "application/vnd.pgrst.object+json")];
    let one = ask(
        &app,
        Method::GET,
        Some(org.owner()),
        "contacts?select=name&name=like.*1",
        &single,
        None,
    )
    .await;
    assert_eq!(one.expect(200), json!({ "name": "Person 1" }));
    let many = ask(
        &app,
        Method::GET,
        Some(org.owner()),
        "contacts",
        &single,
        None,
    )
    .await;
    assert_eq!(
        refused(many, 406, "PGRST116")["details"],
        "The result contains 5 rows"
    );
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_postgrests_shape() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    for (path, status, code) in [
        ("nothing", 404, "PGRST205"),
        ("outbox", 404, "PGRST205"),
        ("channel_secrets", 404, "PGRST205"),
        ("contacts?nothing=eq.1", 400, "42703"),
        ("contacts?select=nothing", 400, "42703"),
        ("contacts?id=eq.x", 400, "22P02"),
        ("contacts?id=x", 400, "PGRST100"),
        ("contacts?select=messages(*)", 400, "PGRST200"),
        ("contacts?name=fts(nothing).x", 400, "42704"),
        ("contacts?id=like.x", 404, "42883"),
        ("contacts?name=match.[", 400, "2201B"),
        ("contacts?name=eq.a%00b", 400, "PGRST100"),
        ("rpc/nothing", 404, "PGRST202"),
        ("a/b", 404, "PGRST125"),
    ] {
        refused(get(&app, org.owner(), path).await, status, code);
    }
    for (body, code) in [
        (json!({ "nothing": 1 }), "PGRST204"),
        (json!([{ "name": "x" }, { "email": "x" }]), "PGRST102"),
        (json!({ "org_id": "x" }), "22P02"),
        (json!({ "name": "x", "attributes": null }), "23502"),
    ] {
        refused(
            write(&app, Method::POST, org.owner(), "contacts", body).await,
            400,
            code,
        );
    }
    let orphan = json!({ "kind": "phone", "value": "+1", "contact_id": Uuid::now_v7() });
    refused(
        write(
            &app,
            Method::POST,
            org.owner(),
            "contact_identities",
            orphan,
        )
        .await,
        409,
        "23503",
    );
    let twice = json!({ "id": Uuid::now_v7(), "name": "x" });
    write(&app, Method::POST, org.owner(), "contacts", twice.clone())
        .await
        .expect(201);
    refused(
        write(&app, Method::POST, org.owner(), "contacts", twice).await,
        409,
        "23505",
    );
    refused(
        write(
            &app,
            Method::PATCH,
            org.owner(),
            "contacts",
            json!({ "name": "y" }),
        )
        .await,
        400,
        "21000",
    );
    let all = ask(
        &app,
        Method::DELETE,
        Some(org.owner()),
        "contacts",
        &[],
        None,
    )
    .await;
    assert_eq!(
        refused(all, 400, "21000")["message"],
        "DELETE requires a WHERE clause"
    );
    let profile = [("accept-profile", "auth")];
    refused(
        ask(
            &app,
            Method::GET,
            Some(org.owner()),
            "contacts",
            &profile,
            None,
        )
        .await,
        406,
        "PGRST106",
    );
    let form = [("accept", "image/png")];
    refused(
        ask(
            &app,
            Method::GET,
            Some(org.owner()),
            "contacts",
            &form,
            None,
        )
        .await,
        406,
        "PGRST107",
    );
    refused(
        ask(&app, Method::PUT, Some(org.owner()), "contacts", &[], None).await,
        405,
        "PGRST117",
    );
    let text = app
        .request(Method::POST, "/rest/v1/contacts")
        .bearer_auth(org.owner())
        .header("content-type", "text/plain")
        .body("x");
    refused(Answer::of(text).await, 415, "PGRST102");
}

#[tokio::test]
async fn a_stranger_is_told_to_sign_in_and_a_bad_token_is_no_stranger() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let anon = app.state().auth.tokens.issue_key(ApiKeyRole::Anon).unwrap();
    for token in [None, Some(anon.as_str()), Some("sb_publishable_abc")] {
        let answer = ask(&app, Method::GET, token, "conversations", &[], None).await;
        refused(answer, 401, "42501");
        let answer = ask(
            &app,
            Method::POST,
            token,
            "contacts",
            &[],
            Some(json!({ "name": "x" })),
        )
        .await;
        refused(answer, 401, "42501");
        let answer = ask(&app, Method::GET, token, "", &[], None).await;
        refused(answer, 401, "42501");
    }
    for token in ["a.b.c", "sb_secret_wrong", "x"] {
        refused(get(&app, token, "conversations").await, 401, "PGRST301");
    }
    let mut forged = org.owner().to_owned();
    forged.replace_range(forged.len() - 6.., "AAAAAA");
    refused(get(&app, &forged, "conversations").await, 401, "PGRST301");

    let claims = json!({ "sub": org.people.owner, "role": "authenticated", "aud": "authenticated", "exp": 1_700_000_000 });
    let secret = app.state().config.auth.jwt_secret.as_ref().unwrap();
    let signer = jsonwebtoken::EncodingKey::from_secret(secret.expose().as_bytes());
    let expired = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &signer).unwrap();
    let error = refused(get(&app, &expired, "conversations").await, 401, "PGRST303");
    assert_eq!(error["message"], "JWT expired");
}

#[tokio::test]
async fn no_write_reaches_another_tenant() {
    let app = TestApp::start().await;
    let a = tenant(&app, "a", CUSTOMER, "hello a").await;
    let b = tenant(&app, "b", "201001234568", "hello b").await;
    let rows = get(
        &app,
        a.owner(),
        "whatsapp_messages?select=id,conversation_id",
    )
    .await
    .expect(200);
    let (message, conversation) = (
        rows[0]["id"].as_str().unwrap(),
        rows[0]["conversation_id"].as_str().unwrap(),
    );
    let contact = get(&app, a.owner(), "contacts").await.expect(200)[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let template =
        json!({ "name": "greeting", "message_template": "Hello {{name}}", "category": "custom" });
    let template = write(
        &app,
        Method::POST,
        a.owner(),
        "whatsapp_templates",
        template,
    )
    .await
    .expect(201);
    let template = template[0]["id"].as_str().unwrap();
    let before = app.count("SELECT hashtext(string_agg(t::text, '|' ORDER BY t::text))::int8 FROM (SELECT to_jsonb(m) AS t FROM messages m \
        UNION ALL SELECT to_jsonb(c) FROM conversations c UNION ALL SELECT to_jsonb(c) FROM contacts c UNION ALL SELECT to_jsonb(t) FROM templates t) x").await;
    for (path, body) in [
        (format!("messages?id=eq.{message}"), json!({ "body": "x" })),
        (
            format!("whatsapp_messages?id=eq.{message}"),
            json!({ "content": "x" }),
        ),
        (
            format!("message_logs?id=eq.{message}"),
            json!({ "status": "read" }),
        ),
        (
            format!("conversations?id=eq.{conversation}"),
            json!({ "notes": "x" }),
        ),
        (
            format!("conversations?org_id=eq.{}", a.id),
            json!({ "notes": "x" }),
        ),
        (format!("contacts?id=eq.{contact}"), json!({ "name": "x" })),
        (
            format!("whatsapp_templates?id=eq.{template}"),
            json!({ "name": "x" }),
        ),
        (
            "contacts?or=(name.is.null,name.not.is.null)&phone_number=eq.%2B201001234567"
                .to_owned(),
            json!({ "name": "x" }),
        ),
    ] {
        let changed = write(&app, Method::PATCH, b.owner(), &path, body).await;
        assert_eq!(changed.expect(200), json!([]), "{path}");
        let deleted = ask(
            &app,
            Method::DELETE,
            Some(b.owner()),
            &path,
            &[("prefer", "return=representation")],
            None,
        )
        .await;
        assert_eq!(deleted.expect(200), json!([]), "{path}");
    }
    for (table, body) in [
        ("contacts", json!({ "org_id": a.id, "name": "forged" })),
        (
            "whatsapp_templates",
            json!({ "org_id": a.id, "name": "forged", "message_template": "x" }),
        ),
        (
            "notification_queue",
            json!({ "org_id": a.id, "recipient_phone": "+201001234567", "message_data": { "message": "x" } }),
        ),
    ] {
        refused(
            write(&app, Method::POST, b.owner(), table, body).await,
            403,
            "42501",
        );
    }
    let merge = [("prefer", "resolution=merge-duplicates")];
    let body = json!({ "org_id": a.id, "id": contact, "name": "forged" });
    let answer = ask(
        &app,
        Method::POST,
        Some(b.owner()),
        "contacts",
        &merge,
        Some(body),
    )
    .await;
    refused(answer, 403, "42501");
    let into = json!({ "conversation_id": conversation, "content": "x", "status": "sent" });
    refused(
        write(&app, Method::POST, b.owner(), "whatsapp_messages", into).await,
        409,
        "23503",
    );
    let named = [("x-org-id", a.id.to_string())];
    let named: Vec<_> = named.iter().map(|(n, v)| (*n, v.as_str())).collect();
    refused(
        ask(&app, Method::GET, Some(b.owner()), "contacts", &named, None).await,
        403,
        "not_a_member",
    );
    let after = app.count("SELECT hashtext(string_agg(t::text, '|' ORDER BY t::text))::int8 FROM (SELECT to_jsonb(m) AS t FROM messages m \
        UNION ALL SELECT to_jsonb(c) FROM conversations c UNION ALL SELECT to_jsonb(c) FROM contacts c UNION ALL SELECT to_jsonb(t) FROM templates t) x").await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_role_may_do_here_what_it_may_elsewhere() {
    let app = TestApp::start().await;
    let org = tenant(&app, "a", CUSTOMER, "hello").await;
    let viewer = &org.people.viewer_token;
    assert_eq!(
        get(&app, viewer, "conversations")
            .await
            .expect(200)
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let path = "conversations?status=eq.active";
    assert_eq!(
        write(&app, Method::PATCH, viewer, path, json!({ "notes": "x" }))
            .await
            .expect(200),
        json!([])
    );
    refused(
        write(
            &app,
            Method::POST,
            viewer,
            "contacts",
            json!({ "name": "x" }),
        )
        .await,
        403,
        "42501",
    );
    assert_eq!(
        write(
            &app,
            Method::PATCH,
            org.agent(),
            path,
            json!({ "notes": "x" })
        )
        .await
        .expect(200)[0]["notes"],
        "x"
    );
    refused(
        write(
            &app,
            Method::PATCH,
            org.owner(),
            "profiles?role=eq.agent",
            json!({ "role": "owner" }),
        )
        .await,
        403,
        "42501",
    );
}

#[tokio::test]
async fn the_operators_key_sees_all_tenants_or_the_one_it_names() {
    let app = TestApp::start().await;
    let a = tenant(&app, "a", CUSTOMER, "hello a").await;
    let b = tenant(&app, "b", "201001234568", "hello b").await;
    // The same ids in both tenants: what belongs together is of one tenant.
    owner_sql(
        &app,
        &format!(
            "INSERT INTO contacts (org_id, id, name) SELECT '{0}', id, 'same id' FROM contacts WHERE org_id = '{1}';
             INSERT INTO conversations (org_id, id, channel_id, contact_id, notes)
             SELECT '{0}', id, '{2}', contact_id, 'same id' FROM conversations WHERE org_id = '{1}'",
            b.id, a.id, b.sms
        ),
    )
    .await;
    let key = service_key(&app);
    let rows = get(
        &app,
        &key,
        "messages?select=org_id,conversations(org_id,contacts(org_id))",
    )
    .await
    .expect(200);
    assert_eq!(rows.as_array().unwrap().len(), 2, "{rows}");
    for row in rows.as_array().unwrap() {
        assert_eq!(row["org_id"], row["conversations"]["org_id"]);
        assert_eq!(row["org_id"], row["conversations"]["contacts"]["org_id"]);
    }
    let org = a.id.to_string();
    let named = [("x-org-id", org.as_str())];
    let rows = ask(
        &app,
        Method::GET,
        Some(&key),
        "messages?select=org_id",
        &named,
        None,
    )
    .await
    .expect(200);
    assert_eq!(rows, json!([{ "org_id": a.id }]));
    let document = get(&app, &key, "").await.expect(200);
    assert!(document["definitions"]["whatsapp_messages"]["properties"]["content"].is_object());
    refused(get(&app, a.owner(), "").await, 403, "42501");
}

#[tokio::test]
async fn rows_are_inserted_merged_changed_and_deleted() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let id = Uuid::now_v7();
    let upsert = async |prefer: &str, query: &str, name: &str| {
        let prefer = format!("return=representation,{prefer}");
        let body = json!([{ "id": id, "name": name }]);
        let path = format!("contacts?select=name&{query}");
        ask(
            &app,
            Method::POST,
            Some(org.owner()),
            &path,
            &[("prefer", &prefer)],
            Some(body),
        )
        .await
    };
    let made = upsert("resolution=merge-duplicates", "", "one").await;
    assert_eq!(made.expect(201), json!([{ "name": "one" }]));
    let merged = upsert("resolution=merge-duplicates", "on_conflict=id", "two").await;
    assert_eq!(merged.expect(200), json!([{ "name": "two" }]));
    let ignored = upsert("resolution=ignore-duplicates", "on_conflict=id", "three").await;
    assert_eq!(ignored.expect(201), json!([]));
    // Defaults where a row has no such key, if the caller wants them; else null.
    let rows = json!([{ "name": "a" }, { "name": "b", "attributes": { "x": 1 } }]);
    let path = "contacts?columns=\"name\",\"attributes\"&select=attributes";
    refused(
        write(&app, Method::POST, org.owner(), path, rows.clone()).await,
        400,
        "23502",
    );
    let prefer = [("prefer", "missing=default,return=representation")];
    let made = ask(
        &app,
        Method::POST,
        Some(org.owner()),
        path,
        &prefer,
        Some(rows),
    )
    .await;
    assert_eq!(
        made.expect(201),
        json!([{ "attributes": {} }, { "attributes": { "x": 1 } }])
    );

    let change = async |prefer: &str| {
        let body = Some(json!({ "name": "changed" }));
        ask(
            &app,
            Method::PATCH,
            Some(org.owner()),
            "contacts?name=not.is.null",
            &[("prefer", prefer)],
            body,
        )
        .await
    };
    refused(
        change("handling=strict,max-affected=2").await,
        400,
        "PGRST124",
    );
    assert_eq!(change("tx=rollback").await.status, 204);
    let single = [
        ("prefer", "return=representation"),
        ("accept", "application/vnd.pgrst.object+json"),
    ];
    let several = ask(
        &app,
        Method::PATCH,
        Some(org.owner()),
        "contacts?name=not.is.null",
        &single,
        Some(json!({ "name": "changed" })),
    )
    .await;
    refused(several, 406, "PGRST116");
    assert_eq!(
        app.count("SELECT count(*) FROM contacts WHERE name = 'changed'")
            .await,
        0,
        "all three are undone"
    );
    let changed = change("count=exact").await;
    assert_eq!(
        (
            changed.status,
            changed.header("content-range"),
            changed.text.as_str()
        ),
        (204, "0-2/3", "")
    );
    assert_eq!(
        app.count("SELECT count(*) FROM contacts WHERE name = 'changed'")
            .await,
        3
    );
    let deleted = ask(
        &app,
        Method::DELETE,
        Some(org.owner()),
        &format!("contacts?id=eq.{id}"),
        &[],
        None,
    )
    .await;
    assert_eq!(deleted.status, 204);
    assert_eq!(app.count("SELECT count(*) FROM contacts").await, 2);
}

#[tokio::test]
async fn a_function_made_later_is_found_and_runs_as_the_caller() {
    let app = TestApp::start().await;
    let a = tenant(&app, "a", CUSTOMER, "hello a").await;
    let b = tenant(&app, "b", "201001234568", "hello b").await;
    refused(get(&app, a.owner(), "rpc/threads").await, 404, "PGRST202");
    owner_sql(
        &app,
        "CREATE FUNCTION public.threads(wanted text DEFAULT 'active') RETURNS SETOF conversations LANGUAGE sql STABLE
             AS $$ SELECT * FROM conversations WHERE status = wanted $$;
         CREATE FUNCTION public.add_up(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT a + b $$;
         CREATE FUNCTION public.pairs(list text[]) RETURNS TABLE (place bigint, word text) LANGUAGE sql IMMUTABLE
             AS $$ SELECT ordinality, unnest FROM unnest(list) WITH ORDINALITY $$;
         CREATE FUNCTION public.annotate(text text) RETURNS void LANGUAGE sql
             AS $$ UPDATE conversations SET notes = text $$;
         CREATE FUNCTION public.teapot() RETURNS void LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'short and stout' USING ERRCODE = 'PT418', HINT = 'tip me over'; END $$;
         CREATE FUNCTION public.dream() RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(600) $$",
    )
    .await;
    // Looked for at most once a second.
    wait_until("the function is known", async || {
        (get(&app, a.owner(), "rpc/threads").await.status == 200).then_some(())
    })
    .await;
    for (org, body) in [(&a, "hello a"), (&b, "hello b")] {
        let rows = get(
            &app,
            org.owner(),
            "rpc/threads?select=last_message,messages(body)&wanted=active&order=id",
        )
        .await
        .expect(200);
        assert_eq!(
            rows,
            json!([{ "last_message": body, "messages": [{ "body": body }] }])
        );
        let rows = write(
            &app,
            Method::POST,
            org.owner(),
            "rpc/threads?last_message=eq.x",
            json!({}),
        )
        .await
        .expect(200);
        assert_eq!(rows, json!([]));
    }
    let call = async |name: &str, body: Value| {
        write(&app, Method::POST, a.owner(), &format!("rpc/{name}"), body).await
    };
    assert_eq!(
        call("add_up", json!({ "a": 2, "b": 40 })).await.expect(200),
        json!(42)
    );
    assert_eq!(
        get(&app, a.owner(), "rpc/add_up?a=2&b=40")
            .await
            .expect(200),
        json!(42)
    );
    let rows = call(
        "pairs?select=word&place=gt.1",
        json!({ "list": ["x", "y"] }),
    )
    .await
    .expect(200);
    assert_eq!(rows, json!([{ "word": "y" }]));
    let rows = get(&app, a.owner(), "rpc/pairs?list={x,y}&place=eq.1")
        .await
        .expect(200);
    assert_eq!(rows, json!([{ "place": 1, "word": "x" }]));
    let void = call("annotate", json!({ "text": "seen" })).await;
    assert_eq!((void.status, void.text.as_str()), (204, ""));
    assert_eq!(
        app.count("SELECT count(*) FROM conversations WHERE notes = 'seen'")
            .await,
        1,
        "A's only"
    );
    refused(
        get(&app, a.owner(), "rpc/annotate?text=x").await,
        405,
        "25006",
    );
    assert_eq!(
        refused(call("teapot", json!({})).await, 418, "PT418")["hint"],
        "tip me over"
    );
    refused(call("add_up", json!({ "a": 1 })).await, 404, "PGRST202");
    // A stranger may call it, and it reads nothing for them.
    refused(
        ask(&app, Method::GET, None, "rpc/threads", &[], None).await,
        401,
        "42501",
    );
    refused(
        ask(&app, Method::POST, None, "rpc/dream", &[], Some(json!({}))).await,
        500,
        "57014",
    );
}

#[tokio::test]
async fn a_page_and_its_relations_are_never_longer_than_the_servers_limit() {
    let app = TestApp::builder()
        .configure(|config| config.limits.rest_max_rows = 3.try_into().unwrap())
        .start()
        .await;
    let org = app.org("a").await;
    let contacts: Vec<_> = (0..5).map(|n| json!({ "name": n.to_string() })).collect();
    write(&app, Method::POST, org.owner(), "contacts", json!(contacts))
        .await
        .expect(201);
    for query in ["", "?limit=100"] {
        let rows = get(&app, org.owner(), &format!("contacts{query}"))
            .await
            .expect(200);
        assert_eq!(rows.as_array().unwrap().len(), 3);
    }
    let rows = get(&app, org.owner(), "organizations?select=contacts(id)")
        .await
        .expect(200);
    assert_eq!(rows[0]["contacts"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_queue_row_posted_here_is_sent() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let row = json!({ "notification_type": "sms", "recipient_phone": "+201001234567",
        "message_data": { "message": "from the table" }, "priority": 3 });
    let row = write(
        &app,
        Method::POST,
        org.owner(),
        "notification_queue?select=id,org_id,status",
        row,
    )
    .await
    .expect(201);
    assert_eq!(
        (&row[0]["org_id"], &row[0]["status"]),
        (&json!(org.id), &json!("pending"))
    );
    app.wait_count("SELECT count(*) FROM messages WHERE body = 'from the table' AND status IN ('sent', 'delivered')", 1)
        .await;
}

#[tokio::test]
async fn a_tenant_whose_requests_take_long_stops_no_other() {
    let app = TestApp::start().await;
    let (a, b) = (app.org("a").await, app.org("b").await);
    owner_sql(
        &app,
        "CREATE FUNCTION public.dawdle() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock(4242) $$",
    )
    .await;
    let mut gate = app.owner.acquire().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(4242)")
        .execute(&mut *gate)
        .await
        .unwrap();
    // More than there are connections.
    let dawdling: Vec<_> = (0..12)
        .map(|_| {
            let request = app.request(Method::POST, "/rest/v1/rpc/dawdle");
            let request = request.bearer_auth(a.owner()).json(&json!({}));
            tokio::spawn(Answer::of(request))
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4242 AND NOT granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    app.wait_count(waiting, 2).await;
    get(&app, b.owner(), "contacts").await.expect(200);
    assert_eq!(app.count(waiting).await, 2, "a quarter of the connections");
    sqlx::query("SELECT pg_advisory_unlock(4242)")
        .execute(&mut *gate)
        .await
        .unwrap();
    let mut served = 0;
    for answer in dawdling {
        let answer = answer.await.unwrap();
        if answer.status == 204 {
            served += 1;
        } else {
            refused(answer, 504, "PGRST003");
        }
    }
    assert!(served >= 2, "{served}");
}

#[tokio::test]
async fn a_function_whose_rows_are_counted_runs_once() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    owner_sql(
        &app,
        "CREATE FUNCTION public.add_contact(label text) RETURNS SETOF contacts LANGUAGE sql
             AS $$ INSERT INTO contacts (name) VALUES (label) RETURNING * $$",
    )
    .await;
    let made = ask(
        &app,
        Method::POST,
        Some(org.owner()),
        "rpc/add_contact?select=name",
        &[("prefer", "count=exact")],
        Some(json!({ "label": "once" })),
    )
    .await;
    assert_eq!(made.header("content-range"), "0-0/1");
    assert_eq!(made.expect(200), json!([{ "name": "once" }]));
    assert_eq!(
        app.count("SELECT count(*) FROM contacts WHERE name = 'once'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_plain_view_has_the_keys_and_defaults_of_its_table() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let upsert = async |query: &str, body: Value| {
        let prefer = "resolution=merge-duplicates,missing=default,return=representation";
        let path = format!("whatsapp_settings?select=id,key,value&order=key&{query}");
        let prefer = [("prefer", prefer)];
        ask(
            &app,
            Method::POST,
            Some(org.owner()),
            &path,
            &prefer,
            Some(body),
        )
        .await
    };
    let first = upsert("on_conflict=key", json!({ "key": "hours", "value": 8 }))
        .await
        .expect(201);
    let second = upsert("on_conflict=key", json!({ "key": "hours", "value": 9 }))
        .await
        .expect(201);
    assert_eq!(
        (&second[0]["id"], &second[0]["value"]),
        (&first[0]["id"], &json!(9))
    );
    let by_id = json!({ "id": first[0]["id"], "key": "hours", "value": 10 });
    let third = upsert("", by_id).await.expect(201);
    assert_eq!(third[0]["value"], 10);
    // Without its id it is a new row, whose name is taken.
    refused(
        upsert("", json!({ "key": "hours", "value": 11 })).await,
        409,
        "23505",
    );
    assert_eq!(app.count("SELECT count(*) FROM settings").await, 1);

    // The default of `value` is JSON's null, which is not SQL's.
    for table in ["settings", "whatsapp_settings"] {
        let made = ask(
            &app,
            Method::POST,
            Some(org.owner()),
            &format!("{table}?columns=\"key\",\"value\"&select=value"),
            &[("prefer", "missing=default,return=representation")],
            Some(json!([{ "key": format!("{table}.a") }, { "key": format!("{table}.b"), "value": 1 }])),
        )
        .await;
        assert_eq!(
            made.expect(201),
            json!([{ "value": null }, { "value": 1 }]),
            "{table}"
        );
    }
    assert_eq!(
        app.count("SELECT count(*) FROM settings WHERE value = 'null'::jsonb")
            .await,
        2
    );
}

#[tokio::test]
async fn what_the_server_records_is_read_and_not_made_up() {
    let app = TestApp::start().await;
    let org = tenant(&app, "a", CUSTOMER, "hello a").await;
    for table in [
        "automation_deliveries",
        "automation_runs",
        "invitations",
        "message_events",
        "storage_objects",
    ] {
        for token in [org.owner(), &service_key(&app)] {
            get(&app, token, table).await.expect(200);
            let row = json!({ "org_id": org.id });
            let made = write(&app, Method::POST, token, table, row.clone()).await;
            refused(made, 403, "42501");
            let path = format!("{table}?org_id=eq.{}", org.id);
            let changed = write(&app, Method::PATCH, token, &path, row).await;
            refused(changed, 403, "42501");
            let deleted = ask(&app, Method::DELETE, Some(token), &path, &[], None).await;
            refused(deleted, 403, "42501");
        }
        let row = Some(json!({ "org_id": org.id }));
        let stranger = ask(&app, Method::POST, None, table, &[], row).await;
        refused(stranger, 401, "42501");
    }
}

#[tokio::test]
async fn nul_is_the_callers_fault() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    for path in [
        "contacts?select=%22a%00b%22:id",
        "contacts?name=eq.a%00b",
        "rpc/nothing?a=%00",
    ] {
        refused(get(&app, org.owner(), path).await, 400, "PGRST100");
    }
    for row in [
        json!({ "name": "a\0b" }),
        json!({ "attributes": { "a": "\0" } }),
    ] {
        refused(
            write(&app, Method::POST, org.owner(), "contacts", row).await,
            400,
            "22P05",
        );
    }
}
