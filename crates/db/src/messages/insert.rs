//! Writing messages.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::{Category, ChannelId, ContactId, ConversationId, MessageId, OrgId, UserId};

use crate::Result;

/// A message from a provider's webhook, ready for its row. Text holds no NUL.
#[derive(Clone, Debug)]
pub struct NewInbound {
    pub org_id: Uuid,
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub channel_id: Uuid,
    pub contact_id: Uuid,
    /// `false` for an echo: the business wrote it elsewhere.
    pub from_customer: bool,
    pub message_type: &'static str,
    pub body: Option<String>,
    /// JSON text.
    pub content: Option<String>,
    /// JSON text.
    pub media: Option<String>,
    pub address: String,
    pub customer_name: Option<String>,
    pub provider_message_id: String,
    pub quoted_message_id: Option<String>,
    /// JSON text.
    pub referral: Option<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub sent_at: DateTime<Utc>,
}

/// Inserts what is new, counts it as unread and moves its conversations up, in one statement. Returns the ids of
/// the new ones: a message the channel already has is left alone.
pub async fn insert_inbound(
    connection: &mut PgConnection,
    messages: &[NewInbound],
) -> Result<HashSet<Uuid>> {
    macro_rules! column {
        ($field:ident) => {
            messages
                .iter()
                .map(|m| m.$field.clone())
                .collect::<Vec<_>>()
        };
    }
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "WITH fresh AS (
             INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type,
                 status, body, content, media, address, customer_name, provider_message_id, quoted_message_id,
                 referral, metadata, created_at, sent_at)
             SELECT n.org_id, n.id, n.conversation_id, n.channel_id, n.contact_id,
                 CASE WHEN n.from_customer THEN 'inbound' ELSE 'outbound' END, n.message_type,
                 CASE WHEN n.from_customer THEN 'received' ELSE 'sent' END, n.body, n.content::jsonb, n.media::jsonb,
                 n.address, n.customer_name, n.provider_message_id, n.quoted_message_id, n.referral::jsonb,
                 coalesce(n.metadata::jsonb, '{}'), least(n.sent_at, now()), n.sent_at
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bool[], $7::text[], $8::text[],
                 $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
                 $17::timestamptz[]) AS n(org_id, id, conversation_id, channel_id, contact_id, from_customer,
                 message_type, body, content, media, address, customer_name, provider_message_id, quoted_message_id,
                 referral, metadata, sent_at)
             ON CONFLICT (org_id, channel_id, provider_message_id) WHERE provider_message_id IS NOT NULL DO NOTHING
             RETURNING org_id, id, conversation_id, direction, message_type, body, created_at,
                 direction = 'inbound' AND NOT metadata ? 'from_history' AS is_news
         ), newest AS (
             SELECT org_id, conversation_id,
                 count(*) FILTER (WHERE is_news) AS unread,
                 max(created_at) AS at,
                 max(created_at) FILTER (WHERE direction = 'inbound') AS inbound_at,
                 (array_agg(left(coalesce(body, '[' || message_type || ']'), 200) ORDER BY created_at DESC, id DESC))[1] AS preview,
                 (array_agg(direction ORDER BY created_at DESC, id DESC))[1] AS direction
             FROM fresh GROUP BY org_id, conversation_id
         ), moved AS (
             UPDATE conversations c SET
                 unread_count = c.unread_count + n.unread,
                 last_message = CASE WHEN c.last_message_at > n.at THEN c.last_message ELSE n.preview END,
                 last_direction = CASE WHEN c.last_message_at > n.at THEN c.last_direction ELSE n.direction END,
                 last_message_at = greatest(c.last_message_at, n.at),
                 last_inbound_at = greatest(c.last_inbound_at, n.inbound_at),
                 -- A customer who writes again is not archived any more; a blocked one stays blocked.
                 status = CASE WHEN c.status = 'archived' AND n.unread > 0 THEN 'active' ELSE c.status END,
                 updated_at = now()
             FROM newest n WHERE c.org_id = n.org_id AND c.id = n.conversation_id
         )
         SELECT id FROM fresh",
    )
    .bind(column!(org_id))
    .bind(column!(id))
    .bind(column!(conversation_id))
    .bind(column!(channel_id))
    .bind(column!(contact_id))
    .bind(column!(from_customer))
    .bind(column!(message_type))
    .bind(column!(body))
    .bind(column!(content))
    .bind(column!(media))
    .bind(column!(address))
    .bind(column!(customer_name))
    .bind(column!(provider_message_id))
    .bind(column!(quoted_message_id))
    .bind(column!(referral))
    .bind(column!(metadata))
    .bind(column!(sent_at))
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().collect())
}

