//! The status machine in the database against the one in `wasel_domain`: whatever the order, the number and the
//! grouping of what providers say, the rows end the same.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;
use wasel_db::messages::status::{StatusUpdate, advance_status, apply_pending};
use wasel_domain::MessageStatus::{self, *};
use wasel_domain::event::{ProviderError, StatusEvent};
use wasel_testkit::TestDb;

#[tokio::test]
async fn the_ranks_of_sql_are_those_of_the_domain() {
    let db = TestDb::new().await;
    let mut connection = db.connect().await;
    for status in MessageStatus::ALL {
        let rank: Option<i16> = sqlx::query_scalar("SELECT wasel.status_rank($1)")
            .bind(status.as_str())
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(rank, Some(status.rank()), "{status}");
    }
    let unknown: Option<i16> = sqlx::query_scalar("SELECT wasel.status_rank('lost')")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(unknown, None);
}

/// One thing said: about which attempt, and what.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    attempt: usize,
    status: MessageStatus,
}

/// A whole story: what is said of a message of one or two attempts, in which order and batches, and from which batch
/// on the provider's ids are known to us.
#[derive(Clone, Debug)]
struct Story {
    attempts: usize,
    batches: Vec<Vec<Said>>,
    known_from: usize,
    concurrent: bool,
}

fn stories() -> impl Strategy<Value = Story> {
    // Meta says sent, delivered, read, failed; Twilio also queued and sending (progress on our side) and canceled.
    let status = prop::sample::select(vec![Sending, Sent, Failed, Delivered, Read, Cancelled]);
    (1..=2_usize).prop_flat_map(move |attempts| {
        let said =
            (0..attempts, status.clone()).prop_map(|(attempt, status)| Said { attempt, status });
        let batches = prop::collection::vec(prop::collection::vec(said, 1..6), 1..6);
        (batches, 0..6_usize, any::<bool>()).prop_map(move |(batches, known_from, concurrent)| {
            // At once means: with the ids known.
            let known_from = if concurrent {
                0
            } else {
                known_from.min(batches.len())
            };
            Story {
                attempts,
                batches,
                known_from,
                concurrent,
            }
        })
    })
}

struct Stage {
    db: TestDb,
    connection: PgConnection,
    org: Uuid,
    channel: Uuid,
    conversation: Uuid,
    contact: Uuid,
}

struct Sent1 {
    message: Uuid,
    attempts: Vec<Uuid>,
}

impl Stage {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let mut connection = db.connect().await;
        let [org, channel, conversation, contact] = std::array::from_fn(|_| Uuid::now_v7());
        for statement in [
            "INSERT INTO organizations (id, slug, name) VALUES ($1, 'a', 'A')",
            "INSERT INTO channels (org_id, id, kind, name) VALUES ($1, $2, 'whatsapp_cloud', 'W')",
            "INSERT INTO contacts (org_id, id) VALUES ($1, $4)",
            "INSERT INTO conversations (org_id, id, channel_id, contact_id) VALUES ($1, $3, $2, $4)",
        ] {
            // Every statement takes the same four; those it does not name are given a type by this.
            let statement =
                format!("WITH p AS (SELECT $1::uuid, $2::uuid, $3::uuid, $4::uuid) {statement}");
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(org)
                .bind(channel)
                .bind(conversation)
                .bind(contact)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        Self {
            db,
            connection,
            org,
            channel,
            conversation,
            contact,
        }
    }

    /// A message under way with its attempts, whose provider ids are not known yet.
    async fn send(&mut self, attempts: usize) -> Sent1 {
        let message = Uuid::now_v7();
        sqlx::query(
            "INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status)
             VALUES ($1, $2, $3, $4, $5, 'outbound', 'text', 'sending')",
        )
        .bind(self.org)
        .bind(message)
        .bind(self.conversation)
        .bind(self.channel)
        .bind(self.contact)
        .execute(&mut self.connection)
        .await
        .unwrap();
        let mut ids = Vec::new();
        for _ in 0..attempts {
            let id = Uuid::now_v7();
            sqlx::query("INSERT INTO message_attempts (org_id, id, message_id, channel_id, status) VALUES ($1, $2, $3, $4, 'sending')")
                .bind(self.org)
                .bind(id)
                .bind(message)
                .bind(self.channel)
                .execute(&mut self.connection)
                .await
                .unwrap();
            ids.push(id);
        }
        Sent1 {
            message,
            attempts: ids,
        }
    }

    fn updates(&self, sent: &Sent1, batch: &[Said]) -> Vec<StatusUpdate> {
        batch
            .iter()
            .map(|said| {
                let event = StatusEvent {
                    provider_message_id: provider_id(sent.attempts[said.attempt]),
                    attempt_id: None,
                    status: said.status,
                    at: at(*said),
                    error: (said.status == Failed).then(|| ProviderError {
                        code: "131026".to_owned(),
                        message: "undeliverable".to_owned(),
                    }),
                    detail: Value::Null,
                };
                StatusUpdate::new(self.org, self.channel, event)
            })
            .collect()
    }

