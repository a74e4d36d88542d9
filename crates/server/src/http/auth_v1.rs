//! `/auth/v1`: the built-in identity, in the words of Supabase Auth (GoTrue), so that `supabase.auth` signs in here.
//!
//! Errors are `{code, message}` with the header `x-supabase-api-version`, without which the client reads older names.
//! A 4xx to a refresh signs the user out for good, and so does a 500; whatever is not the token's fault answers 503,
//! which the client tries again.

mod about;
mod account;
mod invite;
mod mails;
mod sign_up;
mod verify;
mod views;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRef, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::SystemTx;
use wasel_db::identity::{self, EndSessions, Session, User};

use self::views::{ErrorView, GoTrueError, SessionView, UserView};
use crate::auth::password::{MAX_CHARS, MIN_CHARS};
use crate::auth::sign_in::{self, Grant};
use crate::auth::{AuthContext, Claims, ClientIp, TokenError, Verified, bearer, requested_org};

const TAG: &str = "auth";

/// All routes of this surface.
pub fn router<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    AuthContext: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(token))
        .routes(routes!(user, account::update_user))
        .routes(routes!(logout))
        .routes(routes!(sign_up::signup))
        .routes(routes!(verify::page, verify::verify))
        .routes(routes!(mails::recover))
        .routes(routes!(mails::resend))
        .routes(routes!(mails::otp))
        .routes(routes!(mails::magiclink))
        .routes(routes!(mails::authorize))
        .routes(routes!(invite::invite))
        .routes(routes!(jwks))
        .routes(routes!(settings))
        .routes(routes!(health))
}

#[derive(Deserialize)]
struct TokenQuery {
    grant_type: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct TokenRequest {
    /// For `grant_type=password`.
    email: Option<String>,
    /// Not possible here; answered with `phone_provider_disabled`.
    phone: Option<String>,
    /// For `grant_type=password`.
    password: Option<String>,
    /// For `grant_type=refresh_token`.
    refresh_token: Option<String>,
}

/// Sign in, or renew a session
///
/// `grant_type=password` takes `email` and `password`; `grant_type=refresh_token` takes `refresh_token`. A person with
/// several organizations names the one for the token in `X-Org-Id`.
#[utoipa::path(
    post, path = "/auth/v1/token", tag = TAG, operation_id = "auth_token",
    params(
        ("grant_type" = String, Query, description = "`password` or `refresh_token`"),
        ("X-Org-Id" = Option<Uuid>, Header, description = "The organization to sign in to"),
    ),
    request_body = TokenRequest,
    responses(
        (status = 200, body = SessionView),
        (status = 400, body = ErrorView, description = "`invalid_credentials`, `refresh_token_not_found`, `refresh_token_already_used`, `validation_failed`, `bad_json`"),
        (status = 429, body = ErrorView, description = "`over_request_rate_limit`"),
        (status = 503, body = ErrorView),
    ),
)]
async fn token(
    State(auth): State<AuthContext>,
    query: Result<Query<TokenQuery>, QueryRejection>,
    ip: ClientIp,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, GoTrueError> {
    let grant_type = query.ok().and_then(|Query(query)| query.grant_type);
    let grant = match grant_type.as_deref() {
        Some("password") => password_grant(&auth, &headers, ip, parse(body)?).await?,
        Some("refresh_token") => {
            let request: TokenRequest = parse(body)?;
            let token = request.refresh_token.filter(|token| !token.is_empty());
            let token = token.ok_or_else(|| GoTrueError::invalid("refresh_token required"))?;
            sign_in::with_refresh_token(&auth, &token).await?
        }
        _ => {
            return Err(GoTrueError::invalid(
                "grant_type must be password or refresh_token",
            ));
        }
    };
    Ok(session(SessionView::from(grant)))
}

/// The answer to everything that signs somebody in.
fn session(view: SessionView) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(view)).into_response()
}

