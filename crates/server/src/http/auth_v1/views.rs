//! Answers and refusals in GoTrue's shapes.

use axum::Json;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use wasel_db::identity::User;
use wasel_domain::OrgId;

use crate::auth::sign_in::{Grant, SignInError};
use crate::auth::{AuthError, app_metadata, user_metadata};

#[derive(Serialize, ToSchema)]
pub(super) struct SessionView {
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    /// Seconds since 1970.
    expires_at: i64,
    /// Good for one use, and for ten seconds after it.
    refresh_token: String,
    user: UserView,
}

#[derive(Serialize, ToSchema)]
pub(super) struct UserView {
    id: Uuid,
    aud: &'static str,
    role: &'static str,
    email: String,
    email_confirmed_at: DateTime<Utc>,
    phone: String,
    confirmed_at: DateTime<Utc>,
    last_sign_in_at: Option<DateTime<Utc>>,
    /// Holds `org_id`, the tenant of the session.
    app_metadata: Value,
    user_metadata: Value,
    identities: Vec<Value>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    is_anonymous: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ErrorView {
    /// As in Supabase Auth's list of error codes.
    code: &'static str,
    message: String,
}

impl UserView {
    pub(super) fn new(user: User, org: Option<OrgId>) -> Self {
        Self {
            id: user.id,
            aud: "authenticated",
            role: "authenticated",
            app_metadata: app_metadata(org),
            user_metadata: user_metadata(&user),
            email: user.email,
            // Whoever made the user vouched for the address.
            email_confirmed_at: user.created_at,
            confirmed_at: user.created_at,
            phone: user.phone.unwrap_or_default(),
            last_sign_in_at: user.last_sign_in_at,
            identities: Vec::new(),
            created_at: user.created_at,
            updated_at: user.updated_at,
            is_anonymous: false,
        }
    }
}

impl From<Grant> for SessionView {
    fn from(grant: Grant) -> Self {
        Self {
            access_token: grant.access.token,
            token_type: "bearer",
            expires_in: grant.expires_in.as_secs(),
            expires_at: grant.access.expires_at.timestamp(),
            refresh_token: grant.refresh_token,
            user: UserView::new(grant.user, grant.org_id),
        }
    }
}

/// A refusal in GoTrue's shape.
#[derive(Debug)]
pub(super) struct GoTrueError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl GoTrueError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "validation_failed", message)
    }

    pub(super) fn try_again() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unexpected_failure",
            "Unexpected failure, please try again",
        )
    }
}

impl IntoResponse for GoTrueError {
    fn into_response(self) -> Response {
        let body = Json(ErrorView {
            code: self.code,
            message: self.message,
        });
        (
            self.status,
            [("x-supabase-api-version", "2024-01-01")],
            body,
        )
            .into_response()
    }
}

impl From<wasel_db::Error> for GoTrueError {
    fn from(error: wasel_db::Error) -> Self {
        tracing::error!(%error, "the identity could not use the database");
        Self::try_again()
    }
}

impl From<AuthError> for GoTrueError {
    fn from(error: AuthError) -> Self {
        Self::new(error.status, error.code, error.message)
    }
}

impl From<SignInError> for GoTrueError {
    fn from(error: SignInError) -> Self {
        let bad = |code, message: &str| Self::new(StatusCode::BAD_REQUEST, code, message);
        match error {
            SignInError::InvalidCredentials => {
                bad("invalid_credentials", "Invalid login credentials")
            }
            SignInError::RefreshTokenNotFound => bad(
                "refresh_token_not_found",
                "Invalid Refresh Token: Refresh Token Not Found",
            ),
            SignInError::RefreshTokenAlreadyUsed => bad(
                "refresh_token_already_used",
                "Invalid Refresh Token: Already Used",
            ),
            SignInError::TooManyAttempts => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "over_request_rate_limit",
                "Request rate limit reached",
            ),
            SignInError::Org(error) => error.into(),
            SignInError::Database(error) => error.into(),
            SignInError::Password(_) | SignInError::Issue(_) => {
                tracing::error!(%error, "signing in failed inside");
                Self::try_again()
            }
        }
    }
}
