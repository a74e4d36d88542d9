//! `/v1/templates/{id}/mappings`: which template of a provider stands in for ours on a channel.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::provider_templates::{self, Mapping};
use wasel_db::templates::{self, Template};
use wasel_domain::ChannelId;
use wasel_domain::provider_template::VariableMap;
use wasel_providers::templates::TemplateParameters;

use super::Page;
use super::provider_templates::channel_of;
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam};
use crate::provider_templates::of;
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(put, delete))
}

/// A provider's template that stands in for ours on a channel, outside the 24-hour window.
#[derive(Debug, Serialize, ToSchema)]
pub struct MappingView {
    pub template_id: Uuid,
    pub channel_id: Uuid,
    pub provider_template_id: Uuid,
    pub name: String,
    pub language: String,
    /// Only an `APPROVED` one is sent.
    pub status: String,
    /// `{header?: {parameter: variable}, body?: {parameter: variable}, buttons?: {place: variable}}`.
    #[schema(value_type = Object, example = json!({"body": {"1": "customer_name"}, "buttons": {"0": "code"}}))]
    pub variable_map: Value,
}

impl From<Mapping> for MappingView {
    fn from(mapping: Mapping) -> Self {
        Self {
            template_id: mapping.template_id,
            channel_id: mapping.provider.channel_id,
            provider_template_id: mapping.provider.id,
            name: mapping.provider.name,
            language: mapping.provider.language,
            status: mapping.provider.status,
            variable_map: serde_json::to_value(mapping.variable_map.0).unwrap_or_default(),
        }
    }
}

/// What stands in for a template, by channel.
#[utoipa::path(get, path = "/v1/templates/{id}/mappings", tag = "templates", params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<MappingView>, description = "all of them"),
        (status = 404, body = ErrorBody, description = "there is no such template")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<Page<MappingView>>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if templates::find(&mut tx, caller.org_id, id).await?.is_none() {
        return Err(ApiError::not_found("template"));
    }
    let mappings = provider_templates::list_mappings(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    Ok(axum::Json(Page {
        data: mappings.into_iter().map(Into::into).collect(),
        next_cursor: None,
    }))
}

/// Which template of the channel's provider says what ours says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutMappingRequest {
    /// The provider's name of it.
    pub name: String,
    /// `ar`, `en_US`.
    pub language: String,
    /// Which variable of ours fills which parameter: `header` and `body` by the parameter's number or name, `buttons`
    /// by the button's place from `0`. A header that shows a file is filled by the template's own.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"body": {"1": "customer_name"}, "buttons": {"0": "code"}}))]
    pub variable_map: VariableMap,
}

/// Maps a template of ours, or the system's, to one of the channel's provider.
#[utoipa::path(put, path = "/v1/templates/{id}/mappings/{channel_id}", tag = "templates",
    params(("id" = Uuid, Path), ("channel_id" = Uuid, Path)), request_body = PutMappingRequest,
    responses((status = 200, body = MappingView, description = "the mapping"),
        (status = 400, body = ErrorBody, description = "a parameter is not filled, or a variable is not the template's"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such template or channel, here or at the provider"),
        (status = 422, body = ErrorBody, description = "its parameters are not known: sync first; or the provider keeps none")))]
async fn put(
    State(state): State<AppState>,
    caller: Caller,
    PathParam((id, channel)): PathParam<(Uuid, Uuid)>,
    Json(request): Json<PutMappingRequest>,
) -> Result<axum::Json<MappingView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let channel = channel_of(&state, &caller, ChannelId(channel)).await?;
    let desk = of(&channel)?;
    if request.name.contains('\0') {
        return Err(ApiError::invalid("name", "holds a NUL character"));
    }
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let ours = templates::find(&mut tx, org, id)
        .await?
        .ok_or_else(|| ApiError::not_found("template"))?;
    let named = provider_templates::list_named(&mut tx, org, channel.id, &request.name).await?;
    if named.is_empty() {
        return Err(ApiError::not_found("template at the provider").at("name"));
    }
    let theirs = named
        .into_iter()
        .find(|row| row.language == request.language)
        .ok_or_else(|| ApiError::not_found("language of that template").at("language"))?;
    let needed = desk.parameters(&theirs.template()).ok_or_else(|| {
        let message = "its parameters are not known yet: sync the channel's templates first";
        ApiError::refused("template_not_synced", message).at("name")
    })?;
    check(&ours, &needed, &request.variable_map)?;
    provider_templates::upsert_mapping(&mut tx, org, id, &theirs, &request.variable_map).await?;
    let mapping = provider_templates::find_mapping(&mut tx, org, id, channel.id).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    let mapping = mapping.ok_or_else(|| ApiError::not_found("mapping"))?;
    Ok(axum::Json(mapping.into()))
}

/// Every parameter filled by a variable that the template has, and nothing else.
fn check(ours: &Template, needed: &TemplateParameters, map: &VariableMap) -> Result<(), ApiError> {
    if let Some(media) = &needed.header_media
        && ours.fields.media_type.as_deref() != Some(media)
    {
        let message =
            format!("its header shows a file ({media}), which the template does not have");
        return Err(ApiError::invalid("name", message));
    }
    let places: Vec<String> = needed.buttons.iter().map(ToString::to_string).collect();
    for (part, parameters, given) in [
        ("header", &needed.header, &map.header),
        ("body", &needed.body, &map.body),
        ("buttons", &places, &map.buttons),
    ] {
        for parameter in parameters {
            let field = format!("variable_map.{part}.{parameter}");
            match given.get(parameter) {
                None => {
                    return Err(ApiError::invalid(
                        field,
                        "is missing: the provider's template needs it",
                    ));
                }
                Some(variable) if !ours.fields.variables.contains(variable) => {
                    let message = format!("`{variable}` is not a variable of the template");
                    return Err(ApiError::invalid(field, message));
                }
                Some(_) => {}
            }
        }
        if let Some(extra) = given.keys().find(|key| !parameters.contains(key)) {
            let message = if parameters.is_empty() {
                "is no parameter of the provider's template, which has none there".to_owned()
            } else {
                format!(
                    "is no parameter of the provider's template, which has {}",
                    parameters.join(", ")
                )
            };
            return Err(ApiError::invalid(
                format!("variable_map.{part}.{extra}"),
                message,
            ));
        }
    }
    Ok(())
}

/// Ends a mapping. The template at the provider stays.
#[utoipa::path(delete, path = "/v1/templates/{id}/mappings/{channel_id}", tag = "templates",
    params(("id" = Uuid, Path), ("channel_id" = Uuid, Path)),
    responses((status = 204, description = "it is gone"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such mapping")))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam((id, channel)): PathParam<(Uuid, Uuid)>,
) -> Result<StatusCode, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let was =
        provider_templates::delete_mapping(&mut tx, caller.org_id, id, ChannelId(channel)).await?;
    tx.commit().await?;
    if !was {
        return Err(ApiError::not_found("mapping"));
    }
    state.signals.commits.changes.notify_one();
    Ok(StatusCode::NO_CONTENT)
}
