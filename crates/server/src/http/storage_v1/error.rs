//! Errors as Supabase Storage has them.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::AuthError;
use crate::http::error::ApiError;

/// A request that cannot be answered as asked.
#[derive(Clone, Debug)]
pub struct StorageError {
    /// The real status; the answer's own is 400 for most.
    pub status: StatusCode,
    /// Its old name: `not_found`, `Duplicate`.
    pub error: &'static str,
    /// Its new one: `NoSuchKey`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    pub retry_after: Option<Duration>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ErrorView {
    #[serde(rename = "statusCode")]
    #[schema(example = "404")]
    status_code: String,
    #[schema(example = "not_found")]
    error: String,
    #[schema(example = "Object not found")]
    message: String,
    #[schema(example = "NoSuchKey")]
    code: String,
}

impl StorageError {
    pub fn new(
        status: StatusCode,
        error: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            error,
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// No such file, or another tenant's.
    pub fn no_such_key() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "NoSuchKey",
            "Object not found",
        )
    }

    pub fn no_such_bucket() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "Bucket not found",
            "NoSuchBucket",
            "Bucket not found",
        )
    }

    pub fn duplicate() -> Self {
        let message = "The resource already exists";
        Self::new(
            StatusCode::CONFLICT,
            "Duplicate",
            "KeyAlreadyExists",
            message,
        )
    }

    pub fn invalid_key(key: &str) -> Self {
        let message = format!("Invalid key: {key}");
        Self::new(StatusCode::BAD_REQUEST, "InvalidKey", "InvalidKey", message)
    }

    /// A body or parameter that cannot be read.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidRequest",
            "InvalidRequest",
            message,
        )
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Unauthorized",
            "AccessDenied",
            message,
        )
    }

    pub fn too_large(limit: u64) -> Self {
        let message = format!("The object exceeded the maximum allowed size of {limit} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload too large",
            "EntityTooLarge",
            message,
        )
    }

    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "NotSupported",
            "NotSupported",
            message,
        )
    }

    /// Too many uploads at the same time.
    pub fn busy() -> Self {
        let message = "too many uploads at the same time; try again";
        Self {
            retry_after: Some(Duration::from_secs(5)),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Unavailable",
                "SlowDown",
                message,
            )
        }
    }

    /// The place where files are kept does not answer as it should. Clients may try again.
    pub fn store(cause: &object_store::Error) -> Self {
        tracing::error!(error = %cause, "the file storage failed");
        let message = "the file storage is not available; try again";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Unavailable",
            "SlowDown",
            message,
        )
    }
}

impl IntoResponse for StorageError {
    fn into_response(self) -> Response {
        let body = Json(ErrorView {
            status_code: self.status.as_u16().to_string(),
            error: self.error.to_owned(),
            message: self.message,
            code: self.code.to_owned(),
        });
        // What clients and proxies act on by the status keeps it.
        let status = match self.status {
            status if status.is_server_error() => status,
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::RANGE_NOT_SATISFIABLE) => status,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut response = (status, body).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs().max(1);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ApiError> for StorageError {
    fn from(error: ApiError) -> Self {
        let (status, name, code) = match error.status {
            // Storage knows no 401.
            StatusCode::UNAUTHORIZED => (StatusCode::FORBIDDEN, "Unauthorized", "InvalidJWT"),
            StatusCode::FORBIDDEN => (StatusCode::FORBIDDEN, "Unauthorized", "AccessDenied"),
            status if status.is_server_error() => (status, "internal", "InternalError"),
            status => (status, "InvalidRequest", "InvalidRequest"),
        };
        Self {
            retry_after: error.retry_after,
            ..Self::new(status, name, code, error.in_words())
        }
    }
}

impl From<AuthError> for StorageError {
    fn from(error: AuthError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<wasel_db::Error> for StorageError {
    fn from(error: wasel_db::Error) -> Self {
        match error {
            wasel_db::Error::Constraint { .. } => Self::duplicate(),
            error => ApiError::from(error).into(),
        }
    }
}
