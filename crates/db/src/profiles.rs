//! Who belongs to which tenant, and as what.

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::{Result, SystemTx};

#[derive(Clone, Debug, FromRow)]
pub struct Profile {
    pub org_id: Uuid,
    pub id: Uuid,
    pub email: Option<String>,
    pub full_name: Option<String>,
    pub phone: Option<String>,
    pub role: String,
}

/// Adds the person to the tenant or brings their entry up to date.
pub async fn upsert(tx: &mut SystemTx, profile: &Profile) -> Result<()> {
    sqlx::query(
        "INSERT INTO profiles (org_id, id, email, full_name, phone, role) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (org_id, id) DO UPDATE SET email = excluded.email, full_name = excluded.full_name,
             phone = excluded.phone, role = excluded.role",
    )
    .bind(profile.org_id)
    .bind(profile.id)
    .bind(&profile.email)
    .bind(&profile.full_name)
    .bind(&profile.phone)
    .bind(&profile.role)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// All memberships of a person, the oldest first.
pub async fn list_of_user(connection: &mut PgConnection, user: UserId) -> Result<Vec<Profile>> {
    Ok(
        sqlx::query_as("SELECT * FROM profiles WHERE id = $1 ORDER BY created_at, org_id")
            .bind(user.0)
            .fetch_all(connection)
            .await?,
    )
}

/// The channels an agent is limited to; empty means all.
pub async fn list_channel_limits(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "SELECT channel_id FROM channel_members WHERE org_id = $1 AND user_id = $2",
    )
    .bind(org.0)
    .bind(user.0)
    .fetch_all(connection)
    .await?)
}

/// A member of the tenant.
pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    user: UserId,
) -> Result<Option<Profile>> {
    Ok(
        sqlx::query_as("SELECT * FROM profiles WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(user.0)
            .fetch_optional(connection)
            .await?,
    )
}

/// Whether the person belongs to the tenant.
pub async fn exists(connection: &mut PgConnection, org: OrgId, user: UserId) -> Result<bool> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM profiles WHERE org_id = $1 AND id = $2)")
            .bind(org.0)
            .bind(user.0)
            .fetch_one(connection)
            .await?,
    )
}

/// The tenant's people, by address.
pub async fn list(connection: &mut PgConnection, org: OrgId) -> Result<Vec<Profile>> {
    Ok(
        sqlx::query_as("SELECT * FROM profiles WHERE org_id = $1 ORDER BY email, id")
            .bind(org.0)
            .fetch_all(connection)
            .await?,
    )
}
