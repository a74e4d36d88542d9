//! Files on their way out: whole or in part, fresh or known, and never as a page of ours.

use std::ops::Range;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::storage::{self, StorageObject};
use wasel_domain::storage_path::ObjectName;

use super::TAG;
use super::error::{ErrorView, StorageError};
use super::extract::{Caller, Object};
use crate::auth;
use crate::state::AppState;
use crate::storage::file_type::FileType;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(download))
        .routes(routes!(download_authenticated))
        .routes(routes!(info))
}

#[derive(Debug, Default, Deserialize)]
pub struct DownloadQuery {
    /// Makes it a download, under this name unless it is empty.
    download: Option<String>,
}

/// Who may keep a copy of the answer, and how long.
#[derive(Clone, Copy, Debug)]
pub enum Reach {
    /// The caller alone.
    Caller,
    /// Whoever has the address, until then.
    Address(DateTime<Utc>),
    Anybody,
}

/// Download a file
///
/// `Range`, `If-None-Match` and `If-Modified-Since` count. `HEAD` says whether it is there.
#[utoipa::path(get, path = "/storage/v1/object/{bucket}/{*path}", tag = TAG, operation_id = "storage_download",
    params(("bucket" = String, Path), ("path" = String, Path), ("download" = Option<String>, Query)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 304),
        (status = 400, body = ErrorView), (status = 416, body = ErrorView), (status = 503, body = ErrorView)))]
async fn download(
    State(state): State<AppState>,
    Caller(caller): Caller,
    Object(name): Object,
    Query(query): Query<DownloadQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, StorageError> {
    let object = find(&state, &caller, &name).await?;
    serve(&state, &object, &method, &headers, &query, Reach::Caller).await
}

/// Download a file, by its other address
#[utoipa::path(get, path = "/storage/v1/object/authenticated/{bucket}/{*path}", tag = TAG,
    operation_id = "storage_download_authenticated",
    params(("bucket" = String, Path), ("path" = String, Path), ("download" = Option<String>, Query)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 304),
        (status = 400, body = ErrorView), (status = 416, body = ErrorView), (status = 503, body = ErrorView)))]
async fn download_authenticated(
    state: State<AppState>,
    caller: Caller,
    object: Object,
    query: Query<DownloadQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, StorageError> {
    download(state, caller, object, query, method, headers).await
}

/// What is known of a file
#[utoipa::path(get, path = "/storage/v1/object/info/{bucket}/{*path}", tag = TAG, operation_id = "storage_info",
    params(("bucket" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Value), (status = 400, body = ErrorView)))]
async fn info(
    State(state): State<AppState>,
    Caller(caller): Caller,
    Object(name): Object,
) -> Result<Json<Value>, StorageError> {
    let object = find(&state, &caller, &name).await?;
    Ok(Json(json!({
        "id": object.id,
        "name": object.name,
        "version": object.version,
        "bucket_id": object.bucket,
        "size": object.size_bytes,
        "content_type": object.mime_type,
        "cache_control": object.cache_control,
        "etag": etag(&object),
        "metadata": object.user_metadata.clone().unwrap_or_else(|| json!({})),
        "last_modified": object.updated_at,
        "created_at": object.created_at,
    })))
}

/// A file of the caller's organisation.
pub async fn find(
    state: &AppState,
    caller: &auth::Caller,
    name: &ObjectName,
) -> Result<StorageObject, StorageError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let object = storage::find(&mut tx, caller.org_id, name.as_str()).await?;
    tx.commit().await?;
    object.ok_or_else(StorageError::no_such_key)
}

pub fn etag(object: &StorageObject) -> String {
    format!("\"{}\"", object.etag)
}

/// Answers with a file as far as the request asks for it.
pub async fn serve(
    state: &AppState,
    object: &StorageObject,
    method: &Method,
    headers: &HeaderMap,
    query: &DownloadQuery,
    reach: Reach,
) -> Result<Response, StorageError> {
    let size = u64::try_from(object.size_bytes).unwrap_or_default();
    if is_known(object, headers) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        describe(response.headers_mut(), object, query, reach);
        return Ok(response);
    }
    let (status, range) = match wanted_range(object, headers, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let message = "invalid range provided";
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut response =
                StorageError::new(status, "invalid_range", "InvalidRange", message).into_response();
            set(
                response.headers_mut(),
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let bytes = state
            .storage
            .read(object.bytes(), range.start, range.end)
            .await;
        Body::from_stream(bytes.map_err(|error| StorageError::store(&error))?)
    };
    let mut response = (status, body).into_response();
    let answer = response.headers_mut();
    describe(answer, object, query, reach);
    answer.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        set(
            answer,
            header::CONTENT_RANGE,
            &format!("bytes {}-{last}/{size}", range.start),
        );
    }
    Ok(response)
}

