//! As much of S3 as keeps files: objects, ranges, copies and multipart uploads, at `/s3/<bucket>/<key>`. Requests must
//! be signed (AWS Signature Version 4), with the one key there is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{OriginalUri, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use chrono::{NaiveDateTime, TimeDelta, Utc};
use ring::{digest, hmac};
use serde_json::{Value, json};
use uuid::Uuid;

pub const S3_ACCESS_KEY_ID: &str = "SIMULATEDKEY";
pub const S3_SECRET_ACCESS_KEY: &str = "simulated/secret+key";

/// The smallest part but the last one.
const SMALLEST_PART: usize = 5 * 1024 * 1024;
/// How far the clocks may differ.
const SKEW: TimeDelta = TimeDelta::minutes(15);

/// Everything stored, by bucket and key.
#[derive(Clone, Default)]
pub struct S3Storage(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    completed: usize,
}

impl S3Storage {
    pub(crate) fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        Router::new()
            .route("/s3/{*path}", any(answer))
            .route("/sim/s3", get(contents))
            .with_state(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `bucket/key` of every object.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Multipart uploads that are neither complete nor aborted.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    /// Multipart uploads that came to be an object.
    #[must_use]
    pub fn completed_uploads(&self) -> usize {
        self.lock().completed
    }
}

async fn contents(State(storage): State<S3Storage>) -> Json<Value> {
    let stored = storage.lock();
    let objects: Vec<Value> = stored
        .objects
        .iter()
        .map(|(key, bytes)| json!({ "key": key, "size": bytes.len() }))
        .collect();
    Json(
        json!({ "objects": objects, "uploads": stored.uploads.len(), "completed": stored.completed }),
    )
}

/// A refusal as S3 has it.
struct S3Error(StatusCode, &'static str);

impl IntoResponse for S3Error {
    fn into_response(self) -> Response {
        xml(
            self.0,
            &format!(
                "<Error><Code>{0}</Code><Message>{0}</Message></Error>",
                self.1
            ),
        )
    }
}

fn xml(status: StatusCode, body: &str) -> Response {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}");
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

const NO_SUCH_KEY: S3Error = S3Error(StatusCode::NOT_FOUND, "NoSuchKey");
const NO_SUCH_UPLOAD: S3Error = S3Error(StatusCode::NOT_FOUND, "NoSuchUpload");

async fn answer(
    State(storage): State<S3Storage>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let result = verify(&method, &uri, &headers, &body)
        .and_then(|()| storage.act(&method, &uri, &headers, body));
    result.unwrap_or_else(IntoResponse::into_response)
}

/// The parts of the query, as they were sent.
fn query(uri: &Uri) -> Vec<(&str, &str)> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect()
}

impl S3Storage {
    fn act(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response, S3Error> {
        let query = query(uri);
        let parameter = |name: &str| {
            query
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        let key = uri.path().trim_start_matches("/s3/").to_owned();
        let mut stored = self.lock();
        match (method.as_str(), parameter("uploadId")) {
            ("POST", None) if parameter("uploads").is_some() => {
                let id = Uuid::new_v4().simple().to_string();
                stored.uploads.insert(id.clone(), BTreeMap::new());
                let body = format!(
                    "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                );
                Ok(xml(StatusCode::OK, &body))
            }
            ("PUT", Some(id)) => {
                let number = parameter("partNumber").and_then(|number| number.parse().ok());
                let number = number.ok_or(S3Error(StatusCode::BAD_REQUEST, "InvalidArgument"))?;
                let tag = etag(&body);
                stored
                    .uploads
                    .get_mut(id)
                    .ok_or(NO_SUCH_UPLOAD)?
                    .insert(number, body);
                Ok((StatusCode::OK, [(header::ETAG, tag)]).into_response())
            }
            ("POST", Some(id)) => {
                let parts = stored.uploads.get(id).ok_or(NO_SUCH_UPLOAD)?;
                let last = parts.keys().next_back().copied();
                if parts
                    .iter()
                    .any(|(number, part)| Some(*number) != last && part.len() < SMALLEST_PART)
                {
                    return Err(S3Error(StatusCode::BAD_REQUEST, "EntityTooSmall"));
                }
                // The client lists what it sent: each of them, by number and tag.
                let listed = String::from_utf8_lossy(&body).replace("&quot;", "\"");
                let is_whole = parts.iter().all(|(number, part)| {
                    listed.contains(&format!("<PartNumber>{number}</PartNumber>"))
                        && listed.contains(&etag(part))
                });
                if !is_whole || parts.is_empty() {
                    return Err(S3Error(StatusCode::BAD_REQUEST, "InvalidPart"));
                }
                let whole: Bytes = parts
                    .values()
                    .flatten()
                    .copied()
                    .collect::<Vec<u8>>()
                    .into();
                let tag = etag(&whole);
                stored.uploads.remove(id);
                stored.completed += 1;
                stored.objects.insert(key, whole);
                let body = format!(
                    "<CompleteMultipartUploadResult><Location>l</Location><Bucket>b</Bucket><Key>k</Key>\
                     <ETag>{tag}</ETag></CompleteMultipartUploadResult>"
                );
                Ok(xml(StatusCode::OK, &body))
            }
            ("DELETE", Some(id)) => {
                stored.uploads.remove(id).ok_or(NO_SUCH_UPLOAD)?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            ("PUT", None) => {
                let source = headers
                    .get("x-amz-copy-source")
                    .and_then(|source| source.to_str().ok());
                let is_copy = source.is_some();
                let bytes = match source {
                    Some(source) => {
                        let source = source.trim_start_matches('/');
                        stored.objects.get(source).ok_or(NO_SUCH_KEY)?.clone()
                    }
                    None => body,
                };
                let tag = etag(&bytes);
                stored.objects.insert(key, bytes);
                if is_copy {
                    let body = format!("<CopyObjectResult><ETag>{tag}</ETag></CopyObjectResult>");
                    return Ok(xml(StatusCode::OK, &body));
                }
                Ok((StatusCode::OK, [(header::ETAG, tag)]).into_response())
            }
            ("GET" | "HEAD", None) => {
                let bytes = stored.objects.get(&key).ok_or(NO_SUCH_KEY)?;
                read(bytes, headers)
            }
            ("DELETE", None) => {
                // Also for what is not there.
                stored.objects.remove(&key);
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => Err(S3Error(StatusCode::NOT_IMPLEMENTED, "NotImplemented")),
        }
    }
}

fn etag(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    format!("\"{}\"", hex::encode(&hash.as_ref()[..16]))
}

fn read(bytes: &Bytes, headers: &HeaderMap) -> Result<Response, S3Error> {
    let size = bytes.len();
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let unsatisfiable = S3Error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
    let (status, start, end) =
        match range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
            None => (StatusCode::OK, 0, size),
            Some((first, last)) => {
                let number = |text: &str| text.parse::<usize>().ok();
                let (start, end) = match (number(first), number(last)) {
                    (Some(first), Some(last)) => (first, (last + 1).min(size)),
                    (Some(first), None) => (first, size),
                    (None, Some(count)) => (size.saturating_sub(count), size),
                    (None, None) => return Err(unsatisfiable),
                };
                if start >= end {
                    return Err(unsatisfiable);
                }
                (StatusCode::PARTIAL_CONTENT, start, end)
            }
        };
    let mut response = (status, bytes.slice(start..end)).into_response();
    let answer = response.headers_mut();
    let modified = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut set = |name, value: String| {
        if let Ok(value) = value.parse() {
            answer.insert(name, value);
        }
    };
    set(header::ETAG, etag(bytes));
    set(header::LAST_MODIFIED, modified);
    if status == StatusCode::PARTIAL_CONTENT {
        set(
            header::CONTENT_RANGE,
            format!("bytes {start}-{}/{size}", end - 1),
        );
    }
    Ok(response)
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// AWS Signature Version 4, in the `Authorization` header.
fn verify(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<(), S3Error> {
    let denied = || S3Error(StatusCode::FORBIDDEN, "AccessDenied");
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let authorization = text("authorization").ok_or_else(denied)?;
    let fields = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")
        .ok_or_else(denied)?;
    let field = |name: &str| {
        fields
            .split(',')
            .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let credential: Vec<&str> = field("Credential").ok_or_else(denied)?.split('/').collect();
    let [id, day, region, "s3", "aws4_request"] = credential[..] else {
        return Err(denied());
    };
    if id != S3_ACCESS_KEY_ID {
        return Err(S3Error(StatusCode::FORBIDDEN, "InvalidAccessKeyId"));
    }
    let date = text("x-amz-date").ok_or_else(denied)?;
    let at = NaiveDateTime::parse_from_str(date, "%Y%m%dT%H%M%SZ").map_err(|_| denied())?;
    if (Utc::now() - at.and_utc()).abs() > SKEW || !date.starts_with(day) {
        return Err(S3Error(StatusCode::FORBIDDEN, "RequestTimeTooSkewed"));
    }
    let hash = text("x-amz-content-sha256").ok_or_else(denied)?;
    if hash != "UNSIGNED-PAYLOAD" && hash != sha256(body) {
        return Err(S3Error(
            StatusCode::BAD_REQUEST,
            "XAmzContentSHA256Mismatch",
        ));
    }
    let signed = field("SignedHeaders").ok_or_else(denied)?;
    let mut canonical = format!("{method}\n{}\n", uri.path());
    let mut pairs = query(uri);
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    canonical.push_str(&format!("{}\n", pairs.join("&")));
    for name in signed.split(';') {
        let value = text(name).ok_or_else(denied)?;
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    canonical.push_str(&format!("\n{signed}\n{hash}"));
    let scope = format!("{day}/{region}/s3/aws4_request");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        sha256(canonical.as_bytes())
    );
    let mut key = format!("AWS4{S3_SECRET_ACCESS_KEY}").into_bytes();
    for part in [day, region, "s3", "aws4_request"] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes())
            .as_ref()
            .to_vec();
    }
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), to_sign.as_bytes());
    if field("Signature") != Some(hex::encode(signature).as_str()) {
        return Err(S3Error(StatusCode::FORBIDDEN, "SignatureDoesNotMatch"));
    }
    Ok(())
}
