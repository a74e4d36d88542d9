//! Threads between customers and channels.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::event::Identity;
use wasel_domain::{ChannelId, ContactId, ConversationId, OrgId};

use crate::Result;
use crate::contacts::like_pattern;

#[derive(Clone, Debug, FromRow)]
pub struct Conversation {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub contact_id: Uuid,
    pub group_id: Option<String>,
    pub phone_number: Option<String>,
    pub customer_name: Option<String>,
    pub status: String,
    pub assigned_to: Option<Uuid>,
    pub notes: Option<String>,
    pub tags: Vec<String>,
    pub patient_id: Option<String>,
    pub unread_count: i32,
    pub last_message: Option<String>,
    pub last_message_at: Option<DateTime<Utc>>,
    pub last_direction: Option<String>,
    pub last_inbound_at: Option<DateTime<Utc>>,
    pub metadata: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Which conversations a list shows. All conditions hold at once.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    pub channel_id: Option<ChannelId>,
    pub status: Option<&'a str>,
    /// `Some(None)`: nobody's.
    pub assigned_to: Option<Option<Uuid>>,
    pub unread: bool,
    pub tag: Option<&'a str>,
    /// In the name, the number or the last message.
    pub search: Option<&'a str>,
    pub contact_id: Option<ContactId>,
}

