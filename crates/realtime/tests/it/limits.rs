use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use wasel_realtime::{Disconnect, Frame, Limits, Vsn};

use crate::harness::{ORG_A, World, all_of, insert};

#[tokio::test]
async fn a_heartbeat_is_answered() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.send(r#"[null,"3","phoenix","heartbeat",{}]"#).await;
    assert_eq!(
        client.next().await,
        json!([null, "3", "phoenix", "phx_reply", {"status": "ok", "response": {}}])
    );
}

#[tokio::test]
async fn a_slow_reader_is_cut_and_the_others_are_served() {
    let world = World::with_limits(Limits {
        queue_frames: 8,
        ..Limits::default()
    });
    let mut slow = world.connect_with(Vsn::V2, None, 1);
    slow.join("realtime:x", "a", all_of("messages")).await;
    let mut quick = world.connect(Vsn::V2);
    quick.join("realtime:x", "a", all_of("messages")).await;
    for id in 0..40 {
        world
            .hub
            .publish(&[insert(ORG_A, "messages", json!({ "id": id }))]);
        assert_eq!(quick.next().await[4]["data"]["record"]["id"], id);
    }
    assert_eq!(slow.ended_unread().await, Disconnect::SlowReader);
    let stats = world.hub.stats();
    assert_eq!(stats.slow_readers_cut, 1);
    assert_eq!(stats.sockets, 1);
    assert_eq!(stats.channels, 1);
}

#[tokio::test(start_paused = true)]
async fn a_socket_without_heartbeat_is_closed_and_one_with_lives() {
    let world = World::new();
    let silent = world.connect(Vsn::V2);
    let mut alive = world.connect(Vsn::V2);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(25)).await;
        alive.has_nothing().await;
    }
    assert_eq!(silent.ended().await, Disconnect::Idle);
    assert_eq!(world.hub.stats().sockets, 1);
    assert_eq!(alive.ended().await, Disconnect::Idle);
}

#[tokio::test]
async fn at_shutdown_channels_are_told_to_join_elsewhere() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    world.shutdown.cancel();
    assert_eq!(
        client.next().await,
        json!(["1", "1", "realtime:x", "phx_error", {}])
    );
    assert_eq!(client.next_frame().await, Frame::Close);
    assert_eq!(client.ended().await, Disconnect::Shutdown);
    assert_eq!(world.hub.stats().sockets, 0);
}

#[tokio::test]
async fn a_socket_that_hangs_up_leaves_nothing_behind() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    client.hang_up().await.expect("no panic");
    assert!(!world.hub.wants("messages"));
    assert_eq!(world.hub.stats().sockets, 0);
    assert_eq!(world.hub.stats().channels, 0);
}

#[tokio::test]
async fn one_channel_too_many_is_refused() {
    let world = World::with_limits(Limits {
        channels_per_socket: 2,
        bindings_per_channel: 1,
        ..Limits::default()
    });
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:1", "a", json!([])).await;
    client.join("realtime:2", "a", json!([])).await;
    client
        .say(json!(["3", "3", "realtime:3", "phx_join", {"access_token": "a"}]))
        .await;
    let reply = client.next().await;
    assert_eq!(reply[4]["status"], "error");
    // A channel that joins again is none too many, but its bindings may be.
    client.join("realtime:2", "a", json!([])).await;
    let two = json!([{"event": "*"}, {"event": "INSERT"}]);
    client
        .say(json!(["4", "4", "realtime:2", "phx_join", {"config": {"postgres_changes": two}, "access_token": "a"}]))
        .await;
    assert_eq!(client.next().await[4]["status"], "error");
}

#[tokio::test]
async fn a_broadcast_that_is_too_large_is_refused_in_words() {
    let world = World::with_limits(Limits {
        frame_bytes: 1000,
        ..Limits::default()
    });
    let mut client = world.connect(Vsn::V2);
    client
        .join_with(
            "realtime:x",
            json!({"config": {"broadcast": {"ack": true}, "presence": {"enabled": false}}, "access_token": "a"}),
        )
        .await;
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"x": "x".repeat(1000)}});
    client
        .say(json!(["1", "2", "realtime:x", "broadcast", payload]))
        .await;
    assert_eq!(
        client.next().await[4],
        json!({"status": "error", "response": {"error": "payload_size_exceeded"}})
    );
    client.has_nothing().await;
}

#[tokio::test]
async fn a_flood_is_held_back() {
    let world = World::with_limits(Limits {
        messages_per_second: 1,
        ..Limits::default()
    });
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:1", "a", json!([])).await;
    client.join("realtime:2", "a", json!([])).await;
    client
        .say(json!(["3", "3", "realtime:3", "phx_join", {"access_token": "a"}]))
        .await;
    let reason = client.next().await[4]["response"]["reason"].clone();
    assert_eq!(
        reason,
        "ClientJoinRateLimitReached: Too many messages per second"
    );
    assert_eq!(world.hub.stats().messages_limited, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn hostile_frames_are_dropped_and_the_socket_lives_on(
        frames in proptest::collection::vec((0u8..4, proptest::collection::vec(any::<u8>(), 0..120), ".{0,60}"), 1..12),
        v1: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let vsn = if v1 { Vsn::V1 } else { Vsn::V2 };
            let world = World::new();
            let mut client = world.connect_with(vsn, None, 64);
            for (kind, bytes, text) in frames {
                let event = ["phx_join", "access_token", "broadcast", "presence"][usize::from(kind)];
                client.send_frame(Frame::Text(Bytes::from(bytes.clone()))).await;
                let mut binary = vec![3];
                binary.extend_from_slice(&bytes);
                client.send_frame(Frame::Binary(Bytes::from(binary))).await;
                client.send(&text).await;
                client.say(json!(["1", "1", "realtime:x", event, text])).await;
                client.say(json!(["1", "1", text, event, {"config": [text], "access_token": 5, "payload": text}])).await;
            }
            client.say(json!([null, "last", "phoenix", "heartbeat", {}])).await;
            while client.next().await[1] != "last" {}
        });
    }
}
