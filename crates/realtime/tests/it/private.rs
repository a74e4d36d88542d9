use serde_json::{Value, json};
use wasel_realtime::{BroadcastPayload, Claims, Vsn};

use crate::harness::{Client, ORG_A, World, member_of};

fn config(private: bool, token: &str) -> Value {
    json!({
        "config": {
            "private": private,
            "broadcast": {"ack": true},
            "presence": {"enabled": false},
        },
        "access_token": token,
    })
}

fn text(word: &str) -> BroadcastPayload {
    BroadcastPayload::Json(serde_json::value::to_raw_value(word).expect("JSON"))
}

async fn reply_to_join(client: &mut Client, topic: &str, payload: Value) -> Value {
    client
        .say(json!(["1", "1", topic, "phx_join", payload]))
        .await;
    client.next().await[4].clone()
}

#[tokio::test]
async fn a_private_topic_is_another_than_the_public_one_of_its_name() {
    let world = World::new();
    let mut inside = world.connect(Vsn::V2);
    let mut outside = world.connect(Vsn::V2);
    let mut foreign = world.connect(Vsn::V2);
    inside.join_with("realtime:x", config(true, "a")).await;
    outside.join_with("realtime:x", config(false, "a")).await;
    foreign.join_with("realtime:x", config(true, "b")).await;
    assert_eq!(
        world.hub.broadcast(ORG_A, "x", true, "e", &text("secret")),
        1
    );
    assert_eq!(inside.next().await[4]["payload"], "secret");
    assert_eq!(
        world.hub.broadcast(ORG_A, "x", false, "e", &text("open")),
        1
    );
    assert_eq!(outside.next().await[4]["payload"], "open");
    inside.has_nothing().await;
    foreign.has_nothing().await;
}

#[tokio::test]
async fn a_private_topic_opens_for_those_it_is_for_only() {
    let world = World::new();
    let me = member_of(ORG_A).user_id.expect("a person");
    let mut client = world.connect(Vsn::V2);
    client
        .join_with(&format!("realtime:user:{me}"), config(true, "a"))
        .await;
    let other = "realtime:user:00000000-0000-0000-0000-000000000099";
    let reply = reply_to_join(&mut client, other, config(true, "a")).await;
    assert_eq!(reply["status"], "error");
    assert_eq!(reply["response"]["reason"], "Unauthorized: Not your topic");
}

#[tokio::test]
async fn who_may_only_listen_is_not_heard() {
    let world = World::new();
    let mut mute = world.connect(Vsn::V2);
    let mut other = world.connect(Vsn::V2);
    mute.join_with("realtime:quiet", config(true, "a")).await;
    other.join_with("realtime:quiet", config(true, "a")).await;
    let say = json!({"type": "broadcast", "event": "e", "payload": {}});
    mute.say(json!(["1", "2", "realtime:quiet", "broadcast", say]))
        .await;
    assert_eq!(
        mute.next().await[4],
        json!({"status": "error", "response": {"error": "unauthorized"}})
    );
    other.has_nothing().await;
    world
        .hub
        .broadcast(ORG_A, "quiet", true, "e", &text("heard"));
    assert_eq!(mute.next().await[4]["payload"], "heard");
}

#[tokio::test]
async fn a_right_that_is_lost_ends_the_private_channel_and_leaves_the_others() {
    let world = World::new();
    let claims = member_of(ORG_A);
    let me = claims.user_id.expect("a person");
    let mine = format!("realtime:user:{me}");
    let mut client = world.connect(Vsn::V2);
    client.join_with(&mine, config(true, "a")).await;
    client.join_with("realtime:x", config(true, "a")).await;
    // The token proves somebody else from now on; the person's own topic is no longer theirs.
    world.tokens.set(
        "a",
        Claims {
            user_id: Some(uuid::Uuid::from_u128(5)),
            ..claims
        },
    );
    world.hub.recheck(ORG_A, Some(me));
    let system = client.next().await;
    assert_eq!(system[2], *mine);
    assert_eq!(system[4]["message"], "Not your topic");
    assert_eq!(client.next().await[3], "phx_error");
    world
        .hub
        .broadcast(ORG_A, "x", true, "e", &text("still here"));
    assert_eq!(client.next().await[4]["payload"], "still here");
}

#[tokio::test]
async fn a_wish_for_old_broadcasts_is_answered_in_words() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    let mut join = config(true, "a");
    join["config"]["broadcast"]["replay"] = json!({"since": 0, "limit": 5});
    client.join_with("realtime:x", join).await;
    let system = client.next().await;
    assert_eq!(system[4]["extension"], "broadcast");
    assert_eq!(system[4]["status"], "error");
}

#[tokio::test]
async fn a_client_that_waits_for_its_subscription_is_refused_when_there_is_none() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    let join = json!({"access_token": "a", "config": {
        "postgres_changes": [{"event": "*", "schema": "public", "table": "nothing"}],
        "postgres_changes_options": {"wait": true},
    }});
    let reply = reply_to_join(&mut client, "realtime:x", join).await;
    let reason = reply["response"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("public.nothing"), "{reason}");
}

#[tokio::test]
async fn who_may_only_listen_is_not_seen() {
    let world = World::new();
    let mut mute = world.connect(Vsn::V2);
    let mut other = world.connect(Vsn::V2);
    let mut join = config(true, "a");
    join["config"]["presence"]["enabled"] = json!(true);
    for client in [&mut mute, &mut other] {
        client.join_with("realtime:quiet", join.clone()).await;
        assert_eq!(client.next().await[3], "presence_state");
    }
    let track = json!({"type": "presence", "event": "track", "payload": {"name": "M"}});
    mute.say(json!(["1", "2", "realtime:quiet", "presence", track]))
        .await;
    let reply = mute.next().await[4].clone();
    assert_eq!(reply["status"], "error");
    assert_eq!(
        reply["response"]["reason"],
        "Unauthorized: You may only listen on this topic"
    );
    other.has_nothing().await;
}
