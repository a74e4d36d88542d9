//! The caller of a request, resolved once and checked by every handler.

use std::fmt;

use axum::Json;
use axum::extract::{FromRef, FromRequestParts};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use uuid::Uuid;
use wasel_db::TenantClaims;
use wasel_domain::{ChannelId, OrgId, UserId};

use super::membership::Question;
use super::{AuthContext, TokenError, Verified};

const ORG_HEADER: &str = "x-org-id";

/// What a caller may do in a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Owner,
    Admin,
    Agent,
    Viewer,
    /// May act in any tenant, as its owner would.
    SuperAdmin,
    /// The operator's own servers; may do what an owner may.
    Service,
}

impl Role {
    /// As written in `profiles.role`; `None` for a word that is no role of a person.
    #[must_use]
    pub fn of_profile(word: &str) -> Option<Self> {
        [
            Self::Owner,
            Self::Admin,
            Self::Agent,
            Self::Viewer,
            Self::SuperAdmin,
        ]
        .into_iter()
        .find(|role| role.as_str() == word)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::SuperAdmin => "super_admin",
            Self::Service => "service",
        }
    }

    /// Whether somebody with this role may make others `role`: never more than they are themselves.
    #[must_use]
    pub fn may_give(self, role: Self) -> bool {
        match (self.in_policies(), role) {
            (_, Self::SuperAdmin | Self::Service) => false,
            (Self::Owner, _) => true,
            (Self::Admin, role) => role != Self::Owner,
            _ => false,
        }
    }

    /// The same role in the words of the database's policies, which know the four of a tenant.
    fn in_policies(self) -> Self {
        match self {
            Self::SuperAdmin | Self::Service => Self::Owner,
            other => other,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    User,
    Service,
}

/// Who calls, in which tenant, as what. An argument of a handler makes its route require all three.
#[derive(Clone, Debug)]
pub struct Caller {
    pub org_id: OrgId,
    /// `None` for the service-role key.
    pub user_id: Option<UserId>,
    pub role: Role,
    pub email: Option<String>,
    pub kind: CallerKind,
    /// The channels an agent is limited to; `None` means all.
    pub channel_limits: Option<Vec<Uuid>>,
    /// `None` for the service-role key.
    pub token_expires_at: Option<DateTime<Utc>>,
}

impl Caller {
    /// The server itself, at work for a tenant; for `user_id` where a person asked for it earlier, and was allowed to then.
    #[must_use]
    pub fn service(org_id: OrgId, user_id: Option<UserId>) -> Self {
        Self {
            org_id,
            user_id,
            role: Role::Service,
            email: None,
            kind: CallerKind::Service,
            channel_limits: None,
            token_expires_at: None,
        }
    }

    /// For [`wasel_db::Db::tenant`].
    #[must_use]
    pub fn claims(&self) -> TenantClaims {
        TenantClaims {
            org_id: self.org_id,
            user_id: self.user_id,
            role: self.role.in_policies().as_str().to_owned(),
        }
    }

    /// Whether the caller may see and use this channel of their tenant.
    #[must_use]
    pub fn may_use(&self, channel: ChannelId) -> bool {
        self.channel_limits
            .as_ref()
            .is_none_or(|limits| limits.contains(&channel.0))
    }

    /// 403 unless the caller has one of `roles`. A super-admin and the service-role key count as owner too.
    pub fn require(&self, roles: &[Role]) -> Result<(), AuthError> {
        if roles.contains(&self.role) || roles.contains(&self.role.in_policies()) {
            return Ok(());
        }
        let wanted: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        Err(AuthError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!(
                "This needs one of the roles {}; the caller is {}.",
                wanted.join(", "),
                self.role
            ),
        ))
    }
}

/// Why a caller is refused. Surfaces render it in their own shape; as a response it has that of `/v1`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AuthError {
    pub status: StatusCode,
    /// One of `unauthenticated`, `token_expired`, `token_invalid`, `invalid_header`, `org_required`, `not_a_member`,
    /// `forbidden`, `unavailable`, `internal`.
    pub code: &'static str,
    /// For people; safe to show.
    pub message: String,
    /// The header at fault.
    pub field: Option<&'static str>,
}

impl AuthError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
        }
    }

    fn about_org(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self {
            field: Some("X-Org-Id"),
            ..Self::new(status, code, message)
        }
    }

    pub(crate) fn org_required(message: &str) -> Self {
        Self::about_org(StatusCode::BAD_REQUEST, "org_required", message)
    }

    pub(crate) fn not_a_member(message: &str) -> Self {
        Self::about_org(StatusCode::FORBIDDEN, "not_a_member", message)
    }

    /// Signed out, or the person is gone.
    pub(crate) fn session_ended() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "token_invalid",
            "The session of this token has ended: sign in again.",
        )
    }

    fn unauthenticated(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }
}

