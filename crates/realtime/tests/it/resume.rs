//! Channels that come back with a number, and channels that fall behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use wasel_realtime::{
    Ask, Change, ChangeOp, Disconnect, Frame, History, HistoryError, Hub, Limits, Page, Vsn,
};

use crate::harness::{
    CHANNEL_1, CHANNEL_2, Client, ORG_A, ORG_B, Tokens, World, all_of, catalog, insert, member_of,
};

/// A change log in memory. Rows are written first and announced later, as in the database.
#[derive(Default)]
struct Log {
    rows: Mutex<Vec<Change>>,
    /// Numbers up to here are kept no more.
    gone: Mutex<i64>,
    away: AtomicBool,
}

impl Log {
    fn newest(&self) -> i64 {
        let rows = self.rows.lock().expect("not poisoned");
        rows.last().map_or(0, |row| row.seq)
    }

    fn write(&self, org_id: uuid::Uuid, name: &str, id: i64) -> Change {
        let seq = self.newest() + 1;
        let change = Change {
            seq,
            ..insert(org_id, name, json!({ "id": id, "conversation_id": id % 2 }))
        };
        self.rows.lock().expect("not poisoned").push(change.clone());
        change
    }
}

#[async_trait]
impl History for Log {
    async fn page(&self, ask: Ask<'_>) -> Result<Page, HistoryError> {
        tokio::task::yield_now().await;
        if self.away.load(Ordering::SeqCst) {
            return Err(HistoryError::Unavailable("away".to_owned()));
        }
        if ask.after < *self.gone.lock().expect("not poisoned") || ask.after > self.newest() {
            return Err(HistoryError::Expired);
        }
        let rows = self.rows.lock().expect("not poisoned");
        let of_ask = rows.iter().filter(|row| {
            row.org_id == ask.org_id
                && row.seq > ask.after
                && row.seq <= ask.upto
                && ask.names.contains(&row.name)
        });
        let mut page = Page {
            changes: Vec::new(),
            upto: ask.upto,
        };
        let mut taken = 0;
        for row in of_ask {
            let is_new = page.changes.last().is_none_or(|last| last.seq < row.seq);
            if is_new && taken == ask.limit {
                page.upto = row.seq - 1;
                break;
            }
            taken += usize::from(is_new);
            page.changes.push(row.clone());
        }
        Ok(page)
    }
}

struct Feed {
    world: World,
    log: Arc<Log>,
}

impl Feed {
    fn new(limits: Limits) -> Self {
        let log = Arc::new(Log::default());
        let tokens = Arc::new(Tokens::default());
        tokens.set("a", member_of(ORG_A));
        tokens.set("b", member_of(ORG_B));
        let hub = Hub::new(tokens.clone(), catalog(), limits).with_history(log.clone());
        hub.settle(0);
        let world = World {
            hub: Arc::new(hub),
            tokens,
            shutdown: tokio_util::sync::CancellationToken::new(),
        };
        Self { world, log }
    }

    fn write(&self, ids: impl IntoIterator<Item = i64>) -> Vec<Change> {
        let ids = ids.into_iter();
        ids.map(|id| self.log.write(ORG_A, "messages", id))
            .collect()
    }

    /// What the server's tail does with rows it has read.
    fn announce(&self, changes: &[Change]) {
        let wanted = self.world.hub.begin_round();
        let changes: Vec<Change> = changes
            .iter()
            .filter(|change| wanted.contains(&change.name))
            .cloned()
            .collect();
        self.world.hub.publish(&changes);
        self.world.hub.settle(self.log.newest());
    }
}

/// The ids of the rows heard, until the last.
async fn ids_until(client: &mut Client, last: i64) -> Vec<i64> {
    let mut ids = Vec::new();
    loop {
        let message = client.next().await;
        if message[3] != "postgres_changes" {
            continue;
        }
        let id = message[4]["data"]["record"]["id"].as_i64().expect("an id");
        ids.push(id);
        if id == last {
            return ids;
        }
    }
}

fn after(table: &str, seq: impl Into<Value>) -> Value {
    json!([{"event": "*", "schema": "public", "table": table, "after": seq.into()}])
}

