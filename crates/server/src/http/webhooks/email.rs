//! `/api/webhooks/email`: mail for our e-mail channels as raw MIME, signed by whoever hands it over (`docs/email.md`).

use axum::Json;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_domain::ChannelId;
use wasel_providers::ChannelKind;

use super::{Arrival, accept, path_and_query};
use crate::http::error::DocumentError;
use crate::state::AppState;

const KINDS: &[ChannelKind] = &[ChannelKind::Email];

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(receive))
        .routes(routes!(receive_channel))
}

/// One e-mail: a customer's message, or a report about one of ours. Its recipients name the channel.
#[utoipa::path(post, path = "/api/webhooks/email", tag = "webhooks",
    request_body(content = String, content_type = "message/rfc822"),
    responses((status = 200, description = "`{success}`: stored, or kept as a dead letter"), (status = 401), (status = 413), (status = 503)))]
async fn receive(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, DocumentError> {
    store(&state, None, &uri, headers, body).await
}

/// The same for one channel's own address.
#[utoipa::path(post, path = "/api/webhooks/email/{channel_id}", tag = "webhooks", params(("channel_id" = Uuid, Path)),
    request_body(content = String, content_type = "message/rfc822"),
    responses((status = 200, description = "`{success}`"), (status = 401), (status = 404), (status = 413), (status = 503)))]
async fn receive_channel(
    State(state): State<AppState>,
    Path(channel_id): Path<Uuid>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, DocumentError> {
    store(&state, Some(ChannelId(channel_id)), &uri, headers, body).await
}

async fn store(
    state: &AppState,
    channel_id: Option<ChannelId>,
    uri: &Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, DocumentError> {
    let arrival = Arrival {
        kinds: KINDS,
        channel_id,
        method: Method::POST,
        path: path_and_query(uri),
        headers,
        body,
    };
    accept(state, arrival).await?;
    Ok(Json(json!({ "success": true })))
}