    async fn tell_ids(&mut self, sent: &Sent1) {
        for attempt in &sent.attempts {
            sqlx::query("UPDATE message_attempts SET provider_message_id = $2 WHERE id = $1")
                .bind(attempt)
                .bind(provider_id(*attempt))
                .execute(&mut self.connection)
                .await
                .unwrap();
        }
        apply_pending(&mut self.connection).await.unwrap();
    }

    async fn tell(&mut self, sent: &Sent1, story: &Story) {
        if story.concurrent {
            self.tell_ids(sent).await;
            let tasks = story.batches.iter().map(|batch| {
                let (updates, options) = (self.updates(sent, batch), self.db.options());
                tokio::spawn(async move {
                    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
                    loop {
                        let mut tx = connection.begin().await.unwrap();
                        match advance_status(&mut tx, &updates).await {
                            Ok(_) => return tx.commit().await.unwrap(),
                            // As the ingest writer does.
                            Err(error) => assert!(error.is_conflict(), "{error}"),
                        }
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
            return;
        }
        for (n, batch) in story.batches.iter().enumerate() {
            if n == story.known_from {
                self.tell_ids(sent).await;
            }
            let updates = self.updates(sent, batch);
            let mut tx = self.connection.begin().await.unwrap();
            advance_status(&mut tx, &updates).await.unwrap();
            tx.commit().await.unwrap();
        }
        self.tell_ids(sent).await;
    }
}

fn provider_id(attempt: Uuid) -> String {
    format!("wamid.{attempt}")
}

/// The provider's time of one thing, the same whenever it is repeated.
fn at(said: Said) -> DateTime<Utc> {
    let seconds = said.attempt as i64 * 100 + i64::from(said.status.rank());
    DateTime::from_timestamp(1_750_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

type Times = [Option<DateTime<Utc>>; 4];

/// What the domain makes of the story: the message's status and times, and each attempt's status.
fn expected(story: &Story) -> (MessageStatus, Times, Vec<MessageStatus>) {
    let all: Vec<Said> = story.batches.concat();
    let last = story.attempts - 1;
    // The failure of an attempt that was replaced by a newer one is not the message's.
    let counts = |said: &&Said| said.attempt == last || !matches!(said.status, Failed | Cancelled);
    let status = all
        .iter()
        .filter(counts)
        .fold(Sending, |status, said| status.advance(said.status));
    let first = |which: &[MessageStatus]| {
        all.iter()
            .filter(counts)
            .filter(|said| which.contains(&said.status))
            .map(|said| at(*said))
            .min()
    };
    let times = [
        first(&[Sent, Delivered, Read]),
        first(&[Delivered, Read]),
        first(&[Read]),
        first(&[Failed]),
    ];
    let attempts = (0..story.attempts)
        .map(|attempt| {
            let own = all.iter().filter(|said| said.attempt == attempt);
            own.fold(Sending, |status, said| status.advance(said.status))
        })
        .collect();
    (status, times, attempts)
}

#[test]
fn any_interleaving_of_what_providers_say_ends_as_the_domains_fold() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let stage = std::cell::RefCell::new(runtime.block_on(Stage::new()));
    let mut runner = TestRunner::new(Config {
        cases: 250,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&stories(), |story| {
            let stage = &mut *stage.borrow_mut();
            let (message, attempts, events, pending) = runtime.block_on(async {
                let sent = stage.send(story.attempts).await;
                stage.tell(&sent, &story).await;
                let row = sqlx::query("SELECT status, sent_at, delivered_at, read_at, failed_at FROM messages WHERE id = $1")
                    .bind(sent.message)
                    .fetch_one(&mut stage.connection)
                    .await
                    .unwrap();
                let times: Times = ["sent_at", "delivered_at", "read_at", "failed_at"].map(|column| row.get(column));
                let attempts: Vec<String> =
                    sqlx::query_scalar("SELECT status FROM message_attempts WHERE message_id = $1 ORDER BY id")
                        .bind(sent.message)
                        .fetch_all(&mut stage.connection)
                        .await
                        .unwrap();
                let events: i64 = sqlx::query_scalar("SELECT count(*) FROM message_events WHERE message_id = $1")
                    .bind(sent.message)
                    .fetch_one(&mut stage.connection)
                    .await
                    .unwrap();
                let pending: i64 =
                    sqlx::query_scalar("SELECT count(*) FROM pending_statuses").fetch_one(&mut stage.connection).await.unwrap();
                ((row.get::<String, _>("status"), times), attempts, events, pending)
            });
            let (status, times, each) = expected(&story);
            prop_assert_eq!(message.0, status.as_str());
            prop_assert_eq!(message.1, times);
            prop_assert_eq!(attempts, each.iter().map(|status| status.as_str().to_owned()).collect::<Vec<_>>());
            let mut told = story.batches.concat();
            told.sort_by_key(|said| (said.attempt, said.status.rank()));
            told.dedup();
            prop_assert_eq!(events, told.len() as i64, "the timeline has each thing once");
            prop_assert_eq!(pending, 0);
            Ok(())
        })
        .unwrap();
}
