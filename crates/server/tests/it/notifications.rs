//! Notifications: whose they are, who may make them, and that they arrive.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;
use wasel_testkit::{Answer, Org, TestApp};

use crate::tenancy::{next, subscribe};

async fn tell(app: &TestApp, org: &Org, body: Value) -> Value {
    app.post(org.owner(), "/v1/notifications", &body)
        .await
        .expect(201)
}

/// The titles and the number of unread ones.
async fn titles(app: &TestApp, token: &str, query: &str) -> (Vec<String>, i64) {
    let page = app
        .get(token, &format!("/v1/notifications{query}"))
        .await
        .expect(200);
    let titles = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["title"].as_str().unwrap().to_owned())
        .collect();
    (titles, page["unread"].as_i64().unwrap())
}

async fn mark(app: &TestApp, token: &str, body: Value) -> i64 {
    app.post(token, "/v1/notifications/read", &body)
        .await
        .expect(200)["updated"]
        .as_i64()
        .unwrap()
}

async fn remove(app: &TestApp, token: &str, row: &Value) -> u16 {
    let path = format!("/v1/notifications/{}", row["id"].as_str().unwrap());
    Answer::of(app.request(Method::DELETE, &path).bearer_auth(token))
        .await
        .status
}

/// One for the managers, one for the agent, one for the viewer.
async fn three(app: &TestApp, org: &Org) -> [Value; 3] {
    [
        tell(app, org, json!({ "title": "managers" })).await,
        tell(
            app,
            org,
            json!({ "title": "agent", "user_id": org.people.agent, "kind": "assigned" }),
        )
        .await,
        tell(
            app,
            org,
            json!({ "title": "viewer", "user_id": org.people.viewer }),
        )
        .await,
    ]
}

#[tokio::test]
async fn everybody_sees_their_own_and_managers_what_is_for_managers() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    three(&app, &org).await;
    let own = |title: &str| (vec![title.to_owned()], 1);
    assert_eq!(titles(&app, org.owner(), "").await, own("managers"));
    assert_eq!(titles(&app, org.agent(), "").await, own("agent"));
    assert_eq!(
        titles(&app, org.people.viewer_token.as_str(), "").await,
        own("viewer")
    );
    let (all, unread) = titles(&app, org.owner(), "?all=true").await;
    assert_eq!(
        (all, unread),
        (vec!["viewer".into(), "agent".into(), "managers".into()], 3)
    );
    assert_eq!(
        titles(&app, org.owner(), "?all=true&kind=assigned").await,
        (vec!["agent".into()], 3)
    );
    for token in [org.agent(), org.people.viewer_token.as_str()] {
        app.get(token, "/v1/notifications?all=true")
            .await
            .expect(403);
    }
}

#[tokio::test]
async fn a_notification_is_answered_as_it_was_made() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let body = json!({ "user_id": org.people.agent, "kind": "stock.low", "level": "warning", "title": "نفد المخزون",
        "body": "b", "advice": "order more", "data": { "sku": 7 } });
    let made = tell(&app, &org, body.clone()).await;
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&made[field], value, "{field}");
    }
    assert_eq!(made["read_at"], Value::Null);
    let made = tell(&app, &org, json!({ "title": "t" })).await;
    assert_eq!(
        (
            &made["kind"],
            &made["level"],
            &made["user_id"],
            &made["data"]
        ),
        (&json!("custom"), &json!("info"), &Value::Null, &json!({}))
    );
}

