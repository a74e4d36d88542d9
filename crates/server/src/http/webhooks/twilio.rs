//! `/api/webhooks/twilio` and `/functions/v1/twilio-delivery-status` (S2.3): messages and status callbacks. Both
//! addresses take both, because people configure them either way round.

use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_domain::ChannelId;
use wasel_providers::ChannelKind;

use super::{Arrival, accept, path_and_query};
use crate::http::error::DocumentError;
use crate::state::AppState;

const KINDS: &[ChannelKind] = &[ChannelKind::TwilioSms, ChannelKind::TwilioWhatsapp];

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(receive))
        .routes(routes!(receive_by_get))
        .routes(routes!(receive_channel))
        .routes(routes!(receive_status))
}

/// An inbound message or a status callback. The channel is found by account and number. 200 means stored.
#[utoipa::path(post, path = "/api/webhooks/twilio", tag = "webhooks", request_body = String,
    responses((status = 200, content_type = "text/xml"), (status = 401), (status = 413), (status = 503)))]
async fn receive(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, DocumentError> {
    store(state, None, Method::POST, uri, headers, body).await
}

/// The same for a number that Twilio is told to call by GET.
#[utoipa::path(get, path = "/api/webhooks/twilio", tag = "webhooks",
    responses((status = 200, content_type = "text/xml"), (status = 401), (status = 503)))]
async fn receive_by_get(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, DocumentError> {
    store(state, None, Method::GET, uri, headers, Bytes::new()).await
}

/// The same for one channel's own address.
#[utoipa::path(post, path = "/api/webhooks/twilio/{channel_id}", tag = "webhooks", request_body = String,
    params(("channel_id" = Uuid, Path)),
    responses((status = 200, content_type = "text/xml"), (status = 401), (status = 404), (status = 413), (status = 503)))]
async fn receive_channel(
    State(state): State<AppState>,
    Path(channel_id): Path<Uuid>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, DocumentError> {
    store(
        state,
        Some(ChannelId(channel_id)),
        Method::POST,
        uri,
        headers,
        body,
    )
    .await
}

/// Status callbacks for every message, whoever sent it (S2.3).
#[utoipa::path(post, path = "/functions/v1/twilio-delivery-status", tag = "webhooks", request_body = String,
    responses((status = 200, content_type = "text/xml"), (status = 401), (status = 413), (status = 503)))]
async fn receive_status(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, DocumentError> {
    store(state, None, Method::POST, uri, headers, body).await
}

async fn store(
    state: AppState,
    channel_id: Option<ChannelId>,
    method: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, DocumentError> {
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
    // Empty TwiML: plain text would be sent to the customer.
    Ok((
        [(header::CONTENT_TYPE, "text/xml")],
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response/>",
    )
        .into_response())
}
