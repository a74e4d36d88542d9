//! Files on their way in. They are read as they come: type and size are judged on the way, and memory holds a few parts.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Multipart, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use ring::digest;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::storage::{self, BUCKET, NewObject, StorageObject, Version};
use wasel_domain::OrgId;
use wasel_domain::storage_path::ObjectName;

use super::TAG;
use super::bounds::{FormBody, FormMemory, Patience};
use super::error::{ErrorView, StorageError};
use super::extract::{Object, SignedObject, Writer};
use super::sign;
use crate::auth::Caller;
use crate::state::AppState;
use crate::storage::file_type::{self, FileType};
use crate::storage::signed_url::Use;

/// For one file to arrive and be stored. Less than a reservation lasts.
const WHOLE: Duration = Duration::from_secs(3600);
/// A text field of a form; metadata.
const TEXT_FIELD: usize = 64 * 1024;
/// Parts of a form. supabase-js sends three, people four.
const FORM_PARTS: usize = 32;
/// What is read of a refused upload, so that the client, which reads the answer only when it has sent all, gets it.
const DRAINED: usize = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(10);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(update))
        .routes(routes!(upload_signed))
}

/// Upload a file
///
/// The raw body with its `Content-Type`, or a form with the file under an empty name. Header `x-upsert: true` replaces a
/// file that is there. Type and size are those WhatsApp takes.
#[utoipa::path(post, path = "/storage/v1/object/{bucket}/{*path}", tag = TAG, operation_id = "storage_upload",
    params(("bucket" = String, Path), ("path" = String, Path), ("x-upsert" = Option<bool>, Header),
        ("x-metadata" = Option<String>, Header, description = "JSON in base64"),
        ("cache-control" = Option<String>, Header, description = "`max-age=` and seconds")),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = Value, description = "`{Id, Key}`"), (status = 400, body = ErrorView),
        (status = 503, body = ErrorView)))]
async fn create(
    State(state): State<AppState>,
    writer: Result<Writer, StorageError>,
    object: Result<Object, StorageError>,
    request: Request,
) -> Result<Json<Value>, StorageError> {
    let replace = is_upsert(request.headers());
    upload(
        &state,
        writer.map(|Writer(caller)| caller),
        object,
        request,
        replace,
    )
    .await
}

/// Upload a file in place of the one that is there
#[utoipa::path(put, path = "/storage/v1/object/{bucket}/{*path}", tag = TAG, operation_id = "storage_update",
    params(("bucket" = String, Path), ("path" = String, Path)),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = Value, description = "`{Id, Key}`"), (status = 400, body = ErrorView),
        (status = 503, body = ErrorView)))]
async fn update(
    State(state): State<AppState>,
    writer: Result<Writer, StorageError>,
    object: Result<Object, StorageError>,
    request: Request,
) -> Result<Json<Value>, StorageError> {
    upload(
        &state,
        writer.map(|Writer(caller)| caller),
        object,
        request,
        true,
    )
    .await
}

#[derive(Debug, Deserialize)]
struct TokenQuery {
    token: Option<String>,
}

/// Upload a file by a signed address
#[utoipa::path(put, path = "/storage/v1/object/upload/sign/{bucket}/{*path}", tag = TAG,
    operation_id = "storage_upload_signed",
    params(("bucket" = String, Path), ("path" = String, Path), ("token" = String, Query)),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = Value, description = "`{Key}`"), (status = 400, body = ErrorView),
        (status = 503, body = ErrorView)))]
async fn upload_signed(
    State(state): State<AppState>,
    object: Result<SignedObject, StorageError>,
    Query(query): Query<TokenQuery>,
    request: Request,
) -> Result<Json<Value>, StorageError> {
    let opened = object.and_then(|SignedObject(name)| {
        let url = sign::verify(&state, query.token.as_deref(), Use::Upload, &name)?;
        Ok((name, url))
    });
    // Whoever made the address could write; that was judged then.
    let (caller, object, replace) = match opened {
        Ok((name, url)) => {
            let caller = Caller::service(OrgId(url.org_id), url.owner.map(Into::into));
            (Ok(caller), Ok(Object(name)), url.upsert)
        }
        Err(error) => (Err(error), Err(StorageError::no_such_key()), false),
    };
    upload(&state, caller, object, request, replace).await
}

fn is_upsert(headers: &HeaderMap) -> bool {
    headers.get("x-upsert").is_some_and(|value| value == "true")
}

