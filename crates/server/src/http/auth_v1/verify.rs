//! `/auth/v1/verify`: links and codes that are good once become a session.
//!
//! Mail programs and virus scanners open the links of a mail before its reader does. So a GET only shows a button, and
//! the link is used by what the button sends.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Response};
use http::header::{ACCEPT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;
use utoipa::{IntoParams, ToSchema};
use wasel_db::SystemTx;
use wasel_db::identity;
use wasel_db::one_time_tokens::{self, Kind, OneTimeToken};
use wasel_domain::UserId;

use super::views::{ErrorView, GoTrueError, SessionView};
use super::{TAG, parse, session};
use crate::auth::invitations::{self, NewAccount, Proof};
use crate::auth::sign_in::{self, Grant};
use crate::auth::{
    AuthContext, ClientIp, SignInMethod, ThrottleKey, Tongue, escape, password, recovery,
};

/// The page's rules for browsers. No `form-action`: it would also bind where the answer to the form leads.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LinkQuery {
    /// What the mail's link carries.
    token: Option<String>,
    /// `invite`, `recovery` or `email_change`.
    r#type: Option<String>,
    /// Where to go with the session: a page of this server or of `ALLOWED_ORIGINS`.
    redirect_to: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub(super) struct VerifyRequest {
    /// `invite`, `recovery` or `email_change`.
    r#type: Option<String>,
    /// What the mail's link carries.
    token_hash: Option<String>,
    /// The six digits of the mail, with `email`.
    token: Option<String>,
    email: Option<String>,
}

/// A mail's link
///
/// Shows a page with a button; the button's POST uses the link.
#[utoipa::path(
    get, path = "/auth/v1/verify", tag = TAG, operation_id = "auth_verify_page", params(LinkQuery),
    responses((status = 200, content_type = "text/html", description = "a page with a button")),
)]
pub(super) async fn page(
    query: Result<Query<LinkQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let kind = query.ok().and_then(|Query(query)| query.r#type);
    let language = headers
        .get(ACCEPT_LANGUAGE)
        .and_then(|value| value.to_str().ok())
        .map_or("", |languages| {
            languages.split([',', ';']).next().unwrap_or("").trim()
        });
    let (attributes, words, button) = match Tongue::of(language) {
        Tongue::Arabic => (
            "lang=\"ar\" dir=\"rtl\"",
            match kind.as_deref() {
                Some("invite") => "اضغط للمتابعة وقبول الدعوة.",
                Some("recovery") => "اضغط للمتابعة واختيار كلمة مرور جديدة.",
                _ => "اضغط للمتابعة.",
            },
            "متابعة",
        ),
        Tongue::English => (
            "lang=\"en\" dir=\"ltr\"",
            match kind.as_deref() {
                Some("invite") => "Continue to accept the invitation.",
                Some("recovery") => "Continue to choose a new password.",
                _ => "Continue to go on.",
            },
            "Continue",
        ),
    };
    // The form goes to this very address, with its query.
    let page = format!(
        "<!DOCTYPE html><html {attributes}><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <title>{button}</title><style>body{{font-family:sans-serif;text-align:center;margin:20vh 1rem}}\
         button{{font:inherit;padding:.6rem 2rem}}</style></head><body><p>{words}</p>\
         <form method=\"post\"><button>{button}</button></form></body></html>",
        words = escape(words),
    );
    ([(CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(page)).into_response()
}

/// Use a link or a code
///
/// JSON (`verifyOtp`) is answered with a session. The form of the link's page is answered with 303 to `redirect_to`,
/// with the session or the error behind `#`.
#[utoipa::path(
    post, path = "/auth/v1/verify", tag = TAG, operation_id = "auth_verify", params(LinkQuery),
    request_body = VerifyRequest,
    responses(
        (status = 200, body = SessionView),
        (status = 303, description = "to the form"),
        (status = 400, body = ErrorView, description = "`validation_failed`, `bad_json`"),
        (status = 403, body = ErrorView, description = "`otp_expired`: unknown, used or expired"),
        (status = 422, body = ErrorView, description = "`user_already_exists`, `email_exists`"),
        (status = 429, body = ErrorView, description = "`over_request_rate_limit`"),
        (status = 503, body = ErrorView),
    ),
)]
pub(super) async fn verify(
    State(auth): State<AuthContext>,
    query: Result<Query<LinkQuery>, QueryRejection>,
    ip: ClientIp,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, GoTrueError> {
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.trim_start().starts_with("application/json"));
    if !is_json {
        let query = query.map_err(|error| GoTrueError::invalid(error.body_text()))?;
        return Ok(submitted(&auth, query.0, ip).await);
    }
    let request: VerifyRequest = parse(body)?;
    let kind = kind_of(request.r#type.as_deref())?;
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let credential = match (given(request.token_hash), given(request.token)) {
        (Some(token), _) => Credential::Link(token),
        (None, Some(code)) => Credential::Code {
            email: super::address(request.email.as_deref().unwrap_or_default())?,
            code,
        },
        (None, None) => return Err(GoTrueError::invalid("token_hash or token is required")),
    };
    let grant = redeem(&auth, kind, &credential, ip).await?;
    Ok(session(SessionView::from(grant)))
}

/// The button of the link's page was pressed.
async fn submitted(auth: &AuthContext, query: LinkQuery, ip: ClientIp) -> Response {
    let landing = auth.site.landing(query.redirect_to.as_deref());
    let result = async {
        let kind = kind_of(query.r#type.as_deref())?;
        let token = query
            .token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| GoTrueError::invalid("token is required"))?;
        let grant = redeem(auth, kind, &Credential::Link(token), ip).await?;
        Ok::<_, GoTrueError>(SessionView::from(grant).in_fragment(kind.as_str()))
    };
    let fragment = result.await.unwrap_or_else(|error| error.in_fragment());
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(fragment);
    let location = format!("{landing}#{}", query.finish());
    (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response()
}

enum Credential {
    Link(String),
    Code { email: String, code: String },
}

fn kind_of(word: Option<&str>) -> Result<Kind, GoTrueError> {
    match word {
        // What Supabase sends for sign-ins without a password, which there are none of here.
        Some("signup" | "email" | "magiclink") => Err(GoTrueError::otp_expired()),
        Some(word) => Kind::parse(word)
            .ok_or_else(|| GoTrueError::invalid("type must be invite, recovery or email_change")),
        None => Err(GoTrueError::invalid("type is required")),
    }
}

async fn redeem(
    auth: &AuthContext,
    kind: Kind,
    credential: &Credential,
    ip: ClientIp,
) -> Result<Grant, GoTrueError> {
    let key = ThrottleKey::of_network(ip);
    let throttle = &auth.throttles.verifications;
    if !throttle.begin(&key, Instant::now()) {
        return Err(GoTrueError::too_many());
    }
    let grant = match kind {
        Kind::Invite => accept_invitation(auth, credential).await?,
        Kind::Recovery => recover(auth, credential).await?,
        Kind::EmailChange => change_email(auth, credential).await?,
    };
    throttle.refund(&key);
    Ok(grant)
}

async fn accept_invitation(
    auth: &AuthContext,
    credential: &Credential,
) -> Result<Grant, GoTrueError> {
    let Credential::Link(token) = credential else {
        return Err(GoTrueError::invalid("an invitation has no code"));
    };
    // Before the hashing, which takes long.
    invitations::look_up(auth, token).await?;
    let new = NewAccount {
        password_hash: password::hash_of_nothing().await?,
        about: identity::AboutUser::default(),
    };
    let mut tx = auth.db.system().await?;
    let hash = sign_in::hash_of(token);
    let (user, org) = invitations::accept(&mut tx, &hash, Proof::Link, new).await?;
    let grant = sign_in::open_session(auth, &mut tx, user, Some(org), SignInMethod::Otp).await?;
    let orgs = auth.orgs_of(&mut tx, user).await?;
    tx.commit().await?;
    auth.people_changed(user, &orgs);
    Ok(grant)
}

async fn recover(auth: &AuthContext, credential: &Credential) -> Result<Grant, GoTrueError> {
    let (mut tx, token) = take(auth, Kind::Recovery, credential).await?;
    let id = UserId(token.user_id.ok_or_else(GoTrueError::otp_expired)?);
    let user = identity::find_user(&mut tx, id)
        .await?
        .ok_or_else(GoTrueError::otp_expired)?;
    let is_first_proof = user.email_confirmed_at.is_none();
    if is_first_proof {
        invitations::claim(&mut tx, &user, &password::hash_of_nothing().await?).await?;
    }
    // Whoever needs to get back in did not ask for another address, or can ask again.
    identity::delete_new_email(&mut tx, id).await?;
    let orgs = auth.orgs_of(&mut tx, id).await?;
    let grant = sign_in::open_session(auth, &mut tx, id, None, SignInMethod::Otp).await?;
    tx.commit().await?;
    if is_first_proof {
        auth.people_changed(id, &orgs);
    }
    Ok(grant)
}

async fn change_email(auth: &AuthContext, credential: &Credential) -> Result<Grant, GoTrueError> {
    let (mut tx, token) = take(auth, Kind::EmailChange, credential).await?;
    let (id, mails) = recovery::change_email(&mut tx, &token).await?;
    let orgs = auth.orgs_of(&mut tx, id).await?;
    let grant = sign_in::open_session(auth, &mut tx, id, None, SignInMethod::Otp).await?;
    tx.commit().await?;
    mails.post(auth);
    auth.people_changed(id, &orgs);
    Ok(grant)
}

/// Uses the token; it is gone once the transaction is committed.
async fn take(
    auth: &AuthContext,
    kind: Kind,
    credential: &Credential,
) -> Result<(SystemTx, OneTimeToken), GoTrueError> {
    let mut tx = auth.db.system().await?;
    let token = match credential {
        Credential::Link(token) => {
            one_time_tokens::take(&mut tx, kind, &sign_in::hash_of(token)).await?
        }
        Credential::Code { email, code } => {
            let hash = auth.tokens.code_hash(email, code.trim());
            one_time_tokens::take_by_code(&mut tx, kind, email, &hash).await?
        }
    };
    match token {
        Some(token) => Ok((tx, token)),
        None => {
            // A wrong code was counted.
            tx.commit().await?;
            Err(GoTrueError::otp_expired())
        }
    }
}
