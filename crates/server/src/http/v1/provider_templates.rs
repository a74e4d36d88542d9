//! `/v1/channels/{id}/provider-templates`: the templates a channel's provider keeps and approves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::provider_templates::{self, Filter, ProviderTemplateRow};
use wasel_db::{channels, templates};
use wasel_domain::ChannelId;
use wasel_domain::provider_template::{ParameterFormat, ProviderTemplate};
use wasel_providers::templates::{DraftButton, DraftHeader, TemplateDraft};

use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::provider_templates::{of, provider_error};
use crate::registry::Channel;
use crate::state::AppState;

/// Pages read in one sync: far more templates than an account may have (Meta: 6,000, in any language).
const MAX_PAGES: usize = 500;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(sync))
        .routes(routes!(get, delete))
}

/// A template at the provider, as it was last heard of.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderTemplateView {
    pub id: Uuid,
    pub channel_id: Uuid,
    /// The provider's id.
    pub provider_id: Option<String>,
    pub name: String,
    /// `ar`, `en_US`.
    pub language: String,
    /// `UTILITY`, `MARKETING`, `AUTHENTICATION`.
    pub category: Option<String>,
    /// What the provider says it will make of the category.
    pub announced_category: Option<String>,
    /// Only `APPROVED` is sent; else `PENDING`, `REJECTED`, `PAUSED`, `DISABLED` …
    pub status: String,
    /// `positional` or `named`.
    pub parameter_format: String,
    /// In the provider's form; `null` until the next sync where only a webhook has told of it.
    #[schema(value_type = Option<Vec<Object>>)]
    pub components: Option<Vec<Value>>,
    /// `GREEN`, `YELLOW`, `RED`, `UNKNOWN`.
    pub quality: Option<String>,
    /// Why it is not sent.
    pub rejected_reason: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl From<ProviderTemplateRow> for ProviderTemplateView {
    fn from(row: ProviderTemplateRow) -> Self {
        Self {
            id: row.id,
            channel_id: row.channel_id,
            provider_id: row.provider_id,
            name: row.name,
            language: row.language,
            category: row.category,
            announced_category: row.announced_category,
            status: row.status,
            parameter_format: row.parameter_format,
            components: row.components.map(|json| json.0),
            quality: row.quality,
            rejected_reason: row.rejected_reason,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The channel, if the caller sees it.
pub(super) async fn channel_of(
    state: &AppState,
    caller: &Caller,
    id: ChannelId,
) -> Result<Arc<Channel>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let seen = channels::find(&mut tx, caller.org_id, id).await?.is_some();
    tx.commit().await?;
    let channel = if seen {
        state.registry.find(caller.org_id, id).await?
    } else {
        None
    };
    channel.ok_or_else(|| ApiError::not_found("channel"))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only these: `APPROVED`, `PENDING` …
    status: Option<String>,
    /// `UTILITY`, `MARKETING`, `AUTHENTICATION`.
    category: Option<String>,
    /// `ar`, `en_US`.
    language: Option<String>,
    /// In the name.
    q: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// The templates at the channel's provider, as they were last heard of: by a sync, or by the provider's webhooks.
#[utoipa::path(get, path = "/v1/channels/{id}/provider-templates", tag = "templates",
    params(("id" = Uuid, Path), ListQuery),
    responses((status = 200, body = Page<ProviderTemplateView>, description = "one page of templates"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed"),
        (status = 404, body = ErrorBody, description = "there is no such channel")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<ProviderTemplateView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let before = before.map(|(_, id)| id);
    let filter = Filter {
        status: query.status.as_deref(),
        category: query.category.as_deref(),
        language: query.language.as_deref(),
        search: query
            .q
            .as_deref()
            .map(str::trim)
            .filter(|search| !search.is_empty()),
    };
    let id = ChannelId(id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if channels::find(&mut tx, caller.org_id, id).await?.is_none() {
        return Err(ApiError::not_found("channel"));
    }
    let rows =
        provider_templates::list(&mut tx, caller.org_id, id, &filter, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |row| cursor::encode(None, row.id),
        Into::into,
    )))
}

/// One template at the channel's provider.
#[utoipa::path(get, path = "/v1/channels/{id}/provider-templates/{template_id}", tag = "templates",
    params(("id" = Uuid, Path), ("template_id" = Uuid, Path)),
    responses((status = 200, body = ProviderTemplateView, description = "the template"),
        (status = 404, body = ErrorBody, description = "there is no such channel or template")))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam((channel, id)): PathParam<(Uuid, Uuid)>,
) -> Result<axum::Json<ProviderTemplateView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let row = provider_templates::find(&mut tx, caller.org_id, channel.into(), id).await?;
    tx.commit().await?;
    let row = row.ok_or_else(|| ApiError::not_found("template"))?;
    Ok(axum::Json(row.into()))
}

/// What a sync found.
#[derive(Debug, Serialize, ToSchema)]
pub struct SyncView {
    /// Templates at the provider.
    pub total: usize,
    /// New ones and changed ones.
    pub changed: u64,
    /// Ones that the provider no longer has.
    pub removed: u64,
    pub synced_at: DateTime<Utc>,
}