/// The answer on a path of this surface that does not exist.
pub(super) fn refusal(status: StatusCode, code: &'static str, message: &str) -> Response {
    GoTrueError::new(status, code, message).into_response()
}

#[derive(Deserialize)]
struct RedirectQuery {
    redirect_to: Option<String>,
}

/// An address in the one spelling it is compared in.
fn address(text: &str) -> Result<String, GoTrueError> {
    wasel_domain::email::parse(text)
        .map_err(|_| GoTrueError::invalid("Unable to validate email address: invalid format"))
}

/// Whether somebody may choose this password.
fn check_password(password: &str) -> Result<(), GoTrueError> {
    let length = password.chars().count();
    if length > MAX_CHARS {
        return Err(GoTrueError::invalid(format!(
            "Password may have {MAX_CHARS} characters"
        )));
    }
    if length < MIN_CHARS {
        return Err(GoTrueError::weak_password());
    }
    Ok(())
}

async fn password_grant(
    auth: &AuthContext,
    headers: &HeaderMap,
    ip: ClientIp,
    request: TokenRequest,
) -> Result<Grant, GoTrueError> {
    let Some(email) = request.email.filter(|email| !email.trim().is_empty()) else {
        if request.phone.is_some() {
            return Err(GoTrueError::phone_disabled());
        }
        return Err(GoTrueError::invalid("missing email or phone"));
    };
    let password = request.password.unwrap_or_default();
    let org = requested_org(headers)?;
    Ok(sign_in::with_password(auth, &email, &password, org, ip).await?)
}

fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, GoTrueError> {
    let body =
        body.map_err(|error| GoTrueError::new(error.status(), "bad_json", error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| {
        // By kind and place only: serde's own words would repeat the body, password and all.
        let message = format!(
            "Could not parse request body as JSON: line {}, column {}",
            error.line(),
            error.column()
        );
        GoTrueError::new(StatusCode::BAD_REQUEST, "bad_json", message)
    })
}

/// The signed-in user
#[utoipa::path(
    get, path = "/auth/v1/user", tag = TAG, operation_id = "auth_user",
    responses(
        (status = 200, body = UserView),
        (status = 401, body = ErrorView, description = "`no_authorization`"),
        (status = 403, body = ErrorView, description = "`bad_jwt`, `user_not_found`, `session_not_found`"),
        (status = 503, body = ErrorView),
    ),
)]
async fn user(
    State(auth): State<AuthContext>,
    headers: HeaderMap,
) -> Result<Json<UserView>, GoTrueError> {
    let claims = claims_of(&auth, &headers).await?;
    let mut tx = auth.db.system().await?;
    let (user, _) = live(&mut tx, &claims, Hold::No).await?;
    tx.commit().await?;
    Ok(Json(UserView::new(user, claims.org_id)))
}

/// Whether to keep others from changing a person until the transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    Yes,
}

/// The person of a token, while neither they nor their session has ended; with the session, if it is one of ours.
async fn live(
    tx: &mut SystemTx,
    claims: &Claims,
    hold: Hold,
) -> Result<(User, Option<Session>), GoTrueError> {
    let forbidden = |code, message: &str| GoTrueError::new(StatusCode::FORBIDDEN, code, message);
    let user = match hold {
        Hold::No => identity::find_user(tx, claims.sub).await?,
        Hold::Yes => identity::lock_user(tx, claims.sub).await?,
    };
    let user = user.ok_or_else(|| {
        forbidden(
            "user_not_found",
            "User from sub claim in JWT does not exist",
        )
    })?;
    let Some(id) = claims.session_id.filter(|_| claims.is_ours) else {
        return Ok((user, None));
    };
    let session = identity::find_live_session(tx, id)
        .await?
        .filter(|session| session.user_id == user.id)
        .ok_or_else(|| {
            forbidden(
                "session_not_found",
                "Session from session_id claim in JWT does not exist",
            )
        })?;
    Ok((user, Some(session)))
}

#[derive(Deserialize)]
struct LogoutQuery {
    scope: Option<String>,
}

