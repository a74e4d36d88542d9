//! `POST /auth/v1/signup`: joining by an invitation. Nobody signs up otherwise.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wasel_domain::UserId;

use super::views::{ErrorView, GoTrueError, SessionView};
use super::{TAG, about, parse, session};
use crate::auth::invitations::{self, AcceptError, NewAccount, Proof};
use crate::auth::sign_in::{self, Grant, SignInError};
use crate::auth::{AuthContext, ClientIp, SignInMethod, ThrottleKey, password};

#[derive(Deserialize, ToSchema)]
pub(super) struct SignUpRequest {
    email: Option<String>,
    /// 8 to 1000 characters; of somebody who has an account already, theirs.
    password: Option<String>,
    /// `invitation`: the token of the invitation's link. The rest becomes `user_metadata` of a new account.
    data: Option<Map<String, Value>>,
}

/// Join by an invitation
///
/// `data.invitation` is the token of the link. Somebody who has an account already joins with its password.
#[utoipa::path(
    post, path = "/auth/v1/signup", tag = TAG, operation_id = "auth_signup",
    request_body = SignUpRequest,
    responses(
        (status = 200, body = SessionView),
        (status = 400, body = ErrorView, description = "`validation_failed`, `bad_json`"),
        (status = 403, body = ErrorView, description = "`otp_expired`: the invitation is not for this address, was used, or has expired"),
        (status = 422, body = ErrorView, description = "`signup_disabled` without an invitation, `weak_password`, `user_already_exists` with another password"),
        (status = 429, body = ErrorView, description = "`over_request_rate_limit`"),
        (status = 503, body = ErrorView),
    ),
)]
pub(super) async fn signup(
    State(auth): State<AuthContext>,
    ip: ClientIp,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, GoTrueError> {
    let request: SignUpRequest = parse(body)?;
    let mut data = request.data.unwrap_or_default();
    let Some(Value::String(token)) = data.remove("invitation") else {
        return Err(GoTrueError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "signup_disabled",
            "Signups not allowed for this instance",
        ));
    };
    let key = ThrottleKey::of_network(ip);
    if !auth.throttles.sign_ups.begin(&key, Instant::now()) {
        return Err(GoTrueError::too_many());
    }
    let email = super::address(request.email.as_deref().unwrap_or_default())?;
    let password = request.password.unwrap_or_default();
    let grant = join(&auth, &token, &email, &password, data, ip).await?;
    auth.throttles.sign_ups.refund(&key);
    Ok(session(SessionView::from(grant)))
}

async fn join(
    auth: &AuthContext,
    token: &str,
    email: &str,
    password: &str,
    data: Map<String, Value>,
    ip: ClientIp,
) -> Result<Grant, GoTrueError> {
    let (invitation, existing) = invitations::look_up(auth, token).await?;
    if invitation.email.to_lowercase() != email {
        return Err(AcceptError::Invalid.into());
    }
    let (proof, hash) = match existing {
        Some(user) => {
            match sign_in::prove_password(auth, email, password, ip).await {
                Ok(_) => {}
                Err(SignInError::InvalidCredentials) => return Err(AcceptError::HasAccount.into()),
                Err(error) => return Err(error.into()),
            }
            (Proof::Password(UserId(user.id)), user.password_hash)
        }
        None => {
            super::check_password(password)?;
            (Proof::Link, password::hash(password).await?)
        }
    };
    let new = NewAccount {
        password_hash: hash,
        about: about::merged(Map::new(), data)?,
    };
    let mut tx = auth.db.system().await?;
    let hash = sign_in::hash_of(token);
    let (user, org) = invitations::accept(&mut tx, &hash, proof, new).await?;
    let method = SignInMethod::Password;
    let grant = sign_in::open_session(auth, &mut tx, user, Some(org), method).await?;
    let orgs = auth.orgs_of(&mut tx, user).await?;
    tx.commit().await?;
    auth.people_changed(user, &orgs);
    Ok(grant)
}
