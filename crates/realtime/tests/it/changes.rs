use std::sync::Arc;

use serde_json::{Value, json};
use wasel_realtime::{Change, ChangeOp, Claims, Vsn};

use crate::harness::{CHANNEL_1, CHANNEL_2, ORG_A, ORG_B, World, all_of, insert, member_of};

const JOIN: &str = r#"["6","6","realtime:x","phx_join",{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":"agent-1","enabled":true},"postgres_changes":[{"event":"*","schema":"public","table":"whatsapp_messages","filter":"conversation_id=eq.1"}],"private":false},"access_token":"a","version":"realtime-js/2.119.0"}]"#;

#[tokio::test]
async fn the_join_captured_from_the_client_is_answered_and_rows_follow() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.send(JOIN).await;

    let reply = client.next().await;
    let id = reply[4]["response"]["postgres_changes"][0]["id"].clone();
    assert!(id.is_u64());
    assert_eq!(
        reply,
        json!(["6", "6", "realtime:x", "phx_reply", {"status": "ok", "response": {"postgres_changes": [
            {"event": "*", "schema": "public", "table": "whatsapp_messages", "filter": "conversation_id=eq.1", "id": id},
        ]}}])
    );
    assert_eq!(
        client.next().await,
        json!(["6", null, "realtime:x", "system", {
            "extension": "postgres_changes", "status": "ok",
            "message": "Subscribed to PostgreSQL", "channel": "x",
        }])
    );
    assert_eq!(
        client.next().await,
        json!(["6", null, "realtime:x", "presence_state", {}])
    );

    let row = json!({"id": 7, "body": "مرحبا", "conversation_id": 1});
    world.hub.publish(&[
        insert(
            ORG_A,
            "whatsapp_messages",
            json!({"id": 6, "conversation_id": 2}),
        ),
        insert(ORG_A, "messages", row.clone()),
        insert(ORG_A, "whatsapp_messages", row.clone()),
    ]);
    assert_eq!(
        client.next().await,
        json!([null, null, "realtime:x", "postgres_changes", {
            "ids": [id],
            "data": {
                "schema": "public", "table": "whatsapp_messages", "type": "INSERT",
                "commit_timestamp": "2026-01-02T03:04:05.678Z",
                "columns": [
                    {"name": "id", "type": "int8"},
                    {"name": "body", "type": "text"},
                    {"name": "conversation_id", "type": "int8"},
                ],
                "record": row,
                "errors": null,
            },
        }])
    );
    client.has_nothing().await;
}

#[tokio::test]
async fn a_version_one_socket_is_answered_in_objects() {
    let world = World::new();
    let mut client = world.connect(Vsn::V1);
    client
        .send(r#"{"topic":"realtime:x","event":"phx_join","payload":{"config":{"presence":{"enabled":false},"postgres_changes":[{"event":"INSERT","schema":"public","table":"messages"}]},"access_token":"a"},"ref":"1","join_ref":"1"}"#)
        .await;
    let text = |frame| match frame {
        wasel_realtime::Frame::Text(text) => serde_json::from_slice::<Value>(&text).expect("JSON"),
        other => panic!("not text: {other:?}"),
    };
    let reply = text(client.next_frame().await);
    assert_eq!(reply["event"], "phx_reply");
    assert_eq!(reply["ref"], "1");
    assert_eq!(reply["join_ref"], "1");
    assert_eq!(text(client.next_frame().await)["event"], "system");
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    let change = text(client.next_frame().await);
    assert_eq!(change["topic"], "realtime:x");
    assert_eq!(change["event"], "postgres_changes");
    assert_eq!(change["payload"]["data"]["record"], json!({"id": 1}));
    assert_eq!(change["ref"], Value::Null);
}

#[tokio::test]
async fn bindings_are_echoed_verbatim_in_order_and_number() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    let asked = json!([
        {"event": "insert", "schema": "public", "table": "messages", "filter": ""},
        {"event": "*", "schema": "public"},
        {"event": "insert", "schema": "public", "table": "messages", "filter": ""},
        {"event": "UPDATE", "table": "messages", "extra": {"kept": [1, null]}},
    ]);
    let mut echoed = client.join("realtime:x", "a", asked.clone()).await;
    let ids: Vec<Value> = echoed
        .as_array_mut()
        .expect("a list")
        .iter_mut()
        .map(|object| {
            object
                .as_object_mut()
                .expect("object")
                .remove("id")
                .expect("id")
        })
        .collect();
    assert_eq!(echoed, asked);
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn one_frame_carries_all_identifiers_that_match() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    let bindings = client
        .join(
            "realtime:x",
            "a",
            json!([
                {"event": "INSERT", "schema": "public", "table": "messages"},
                {"event": "delete", "schema": "public", "table": "messages"},
                {"event": "*", "schema": "*"},
                {"event": "*", "schema": "public", "table": "messages", "filter": "id=gt.5"},
                {"event": "whatever", "schema": "public", "table": "messages"},
            ]),
        )
        .await;
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    let change = client.next().await;
    assert_eq!(
        change[4]["ids"],
        json!([bindings[0]["id"], bindings[2]["id"], bindings[4]["id"]])
    );
    // A second name of the table is heard only by those who named it.
    world
        .hub
        .publish(&[insert(ORG_A, "whatsapp_messages", json!({"id": 1}))]);
    client.has_nothing().await;
}

