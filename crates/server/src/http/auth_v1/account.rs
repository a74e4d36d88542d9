//! `PUT /auth/v1/user`: what people may change about their own account.

use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wasel_db::identity::{self, AboutUser, EndSessions, PasswordHash, User};
use wasel_db::one_time_tokens::{self, Kind};
use wasel_domain::UserId;

use super::views::{ErrorView, GoTrueError, UserView};
use super::{RedirectQuery, TAG, about, claims_of, live_user, parse};
use crate::auth::{
    AuthContext, Claims, ClientIp, ThrottleKey, password, recovery, sign_in, user_metadata,
};

#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateUserRequest {
    /// 8 to 1000 characters. Ends the person's other sessions.
    password: Option<String>,
    /// Checked where it is sent along.
    current_password: Option<String>,
    /// The person's new address; theirs once they have confirmed it by the mail sent there.
    email: Option<String>,
    /// Merged into `user_metadata`; `null` removes a key.
    data: Option<Map<String, Value>>,
    /// Not possible here.
    phone: Option<String>,
    /// Refused: nobody sets their own rights.
    #[schema(value_type = Option<Object>)]
    app_metadata: Option<Value>,
}

/// Change the signed-in user
///
/// `password` ends all other sessions. `email` is mailed a link and a code first.
#[utoipa::path(
    put, path = "/auth/v1/user", tag = TAG, operation_id = "auth_update_user",
    params(("redirect_to" = Option<String>, Query, description = "Where the link in the mail leads")),
    request_body = UpdateUserRequest,
    responses(
        (status = 200, body = UserView),
        (status = 400, body = ErrorView, description = "`validation_failed`, `bad_json`, `invalid_credentials`"),
        (status = 401, body = ErrorView, description = "`no_authorization`"),
        (status = 403, body = ErrorView, description = "`bad_jwt`, `user_not_found`, `session_not_found`, `not_admin`"),
        (status = 422, body = ErrorView, description = "`weak_password`, `same_password`, `email_exists`, `email_provider_disabled`, `phone_provider_disabled`"),
        (status = 429, body = ErrorView, description = "`over_email_send_rate_limit`, `over_request_rate_limit`"),
        (status = 503, body = ErrorView),
    ),
)]
pub(super) async fn update_user(
    State(auth): State<AuthContext>,
    query: Result<Query<RedirectQuery>, QueryRejection>,
    ip: ClientIp,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<UserView>, GoTrueError> {
    let claims = claims_of(&auth, &headers).await?;
    let request: UpdateUserRequest = parse(body)?;
    let redirect_to = query.ok().and_then(|Query(query)| query.redirect_to);
    if request.app_metadata.is_some_and(|value| !value.is_null()) {
        return Err(GoTrueError::new(
            StatusCode::FORBIDDEN,
            "not_admin",
            "app_metadata is not the user's to set",
        ));
    }
    if request.phone.is_some_and(|phone| !phone.is_empty()) {
        return Err(GoTrueError::phone_disabled());
    }
    let user = live_user(&auth, &claims).await?;
    let about = match request.data {
        Some(patch) => {
            let now = match user_metadata(&user) {
                Value::Object(now) => now,
                _ => Map::new(),
            };
            Some(about::merged(now, patch)?)
        }
        None => None,
    };
    let email = match request.email.filter(|email| !email.trim().is_empty()) {
        Some(email) => new_email(&auth, &user, &email).await?,
        None => None,
    };
    let new_password = match &request.password {
        Some(new) => {
            let current = request.current_password.as_deref();
            Some(checked_password(&auth, &user, new, current, ip).await?)
        }
        None => None,
    };
    if let Some(email) = &email {
        let now = Instant::now();
        let throttles = &auth.throttles;
        if !throttles.mails.begin(&ThrottleKey::of_address(email), now)
            || !throttles
                .mail_networks
                .begin(&ThrottleKey::of_network(ip), now)
        {
            return Err(GoTrueError::too_many_mails());
        }
    }
    store(&auth, &claims, about.as_ref(), new_password.as_ref()).await?;
    if let Some(email) = email {
        recovery::send_email_change(&auth, &user, &email, redirect_to.as_deref()).await?;
    }
    let user = live_user(&auth, &claims).await?;
    Ok(Json(UserView::new(user, claims.org_id)))
}

async fn store(
    auth: &AuthContext,
    claims: &Claims,
    about: Option<&AboutUser>,
    new_password: Option<&PasswordHash>,
) -> Result<(), GoTrueError> {
    let id = claims.sub;
    let mut tx = auth.db.system().await?;
    if let Some(about) = about {
        identity::update_about(&mut tx, id, about).await?;
    }
    let mut orgs = Vec::new();
    if let Some(hash) = new_password {
        identity::update_password(&mut tx, id, hash).await?;
        let others = claims
            .session_id
            .map_or(EndSessions::All, EndSessions::AllBut);
        identity::end_sessions(&mut tx, id, others).await?;
        // A link in an old mail opens nothing any more.
        one_time_tokens::delete_of_user(&mut tx, id, Kind::Recovery).await?;
        orgs = auth.orgs_of(&mut tx, id).await?;
    }
    tx.commit().await?;
    if new_password.is_some() {
        auth.people_changed(id, &orgs);
    }
    Ok(())
}

/// The address they want, if it is another than they have.
async fn new_email(
    auth: &AuthContext,
    user: &User,
    asked: &str,
) -> Result<Option<String>, GoTrueError> {
    let email = super::address(asked)?;
    if email == user.email.to_lowercase() {
        return Ok(None);
    }
    if !auth.mailer.is_on() {
        return Err(GoTrueError::mail_disabled());
    }
    let mut tx = auth.db.system().await?;
    let holder = identity::find_user_by_email(&mut tx, &email).await?;
    tx.commit().await?;
    if holder.is_some() {
        return Err(GoTrueError::email_exists());
    }
    Ok(Some(email))
}

/// The hash of a password that may take the place of the one there is.
async fn checked_password(
    auth: &AuthContext,
    user: &User,
    new: &str,
    current: Option<&str>,
    ip: ClientIp,
) -> Result<PasswordHash, GoTrueError> {
    super::check_password(new)?;
    if let Some(current) = current {
        let proved = sign_in::prove_password(auth, &user.email, current, ip).await?;
        if UserId(proved.id) != UserId(user.id) {
            return Err(sign_in::SignInError::InvalidCredentials.into());
        }
    }
    if password::verify(new, Some(&user.password_hash)).await? {
        return Err(GoTrueError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "same_password",
            "New password should be different from the old password",
        ));
    }
    Ok(password::hash(new).await?)
}
