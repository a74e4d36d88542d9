//! What sends a mail to somebody who is not signed in, and the ways in that are not offered.

use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::views::{ErrorView, GoTrueError};
use super::{RedirectQuery, TAG, parse};
use crate::auth::{AuthContext, ClientIp, recovery};

/// What is answered whoever the address belongs to.
type Promise = Json<Map<String, Value>>;

#[derive(Deserialize, ToSchema)]
pub(super) struct RecoverRequest {
    email: Option<String>,
}

/// Mail a link and a code to somebody who forgot their password
///
/// The answer is the same whether or not there is such a person.
#[utoipa::path(
    post, path = "/auth/v1/recover", tag = TAG, operation_id = "auth_recover",
    params(("redirect_to" = Option<String>, Query, description = "Where the link leads, with a session")),
    request_body = RecoverRequest,
    responses(
        (status = 200, body = Value),
        (status = 400, body = ErrorView, description = "`validation_failed`, `bad_json`"),
        (status = 422, body = ErrorView, description = "`email_provider_disabled`: this server sends no mails"),
        (status = 429, body = ErrorView, description = "`over_email_send_rate_limit`"),
    ),
)]
pub(super) async fn recover(
    State(auth): State<AuthContext>,
    query: Result<Query<RedirectQuery>, QueryRejection>,
    ip: ClientIp,
    body: Result<Bytes, BytesRejection>,
) -> Result<Promise, GoTrueError> {
    let request: RecoverRequest = parse(body)?;
    let email = mailable(&auth, request.email.as_deref(), ip)?;
    let redirect_to = query.ok().and_then(|Query(query)| query.redirect_to);
    // Beside the answer: how long it takes would tell whether there is such a person.
    tokio::spawn(async move {
        let sent = recovery::send_recovery(&auth, &email, redirect_to.as_deref()).await;
        if let Err(error) = sent {
            tracing::error!(%error, "a recovery could not be prepared");
        }
    });
    Ok(Promise::default())
}

#[derive(Deserialize, ToSchema)]
pub(super) struct ResendRequest {
    /// `email_change`.
    r#type: Option<String>,
    /// The address the person has now.
    email: Option<String>,
}

/// Send a mail again
#[utoipa::path(
    post, path = "/auth/v1/resend", tag = TAG, operation_id = "auth_resend",
    params(("redirect_to" = Option<String>, Query, description = "Where the link leads")),
    request_body = ResendRequest,
    responses(
        (status = 200, body = Value),
        (status = 400, body = ErrorView, description = "`validation_failed`: nothing else can be sent again"),
        (status = 422, body = ErrorView, description = "`email_provider_disabled`"),
        (status = 429, body = ErrorView, description = "`over_email_send_rate_limit`"),
    ),
)]
pub(super) async fn resend(
    State(auth): State<AuthContext>,
    query: Result<Query<RedirectQuery>, QueryRejection>,
    ip: ClientIp,
    body: Result<Bytes, BytesRejection>,
) -> Result<Promise, GoTrueError> {
    let request: ResendRequest = parse(body)?;
    match request.r#type.as_deref() {
        Some("email_change") => {}
        Some("signup") => {
            return Err(GoTrueError::invalid(
                "There is nothing to confirm: people join by invitation, which its sender can send again",
            ));
        }
        _ => return Err(GoTrueError::invalid("type must be email_change")),
    }
    let email = mailable(&auth, request.email.as_deref(), ip)?;
    let redirect_to = query.ok().and_then(|Query(query)| query.redirect_to);
    tokio::spawn(async move {
        let sent = recovery::resend_email_change(&auth, &email, redirect_to.as_deref()).await;
        if let Err(error) = sent {
            tracing::error!(%error, "a change of address could not be prepared");
        }
    });
    Ok(Promise::default())
}

/// An address that may be mailed to now; counts it.
fn mailable(auth: &AuthContext, email: Option<&str>, ip: ClientIp) -> Result<String, GoTrueError> {
    let email = super::address(email.unwrap_or_default())?;
    if !auth.mailer.is_on() {
        return Err(GoTrueError::mail_disabled());
    }
    if auth.throttles.begin_mails(&[&email], ip, Instant::now()) {
        Ok(email)
    } else {
        Err(GoTrueError::too_many_mails())
    }
}

/// Not offered: signing in by mail
#[utoipa::path(
    post, path = "/auth/v1/otp", tag = TAG, operation_id = "auth_otp",
    responses((status = 422, body = ErrorView, description = "`otp_disabled`")),
)]
pub(super) async fn otp() -> GoTrueError {
    no_otp()
}

/// Not offered: signing in by mail
#[utoipa::path(
    post, path = "/auth/v1/magiclink", tag = TAG, operation_id = "auth_magiclink",
    responses((status = 422, body = ErrorView, description = "`otp_disabled`")),
)]
pub(super) async fn magiclink() -> GoTrueError {
    no_otp()
}

fn no_otp() -> GoTrueError {
    GoTrueError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "otp_disabled",
        "Signing in by a mailed link or code is not offered: use the password, or /recover",
    )
}

/// Not offered: signing in by another provider
#[utoipa::path(
    get, path = "/auth/v1/authorize", tag = TAG, operation_id = "auth_authorize",
    responses((status = 400, body = ErrorView, description = "`validation_failed`")),
)]
pub(super) async fn authorize() -> GoTrueError {
    GoTrueError::invalid("Unsupported provider: provider is not enabled")
}