#[tokio::test]
async fn updates_and_deletes_carry_the_old_row_they_were_given() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client
        .join(
            "realtime:x",
            "a",
            json!([{"event": "*", "schema": "public", "table": "messages", "filter": "conversation_id=eq.1"}]),
        )
        .await;
    let update = Change {
        op: ChangeOp::Update,
        ..insert(ORG_A, "messages", json!({"id": 1, "conversation_id": 1}))
    };
    let delete = |old_record| Change {
        op: ChangeOp::Delete,
        record: None,
        old_record: Some(old_record),
        ..update.clone()
    };
    world.hub.publish(&[
        update.clone(),
        // Only the key is known: the filter cannot be met.
        delete(json!({"id": 2})),
        delete(json!({"id": 3, "conversation_id": 1})),
    ]);
    let data = client.next().await[4]["data"].clone();
    assert_eq!(data["type"], "UPDATE");
    assert_eq!(data["old_record"], json!({"id": 1}));
    let data = client.next().await[4]["data"].clone();
    assert_eq!(data["type"], "DELETE");
    assert_eq!(data["old_record"], json!({"id": 3, "conversation_id": 1}));
    assert_eq!(data.get("record"), None);
    client.has_nothing().await;
}

#[tokio::test]
async fn a_selection_is_honoured_per_binding() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    let bindings = client
        .join(
            "realtime:x",
            "a",
            json!([
                {"event": "*", "schema": "public", "table": "messages", "select": ["body"]},
                {"event": "*", "schema": "public", "table": "messages"},
            ]),
        )
        .await;
    let row = json!({"id": 1, "body": "x", "conversation_id": 2});
    world.hub.publish(&[insert(ORG_A, "messages", row.clone())]);
    let narrow = client.next().await;
    assert_eq!(narrow[4]["ids"], json!([bindings[0]["id"]]));
    assert_eq!(narrow[4]["data"]["record"], json!({"id": 1, "body": "x"}));
    let wide = client.next().await;
    assert_eq!(wide[4]["ids"], json!([bindings[1]["id"]]));
    assert_eq!(wide[4]["data"]["record"], row);
}

#[tokio::test]
async fn no_row_crosses_from_one_tenant_to_another() {
    let world = World::new();
    let mut of_a = world.connect(Vsn::V2);
    let mut of_b = world.connect(Vsn::V2);
    of_a.join("realtime:x", "a", all_of("messages")).await;
    of_b.join("realtime:x", "b", all_of("messages")).await;
    world
        .hub
        .publish(&[insert(ORG_B, "messages", json!({"id": 2}))]);
    assert_eq!(of_b.next().await[4]["data"]["record"], json!({"id": 2}));
    of_a.has_nothing().await;
}

#[tokio::test]
async fn people_limited_to_some_channels_see_only_those() {
    let world = World::new();
    world.tokens.set(
        "limited",
        Claims {
            channels: Some(Arc::from([CHANNEL_2, CHANNEL_1])),
            ..member_of(ORG_A)
        },
    );
    world.tokens.set(
        "nothing",
        Claims {
            channels: Some(Arc::from([])),
            ..member_of(ORG_A)
        },
    );
    let mut limited = world.connect(Vsn::V2);
    limited
        .join("realtime:x", "limited", all_of("messages"))
        .await;
    let mut nothing = world.connect(Vsn::V2);
    nothing
        .join("realtime:x", "nothing", all_of("messages"))
        .await;
    let mut everything = world.connect(Vsn::V2);
    everything.join("realtime:x", "a", all_of("messages")).await;

    let of_channel = |id: u64, channel_id| Change {
        channel_id,
        ..insert(ORG_A, "messages", json!({ "id": id }))
    };
    world.hub.publish(&[
        of_channel(1, Some(CHANNEL_1)),
        of_channel(2, Some(uuid::Uuid::from_u128(0xc3))),
        of_channel(3, None),
    ]);
    for (client, expected) in [
        (&mut limited, vec![1, 3]),
        (&mut nothing, vec![3]),
        (&mut everything, vec![1, 2, 3]),
    ] {
        for id in expected {
            assert_eq!(client.next().await[4]["data"]["record"]["id"], id);
        }
        client.has_nothing().await;
    }
}

