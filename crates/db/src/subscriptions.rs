//! The documents' subscriptions (S4.10): whose trial begins, whose plan ends. Applications write them; automations read
//! them.

use chrono::NaiveDate;
use sqlx::PgConnection;
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::Result;

#[derive(Clone, Debug)]
pub struct NewSubscription<'a> {
    pub customer_name: &'a str,
    pub customer_phone: Option<&'a str>,
    pub plan: &'a str,
    /// `trial`, `active`, `expired`, `cancelled`.
    pub status: &'a str,
    pub end_date: NaiveDate,
}

pub async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    new: &NewSubscription<'_>,
) -> Result<Uuid> {
    Ok(sqlx::query_scalar(
        "INSERT INTO subscriptions (org_id, customer_name, customer_phone, plan, status, end_date)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(org.0)
    .bind(new.customer_name)
    .bind(new.customer_phone)
    .bind(new.plan)
    .bind(new.status)
    .bind(new.end_date)
    .fetch_one(connection)
    .await?)
}

/// Whether the tenant has any.
pub async fn any(connection: &mut PgConnection, org: OrgId) -> Result<bool> {
    Ok(
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM subscriptions WHERE org_id = $1)")
            .bind(org.0)
            .fetch_one(connection)
            .await?,
    )
}
