//! Document S4.7: `/api/media/upload`, a file to send as `media_url`.

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use chrono::TimeDelta;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_domain::storage_path::ObjectName;

use crate::auth::Role;
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::DocumentCaller;
use crate::http::storage_v1::upload::Incoming;
use crate::http::storage_v1::{StorageError, address_of};
use crate::state::AppState;

const WRITERS: [Role; 3] = [Role::Owner, Role::Admin, Role::Agent];

/// How long the address of a file works where nothing is public: a provider fetches it within minutes, a message that
/// is planned for later needs it later.
const ADDRESS_LIFETIME: TimeDelta = TimeDelta::days(90);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .layer(DefaultBodyLimit::disable())
}

/// Takes a file (form fields `file` and `org_id`) into the bucket `whatsapp-media`, under a name nobody can guess, and
/// answers with an address that providers can fetch.
#[utoipa::path(post, path = "/api/media/upload", tag = "documents",
    request_body(content = String, content_type = "multipart/form-data"),
    responses((status = 200, description = "`{success, media_url, media_type, mime_type, path}`"), (status = 400),
        (status = 401), (status = 403), (status = 413), (status = 415), (status = 429), (status = 503)))]
async fn upload(
    State(state): State<AppState>,
    caller: Result<DocumentCaller, DocumentError>,
    request: Request,
) -> Result<Json<Value>, DocumentError> {
    let mut incoming = Incoming::open(&state, request).await.map_err(plain)?;
    let is_known = caller.is_ok();
    let result = async {
        let DocumentCaller(caller) = caller?;
        caller.require(&WRITERS)?;
        let stored = incoming
            .store(&state, caller.org_id, "")
            .await
            .map_err(plain)?;
        // The name a customer sees stays; what cannot be in a name does not, nor what not every reader of an address
        // takes for a part of it.
        let shown = stored
            .file_name
            .as_deref()
            .and_then(|name| ObjectName::parse(&name.replace('?', "_")).ok())
            .map_or_else(|| "file".to_owned(), |name| name.file_name().to_owned());
        let name = format!("{}/public/api/{}/{shown}", caller.org_id, Uuid::new_v4().simple());
        let name = ObjectName::parse(&name)
            .map_err(|error| ApiError::invalid("file", format!("its name {error}")))?;
        let file = stored.file;
        let object = stored
            .insert(&state, &caller, &name, false)
            .await
            .map_err(plain)?;
        let media_url = address_of(&state, caller.org_id, &name, ADDRESS_LIFETIME).map_err(plain)?;
        Ok(Json(json!({
            "success": true, "media_url": media_url, "media_type": file.kind, "mime_type": file.mime, "path": object.name,
        })))
    }
    .await;
    if is_known && result.is_err() {
        incoming.drain().await;
    }
    result
}

/// Storage's refusal with its real status, in the documents' shape.
fn plain(error: StorageError) -> DocumentError {
    let code = match error.code {
        "InvalidMimeType" => "unsupported_type",
        "EntityTooLarge" => "too_large",
        "SlowDown" => "unavailable",
        "AccessDenied" => "forbidden",
        _ => "invalid_request",
    };
    let mut refused = ApiError::new(error.status, code, error.message);
    refused.retry_after = error.retry_after;
    // A refusal by right says itself what is at fault.
    let is_file = error.status.is_client_error() && code != "forbidden";
    DocumentError(if is_file { refused.at("file") } else { refused })
}