/// Type, age and what may be done with it.
fn describe(headers: &mut HeaderMap, object: &StorageObject, query: &DownloadQuery, reach: Reach) {
    let file = FileType::of(&object.mime_type);
    // A row written by somebody's SQL may say anything.
    let mime = if file.is_some() {
        object.mime_type.as_str()
    } else {
        "application/octet-stream"
    };
    set(headers, header::CONTENT_TYPE, mime);
    let disposition = match query.download.as_deref() {
        Some("") => "attachment".to_owned(),
        Some(name) => format!(
            "attachment; filename*=UTF-8''{}",
            utf8_percent_encode(name, NON_ALPHANUMERIC)
        ),
        None if file.is_some_and(|file| file.shown) => "inline".to_owned(),
        None => "attachment".to_owned(),
    };
    set(headers, header::CONTENT_DISPOSITION, &disposition);
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(
        headers,
        header::CONTENT_SECURITY_POLICY,
        "sandbox; default-src 'none'",
    );
    set(headers, header::ACCEPT_RANGES, "bytes");
    set(headers, header::ETAG, &etag(object));
    set(
        headers,
        header::LAST_MODIFIED,
        &http_date(object.updated_at),
    );
    let age: Option<i64> = object
        .cache_control
        .strip_prefix("max-age=")
        .and_then(|age| age.parse().ok());
    let cache = match (reach, age) {
        (Reach::Anybody, Some(age)) => format!("public, max-age={age}"),
        (Reach::Caller, Some(age)) => format!("private, max-age={age}"),
        (Reach::Address(until), Some(age)) => {
            format!(
                "private, max-age={}",
                age.min((until - Utc::now()).num_seconds().max(0))
            )
        }
        (Reach::Anybody, None) => "no-cache".to_owned(),
        (_, None) => "private, no-cache".to_owned(),
    };
    set(headers, header::CACHE_CONTROL, &cache);
    if matches!(reach, Reach::Caller) {
        // One address, another file for each organisation: a browser must not show one person's to the next.
        headers.append(
            header::VARY,
            HeaderValue::from_static("authorization, apikey, x-org-id"),
        );
    }
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// RFC 9110 §5.6.7.
fn http_date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the client has it already (RFC 9110 §13.2.2).
fn is_known(object: &StorageObject, headers: &HeaderMap) -> bool {
    if let Some(tags) = text(headers, header::IF_NONE_MATCH) {
        let etag = etag(object);
        return tags
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == etag);
    }
    text(headers, header::IF_MODIFIED_SINCE)
        .and_then(|date| DateTime::parse_from_rfc2822(date).ok())
        .is_some_and(|since| object.updated_at.timestamp() <= since.timestamp())
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// Nothing of it is there.
    Nothing,
}

fn wanted_range(object: &StorageObject, headers: &HeaderMap, size: u64) -> Wanted {
    let Some(range) = text(headers, header::RANGE) else {
        return Wanted::Whole;
    };
    // The rest of a file that has changed since is of no use.
    let is_same = text(headers, header::IF_RANGE)
        .is_none_or(|tag| tag == etag(object) || tag == http_date(object.updated_at));
    if is_same {
        parse_range(range, size)
    } else {
        Wanted::Whole
    }
}

/// One range. Several at once, and what cannot be read, are answered with the whole, as RFC 9110 §14.2 allows.
fn parse_range(text: &str, size: u64) -> Wanted {
    let Some(range) = text.trim().strip_prefix("bytes=") else {
        return Wanted::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // What is larger than can be counted is beyond the end in any case.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match range.split_once('-') {
        Some((first, last)) if first.trim().is_empty() => match number(last) {
            Some(0) => Wanted::Nothing,
            Some(_) if size == 0 => Wanted::Nothing,
            Some(count) => Wanted::Part(size.saturating_sub(count)..size),
            None => Wanted::Whole,
        },
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), None) if last.trim().is_empty() && first < size => {
                Wanted::Part(first..size)
            }
            (Some(first), Some(last)) if first <= last && first < size => {
                Wanted::Part(first..last.saturating_add(1).min(size))
            }
            (Some(first), Some(last)) if first <= last => Wanted::Nothing,
            (Some(_), None) if last.trim().is_empty() => Wanted::Nothing,
            _ => Wanted::Whole,
        },
        None => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_rfc_9110_has_it() {
        use Wanted::{Nothing, Part, Whole};
        for (range, wanted) in [
            ("bytes=0-3", Part(0..4)),
            ("bytes=4-", Part(4..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-30", Part(0..10)),
            ("bytes=9-99", Part(9..10)),
            ("bytes=0-99999999999999999999999", Part(0..10)),
            ("bytes=10-", Nothing),
            ("bytes=10-12", Nothing),
            ("bytes=-0", Nothing),
            ("bytes=3-1", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=a-b", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("rows=0-1", Whole),
            ("", Whole),
        ] {
            assert_eq!(parse_range(range, 10), wanted, "{range}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Nothing);
        assert_eq!(parse_range("bytes=-5", 0), Nothing);
    }
}
