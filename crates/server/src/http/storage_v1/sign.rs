//! Addresses that need no token of a person: signed, for one path, for a while.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::storage::{self, BUCKET};
use wasel_domain::OrgId;
use wasel_domain::storage_path::ObjectName;

use super::TAG;
use super::error::{ErrorView, StorageError};
use super::extract::{Caller, InBucket, Json as Body, Object, SignedObject, Writer, named};
use super::serve::{self, DownloadQuery, Reach};
use super::upload::check_public;
use crate::auth;
use crate::state::AppState;
use crate::storage::signed_url::{BadToken, SignedUrl, Use};

/// As on Supabase.
const UPLOAD_LIFETIME: TimeDelta = TimeDelta::hours(2);
/// Ten years, in seconds.
const MAX_LIFETIME: i64 = 10 * 365 * 24 * 3600;
const MAX_SIGNED: usize = 1000;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(sign_one, download_signed))
        .routes(routes!(sign_many))
        .routes(routes!(sign_upload))
}

/// Reads the token of an address.
pub fn verify(
    state: &AppState,
    token: Option<&str>,
    purpose: Use,
    name: &ObjectName,
) -> Result<SignedUrl, StorageError> {
    let bad = |code, message: String| {
        StorageError::new(StatusCode::BAD_REQUEST, "InvalidJWT", code, message)
    };
    let token = token.ok_or_else(|| bad("InvalidJWT", "token: is missing".to_owned()))?;
    state
        .url_signer
        .verify(token, purpose, name)
        .map_err(|error| {
            let code = match error {
                BadToken::Expired => "ExpiredToken",
                BadToken::Invalid => "InvalidJWT",
                BadToken::OtherPath => "InvalidSignature",
            };
            bad(code, error.to_string())
        })
}

fn signed(state: &AppState, url: &SignedUrl) -> Result<String, StorageError> {
    state.url_signer.sign(url).map_err(|error| {
        tracing::error!(%error, "an address could not be signed");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        StorageError::new(
            status,
            "internal",
            "InternalError",
            "something went wrong on our side",
        )
    })
}

fn lifetime(seconds: i64) -> Result<TimeDelta, StorageError> {
    if (1..=MAX_LIFETIME).contains(&seconds) {
        return Ok(TimeDelta::seconds(seconds));
    }
    let message = format!("expiresIn: must be from 1 to {MAX_LIFETIME} seconds");
    Err(StorageError::invalid(message))
}

/// Where a file can be fetched without a token, below `/storage/v1`.
pub fn download_path(
    state: &AppState,
    org: OrgId,
    name: &ObjectName,
    lifetime: TimeDelta,
) -> Result<String, StorageError> {
    let token = signed(state, &SignedUrl::new(Use::Download, org, name, lifetime))?;
    let path = name.to_url_path();
    Ok(format!("/object/sign/{BUCKET}/{path}?token={token}"))
}

#[derive(Debug, Deserialize, ToSchema)]
struct SignRequest {
    /// Seconds.
    #[serde(rename = "expiresIn")]
    expires_in: i64,
    /// Not possible here.
    #[schema(value_type = Option<Object>)]
    transform: Option<Value>,
}

/// Make an address that fetches a file without a token
#[utoipa::path(post, path = "/storage/v1/object/sign/{bucket}/{*path}", tag = TAG, operation_id = "storage_sign",
    params(("bucket" = String, Path), ("path" = String, Path)), request_body = SignRequest,
    responses((status = 200, body = Value, description = "`{signedURL}`, to be put behind `/storage/v1`"),
        (status = 400, body = ErrorView)))]
async fn sign_one(
    State(state): State<AppState>,
    Caller(caller): Caller,
    Object(name): Object,
    Body(request): Body<SignRequest>,
) -> Result<Json<Value>, StorageError> {
    if request
        .transform
        .is_some_and(|transform| !transform.is_null())
    {
        return Err(super::public::no_transforms());
    }
    let lifetime = lifetime(request.expires_in)?;
    serve::find(&state, &caller, &name).await?;
    let url = download_path(&state, caller.org_id, &name, lifetime)?;
    Ok(Json(json!({ "signedURL": url })))
}

#[derive(Debug, Deserialize, ToSchema)]
struct SignManyRequest {
    /// Seconds.
    #[serde(rename = "expiresIn")]
    expires_in: i64,
    /// Up to 1000.
    paths: Vec<String>,
}

