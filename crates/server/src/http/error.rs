//! Errors as callers see them. One type; the surface decides the shape: `{error: {code, message, field?}}` on
//! `/v1`, `{success: false, error}` on the documents' paths.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::auth::AuthError;

/// A request that cannot be answered as asked.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    /// Stable, for programs: `window_closed`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// Which part of the request is at fault.
    pub field: Option<String>,
    /// What else helps to put it right, by code.
    pub details: Option<Box<Value>>,
    pub retry_after: Option<Duration>,
}

/// The body of an error on `/v1`.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Serialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable, for programs.
    #[schema(example = "window_closed")]
    pub code: String,
    /// For people.
    pub message: String,
    /// The part of the request at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What else helps to put it right. With `window_closed`: `suggested_templates`, each with `id`, `name`,
    /// `provider_name` and `language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Box<Value>>,
}

impl ApiError {
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
            details: None,
            retry_after: None,
        }
    }

    /// 400 for a field that is missing or malformed.
    #[must_use]
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message).at(field)
    }

    /// 422: well-formed, but not now or not to them.
    #[must_use]
    pub fn refused(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 404; also for another tenant's row.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}"),
        )
    }

    #[must_use]
    pub fn too_many(message: impl Into<String>, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message)
        }
    }

    #[must_use]
    pub fn unavailable() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(2)),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the database is not available; try again",
            )
        }
    }

    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    fn with_headers(&self, mut response: Response) -> Response {
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The field at fault and the message, for surfaces whose errors are one text.
    #[must_use]
    pub fn in_words(&self) -> String {
        match &self.field {
            Some(field) => format!("{field}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// In the documents' shape.
    #[must_use]
    pub fn into_document_response(self) -> Response {
        let mut body = json!({ "success": false, "error": self.in_words(), "code": self.code });
        if let Some(details) = &self.details {
            body["details"] = *details.clone();
        }
        self.with_headers((self.status, Json(body)).into_response())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(ErrorBody {
            error: ErrorDetail {
                code: self.code.to_owned(),
                message: self.message.clone(),
                field: self.field.clone(),
                details: self.details.clone(),
            },
        });
        self.with_headers((self.status, body).into_response())
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self {
            field: error.field.map(str::to_owned),
            ..Self::new(error.status, error.code, error.message)
        }
    }
}

impl From<wasel_db::Error> for ApiError {
    fn from(error: wasel_db::Error) -> Self {
        match &error {
            wasel_db::Error::Unavailable(_) | wasel_db::Error::Raced => Self::unavailable(),
            wasel_db::Error::Forbidden(_) => Self::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "your role does not allow this",
            ),
            wasel_db::Error::Constraint { constraint, .. } => {
                tracing::warn!(db.constraint = %constraint, "a request was refused by a constraint");
                Self::new(
                    StatusCode::CONFLICT,
                    "conflict",
                    "this clashes with what is stored",
                )
            }
            _ => {
                tracing::error!(%error, "a request failed in the database");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "something went wrong on our side",
                )
            }
        }
    }
}

/// An [`ApiError`] on one of the documents' paths.
#[derive(Debug)]
pub struct DocumentError(pub ApiError);

impl<E: Into<ApiError>> From<E> for DocumentError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for DocumentError {
    fn into_response(self) -> Response {
        self.0.into_document_response()
    }
}
