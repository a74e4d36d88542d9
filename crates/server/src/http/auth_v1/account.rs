//! `PUT /auth/v1/user`: what people may change about their own account.

use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use chrono::{TimeDelta, Utc};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wasel_db::identity::{self, AboutUser, EndSessions, PasswordHash, Session, User};
use wasel_domain::UserId;

use super::views::{ErrorView, GoTrueError, UserView};
use super::{Hold, RedirectQuery, TAG, about, claims_of, live, parse};
use crate::auth::{
    AuthContext, Claims, ClientIp, SignInMethod, password, recovery, sign_in, user_metadata,
};

/// For so long after giving their password people need not give it again.
const FRESH: TimeDelta = TimeDelta::minutes(10);

#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateUserRequest {
    /// 8 to 1000 characters. Ends the person's other sessions.
    password: Option<String>,
    /// Checked where it is sent along. Needed for a new address, unless they signed in with it within ten minutes.
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
/// `password` ends all other sessions, and a change of address that was not confirmed. `email` is mailed a link and a code
/// first; the address before is told, then and when it is confirmed, which ends all other sessions.
#[utoipa::path(
    put, path = "/auth/v1/user", tag = TAG, operation_id = "auth_update_user",
    params(("redirect_to" = Option<String>, Query, description = "Where the link in the mail leads")),
    request_body = UpdateUserRequest,
    responses(
        (status = 200, body = UserView),
        (status = 400, body = ErrorView, description = "`validation_failed`, `bad_json`, `invalid_credentials`, `reauthentication_needed`"),
        (status = 401, body = ErrorView, description = "`no_authorization`"),
        (status = 403, body = ErrorView, description = "`bad_jwt`, `user_not_found`, `session_not_found`, `not_admin`"),
        (status = 422, body = ErrorView, description = "`weak_password`, `same_password`, `email_exists`, `email_not_confirmed`, `email_provider_disabled`, `phone_provider_disabled`"),
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
    let mut tx = auth.db.system().await?;
    let (user, own_session) = live(&mut tx, &claims, Hold::No).await?;
    tx.commit().await?;
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
    let asked_email = request.email.filter(|email| !email.trim().is_empty());
    if let Some(new) = &request.password {
        super::check_password(new)?;
    }
    let is_proved = match &request.current_password {
        Some(current) if request.password.is_some() || asked_email.is_some() => {
            prove(&auth, &user, current, ip).await?;
            true
        }
        _ => own_session.as_ref().is_some_and(is_fresh),
    };
    let email = match asked_email {
        Some(email) => new_email(&auth, &user, &email, is_proved).await?,
        None => None,
    };
    let new_password = match &request.password {
        Some(new) => Some(hash_of_new(&user, new).await?),
        None => None,
    };
    if let Some(email) = &email {
        let addresses = [user.email.as_str(), email.as_str()];
        if !auth.throttles.begin_mails(&addresses, ip, Instant::now()) {
            return Err(GoTrueError::too_many_mails());
        }
    }
    let changes = Changes {
        about,
        password: new_password,
        email,
        redirect_to,
    };
    let user = store(&auth, &claims, &changes).await?;
    Ok(Json(UserView::new(user, claims.org_id)))
}

/// What is to be stored, checked.
struct Changes {
    about: Option<AboutUser>,
    password: Option<PasswordHash>,
    email: Option<String>,
    redirect_to: Option<String>,
}

/// Stores all of it or nothing, then mails. Returns the person as they are then.
async fn store(
    auth: &AuthContext,
    claims: &Claims,
    changes: &Changes,
) -> Result<User, GoTrueError> {
    let id = claims.sub;
    let mut tx = auth.db.system().await?;
    // Whoever takes the account back meanwhile has ended this session by now, or waits and undoes what is stored here.
    let (user, _) = live(&mut tx, claims, Hold::Yes).await?;
    if let Some(about) = &changes.about {
        identity::update_about(&mut tx, id, about).await?;
    }
    let mut orgs = Vec::new();
    if let Some(hash) = &changes.password {
        identity::update_password(&mut tx, id, hash).await?;
        let others = claims
            .session_id
            .map_or(EndSessions::All, EndSessions::AllBut);
        identity::end_sessions(&mut tx, id, others).await?;
        orgs = auth.orgs_of(&mut tx, id).await?;
    }
    let mails = match &changes.email {
        Some(email) => {
            let redirect_to = changes.redirect_to.as_deref();
            Some(recovery::ask_email_change(auth, &mut tx, &user, email, redirect_to).await?)
        }
        None => None,
    };
    let (user, _) = live(&mut tx, claims, Hold::Yes).await?;
    tx.commit().await?;
    if changes.password.is_some() {
        auth.people_changed(id, &orgs);
    }
    if let Some(mails) = mails {
        mails.post(auth);
    }
    Ok(user)
}

fn is_fresh(session: &Session) -> bool {
    session.method == SignInMethod::Password && Utc::now() - session.created_at < FRESH
}

/// The address they want, if it is another than they have. `is_proved`: they have shown just now that they know the
/// password, so that a session somebody left open does not become somebody else's account.
async fn new_email(
    auth: &AuthContext,
    user: &User,
    asked: &str,
    is_proved: bool,
) -> Result<Option<String>, GoTrueError> {
    let email = super::address(asked)?;
    if email == user.email.to_lowercase() {
        return Ok(None);
    }
    if !auth.mailer.is_on() {
        return Err(GoTrueError::mail_disabled());
    }
    if user.email_confirmed_at.is_none() {
        return Err(GoTrueError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "email_not_confirmed",
            "Nobody has shown yet that the present address is theirs: use a mailed link first, such as /recover sends",
        ));
    }
    if !is_proved {
        return Err(GoTrueError::new(
            StatusCode::BAD_REQUEST,
            "reauthentication_needed",
            "A new address needs current_password, or a sign-in with the password within ten minutes",
        ));
    }
    let mut tx = auth.db.system().await?;
    let holder = identity::find_user_by_email(&mut tx, &email).await?;
    tx.commit().await?;
    if holder.is_some() {
        return Err(GoTrueError::email_exists());
    }
    Ok(Some(email))
}

async fn prove(
    auth: &AuthContext,
    user: &User,
    current: &str,
    ip: ClientIp,
) -> Result<(), GoTrueError> {
    let proved = sign_in::prove_password(auth, &user.email, current, ip).await?;
    if UserId(proved.id) != UserId(user.id) {
        return Err(sign_in::SignInError::InvalidCredentials.into());
    }
    Ok(())
}

/// The hash of a password that may take the place of the one there is.
async fn hash_of_new(user: &User, new: &str) -> Result<PasswordHash, GoTrueError> {
    if password::verify(new, Some(&user.password_hash)).await? {
        return Err(GoTrueError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "same_password",
            "New password should be different from the old password",
        ));
    }
    Ok(password::hash(new).await?)
}
