//! The baseline: many loops, each of which takes one row in a transaction, sends it, and writes its end down in another
//! transaction. The same tables, triggers, provider and cluster as the server's, in a database of its own; nothing
//! follows its change log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::caller::Caller;
use super::drain::{note_cpu, of};
use super::provider;
use super::rows::{self, Batch, Tenant};
use super::stage::Stage;
use crate::cpu::Used;
use crate::report::Figures;

/// As many as such workers usually open.
const CONNECTIONS: u32 = 20;

/// The database with its rows.
pub struct Baseline {
    pool: PgPool,
    numbers: Batch,
    taken: u64,
}

impl Baseline {
    /// `tenants` get `count` messages.
    pub async fn new(
        options: PgConnectOptions,
        stage: &mut Stage,
        tenants: &[Tenant],
        count: u64,
    ) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await?;
        // The index such a queue has, in place of ours.
        sqlx::raw_sql(
            "DROP INDEX outbox_lanes;
             CREATE INDEX ON outbox (priority, created_at) WHERE due_at IS NULL AND leased_until IS NULL",
        )
        .execute(&pool)
        .await?;
        let numbers = Batch {
            first: stage.numbers(count),
            count,
            each: 1,
        };
        rows::make(&pool, tenants, numbers).await?.commit().await?;
        Ok(Self {
            pool,
            numbers,
            taken: 0,
        })
    }

    /// `loops` of them work for `length`.
    pub async fn run(
        &mut self,
        stage: &Stage,
        tenants: &[Tenant],
        loops: usize,
        length: Duration,
        figures: &mut Figures,
    ) -> Result<()> {
        let name = format!("row_{loops}");
        let channels: Arc<std::collections::HashMap<Uuid, u64>> = Arc::new(
            tenants
                .iter()
                .map(|tenant| (tenant.channel_id, tenant.phone_number_id))
                .collect(),
        );
        let sent = Arc::new(AtomicU64::new(0));
        stage.provider.take_arrivals();
        let (before, begun) = (Used::now(None, stage.postmaster)?, Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..loops {
            let (pool, channels, sent) = (self.pool.clone(), channels.clone(), sent.clone());
            let mut caller = Caller::connect(stage.provider.address).await?;
            tasks.spawn(async move {
                while begun.elapsed() < length {
                    let Some(job) = take(&pool).await? else {
                        bail!("the baseline's rows are used up");
                    };
                    let id = job.send(&mut caller, &channels).await?;
                    job.end(&pool, &id).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        while let Some(result) = tasks.join_next().await {
            result??;
        }
        let elapsed = begun.elapsed();
        let used = Used::now(None, stage.postmaster)?.since(before);
        let sent = sent.load(Ordering::Relaxed);
        self.taken += sent;
        figures.note(
            format!("{name}_rate"),
            sent as f64 / elapsed.as_secs_f64(),
            "sends/s",
        );
        note_cpu(figures, &name, used, sent, elapsed);
        let arrivals = of(&stage.provider.take_arrivals(), self.numbers);
        let doubles = provider::doubles(&arrivals) as u64;
        let known = rows::count_accepted(&self.pool, self.numbers).await?;
        figures.note(
            "wrong".to_owned(),
            (doubles + known.abs_diff(self.taken) + (arrivals.len() as u64).abs_diff(sent)) as f64,
            "messages",
        );
        Ok(())
    }
}

/// One message, taken.
#[derive(sqlx::FromRow)]
struct Job {
    org_id: Uuid,
    id: Uuid,
    channel_id: Uuid,
    attempt_id: Uuid,
    address: String,
    content: Value,
}

#[derive(Deserialize)]
struct Answer {
    messages: Vec<AnswerMessage>,
}

#[derive(Deserialize)]
struct AnswerMessage {
    id: String,
}

async fn take(pool: &PgPool) -> Result<Option<Job>> {
    let mut tx = pool.begin().await?;
    let job = sqlx::query_as(
        "WITH next AS (
             SELECT org_id, message_id FROM outbox WHERE due_at IS NULL AND leased_until IS NULL
             ORDER BY priority, created_at LIMIT 1 FOR UPDATE SKIP LOCKED
         ), leased AS (
             UPDATE outbox o SET leased_until = now() + interval '30 seconds', claimed_at = now(), attempts = attempts + 1,
                 attempt_id = $1
             FROM next n WHERE o.org_id = n.org_id AND o.message_id = n.message_id
             RETURNING o.org_id, o.message_id, o.attempt_id
         )
         UPDATE messages m SET status = 'sending', updated_at = now() FROM leased l
         WHERE m.org_id = l.org_id AND m.id = l.message_id
         RETURNING m.org_id, m.id, m.channel_id, l.attempt_id, m.address, m.content",
    )
    .bind(Uuid::now_v7())
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(job)
}

impl Job {
    /// The same request as the server's. Returns the provider's id.
    async fn send(
        &self,
        caller: &mut Caller,
        channels: &std::collections::HashMap<Uuid, u64>,
    ) -> Result<String> {
        let number = channels.get(&self.channel_id).context("whose channel?")?;
        let body = json!({
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "type": "text",
            "biz_opaque_callback_data": self.attempt_id,
            "to": self.address,
            "text": { "body": self.content["body"], "preview_url": false },
        });
        let path = format!("/v26.0/{number}/messages");
        let (status, answer) = caller
            .post(&path, "Authorization: Bearer bench\r\n", &body.to_string())
            .await?;
        if status != 200 {
            bail!("the provider answered {status}");
        }
        let answer: Answer = serde_json::from_slice(answer)?;
        let message = answer.messages.into_iter().next();
        Ok(message.context("no id")?.id)
    }

    async fn end(&self, pool: &PgPool, provider_message_id: &str) -> Result<()> {
        let mut tx = pool.begin().await?;
        sqlx::query(
            "UPDATE messages SET provider_message_id = $3, updated_at = now() WHERE org_id = $1 AND id = $2",
        )
        .bind(self.org_id)
        .bind(self.id)
        .bind(provider_message_id)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at, detail)
             VALUES ($1, $2, $3, $4, 'accepted', now(), $5)",
        )
        .bind(self.org_id)
        .bind(Uuid::now_v7())
        .bind(self.id)
        .bind(self.attempt_id)
        .bind(json!({ "provider_message_id": provider_message_id }))
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM outbox WHERE org_id = $1 AND message_id = $2 AND attempt_id = $3")
            .bind(self.org_id)
            .bind(self.id)
            .bind(self.attempt_id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
