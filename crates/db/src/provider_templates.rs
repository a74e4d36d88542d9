//! Templates that providers keep, and which of ours they stand in for.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::provider_template::{ParameterFormat, ProviderTemplate, VariableMap};
use wasel_domain::{ChannelId, OrgId};

use crate::contacts::like_pattern;
use crate::ingest::clean_json;
use crate::{Result, SystemTx};

#[derive(Clone, Debug, FromRow)]
pub struct ProviderTemplateRow {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub provider_id: Option<String>,
    pub name: String,
    pub language: String,
    pub category: Option<String>,
    /// What the provider says it will make of the category.
    pub announced_category: Option<String>,
    pub status: String,
    pub parameter_format: String,
    /// `None` where only a webhook has told of it so far.
    pub components: Option<Json<Vec<Value>>>,
    pub quality: Option<String>,
    pub rejected_reason: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl ProviderTemplateRow {
    #[must_use]
    pub fn template(&self) -> ProviderTemplate {
        ProviderTemplate {
            provider_id: self.provider_id.clone(),
            name: self.name.clone(),
            language: self.language.clone(),
            category: self.category.clone(),
            status: self.status.clone(),
            parameter_format: ParameterFormat::parse(&self.parameter_format).unwrap_or_default(),
            components: self.components.as_ref().map(|json| json.0.clone()),
            quality: self.quality.clone(),
            rejected_reason: self.rejected_reason.clone(),
        }
    }
}

/// Which templates a list shows. All conditions hold at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<&'a str>,
    pub category: Option<&'a str>,
    pub language: Option<&'a str>,
    /// In the name.
    pub search: Option<&'a str>,
}

