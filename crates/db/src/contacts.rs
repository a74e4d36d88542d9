//! Customers and their identities.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::event::Identity;
use wasel_domain::{ContactId, OrgId};

use crate::{Result, SystemTx};

#[derive(Clone, Debug, FromRow)]
pub struct Contact {
    pub id: Uuid,
    pub name: Option<String>,
    pub phone_number: Option<String>,
    pub email: Option<String>,
    pub avatar_url: Option<String>,
    /// An IANA name, where somebody wrote it.
    pub timezone: Option<String>,
    pub attributes: Value,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, FromRow)]
pub struct ContactIdentity {
    pub kind: String,
    pub value: String,
    pub contact_id: Uuid,
}

/// The tenant's contacts, newest first, after `before` (an id from the page before).
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    search: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Contact>> {
    let pattern = search.map(like_pattern);
    Ok(sqlx::query_as(
        "SELECT * FROM contacts WHERE org_id = $1 AND ($2::uuid IS NULL OR id < $2)
           AND ($3::text IS NULL OR name ILIKE $3 OR phone_number LIKE $3 OR email ILIKE $3)
         ORDER BY id DESC LIMIT $4",
    )
    .bind(org.0)
    .bind(before)
    .bind(pattern)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    id: ContactId,
) -> Result<Option<Contact>> {
    Ok(
        sqlx::query_as("SELECT * FROM contacts WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id.0)
            .fetch_optional(connection)
            .await?,
    )
}

pub async fn update_timezone(
    connection: &mut PgConnection,
    org: OrgId,
    id: ContactId,
    timezone: Option<&str>,
) -> Result<bool> {
    let done = sqlx::query("UPDATE contacts SET timezone = $3 WHERE org_id = $1 AND id = $2")
        .bind(org.0)
        .bind(id.0)
        .bind(timezone)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub async fn list_identities(
    connection: &mut PgConnection,
    org: OrgId,
    contacts: &[Uuid],
) -> Result<Vec<ContactIdentity>> {
    Ok(sqlx::query_as(
        "SELECT kind, value, contact_id FROM contact_identities
         WHERE org_id = $1 AND contact_id = ANY($2) ORDER BY created_at, kind, value",
    )
    .bind(org.0)
    .bind(contacts)
    .fetch_all(connection)
    .await?)
}

/// The identities of contacts of any tenants, one element of `orgs` and `contacts` each.
pub async fn list_identities_of(
    tx: &mut SystemTx,
    orgs: &[Uuid],
    contacts: &[Uuid],
) -> Result<Vec<ContactIdentity>> {
    Ok(sqlx::query_as(
        "SELECT i.kind, i.value, i.contact_id FROM unnest($1::uuid[], $2::uuid[]) AS c(org_id, contact_id)
         JOIN contact_identities i ON i.org_id = c.org_id AND i.contact_id = c.contact_id
         ORDER BY i.created_at, i.kind, i.value",
    )
    .bind(orgs)
    .bind(contacts)
    .fetch_all(&mut **tx)
    .await?)
}

/// The contact with this identity, made if there is none. Safe against another one doing the same.
pub async fn find_or_insert(
    connection: &mut PgConnection,
    org: OrgId,
    identity: &Identity,
    name: Option<&str>,
) -> Result<ContactId> {
    let find =
        "SELECT contact_id FROM contact_identities WHERE org_id = $1 AND kind = $2 AND value = $3";
    let find = || {
        sqlx::query_scalar(find)
            .bind(org.0)
            .bind(identity.kind.as_str())
            .bind(&identity.value)
    };
    if let Some(id) = find().fetch_optional(&mut *connection).await? {
        return Ok(ContactId(id));
    }
    let id = ContactId::generate();
    let phone =
        (identity.kind == wasel_domain::event::IdentityKind::Phone).then_some(&identity.value);
    let email =
        (identity.kind == wasel_domain::event::IdentityKind::Email).then_some(&identity.value);
    sqlx::query(
        "INSERT INTO contacts (org_id, id, name, phone_number, email) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(org.0)
    .bind(id.0)
    .bind(name)
    .bind(phone)
    .bind(email)
    .execute(&mut *connection)
    .await?;
    let owner: Uuid = sqlx::query_scalar(
        "INSERT INTO contact_identities (org_id, kind, value, contact_id) VALUES ($1, $2, $3, $4)
         ON CONFLICT (org_id, kind, value) DO UPDATE SET contact_id = contact_identities.contact_id
         RETURNING contact_id",
    )
    .bind(org.0)
    .bind(identity.kind.as_str())
    .bind(&identity.value)
    .bind(id.0)
    .fetch_one(&mut *connection)
    .await?;
    if owner != id.0 {
        sqlx::query("DELETE FROM contacts WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id.0)
            .execute(connection)
            .await?;
    }
    Ok(ContactId(owner))
}

/// Adds an identity to a contact that is known by another. Returns whether it was new.
pub async fn insert_identity(
    connection: &mut PgConnection,
    org: Uuid,
    contact: Uuid,
    identity: &Identity,
) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO contact_identities (org_id, kind, value, contact_id) VALUES ($1, $2, $3, $4)
         ON CONFLICT (org_id, kind, value) DO NOTHING",
    )
    .bind(org)
    .bind(identity.kind.as_str())
    .bind(&identity.value)
    .bind(contact)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Whom any of these identities names, the oldest contact first.
pub async fn list_by_identities(
    connection: &mut PgConnection,
    org: Uuid,
    identities: &[Identity],
) -> Result<Vec<Uuid>> {
    let kinds: Vec<_> = identities
        .iter()
        .map(|identity| identity.kind.as_str())
        .collect();
    let values: Vec<_> = identities
        .iter()
        .map(|identity| identity.value.as_str())
        .collect();
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT i.contact_id FROM unnest($2::text[], $3::text[]) AS n(kind, value)
         JOIN contact_identities i ON i.org_id = $1 AND i.kind = n.kind AND i.value = n.value ORDER BY 1",
    )
    .bind(org)
    .bind(kinds)
    .bind(values)
    .fetch_all(connection)
    .await?)
}

/// Two contacts are one person: everything of `gone` moves to `keep`. Where both have a conversation on a
/// channel, the messages move into the kept one.
pub async fn merge(connection: &mut PgConnection, org: Uuid, keep: Uuid, gone: Uuid) -> Result<()> {
    // Conversations on the same channel, pair by pair.
    let pairs: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT k.id, g.id FROM conversations g JOIN conversations k
           ON k.org_id = g.org_id AND k.channel_id = g.channel_id AND k.group_id IS NULL
         WHERE g.org_id = $1 AND g.contact_id = $3 AND k.contact_id = $2 AND g.group_id IS NULL",
    )
    .bind(org)
    .bind(keep)
    .bind(gone)
    .fetch_all(&mut *connection)
    .await?;
    for (kept, dropped) in pairs {
        sqlx::query(
            "UPDATE messages SET conversation_id = $2 WHERE org_id = $1 AND conversation_id = $3",
        )
        .bind(org)
        .bind(kept)
        .bind(dropped)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE outbox SET conversation_id = $2 WHERE org_id = $1 AND conversation_id = $3",
        )
        .bind(org)
        .bind(kept)
        .bind(dropped)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE scheduled_messages SET conversation_id = $2 WHERE org_id = $1 AND conversation_id = $3",
        )
        .bind(org)
        .bind(kept)
        .bind(dropped)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "UPDATE conversations k SET unread_count = k.unread_count + g.unread_count,
                 last_message = CASE WHEN g.last_message_at > k.last_message_at OR k.last_message_at IS NULL THEN g.last_message ELSE k.last_message END,
                 last_message_at = greatest(k.last_message_at, g.last_message_at),
                 last_inbound_at = greatest(k.last_inbound_at, g.last_inbound_at),
                 tags = ARRAY(SELECT DISTINCT unnest(k.tags || g.tags)),
                 notes = nullif(concat_ws(E'\\n', k.notes, g.notes), ''),
                 assigned_to = coalesce(k.assigned_to, g.assigned_to), updated_at = now()
             FROM conversations g WHERE k.org_id = $1 AND k.id = $2 AND g.org_id = $1 AND g.id = $3",
        )
        .bind(org)
        .bind(kept)
        .bind(dropped)
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM conversations WHERE org_id = $1 AND id = $2")
            .bind(org)
            .bind(dropped)
            .execute(&mut *connection)
            .await?;
    }
    for statement in [
        "UPDATE conversations SET contact_id = $2, updated_at = now() WHERE org_id = $1 AND contact_id = $3",
        // By conversation: messages have no index by contact.
        "UPDATE messages SET contact_id = $2 WHERE org_id = $1 AND contact_id = $3 AND conversation_id IN
             (SELECT id FROM conversations WHERE org_id = $1 AND contact_id = $2)",
        "UPDATE contact_identities SET contact_id = $2 WHERE org_id = $1 AND contact_id = $3",
        "UPDATE consents SET contact_id = $2 WHERE org_id = $1 AND contact_id = $3",
        "UPDATE contacts k SET name = coalesce(k.name, g.name), phone_number = coalesce(k.phone_number, g.phone_number),
             email = coalesce(k.email, g.email), timezone = coalesce(k.timezone, g.timezone), avatar_url = coalesce(k.avatar_url, g.avatar_url),
             attributes = g.attributes || k.attributes
         FROM contacts g WHERE k.org_id = $1 AND k.id = $2 AND g.org_id = $1 AND g.id = $3",
    ] {
        sqlx::query(statement).bind(org).bind(keep).bind(gone).execute(&mut *connection).await?;
    }
    sqlx::query("DELETE FROM contacts WHERE org_id = $1 AND id = $2")
        .bind(org)
        .bind(gone)
        .execute(connection)
        .await?;
    Ok(())
}

/// A user's search words as a LIKE pattern that matches anywhere.
pub(crate) fn like_pattern(search: &str) -> String {
    let escaped = search
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    format!("%{escaped}%")
}
