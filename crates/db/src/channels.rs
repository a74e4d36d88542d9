//! Connected accounts. Their secrets live sealed in a table of their own.

use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{ChannelId, OrgId};

use crate::{Result, SystemTx};

#[derive(Clone, Debug, FromRow)]
pub struct Channel {
    pub org_id: Uuid,
    pub id: Uuid,
    pub kind: String,
    pub name: String,
    pub status: String,
    pub status_reason: Option<String>,
    pub settings: Value,
    /// `wasel_domain::limits::ChannelLimits`.
    pub limits: Value,
    pub created_at: chrono::DateTime<chrono::Utc>,
    pub updated_at: chrono::DateTime<chrono::Utc>,
}

/// A channel with its sealed secrets, for the registry.
#[derive(Clone, Debug, FromRow)]
pub struct SealedChannel {
    #[sqlx(flatten)]
    pub channel: Channel,
    /// The organisation's country, for numbers written without one.
    pub region: Option<String>,
    pub sealed: Option<Vec<u8>>,
}

/// What `upsert` writes.
#[derive(Clone, Debug)]
pub struct NewChannel<'a> {
    pub org_id: OrgId,
    /// Used when the channel is new; an existing one of the same kind and name keeps its id.
    pub id: ChannelId,
    pub kind: &'a str,
    pub name: &'a str,
    pub settings: &'a Value,
    pub routing_keys: &'a [String],
}

/// Makes the channel or brings its settings up to date, by kind and name. Returns its id.
pub async fn upsert(tx: &mut SystemTx, channel: &NewChannel<'_>) -> Result<ChannelId> {
    let id: Uuid = sqlx::query_scalar(
        "INSERT INTO channels (org_id, id, kind, name, settings, routing_keys) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (org_id, kind, name) DO UPDATE SET settings = excluded.settings,
             routing_keys = excluded.routing_keys,
             -- Whoever declares it anew has acted on what blocked it.
             status = CASE channels.status WHEN 'blocked' THEN 'active' ELSE channels.status END,
             status_reason = CASE channels.status WHEN 'blocked' THEN NULL ELSE channels.status_reason END
         RETURNING id",
    )
    .bind(channel.org_id.0)
    .bind(channel.id.0)
    .bind(channel.kind)
    .bind(channel.name)
    .bind(channel.settings)
    .bind(channel.routing_keys)
    .fetch_one(&mut **tx)
    .await?;
    Ok(ChannelId(id))
}

/// Stores the sealed secrets; seal them with the org's and the channel's id.
pub async fn update_secrets(
    tx: &mut SystemTx,
    org: OrgId,
    channel: ChannelId,
    sealed: &[u8],
) -> Result<()> {
    sqlx::query(
        "INSERT INTO channel_secrets (org_id, channel_id, sealed) VALUES ($1, $2, $3)
         ON CONFLICT (org_id, channel_id) DO UPDATE SET sealed = excluded.sealed, updated_at = now()",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(sealed)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Changes whether the channel sends: `active`, `paused`, `blocked`.
pub async fn update_status(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    status: &str,
    reason: Option<&str>,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE channels SET status = $3, status_reason = $4
         WHERE org_id = $1 AND id = $2 AND (status, status_reason) IS DISTINCT FROM ($3, $4)",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(status)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The provider refuses the channel. `false` if that was known, or somebody has paused the channel, which stays so.
pub async fn block(
    tx: &mut SystemTx,
    org: OrgId,
    channel: ChannelId,
    reason: &str,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE channels SET status = 'blocked', status_reason = $3 WHERE org_id = $1 AND id = $2 AND status = 'active'",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A channel that its provider had blocked works again. `false` if it was not blocked.
pub async fn unblock(tx: &mut SystemTx, org: OrgId, channel: ChannelId) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE channels SET status = 'active', status_reason = NULL WHERE org_id = $1 AND id = $2 AND status = 'blocked'",
    )
    .bind(org.0)
    .bind(channel.0)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Writes the channel's limits (`wasel_domain::limits::ChannelLimits`).
pub async fn update_limits(
    tx: &mut SystemTx,
    org: OrgId,
    channel: ChannelId,
    limits: &Value,
) -> Result<bool> {
    let done = sqlx::query("UPDATE channels SET limits = $3 WHERE org_id = $1 AND id = $2")
        .bind(org.0)
        .bind(channel.0)
        .bind(limits)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// The channels the caller sees, by name.
pub async fn list(connection: &mut PgConnection) -> Result<Vec<Channel>> {
    Ok(sqlx::query_as("SELECT * FROM channels ORDER BY name, id")
        .fetch_all(connection)
        .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: ChannelId,
) -> Result<Option<Channel>> {
    Ok(
        sqlx::query_as("SELECT * FROM channels WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id.0)
            .fetch_optional(connection)
            .await?,
    )
}

/// The id of the channel of this kind and name.
pub async fn find_id(
    connection: &mut PgConnection,
    org: OrgId,
    kind: &str,
    name: &str,
) -> Result<Option<ChannelId>> {
    let id: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM channels WHERE org_id = $1 AND kind = $2 AND name = $3")
            .bind(org.0)
            .bind(kind)
            .bind(name)
            .fetch_optional(connection)
            .await?;
    Ok(id.map(ChannelId))
}

/// Every tenant's channels, for the registry.
pub async fn list_sealed(tx: &mut SystemTx) -> Result<Vec<SealedChannel>> {
    Ok(sqlx::query_as(
        "SELECT c.*, o.region, s.sealed FROM channels c JOIN organizations o ON o.id = c.org_id
         LEFT JOIN channel_secrets s ON s.org_id = c.org_id AND s.channel_id = c.id
         ORDER BY c.created_at, c.id",
    )
    .fetch_all(&mut **tx)
    .await?)
}

/// A channel's sealed secrets.
pub async fn find_sealed_secrets(
    tx: &mut SystemTx,
    org: OrgId,
    channel: ChannelId,
) -> Result<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar(
        "SELECT sealed FROM channel_secrets WHERE org_id = $1 AND channel_id = $2",
    )
    .bind(org.0)
    .bind(channel.0)
    .fetch_optional(&mut **tx)
    .await?)
}

/// Whether any secret is sealed: then an `ENCRYPTION_KEY` must not be invented.
pub async fn any_sealed(connection: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM channel_secrets) OR EXISTS (SELECT FROM whatsapp_session_keys)",
    )
    .fetch_one(connection)
    .await?)
}

/// Whether any channel is known to webhooks by one of these keys.
pub async fn any_with_routes(tx: &mut SystemTx, routes: &[String]) -> Result<bool> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM channels WHERE routing_keys && $1)")
            .bind(routes)
            .fetch_one(&mut **tx)
            .await?,
    )
}