/// A channel's templates, the newest to us first, after `before` (an id from the page before).
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    filter: &Filter<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ProviderTemplateRow>> {
    Ok(sqlx::query_as(
        "SELECT * FROM provider_templates WHERE org_id = $1 AND channel_id = $2 AND ($3::uuid IS NULL OR id < $3)
           AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR category = $5)
           AND ($6::text IS NULL OR language = $6) AND ($7::text IS NULL OR name LIKE $7)
         ORDER BY id DESC LIMIT $8",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(before)
    .bind(filter.status)
    .bind(filter.category)
    .bind(filter.language)
    .bind(filter.search.map(like_pattern))
    .bind(limit)
    .fetch_all(connection)
    .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    id: Uuid,
) -> Result<Option<ProviderTemplateRow>> {
    Ok(sqlx::query_as(
        "SELECT * FROM provider_templates WHERE org_id = $1 AND channel_id = $2 AND id = $3",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(id)
    .fetch_optional(connection)
    .await?)
}

/// All languages of a template.
pub async fn list_named(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    name: &str,
) -> Result<Vec<ProviderTemplateRow>> {
    Ok(sqlx::query_as(
        "SELECT * FROM provider_templates WHERE org_id = $1 AND channel_id = $2 AND name = $3 ORDER BY language",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(name)
    .fetch_all(connection)
    .await?)
}

/// When the channel's templates were last read as a whole.
pub async fn find_synced_at(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
) -> Result<Option<DateTime<Utc>>> {
    let found: Option<Option<DateTime<Utc>>> = sqlx::query_scalar(
        "SELECT templates_synced_at FROM channels WHERE org_id = $1 AND id = $2",
    )
    .bind(org.0)
    .bind(channel.0)
    .fetch_optional(connection)
    .await?;
    Ok(found.flatten())
}

/// Writes templates as the provider showed them at `seen_at`, the time before it was asked. A status that a webhook
/// told of since then stays. Returns how many rows that changed; no name and language may occur twice.
pub async fn upsert(
    tx: &mut SystemTx,
    org: OrgId,
    channel: ChannelId,
    templates: &[ProviderTemplate],
    seen_at: DateTime<Utc>,
) -> Result<u64> {
    let json = serde_json::to_value(templates).unwrap_or_default();
    // A webhook's clock has whole seconds.
    let later = "t.provider_id IS NOT DISTINCT FROM excluded.provider_id
                 AND t.status_at >= date_trunc('second', excluded.status_at)";
    let done = sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO provider_templates AS t (org_id, channel_id, provider_id, name, language, category, status,
             parameter_format, components, quality, rejected_reason, status_at)
         SELECT $1, $2, n.provider_id, n.name, n.language, n.category, n.status, n.parameter_format, n.components,
             n.quality, n.rejected_reason, $4
         FROM jsonb_to_recordset($3::jsonb) AS n(provider_id text, name text, language text, category text, status text,
             parameter_format text, components jsonb, quality text, rejected_reason text)
         ON CONFLICT (org_id, channel_id, name, language) DO UPDATE SET provider_id = excluded.provider_id,
             category = excluded.category, parameter_format = excluded.parameter_format,
             components = excluded.components, quality = coalesce(excluded.quality, t.quality),
             announced_category = nullif(t.announced_category, excluded.category),
             status = CASE WHEN {later} THEN t.status ELSE excluded.status END,
             rejected_reason = CASE WHEN {later} THEN t.rejected_reason ELSE excluded.rejected_reason END,
             status_at = greatest(t.status_at, excluded.status_at)
         WHERE (t.provider_id, t.category, t.parameter_format, t.components, t.quality)
                 IS DISTINCT FROM (excluded.provider_id, excluded.category, excluded.parameter_format,
                     excluded.components, coalesce(excluded.quality, t.quality))
             OR (t.status, t.rejected_reason) IS DISTINCT FROM (excluded.status, excluded.rejected_reason)
                 AND NOT ({later})",
    )))
    .bind(org.0)
    .bind(channel.0)
    .bind(clean_json(&json))
    .bind(seen_at)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

/// Forgets the channel's templates that the provider did not show at `seen_at`, and notes that all were read.
/// Returns how many went.
pub async fn delete_unseen(
    tx: &mut SystemTx,
    org: OrgId,
    channel: ChannelId,
    templates: &[ProviderTemplate],
    seen_at: DateTime<Utc>,
) -> Result<u64> {
    let names: Vec<&str> = templates.iter().map(|t| t.name.as_str()).collect();
    let languages: Vec<&str> = templates.iter().map(|t| t.language.as_str()).collect();
    let gone = sqlx::query(
        "DELETE FROM provider_templates t WHERE t.org_id = $1 AND t.channel_id = $2 AND t.created_at < $5
           AND t.status_at < $5
           AND NOT EXISTS (SELECT FROM unnest($3::text[], $4::text[]) AS n(name, language)
                           WHERE n.name = t.name AND n.language = t.language)",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(names)
    .bind(languages)
    .bind(seen_at)
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE channels SET templates_synced_at = $3 WHERE org_id = $1 AND id = $2")
        .bind(org.0)
        .bind(channel.0)
        .bind(seen_at)
        .execute(&mut **tx)
        .await?;
    Ok(gone.rows_affected())
}

pub async fn delete(tx: &mut SystemTx, org: OrgId, channel: ChannelId, id: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "DELETE FROM provider_templates WHERE org_id = $1 AND channel_id = $2 AND id = $3",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(id)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A template of ours with the provider's that stands in for it on a channel.
#[derive(Clone, Debug, FromRow)]
pub struct Mapping {
    pub template_id: Uuid,
    pub variable_map: Json<VariableMap>,
    #[sqlx(flatten)]
    pub provider: ProviderTemplateRow,
}

const SELECT_MAPPING: &str = "SELECT m.template_id, m.variable_map, p.* FROM template_mappings m
     JOIN provider_templates p ON p.org_id = m.org_id AND p.id = m.provider_template_id";

pub async fn find_mapping(
    connection: &mut PgConnection,
    org: OrgId,
    template: Uuid,
    channel: ChannelId,
) -> Result<Option<Mapping>> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{SELECT_MAPPING} WHERE m.org_id = $1 AND m.template_id = $2 AND m.channel_id = $3"
    )))
    .bind(org.0)
    .bind(template)
    .bind(channel.0)
    .fetch_optional(connection)
    .await?)
}

