//! Reactions: annotations on messages, not messages.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::event::Reaction;

use crate::Result;
use crate::ingest::clean;

#[derive(Clone, Debug, FromRow)]
pub struct MessageReaction {
    pub target_provider_message_id: String,
    /// `us`, or the customer's identity.
    pub actor: String,
    pub emoji: String,
    pub at: DateTime<Utc>,
}

/// Sets, replaces or takes back a reaction; an older event never undoes a newer one. Returns whether anything
/// changed. A reaction to a message we do not have is kept too: the message may come later.
pub async fn upsert(
    connection: &mut PgConnection,
    org: Uuid,
    channel: Uuid,
    reaction: &Reaction,
) -> Result<bool> {
    let actor = if reaction.from_us {
        "us"
    } else {
        reaction
            .customer
            .identities
            .first()
            .map_or("unknown", |identity| identity.value.as_str())
    };
    let done = sqlx::query(
        "INSERT INTO message_reactions AS r (org_id, id, channel_id, target_provider_message_id, actor, emoji, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (org_id, channel_id, target_provider_message_id, actor) DO UPDATE
             SET emoji = excluded.emoji, at = excluded.at
             WHERE r.at <= excluded.at AND (r.emoji, r.at) IS DISTINCT FROM (excluded.emoji, excluded.at)",
    )
    .bind(org)
    .bind(Uuid::now_v7())
    .bind(channel)
    .bind(clean(&reaction.target_message_id))
    .bind(clean(actor))
    // A reaction taken back stays as an empty one, so that a late copy of the first cannot bring it back.
    .bind(reaction.emoji.as_deref().map(clean).unwrap_or_default())
    .bind(reaction.at)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The reactions to these messages (by provider id).
pub async fn list(
    connection: &mut PgConnection,
    org: Uuid,
    channel: Uuid,
    provider_message_ids: &[String],
) -> Result<Vec<MessageReaction>> {
    Ok(sqlx::query_as(
        "SELECT * FROM message_reactions WHERE org_id = $1 AND channel_id = $2
           AND target_provider_message_id = ANY($3) AND emoji <> '' ORDER BY at, actor",
    )
    .bind(org)
    .bind(channel)
    .bind(provider_message_ids)
    .fetch_all(connection)
    .await?)
}
