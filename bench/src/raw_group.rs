//! The database's own limit: two writers in this process that group whatever waits into one transaction of three
//! writes (conversation, message, change row) on plain tables. No HTTP, no ledger, no triggers, no policies.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::sync::{mpsc, oneshot};

use crate::load::Sender;
use crate::world::{Message, World};

/// The same as the server's writer.
const MAX_GROUP: usize = 256;
const WRITERS: usize = 2;

const TABLES: &str = "
CREATE TABLE conversation (
    org_id int NOT NULL, id bigint NOT NULL, customer text NOT NULL, unread int NOT NULL DEFAULT 0,
    last_message text, last_at timestamptz, PRIMARY KEY (org_id, id), UNIQUE (org_id, customer));
CREATE INDEX conversation_inbox ON conversation (org_id, last_at DESC);
CREATE TABLE message (
    org_id int NOT NULL, id bigint NOT NULL GENERATED ALWAYS AS IDENTITY, conversation_id bigint NOT NULL,
    provider_id text NOT NULL, direction text NOT NULL, body text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id), UNIQUE (org_id, provider_id),
    FOREIGN KEY (org_id, conversation_id) REFERENCES conversation);
CREATE INDEX message_thread ON message (org_id, conversation_id, created_at DESC);
CREATE TABLE change (
    seq bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, org_id int NOT NULL, kind text NOT NULL, record jsonb NOT NULL);
";

const WRITE: &str = "
WITH fresh AS (
    INSERT INTO message (org_id, conversation_id, provider_id, direction, body)
    SELECT n.org_id, n.conversation_id, n.provider_id, 'in', n.body
    FROM unnest($1::int[], $2::bigint[], $3::text[], $4::text[]) AS n(org_id, conversation_id, provider_id, body)
    ON CONFLICT (org_id, provider_id) DO NOTHING
    RETURNING org_id, id, conversation_id, provider_id, body, created_at
), newest AS (
    SELECT org_id, conversation_id, count(*) AS unread, max(created_at) AS at, max(left(body, 200)) AS body
    FROM fresh GROUP BY org_id, conversation_id
), moved AS (
    UPDATE conversation c SET unread = c.unread + n.unread, last_message = n.body, last_at = n.at
    FROM newest n WHERE c.org_id = n.org_id AND c.id = n.conversation_id
)
INSERT INTO change (org_id, kind, record)
SELECT org_id, 'message', jsonb_build_object('id', id, 'conversation_id', conversation_id, 'provider_id', provider_id,
    'body', body, 'created_at', created_at)
FROM fresh";

/// The writers, over a database with the plain tables and every customer's conversation.
pub struct RawGroup {
    writers: Vec<mpsc::Sender<Waiting>>,
}

struct Waiting {
    message: Message,
    conversation: i64,
    done: oneshot::Sender<bool>,
}

impl RawGroup {
    pub async fn start(world: &World, options: PgConnectOptions) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(WRITERS as u32 + 1)
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // As the server's writer has it.
                    sqlx::raw_sql(
                        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
                         SET plan_cache_mode = force_generic_plan",
                    )
                    .execute(connection)
                    .await
                    .map(drop)
                })
            })
            .connect_with(options)
            .await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        sqlx::query(
            "INSERT INTO conversation (org_id, id, customer)
             SELECT t, t * $2 + c, '+1650' || t || ':' || c
             FROM generate_series(0, $1 - 1) t, generate_series(0, $2 - 1) c",
        )
        .bind(world.tenants.len() as i32)
        .bind(world.customers as i32)
        .execute(&pool)
        .await?;
        sqlx::raw_sql("VACUUM ANALYZE").execute(&pool).await?;
        let writers = (0..WRITERS)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(2048);
                tokio::spawn(write(pool.clone(), receiver));
                sender
            })
            .collect();
        Ok(Self { writers })
    }

    pub fn senders(&self, world: &Arc<World>, count: usize) -> Vec<Requester> {
        (0..count)
            .map(|_| Requester {
                world: world.clone(),
                writers: self.writers.clone(),
            })
            .collect()
    }
}

async fn write(pool: PgPool, mut receiver: mpsc::Receiver<Waiting>) {
    let mut group: Vec<Waiting> = Vec::with_capacity(MAX_GROUP);
    while receiver.recv_many(&mut group, MAX_GROUP).await > 0 {
        let stored = store(&pool, &group).await.is_ok();
        for waiting in group.drain(..) {
            // The requester is gone when the measurement was cut short.
            let _ = waiting.done.send(stored);
        }
    }
}

async fn store(pool: &PgPool, group: &[Waiting]) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query(WRITE)
        .bind(
            group
                .iter()
                .map(|w| w.message.tenant as i32)
                .collect::<Vec<_>>(),
        )
        .bind(group.iter().map(|w| w.conversation).collect::<Vec<_>>())
        .bind(group.iter().map(|w| w.message.wamid()).collect::<Vec<_>>())
        .bind(group.iter().map(|w| w.message.text()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// Somebody with one message in flight.
pub struct Requester {
    world: Arc<World>,
    writers: Vec<mpsc::Sender<Waiting>>,
}

impl Sender for Requester {
    async fn send(&mut self, message: Message) -> Result<bool> {
        let (done, answer) = oneshot::channel();
        let conversation = i64::from(message.tenant) * i64::from(self.world.customers)
            + i64::from(message.customer);
        let writer = &self.writers[message.tenant as usize % self.writers.len()];
        writer
            .send(Waiting {
                message,
                conversation,
                done,
            })
            .await
            .map_err(|_| anyhow!("the writer has ended"))?;
        Ok(answer.await?)
    }
}