#[tokio::test]
async fn the_operators_server_tells_people_things_and_sees_what_managers_share() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let config = app.state().config.clone();
    let key = config.auth.supabase_service_role_key.as_ref().unwrap();
    let ask = async |method: Method, path: &str, body: Value| {
        let request = app
            .request(method, path)
            .bearer_auth(key.expose())
            .header("x-org-id", org.id.to_string());
        Answer::of(request.json(&body)).await
    };
    for user in [Value::Null, json!(org.people.agent)] {
        let body = json!({ "title": "backup done", "user_id": user });
        ask(Method::POST, "/v1/notifications", body)
            .await
            .expect(201);
    }
    let seen = ask(Method::GET, "/v1/notifications", Value::Null)
        .await
        .expect(200);
    assert_eq!(seen["data"].as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(seen["data"][0]["user_id"], Value::Null);
    let read = ask(
        Method::POST,
        "/v1/notifications/read",
        json!({ "all": true }),
    )
    .await;
    assert_eq!(read.expect(200)["updated"], 1);
    assert_eq!(titles(&app, org.agent(), "").await.1, 1);
}

#[tokio::test]
async fn the_escape_of_nul_as_a_text_is_no_nul() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let data = json!({ "pattern": r"\u0000" });
    let made = tell(&app, &org, json!({ "title": "x", "data": data })).await;
    assert_eq!(made["data"], data);
}

#[tokio::test]
async fn who_may_not_or_says_it_wrong_is_refused() {
    let app = TestApp::start().await;
    let (org, other) = (app.org("a").await, app.org("b").await);
    for token in [org.agent(), org.people.viewer_token.as_str()] {
        app.post(token, "/v1/notifications", &json!({ "title": "x" }))
            .await
            .expect(403);
    }
    let cases = [
        (json!({}), "title"),
        (json!({ "title": " " }), "title"),
        (json!({ "title": "x".repeat(201) }), "title"),
        (json!({ "title": "x", "kind": "Bad Kind" }), "kind"),
        (json!({ "title": "x", "level": "loud" }), "level"),
        (json!({ "title": "x", "body": "x".repeat(4001) }), "body"),
        (json!({ "title": "x", "advice": "\u{0}" }), "advice"),
        (
            json!({ "title": "x", "data": { "a": "x".repeat(17_000) } }),
            "data",
        ),
        (json!({ "title": "x", "data": { "a": "\u{0}" } }), "data"),
        (json!({ "title": "x", "data": { "a\u{0}": [] } }), "data"),
        (
            json!({ "title": "x", "data": { "a": [{ "b": "\u{0}" }] } }),
            "data",
        ),
        (
            json!({ "title": "x", "user_id": other.people.owner }),
            "user_id",
        ),
        (
            json!({ "title": "x", "user_id": Uuid::now_v7() }),
            "user_id",
        ),
    ];
    for (body, field) in cases {
        let answer = app
            .post(org.owner(), "/v1/notifications", &body)
            .await
            .expect(400);
        assert_eq!(answer["error"]["field"], field, "{answer}");
    }
    let answer = app
        .get(org.owner(), "/v1/notifications?kind=a%00b")
        .await
        .expect(400);
    assert_eq!(answer["error"]["field"], "kind", "{answer}");
    for body in [
        json!({}),
        json!({ "all": false }),
        json!({ "ids": [], "all": true }),
        json!({ "ids": vec![Uuid::nil(); 1001] }),
    ] {
        let answer = app
            .post(org.owner(), "/v1/notifications/read", &body)
            .await
            .expect(400);
        assert_eq!(answer["error"]["field"], "ids", "{answer}");
    }
    assert_eq!(app.count("SELECT count(*) FROM notifications").await, 0);
}

