//! Extractors that refuse in Storage's shape.

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use wasel_db::storage::BUCKET;
use wasel_domain::storage_path::ObjectName;

use super::error::StorageError;
use crate::auth::{self, Role};
use crate::state::AppState;

/// Who may upload, move and remove.
const WRITERS: [Role; 3] = [Role::Owner, Role::Admin, Role::Agent];

/// Who calls, in which tenant.
pub struct Caller(pub auth::Caller);

/// Who calls, and may write.
pub struct Writer(pub auth::Caller);

/// The bucket of the path, which is the only one.
pub struct InBucket;

/// A file named by the path, in the bucket.
pub struct Object(pub ObjectName);

/// The same in a signed address, which supabase-js escapes once more than it is: `?` comes as `%253F`.
pub struct SignedObject(pub ObjectName);

/// A JSON body, whatever it says it is.
pub struct Json<T>(pub T);

impl FromRequestParts<AppState> for Caller {
    type Rejection = StorageError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, StorageError> {
        Ok(Self(auth::resolve(&state.auth, &parts.headers).await?))
    }
}

impl FromRequestParts<AppState> for Writer {
    type Rejection = StorageError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, StorageError> {
        let Caller(caller) = Caller::from_request_parts(parts, state).await?;
        // Supabase's own words, which clients look for.
        caller
            .require(&WRITERS)
            .map_err(|_| StorageError::forbidden("new row violates row-level security policy"))?;
        Ok(Self(caller))
    }
}

impl FromRequestParts<AppState> for InBucket {
    type Rejection = StorageError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, StorageError> {
        if parameter(parts, state, "bucket").await? != BUCKET {
            return Err(StorageError::no_such_bucket());
        }
        Ok(Self)
    }
}

impl FromRequestParts<AppState> for Object {
    type Rejection = StorageError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, StorageError> {
        InBucket::from_request_parts(parts, state).await?;
        let path = parameter(parts, state, "path").await?;
        named(&path).map(Self)
    }
}

impl FromRequestParts<AppState> for SignedObject {
    type Rejection = StorageError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, StorageError> {
        InBucket::from_request_parts(parts, state).await?;
        let path = parameter(parts, state, "path").await?;
        named(&path.replace("%3F", "?")).map(Self)
    }
}

/// A file's name out of a body.
pub fn named(text: &str) -> Result<ObjectName, StorageError> {
    ObjectName::parse(text.trim_start_matches('/')).map_err(|_| StorageError::invalid_key(text))
}

/// A percent-decoded parameter of the path; none of them is there if one is not UTF-8.
async fn parameter(
    parts: &mut Parts,
    state: &AppState,
    name: &str,
) -> Result<String, StorageError> {
    let unreadable = || StorageError::invalid_key("");
    let parameters = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| unreadable())?;
    let mut parameters = parameters.iter();
    let (_, value) = parameters
        .find(|(key, _)| *key == name)
        .ok_or_else(unreadable)?;
    Ok(value.to_owned())
}

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = StorageError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, StorageError> {
        let body = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|error| {
                StorageError::new(
                    error.status(),
                    "InvalidRequest",
                    "InvalidRequest",
                    error.body_text(),
                )
            })?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| StorageError::invalid(format!("body: {error}")))
    }
}