/// A template's mappings that the caller sees, one for each channel.
pub async fn list_mappings(
    connection: &mut PgConnection,
    org: OrgId,
    template: Uuid,
) -> Result<Vec<Mapping>> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{SELECT_MAPPING} WHERE m.org_id = $1 AND m.template_id = $2 ORDER BY m.channel_id"
    )))
    .bind(org.0)
    .bind(template)
    .fetch_all(connection)
    .await?)
}

/// Links a template of ours (or the system's) with the provider's on its channel.
pub async fn upsert_mapping(
    connection: &mut PgConnection,
    org: OrgId,
    template: Uuid,
    provider: &ProviderTemplateRow,
    variables: &VariableMap,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO template_mappings (org_id, template_id, channel_id, provider_template_id, variable_map)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (org_id, template_id, channel_id) DO UPDATE SET
             provider_template_id = excluded.provider_template_id, variable_map = excluded.variable_map",
    )
    .bind(org.0)
    .bind(template)
    .bind(provider.channel_id)
    .bind(provider.id)
    .bind(Json(variables))
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn delete_mapping(
    connection: &mut PgConnection,
    org: OrgId,
    template: Uuid,
    channel: ChannelId,
) -> Result<bool> {
    let done = sqlx::query(
        "DELETE FROM template_mappings WHERE org_id = $1 AND template_id = $2 AND channel_id = $3",
    )
    .bind(org.0)
    .bind(template)
    .bind(channel.0)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A template that may be sent on a channel now, whatever the 24-hour window says.
#[derive(Clone, Debug, FromRow)]
pub struct Usable {
    /// Ours; `None` for one of the provider's that none of ours is mapped to.
    pub id: Option<Uuid>,
    pub name: String,
    /// The provider's name of it, or Twilio's Content SID.
    pub provider_name: String,
    pub language: Option<String>,
}

/// Templates of ours that are mapped to an approved one on the channel, then approved ones that none of ours is mapped
/// to; the most used first.
pub async fn list_usable(
    connection: &mut PgConnection,
    org: OrgId,
    channel: ChannelId,
    limit: i64,
) -> Result<Vec<Usable>> {
    Ok(sqlx::query_as(
        "SELECT t.id, coalesce(t.name, p.name) AS name, p.name AS provider_name, p.language
         FROM provider_templates p
         LEFT JOIN template_mappings m ON m.org_id = p.org_id AND m.provider_template_id = p.id
         LEFT JOIN templates t ON t.org_id IN (m.org_id, $4) AND t.id = m.template_id AND t.is_active
         WHERE p.org_id = $1 AND p.channel_id = $2 AND p.status = 'APPROVED' AND (m.template_id IS NULL OR t.id IS NOT NULL)
         ORDER BY t.id IS NULL, t.usage_count DESC, p.name, p.language LIMIT $3",
    )
    .bind(org.0)
    .bind(channel.0)
    .bind(limit)
    .bind(OrgId::SYSTEM.0)
    .fetch_all(connection)
    .await?)
}

/// Templates of ours with a Content SID, the most used first.
pub async fn list_usable_contents(
    connection: &mut PgConnection,
    org: OrgId,
    limit: i64,
) -> Result<Vec<Usable>> {
    Ok(sqlx::query_as(
        "SELECT id, name, twilio_content_sid AS provider_name, NULL AS language FROM templates
         WHERE org_id = $1 AND is_active AND twilio_content_sid IS NOT NULL
         ORDER BY usage_count DESC, name LIMIT $2",
    )
    .bind(org.0)
    .bind(limit)
    .fetch_all(connection)
    .await?)
}
