//! A dry run: the questions of a real one, and a memory of what it would have written.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use sqlx::PgConnection;
use uuid::Uuid;

use super::messages::known_provider_ids;
use super::{NewConversation, NewMessage, Outcome, Target, Thread};
use crate::Result;

/// What this run would have written: about 20 bytes a row, as hashes, and more for conversations (about 100 bytes and
/// their old id) and templates (their name). With 10 million rows the chance that two are mistaken for one is one in
/// 400,000.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hasher: RandomState,
    refs: HashSet<u64>,
    provider_ids: HashSet<u64>,
    template_names: HashSet<String>,
    /// Where old conversations would have gone: old table and id to channel.
    conversations: HashMap<(&'static str, String), Uuid>,
}

impl Seen {
    pub async fn conversations(
        &mut self,
        connection: &mut PgConnection,
        target: &Target,
        kind: &'static str,
        rows: &[NewConversation],
    ) -> Result<Vec<Outcome>> {
        let names: Vec<&str> = rows.iter().map(|row| row.external_id.as_str()).collect();
        let outcomes = self.rows(connection, target, kind, &names).await?;
        for (row, outcome) in rows.iter().zip(&outcomes) {
            if *outcome == Outcome::Moved {
                self.conversations
                    .insert((kind, row.external_id.clone()), row.channel_id);
            }
        }
        Ok(outcomes)
    }

    /// Rows of a table where only the reference decides.
    pub async fn rows(
        &mut self,
        connection: &mut PgConnection,
        target: &Target,
        kind: &str,
        external_ids: &[&str],
    ) -> Result<Vec<Outcome>> {
        let outcomes = self
            .unclaimed(connection, target, kind, external_ids)
            .await?;
        for (external_id, outcome) in external_ids.iter().zip(&outcomes) {
            if *outcome == Outcome::Moved {
                self.remember(target, kind, external_id);
            }
        }
        Ok(outcomes)
    }

    pub async fn templates(
        &mut self,
        connection: &mut PgConnection,
        target: &Target,
        kind: &str,
        rows: &[(&str, &str)],
    ) -> Result<Vec<Outcome>> {
        let ids: Vec<&str> = rows.iter().map(|(id, _)| *id).collect();
        let names: Vec<&str> = rows.iter().map(|(_, name)| *name).collect();
        let mut outcomes = self.unclaimed(connection, target, kind, &ids).await?;
        let taken = super::tables::taken_names(connection, target.org, &names).await?;
        for ((id, name), outcome) in rows.iter().zip(&mut outcomes) {
            if *outcome != Outcome::Moved {
                continue;
            }
            if taken.contains(*name) || !self.template_names.insert((*name).to_owned()) {
                *outcome = Outcome::NameTaken;
            } else {
                self.remember(target, kind, id);
            }
        }
        Ok(outcomes)
    }

    pub async fn messages(
        &mut self,
        connection: &mut PgConnection,
        target: &Target,
        kind: &str,
        rows: &[NewMessage],
    ) -> Result<Vec<Outcome>> {
        let names: Vec<&str> = rows.iter().map(|row| row.external_id.as_str()).collect();
        let mut outcomes = self.unclaimed(connection, target, kind, &names).await?;
        let moved = moved_conversations(connection, target, rows).await?;
        let channels: Vec<Option<Uuid>> = rows
            .iter()
            .map(|row| match &row.thread {
                Thread::Customer { channel_id, .. } => Some(*channel_id),
                Thread::Moved { kind, external_id } => {
                    let key = (*kind, external_id.clone());
                    moved
                        .get(&key)
                        .or_else(|| self.conversations.get(&key))
                        .copied()
                }
            })
            .collect();
        let asked = rows
            .iter()
            .zip(&channels)
            .filter_map(|(row, channel)| Some(((*channel)?, row.provider_message_id.as_deref()?)));
        let known = known_provider_ids(connection, target.org, asked).await?;
        for ((row, channel), outcome) in rows.iter().zip(channels).zip(&mut outcomes) {
            if *outcome != Outcome::Moved {
                continue;
            }
            let Some(channel) = channel else {
                *outcome = Outcome::NoConversation;
                continue;
            };
            if let Some(id) = &row.provider_message_id
                && (known.contains(&(channel, id.clone()))
                    || !self
                        .provider_ids
                        .insert(self.hasher.hash_one((channel, id))))
            {
                *outcome = Outcome::InTheLog;
                continue;
            }
            self.remember(target, kind, &row.external_id);
        }
        Ok(outcomes)
    }

    /// `Moved` for rows that no reference names, neither stored nor remembered nor in this batch.
    async fn unclaimed(
        &self,
        connection: &mut PgConnection,
        target: &Target,
        kind: &str,
        external_ids: &[&str],
    ) -> Result<Vec<Outcome>> {
        let stored: Vec<String> = sqlx::query_scalar(
            "SELECT n.external_id FROM unnest($4::text[]) AS n(external_id)
             CROSS JOIN LATERAL (SELECT FROM external_refs r WHERE r.org_id = $1 AND r.source = $2 AND r.kind = $3
                 AND r.external_id = n.external_id LIMIT 1) r",
        )
        .bind(target.org)
        .bind(&target.source)
        .bind(kind)
        .bind(external_ids)
        .fetch_all(connection)
        .await?;
        let mut known: HashSet<&str> = stored.iter().map(String::as_str).collect();
        Ok(external_ids
            .iter()
            .map(|id| {
                if self.refs.contains(&self.hash(target, kind, id)) || !known.insert(id) {
                    Outcome::AlreadyMoved
                } else {
                    Outcome::Moved
                }
            })
            .collect())
    }

    fn remember(&mut self, target: &Target, kind: &str, external_id: &str) {
        let hash = self.hash(target, kind, external_id);
        self.refs.insert(hash);
    }

    fn hash(&self, target: &Target, kind: &str, external_id: &str) -> u64 {
        self.hasher.hash_one((&target.source, kind, external_id))
    }
}

/// The channels of the old conversations that earlier runs moved.
async fn moved_conversations(
    connection: &mut PgConnection,
    target: &Target,
    rows: &[NewMessage],
) -> Result<HashMap<(&'static str, String), Uuid>> {
    let mut asked: HashMap<&'static str, HashSet<&str>> = HashMap::new();
    for row in rows {
        if let Thread::Moved { kind, external_id } = &row.thread {
            asked.entry(kind).or_default().insert(external_id);
        }
    }
    let mut found = HashMap::new();
    for (kind, external_ids) in asked {
        let external_ids: Vec<&str> = external_ids.into_iter().collect();
        let rows: Vec<(String, Uuid)> = sqlx::query_as(
            "SELECT n.external_id, c.channel_id FROM unnest($4::text[]) AS n(external_id)
             CROSS JOIN LATERAL (SELECT r.row_id FROM external_refs r WHERE r.org_id = $1 AND r.source = $2
                 AND r.kind = $3 AND r.external_id = n.external_id LIMIT 1) r
             CROSS JOIN LATERAL (SELECT c.channel_id FROM conversations c WHERE c.org_id = $1 AND c.id BETWEEN r.row_id AND r.row_id ORDER BY c.id LIMIT 1) c",
        )
        .bind(target.org)
        .bind(&target.source)
        .bind(kind)
        .bind(&external_ids)
        .fetch_all(&mut *connection)
        .await?;
        found.extend(rows.into_iter().map(|(id, channel)| ((kind, id), channel)));
    }
    Ok(found)
}
