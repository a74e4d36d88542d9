//! Two hubs that tell each other what a person on one must hear from the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wasel_realtime::{ErrorCode, Hub, Limits, PeerMessage, Peers, TokenError, Vsn};

use crate::harness::{Client, ORG_A, ORG_B, Tokens, World, catalog, member_of};

/// Carries messages to the other hub at once.
struct Wire {
    own: Uuid,
    connected: AtomicBool,
    other: Mutex<Weak<Hub>>,
}

impl Peers for Wire {
    fn any(&self) -> bool {
        self.connected.load(Ordering::SeqCst)
    }

    fn send(&self, message: &PeerMessage) {
        let message = PeerMessage::decode(&message.encode()).expect("own messages are valid");
        if let Some(hub) = self.other.lock().expect("not poisoned").upgrade() {
            hub.receive(self.own, message);
        }
    }

    fn dropped(&self) -> u64 {
        0
    }
}

struct Node {
    world: World,
    wire: Arc<Wire>,
}

fn node(id: u128, tokens: &Arc<Tokens>) -> Node {
    let wire = Arc::new(Wire {
        own: Uuid::from_u128(id),
        connected: AtomicBool::new(false),
        other: Mutex::default(),
    });
    let hub = Hub::new(tokens.clone(), catalog(), Limits::default()).with_peers(wire.clone());
    let world = World {
        hub: Arc::new(hub),
        tokens: tokens.clone(),
        shutdown: CancellationToken::new(),
    };
    Node { world, wire }
}

impl Node {
    fn meet(&self, other: &Node) {
        *self.wire.other.lock().expect("not poisoned") = Arc::downgrade(&other.world.hub);
        self.wire.connected.store(true, Ordering::SeqCst);
        self.world.hub.introduce();
    }
}

fn nodes() -> (Node, Node) {
    let tokens = Arc::new(Tokens::default());
    tokens.set("a", member_of(ORG_A));
    tokens.set("b", member_of(ORG_B));
    (node(1, &tokens), node(2, &tokens))
}

async fn join(client: &mut Client, key: &str, token: &str) -> Value {
    let config = json!({"private": true, "presence": {"key": key, "enabled": true}});
    client
        .join_with(
            "realtime:online",
            json!({"config": config, "access_token": token}),
        )
        .await;
    let state = client.next().await;
    assert_eq!(state[3], "presence_state");
    state[4].clone()
}

async fn track(client: &mut Client, payload: Value) {
    let call = json!({"type": "presence", "event": "track", "payload": payload});
    client
        .say(json!(["1", "7", "realtime:online", "presence", call]))
        .await;
    assert_eq!(client.next().await[1], "7");
    assert_eq!(client.next().await[3], "presence_diff");
}

#[tokio::test]
async fn a_broadcast_reaches_the_other_node_and_only_its_tenant() {
    let (one, two) = nodes();
    one.meet(&two);
    two.meet(&one);
    let mut sender = one.world.connect(Vsn::V2);
    let mut near = one.world.connect(Vsn::V2);
    let mut far = two.world.connect(Vsn::V2);
    let mut foreign = two.world.connect(Vsn::V2);
    for (client, token) in [
        (&mut sender, "a"),
        (&mut near, "a"),
        (&mut far, "a"),
        (&mut foreign, "b"),
    ] {
        join(client, "k", token).await;
    }
    let count = || {
        let (one, two) = (one.world.hub.stats(), two.world.hub.stats());
        (one.peer_messages_sent, two.peer_messages_received)
    };
    let before = count();
    let say = json!({"type": "broadcast", "event": "e", "payload": {"n": 1}});
    sender
        .say(json!(["1", "2", "realtime:online", "broadcast", say]))
        .await;
    let heard = far.next().await;
    assert_eq!(heard, near.next().await);
    assert_eq!(heard[4]["payload"], json!({"n": 1}));
    sender.has_nothing().await;
    far.has_nothing().await;
    foreign.has_nothing().await;
    assert_eq!(count(), (before.0 + 1, before.1 + 1));
}

#[tokio::test]
async fn presence_is_one_over_all_nodes_and_leaves_with_a_node_that_dies() {
    let (one, two) = nodes();
    let mut early = one.world.connect(Vsn::V2);
    join(&mut early, "early", "a").await;
    track(&mut early, json!({"name": "E"})).await;
    // The second node comes and is told what there is.
    two.meet(&one);
    one.meet(&two);
    let mut late = two.world.connect(Vsn::V2);
    let state = join(&mut late, "late", "a").await;
    assert_eq!(state["early"]["metas"][0]["name"], "E");
    let mut foreign = two.world.connect(Vsn::V2);
    assert_eq!(join(&mut foreign, "late", "b").await, json!({}));

    track(&mut late, json!({"name": "L"})).await;
    let diff = early.next().await;
    assert_eq!(diff[4]["joins"]["late"]["metas"][0]["name"], "L");
    // Told again by an introduction, it is nothing new.
    two.world.hub.introduce();
    early.has_nothing().await;

    two.world.hub.peer_left(Uuid::from_u128(1));
    let diff = late.next().await;
    assert_eq!(diff[4]["leaves"]["early"]["metas"][0]["name"], "E");
    late.has_nothing().await;

    // It was not dead after all: an introduction sets it right.
    one.world.hub.introduce();
    assert_eq!(
        late.next().await[4]["joins"]["early"]["metas"][0]["name"],
        "E"
    );
    early.hang_up().await.expect("no panic");
    assert_eq!(
        late.next().await[4]["leaves"]["early"]["metas"][0]["name"],
        "E"
    );
    foreign.has_nothing().await;
}

#[tokio::test]
async fn what_a_node_no_longer_mentions_has_left() {
    let (one, two) = nodes();
    let mut client = one.world.connect(Vsn::V2);
    join(&mut client, "k", "a").await;
    track(&mut client, json!({})).await;
    one.meet(&two);
    let mut far = two.world.connect(Vsn::V2);
    assert!(join(&mut far, "f", "a").await.get("k").is_some());
    // It was given up and lived on: what ended meanwhile was not told.
    one.wire.connected.store(false, Ordering::SeqCst);
    client.hang_up().await.expect("no panic");
    far.has_nothing().await;
    one.meet(&two);
    assert!(far.next().await[4]["leaves"].get("k").is_some());
}

#[tokio::test]
async fn an_introduction_of_many_comes_in_parts_and_moves_nobody_who_stays() {
    let (one, two) = nodes();
    let mut clients = Vec::new();
    for number in 0..10 {
        let mut client = one.world.connect(Vsn::V2);
        join(&mut client, &format!("k{number}"), "a").await;
        track(&mut client, json!({"long": "x".repeat(20_000)})).await;
        clients.push(client);
    }
    one.meet(&two);
    let told = one.world.hub.stats().peer_messages_sent;
    assert!(told >= 4, "{told} messages of at most 64 KiB");
    let mut far = two.world.connect(Vsn::V2);
    let state = join(&mut far, "f", "a").await;
    assert_eq!(state.as_object().expect("a state").len(), 10);
    one.world.hub.introduce();
    far.has_nothing().await;
}

#[tokio::test]
async fn lost_rights_are_told_to_the_other_node() {
    let (one, two) = nodes();
    one.meet(&two);
    let mut far = two.world.connect(Vsn::V2);
    join(&mut far, "k", "a").await;
    let gone = TokenError::new(ErrorCode::Unauthorized, "Not a member any more");
    one.world.tokens.put("a", Err(gone));
    one.world.hub.recheck(ORG_A, member_of(ORG_A).user_id);
    assert_eq!(far.next().await[4]["message"], "Not a member any more");
}
