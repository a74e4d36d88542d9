//! Who may join a tenant, as what. Written by the server only; owners and admins read.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::{Result, SystemTx};

/// The index that keeps a tenant from inviting an address twice at a time.
pub const UNIQUE_OPEN: &str = "invitations_open";

#[derive(Clone, Debug, FromRow)]
pub struct Invitation {
    pub org_id: Uuid,
    pub id: Uuid,
    pub email: String,
    pub role: String,
    pub full_name: Option<String>,
    /// The channels an agent will be limited to; empty means all.
    pub channel_ids: Vec<Uuid>,
    /// `None`: the operator's own server.
    pub invited_by: Option<Uuid>,
    pub expires_at: DateTime<Utc>,
    pub mailed_at: Option<DateTime<Utc>>,
    pub accepted_at: Option<DateTime<Utc>>,
    pub accepted_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
}

/// What it takes to add an [`Invitation`].
#[derive(Clone, Debug)]
pub struct NewInvitation<'a> {
    pub email: &'a str,
    pub role: &'a str,
    pub full_name: Option<&'a str>,
    pub channel_ids: &'a [Uuid],
    pub invited_by: Option<UserId>,
    pub lifetime: Duration,
    pub is_mailed: bool,
}

/// Adds an invitation; one of this address that has expired gives way. An open one is [`crate::Error::Constraint`]
/// [`UNIQUE_OPEN`].
pub async fn insert(
    tx: &mut SystemTx,
    org: OrgId,
    invitation: &NewInvitation<'_>,
) -> Result<Invitation> {
    sqlx::query(
        "DELETE FROM invitations
         WHERE org_id = $1 AND lower(email) = lower($2) AND accepted_at IS NULL AND expires_at < now()",
    )
    .bind(org.0)
    .bind(invitation.email)
    .execute(&mut **tx)
    .await?;
    Ok(sqlx::query_as(
        "INSERT INTO invitations (org_id, email, role, full_name, channel_ids, invited_by, expires_at, mailed_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7), CASE WHEN $8 THEN now() END)
         RETURNING *",
    )
    .bind(org.0)
    .bind(invitation.email)
    .bind(invitation.role)
    .bind(invitation.full_name)
    .bind(invitation.channel_ids)
    .bind(invitation.invited_by.map(|user| user.0))
    .bind(invitation.lifetime.as_secs_f64())
    .bind(invitation.is_mailed)
    .fetch_one(&mut **tx)
    .await?)
}

/// Whether the tenant has all of these channels.
pub async fn channels_exist(tx: &mut SystemTx, org: OrgId, channels: &[Uuid]) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT FROM unnest($2::uuid[]) AS wanted (id)
             WHERE NOT EXISTS (SELECT FROM channels c WHERE c.org_id = $1 AND c.id = wanted.id))",
    )
    .bind(org.0)
    .bind(channels)
    .fetch_one(&mut **tx)
    .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<Invitation>> {
    Ok(
        sqlx::query_as("SELECT * FROM invitations WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id)
            .fetch_optional(connection)
            .await?,
    )
}

/// An invitation that nobody else changes until this is committed.
pub async fn lock(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<Option<Invitation>> {
    Ok(
        sqlx::query_as("SELECT * FROM invitations WHERE org_id = $1 AND id = $2 FOR NO KEY UPDATE")
            .bind(org.0)
            .bind(id)
            .fetch_optional(&mut **tx)
            .await?,
    )
}

/// The tenant's invitations, newest first, from before `before`.
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Invitation>> {
    Ok(sqlx::query_as(
        "SELECT * FROM invitations WHERE org_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(org.0)
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// Gives an open invitation its whole time anew. `None`: there is none, or it was accepted.
pub async fn renew(
    tx: &mut SystemTx,
    org: OrgId,
    id: Uuid,
    lifetime: Duration,
    is_mailed: bool,
) -> Result<Option<Invitation>> {
    Ok(sqlx::query_as(
        "UPDATE invitations SET expires_at = now() + make_interval(secs => $3),
             mailed_at = CASE WHEN $4 THEN now() ELSE mailed_at END
         WHERE org_id = $1 AND id = $2 AND accepted_at IS NULL RETURNING *",
    )
    .bind(org.0)
    .bind(id)
    .bind(lifetime.as_secs_f64())
    .bind(is_mailed)
    .fetch_optional(&mut **tx)
    .await?)
}

/// Takes an open invitation back. `false`: there is none, or it was accepted.
pub async fn delete_open(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "DELETE FROM invitations WHERE org_id = $1 AND id = $2 AND accepted_at IS NULL",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Closes an open invitation that has not expired. `None`: there is none.
pub async fn accept(
    tx: &mut SystemTx,
    org: OrgId,
    id: Uuid,
    user: UserId,
) -> Result<Option<Invitation>> {
    Ok(sqlx::query_as(
        "UPDATE invitations SET accepted_at = now(), accepted_by = $3
         WHERE org_id = $1 AND id = $2 AND accepted_at IS NULL AND expires_at > now() RETURNING *",
    )
    .bind(org.0)
    .bind(id)
    .bind(user.0)
    .fetch_optional(&mut **tx)
    .await?)
}
