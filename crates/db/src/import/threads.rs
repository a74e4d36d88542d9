//! From "whose message" to a contact and a conversation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::event::Identity;

use super::Target;
use super::people::{Person, find_or_insert};
use crate::{Error, Result};

/// Conversations remembered; at about 250 bytes each some 125 MB. Beyond that all are forgotten and looked up again.
const LIMIT: usize = 500_000;

/// Which conversation a message belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Thread {
    /// A customer's, on one of our channels.
    Customer {
        channel_id: Uuid,
        identity: Identity,
    },
    /// The one that the row of an old table became.
    Moved {
        kind: &'static str,
        external_id: String,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Found {
    pub conversation_id: Uuid,
    pub contact_id: Uuid,
    pub channel_id: Uuid,
    pub address: Option<Arc<str>>,
    pub customer_name: Option<Arc<str>>,
}

/// What this import knows of conversations.
#[derive(Debug, Default)]
pub(super) struct Threads(HashMap<Thread, Found>);

/// A message's wish, as far as it matters here.
pub(super) struct Wanted<'a> {
    pub thread: &'a Thread,
    pub customer_name: Option<&'a str>,
    pub at: DateTime<Utc>,
}

impl Threads {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn get(&self, thread: &Thread) -> Option<&Found> {
        self.0.get(thread)
    }

    /// Looks up what is not known, and makes the conversations of customers who have none.
    pub async fn resolve(
        &mut self,
        tx: &mut PgConnection,
        target: &Target,
        wanted: &[Wanted<'_>],
    ) -> Result<()> {
        if self.0.len() > LIMIT {
            self.0.clear();
        }
        let mut asked = HashSet::new();
        let mut people = Vec::new();
        let mut threads = Vec::new();
        let mut moved: HashMap<&'static str, Vec<&str>> = HashMap::new();
        for want in wanted {
            if self.0.contains_key(want.thread) || !asked.insert(want.thread) {
                continue;
            }
            match want.thread {
                Thread::Customer {
                    channel_id,
                    identity,
                } => {
                    threads.push(want.thread);
                    people.push(Person {
                        channel_id: *channel_id,
                        identity: identity.clone(),
                        name: want.customer_name.map(str::to_owned),
                        avatar_url: None,
                        conversation_id: Uuid::now_v7(),
                        created_at: want.at,
                    });
                }
                Thread::Moved { kind, external_id } => {
                    moved.entry(kind).or_default().push(external_id);
                }
            }
        }
        let found = find_or_insert(tx, target.org, &people).await?;
        for ((thread, person), found) in threads.into_iter().zip(&people).zip(found) {
            self.0.insert(
                thread.clone(),
                Found {
                    conversation_id: found.conversation_id,
                    contact_id: found.contact_id,
                    channel_id: person.channel_id,
                    address: Some(person.identity.value.as_str().into()),
                    customer_name: found.customer_name.map(Into::into),
                },
            );
        }
        for (kind, external_ids) in moved {
            self.find_moved(tx, target, kind, &external_ids).await?;
        }
        Ok(())
    }

    async fn find_moved(
        &mut self,
        tx: &mut PgConnection,
        target: &Target,
        kind: &'static str,
        external_ids: &[&str],
    ) -> Result<()> {
        type Row = (String, Uuid, Uuid, Uuid, Option<String>, Option<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT n.external_id, c.id, c.contact_id, c.channel_id, coalesce(c.phone_number, p.email), c.customer_name
             FROM unnest($4::text[]) AS n(external_id)
             CROSS JOIN LATERAL (SELECT r.row_id FROM external_refs r WHERE r.org_id = $1 AND r.source = $2
                 AND r.kind = $3 AND r.external_id = n.external_id LIMIT 1) r
             CROSS JOIN LATERAL (SELECT c.* FROM conversations c WHERE c.org_id = $1 AND c.id BETWEEN r.row_id AND r.row_id
                 ORDER BY c.id LIMIT 1) c
             CROSS JOIN LATERAL (SELECT p.email FROM contacts p WHERE p.org_id = $1 AND p.id BETWEEN c.contact_id AND c.contact_id
                 ORDER BY p.id LIMIT 1) p",
        )
        .bind(target.org)
        .bind(&target.source)
        .bind(kind)
        .bind(external_ids)
        .fetch_all(tx)
        .await
        .map_err(Error::from)?;
        for (external_id, conversation_id, contact_id, channel_id, address, name) in rows {
            self.0.insert(
                Thread::Moved { kind, external_id },
                Found {
                    conversation_id,
                    contact_id,
                    channel_id,
                    address: address.map(Into::into),
                    customer_name: name.map(Into::into),
                },
            );
        }
        Ok(())
    }
}
