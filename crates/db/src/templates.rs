//! Message templates: the tenant's own, and the system's, which everybody may use and nobody may change.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::contacts::like_pattern;
use crate::{Result, SystemTx};

/// The constraint that refuses a second template of one name.
pub const UNIQUE_NAME: &str = "templates_org_id_name_key";

/// The system's templates, Arabic. A template's id is its place: add at the end only.
const SYSTEM: &str = include_str!("templates/system.ar.json");

#[derive(Clone, Debug, FromRow)]
pub struct Template {
    pub org_id: Uuid,
    pub id: Uuid,
    #[sqlx(flatten)]
    pub fields: TemplateFields,
    pub is_system: bool,
    pub usage_count: i64,
    pub last_used_at: Option<DateTime<Utc>>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What people write.
#[derive(Clone, Debug, FromRow)]
pub struct TemplateFields {
    pub name: String,
    pub description: Option<String>,
    pub category: String,
    pub message_template: String,
    pub variables: Json<Vec<String>>,
    pub media_type: Option<String>,
    pub media_url: Option<String>,
    pub email_subject: Option<String>,
    pub email_html: Option<String>,
    pub twilio_content_sid: Option<String>,
    /// Twilio's variable → ours; `None`: they have the same names.
    pub twilio_variables: Option<Json<BTreeMap<String, String>>>,
    pub is_active: bool,
}

/// Which templates a list shows. All conditions hold at once.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    pub category: Option<&'a str>,
    /// In the name, the description or the text.
    pub search: Option<&'a str>,
    pub is_active: Option<bool>,
}

/// The tenant's templates, newest first, then the system's; after `before` (an id from the page before).
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    filter: &Filter<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Template>> {
    Ok(sqlx::query_as(
        "SELECT * FROM templates WHERE org_id IN ($1, $2) AND ($3::uuid IS NULL OR id < $3)
           AND ($4::text IS NULL OR category = $4) AND ($5::boolean IS NULL OR is_active = $5)
           AND ($6::text IS NULL OR name ILIKE $6 OR description ILIKE $6 OR message_template ILIKE $6)
         ORDER BY id DESC LIMIT $7",
    )
    .bind(org.0)
    .bind(OrgId::SYSTEM.0)
    .bind(before)
    .bind(filter.category)
    .bind(filter.is_active)
    .bind(filter.search.map(like_pattern))
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

/// The tenant's template with this id, else the system's.
pub async fn find(connection: &mut PgConnection, org: OrgId, id: Uuid) -> Result<Option<Template>> {
    Ok(sqlx::query_as(
        "SELECT * FROM templates WHERE org_id IN ($1, $2) AND id = $3 ORDER BY is_system LIMIT 1",
    )
    .bind(org.0)
    .bind(OrgId::SYSTEM.0)
    .bind(id)
    .fetch_optional(connection)
    .await?)
}

/// The tenant's own template, locked until the transaction ends; `None` also for the system's.
pub async fn find_for_update(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
) -> Result<Option<Template>> {
    Ok(
        sqlx::query_as("SELECT * FROM templates WHERE org_id = $1 AND id = $2 FOR UPDATE")
            .bind(org.0)
            .bind(id)
            .fetch_optional(connection)
            .await?,
    )
}

/// # Errors
/// A second one of the same name is refused by [`UNIQUE_NAME`].
pub async fn insert(
    connection: &mut PgConnection,
    org: OrgId,
    fields: &TemplateFields,
    created_by: Option<UserId>,
) -> Result<Template> {
    Ok(sqlx::query_as(
        "INSERT INTO templates (org_id, id, name, description, category, message_template, variables, media_type,
             media_url, email_subject, email_html, twilio_content_sid, is_active, created_by, twilio_variables)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) RETURNING *",
    )
    .bind(org.0)
    .bind(Uuid::now_v7())
    .bind(&fields.name)
    .bind(&fields.description)
    .bind(&fields.category)
    .bind(&fields.message_template)
    .bind(&fields.variables)
    .bind(&fields.media_type)
    .bind(&fields.media_url)
    .bind(&fields.email_subject)
    .bind(&fields.email_html)
    .bind(&fields.twilio_content_sid)
    .bind(fields.is_active)
    .bind(created_by.map(|user| user.0))
    .bind(&fields.twilio_variables)
    .fetch_one(connection)
    .await?)
}

/// Writes all fields; `None` if the tenant has no such template of its own.
///
/// # Errors
/// As [`insert`].
pub async fn update(
    connection: &mut PgConnection,
    org: OrgId,
    id: Uuid,
    fields: &TemplateFields,
) -> Result<Option<Template>> {
    Ok(sqlx::query_as(
        "UPDATE templates SET name = $3, description = $4, category = $5, message_template = $6, variables = $7,
             media_type = $8, media_url = $9, email_subject = $10, email_html = $11, twilio_content_sid = $12,
             is_active = $13, twilio_variables = $14
         WHERE org_id = $1 AND id = $2 RETURNING *",
    )
    .bind(org.0)
    .bind(id)
    .bind(&fields.name)
    .bind(&fields.description)
    .bind(&fields.category)
    .bind(&fields.message_template)
    .bind(&fields.variables)
    .bind(&fields.media_type)
    .bind(&fields.media_url)
    .bind(&fields.email_subject)
    .bind(&fields.email_html)
    .bind(&fields.twilio_content_sid)
    .bind(fields.is_active)
    .bind(&fields.twilio_variables)
    .fetch_optional(connection)
    .await?)
}

/// Whether the tenant had such a template of its own.
pub async fn delete(connection: &mut PgConnection, org: OrgId, id: Uuid) -> Result<bool> {
    let done = sqlx::query("DELETE FROM templates WHERE org_id = $1 AND id = $2")
        .bind(org.0)
        .bind(id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Counts one use of the tenant's own template; the system's are everybody's and not counted. As the system, because an
/// agent may use a template and may not write one.
pub async fn record_use(tx: &mut SystemTx, org: OrgId, id: Uuid) -> Result<()> {
    sqlx::query(
        "UPDATE templates SET usage_count = usage_count + 1, last_used_at = now()
         WHERE org_id = $1 AND id = $2 AND NOT is_system",
    )
    .bind(org.0)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Brings the system's templates into a migrated database, or up to date: a script that may run any number of times
/// and writes only what differs.
pub(crate) fn system_sql() -> String {
    // In the SQL the JSON stands between dollar quotes, which it does not contain.
    format!(
        "BEGIN;
-- The owner of the schema is under row-level security too.
SET LOCAL ROLE service_role;
INSERT INTO public.templates AS t (org_id, id, name, description, category, message_template, variables)
SELECT '{system}', ('00000000-0000-7000-8000-' || lpad(s.place::text, 12, '0'))::uuid, s.template ->> 'name',
    s.template ->> 'description', s.template ->> 'category', s.template ->> 'message_template', s.template -> 'variables'
FROM jsonb_array_elements($templates${SYSTEM}$templates$::jsonb) WITH ORDINALITY AS s(template, place)
ON CONFLICT (org_id, id) DO UPDATE SET name = excluded.name, description = excluded.description,
    category = excluded.category, message_template = excluded.message_template, variables = excluded.variables
WHERE (t.name, t.description, t.category, t.message_template, t.variables) IS DISTINCT FROM
    (excluded.name, excluded.description, excluded.category, excluded.message_template, excluded.variables);
COMMIT;
",
        system = OrgId::SYSTEM,
    )
}