#[tokio::test]
async fn rows_tell_their_number_to_bindings_that_ask_for_it() {
    let feed = Feed::new(Limits::default());
    let mut told = feed.world.connect(Vsn::V2);
    let bindings = told
        .join("realtime:x", "a", after("messages", Value::Null))
        .await;
    assert_eq!(bindings[0]["after"], Value::Null, "echoed as it was");
    let mut plain = feed.world.connect(Vsn::V2);
    plain.join("realtime:x", "a", all_of("messages")).await;
    let rows = feed.write([7]);
    feed.announce(&rows);
    let data = told.next().await[4]["data"].clone();
    assert_eq!(data["record"]["change_seq"], 1);
    assert_eq!(
        data["columns"][3],
        json!({"name": "change_seq", "type": "int8"})
    );
    let data = plain.next().await[4]["data"].clone();
    assert_eq!(data["record"].get("change_seq"), None);
}

#[tokio::test]
async fn a_channel_that_comes_back_hears_what_it_missed_once_and_then_what_comes() {
    let feed = Feed::new(Limits {
        history_rows: 7,
        ..Limits::default()
    });
    let rows = feed.write(1..=100);
    feed.announce(&rows);
    // Written, and not announced yet: neither lost nor doubled.
    let late = feed.write(101..=110);
    let mut client = feed.world.connect(Vsn::V2);
    client.join("realtime:x", "a", after("messages", 40)).await;
    feed.announce(&late);
    let ids = ids_until(&mut client, 110).await;
    assert_eq!(ids, (41..=110).collect::<Vec<_>>());
    let more = feed.write(111..=112);
    feed.announce(&more);
    assert_eq!(ids_until(&mut client, 112).await, [111, 112]);
    client.has_nothing().await;
}

#[tokio::test]
async fn each_binding_goes_on_from_its_own_number_with_its_own_filter() {
    let feed = Feed::new(Limits::default());
    let rows = feed.write(1..=10);
    feed.announce(&rows);
    let mut client = feed.world.connect(Vsn::V2);
    let binding = |extra: Value| {
        let mut binding = json!({"event": "*", "schema": "public", "table": "messages"});
        for (name, value) in extra.as_object().expect("an object") {
            binding[name] = value.clone();
        }
        binding
    };
    let bindings = client
        .join(
            "realtime:x",
            "a",
            json!([
                binding(json!({"filter": "conversation_id=eq.0", "after": 4})),
                binding(json!({"filter": "conversation_id=eq.1", "after": 7})),
                binding(json!({"after": 0})),
                binding(json!({})),
            ]),
        )
        .await;
    let mut heard = vec![Vec::new(); 4];
    let fresh = feed.write([11]);
    feed.announce(&fresh);
    // The last row comes in two forms: with its number and without.
    let mut last = 0;
    while last < 2 {
        let message = client.next().await;
        let id = message[4]["data"]["record"]["id"].as_i64().expect("an id");
        last += i32::from(id == 11);
        for bound in message[4]["ids"].as_array().expect("ids") {
            let index = (0..4).find(|index| bindings[index]["id"] == *bound);
            heard[index.expect("a binding")].push(id);
        }
    }
    // The third heard nothing beside the second, which is at 7; the fourth says nothing of numbers.
    assert_eq!(
        heard,
        [vec![6, 8, 10], vec![9, 11], vec![8, 9, 10, 11], vec![11]]
    );
}

#[tokio::test]
async fn a_channel_without_a_number_is_told_where_it_begins() {
    let feed = Feed::new(Limits::default());
    let rows = feed.write(1..=5);
    feed.announce(&rows);
    let mut client = feed.world.connect(Vsn::V2);
    let join = |after: Value| {
        json!({"access_token": "a", "config": {
            "postgres_changes": after, "presence": {"enabled": false}}})
    };
    for (number, told) in [(Value::Null, json!(5)), (json!(5), Value::Null)] {
        let join = join(after("messages", number));
        client
            .say(json!(["1", "1", "realtime:x", "phx_join", join]))
            .await;
        assert_eq!(client.next().await[4]["status"], "ok");
        let system = client.next().await;
        assert_eq!(system[4]["message"], "Subscribed to PostgreSQL");
        assert_eq!(system[4]["after"], told);
    }
}

#[tokio::test]
async fn coming_back_shows_no_more_than_listening_does() {
    let feed = Feed::new(Limits::default());
    feed.world.tokens.set(
        "narrow",
        wasel_realtime::Claims {
            channels: Some(Arc::from([CHANNEL_1])),
            ..member_of(ORG_A)
        },
    );
    let first = feed.write([1]);
    feed.announce(&first);
    feed.log.write(ORG_B, "messages", 2);
    feed.log.write(ORG_A, "audit_logs", 3);
    for (id, channel) in [(4, CHANNEL_2), (5, CHANNEL_1)] {
        let seq = feed.log.newest() + 1;
        feed.log.rows.lock().expect("not poisoned").push(Change {
            seq,
            channel_id: Some(channel),
            ..insert(ORG_A, "messages", json!({ "id": id }))
        });
    }
    feed.announce(&[]);
    let mut client = feed.world.connect(Vsn::V2);
    client.join("realtime:x", "narrow", after("*", 1)).await;
    assert_eq!(ids_until(&mut client, 5).await, [5]);
}

