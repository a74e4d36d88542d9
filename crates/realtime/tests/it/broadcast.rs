use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wasel_realtime::{BroadcastPayload, Frame, Vsn};

use crate::harness::{ORG_A, World};

fn config(echo: bool, ack: bool, token: &str) -> Value {
    json!({
        "config": {"broadcast": {"self": echo, "ack": ack}, "presence": {"enabled": false}},
        "access_token": token,
    })
}

/// A kind 3 frame: join_ref `1`, ref `2`, topic `realtime:x`, event `typing`, no metadata.
fn binary(encoding: u8, payload: &[u8]) -> Frame {
    let mut bytes = vec![3, 1, 1, 10, 6, 0, encoding];
    bytes.extend_from_slice(b"12realtime:xtyping");
    bytes.extend_from_slice(payload);
    Frame::Binary(Bytes::from(bytes))
}

#[tokio::test]
async fn a_broadcast_reaches_the_others_of_both_versions_and_only_this_tenant() {
    let world = World::new();
    let mut sender = world.connect(Vsn::V2);
    let mut new = world.connect(Vsn::V2);
    let mut old = world.connect(Vsn::V1);
    let mut foreign = world.connect(Vsn::V2);
    let mut elsewhere = world.connect(Vsn::V2);
    sender
        .join_with("realtime:x", config(false, false, "a"))
        .await;
    new.join_with("realtime:x", config(false, false, "a")).await;
    old.join_with("realtime:x", config(false, false, "a")).await;
    foreign
        .join_with("realtime:x", config(false, false, "b"))
        .await;
    elsewhere
        .join_with("realtime:y", config(false, false, "a"))
        .await;

    sender.send_frame(binary(1, br#"{"who":"agent"}"#)).await;
    let expected = json!([null, null, "realtime:x", "broadcast", {
        "type": "broadcast", "event": "typing", "payload": {"who": "agent"},
    }]);
    assert_eq!(new.next().await, expected);
    assert_eq!(old.next().await, expected);
    sender.has_nothing().await;
    foreign.has_nothing().await;
    elsewhere.has_nothing().await;

    // The same from an old client.
    old.say(json!(["1", "3", "realtime:x", "broadcast", {"type": "broadcast", "event": "typing", "payload": {"who": "agent"}}]))
        .await;
    assert_eq!(new.next().await, expected);
    assert_eq!(sender.next().await, expected);
    old.has_nothing().await;
}

#[tokio::test]
async fn echo_and_acknowledgement_come_when_asked_for() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client
        .join_with("realtime:x", config(true, true, "a"))
        .await;
    client.send_frame(binary(1, b"{}")).await;
    assert_eq!(client.next().await[3], "broadcast");
    assert_eq!(
        client.next().await,
        json!(["1", "2", "realtime:x", "phx_reply", {"status": "ok", "response": {}}])
    );
}

#[tokio::test]
async fn raw_bytes_arrive_as_kind_four_and_not_at_old_clients() {
    let world = World::new();
    let mut sender = world.connect(Vsn::V2);
    let mut new = world.connect(Vsn::V2);
    let mut old = world.connect(Vsn::V1);
    for client in [&mut sender, &mut new, &mut old] {
        client
            .join_with("realtime:x", config(false, false, "a"))
            .await;
    }
    sender.send_frame(binary(0, &[0, 255, 1])).await;
    let mut expected = vec![4, 10, 6, 0, 0];
    expected.extend_from_slice(b"realtime:xtyping");
    expected.extend_from_slice(&[0, 255, 1]);
    assert_eq!(new.next_frame().await, Frame::Binary(Bytes::from(expected)));
    old.has_nothing().await;
}

#[tokio::test]
async fn the_server_itself_can_broadcast_to_a_tenant() {
    let world = World::new();
    let mut of_a = world.connect(Vsn::V2);
    let mut of_b = world.connect(Vsn::V2);
    of_a.join_with("realtime:x", config(false, false, "a"))
        .await;
    of_b.join_with("realtime:x", config(false, false, "b"))
        .await;
    let payload = RawValue::from_string(r#"{"n": 1.0}"#.to_owned()).expect("JSON");
    let payload = BroadcastPayload::Json(payload);
    assert_eq!(world.hub.broadcast(ORG_A, "x", false, "news", &payload), 1);
    assert_eq!(
        of_a.next().await,
        json!([null, null, "realtime:x", "broadcast", {"type": "broadcast", "event": "news", "payload": {"n": 1.0}}])
    );
    of_b.has_nothing().await;
}

#[tokio::test]
async fn a_broadcast_to_a_topic_not_joined_goes_nowhere() {
    let world = World::new();
    let mut outsider = world.connect(Vsn::V2);
    let mut inside = world.connect(Vsn::V2);
    inside
        .join_with("realtime:x", config(false, false, "a"))
        .await;
    outsider.send_frame(binary(1, b"{}")).await;
    outsider.has_nothing().await;
    inside.has_nothing().await;
}
