//! `/v1/channels`: connected accounts. Secrets are never shown.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::channels::{self, Channel};

use super::Page;
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam};
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, update))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChannelView {
    pub id: Uuid,
    /// `whatsapp_cloud`, `twilio_sms`, `twilio_whatsapp`, `email`.
    pub kind: String,
    pub name: String,
    /// `active`, `paused` (by a person), `blocked` (by the provider; `status_reason` says why).
    pub status: String,
    pub status_reason: Option<String>,
    /// Ids and numbers, by kind.
    #[schema(value_type = Object)]
    pub settings: Value,
    /// Where the provider has to send its webhooks.
    pub webhook_url: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Where a channel's provider calls us.
#[must_use]
pub fn webhook_url(public_url: &str, kind: &str, id: Uuid) -> String {
    let provider = match kind {
        "email" => "email",
        twilio if twilio.starts_with("twilio") => "twilio",
        _ => "whatsapp",
    };
    format!("{public_url}/api/webhooks/{provider}/{id}")
}

fn view(state: &AppState, channel: Channel) -> ChannelView {
    ChannelView {
        webhook_url: webhook_url(&state.public_url, &channel.kind, channel.id),
        id: channel.id,
        kind: channel.kind,
        name: channel.name,
        status: channel.status,
        status_reason: channel.status_reason,
        settings: channel.settings,
        created_at: channel.created_at,
        updated_at: channel.updated_at,
    }
}

/// The organisation's channels, by name; an agent sees their own.
#[utoipa::path(get, path = "/v1/channels", tag = "channels", responses((status = 200, body = Page<ChannelView>)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<axum::Json<Page<ChannelView>>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let channels = channels::list(&mut tx).await?;
    tx.commit().await?;
    let data = channels
        .into_iter()
        .map(|channel| view(&state, channel))
        .collect();
    Ok(axum::Json(Page {
        data,
        next_cursor: None,
    }))
}

/// One channel.
#[utoipa::path(get, path = "/v1/channels/{id}", tag = "channels", params(("id" = Uuid, Path)),
    responses((status = 200, body = ChannelView), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<ChannelView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let channel = channels::find(&mut tx, caller.org_id, id.into()).await?;
    tx.commit().await?;
    channel
        .map(|channel| axum::Json(view(&state, channel)))
        .ok_or_else(|| ApiError::not_found("channel"))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateChannelRequest {
    /// `active` sends, and takes up what waited; `paused` keeps messages waiting.
    status: ChannelStatus,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ChannelStatus {
    Active,
    Paused,
}

/// Pauses a channel, or lets it send again after what blocked it was mended.
#[utoipa::path(patch, path = "/v1/channels/{id}", tag = "channels", params(("id" = Uuid, Path)),
    request_body = UpdateChannelRequest,
    responses((status = 200, body = ChannelView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<UpdateChannelRequest>,
) -> Result<axum::Json<ChannelView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let (status, reason) = match request.status {
        ChannelStatus::Active => ("active", None),
        ChannelStatus::Paused => ("paused", Some("paused by a person")),
    };
    // Tenants may not write the table: it also holds how webhooks find the channel. The tenant is named here.
    let mut tx = state.db.system().await?;
    channels::update_status(&mut tx, caller.org_id, id.into(), status, reason).await?;
    let channel = channels::find(&mut tx, caller.org_id, id.into()).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    state.signals.outbox.notify_one();
    channel
        .map(|channel| axum::Json(view(&state, channel)))
        .ok_or_else(|| ApiError::not_found("channel"))
}
