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

/// Adds the person to the tenant; a member's entry stays as it is. Returns whether they are new.
pub async fn insert(tx: &mut SystemTx, profile: &Profile) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO profiles (org_id, id, email, full_name, phone, role) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (org_id, id) DO NOTHING",
    )
    .bind(profile.org_id)
    .bind(profile.id)
    .bind(&profile.email)
    .bind(&profile.full_name)
    .bind(&profile.phone)
    .bind(&profile.role)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Limits an agent to those of these channels that exist. Returns how many there are.
pub async fn insert_channel_limits(
    tx: &mut SystemTx,
    org: OrgId,
    user: UserId,
    channels: &[Uuid],
) -> Result<u64> {
    let done = sqlx::query(
        "INSERT INTO channel_members (org_id, channel_id, user_id)
         SELECT org_id, id, $2 FROM channels WHERE org_id = $1 AND id = ANY ($3) ON CONFLICT DO NOTHING",
    )
    .bind(org.0)
    .bind(user.0)
    .bind(channels)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// Whether the tenant has a member with this address, in whatever case.
pub async fn exists_with_email(tx: &mut SystemTx, org: OrgId, email: &str) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM profiles p LEFT JOIN wasel.users u ON u.id = p.id
             WHERE p.org_id = $1 AND lower(coalesce(u.email, p.email)) = lower($2))",
    )
    .bind(org.0)
    .bind(email)
    .fetch_one(&mut **tx)
    .await?)
}

/// Follows a person's new address in all their tenants.
pub async fn update_email(tx: &mut SystemTx, user: UserId, email: &str) -> Result<()> {
    sqlx::query("UPDATE profiles SET email = $2 WHERE id = $1")
        .bind(user.0)
        .bind(email)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
