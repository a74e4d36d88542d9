use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{CUSTOMER, PHONE, SMS, Stage, WABA, account, answer, number, status_of, text};

#[tokio::test]
async fn the_demo_can_be_driven_by_http_alone() {
    let stage = Stage::new().await;
    let put =
        async |path: &str, body: Value| answer(stage.http.put(stage.url(path)).json(&body)).await;
    let post =
        async |path: &str, body: Value| answer(stage.http.post(stage.url(path)).json(&body)).await;
    let get = async |path: &str| answer(stage.http.get(stage.url(path))).await.1;

    // Registering again is fine.
    let url = stage.receiver.url.clone();
    assert_eq!(put("/sim/meta/numbers", number(&url)).await.0, 204);
    assert_eq!(put("/sim/twilio/accounts", account(&url)).await.0, 204);
    assert_eq!(get("/sim/lines").await.as_array().map(Vec::len), Some(3));
    assert_eq!(
        post("/sim/meta/verify", json!({"phone_number_id": PHONE}))
            .await
            .0,
        204
    );
    let templates = get(&format!("/sim/meta/templates?waba_id={WABA}")).await;
    assert_eq!(templates.as_array().map(Vec::len), Some(2));

    let events = stage
        .http
        .get(stage.url("/sim/events"))
        .header("origin", "http://inbox.test");
    let events = events.send().await.expect("stream");
    assert_eq!(events.headers()["access-control-allow-origin"], "*");
    let mut events = events.bytes_stream();

    let (status, sent) = post("/sim/send", json!({"line": PHONE, "from": CUSTOMER, "profile_name": "Mona", "type": "text", "body": "hello"})).await;
    assert_eq!(status, 200, "{sent}");
    let mut seen = String::new();
    while !seen.contains("\"event\":\"message\"") {
        let chunk = events.next().await.expect("stream goes on").expect("chunk");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    let (_, image) = post(
        "/sim/send",
        json!({"line": SMS, "from": CUSTOMER, "type": "image", "caption": "c"}),
    )
    .await;
    assert!(image["id"].as_str().is_some_and(|id| id.starts_with("MM")));

    stage.meta(text("hi", "r1")).await;
    stage
        .receiver
        .wait_for(2, |h| h.body.starts_with(b"{") && status_of(h).is_some())
        .await;
    assert_eq!(
        post("/sim/read", json!({"line": PHONE, "customer": CUSTOMER}))
            .await
            .1["read"],
        1
    );
    let thread = get(&format!(
        "/sim/thread?line={PHONE}&customer=%2B201001234567"
    ))
    .await;
    assert_eq!(thread[0]["text"], "hello");
    assert_eq!(
        (&thread[1]["origin"], &thread[1]["tick"]),
        (&json!("api"), &json!("read"))
    );
    let phones = get("/sim/phones").await;
    assert_eq!(phones[0]["customer"]["name"], "Mona");
    assert_eq!(phones[0]["threads"].as_array().map(Vec::len), Some(2));
    assert!(
        phones[0]["threads"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|t| t["window_closes_at"].is_string())
    );
    assert_eq!(
        get("/sim/accepted?reference=r1")
            .await
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(get("/sim/double-sends").await, json!([]));

    assert_eq!(
        put(
            "/sim/settings",
            json!({"auto_reply": "thanks", "read_after_ms": null})
        )
        .await
        .0,
        200
    );
    assert_eq!(get("/sim/settings").await["delivered_after_ms"], 0);
    stage.meta(text("again", "r2")).await;
    stage
        .receiver
        .wait_for(1, |h| h.body.windows(6).any(|w| w == b"thanks"))
        .await;

    let plan = json!({"seed": 3, "faults": [{"kind": "server_error", "next": 1}]});
    assert_eq!(put("/sim/faults", plan).await.0, 204);
    assert_eq!(stage.meta(text("x", "r3")).await.0, 500);
    assert_eq!(get("/sim/faults").await["faults"][0]["next"], 0);
    assert_eq!(
        answer(stage.http.delete(stage.url("/sim/faults"))).await.0,
        204
    );
    assert_eq!(
        post("/sim/clock/advance", json!({"seconds": 60})).await.0,
        200
    );

    let unknown = post(
        "/sim/send",
        json!({"line": "nobody", "from": CUSTOMER, "type": "text", "body": "x"}),
    )
    .await;
    assert_eq!(
        (unknown.0, &unknown.1["error"]["code"]),
        (404, &json!("unknown_line"))
    );
    assert_eq!(post("/sim/send", json!({"line": PHONE})).await.0, 400);
    let requests = get("/sim/requests").await.to_string();
    assert!(requests.contains("/messages") && !requests.contains("token-of-the-test"));
    stage.simulator.stop().await;
}

#[tokio::test]
async fn old_messages_make_room_for_new_ones() {
    let stage = Stage::new().await;
    let mut settings = stage.world.settings();
    settings.keep_messages = 10;
    settings.keep_requests = 5;
    stage.world.set_settings(settings);
    for n in 0..20 {
        stage.meta_text(&n.to_string(), "r").await;
    }
    let thread = stage.world.thread(PHONE, CUSTOMER, 100);
    assert_eq!(thread.len(), 10);
    assert_eq!(thread[9].text.as_deref(), Some("19"));
    assert_eq!(stage.world.requests().len(), 5);
    assert_eq!(stage.world.requests()[4].answered, Some(200));
}