#[tokio::test]
async fn a_number_no_longer_kept_is_said_and_the_channel_goes_on() {
    let feed = Feed::new(Limits::default());
    let rows = feed.write(1..=20);
    feed.announce(&rows);
    *feed.log.gone.lock().expect("not poisoned") = 15;
    for number in [5, 500] {
        let mut client = feed.world.connect(Vsn::V2);
        client
            .join("realtime:x", "a", after("messages", number))
            .await;
        let system = client.next().await;
        assert_eq!(system[3], "system");
        let newest = feed.log.newest();
        assert_eq!(
            system[4],
            json!({"extension": "postgres_changes", "status": "error", "channel": "x",
                "message": format!("changes after {number} are no longer kept: load the rows anew, then go on from {newest}")})
        );
        let rows = feed.write([newest + 1]);
        feed.announce(&rows);
        assert_eq!(ids_until(&mut client, newest + 1).await, [newest + 1]);
    }
}

#[tokio::test]
async fn a_number_beyond_the_log_is_said_though_a_good_one_is_beside_it() {
    let feed = Feed::new(Limits::default());
    let rows = feed.write(1..=20);
    feed.announce(&rows);
    let mut client = feed.world.connect(Vsn::V2);
    let mut bindings = after("messages", 10);
    let other = after("whatsapp_messages", 500);
    let list = bindings.as_array_mut().expect("a list");
    list.push(other[0].clone());
    client.join("realtime:x", "a", bindings).await;
    let system = client.next().await;
    assert_eq!(system[3], "system", "{system}");
    assert_eq!(
        system[4]["message"],
        "changes after 500 are no longer kept: load the rows anew, then go on from 20"
    );
    let rows = feed.write([21]);
    feed.announce(&rows);
    assert_eq!(ids_until(&mut client, 21).await, [21]);
}

#[tokio::test]
async fn a_number_that_only_another_node_has_announced_is_good() {
    let feed = Feed::new(Limits::default());
    let rows = feed.write(1..=5);
    feed.announce(&rows);
    // In the log, and not announced here yet.
    let rows = feed.write(6..=8);
    feed.world.hub.begin_round();
    let mut client = feed.world.connect(Vsn::V2);
    client.join("realtime:x", "a", after("messages", 7)).await;
    feed.world.hub.settle(5);
    feed.announce(&rows);
    assert_eq!(ids_until(&mut client, 8).await, [8]);
    client.has_nothing().await;
}

#[tokio::test]
async fn a_binding_without_a_number_beside_one_with_misses_nothing_after_the_join() {
    let feed = Feed::new(Limits::default());
    let rows = feed.write(1..=10);
    feed.announce(&rows);
    // A round that does not read the table yet ends beyond what commits after the join.
    let wanted = feed.world.hub.begin_round();
    assert!(wanted.is_empty());
    let mut client = feed.world.connect(Vsn::V2);
    let mut bindings = after("whatsapp_messages", 10);
    let plain = all_of("messages");
    let list = bindings.as_array_mut().expect("a list");
    list.push(plain[0].clone());
    client.join("realtime:x", "a", bindings).await;
    feed.write([11]);
    feed.world.hub.settle(11);
    assert_eq!(ids_until(&mut client, 11).await, [11]);
}

