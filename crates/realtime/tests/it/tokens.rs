use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};
use wasel_realtime::{Change, Claims, Disconnect, ErrorCode, TokenError, Vsn};

use crate::harness::{CHANNEL_1, CHANNEL_2, ORG_A, World, all_of, insert, member_of};

fn join_payload(token: Value) -> Value {
    json!({
        "config": {"postgres_changes": all_of("messages"), "presence": {"enabled": false}},
        "access_token": token,
    })
}

#[tokio::test]
async fn a_join_without_a_tenant_is_refused_at_once_in_words() {
    let world = World::new();
    world.tokens.set(
        "service",
        Claims {
            org_id: None,
            role: "service_role".to_owned(),
            ..member_of(ORG_A)
        },
    );
    world.tokens.put(
        "forged",
        Err(TokenError::new(
            ErrorCode::JwtSignatureError,
            "Failed to validate JWT signature",
        )),
    );
    world.tokens.set(
        "old",
        Claims {
            expires_at: Some(Utc::now() - Duration::from_secs(90)),
            ..member_of(ORG_A)
        },
    );
    let mut client = world.connect(Vsn::V2);
    for (token, code) in [
        (Value::Null, "Unauthorized: "),
        (json!("sb_publishable_x"), "Unauthorized: "),
        (json!("anon"), "Unauthorized: "),
        (json!("service"), "Unauthorized: "),
        (json!("unknown"), "MalformedJWT: "),
        (json!("forged"), "JwtSignatureError: "),
        (json!("old"), "InvalidJWTToken: Token has expired 9"),
    ] {
        client
            .say(json!([
                "4",
                "5",
                "realtime:x",
                "phx_join",
                join_payload(token.clone())
            ]))
            .await;
        let reply = client.next().await;
        assert_eq!(reply[0], "4");
        assert_eq!(reply[1], "5");
        assert_eq!(reply[3], "phx_reply");
        assert_eq!(reply[4]["status"], "error");
        let reason = reply[4]["response"]["reason"].as_str().expect("a reason");
        assert!(reason.starts_with(code), "{token}: {reason}");
    }
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    client.has_nothing().await;
}

#[tokio::test]
async fn a_key_that_proves_a_tenant_is_enough_to_join() {
    let world = World::new();
    let mut client = world.connect_with(Vsn::V2, Some("a"), 64);
    client
        .join_with("realtime:x", join_payload(json!("sb_secret_x")))
        .await;
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    assert_eq!(client.next().await[3], "postgres_changes");
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_ends_in_phx_error_so_that_the_client_comes_back() {
    let world = World::new();
    world.tokens.set(
        "short",
        Claims {
            expires_at: Some(Utc::now() + Duration::from_secs(30)),
            ..member_of(ORG_A)
        },
    );
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "short", all_of("messages")).await;
    let system = client.next().await;
    assert_eq!(system[0], "1");
    assert_eq!(system[3], "system");
    assert_eq!(
        system[4],
        json!({"extension": "system", "status": "error", "message": "Token has expired 0 seconds ago", "channel": "x"})
    );
    assert_eq!(
        client.next().await,
        json!(["1", "1", "realtime:x", "phx_error", {}])
    );
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    client.has_nothing().await;

    client.join("realtime:x", "a", all_of("messages")).await;
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 2}))]);
    assert_eq!(client.next().await[4]["data"]["record"]["id"], 2);
}

#[tokio::test]
async fn a_refreshed_token_is_taken_in_silence_and_changes_what_is_seen() {
    let world = World::new();
    world.tokens.set(
        "narrow",
        Claims {
            channels: Some(Arc::from([CHANNEL_1])),
            ..member_of(ORG_A)
        },
    );
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    for token in [
        json!("narrow"),
        Value::Null,
        json!("sb_publishable_x"),
        json!("narrow"),
    ] {
        client
            .say(json!(["1", "2", "realtime:x", "access_token", {"access_token": token}]))
            .await;
    }
    client.has_nothing().await;
    let of_channel = |id: u64, channel_id| Change {
        channel_id: Some(channel_id),
        ..insert(ORG_A, "messages", json!({ "id": id }))
    };
    world
        .hub
        .publish(&[of_channel(2, CHANNEL_2), of_channel(1, CHANNEL_1)]);
    assert_eq!(client.next().await[4]["data"]["record"]["id"], 1);
    client.has_nothing().await;
}

#[tokio::test]
async fn a_bad_or_foreign_token_on_a_live_channel_ends_it() {
    for token in ["anon", "unknown", "b"] {
        let world = World::new();
        let mut client = world.connect(Vsn::V2);
        client.join("realtime:x", "a", all_of("messages")).await;
        client
            .say(json!(["1", "2", "realtime:x", "access_token", {"access_token": token}]))
            .await;
        let system = client.next().await;
        assert_eq!(system[4]["extension"], "system", "{token}");
        assert_eq!(system[4]["status"], "error");
        assert_eq!(
            client.next().await,
            json!(["1", "1", "realtime:x", "phx_error", {}])
        );
        world
            .hub
            .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
        client.has_nothing().await;
    }
}