async fn upload(
    state: &AppState,
    caller: Result<Caller, StorageError>,
    object: Result<Object, StorageError>,
    request: Request,
    replace: bool,
) -> Result<Json<Value>, StorageError> {
    let mut incoming = Incoming::open(state, request).await?;
    // Strangers keep no place by sending on.
    let may_write = caller.is_ok();
    let result = async {
        let (caller, Object(name)) = (caller?, object?);
        check_public(caller.org_id, &name)?;
        // Before the bytes are on their way; the insert is what decides.
        if !replace {
            let mut tx = state.db.tenant(&caller.claims()).await?;
            let taken = storage::find(&mut tx, caller.org_id, name.as_str()).await?;
            tx.commit().await?;
            if taken.is_some() {
                return Err(StorageError::duplicate());
            }
        }
        let stored = incoming
            .store(state, caller.org_id, name.file_name())
            .await?;
        stored.insert(state, &caller, &name, replace).await
    }
    .await;
    match result {
        Ok(object) => Ok(Json(
            json!({ "Id": object.id, "Key": format!("{BUCKET}/{}", object.name) }),
        )),
        Err(error) => {
            if may_write {
                incoming.drain().await;
            }
            Err(error)
        }
    }
}

/// A path that looks like an organisation's public folder must be one's own: it would never be public otherwise.
pub fn check_public(org: OrgId, name: &ObjectName) -> Result<(), StorageError> {
    match name.public_org() {
        Some(other) if other != org.0 => Err(StorageError::forbidden(format!(
            "public files of your organisation go below {org}/public/"
        ))),
        _ => Ok(()),
    }
}

/// Names bytes that are about to be stored, and writes them down, so that they go if nothing comes of it.
pub async fn reserve(state: &AppState, org: OrgId) -> Result<Version, StorageError> {
    let bytes = Version {
        org_id: org.0,
        version: Uuid::now_v7(),
    };
    // The garbage is the system's: no tenant reads or writes it.
    let mut tx = state.db.system().await?;
    storage::insert_reservation(&mut tx, bytes).await?;
    tx.commit().await?;
    Ok(bytes)
}

/// Puts off that they go, before a row is to name them.
///
/// # Errors
/// When it took so long that they are gone.
pub async fn keep(state: &AppState, bytes: Version) -> Result<(), StorageError> {
    let mut tx = state.db.system().await?;
    let is_there = storage::renew_reservation(&mut tx, bytes).await?;
    tx.commit().await?;
    if is_there {
        Ok(())
    } else {
        Err(broken("it took too long"))
    }
}

/// A request with a file in it.
pub struct Incoming {
    source: Source,
    headers: HeaderMap,
}

enum Source {
    Raw(BodyDataStream),
    Form(Box<Multipart>, Arc<FormMemory>),
}

/// A file whose bytes are stored and that has no name yet.
pub struct Stored {
    bytes: Version,
    pub file: &'static FileType,
    mime_type: String,
    size: u64,
    etag: String,
    cache_control: String,
    user_metadata: Option<Value>,
    /// Of a form: the name the file had.
    pub file_name: Option<String>,
}

impl Incoming {
    pub async fn open(state: &AppState, request: Request) -> Result<Self, StorageError> {
        let headers = request.headers().clone();
        let is_form = header_text(&headers, header::CONTENT_TYPE.as_str())
            .is_some_and(|mime| mime.to_ascii_lowercase().starts_with("multipart/form-data"));
        let source = if is_form {
            let memory = Arc::new(FormMemory::default());
            let (parts, body) = request.into_parts();
            let body = FormBody::new(body.into_data_stream(), memory.clone(), DRAINED);
            let request = Request::from_parts(parts, Body::from_stream(body));
            let form = Multipart::from_request(request, state)
                .await
                .map_err(|error| StorageError::invalid(error.body_text()))?;
            Source::Form(Box::new(form), memory)
        } else {
            Source::Raw(request.into_body().into_data_stream())
        };
        Ok(Self { source, headers })
    }

    /// Reads the request to its end and stores the file. `hint` is a name whose ending may tell the type. For those who
    /// may write: it takes a place among their organisation's uploads.
    pub async fn store(
        &mut self,
        state: &AppState,
        org: OrgId,
        hint: &str,
    ) -> Result<Stored, StorageError> {
        let _place = state
            .uploads
            .take(org.0)
            .await
            .ok_or_else(StorageError::busy)?;
        tokio::time::timeout(WHOLE, self.read(state, org, hint))
            .await
            .map_err(|_| broken("it took too long"))?
    }