#[tokio::test]
async fn a_table_kept_for_some_roles_is_kept_from_the_others() {
    let world = World::new();
    world.tokens.set(
        "owner",
        Claims {
            role: "owner".to_owned(),
            ..member_of(ORG_A)
        },
    );
    let mut owner = world.connect(Vsn::V2);
    owner
        .join("realtime:x", "owner", all_of("audit_logs"))
        .await;
    let mut all = world.connect(Vsn::V2);
    all.join("realtime:x", "a", all_of("*")).await;
    let mut named = world.connect(Vsn::V2);
    named
        .say(json!(["1", "1", "realtime:x", "phx_join", {
            "config": {"postgres_changes": all_of("audit_logs"), "presence": {"enabled": false}},
            "access_token": "a",
        }]))
        .await;
    assert_eq!(named.next().await[4]["status"], "ok");
    assert_eq!(named.next().await[4]["status"], "error");

    world
        .hub
        .publish(&[insert(ORG_A, "audit_logs", json!({"id": 1}))]);
    assert_eq!(owner.next().await[4]["data"]["table"], "audit_logs");
    all.has_nothing().await;
    named.has_nothing().await;
}

#[tokio::test]
async fn a_binding_that_cannot_be_met_is_reported_by_a_system_event_and_tried_again() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client
        .say(json!(["1", "1", "realtime:x", "phx_join", {
            "config": {"postgres_changes": [
                {"event": "*", "schema": "public", "table": "later"},
                {"event": "*", "schema": "public", "table": "messages"},
            ], "presence": {"enabled": false}},
            "access_token": "a",
        }]))
        .await;
    assert_eq!(client.next().await[4]["status"], "ok");
    let system = client.next().await;
    assert_eq!(system[3], "system");
    assert_eq!(system[4]["extension"], "postgres_changes");
    assert_eq!(system[4]["status"], "error");
    assert!(
        system[4]["message"]
            .as_str()
            .is_some_and(|text| text.contains("later"))
    );
    assert!(!world.hub.wants("later"));
    // The other binding lives.
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    assert_eq!(client.next().await[3], "postgres_changes");
}

#[tokio::test]
async fn a_malformed_filter_joins_and_then_says_so() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client
        .say(json!(["1", "1", "realtime:x", "phx_join", {
            "config": {"postgres_changes": [
                {"event": "*", "schema": "public", "table": "messages", "filter": "nope=eq.1"},
            ], "presence": {"enabled": false}},
            "access_token": "a",
        }]))
        .await;
    assert_eq!(client.next().await[4]["status"], "ok");
    let system = client.next().await;
    assert_eq!(system[4]["status"], "error");
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    client.has_nothing().await;
}

#[tokio::test]
async fn the_hub_knows_which_names_are_listened_to() {
    let world = World::new();
    assert!(!world.hub.wants("messages"));
    let mut client = world.connect(Vsn::V2);
    client
        .join("realtime:x", "a", all_of("whatsapp_messages"))
        .await;
    assert!(world.hub.wants("whatsapp_messages"));
    assert!(!world.hub.wants("messages"));
    client.join("realtime:all", "a", all_of("*")).await;
    assert!(world.hub.wants("messages"));
    let mut names = world.hub.begin_round();
    names.sort();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    assert_eq!(names, ["audit_logs", "messages", "whatsapp_messages"]);

    for topic in ["realtime:x", "realtime:all"] {
        client.say(json!(["1", "9", topic, "phx_leave", {}])).await;
        assert_eq!(
            client.next().await,
            json!(["1", "9", topic, "phx_reply", {"status": "ok", "response": {}}])
        );
    }
    assert!(world.hub.begin_round().is_empty());
    assert_eq!(world.hub.stats().channels, 0);
}

#[tokio::test]
async fn a_late_leave_of_an_earlier_join_does_not_end_the_current_one() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    client
        .say(json!(["0", "2", "realtime:x", "phx_leave", {}]))
        .await;
    assert_eq!(client.next().await[1], "2");
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    assert_eq!(client.next().await[3], "postgres_changes");
}

#[tokio::test]
async fn joining_a_topic_again_replaces_the_earlier_join() {
    let world = World::new();
    let mut client = world.connect(Vsn::V2);
    client.join("realtime:x", "a", all_of("messages")).await;
    client
        .join("realtime:x", "a", all_of("whatsapp_messages"))
        .await;
    world
        .hub
        .publish(&[insert(ORG_A, "messages", json!({"id": 1}))]);
    client.has_nothing().await;
    assert_eq!(world.hub.stats().channels, 1);
}