impl From<TokenError> for AuthError {
    fn from(error: TokenError) -> Self {
        let (status, code) = match error {
            TokenError::Expired => (StatusCode::UNAUTHORIZED, "token_expired"),
            TokenError::KeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            TokenError::NotYetValid | TokenError::BadSignature | TokenError::Malformed(_) => {
                (StatusCode::UNAUTHORIZED, "token_invalid")
            }
        };
        Self::new(status, code, format!("Authorization: {error}."))
    }
}

impl From<wasel_db::Error> for AuthError {
    fn from(error: wasel_db::Error) -> Self {
        if error.is_unavailable() {
            tracing::warn!(%error, "authentication had to wait for the database");
            return Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The database is not available.",
            );
        }
        tracing::error!(%error, "authentication failed inside");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong on the server.",
        )
    }
}

impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(field) = self.field {
            error["field"] = json!(field);
        }
        let body = Json(json!({ "error": error }));
        if self.status == StatusCode::UNAUTHORIZED {
            return (self.status, [(WWW_AUTHENTICATE, "Bearer")], body).into_response();
        }
        (self.status, body).into_response()
    }
}

/// Who calls, before any tenant is considered. [`resolve`] refuses the anon key; a surface with something for anybody
/// need not.
pub async fn identify(auth: &AuthContext, headers: &HeaderMap) -> Result<Verified, AuthError> {
    Ok(auth.tokens.verify(credential(headers)?).await?)
}

/// Who calls, in which tenant, as what, by a request's headers.
pub async fn resolve(auth: &AuthContext, headers: &HeaderMap) -> Result<Caller, AuthError> {
    resolve_token(auth, credential(headers)?, requested_org(headers)?).await
}

/// The same for a token that came another way, such as through a socket. `requested` is the tenant asked for.
pub async fn resolve_token(
    auth: &AuthContext,
    token: &str,
    requested: Option<OrgId>,
) -> Result<Caller, AuthError> {
    let claims = match auth.tokens.verify(token).await? {
        Verified::Anonymous => {
            return Err(AuthError::unauthenticated(
                "The anon key signs nobody in: send a user's token.",
            ));
        }
        Verified::User(claims) => Some(claims),
        Verified::Service => None,
    };
    let question = Question {
        user: claims.as_ref().map(|claims| claims.sub),
        requested,
        claimed: claims.as_ref().and_then(|claims| claims.org_id),
        session: claims
            .as_ref()
            .filter(|claims| claims.is_ours)
            .and_then(|claims| claims.session_id),
    };
    let standing = auth.standings.find(&auth.db, question).await?;
    Ok(Caller {
        org_id: standing.org_id,
        user_id: question.user,
        role: standing.role,
        kind: if claims.is_some() {
            CallerKind::User
        } else {
            CallerKind::Service
        },
        channel_limits: standing.channel_limits,
        token_expires_at: claims.as_ref().map(|claims| claims.expires_at),
        email: claims.and_then(|claims| claims.email),
    })
}

/// The token: from `Authorization`, else from `apikey`, where Supabase clients put an opaque key for functions.
fn credential(headers: &HeaderMap) -> Result<&str, AuthError> {
    if headers.contains_key(AUTHORIZATION) {
        return bearer(headers).ok_or_else(|| {
            AuthError::unauthenticated("Authorization must be `Bearer` and a token.")
        });
    }
    let key = headers.get("apikey").and_then(|value| value.to_str().ok());
    key.ok_or_else(|| AuthError::unauthenticated("Send a token: `Authorization: Bearer …`."))
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .trim()
        .split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The tenant the request names.
pub(crate) fn requested_org(headers: &HeaderMap) -> Result<Option<OrgId>, AuthError> {
    let mut values = headers.get_all(ORG_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = || {
        AuthError::about_org(
            StatusCode::BAD_REQUEST,
            "invalid_header",
            "X-Org-Id must be one UUID.",
        )
    };
    if values.next().is_some() {
        return Err(malformed());
    }
    let text = value.to_str().map_err(|_| malformed())?;
    text.trim().parse().map(Some).map_err(|_| malformed())
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    AuthContext: FromRef<S>,
{
    type Rejection = AuthError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AuthError> {
        resolve(&AuthContext::from_ref(state), &parts.headers).await
    }
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;
