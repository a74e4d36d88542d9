//! Files taken away, moved and copied.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::storage::{self, BUCKET, NewObject};

use super::error::{ErrorView, StorageError};
use super::extract::{InBucket, Json as Body, Object, Writer, named};
use super::list::object_view;
use super::upload::{check_public, keep, reserve};
use super::{TAG, serve};
use crate::state::AppState;

/// Supabase's own limit.
const MAX_REMOVED: usize = 1000;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(remove))
        .routes(routes!(remove_one))
        .routes(routes!(move_file))
        .routes(routes!(copy_file))
}

#[derive(Debug, Deserialize, ToSchema)]
struct RemoveRequest {
    /// Whole names, up to 1000.
    prefixes: Vec<String>,
}

/// Remove files
///
/// Answers with those that were there.
#[utoipa::path(delete, path = "/storage/v1/object/{bucket}", tag = TAG, operation_id = "storage_remove",
    params(("bucket" = String, Path)), request_body = RemoveRequest,
    responses((status = 200, body = Value), (status = 400, body = ErrorView)))]
async fn remove(
    State(state): State<AppState>,
    Writer(caller): Writer,
    _: InBucket,
    Body(request): Body<RemoveRequest>,
) -> Result<Json<Value>, StorageError> {
    if !(1..=MAX_REMOVED).contains(&request.prefixes.len()) {
        return Err(StorageError::invalid(format!(
            "prefixes: must be 1 to {MAX_REMOVED} names"
        )));
    }
    // What can be no name is the name of nothing.
    let names: Vec<String> = request
        .prefixes
        .iter()
        .filter_map(|name| named(name).ok())
        .map(|name| name.to_string())
        .collect();
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let removed = storage::delete(&mut tx, caller.org_id, &names).await?;
    tx.commit().await?;
    state.signals.storage.notify_one();
    Ok(Json(removed.iter().map(object_view).collect()))
}

/// Remove a file
#[utoipa::path(delete, path = "/storage/v1/object/{bucket}/{*path}", tag = TAG, operation_id = "storage_remove_one",
    params(("bucket" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Value, description = "`{message}`"), (status = 400, body = ErrorView)))]
async fn remove_one(
    State(state): State<AppState>,
    Writer(caller): Writer,
    Object(name): Object,
) -> Result<Json<Value>, StorageError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let removed = storage::delete(&mut tx, caller.org_id, &[name.to_string()]).await?;
    tx.commit().await?;
    if removed.is_empty() {
        return Err(StorageError::no_such_key());
    }
    state.signals.storage.notify_one();
    Ok(Json(json!({ "message": "Successfully deleted" })))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TransferRequest {
    bucket_id: String,
    source_key: String,
    destination_key: String,
    destination_bucket: Option<String>,
}

impl TransferRequest {
    fn check(&self) -> Result<(), StorageError> {
        let destination = self.destination_bucket.as_deref().unwrap_or(BUCKET);
        if self.bucket_id != BUCKET || destination != BUCKET {
            return Err(StorageError::no_such_bucket());
        }
        Ok(())
    }
}

/// Give a file another name
#[utoipa::path(post, path = "/storage/v1/object/move", tag = TAG, operation_id = "storage_move",
    request_body = TransferRequest,
    responses((status = 200, body = Value, description = "`{message, Id, Key}`"), (status = 400, body = ErrorView)))]
async fn move_file(
    State(state): State<AppState>,
    Writer(caller): Writer,
    Body(request): Body<TransferRequest>,
) -> Result<Json<Value>, StorageError> {
    request.check()?;
    let (from, to) = (
        named(&request.source_key)?,
        named(&request.destination_key)?,
    );
    check_public(caller.org_id, &to)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let moved = storage::update_name(&mut tx, caller.org_id, from.as_str(), to.as_str()).await?;
    tx.commit().await?;
    let moved = moved.ok_or_else(StorageError::no_such_key)?;
    Ok(Json(json!({
        "message": "Successfully moved", "Id": moved.id, "Key": format!("{BUCKET}/{}", moved.name),
    })))
}

/// Copy a file
///
/// Header `x-upsert: true` replaces a file that is there.
#[utoipa::path(post, path = "/storage/v1/object/copy", tag = TAG, operation_id = "storage_copy",
    request_body = TransferRequest,
    responses((status = 200, body = Value, description = "`{Id, Key}`"), (status = 400, body = ErrorView),
        (status = 503, body = ErrorView)))]
async fn copy_file(
    State(state): State<AppState>,
    Writer(caller): Writer,
    headers: HeaderMap,
    Body(request): Body<TransferRequest>,
) -> Result<Json<Value>, StorageError> {
    request.check()?;
    let (from, to) = (
        named(&request.source_key)?,
        named(&request.destination_key)?,
    );
    check_public(caller.org_id, &to)?;
    let source = serve::find(&state, &caller, &from).await?;
    let bytes = reserve(&state, caller.org_id).await?;
    match state.storage.copy(source.bytes(), bytes).await {
        // Removed a moment ago.
        Err(object_store::Error::NotFound { .. }) => return Err(StorageError::no_such_key()),
        copied => copied.map_err(|error| StorageError::store(&error))?,
    }
    let new = NewObject {
        org_id: caller.org_id,
        name: to.to_string(),
        version: bytes.version,
        size_bytes: source.size_bytes,
        mime_type: source.mime_type,
        etag: source.etag,
        cache_control: source.cache_control,
        user_metadata: source.user_metadata,
        owner_id: caller.user_id.map(|user| user.0),
    };
    let replace = headers.get("x-upsert").is_some_and(|value| value == "true");
    keep(&state, bytes).await?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let copy = storage::insert(&mut tx, &new, replace).await?;
    tx.commit().await?;
    state.signals.storage.notify_one();
    let copy = copy.ok_or_else(StorageError::duplicate)?;
    Ok(Json(
        json!({ "Id": copy.id, "Key": format!("{BUCKET}/{}", copy.name) }),
    ))
}