#[tokio::test(start_paused = true)]
async fn history_that_cannot_be_read_now_is_read_later() {
    let feed = Feed::new(Limits::default());
    let rows = feed.write(1..=3);
    feed.announce(&rows);
    feed.log.away.store(true, Ordering::SeqCst);
    let mut client = feed.world.connect(Vsn::V2);
    client.join("realtime:x", "a", after("messages", 1)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    feed.log.away.store(false, Ordering::SeqCst);
    assert_eq!(ids_until(&mut client, 3).await, [2, 3]);
}

#[tokio::test]
async fn a_bad_number_is_refused_in_words() {
    let feed = Feed::new(Limits::default());
    let mut client = feed.world.connect(Vsn::V2);
    let join = json!({"config": {"postgres_changes": after("messages", "x")}, "access_token": "a"});
    client
        .say(json!(["1", "1", "realtime:x", "phx_join", join]))
        .await;
    let reply = client.next().await;
    let reason = reply[4]["response"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("after must be"), "{reason}");
}

#[tokio::test]
async fn a_statement_of_many_rows_arrives_whole_at_a_reader_slower_than_it() {
    let feed = Feed::new(Limits {
        queue_frames: 64,
        history_rows: 50,
        ..Limits::default()
    });
    let mut slow = feed.world.connect_with(Vsn::V2, None, 1);
    slow.join("realtime:x", "a", all_of("messages")).await;
    let mut other = feed.world.connect(Vsn::V2);
    other.join("realtime:y", "a", after("messages", 0)).await;
    const ROWS: i64 = 20_000;
    let rows = feed.write(1..=ROWS);
    for round in rows.chunks(1000) {
        feed.announce(round);
    }
    // Neither the announcement nor another socket waited; and a row that comes while they read is in its place.
    let (slow_ids, other_ids) = tokio::join!(ids_until(&mut slow, ROWS + 1), async {
        let ids = ids_until(&mut other, ROWS).await;
        let last = feed.write([ROWS + 1]);
        feed.announce(&last);
        ids
    });
    assert_eq!(other_ids, (1..=ROWS).collect::<Vec<_>>());
    assert_eq!(slow_ids, (1..=ROWS + 1).collect::<Vec<_>>());
    assert_eq!(feed.world.hub.stats().slow_readers_cut, 0);
    assert!(feed.world.hub.stats().changes_read_again > 0);
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_at_all_is_cut_in_the_end() {
    let feed = Feed::new(Limits {
        queue_frames: 64,
        idle: Duration::from_secs(600),
        ..Limits::default()
    });
    let mut dead = feed.world.connect_with(Vsn::V2, None, 1);
    dead.join("realtime:x", "a", all_of("messages")).await;
    let rows = feed.write(1..=1000);
    feed.announce(&rows);
    assert_eq!(dead.ended_unread().await, Disconnect::SlowReader);
}

#[tokio::test]
async fn what_cannot_be_read_again_still_finds_room_beside_many_changes() {
    let feed = Feed::new(Limits {
        queue_frames: 64,
        ..Limits::default()
    });
    let mut slow = feed.world.connect_with(Vsn::V2, None, 1);
    slow.join("realtime:x", "a", all_of("messages")).await;
    let rows = feed.write(1..=1000);
    feed.announce(&rows);
    let payload = serde_json::value::to_raw_value("hello").expect("JSON");
    let payload = wasel_realtime::BroadcastPayload::Json(payload);
    assert_eq!(
        feed.world.hub.broadcast(ORG_A, "x", false, "e", &payload),
        1
    );
    let mut heard_broadcast = false;
    let mut rows = 0;
    while rows < 1000 {
        let Frame::Text(text) = slow.next_frame().await else {
            panic!("the socket was closed");
        };
        let message: Value = serde_json::from_slice(&text).expect("JSON");
        match message[3].as_str() {
            Some("broadcast") => heard_broadcast = true,
            Some("postgres_changes") => rows += 1,
            _ => {}
        }
    }
    assert!(heard_broadcast);
}

#[tokio::test]
async fn a_row_under_several_names_is_told_whole_or_not_at_all() {
    let feed = Feed::new(Limits {
        queue_frames: 10,
        history_rows: 3,
        ..Limits::default()
    });
    let mut client = feed.world.connect_with(Vsn::V2, None, 1);
    let both = json!([
        {"event": "*", "schema": "public", "table": "messages"},
        {"event": "*", "schema": "public", "table": "whatsapp_messages"},
    ]);
    client.join("realtime:x", "a", both).await;
    let mut rows = Vec::new();
    for id in 1..=300 {
        let change = feed.log.write(ORG_A, "messages", id);
        let alias = Change {
            name: Arc::from("whatsapp_messages"),
            op: ChangeOp::Insert,
            ..change.clone()
        };
        feed.log
            .rows
            .lock()
            .expect("not poisoned")
            .push(alias.clone());
        rows.extend([change, alias]);
    }
    feed.announce(&rows);
    let mut heard = Vec::new();
    while heard.len() < 600 {
        let message = client.next().await;
        let data = &message[4]["data"];
        heard.push((
            data["record"]["id"].as_i64(),
            data["table"].as_str().map(str::to_owned),
        ));
    }
    let mut once = heard.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), 600);
    assert!(heard.is_sorted_by_key(|(id, _)| *id));
    client.has_nothing().await;
}
