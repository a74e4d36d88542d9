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

use crate::auth::invitations::{AcceptError, InviteError};
use crate::auth::password::{MIN_CHARS, PasswordError};
use crate::auth::recovery::EmailChangeError;
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
    /// When it was shown that the person reads mail there, or the operator vouched for it; `null` until then.
    email_confirmed_at: Option<DateTime<Utc>>,
    phone: String,
    confirmed_at: Option<DateTime<Utc>>,
    /// Asked for and not confirmed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_change_sent_at: Option<DateTime<Utc>>,
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
    /// With `weak_password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    weak_password: Option<WeakPassword>,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct WeakPassword {
    /// `length`.
    reasons: &'static [&'static str],
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
            email_confirmed_at: user.email_confirmed_at,
            confirmed_at: user.email_confirmed_at,
            new_email: user.new_email,
            email_change_sent_at: user.email_change_sent_at,
            phone: user.phone.unwrap_or_default(),
            last_sign_in_at: user.last_sign_in_at,
            identities: Vec::new(),
            created_at: user.created_at,
            updated_at: user.updated_at,
            is_anonymous: false,
        }
    }
}

impl SessionView {
    /// As the client reads it behind the `#` of the page a link leads to.
    pub(super) fn in_fragment(self, kind: &str) -> Vec<(&'static str, String)> {
        vec![
            ("access_token", self.access_token),
            ("expires_at", self.expires_at.to_string()),
            ("expires_in", self.expires_in.to_string()),
            ("refresh_token", self.refresh_token),
            ("token_type", self.token_type.to_owned()),
            ("type", kind.to_owned()),
        ]
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
    weak_password: Option<WeakPassword>,
}

impl GoTrueError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            weak_password: None,
        }
    }

    /// As the client reads it behind the `#` of the page a link leads to.
    pub(super) fn in_fragment(self) -> Vec<(&'static str, String)> {
        let error = if self.status.is_server_error() {
            "server_error"
        } else {
            "access_denied"
        };
        vec![
            ("error", error.to_owned()),
            ("error_code", self.code.to_owned()),
            ("error_description", self.message),
        ]
    }

    fn unprocessable(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub(super) fn weak_password() -> Self {
        Self {
            weak_password: Some(WeakPassword {
                reasons: &["length"],
            }),
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "weak_password",
                format!("Password should be at least {MIN_CHARS} characters."),
            )
        }
    }

    pub(super) fn otp_expired() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "otp_expired",
            "The link or code is invalid or has expired",
        )
    }

    pub(super) fn phone_disabled() -> Self {
        Self::unprocessable("phone_provider_disabled", "Phone logins are disabled")
    }

    pub(super) fn mail_disabled() -> Self {
        Self::unprocessable(
            "email_provider_disabled",
            "This server sends no mails: its operator has set no SMTP_URL and MAIL_FROM",
        )
    }

    pub(super) fn email_exists() -> Self {
        Self::unprocessable(
            "email_exists",
            "A user with this email address has already been registered",
        )
    }

    pub(super) fn too_many() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "over_request_rate_limit",
            "Request rate limit reached",
        )
    }

    pub(super) fn too_many_mails() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "over_email_send_rate_limit",
            "Email rate limit exceeded",
        )
    }

    pub(super) fn no_authorization() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "no_authorization",
            "This endpoint requires a valid Bearer token",
        )
    }

    pub(super) fn bad_jwt(message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "bad_jwt", message)
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
            weak_password: self.weak_password,
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
            SignInError::TooManyAttempts => Self::too_many(),
            SignInError::Org(error) => error.into(),
            SignInError::Database(error) => error.into(),
            SignInError::Password(_) | SignInError::Issue(_) => {
                tracing::error!(%error, "signing in failed inside");
                Self::try_again()
            }
        }
    }
}

impl From<PasswordError> for GoTrueError {
    fn from(error: PasswordError) -> Self {
        SignInError::from(error).into()
    }
}

impl From<AcceptError> for GoTrueError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Invalid => Self::otp_expired(),
            AcceptError::HasAccount => Self::unprocessable(
                "user_already_exists",
                "There is an account with this address: join with its password",
            ),
            AcceptError::Database(error) => error.into(),
        }
    }
}

impl From<EmailChangeError> for GoTrueError {
    fn from(error: EmailChangeError) -> Self {
        match error {
            EmailChangeError::Outdated => Self::otp_expired(),
            EmailChangeError::Taken => Self::email_exists(),
            EmailChangeError::Database(error) => error.into(),
        }
    }
}

impl From<InviteError> for GoTrueError {
    fn from(error: InviteError) -> Self {
        match error {
            InviteError::Member | InviteError::Open => {
                Self::unprocessable("email_exists", &error.to_string())
            }
            InviteError::UnknownChannel => Self::invalid(format!("data.channel_ids: {error}")),
            InviteError::TooMany(_) => Self::too_many_mails(),
            InviteError::NotFound => Self::invalid(error.to_string()),
            InviteError::Database(error) => error.into(),
        }
    }
}
