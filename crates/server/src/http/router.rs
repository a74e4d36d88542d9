//! All routes, their middleware and the OpenAPI document that lists them.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware as axum_middleware};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::error::{ApiError, DocumentError};
use super::storage_v1::StorageError;
use super::supabase_project::FromProject;
use super::{
    auth_v1, compat, limits, middleware, openapi, operators, page, realtime, realtime_broadcast,
    rest_v1, storage_v1, supabase_project, v1, webhooks,
};
use crate::state::AppState;

/// E-mails taken in at the same time.
const MAILS_AT_ONCE: usize = 8;
/// For one of them to arrive and be stored.
const MAIL_TIME: Duration = Duration::from_secs(60);

/// The documented routes. The document's paths carry the general rate limit; providers' webhooks must not.
fn documented(state: &AppState) -> OpenApiRouter<AppState> {
    let config = &state.config.limits;
    let limited = OpenApiRouter::new()
        .merge(compat::live_chat::router())
        .merge(compat::whatsapp_service::router())
        .merge(compat::sessions::router())
        .merge(compat::media::router())
        .layer(axum_middleware::from_fn_with_state(
            state.clone(),
            limits::limit_api,
        ));
    let webhooks = OpenApiRouter::new()
        .merge(webhooks::whatsapp::router())
        .merge(webhooks::twilio::router())
        .layer(axum_middleware::from_fn(too_large))
        .layer(DefaultBodyLimit::max(config.webhook_body));
    let mail = OpenApiRouter::new()
        .merge(webhooks::email::router())
        .layer(axum_middleware::from_fn(too_large))
        .layer(DefaultBodyLimit::max(config.email_body))
        // Nobody keeps a place by sending slowly.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            MAIL_TIME,
        ))
        // Mails are held whole while they are stored: this bounds how much memory that takes.
        .layer(GlobalConcurrencyLimitLayer::new(MAILS_AT_ONCE));
    // Beside a Supabase project people sign in there.
    let identity = match state.config.auth.supabase_url {
        Some(_) => OpenApiRouter::new(),
        None => auth_v1::router(),
    };
    OpenApiRouter::with_openapi(openapi::ApiDoc::openapi())
        .merge(v1::router())
        .merge(identity)
        .merge(realtime::router())
        .merge(realtime_broadcast::router())
        .merge(rest_v1::router())
        .merge(storage_v1::router())
        .merge(operators::router())
        .merge(page::router())
        .merge(limited)
        // These have limits of their own: 5 a minute for people, none for servers (S2).
        .merge(compat::property_maintenance::router())
        .merge(compat::notification_functions::router())
        .merge(compat::sessions::polled_router())
        .merge(webhooks)
        .merge(mail)
}

/// The document by itself, for the generated-files check.
#[must_use]
pub fn openapi_of(state: &AppState) -> utoipa::openapi::OpenApi {
    documented(state).split_for_parts().1
}

/// The whole application.
pub fn router(state: AppState) -> Router {
    let (router, document) = documented(&state).split_for_parts();
    let document = std::sync::Arc::new(document);
    router
        .route(
            "/v1/openapi.json",
            get(move || std::future::ready(Json(document.clone()))),
        )
        .fallback(not_ours)
        .method_not_allowed_fallback(async |uri: Uri| {
            refusal(
                &uri,
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path has no such method",
            )
        })
        .layer(axum_middleware::from_fn(middleware::harden))
        .layer(DefaultBodyLimit::max(state.config.limits.body))
        .layer(CatchPanicLayer::new())
        .layer(axum_middleware::from_fn(shape))
        .layer(middleware::cors(&state.config.server.allowed_origins))
        .layer(axum_middleware::from_fn_with_state(
            state.clone(),
            middleware::observe,
        ))
        .with_state(state)
}

async fn not_ours(State(state): State<AppState>, request: Request) -> Response {
    if let Some(project) = supabase_project::answering(&state, request.uri().path()) {
        return supabase_project::forward(&state, project, request).await;
    }
    let message = if request.uri().path().starts_with("/functions/v1/") {
        "there is no such function"
    } else {
        "there is no such path"
    };
    refusal(request.uri(), StatusCode::NOT_FOUND, "not_found", message)
}

/// In the shape of the surface the path belongs to.
fn refusal(uri: &Uri, status: StatusCode, code: &'static str, message: &str) -> Response {
    if uri.path().starts_with("/auth/v1/") {
        return auth_v1::refusal(status, code, message);
    }
    if uri.path().starts_with("/rest/") {
        return rest_v1::refusal(status);
    }
    let error = ApiError::new(status, code, message);
    if uri.path().starts_with("/storage/") {
        StorageError::from(error).into_response()
    } else if of_documents(uri) {
        error.into_document_response()
    } else {
        error.into_response()
    }
}

fn of_documents(uri: &Uri) -> bool {
    ["/api/", "/functions/"]
        .iter()
        .any(|prefix| uri.path().starts_with(prefix))
}

/// What failed before or beside a handler (a body over the limit, a panic, a timeout) is plain text or nothing; clients
/// of the documents' and of Storage's paths read JSON.
async fn shape(request: Request, next: axum_middleware::Next) -> Response {
    let uri = request.uri().clone();
    let response = next.run(request).await;
    let status = response.status();
    let is_failure = status.is_client_error() || status.is_server_error();
    let is_plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|mime| mime.as_bytes().starts_with(b"text/plain"));
    let is_theirs = response.extensions().get::<FromProject>().is_some();
    let has_a_shape = of_documents(&uri) || uri.path().starts_with("/storage/");
    if !(is_failure && is_plain && has_a_shape) || is_theirs {
        return response;
    }
    let (code, message) = match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => {
            ("timeout", "this took too long")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the body is too large"),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "not now; try again"),
        status if status.is_server_error() => ("internal", "something went wrong on our side"),
        _ => ("invalid_request", "the request cannot be read"),
    };
    let mut shaped = refusal(&uri, status, code, message);
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            shaped.headers_mut().insert(name, value.clone());
        }
    }
    shaped
}

/// axum's own words for a body over the limit are plain text; the documents' shape says it better.
async fn too_large(request: Request, next: axum_middleware::Next) -> Response {
    let response = next.run(request).await;
    if response.status() != StatusCode::PAYLOAD_TOO_LARGE {
        return response;
    }
    let error = ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        "the body is larger than a webhook may be",
    );
    DocumentError(error).into_response()
}