/// Reads all templates from the provider now. From then on a template that is sent by its name is checked against them.
#[utoipa::path(post, path = "/v1/channels/{id}/provider-templates/sync", tag = "templates",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = SyncView, description = "all of them were read"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such channel"),
        (status = 422, body = ErrorBody, description = "the provider keeps none, or refuses the channel"),
        (status = 502, body = ErrorBody, description = "the provider cannot be asked now")))]
async fn sync(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<SyncView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let channel = channel_of(&state, &caller, ChannelId(id)).await?;
    let seen_at = Utc::now();
    let found = read_all(&state, &channel).await?;
    // The provider's facts are nobody's to write but the system's; the tenant is named here.
    let mut tx = state.db.system().await?;
    let (org, id) = (caller.org_id, channel.id);
    let changed = provider_templates::upsert(&mut tx, org, id, &found, seen_at).await?;
    let removed = provider_templates::delete_unseen(&mut tx, org, id, &found, seen_at).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(axum::Json(SyncView {
        total: found.len(),
        changed,
        removed,
        synced_at: seen_at,
    }))
}

/// All pages; of two templates with one name and language the one that can be sent.
async fn read_all(state: &AppState, channel: &Channel) -> Result<Vec<ProviderTemplate>, ApiError> {
    let desk = of(channel)?;
    let mut found: HashMap<(String, String), ProviderTemplate> = HashMap::new();
    let mut after: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let page = desk
            .list(&state.http, after.as_deref())
            .await
            .map_err(|error| provider_error(&error))?;
        for template in page.templates {
            let key = (template.name.clone(), template.language.clone());
            if template.is_approved() || !found.contains_key(&key) {
                found.insert(key, template);
            }
        }
        match page.next {
            None => {
                let mut all: Vec<_> = found.into_values().collect();
                // Two syncs at once take the rows in one order.
                all.sort_by(|a, b| (&a.name, &a.language).cmp(&(&b.name, &b.language)));
                return Ok(all);
            }
            next if next == after => break,
            next => after = next,
        }
    }
    tracing::error!(channel.id = %channel.id, "a provider's list of templates does not end");
    Err(ApiError::new(
        StatusCode::BAD_GATEWAY,
        "provider_unavailable",
        "the provider's list of templates does not end",
    ))
}