    async fn read(
        &mut self,
        state: &AppState,
        org: OrgId,
        hint: &str,
    ) -> Result<Stored, StorageError> {
        let mut patience = Patience::default();
        match &mut self.source {
            Source::Raw(body) => {
                let declared =
                    header_text(&self.headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
                let mut stored =
                    receive(state, org, declared, hint, body, &mut patience, None).await?;
                if let Some(cache) = header_text(&self.headers, header::CACHE_CONTROL.as_str()) {
                    stored.cache_control = cache_control(cache);
                }
                if let Some(encoded) = header_text(&self.headers, "x-metadata") {
                    let text = STANDARD
                        .decode(encoded)
                        .map_err(|_| StorageError::invalid("x-metadata: must be JSON in base64"))?;
                    stored.user_metadata = Some(metadata(&text)?);
                }
                Ok(stored)
            }
            Source::Form(form, memory) => {
                store_form(state, org, hint, form, memory, &mut patience).await
            }
        }
    }

    /// Reads on, up to a limit, and forgets it.
    pub async fn drain(&mut self) {
        let read = async {
            match &mut self.source {
                Source::Raw(body) => {
                    let mut left = DRAINED;
                    while let Some(Ok(bytes)) = body.next().await {
                        left = left.saturating_sub(bytes.len());
                        if left == 0 {
                            return;
                        }
                    }
                }
                // Its body counts.
                Source::Form(form, memory) => {
                    memory.discard();
                    while let Ok(Some(_)) = form.next_field().await {}
                }
            }
        };
        // Whoever takes longer gets a broken connection.
        drop(tokio::time::timeout(DRAIN_TIME, read).await);
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn broken(error: impl Display) -> StorageError {
    StorageError::invalid(format!("the upload broke off: {error}"))
}

fn silent() -> StorageError {
    broken("it came too slowly")
}

async fn store_form(
    state: &AppState,
    org: OrgId,
    hint: &str,
    form: &mut Multipart,
    memory: &FormMemory,
    patience: &mut Patience,
) -> Result<Stored, StorageError> {
    let mut stored: Option<Stored> = None;
    let mut cache = None;
    let mut about = None;
    let mut parts = 0;
    while let Some(mut field) = patience
        .wait(form.next_field())
        .await
        .ok_or_else(silent)?
        .map_err(|error| broken(error.body_text()))?
    {
        parts += 1;
        if parts > FORM_PARTS {
            let message = format!("the form has more than {FORM_PARTS} parts");
            return Err(StorageError::invalid(message));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let file_name = field.file_name().map(str::to_owned);
        // supabase-js sends the file under an empty name; people under any.
        let is_file = file_name.is_some() || name.is_empty();
        if is_file {
            if stored.is_some() {
                return Err(StorageError::invalid("the form has more than one file"));
            }
            let declared = field.content_type().unwrap_or_default().to_owned();
            let hint = if hint.is_empty() {
                file_name.as_deref().unwrap_or_default()
            } else {
                hint
            };
            let mut received = receive(
                state,
                org,
                &declared,
                hint,
                &mut field,
                patience,
                Some(memory),
            )
            .await?;
            received.file_name = file_name;
            stored = Some(received);
            continue;
        }
        match name.as_str() {
            "cacheControl" => cache = Some(read_text(&mut field, patience).await?),
            "metadata" => about = Some(read_text(&mut field, patience).await?),
            "org_id" => check_org(org, &read_text(&mut field, patience).await?)?,
            // Nobody asks for it, so nothing keeps it.
            _ => {}
        }
    }
    let mut stored =
        stored.ok_or_else(|| StorageError::invalid("No content provided: the form has no file"))?;
    if let Some(cache) = cache {
        stored.cache_control = cache_control(&cache);
    }
    if let Some(text) = about {
        stored.user_metadata = Some(metadata(text.as_bytes())?);
    }
    Ok(stored)
}

/// A form may say for which organisation it is meant.
fn check_org(org: OrgId, text: &str) -> Result<(), StorageError> {
    match text.trim().parse::<Uuid>() {
        Ok(named) if named == org.0 => Ok(()),
        _ => Err(StorageError::forbidden(
            "org_id: is not the caller's organisation",
        )),
    }
}

async fn read_text(
    field: &mut axum::extract::multipart::Field<'_>,
    patience: &mut Patience,
) -> Result<String, StorageError> {
    let mut text = Vec::new();
    while let Some(bytes) = patience
        .wait(field.chunk())
        .await
        .ok_or_else(silent)?
        .map_err(|error| broken(error.body_text()))?
    {
        patience.earn(bytes.len());
        text.extend_from_slice(&bytes);
        if text.len() > TEXT_FIELD {
            return Err(StorageError::invalid(format!(
                "a field is larger than {TEXT_FIELD} bytes"
            )));
        }
    }
    String::from_utf8(text).map_err(|_| StorageError::invalid("a field is not UTF-8"))
}

/// The bytes of a file, from the network into the storage; of a form, `memory` is told of each.
async fn receive<E: Display>(
    state: &AppState,
    org: OrgId,
    declared: &str,
    hint: &str,
    chunks: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    patience: &mut Patience,
    memory: Option<&FormMemory>,
) -> Result<Stored, StorageError> {
    let mut next = async || -> Result<Option<Bytes>, StorageError> {
        let chunk = patience.wait(chunks.next()).await.ok_or_else(silent)?;
        let chunk = chunk.transpose().map_err(broken)?;
        let size = chunk.as_ref().map_or(0, Bytes::len);
        patience.earn(size);
        if let Some(memory) = memory {
            memory.release(size);
        }
        Ok(chunk)
    };
    let mut head = BytesMut::new();
    while head.len() < file_type::HEAD
        && let Some(chunk) = next().await?
    {
        head.extend_from_slice(&chunk);
    }
    let first = &head[..head.len().min(file_type::HEAD)];
    let file = FileType::judge(declared, hint, first).map_err(|message| {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        StorageError::new(status, "invalid_mime_type", "InvalidMimeType", message)
    })?;
    let limit = file.max_size.min(state.config.storage.max_file as u64);
    let bytes = reserve(state, org).await?;
    let mut upload = state.storage.begin(bytes);
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut size = 0;
    let mut chunk = Some(head.freeze());
    while let Some(part) = chunk {
        size += part.len() as u64;
        if size > limit {
            return Err(StorageError::too_large(limit));
        }
        hash.update(&part);
        upload
            .write(part)
            .await
            .map_err(|error| StorageError::store(&error))?;
        chunk = next().await?;
    }
    upload
        .finish()
        .await
        .map_err(|error| StorageError::store(&error))?;
    let is_utf8 = declared.to_ascii_lowercase().contains("charset=utf-8");
    let mime_type = match file.mime {
        "text/plain" if is_utf8 => "text/plain;charset=UTF-8",
        mime => mime,
    };
    Ok(Stored {
        bytes,
        file,
        mime_type: mime_type.to_owned(),
        size,
        etag: hex::encode(&hash.finish().as_ref()[..16]),
        cache_control: "no-cache".to_owned(),
        user_metadata: None,
        file_name: None,
    })
}

/// Seconds from `3600` or `max-age=3600`; anything else is not kept.
fn cache_control(text: &str) -> String {
    let seconds = text.trim().strip_prefix("max-age=").unwrap_or(text.trim());
    match seconds.parse::<u32>() {
        Ok(seconds) => format!("max-age={seconds}"),
        Err(_) => "no-cache".to_owned(),
    }
}

fn metadata(text: &[u8]) -> Result<Value, StorageError> {
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| StorageError::invalid(format!("metadata: {error}")))?;
    if !value.is_object() {
        return Err(StorageError::invalid("metadata: must be an object"));
    }
    // Postgres' text has none.
    if value.to_string().contains(r"\u0000") {
        return Err(StorageError::invalid("metadata: holds a NUL character"));
    }
    Ok(value)
}

impl Stored {
    /// Gives the file its name, for the caller's organisation.
    pub async fn insert(
        self,
        state: &AppState,
        caller: &Caller,
        name: &ObjectName,
        replace: bool,
    ) -> Result<StorageObject, StorageError> {
        keep(state, self.bytes).await?;
        let new = NewObject {
            org_id: OrgId(self.bytes.org_id),
            name: name.as_str().to_owned(),
            version: self.bytes.version,
            size_bytes: i64::try_from(self.size).unwrap_or(i64::MAX),
            mime_type: self.mime_type,
            etag: self.etag,
            cache_control: self.cache_control,
            user_metadata: self.user_metadata,
            owner_id: caller.user_id.map(|user| user.0),
        };
        let mut tx = state.db.tenant(&caller.claims()).await?;
        let object = storage::insert(&mut tx, &new, replace).await?;
        tx.commit().await?;
        // What it replaced is garbage now.
        state.signals.storage.notify_one();
        object.ok_or_else(StorageError::duplicate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_is_a_number_of_seconds() {
        assert_eq!(cache_control("max-age=3600"), "max-age=3600");
        assert_eq!(cache_control("60"), "max-age=60");
        assert_eq!(cache_control("public, max-age=1\r\nx: y"), "no-cache");
        assert_eq!(cache_control("max-age=-1"), "no-cache");
        assert_eq!(cache_control(""), "no-cache");
    }

    #[test]
    fn metadata_is_an_object() {
        assert!(metadata(br#"{"a":1}"#).is_ok());
        assert!(metadata(b"[1]").is_err());
        assert!(metadata(b"{").is_err());
        assert!(metadata(br#"{"a":"\u0000"}"#).is_err());
    }
}