/// Sign out
///
/// Ends sessions: their refresh tokens work no more, and their access tokens are refused within seconds.
#[utoipa::path(
    post, path = "/auth/v1/logout", tag = TAG, operation_id = "auth_logout",
    params(("scope" = Option<String>, Query, description = "`global` (default): everywhere; `local`: here; `others`: everywhere else")),
    responses(
        (status = 204),
        (status = 400, body = ErrorView, description = "`validation_failed`"),
        (status = 401, body = ErrorView, description = "`no_authorization`"),
        (status = 403, body = ErrorView, description = "`bad_jwt`"),
        (status = 503, body = ErrorView),
    ),
)]
async fn logout(
    State(auth): State<AuthContext>,
    query: Result<Query<LogoutQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, GoTrueError> {
    let claims = claims_of(&auth, &headers).await?;
    let Query(query) = query.map_err(|error| GoTrueError::invalid(error.body_text()))?;
    let which = match (
        query.scope.as_deref().unwrap_or("global"),
        claims.session_id,
    ) {
        ("global", _) => EndSessions::All,
        ("local", Some(session)) => EndSessions::Only(session),
        ("others", Some(session)) => EndSessions::AllBut(session),
        ("local" | "others", None) => {
            return Err(GoTrueError::invalid("The token belongs to no session"));
        }
        _ => {
            return Err(GoTrueError::invalid(
                "scope must be global, local or others",
            ));
        }
    };
    let mut tx = auth.db.system().await?;
    identity::end_sessions(&mut tx, claims.sub, which).await?;
    let mut orgs = auth.orgs_of(&mut tx, claims.sub).await?;
    tx.commit().await?;
    // A super-admin may be at work in a tenant they are no member of.
    orgs.extend(claims.org_id.filter(|org| !orgs.contains(org)));
    auth.people_changed(claims.sub, &orgs);
    Ok(StatusCode::NO_CONTENT)
}

/// Public keys
///
/// Tokens are signed with HS256, so there are none; clients then ask `/auth/v1/user`.
#[utoipa::path(
    get, path = "/auth/v1/.well-known/jwks.json", tag = TAG, operation_id = "auth_jwks",
    responses((status = 200, body = Value)),
)]
async fn jwks() -> Json<Value> {
    Json(json!({ "keys": [] }))
}

/// What signing in is possible
#[utoipa::path(
    get, path = "/auth/v1/settings", tag = TAG, operation_id = "auth_settings",
    responses((status = 200, body = Value)),
)]
async fn settings() -> Json<Value> {
    Json(json!({
        "external": { "email": true, "phone": false, "anonymous_users": false },
        "disable_signup": true,
        "mailer_autoconfirm": true,
        "phone_autoconfirm": false,
        "sms_provider": "",
        "saml_enabled": false,
        "mfa_enabled": false,
    }))
}

/// The service is up
#[utoipa::path(
    get, path = "/auth/v1/health", tag = TAG, operation_id = "auth_health",
    responses((status = 200, body = Value)),
)]
async fn health() -> Json<Value> {
    Json(json!({
        "name": "wasel",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Wasel's built-in identity, in the dialect of Supabase Auth",
    }))
}

async fn claims_of(auth: &AuthContext, headers: &HeaderMap) -> Result<Claims, GoTrueError> {
    let token = bearer(headers).ok_or_else(GoTrueError::no_authorization)?;
    let bad = GoTrueError::bad_jwt;
    match auth.tokens.verify(token).await {
        Ok(Verified::User(claims)) => Ok(claims),
        Ok(Verified::Anonymous | Verified::Service) => {
            Err(bad("invalid claim: missing sub claim".to_owned()))
        }
        Err(TokenError::KeysUnavailable) => Err(GoTrueError::try_again()),
        Err(error) => Err(bad(format!("invalid JWT: {error}"))),
    }
}

#[cfg(test)]
#[path = "auth_v1_tests.rs"]
mod tests;
