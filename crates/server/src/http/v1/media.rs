//! `/v1/media/{id}`: the files customers sent.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::media;

use crate::auth::Caller;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::PathParam;
use crate::state::AppState;

/// What a browser may show by itself; anything else is a download, so that no customer's file runs on our origin.
const SHOWN: [&str; 8] = [
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "audio/ogg",
    "audio/mpeg",
    "video/mp4",
    "application/pdf",
];

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get))
}

/// A file of a message. 409 while it is still being fetched from the provider.
#[utoipa::path(get, path = "/v1/media/{id}", tag = "media", params(("id" = Uuid, Path)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "not fetched yet"), (status = 410, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<Response, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let file = media::find(&mut tx, caller.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found("file"))?;
    tx.commit().await?;
    let key = match (file.status.as_str(), file.storage_key) {
        ("stored", Some(key)) => key,
        ("failed", _) => {
            let message = "the provider no longer has this file, or it could not be fetched";
            return Err(ApiError::new(StatusCode::GONE, "media_failed", message));
        }
        _ => {
            let error = ApiError::new(
                StatusCode::CONFLICT,
                "media_pending",
                "the file is still being fetched",
            );
            return Err(ApiError {
                retry_after: Some(std::time::Duration::from_secs(1)),
                ..error
            });
        }
    };
    let bytes = state.storage.get(&key).await.map_err(|error| {
        tracing::error!(media.id = %id, %error, "a stored file could not be read");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the file could not be read",
        )
    })?;
    let mime = file.mime_type.unwrap_or_default();
    let essence = mime
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let (content_type, disposition) = if SHOWN.contains(&essence.as_str()) {
        (mime.as_str(), "inline")
    } else {
        ("application/octet-stream", "attachment")
    };
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_str(content_type)
            .unwrap_or(HeaderValue::from_static("application/octet-stream")),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static(disposition),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    Ok(response)
}
