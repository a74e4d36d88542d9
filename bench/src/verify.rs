//! After the load: is every acknowledged message there, once, with its change row and its ledger row?

use std::collections::HashSet;

use anyhow::Result;
use sqlx::postgres::PgPool;

use crate::load::Sent;
use crate::world::Message;

/// What was acknowledged, over the whole run.
#[derive(Default)]
pub struct Acknowledged {
    numbers: HashSet<u64>,
    /// Answers with 200, repeats included.
    answers: u64,
    refused: u64,
}

/// How the database differs from what was acknowledged; all zero is right.
#[derive(Debug)]
pub struct Difference {
    pub messages: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// There without an insert in the change log.
    pub unlogged: i64,
    /// Answers without a ledger row, or ledger rows without an answer.
    pub ledger: i64,
    /// Answered with 200 and put aside instead of stored.
    pub dead_letters: i64,
    /// Messages not counted as unread, or counted twice.
    pub unread: i64,
    /// Not answered with 200.
    pub refused: u64,
}

impl Acknowledged {
    pub fn add(&mut self, sent: &Sent) {
        self.answers += sent.acknowledged.len() as u64 + sent.repeats;
        self.refused += sent.refused;
        self.numbers.extend(&sent.acknowledged);
    }

    pub async fn compare(&self, pool: &PgPool) -> Result<Difference> {
        let ids: Vec<String> = sqlx::query_scalar("SELECT provider_message_id FROM messages")
            .fetch_all(pool)
            .await?;
        let stored: HashSet<u64> = ids.iter().filter_map(|id| Message::number_of(id)).collect();
        let count = |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(pool);
        let unlogged = count(
            "SELECT count(*) FROM messages m LEFT JOIN (
                 SELECT (record ->> 'id')::uuid AS id FROM change_log WHERE table_name = 'messages' AND op = 'INSERT'
             ) l ON l.id = m.id WHERE l.id IS NULL",
        )
        .await?;
        let ledger = count("SELECT count(*) FROM webhook_events").await?;
        let dead_letters =
            count("SELECT count(*) FROM webhook_events WHERE outcome = 'dead_letter'").await?;
        let unread =
            count("SELECT coalesce(sum(unread_count), 0)::bigint FROM conversations").await?;
        Ok(Difference {
            messages: ids.len() as u64,
            lost: self.numbers.difference(&stored).count() as u64,
            doubled: (ids.len() - stored.len()) as u64,
            unlogged,
            ledger: ledger - self.answers as i64,
            dead_letters,
            unread: unread - ids.len() as i64,
            refused: self.refused,
        })
    }
}

impl Difference {
    pub fn is_none(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.unlogged == 0
            && self.unread == 0
            && self.refused == 0
            && self.ledger == 0
            && self.dead_letters == 0
    }
}
