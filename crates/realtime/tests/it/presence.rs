use serde_json::{Value, json};
use wasel_realtime::{Limits, Vsn};

use crate::harness::{Client, World};

async fn join(client: &mut Client, key: &str, token: &str) -> Value {
    client
        .join_with(
            "realtime:x",
            json!({"config": {"presence": {"key": key}}, "access_token": token}),
        )
        .await;
    let state = client.next().await;
    assert_eq!(state[3], "presence_state");
    state[4].clone()
}

async fn call(client: &mut Client, payload: Value) -> Value {
    client
        .say(json!(["1", "7", "realtime:x", "presence", payload]))
        .await;
    let reply = client.next().await;
    assert_eq!(reply[1], "7");
    reply[4].clone()
}

fn track(payload: Value) -> Value {
    json!({"type": "presence", "event": "track", "payload": payload})
}

#[tokio::test]
async fn tracking_is_told_to_all_and_found_by_those_who_come_later() {
    let world = World::new();
    let mut first = world.connect(Vsn::V2);
    let mut second = world.connect(Vsn::V1);
    let mut foreign = world.connect(Vsn::V2);
    assert_eq!(join(&mut first, "agent-1", "a").await, json!({}));
    join(&mut second, "agent-2", "a").await;
    join(&mut foreign, "agent-1", "b").await;

    let reply = call(&mut first, track(json!({"typing": true}))).await;
    assert_eq!(reply, json!({"status": "ok", "response": {}}));
    let diff = first.next().await;
    assert_eq!(diff[3], "presence_diff");
    let meta = &diff[4]["joins"]["agent-1"]["metas"][0];
    assert_eq!(meta["typing"], true);
    let first_ref = meta["phx_ref"].clone();
    assert!(first_ref.is_string());
    assert_eq!(diff[4]["leaves"], json!({}));
    assert_eq!(second.next().await, diff);

    // A second call replaces the first.
    call(&mut first, track(json!({"typing": false}))).await;
    let left = first.next().await;
    assert_eq!(
        left[4]["leaves"]["agent-1"]["metas"][0]["phx_ref"],
        first_ref
    );
    let diff = first.next().await;
    assert_eq!(diff[4]["joins"]["agent-1"]["metas"][0]["typing"], false);
    assert_ne!(
        diff[4]["joins"]["agent-1"]["metas"][0]["phx_ref"],
        first_ref
    );
    second.next().await;
    second.next().await;

    let mut third = world.connect(Vsn::V2);
    let state = join(&mut third, "agent-3", "a").await;
    assert_eq!(
        state["agent-1"]["metas"],
        diff[4]["joins"]["agent-1"]["metas"]
    );

    call(&mut first, json!({"type": "presence", "event": "untrack"})).await;
    let diff = first.next().await;
    assert_eq!(diff[4]["joins"], json!({}));
    assert_eq!(diff[4]["leaves"]["agent-1"]["metas"][0]["typing"], false);
    foreign.has_nothing().await;
}

#[tokio::test]
async fn whoever_leaves_or_hangs_up_is_no_longer_present() {
    let world = World::new();
    let mut watcher = world.connect(Vsn::V2);
    join(&mut watcher, "watcher", "a").await;
    let mut leaver = world.connect(Vsn::V2);
    join(&mut leaver, "same", "a").await;
    let mut dropper = world.connect(Vsn::V2);
    join(&mut dropper, "same", "a").await;
    let numbers = |diff: &Value, side: &str| -> Vec<Value> {
        let metas = diff[4][side]["same"]["metas"].as_array();
        metas
            .into_iter()
            .flatten()
            .map(|meta| meta["n"].clone())
            .collect()
    };
    call(&mut leaver, track(json!({"n": 1}))).await;
    watcher.next().await;
    dropper.next().await;
    call(&mut dropper, track(json!({"n": 2}))).await;
    assert_eq!(numbers(&watcher.next().await, "joins"), [1, 2]);

    // Two under one key: a client must hear of the key whole, or it loses the one that stays.
    leaver
        .say(json!(["1", "9", "realtime:x", "phx_leave", {}]))
        .await;
    assert_eq!(numbers(&watcher.next().await, "leaves"), [1, 2]);
    assert_eq!(numbers(&watcher.next().await, "joins"), [2]);
    dropper.hang_up();
    assert_eq!(numbers(&watcher.next().await, "leaves"), [2]);
    watcher.has_nothing().await;
}

#[tokio::test]
async fn what_is_no_object_cannot_be_tracked() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    join(&mut client, "k", "a").await;
    for payload in [
        json!("text"),
        json!([1]),
        json!({"long": "x".repeat(40_000)}),
    ] {
        let reply = call(&mut client, track(payload)).await;
        assert_eq!(reply["status"], "error");
        assert!(reply["response"]["reason"].is_string());
    }
    client.has_nothing().await;
}

#[tokio::test]
async fn a_channel_that_did_not_listen_gets_the_state_when_it_tracks() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client
        .join_with(
            "realtime:x",
            json!({"config": {"presence": {"key": "k", "enabled": false}}, "access_token": "a"}),
        )
        .await;
    client.has_nothing().await;
    call(&mut client, track(json!({}))).await;
    assert_eq!(client.next().await[3], "presence_state");
    assert_eq!(client.next().await[3], "presence_diff");
}

/// The status of a presence call, whatever is told meanwhile.
async fn status(client: &mut Client, payload: Value) -> Value {
    client
        .say(json!(["1", "7", "realtime:x", "presence", payload]))
        .await;
    loop {
        let message = client.next().await;
        if message[1] == "7" {
            return message[4]["status"].clone();
        }
        assert_eq!(message[3], "presence_diff");
    }
}

#[tokio::test]
async fn what_a_tenant_tracks_is_bounded_and_who_leaves_makes_room() {
    let world = World::with_limits(Limits {
        tenant_presences: 2,
        tenant_presence_bytes: 1000,
        ..Limits::default()
    });
    let mut clients = Vec::new();
    for (key, token) in [("1", "a"), ("2", "a"), ("3", "a"), ("1", "b")] {
        let mut client = world.connect(Vsn::V2);
        join(&mut client, key, token).await;
        clients.push(client);
    }
    let [one, two, three, foreign] = clients.as_mut_slice() else {
        panic!("four were made");
    };
    let large = json!({"long": "x".repeat(1000)});
    assert_eq!(status(one, track(large)).await, "error");
    assert_eq!(status(one, track(json!({}))).await, "ok");
    assert_eq!(status(two, track(json!({}))).await, "ok");
    assert_eq!(status(three, track(json!({}))).await, "error");
    // Another tenant has its own bound, and the same one again is no more than before.
    assert_eq!(status(foreign, track(json!({}))).await, "ok");
    assert_eq!(status(two, track(json!({"n": 1}))).await, "ok");
    let untrack = json!({"type": "presence", "event": "untrack"});
    assert_eq!(status(one, untrack).await, "ok");
    assert_eq!(status(three, track(json!({}))).await, "ok");
    assert_eq!(status(one, track(json!({}))).await, "error");
    clients.remove(1).hang_up().await.expect("no panic");
    assert_eq!(status(&mut clients[0], track(json!({}))).await, "ok");
}
