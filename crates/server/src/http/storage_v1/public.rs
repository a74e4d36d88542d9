//! What anybody may fetch who knows the address: files in an organisation's public folder.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_config::Switch;
use wasel_db::storage::BUCKET;
use wasel_domain::OrgId;
use wasel_domain::storage_path::ObjectName;

use super::TAG;
use super::error::{ErrorView, StorageError};
use super::extract::Object;
use super::serve::{self, DownloadQuery, Reach};
use crate::auth;
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(download_public))
        .routes(routes!(transform))
}

/// The public address of a file below `/storage/v1`, if it has one.
pub fn public_path(state: &AppState, name: &ObjectName) -> Option<String> {
    let is_on = state.config.storage.public_media == Switch::On;
    (is_on && name.public_org().is_some())
        .then(|| format!("/object/public/{BUCKET}/{}", name.to_url_path()))
}

/// Download a public file
///
/// Public is what is below `<organisation id>/public/`, and only if that organisation uploaded it there.
#[utoipa::path(get, path = "/storage/v1/object/public/{bucket}/{*path}", tag = TAG, operation_id = "storage_download_public",
    params(("bucket" = String, Path), ("path" = String, Path), ("download" = Option<String>, Query)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 304),
        (status = 400, body = ErrorView), (status = 416, body = ErrorView), (status = 503, body = ErrorView)))]
async fn download_public(
    State(state): State<AppState>,
    Object(name): Object,
    Query(query): Query<DownloadQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, StorageError> {
    // The organisation comes from the path, so only its own rows can answer.
    let org = name
        .public_org()
        .filter(|_| public_path(&state, &name).is_some())
        .ok_or_else(StorageError::no_such_key)?;
    let owner = auth::Caller::service(OrgId(org), None);
    let object = serve::find(&state, &owner, &name).await?;
    serve::serve(&state, &object, &method, &headers, &query, Reach::Anybody).await
}

/// Pictures are not transformed
#[utoipa::path(get, path = "/storage/v1/render/image/{*path}", tag = TAG, operation_id = "storage_transform",
    params(("path" = String, Path)), responses((status = 400, body = ErrorView)))]
async fn transform() -> Result<Json<Value>, StorageError> {
    Err(no_transforms())
}

pub fn no_transforms() -> StorageError {
    StorageError::not_supported(
        "pictures are not transformed here: ask for the file without `transform`",
    )
}