#[tokio::test]
async fn a_lost_membership_ends_the_channel_when_the_hub_is_told() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    let somebody_else = uuid::Uuid::from_u128(99);
    world.tokens.put(
        "a",
        Err(TokenError::new(
            ErrorCode::Unauthorized,
            "Not a member any more",
        )),
    );
    world.hub.recheck(ORG_A, Some(somebody_else));
    client.has_nothing().await;
    world.hub.recheck(ORG_A, member_of(ORG_A).user_id);
    assert_eq!(client.next().await[4]["message"], "Not a member any more");
    assert_eq!(client.next().await[3], "phx_error");
}

#[tokio::test(start_paused = true)]
async fn a_lost_membership_ends_the_channel_at_the_regular_check_at_last() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    world.tokens.put(
        "a",
        Err(TokenError::new(
            ErrorCode::Unauthorized,
            "Not a member any more",
        )),
    );
    for beat in 0..11 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        client
            .say(json!([null, beat.to_string(), "phoenix", "heartbeat", {}]))
            .await;
        let message = client.next().await;
        if message[3] == "system" {
            assert_eq!(message[4]["message"], "Not a member any more");
            return;
        }
    }
    panic!("the channel lived on");
}

#[tokio::test]
async fn a_check_that_could_not_be_made_leaves_the_channel_alone() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    world.tokens.put(
        "a",
        Err(TokenError::new(
            ErrorCode::UnknownErrorOnChannel,
            "The database is away",
        )),
    );
    world.hub.recheck(ORG_A, None);
    client.has_nothing().await;
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    assert_eq!(client.next().await[3], "postgres_changes");
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_token_is_good_no_longer_is_closed_and_one_that_joins_anew_is_not() {
    let world = World::new();
    world.tokens.set("mine", member_of(ORG_A));
    let mut revoked = world.connect(Vsn::V2);
    let mut renewed = world.connect(Vsn::V2);
    for client in [&mut revoked, &mut renewed] {
        client.join("realtime:x", "mine", all_of("messages")).await;
    }
    let gone = TokenError::new(ErrorCode::Unauthorized, "Not a member any more");
    world.tokens.put("mine", Err(gone));
    world.hub.recheck(ORG_A, member_of(ORG_A).user_id);
    let lost_at = tokio::time::Instant::now();
    for client in [&mut revoked, &mut renewed] {
        assert_eq!(client.next().await[3], "system");
        assert_eq!(client.next().await[3], "phx_error");
    }
    renewed.join("realtime:x", "a", all_of("messages")).await;
    // Trying with the same token does not help.
    revoked
        .say(json!([
            "2",
            "2",
            "realtime:x",
            "phx_join",
            join_payload(json!("mine"))
        ]))
        .await;
    assert_eq!(revoked.next().await[4]["status"], "error");
    assert_eq!(revoked.ended().await, Disconnect::Unauthorized);
    assert!(lost_at.elapsed() < Duration::from_secs(30));
    renewed.has_nothing().await;
    assert_eq!(world.hub.stats().unauthorized_closed, 1);
}

#[tokio::test]
async fn a_channel_joined_with_the_key_of_its_connection_ends_with_its_rights() {
    let world = World::new();
    let mut client = world.connect_with(Vsn::V2, Some("a"), 64);
    client
        .join_with("realtime:x", join_payload(Value::Null))
        .await;
    let gone = TokenError::new(ErrorCode::Unauthorized, "The session has ended");
    world.tokens.put("a", Err(gone));
    world.hub.recheck(ORG_A, member_of(ORG_A).user_id);
    assert_eq!(client.next().await[4]["message"], "The session has ended");
    assert_eq!(client.next().await[3], "phx_error");
    // And it opens nothing any more.
    client
        .say(json!([
            "2",
            "2",
            "realtime:x",
            "phx_join",
            join_payload(Value::Null)
        ]))
        .await;
    assert_eq!(client.next().await[4]["status"], "error");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_could_not_be_made_is_made_again_within_seconds() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    let away = TokenError::new(ErrorCode::UnknownErrorOnChannel, "The database is away");
    world.tokens.put("a", Err(away));
    world.hub.recheck(ORG_A, member_of(ORG_A).user_id);
    client.has_nothing().await;
    let gone = TokenError::new(ErrorCode::Unauthorized, "Not a member any more");
    world.tokens.put("a", Err(gone));
    let lost_at = tokio::time::Instant::now();
    assert_eq!(client.next().await[4]["message"], "Not a member any more");
    assert!(lost_at.elapsed() <= Duration::from_secs(10));
}
