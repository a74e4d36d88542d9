//! The one bucket.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::storage::BUCKET;

use super::TAG;
use super::error::{ErrorView, StorageError};
use super::extract::{Caller, InBucket, Json as Body};
use crate::state::AppState;
use crate::storage::file_type::TYPES;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(empty))
}

fn bucket_view(state: &AppState) -> Value {
    let types: Vec<&str> = TYPES.iter().map(|file| file.mime).collect();
    json!({
        "id": BUCKET,
        "name": BUCKET,
        "owner": "",
        "public": false,
        "type": "STANDARD",
        "file_size_limit": state.config.storage.max_file,
        "allowed_mime_types": types,
        // As old as the first release that had it.
        "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z",
    })
}

fn fixed() -> StorageError {
    StorageError::not_supported(format!(
        "there is one bucket, {BUCKET}, and it is as it is: its folders serve as buckets"
    ))
}

/// The buckets: one
#[utoipa::path(get, path = "/storage/v1/bucket", tag = TAG, operation_id = "storage_buckets",
    responses((status = 200, body = Value), (status = 400, body = ErrorView)))]
async fn list(State(state): State<AppState>, _: Caller) -> Json<Value> {
    Json(json!([bucket_view(&state)]))
}

/// The bucket
#[utoipa::path(get, path = "/storage/v1/bucket/{bucket}", tag = TAG, operation_id = "storage_bucket",
    params(("bucket" = String, Path)), responses((status = 200, body = Value), (status = 400, body = ErrorView)))]
async fn get(State(state): State<AppState>, _: Caller, _: InBucket) -> Json<Value> {
    Json(bucket_view(&state))
}

#[derive(Debug, Deserialize, ToSchema)]
struct BucketRequest {
    /// Its id counts, and is the name where it is left out.
    id: Option<String>,
    name: Option<String>,
}

/// No bucket is made
///
/// `whatsapp-media` exists (`Duplicate`), any other is refused.
#[utoipa::path(post, path = "/storage/v1/bucket", tag = TAG, operation_id = "storage_bucket_create",
    request_body = BucketRequest, responses((status = 400, body = ErrorView)))]
async fn create(_: Caller, Body(request): Body<BucketRequest>) -> StorageError {
    match request.id.or(request.name).as_deref() {
        Some(BUCKET) => StorageError::duplicate(),
        _ => fixed(),
    }
}

/// The bucket is not changed
#[utoipa::path(put, path = "/storage/v1/bucket/{bucket}", tag = TAG, operation_id = "storage_bucket_update",
    params(("bucket" = String, Path)), responses((status = 400, body = ErrorView)))]
async fn update(_: Caller, _: InBucket) -> StorageError {
    fixed()
}

/// The bucket is not deleted
#[utoipa::path(delete, path = "/storage/v1/bucket/{bucket}", tag = TAG, operation_id = "storage_bucket_delete",
    params(("bucket" = String, Path)), responses((status = 400, body = ErrorView)))]
async fn delete(_: Caller, _: InBucket) -> StorageError {
    fixed()
}

/// The bucket is not emptied
#[utoipa::path(post, path = "/storage/v1/bucket/{bucket}/empty", tag = TAG, operation_id = "storage_bucket_empty",
    params(("bucket" = String, Path)), responses((status = 400, body = ErrorView)))]
async fn empty(_: Caller, _: InBucket) -> StorageError {
    fixed()
}