/// Make such addresses for several files
#[utoipa::path(post, path = "/storage/v1/object/sign/{bucket}", tag = TAG, operation_id = "storage_sign_many",
    params(("bucket" = String, Path)), request_body = SignManyRequest,
    responses((status = 200, body = Value, description = "`[{path, signedURL, error}]`"), (status = 400, body = ErrorView)))]
async fn sign_many(
    State(state): State<AppState>,
    Caller(caller): Caller,
    _: InBucket,
    Body(request): Body<SignManyRequest>,
) -> Result<Json<Value>, StorageError> {
    let lifetime = lifetime(request.expires_in)?;
    if !(1..=MAX_SIGNED).contains(&request.paths.len()) {
        return Err(StorageError::invalid(format!(
            "paths: must be 1 to {MAX_SIGNED} names"
        )));
    }
    let names: Vec<Option<ObjectName>> =
        request.paths.iter().map(|path| named(path).ok()).collect();
    let wanted: Vec<String> = names.iter().flatten().map(ToString::to_string).collect();
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let there = storage::list_names(&mut tx, caller.org_id, &wanted).await?;
    tx.commit().await?;
    let there: std::collections::HashSet<String> = there.into_iter().collect();
    let mut urls = Vec::with_capacity(names.len());
    for (path, name) in request.paths.iter().zip(&names) {
        urls.push(
            match name.as_ref().filter(|name| there.contains(name.as_str())) {
                Some(name) => {
                    let url = download_path(&state, caller.org_id, name, lifetime)?;
                    json!({ "path": path, "signedURL": url, "error": null })
                }
                None => {
                    let error = "Either the object does not exist or you do not have access to it";
                    json!({ "path": path, "signedURL": null, "error": error })
                }
            },
        );
    }
    Ok(Json(Value::Array(urls)))
}

#[derive(Debug, Deserialize)]
struct SignedQuery {
    token: Option<String>,
}

/// Download a file by a signed address
#[utoipa::path(get, path = "/storage/v1/object/sign/{bucket}/{*path}", tag = TAG, operation_id = "storage_download_signed",
    params(("bucket" = String, Path), ("path" = String, Path), ("token" = String, Query),
        ("download" = Option<String>, Query)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 304),
        (status = 400, body = ErrorView), (status = 416, body = ErrorView), (status = 503, body = ErrorView)))]
async fn download_signed(
    State(state): State<AppState>,
    SignedObject(name): SignedObject,
    Query(query): Query<SignedQuery>,
    Query(download): Query<DownloadQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, StorageError> {
    let url = verify(&state, query.token.as_deref(), Use::Download, &name)?;
    let owner = auth::Caller::service(OrgId(url.org_id), None);
    let object = serve::find(&state, &owner, &name).await?;
    let reach = Reach::Address(url.expires_at());
    serve::serve(&state, &object, &method, &headers, &download, reach).await
}

/// Make an address that takes one upload without a person's token, for two hours
///
/// Header `x-upsert: true` lets it replace a file that is there.
#[utoipa::path(post, path = "/storage/v1/object/upload/sign/{bucket}/{*path}", tag = TAG, operation_id = "storage_sign_upload",
    params(("bucket" = String, Path), ("path" = String, Path)),
    responses((status = 200, body = Value, description = "`{url, token}`"), (status = 400, body = ErrorView)))]
async fn sign_upload(
    State(state): State<AppState>,
    Writer(caller): Writer,
    Object(name): Object,
    headers: HeaderMap,
) -> Result<Json<Value>, StorageError> {
    check_public(caller.org_id, &name)?;
    let upsert = headers.get("x-upsert").is_some_and(|value| value == "true");
    if !upsert {
        let mut tx = state.db.tenant(&caller.claims()).await?;
        let taken = storage::find(&mut tx, caller.org_id, name.as_str()).await?;
        tx.commit().await?;
        if taken.is_some() {
            return Err(StorageError::duplicate());
        }
    }
    let mut url = SignedUrl::new(Use::Upload, caller.org_id, &name, UPLOAD_LIFETIME);
    url.owner = caller.user_id.map(|user| user.0);
    url.upsert = upsert;
    let token = signed(&state, &url)?;
    let path = name.to_url_path();
    Ok(Json(
        json!({ "url": format!("/object/upload/sign/{BUCKET}/{path}?token={token}"), "token": token }),
    ))
}