/// The inbox, newest first, after `before` (the last row of the page before: its time and id).
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    filter: &Filter<'_>,
    before: Option<(Option<DateTime<Utc>>, Uuid)>,
    limit: i64,
) -> Result<Vec<Conversation>> {
    let mut query = sqlx::QueryBuilder::new("SELECT * FROM conversations WHERE org_id = ");
    query.push_bind(org.0);
    if let Some(channel) = filter.channel_id {
        query.push(" AND channel_id = ").push_bind(channel.0);
    }
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status);
    }
    match filter.assigned_to {
        Some(Some(user)) => drop(query.push(" AND assigned_to = ").push_bind(user)),
        Some(None) => drop(query.push(" AND assigned_to IS NULL")),
        None => {}
    }
    if filter.unread {
        query.push(" AND unread_count > 0");
    }
    if let Some(tag) = filter.tag {
        query.push(" AND ").push_bind(tag).push(" = ANY (tags)");
    }
    if let Some(contact) = filter.contact_id {
        query.push(" AND contact_id = ").push_bind(contact.0);
    }
    if let Some(search) = filter.search {
        let pattern = like_pattern(search);
        query
            .push(" AND (customer_name ILIKE ")
            .push_bind(pattern.clone());
        query
            .push(" OR phone_number LIKE ")
            .push_bind(pattern.clone());
        query
            .push(" OR last_message ILIKE ")
            .push_bind(pattern)
            .push(")");
    }
    match before {
        Some((Some(at), id)) => {
            query.push(" AND (last_message_at < ").push_bind(at);
            query
                .push(" OR (last_message_at = ")
                .push_bind(at)
                .push(" AND id < ")
                .push_bind(id);
            query.push(") OR last_message_at IS NULL)");
        }
        Some((None, id)) => drop(
            query
                .push(" AND last_message_at IS NULL AND id < ")
                .push_bind(id),
        ),
        None => {}
    }
    query
        .push(" ORDER BY last_message_at DESC NULLS LAST, id DESC LIMIT ")
        .push_bind(limit);
    Ok(query.build_query_as().fetch_all(connection).await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: ConversationId,
) -> Result<Option<Conversation>> {
    Ok(
        sqlx::query_as("SELECT * FROM conversations WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id.0)
            .fetch_optional(connection)
            .await?,
    )
}

/// When the person with this address last wrote to the channel.
pub async fn find_last_inbound_at(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    identity: &Identity,
) -> Result<Option<DateTime<Utc>>> {
    let found: Option<Option<DateTime<Utc>>> = sqlx::query_scalar(
        "SELECT c.last_inbound_at FROM contact_identities i
         JOIN conversations c ON c.org_id = i.org_id AND c.contact_id = i.contact_id AND c.channel_id = $2
             AND c.group_id IS NULL
         WHERE i.org_id = $1 AND i.kind = $3 AND i.value = $4",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(identity.kind.as_str())
    .bind(&identity.value)
    .fetch_optional(connection)
    .await?;
    Ok(found.flatten())
}

/// The conversation of this contact on this channel, made if there is none.
pub async fn find_or_insert(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    contact: ContactId,
) -> Result<Conversation> {
    sqlx::query(
        "INSERT INTO conversations (org_id, id, channel_id, contact_id, phone_number, customer_name)
         SELECT $1, $4, $2, $3, c.phone_number, c.name FROM contacts c
         WHERE c.org_id = $1 AND c.id = $3 AND NOT EXISTS (
             SELECT FROM conversations WHERE org_id = $1 AND channel_id = $2 AND contact_id = $3 AND group_id IS NULL)
         ON CONFLICT DO NOTHING",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(contact.0)
    .bind(Uuid::now_v7())
    .execute(&mut *connection)
    .await?;
    Ok(sqlx::query_as(
        "SELECT * FROM conversations WHERE org_id = $1 AND channel_id = $2 AND contact_id = $3 AND group_id IS NULL",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(contact.0)
    .fetch_one(connection)
    .await?)
}

/// The conversation on this channel with the person who has one of these identities, or the group's.
pub async fn find_of_party(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    identities: &[Identity],
    group: Option<&str>,
) -> Result<Option<Uuid>> {
    let kinds: Vec<&str> = identities.iter().map(|one| one.kind.as_str()).collect();
    let values: Vec<&str> = identities.iter().map(|one| one.value.as_str()).collect();
    Ok(sqlx::query_scalar(
        "SELECT c.id FROM conversations c WHERE c.org_id = $1 AND c.channel_id = $2 AND CASE
             WHEN $5::text IS NOT NULL THEN c.group_id = $5
             ELSE c.group_id IS NULL AND c.contact_id IN (
                 SELECT i.contact_id FROM unnest($3::text[], $4::text[]) AS n(kind, value)
                 JOIN contact_identities i ON i.org_id = $1 AND i.kind = n.kind AND i.value = n.value) END
         LIMIT 1",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(kinds)
    .bind(values)
    .bind(group)
    .fetch_optional(connection)
    .await?)
}

/// The group's conversation, made if there is none; `contact` stands for the group until somebody in it writes.
pub async fn find_or_insert_group(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    contact: ContactId,
    group: &str,
) -> Result<Conversation> {
    sqlx::query(
        "INSERT INTO conversations (org_id, id, channel_id, contact_id, group_id, customer_name)
         SELECT $1, $5, $2, $3, $4, c.name FROM contacts c
         WHERE c.org_id = $1 AND c.id = $3
         ON CONFLICT DO NOTHING",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(contact.0)
    .bind(group)
    .bind(Uuid::now_v7())
    .execute(&mut *connection)
    .await?;
    Ok(sqlx::query_as(
        "SELECT * FROM conversations WHERE org_id = $1 AND channel_id = $2 AND group_id = $3",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(group)
    .fetch_one(connection)
    .await?)
}

/// Changes a person makes; `None` leaves a field as it is, `Some(None)` empties it.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub status: Option<String>,
    pub assigned_to: Option<Option<Uuid>>,
    pub notes: Option<Option<String>>,
    pub tags: Option<Vec<String>>,
    pub patient_id: Option<Option<String>>,
}

/// Applies the changes; `None` if there is no such conversation.
pub async fn update(
    connection: &mut PgConnection,
    org: OrgId,
    id: ConversationId,
    changes: &Changes,
) -> Result<Option<Conversation>> {
    Ok(sqlx::query_as(
        "UPDATE conversations SET
             status = coalesce($3, status),
             assigned_to = CASE WHEN $4 THEN $5 ELSE assigned_to END,
             notes = CASE WHEN $6 THEN $7 ELSE notes END,
             tags = coalesce($8, tags),
             patient_id = CASE WHEN $9 THEN $10 ELSE patient_id END,
             updated_at = now()
         WHERE org_id = $1 AND id = $2 RETURNING *",
    )
    .bind(org.0)
    .bind(id.0)
    .bind(&changes.status)
    .bind(changes.assigned_to.is_some())
    .bind(changes.assigned_to.flatten())
    .bind(changes.notes.is_some())
    .bind(changes.notes.clone().flatten())
    .bind(&changes.tags)
    .bind(changes.patient_id.is_some())
    .bind(changes.patient_id.clone().flatten())
    .fetch_optional(connection)
    .await?)
}

/// Nothing is unread any more. Returns the conversation and whether anything was.
pub async fn update_read(
    connection: &mut PgConnection,
    org: OrgId,
    id: ConversationId,
) -> Result<Option<(Conversation, bool)>> {
    let done = sqlx::query(
        "UPDATE conversations SET unread_count = 0, updated_at = now() WHERE org_id = $1 AND id = $2 AND unread_count > 0",
    )
    .bind(org.0)
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    Ok(find(connection, org, id)
        .await?
        .map(|conversation| (conversation, done.rows_affected() > 0)))
}

/// Whether there is any conversation at all.
pub async fn any(tx: &mut crate::SystemTx) -> Result<bool> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM conversations)")
            .fetch_one(&mut **tx)
            .await?,
    )
}
