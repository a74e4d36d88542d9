//! Reading messages.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{ChannelId, ConversationId, MessageId, OrgId};

use crate::Result;

#[derive(Clone, Debug, FromRow)]
pub struct Message {
    pub org_id: Uuid,
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub channel_id: Uuid,
    pub contact_id: Uuid,
    pub direction: String,
    pub message_type: String,
    /// `wasel_domain::Category`.
    pub category: String,
    pub status: String,
    pub body: Option<String>,
    pub content: Option<Value>,
    pub media: Option<Value>,
    pub address: Option<String>,
    pub customer_name: Option<String>,
    pub provider_message_id: Option<String>,
    pub quoted_message_id: Option<String>,
    pub sender_id: Option<Uuid>,
    pub request_id: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub referral: Option<Value>,
    pub metadata: Value,
    pub retry_count: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
    pub edited_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, FromRow)]
pub struct MessageEvent {
    pub id: Uuid,
    pub attempt_id: Option<Uuid>,
    pub event: String,
    pub at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
    pub detail: Option<Value>,
}

/// Where a page of a thread begins: just before this message.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub before: Option<(DateTime<Utc>, Uuid)>,
    pub limit: i64,
}

/// A thread, newest first.
pub async fn list_of_conversation(
    connection: &mut PgConnection,
    org: OrgId,
    conversation: ConversationId,
    page: Page,
) -> Result<Vec<Message>> {
    let (before_at, before_id) = page.before.unzip();
    Ok(sqlx::query_as(
        "SELECT * FROM messages WHERE org_id = $1 AND conversation_id = $2
           AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
         ORDER BY created_at DESC, id DESC LIMIT $5",
    )
    .bind(org.0)
    .bind(conversation.0)
    .bind(before_at)
    .bind(before_id)
    .bind(page.limit)
    .fetch_all(connection)
    .await?)
}

/// A thread by offset, newest first, for the documents' paths.
pub async fn list_newest(
    connection: &mut PgConnection,
    org: OrgId,
    conversation: ConversationId,
    limit: i64,
    offset: i64,
) -> Result<Vec<Message>> {
    Ok(sqlx::query_as(
        "SELECT * FROM messages WHERE org_id = $1 AND conversation_id = $2
         ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4",
    )
    .bind(org.0)
    .bind(conversation.0)
    .bind(limit)
    .bind(offset)
    .fetch_all(connection)
    .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: MessageId,
) -> Result<Option<Message>> {
    Ok(
        sqlx::query_as("SELECT * FROM messages WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id.0)
            .fetch_optional(connection)
            .await?,
    )
}

pub async fn find_by_provider_id(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    provider_message_id: &str,
) -> Result<Option<Message>> {
    Ok(sqlx::query_as(
        "SELECT * FROM messages WHERE org_id = $1 AND channel_id = $2 AND provider_message_id = $3",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(provider_message_id)
    .fetch_optional(connection)
    .await?)
}

/// The provider ids of the customer's newest messages, for read receipts.
pub async fn list_recent_providers_of(
    connection: &mut PgConnection,
    org: OrgId,
    conversation: ConversationId,
    limit: i64,
) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT provider_message_id FROM messages
         WHERE org_id = $1 AND conversation_id = $2 AND direction = 'inbound' AND provider_message_id IS NOT NULL
         ORDER BY created_at DESC, id DESC LIMIT $3",
    )
    .bind(org.0)
    .bind(conversation.0)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// What a new message in the conversation continues: the subject of its newest message that has one, and the provider
/// ids of its newest messages, the oldest first.
pub async fn find_thread(
    connection: &mut PgConnection,
    org: OrgId,
    conversation: ConversationId,
    limit: i64,
) -> Result<(Option<String>, Vec<String>)> {
    let rows: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT provider_message_id, content ->> 'subject' FROM messages
         WHERE org_id = $1 AND conversation_id = $2 AND provider_message_id IS NOT NULL
         ORDER BY created_at DESC, id DESC LIMIT $3",
    )
    .bind(org.0)
    .bind(conversation.0)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let subject = rows.iter().find_map(|(_, subject)| subject.clone());
    let ids = rows.into_iter().rev().map(|(id, _)| id).collect();
    Ok((subject, ids))
}

/// A message's timeline, oldest first. When an attempt began is told by the attempt itself; it has an event of its own
/// only where it was written down before its end.
pub async fn list_events(
    connection: &mut PgConnection,
    org: OrgId,
    message: MessageId,
) -> Result<Vec<MessageEvent>> {
    Ok(sqlx::query_as(
        "SELECT * FROM (
             SELECT id, attempt_id, event, at, recorded_at, detail FROM message_events WHERE org_id = $1 AND message_id = $2
             UNION ALL
             SELECT a.id, a.id, 'sending', a.created_at, a.created_at, NULL FROM message_attempts a
             WHERE a.org_id = $1 AND a.message_id = $2
               -- An attempt that stands for somebody else's sending has the message's id.
               AND a.id <> a.message_id AND NOT EXISTS (
                 SELECT FROM message_events e WHERE e.org_id = a.org_id AND e.message_id = a.message_id
                     AND e.attempt_id = a.id AND e.event = 'sending')
         ) e ORDER BY at, wasel.status_rank(event), id",
    )
    .bind(org.0)
    .bind(message.0)
    .fetch_all(connection)
    .await?)
}
