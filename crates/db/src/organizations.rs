//! Tenants.

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::{Result, SystemTx};

#[derive(Clone, Debug, FromRow)]
pub struct Organization {
    pub id: Uuid,
    pub slug: String,
    pub name: String,
    pub timezone: String,
    pub locale: String,
    pub region: Option<String>,
}

/// Makes the tenant or brings its settings up to date, by slug. Returns its id.
pub async fn upsert(tx: &mut SystemTx, organization: &Organization) -> Result<OrgId> {
    let id: Uuid = sqlx::query_scalar(
        "INSERT INTO organizations (id, slug, name, timezone, locale, region) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (slug) DO UPDATE SET name = excluded.name, timezone = excluded.timezone,
             locale = excluded.locale, region = excluded.region
         RETURNING id",
    )
    .bind(organization.id)
    .bind(&organization.slug)
    .bind(&organization.name)
    .bind(&organization.timezone)
    .bind(&organization.locale)
    .bind(&organization.region)
    .fetch_one(&mut **tx)
    .await?;
    Ok(OrgId(id))
}

pub async fn find(connection: &mut PgConnection, id: OrgId) -> Result<Option<Organization>> {
    Ok(sqlx::query_as("SELECT * FROM organizations WHERE id = $1")
        .bind(id.0)
        .fetch_optional(connection)
        .await?)
}

/// `wasel_domain::limits::SendingPolicy` as JSON.
pub async fn find_sending_policy(
    connection: &mut PgConnection,
    id: OrgId,
) -> Result<Option<serde_json::Value>> {
    Ok(
        sqlx::query_scalar("SELECT sending_policy FROM organizations WHERE id = $1")
            .bind(id.0)
            .fetch_optional(connection)
            .await?,
    )
}

pub async fn update_sending_policy(
    tx: &mut SystemTx,
    id: OrgId,
    policy: &serde_json::Value,
) -> Result<()> {
    sqlx::query("UPDATE organizations SET sending_policy = $2 WHERE id = $1")
        .bind(id.0)
        .bind(policy)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The tenant of an installation that has only one.
pub async fn find_only(connection: &mut PgConnection) -> Result<Option<OrgId>> {
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM organizations WHERE id <> $1 LIMIT 2")
        .bind(OrgId::SYSTEM.0)
        .fetch_all(connection)
        .await?;
    Ok(match ids.as_slice() {
        [only] => Some(OrgId(*only)),
        _ => None,
    })
}

pub async fn find_by_slug(
    connection: &mut PgConnection,
    slug: &str,
) -> Result<Option<Organization>> {
    Ok(
        sqlx::query_as("SELECT * FROM organizations WHERE slug = $1")
            .bind(slug)
            .fetch_optional(connection)
            .await?,
    )
}

/// Whether the database knows this IANA time zone.
pub async fn is_time_zone(connection: &mut PgConnection, name: &str) -> Result<bool> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)")
            .bind(name)
            .fetch_one(connection)
            .await?,
    )
}