/// A message somebody wants sent.
#[derive(Clone, Debug)]
pub struct NewOutbound<'a> {
    pub org_id: OrgId,
    pub id: MessageId,
    pub conversation_id: ConversationId,
    pub channel_id: ChannelId,
    pub contact_id: ContactId,
    pub message_type: &'static str,
    pub body: Option<&'a str>,
    /// `wasel_domain::OutboundContent` as JSON.
    pub content: &'a Value,
    pub media: Option<&'a Value>,
    pub address: &'a str,
    pub customer_name: Option<&'a str>,
    pub quoted_message_id: Option<&'a str>,
    pub sender_id: Option<UserId>,
    pub request_id: Option<&'a str>,
    pub metadata: &'a Value,
    /// 1 (first) to 10.
    pub priority: i16,
    pub at_most_once: bool,
    pub category: Category,
    /// Its lane in the outbox, too.
    pub bulk_job_id: Option<Uuid>,
    /// The row of `notification_queue` that asked for it.
    pub notification_id: Option<Uuid>,
    /// `manual`, or what brought it about.
    pub trigger_type: &'a str,
    pub related_entity_id: Option<&'a str>,
}

/// Writes the message, its place in the outbox, its first event and the conversation's last line, in the caller's
/// transaction: all or none.
pub async fn insert_outbound(
    connection: &mut PgConnection,
    message: &NewOutbound<'_>,
) -> Result<()> {
    sqlx::query(
        "WITH message AS (
             INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status,
                 body, content, media, address, customer_name, quoted_message_id, sender_id, request_id, metadata,
                 delivery_policy, category, bulk_job_id, notification_id, trigger_type, related_entity_id)
             VALUES ($1, $2, $3, $4, $5, 'outbound', $6, 'queued', $7, $8, $9, $10, $11, $12, $13, $14, $15,
                 CASE WHEN $17 THEN 'at_most_once' ELSE 'at_least_once' END, $19, $20, $21, $22, $23)
         ), event AS (
             INSERT INTO message_events (org_id, id, message_id, event, at) VALUES ($1, $18, $2, 'queued', now())
         ), waiting AS (
             INSERT INTO outbox (org_id, message_id, channel_id, conversation_id, priority, at_most_once, lane, ordered)
             VALUES ($1, $2, $4, $3, $16, $17, coalesce($20, $24), $20 IS NULL)
         )
         UPDATE conversations SET last_message = left(coalesce($7, '[' || $6 || ']'), 200), last_message_at = now(),
             last_direction = 'outbound', updated_at = now()
         WHERE org_id = $1 AND id = $3",
    )
    .bind(message.org_id.0)
    .bind(message.id.0)
    .bind(message.conversation_id.0)
    .bind(message.channel_id.0)
    .bind(message.contact_id.0)
    .bind(message.message_type)
    .bind(message.body)
    .bind(message.content)
    .bind(message.media)
    .bind(message.address)
    .bind(message.customer_name)
    .bind(message.quoted_message_id)
    .bind(message.sender_id.map(|id| id.0))
    .bind(message.request_id)
    .bind(message.metadata)
    .bind(message.priority)
    .bind(message.at_most_once)
    .bind(Uuid::now_v7())
    .bind(message.category.as_str())
    .bind(message.bulk_job_id)
    .bind(message.notification_id)
    .bind(message.trigger_type)
    .bind(message.related_entity_id)
    .bind(Uuid::nil())
    .execute(connection)
    .await?;
    Ok(())
}
