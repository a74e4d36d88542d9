//! Who asked not to be written to. A ledger: the newest entry per contact, channel and category counts.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::consent::Consent;

use crate::Result;

#[derive(Clone, Debug)]
pub struct NewConsent<'a> {
    pub org_id: Uuid,
    pub contact_id: Uuid,
    /// `None`: every channel.
    pub channel_id: Option<Uuid>,
    pub category: &'a str,
    pub state: Consent,
    /// `keyword`, `provider`, `agent`, `send_error`.
    pub source: &'a str,
    pub at: DateTime<Utc>,
}

/// One entry of a contact's consent history.
#[derive(Clone, Debug, FromRow)]
pub struct ConsentEntry {
    pub channel_id: Option<Uuid>,
    pub category: String,
    pub state: String,
    pub source: String,
    pub at: DateTime<Utc>,
}

/// Adds an entry. Returns `false` if the same one is there already.
pub async fn insert(connection: &mut PgConnection, consent: &NewConsent<'_>) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO consents (org_id, id, contact_id, channel_id, category, state, source, at)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE NOT EXISTS (
             SELECT FROM consents WHERE org_id = $1 AND contact_id = $3 AND channel_id IS NOT DISTINCT FROM $4
               AND category = $5 AND state = $6 AND source = $7 AND at = $8)",
    )
    .bind(consent.org_id)
    .bind(Uuid::now_v7())
    .bind(consent.contact_id)
    .bind(consent.channel_id)
    .bind(consent.category)
    .bind(consent.state.as_str())
    .bind(consent.source)
    .bind(consent.at)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// What a person does not want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptOut {
    /// To be written to at all.
    All,
    /// Messages of the category asked about.
    Category,
}

/// Whether the contact may get a message of this category on this channel. An opt-in to everything ends an opt-out of a
/// category; an opt-in to a category does not end an opt-out of everything.
pub async fn find_opt_out(
    connection: &mut PgConnection,
    org: Uuid,
    contact: Uuid,
    channel: Uuid,
    category: &str,
) -> Result<Option<OptOut>> {
    // The newest word about everything, and the newest about everything or the category.
    let (whole, part): (Option<String>, Option<String>) = sqlx::query_as(
        "SELECT (array_agg(state ORDER BY at DESC, id DESC) FILTER (WHERE category = 'all'))[1],
             (array_agg(state ORDER BY at DESC, id DESC))[1]
         FROM consents WHERE org_id = $1 AND contact_id = $2 AND category IN ('all', $4)
           AND (channel_id = $3 OR channel_id IS NULL)",
    )
    .bind(org)
    .bind(contact)
    .bind(channel)
    .bind(category)
    .fetch_one(connection)
    .await?;
    let is_out = |state: Option<String>| state.as_deref() == Some(Consent::OptedOut.as_str());
    Ok(if is_out(whole) {
        Some(OptOut::All)
    } else if is_out(part) {
        Some(OptOut::Category)
    } else {
        None
    })
}

/// A contact's history, newest first.
pub async fn list(
    connection: &mut PgConnection,
    org: Uuid,
    contact: Uuid,
) -> Result<Vec<ConsentEntry>> {
    Ok(sqlx::query_as("SELECT * FROM consents WHERE org_id = $1 AND contact_id = $2 ORDER BY at DESC, id DESC LIMIT 100")
        .bind(org)
        .bind(contact)
        .fetch_all(connection)
        .await?)
}
