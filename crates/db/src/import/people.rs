//! Contacts and conversations, a batch at a time.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::event::{Identity, IdentityKind};

use super::{Claim, Importer, Outcome, claim, point_to};
use crate::{Error, Result};

/// A customer on a channel.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub channel_id: Uuid,
    pub identity: Identity,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
    /// For a conversation that has to be made, if it is free.
    pub conversation_id: Uuid,
    pub created_at: DateTime<Utc>,
}

pub(super) struct FoundPerson {
    pub contact_id: Uuid,
    pub conversation_id: Uuid,
    pub customer_name: Option<String>,
    /// Made just now.
    pub fresh: bool,
}

/// A row of an old table of conversations.
#[derive(Clone, Debug, PartialEq)]
pub struct NewConversation {
    pub external_id: String,
    /// Used if the conversation is new and the id is free.
    pub id: Uuid,
    pub channel_id: Uuid,
    pub identity: Identity,
    pub customer_name: Option<String>,
    pub avatar_url: Option<String>,
    /// `active`, `archived` or `blocked`.
    pub status: &'static str,
    /// Kept where it is a member of the organisation.
    pub assigned_to: Option<Uuid>,
    pub notes: Option<String>,
    pub tags: Vec<String>,
    pub patient_id: Option<String>,
    pub unread_count: i32,
    pub last_message: Option<String>,
    pub last_message_at: Option<DateTime<Utc>>,
    /// What we have no column for.
    pub metadata: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Importer {
    /// Moves a batch of the old table `kind`; one outcome per row. An old row whose customer has a conversation on that
    /// channel is merged into it.
    pub async fn write_conversations(
        &mut self,
        kind: &'static str,
        rows: &[NewConversation],
    ) -> Result<Vec<Outcome>> {
        if let Some(seen) = &mut self.seen {
            return seen
                .conversations(&mut self.connection, &self.target, kind, rows)
                .await;
        }
        let mut attempt = 0;
        loop {
            match self.try_write_conversations(kind, rows).await {
                Err(error) if self.may_retry(&error, attempt) => attempt += 1,
                result => return result,
            }
        }
    }

    async fn try_write_conversations(
        &mut self,
        kind: &str,
        rows: &[NewConversation],
    ) -> Result<Vec<Outcome>> {
        let org = self.target.org;
        let mut tx = Self::transaction(&mut self.connection).await?;
        let claims: Vec<Claim<'_>> = rows
            .iter()
            .map(|row| Claim {
                external_id: &row.external_id,
                id: row.id,
            })
            .collect();
        let fresh = claim(&mut tx, &self.target, kind, &claims).await?;
        let ours: Vec<&NewConversation> = rows
            .iter()
            .zip(&fresh)
            .filter_map(|(row, fresh)| fresh.then_some(row))
            .collect();
        // The first row of a customer makes the conversation; later ones find it.
        let mut people: Vec<Person> = Vec::new();
        let mut places: HashMap<(Uuid, &Identity), usize> = HashMap::new();
        let place: Vec<usize> = ours
            .iter()
            .map(|row| {
                *places
                    .entry((row.channel_id, &row.identity))
                    .or_insert_with(|| {
                        people.push(Person {
                            channel_id: row.channel_id,
                            identity: row.identity.clone(),
                            name: row.customer_name.clone(),
                            avatar_url: row.avatar_url.clone(),
                            conversation_id: row.id,
                            created_at: row.created_at,
                        });
                        people.len() - 1
                    })
            })
            .collect();
        let found = find_or_insert(&mut tx, org, &people).await?;
        // Two rows of one conversation cannot be in one UPDATE: the second goes into the next round.
        let mut rounds: Vec<Vec<Merge<'_>>> = Vec::new();
        let mut used: HashMap<Uuid, usize> = HashMap::new();
        let (mut names, mut ids) = (Vec::new(), Vec::new());
        for (row, place) in ours.iter().zip(place) {
            let conversation = &found[place];
            let round = used.entry(conversation.conversation_id).or_default();
            if rounds.len() == *round {
                rounds.push(Vec::new());
            }
            rounds[*round].push(Merge::new(
                row,
                conversation.conversation_id,
                conversation.fresh && *round == 0,
            ));
            *round += 1;
            if conversation.conversation_id != row.id {
                names.push(row.external_id.as_str());
                ids.push(conversation.conversation_id);
            }
        }
        for round in &rounds {
            merge(&mut tx, org, round).await?;
        }
        point_to(&mut tx, &self.target, kind, &names, &ids).await?;
        tx.commit().await?;
        Ok(fresh
            .into_iter()
            .map(|fresh| {
                if fresh {
                    Outcome::Moved
                } else {
                    Outcome::AlreadyMoved
                }
            })
            .collect())
    }
}

/// One old row on its way into a conversation.
#[derive(Serialize)]
struct Merge<'a> {
    id: Uuid,
    fresh: bool,
    status: &'static str,
    assigned_to: Option<Uuid>,
    notes: Option<&'a str>,
    tags: &'a [String],
    patient_id: Option<&'a str>,
    unread_count: i32,
    last_message: Option<&'a str>,
    last_message_at: Option<DateTime<Utc>>,
    metadata: &'a Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl<'a> Merge<'a> {
    fn new(row: &'a NewConversation, id: Uuid, fresh: bool) -> Self {
        Self {
            id,
            fresh,
            status: row.status,
            assigned_to: row.assigned_to,
            notes: row.notes.as_deref(),
            tags: &row.tags,
            patient_id: row.patient_id.as_deref(),
            unread_count: row.unread_count,
            last_message: row.last_message.as_deref(),
            last_message_at: row.last_message_at,
            metadata: &row.metadata,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What people decided here (status, assignment, patient) stays; notes, tags and unread counts add up. The last line is
/// the old row's until a message of ours says more (`last_direction` is set then).
async fn merge(tx: &mut PgConnection, org: Uuid, rows: &[Merge<'_>]) -> Result<()> {
    sqlx::query(
        "UPDATE conversations c SET
             status = CASE WHEN n.fresh THEN n.status ELSE c.status END,
             assigned_to = coalesce(c.assigned_to,
                 (SELECT p.id FROM profiles p WHERE p.org_id = $1 AND p.id = n.assigned_to)),
             notes = nullif(concat_ws(E'\\n', c.notes, n.notes), ''),
             tags = CASE WHEN c.tags = '{}' THEN n.tags ELSE ARRAY(SELECT DISTINCT unnest(c.tags || n.tags) ORDER BY 1) END,
             patient_id = coalesce(c.patient_id, n.patient_id),
             unread_count = c.unread_count + n.unread_count,
             last_message = CASE WHEN c.last_direction IS NULL THEN coalesce(n.last_message, c.last_message)
                 ELSE c.last_message END,
             last_message_at = CASE WHEN c.last_direction IS NULL THEN greatest(c.last_message_at, n.last_message_at)
                 ELSE c.last_message_at END,
             metadata = n.metadata || c.metadata,
             created_at = least(c.created_at, n.created_at),
             updated_at = CASE WHEN n.fresh THEN n.updated_at ELSE greatest(c.updated_at, n.updated_at) END
         FROM jsonb_to_recordset($2) AS n(id uuid, fresh boolean, status text, assigned_to uuid, notes text, tags text[],
             patient_id text, unread_count int, last_message text, last_message_at timestamptz, metadata jsonb,
             created_at timestamptz, updated_at timestamptz)
         WHERE c.org_id = $1 AND c.id = n.id",
    )
    .bind(org)
    .bind(sqlx::types::Json(rows))
    .execute(tx)
    .await?;
    Ok(())
}

/// Finds or makes the contact and the conversation of each; `people` holds no (channel, identity) twice.
pub(super) async fn find_or_insert(
    tx: &mut PgConnection,
    org: Uuid,
    people: &[Person],
) -> Result<Vec<FoundPerson>> {
    if people.is_empty() {
        return Ok(Vec::new());
    }
    let contacts = find_or_insert_contacts(tx, org, people).await?;
    find_or_insert_conversations(tx, org, people, &contacts).await
}

async fn find_or_insert_contacts(
    tx: &mut PgConnection,
    org: Uuid,
    people: &[Person],
) -> Result<Vec<Uuid>> {
    let kinds: Vec<&str> = people.iter().map(|p| p.identity.kind.as_str()).collect();
    let values: Vec<&str> = people.iter().map(|p| p.identity.value.as_str()).collect();
    let known: Vec<(i64, Uuid)> = sqlx::query_as(
        // BETWEEN and ORDER BY name the index: see `Importer::begin`.
        "SELECT n.ord, i.contact_id FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS n(kind, value, ord)
         CROSS JOIN LATERAL (SELECT i.contact_id FROM contact_identities i
             WHERE i.org_id = $1 AND i.kind = n.kind AND i.value BETWEEN n.value AND n.value ORDER BY i.value LIMIT 1) i",
    )
    .bind(org)
    .bind(&kinds)
    .bind(&values)
    .fetch_all(&mut *tx)
    .await?;
    let mut contacts: Vec<Option<Uuid>> = vec![None; people.len()];
    for (ord, contact) in known {
        contacts[ord as usize - 1] = Some(contact);
    }
    let mut made: HashMap<&Identity, Uuid> = HashMap::new();
    let (mut new, mut ids) = (Vec::new(), Vec::new());
    let (mut named, mut names, mut avatars) = (Vec::new(), Vec::new(), Vec::new());
    for (place, person) in people.iter().enumerate() {
        match contacts[place].or_else(|| made.get(&person.identity).copied()) {
            Some(contact) => {
                if person.name.is_some() || person.avatar_url.is_some() {
                    named.push(contact);
                    names.push(person.name.as_deref());
                    avatars.push(person.avatar_url.as_deref());
                }
                contacts[place] = Some(contact);
            }
            None => {
                let contact = Uuid::now_v7();
                made.insert(&person.identity, contact);
                new.push(person);
                ids.push(contact);
                contacts[place] = Some(contact);
            }
        }
    }
    if !new.is_empty() {
        insert_contacts(tx, org, &new, &ids).await?;
    }
    if !named.is_empty() {
        // An old name is better than none, and no better than what is there.
        sqlx::query(
            "UPDATE contacts c SET name = coalesce(c.name, n.name), avatar_url = coalesce(c.avatar_url, n.avatar_url)
             FROM unnest($2::uuid[], $3::text[], $4::text[]) AS n(id, name, avatar_url)
             WHERE c.org_id = $1 AND c.id = n.id
               AND (c.name IS NULL AND n.name IS NOT NULL OR c.avatar_url IS NULL AND n.avatar_url IS NOT NULL)",
        )
        .bind(org)
        .bind(&named)
        .bind(&names)
        .bind(&avatars)
        .execute(tx)
        .await?;
    }
    contacts
        .into_iter()
        .collect::<Option<_>>()
        .ok_or(Error::Raced)
}

async fn insert_contacts(
    tx: &mut PgConnection,
    org: Uuid,
    people: &[&Person],
    ids: &[Uuid],
) -> Result<()> {
    let of_kind = |kind: IdentityKind| -> Vec<Option<&str>> {
        people
            .iter()
            .map(|p| (p.identity.kind == kind).then_some(p.identity.value.as_str()))
            .collect()
    };
    let names: Vec<Option<&str>> = people.iter().map(|p| p.name.as_deref()).collect();
    let avatars: Vec<Option<&str>> = people.iter().map(|p| p.avatar_url.as_deref()).collect();
    let times: Vec<DateTime<Utc>> = people.iter().map(|p| p.created_at).collect();
    sqlx::query(
        "INSERT INTO contacts (org_id, id, name, phone_number, email, avatar_url, created_at, updated_at)
         SELECT $1, n.id, n.name, n.phone, n.email, n.avatar_url, n.at, n.at
         FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
             AS n(id, name, phone, email, avatar_url, at)",
    )
    .bind(org)
    .bind(ids)
    .bind(&names)
    .bind(of_kind(IdentityKind::Phone))
    .bind(of_kind(IdentityKind::Email))
    .bind(&avatars)
    .bind(&times)
    .execute(&mut *tx)
    .await?;
    let kinds: Vec<&str> = people.iter().map(|p| p.identity.kind.as_str()).collect();
    let values: Vec<&str> = people.iter().map(|p| p.identity.value.as_str()).collect();
    let done = sqlx::query(
        "INSERT INTO contact_identities (org_id, kind, value, contact_id)
         SELECT $1, n.* FROM unnest($2::text[], $3::text[], $4::uuid[]) AS n ON CONFLICT DO NOTHING",
    )
    .bind(org)
    .bind(&kinds)
    .bind(&values)
    .bind(ids)
    .execute(tx)
    .await?;
    // Somebody else made one of them a moment ago: start over and find it.
    if done.rows_affected() == ids.len() as u64 {
        Ok(())
    } else {
        Err(Error::Raced)
    }
}

async fn find_or_insert_conversations(
    tx: &mut PgConnection,
    org: Uuid,
    people: &[Person],
    contacts: &[Uuid],
) -> Result<Vec<FoundPerson>> {
    let channels: Vec<Uuid> = people.iter().map(|p| p.channel_id).collect();
    let mut found: Vec<Option<FoundPerson>> = people.iter().map(|_| None).collect();
    let mut made: Vec<bool> = vec![false; people.len()];
    // First with the ids they had; where one is taken, with a new one.
    for pass in 0..3 {
        let rows: Vec<(i64, Uuid, Option<String>)> = sqlx::query_as(
            "SELECT n.ord, c.id, c.customer_name
             FROM unnest($2::uuid[], $3::uuid[]) WITH ORDINALITY AS n(channel_id, contact_id, ord)
             CROSS JOIN LATERAL (SELECT c.id, c.customer_name FROM conversations c
                 WHERE c.org_id = $1 AND c.contact_id BETWEEN n.contact_id AND n.contact_id
                   AND c.channel_id BETWEEN n.channel_id AND n.channel_id AND coalesce(c.group_id, '') = ''
                 ORDER BY c.contact_id, c.channel_id LIMIT 1) c",
        )
        .bind(org)
        .bind(&channels)
        .bind(contacts)
        .fetch_all(&mut *tx)
        .await?;
        for (ord, conversation_id, customer_name) in rows {
            let place = ord as usize - 1;
            found[place] = Some(FoundPerson {
                contact_id: contacts[place],
                conversation_id,
                customer_name,
                fresh: made[place],
            });
        }
        let missing: Vec<usize> = (0..people.len()).filter(|i| found[*i].is_none()).collect();
        if missing.is_empty() {
            return found.into_iter().collect::<Option<_>>().ok_or(Error::Raced);
        }
        let ids: Vec<Uuid> = missing
            .iter()
            .map(|i| match pass {
                0 => people[*i].conversation_id,
                _ => Uuid::now_v7(),
            })
            .collect();
        let pick = |from: &[Uuid]| -> Vec<Uuid> { missing.iter().map(|i| from[*i]).collect() };
        let times: Vec<DateTime<Utc>> = missing.iter().map(|i| people[*i].created_at).collect();
        let names: Vec<Option<&str>> = missing.iter().map(|i| people[*i].name.as_deref()).collect();
        let phones: Vec<Option<&str>> = missing
            .iter()
            .map(|i| {
                let identity = &people[*i].identity;
                (identity.kind == IdentityKind::Phone).then_some(identity.value.as_str())
            })
            .collect();
        let inserted: Vec<Uuid> = sqlx::query_scalar(
            "INSERT INTO conversations (org_id, id, channel_id, contact_id, phone_number, customer_name, created_at, updated_at)
             SELECT $1, n.id, n.channel_id, n.contact_id, coalesce(n.phone, p.phone_number), coalesce(n.name, p.name), n.at, n.at
             FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[])
                 AS n(id, channel_id, contact_id, phone, name, at)
             CROSS JOIN LATERAL (SELECT p.phone_number, p.name FROM contacts p
                 WHERE p.org_id = $1 AND p.id BETWEEN n.contact_id AND n.contact_id ORDER BY p.id LIMIT 1) p
             ON CONFLICT DO NOTHING RETURNING id",
        )
        .bind(org)
        .bind(&ids)
        .bind(pick(&channels))
        .bind(pick(contacts))
        .bind(&phones)
        .bind(&names)
        .bind(&times)
        .fetch_all(&mut *tx)
        .await?;
        let inserted: std::collections::HashSet<Uuid> = inserted.into_iter().collect();
        for (place, id) in missing.iter().zip(&ids) {
            made[*place] |= inserted.contains(id);
        }
    }
    Err(Error::Raced)
}

/// Conversations looked at in one transaction at the end.
const PAGE: i64 = 2_000;

/// Gives every conversation of the tenant whose newest message is newer than its last line that message. It looks at
/// all of them rather than at those this run touched: a run that was killed can tell nobody.
pub(super) async fn summarize(connection: &mut PgConnection, org: Uuid) -> Result<()> {
    let mut after = Uuid::nil();
    loop {
        let last: Option<Uuid> = sqlx::query_scalar(
            "WITH page AS (
                 SELECT id FROM conversations WHERE org_id = $1 AND id > $2 ORDER BY id LIMIT $3
             ), moved AS (
                 UPDATE conversations c SET
                     last_message = CASE WHEN c.last_direction IS NULL OR l.created_at > c.last_message_at
                         THEN l.preview ELSE c.last_message END,
                     last_message_at = CASE WHEN c.last_direction IS NULL OR l.created_at > c.last_message_at
                         THEN l.created_at ELSE c.last_message_at END,
                     last_direction = CASE WHEN c.last_direction IS NULL OR l.created_at > c.last_message_at
                         THEN l.direction ELSE c.last_direction END,
                     last_inbound_at = greatest(c.last_inbound_at, i.created_at)
                 FROM page p
                 CROSS JOIN LATERAL (
                     SELECT m.created_at, m.direction, left(coalesce(m.body, '[' || m.message_type || ']'), 200) AS preview
                     FROM messages m WHERE m.org_id = $1 AND m.conversation_id = p.id
                     ORDER BY m.created_at DESC, m.id DESC LIMIT 1) l
                 LEFT JOIN LATERAL (
                     SELECT m.created_at FROM messages m
                     WHERE m.org_id = $1 AND m.conversation_id = p.id AND m.direction = 'inbound'
                     ORDER BY m.created_at DESC, m.id DESC LIMIT 1) i ON true
                 WHERE c.org_id = $1 AND c.id = p.id AND (c.last_direction IS NULL OR l.created_at > c.last_message_at
                     OR i.created_at > coalesce(c.last_inbound_at, '-infinity'))
             )
             SELECT id FROM page ORDER BY id DESC LIMIT 1",
        )
        .bind(org)
        .bind(after)
        .bind(PAGE)
        .fetch_optional(&mut *connection)
        .await?;
        match last {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}