/// A template to hand in at the provider, made of one of ours.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProviderTemplateRequest {
    /// Ours: its text becomes the body, its variables the parameters.
    pub template_id: Uuid,
    /// Lower-case letters, digits and `_`; the name of ours if left out.
    pub name: Option<String>,
    /// `ar`, `en_US`.
    #[schema(example = "ar")]
    pub language: String,
    /// `UTILITY`, `MARKETING` or `AUTHENTICATION`.
    #[schema(example = "UTILITY")]
    pub category: String,
    /// `positional` (default) or `named`.
    pub parameter_format: Option<ParameterFormatName>,
    /// A value for each variable, for the provider's reviewers.
    #[serde(default)]
    pub examples: BTreeMap<String, String>,
    pub header: Option<HeaderRequest>,
    /// One line without variables.
    pub footer: Option<String>,
    #[serde(default)]
    pub buttons: Vec<ButtonRequest>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterFormatName {
    Positional,
    Named,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeaderRequest {
    /// One line with at most one variable.
    Text { text: String },
    /// The template's file; `example_handle` is of an example uploaded to the provider.
    Image {
        #[serde(default)]
        example_handle: String,
    },
    Document {
        #[serde(default)]
        example_handle: String,
    },
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ButtonRequest {
    QuickReply {
        text: String,
    },
    /// The address may end in one variable.
    Url {
        text: String,
        url: String,
    },
    Phone {
        text: String,
        phone_number: String,
    },
}

impl From<ButtonRequest> for DraftButton {
    fn from(button: ButtonRequest) -> Self {
        match button {
            ButtonRequest::QuickReply { text } => Self::QuickReply { text },
            ButtonRequest::Url { text, url } => Self::Url { text, url },
            ButtonRequest::Phone { text, phone_number } => Self::Phone { text, phone_number },
        }
    }
}

/// The header, which must be the file where ours has one.
fn header_of(
    header: Option<HeaderRequest>,
    fields: &templates::TemplateFields,
) -> Result<Option<DraftHeader>, ApiError> {
    let header = match header {
        None => None,
        Some(HeaderRequest::Text { text }) => Some(DraftHeader::Text(text)),
        Some(HeaderRequest::Image { example_handle }) => Some(DraftHeader::Media {
            kind: "image",
            example_handle,
        }),
        Some(HeaderRequest::Document { example_handle }) => Some(DraftHeader::Media {
            kind: "document",
            example_handle,
        }),
    };
    let wanted = match &header {
        Some(DraftHeader::Media { kind, .. }) => Some(*kind),
        _ => None,
    };
    if wanted != fields.media_type.as_deref() {
        return Err(ApiError::invalid(
            "header.type",
            match &fields.media_type {
                Some(kind) => format!("must be {kind}, which the template has"),
                None => "must be text: the template has no file".to_owned(),
            },
        ));
    }
    Ok(header)
}

/// Hands one of our templates in for approval at the provider, and maps it to what becomes of it. The provider tells
/// the decision by webhook; until then the status is `PENDING`.
#[utoipa::path(post, path = "/v1/channels/{id}/provider-templates", tag = "templates",
    params(("id" = Uuid, Path)), request_body = CreateProviderTemplateRequest,
    responses((status = 201, body = ProviderTemplateView, description = "the provider took it in"),
        (status = 400, body = ErrorBody, description = "a field breaks a rule of the provider's"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such channel or template"),
        (status = 409, body = ErrorBody, description = "the name and language are taken"),
        (status = 422, body = ErrorBody, description = "the provider keeps none, or refused it"),
        (status = 502, body = ErrorBody, description = "the provider cannot be asked now")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<CreateProviderTemplateRequest>,
) -> Result<(StatusCode, axum::Json<ProviderTemplateView>), ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let channel = channel_of(&state, &caller, ChannelId(id)).await?;
    let desk = of(&channel)?;
    let (org, id) = (caller.org_id, channel.id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let ours = templates::find(&mut tx, org, request.template_id)
        .await?
        .ok_or_else(|| ApiError::not_found("template").at("template_id"))?;
    let header = header_of(request.header, &ours.fields)?;
    let draft = TemplateDraft {
        name: request.name.unwrap_or_else(|| ours.fields.name.clone()),
        language: request.language,
        category: request.category,
        format: match request.parameter_format {
            Some(ParameterFormatName::Named) => ParameterFormat::Named,
            Some(ParameterFormatName::Positional) | None => ParameterFormat::Positional,
        },
        text: ours.fields.message_template.clone(),
        variables: ours.fields.variables.0.clone(),
        header,
        footer: request.footer,
        buttons: request.buttons.into_iter().map(Into::into).collect(),
        examples: request.examples,
    };
    let (mut template, variables) = desk
        .draft(&draft)
        .map_err(|error| ApiError::invalid(error.field, error.reason))?;
    let known = provider_templates::list_named(&mut tx, org, id, &template.name).await?;
    tx.commit().await?;
    let taken =
        |row: &ProviderTemplateRow| row.language == template.language && row.status != "DELETED";
    if known.iter().any(taken) {
        let message = "the channel has a template of this name in this language";
        return Err(ApiError::new(StatusCode::CONFLICT, "conflict", message).at("name"));
    }
    let seen_at = Utc::now();
    let created = desk
        .create(&state.http, &template)
        .await
        .map_err(|error| provider_error(&error))?;
    template.provider_id = Some(created.provider_id);
    template.status = created.status;
    template.category = created.category.or(template.category);
    // As in a sync. The decision may have come by webhook already, and stays.
    let mut tx = state.db.system().await?;
    provider_templates::upsert(&mut tx, org, id, std::slice::from_ref(&template), seen_at).await?;
    let rows = provider_templates::list_named(&mut tx, org, id, &template.name).await?;
    let row = rows
        .into_iter()
        .find(|row| row.language == template.language)
        .ok_or_else(|| ApiError::not_found("template"))?;
    let mapped = provider_templates::find_mapping(&mut tx, org, ours.id, id).await?;
    // One that works stays until somebody maps it anew.
    if mapped.is_none_or(|mapping| mapping.provider.status != "APPROVED") {
        provider_templates::upsert_mapping(&mut tx, org, ours.id, &row, &variables).await?;
    }
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok((StatusCode::CREATED, axum::Json(row.into())))
}

/// Removes a template at the provider, in this language; templates of ours that were mapped to it no longer are.
#[utoipa::path(delete, path = "/v1/channels/{id}/provider-templates/{template_id}", tag = "templates",
    params(("id" = Uuid, Path), ("template_id" = Uuid, Path)),
    responses((status = 204, description = "it is gone"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such channel or template"),
        (status = 422, body = ErrorBody, description = "the provider refused it, or its id there is not known yet"),
        (status = 502, body = ErrorBody, description = "the provider cannot be asked now")))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam((channel, id)): PathParam<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let channel = channel_of(&state, &caller, ChannelId(channel)).await?;
    let desk = of(&channel)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let row = provider_templates::find(&mut tx, caller.org_id, channel.id, id).await?;
    tx.commit().await?;
    let row = row.ok_or_else(|| ApiError::not_found("template"))?;
    if row.provider_id.is_none() {
        // By its name alone the provider would remove every language.
        let message = "the provider's id of it is not known yet: sync the templates first";
        return Err(ApiError::refused("template_unknown", message));
    }
    desk.delete(&state.http, &row.template())
        .await
        .map_err(|error| provider_error(&error))?;
    let mut tx = state.db.system().await?;
    provider_templates::delete(&mut tx, caller.org_id, channel.id, id).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(StatusCode::NO_CONTENT)
}
