//! What is in a folder.

use axum::Json;
use axum::extract::State;
use chrono::SecondsFormat;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::storage::{self, Entry, ListObjects, SortBy, StorageObject};
use wasel_domain::storage_path::parse_folder;

use super::TAG;
use super::error::{ErrorView, StorageError};
use super::extract::{Caller, InBucket, Json as Body};
use crate::state::AppState;

const MAX_LIMIT: i64 = 1000;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize, ToSchema)]
struct ListRequest {
    /// The folder; all of the bucket if empty.
    #[serde(default)]
    prefix: String,
    /// How names begin.
    search: Option<String>,
    /// 1 to 1000, 100 if left out.
    limit: Option<i64>,
    offset: Option<i64>,
    #[serde(rename = "sortBy")]
    sort_by: Option<SortRequest>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct SortRequest {
    /// `name` (if left out), `created_at`, `updated_at`, `last_accessed_at`.
    column: Option<String>,
    /// `asc` (if left out) or `desc`.
    order: Option<String>,
}

/// List a folder
///
/// Folders first: they have a name and nothing else.
#[utoipa::path(post, path = "/storage/v1/object/list/{bucket}", tag = TAG, operation_id = "storage_list",
    params(("bucket" = String, Path)), request_body = ListRequest,
    responses((status = 200, body = Value), (status = 400, body = ErrorView)))]
async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    _: InBucket,
    Body(request): Body<ListRequest>,
) -> Result<Json<Value>, StorageError> {
    let wanted = request.into_query()?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let entries = storage::list(&mut tx, caller.org_id, &wanted).await?;
    tx.commit().await?;
    Ok(Json(entries.iter().map(entry_view).collect()))
}

impl ListRequest {
    fn into_query(self) -> Result<ListObjects, StorageError> {
        let limit = self.limit.unwrap_or(100);
        let offset = self.offset.unwrap_or(0);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(StorageError::invalid(format!(
                "limit: must be from 1 to {MAX_LIMIT}"
            )));
        }
        if offset < 0 {
            return Err(StorageError::invalid("offset: must not be negative"));
        }
        let folder =
            parse_folder(&self.prefix).map_err(|_| StorageError::invalid_key(&self.prefix))?;
        let search = self.search.unwrap_or_default();
        if search.contains('\0') {
            return Err(StorageError::invalid("search: holds a NUL character"));
        }
        let (column, order) = match self.sort_by {
            Some(sort) => (sort.column, sort.order),
            None => (None, None),
        };
        let sort_by = match column.as_deref().unwrap_or("name") {
            "name" => SortBy::Name,
            "created_at" => SortBy::CreatedAt,
            // When a file was last read is not kept.
            "updated_at" | "last_accessed_at" => SortBy::UpdatedAt,
            _ => {
                let message =
                    "sortBy.column: must be name, created_at, updated_at or last_accessed_at";
                return Err(StorageError::invalid(message));
            }
        };
        let descending = match order.as_deref().unwrap_or("asc") {
            "asc" => false,
            "desc" => true,
            _ => return Err(StorageError::invalid("sortBy.order: must be asc or desc")),
        };
        Ok(ListObjects {
            folder,
            search,
            sort_by,
            descending,
            limit,
            offset,
        })
    }
}

fn entry_view(entry: &Entry) -> Value {
    let metadata = entry.id.map(|_| {
        json!({
            "eTag": entry.etag.as_ref().map(|etag| format!("\"{etag}\"")),
            "size": entry.size_bytes,
            "mimetype": entry.mime_type,
            "cacheControl": entry.cache_control,
            "lastModified": entry.updated_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)),
            "contentLength": entry.size_bytes,
            "httpStatusCode": 200,
        })
    });
    json!({
        "name": entry.name,
        "id": entry.id,
        "updated_at": entry.updated_at,
        "created_at": entry.created_at,
        "last_accessed_at": entry.updated_at,
        "metadata": metadata,
    })
}

/// A file by its whole name.
pub fn object_view(object: &StorageObject) -> Value {
    let mut view = entry_view(&Entry {
        name: object.name.clone(),
        id: Some(object.id),
        size_bytes: Some(object.size_bytes),
        mime_type: Some(object.mime_type.clone()),
        etag: Some(object.etag.clone()),
        cache_control: Some(object.cache_control.clone()),
        created_at: Some(object.created_at),
        updated_at: Some(object.updated_at),
    });
    view["bucket_id"] = json!(object.bucket);
    view["owner"] = json!(object.owner_id);
    view["owner_id"] = json!(object.owner_id);
    view["version"] = json!(object.version);
    view["user_metadata"] = json!(object.user_metadata);
    view
}