#[tokio::test]
async fn reading_and_removing_touch_ones_own_only() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let [managers, agents, viewers] = three(&app, &org).await;
    let ids = json!({ "ids": [managers["id"], agents["id"], viewers["id"], Uuid::now_v7()] });
    assert_eq!(mark(&app, org.agent(), ids.clone()).await, 1);
    assert_eq!(
        mark(&app, org.agent(), ids.clone()).await,
        0,
        "read already"
    );
    assert_eq!(titles(&app, org.agent(), "?unread=true").await, (vec![], 0));
    assert_eq!(
        titles(&app, org.agent(), "").await,
        (vec!["agent".into()], 0)
    );
    assert_eq!(
        titles(&app, org.people.viewer_token.as_str(), "").await.1,
        1
    );
    assert_eq!(
        mark(
            &app,
            org.people.viewer_token.as_str(),
            json!({ "all": true })
        )
        .await,
        1
    );
    assert_eq!(
        titles(&app, org.owner(), "?all=true&unread=true").await,
        (vec!["managers".into()], 1)
    );
    assert_eq!(mark(&app, org.owner(), ids).await, 1);

    assert_eq!(remove(&app, org.agent(), &managers).await, 404);
    assert_eq!(remove(&app, org.agent(), &viewers).await, 404);
    assert_eq!(
        remove(&app, org.owner(), &viewers).await,
        404,
        "not even a manager removes another's"
    );
    assert_eq!(remove(&app, org.agent(), &agents).await, 204);
    assert_eq!(remove(&app, org.agent(), &agents).await, 404);
    assert_eq!(remove(&app, org.owner(), &managers).await, 204);
    assert_eq!(titles(&app, org.owner(), "?all=true").await.0, ["viewer"]);
}

#[tokio::test]
async fn the_list_goes_page_by_page() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    for n in 0..5 {
        tell(&app, &org, json!({ "title": n.to_string() })).await;
    }
    // Two of one moment.
    sqlx::query("UPDATE notifications SET created_at = (SELECT min(created_at) FROM notifications) WHERE title IN ('0', '1')")
        .execute(&app.owner)
        .await
        .unwrap();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/notifications?limit=1{cursor}");
        let page = app.get(org.owner(), &path).await.expect(200);
        assert_eq!(page["unread"], 5);
        seen.push(page["data"][0]["title"].as_str().unwrap().to_owned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["4", "3", "2", "1", "0"]);
    app.get(org.owner(), "/v1/notifications?cursor=x")
        .await
        .expect(400);
}

#[tokio::test]
async fn an_agent_limited_to_a_channel_neither_sees_nor_touches_what_is_about_another() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let [_, of_agent, _] = three(&app, &org).await;
    sqlx::query("UPDATE notifications SET channel_id = $1 WHERE title = 'agent'")
        .bind(org.sms)
        .execute(&app.owner)
        .await
        .unwrap();
    sqlx::query("INSERT INTO channel_members (org_id, channel_id, user_id) VALUES ($1, $2, $3)")
        .bind(org.id)
        .bind(org.whatsapp)
        .bind(org.people.agent)
        .execute(&app.owner)
        .await
        .unwrap();
    assert_eq!(titles(&app, org.agent(), "").await, (vec![], 0));
    assert_eq!(mark(&app, org.agent(), json!({ "all": true })).await, 0);
    assert_eq!(remove(&app, org.agent(), &of_agent).await, 404);
}

#[tokio::test]
async fn a_socket_hears_of_a_new_notification_and_of_its_being_read() {
    let app = TestApp::start().await;
    let org = app.org("a").await;
    let bindings = json!([{ "event": "*", "schema": "public", "table": "notifications" }]);
    let mut socket = subscribe(&app, org.agent(), bindings).await;
    let made = tell(
        &app,
        &org,
        json!({ "title": "look", "user_id": org.people.agent }),
    )
    .await;
    let mut change = async || loop {
        let frame = next(&mut socket).await.expect("a change");
        if frame["event"] == "postgres_changes" {
            return frame["payload"]["data"].clone();
        }
    };
    let inserted = change().await;
    assert_eq!(
        (&inserted["type"], &inserted["record"]["id"]),
        (&json!("INSERT"), &made["id"])
    );
    mark(&app, org.agent(), json!({ "all": true })).await;
    let read = change().await;
    assert_eq!(read["type"], "UPDATE");
    assert!(read["record"]["read_at"].is_string(), "{read}");
}
