//! `/api/webhooks/whatsapp`: Meta's webhooks (S1.5), for all channels or for one.

use axum::Json;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_domain::ChannelId;
use wasel_providers::ChannelKind;

use super::{Arrival, accept, path_and_query};
use crate::http::error::{ApiError, DocumentError};
use crate::state::AppState;

const KINDS: &[ChannelKind] = &[ChannelKind::WhatsappCloud];

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(verify))
        .routes(routes!(verify_channel))
        .routes(routes!(receive))
        .routes(routes!(receive_channel))
        .routes(routes!(verify_function, receive_function))
}

/// Meta's subscription handshake: answers `hub.challenge` if the verify token is known.
#[utoipa::path(get, path = "/api/webhooks/whatsapp", tag = "webhooks",
    params(("hub.mode" = String, Query), ("hub.verify_token" = String, Query), ("hub.challenge" = String, Query)),
    responses((status = 200, body = String), (status = 403, description = "the token is not known")))]
async fn verify(
    State(state): State<AppState>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, DocumentError> {
    answer(
        state
            .registry
            .of_kinds(KINDS)
            .iter()
            .find_map(|channel| channel.open.challenge(&query)),
    )
}

/// The same for one channel's own address.
#[utoipa::path(get, path = "/api/webhooks/whatsapp/{channel_id}", tag = "webhooks", params(("channel_id" = Uuid, Path)),
    responses((status = 200, body = String), (status = 403), (status = 404)))]
async fn verify_channel(
    State(state): State<AppState>,
    Path(channel_id): Path<Uuid>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, DocumentError> {
    let channel = state
        .registry
        .by_id(ChannelId(channel_id))
        .ok_or_else(|| ApiError::not_found("channel"))?;
    answer(channel.open.challenge(&query))
}

fn answer(challenge: Option<String>) -> Result<Response, DocumentError> {
    let refused = || {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "bad_verify_token",
            "the verify token is not known",
        )
    };
    let challenge = challenge.ok_or_else(refused)?;
    // The endpoint reflects input: it must never be taken for a page.
    let headers = [
        (
            HeaderName::from_static("content-type"),
            "text/plain; charset=utf-8",
        ),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ];
    Ok((headers, challenge).into_response())
}

/// Messages, statuses and account news from Meta. The channel is found by phone number id. 200 means stored.
#[utoipa::path(post, path = "/api/webhooks/whatsapp", tag = "webhooks", request_body = String,
    responses((status = 200), (status = 401, description = "the signature does not match"),
        (status = 413), (status = 503, description = "try again")))]
async fn receive(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<serde_json::Value>, DocumentError> {
    store(state, None, uri, headers, body).await
}

/// The same for one channel's own address.
#[utoipa::path(post, path = "/api/webhooks/whatsapp/{channel_id}", tag = "webhooks", request_body = String,
    params(("channel_id" = Uuid, Path)),
    responses((status = 200), (status = 401), (status = 404), (status = 413), (status = 503)))]
async fn receive_channel(
    State(state): State<AppState>,
    Path(channel_id): Path<Uuid>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<serde_json::Value>, DocumentError> {
    store(state, Some(ChannelId(channel_id)), uri, headers, body).await
}

/// The handshake under the document's function name (S4.13).
#[utoipa::path(get, path = "/functions/v1/whatsapp-webhook", tag = "webhooks",
    params(("hub.mode" = String, Query), ("hub.verify_token" = String, Query), ("hub.challenge" = String, Query)),
    responses((status = 200, body = String), (status = 403, description = "the token is not known")))]
async fn verify_function(
    state: State<AppState>,
    query: Query<Vec<(String, String)>>,
) -> Result<Response, DocumentError> {
    verify(state, query).await
}

/// The same under the document's function name (S4.13).
#[utoipa::path(post, path = "/functions/v1/whatsapp-webhook", tag = "webhooks", request_body = String,
    responses((status = 200), (status = 401), (status = 413), (status = 503)))]
async fn receive_function(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<serde_json::Value>, DocumentError> {
    store(state, None, uri, headers, body).await
}

async fn store(
    state: AppState,
    channel_id: Option<ChannelId>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<serde_json::Value>, DocumentError> {
    let method = axum::http::Method::POST;
    accept(
        &state,
        Arrival {
            kinds: KINDS,
            channel_id,
            method,
            path: path_and_query(&uri),
            headers,
            body,
        },
    )
    .await?;
    Ok(Json(json!({ "success": true })))
}
