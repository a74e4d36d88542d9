//! `/v1/sessions`: linked phones, each a session of WhatsApp Web that serves one channel (`docs/linked-phones.md`).
//!
//! The node that runs a session writes its row; these routes read it, write what is wanted of it, and hand commands to
//! that node.

pub mod commands;
pub mod groups;
pub mod linking;
pub mod typing;

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::session_requests::{self, LinkedPhone, Settings};

use self::commands::{ANSWER_WAIT, Command};
use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::linked_phones::qr;
use crate::state::AppState;

const MANAGERS: [Role; 2] = [Role::Owner, Role::Admin];
/// The most days of old messages that can be asked for.
const MAX_HISTORY_DAYS: u16 = 365;
/// A channel's name is at most this long.
const MAX_NAME: usize = 100;
/// A deleted session is given this long to unlink the phone.
const FAREWELL: Duration = Duration::from_secs(5);
/// The reason a channel gets whose session was deleted.
const REMOVED: &str = "its linked phone was removed: link one again";

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(link))
        .routes(routes!(qr_code))
        .routes(routes!(passkey))
        .routes(routes!(confirm_passkey))
        .routes(routes!(log_out))
        .merge(groups::router())
        .merge(typing::router())
}

/// A linked phone, or one being linked.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    pub id: Uuid,
    /// `null` for one that was imported and not linked since.
    pub channel_id: Option<Uuid>,
    /// The channel's name.
    pub name: Option<String>,
    /// `disconnected`, `connecting`, `qr_pending`, `connected`, `error`.
    pub status: String,
    /// E.164, once a phone is linked.
    pub phone_number: Option<String>,
    /// The JID.
    pub whatsapp_id: Option<String>,
    pub display_name: Option<String>,
    /// Linking by code on this phone instead of by QR.
    pub pair_with_phone: Option<String>,
    /// To be typed in on the phone; good until `qr_expires_at`.
    pub pairing_code: Option<String>,
    /// Of the QR code (`GET /v1/sessions/{id}/qr`) and of the pairing code.
    pub qr_expires_at: Option<DateTime<Utc>>,
    /// Set where WhatsApp asks for a passkey: the options for `navigator.credentials.get`.
    #[schema(value_type = Option<Object>)]
    pub passkey_request: Option<Value>,
    /// The phone shows the same code; compare, then `POST …/passkey/confirm`.
    pub passkey_code: Option<String>,
    /// Why it does not run until somebody does something: `not_linked`, `replaced`, `banned`, `outdated`, `refused`,
    /// `lost`, `state`, `logged_out`.
    pub stop_reason: Option<String>,
    /// What is wrong, in words.
    pub connection_error: Option<String>,
    /// Failed tries to connect since it last was.
    pub retry_count: i32,
    pub enabled: bool,
    pub auto_reconnect: bool,
    pub history_days: i16,
    /// When the phone accepted us; `null` while none is linked.
    pub linked_at: Option<DateTime<Utc>>,
    pub last_connected_at: Option<DateTime<Utc>>,
    pub last_disconnected_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl From<LinkedPhone> for SessionView {
    fn from(s: LinkedPhone) -> Self {
        Self {
            id: s.id,
            channel_id: s.channel_id,
            name: s.channel_name,
            status: s.status,
            phone_number: s.phone_number,
            whatsapp_id: s.whatsapp_id,
            display_name: s.display_name,
            pair_with_phone: s.pair_with_phone,
            pairing_code: s.pairing_code,
            qr_expires_at: s.qr_expires_at,
            passkey_request: s.passkey_request,
            passkey_code: s.passkey_code,
            stop_reason: s.stop_reason,
            connection_error: s.connection_error,
            retry_count: s.retry_count,
            enabled: s.enabled,
            auto_reconnect: s.auto_reconnect,
            history_days: s.history_days,
            linked_at: s.linked_at,
            last_connected_at: s.last_connected_at,
            last_disconnected_at: s.last_disconnected_at,
            created_at: s.created_at,
            updated_at: s.updated_at,
        }
    }
}

/// The session, if the caller sees it.
async fn visible(state: &AppState, caller: &Caller, id: Uuid) -> Result<LinkedPhone, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let session = session_requests::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    session.ok_or_else(|| ApiError::not_found("session"))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// Linked phones, the newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(ListQuery),
    responses((status = 200, body = Page<SessionView>), (status = 400, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<SessionView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    let before = match query.cursor.as_deref().map(cursor::decode).transpose()? {
        Some((Some(at), id)) => Some((at, id)),
        Some((None, _)) => {
            return Err(ApiError::invalid(
                "cursor",
                "is not one that this list returned",
            ));
        }
        None => None,
    };
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = session_requests::list(&mut tx, caller.org_id, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |s| cursor::encode(Some(s.created_at), s.id),
        SessionView::from,
    )))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSessionRequest {
    /// What its channel is called. An existing channel for linked phones whose phone was removed is taken up again.
    #[schema(max_length = 100)]
    name: String,
    /// Link by code on this phone instead of by QR.
    phone_number: Option<String>,
    /// How many days of old messages to take over when the phone is linked, 0 (default) to 365.
    history_days: Option<u16>,
    /// Try again by itself after a lost connection. `true` if left out.
    auto_reconnect: Option<bool>,
}

fn checked_days(days: Option<u16>) -> Result<Option<i16>, ApiError> {
    match days {
        None => Ok(None),
        Some(days) if days <= MAX_HISTORY_DAYS => Ok(i16::try_from(days).ok()),
        Some(_) => Err(ApiError::invalid(
            "history_days",
            format!("must be from 0 to {MAX_HISTORY_DAYS}"),
        )),
    }
}

/// Makes a channel with a session of its own and begins to link a phone. Answers once the first code is there
/// (`GET …/qr`, or `pairing_code`), at the latest after ten seconds.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = CreateSessionRequest,
    responses((status = 201, body = SessionView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "`conflict`: the channel has a session; `details.id` is its id")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateSessionRequest>,
) -> Result<(StatusCode, axum::Json<SessionView>), ApiError> {
    caller.require(&MANAGERS)?;
    let name = request.name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME {
        let message = format!("must have 1 to {MAX_NAME} characters");
        return Err(ApiError::invalid("name", message));
    }
    let settings = Settings {
        history_days: checked_days(request.history_days)?,
        auto_reconnect: request.auto_reconnect,
        enabled: None,
    };
    let org = caller.org_id;
    let phone = match &request.phone_number {
        Some(text) => Some(linking::phone_of(&state, org, text).await?),
        None => None,
    };
    // Tenants may not write channels: those also hold how webhooks find them. The tenant is named here.
    let mut tx = state.db.system().await?;
    let channel = session_requests::upsert_channel(&mut tx, org, name).await?;
    let (id, is_new) = session_requests::find_or_insert(&mut tx, org, channel).await?;
    if !is_new {
        let message = format!("the channel {name} has a session");
        return Err(ApiError::new(StatusCode::CONFLICT, "conflict", message)
            .at("name")
            .with_details(json!({ "id": id })));
    }
    session_requests::update(&mut tx, org, id, &settings).await?;
    tx.commit().await?;
    let session = match linking::link(&state, &caller, id, phone.as_ref()).await {
        Ok(session) => session,
        // It was made, and starts as soon as a node takes it up.
        Err(error) if error.code == "not_running" => visible(&state, &caller, id).await?,
        Err(error) => return Err(error),
    };
    Ok((StatusCode::CREATED, axum::Json(session.into())))
}

/// One linked phone.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = Uuid, Path)),
    responses((status = 200, body = SessionView), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<SessionView>, ApiError> {
    Ok(axum::Json(visible(&state, &caller, id).await?.into()))
}

/// Fields left out stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateSessionRequest {
    /// `false` disconnects it and keeps the phone linked; `true` lets it run again.
    enabled: Option<bool>,
    /// Try again by itself after a lost connection.
    auto_reconnect: Option<bool>,
    /// How many days of old messages to take over when a phone is linked the next time, 0 to 365.
    history_days: Option<u16>,
}

/// Switches a session on or off, or changes how it behaves.
#[utoipa::path(patch, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = Uuid, Path)),
    request_body = UpdateSessionRequest,
    responses((status = 200, body = SessionView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<UpdateSessionRequest>,
) -> Result<axum::Json<SessionView>, ApiError> {
    caller.require(&MANAGERS)?;
    let settings = Settings {
        enabled: request.enabled,
        auto_reconnect: request.auto_reconnect,
        history_days: checked_days(request.history_days)?,
    };
    visible(&state, &caller, id).await?;
    let mut tx = state.db.system().await?;
    session_requests::update(&mut tx, caller.org_id, id, &settings).await?;
    tx.commit().await?;
    announce(&state);
    Ok(axum::Json(visible(&state, &caller, id).await?.into()))
}

/// The row changed, and the session manager of this node may have something to do.
fn announce(state: &AppState) {
    state.signals.commits.changes.notify_one();
    state.phones.wake();
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct LinkRequest {
    /// Link by code on this phone instead of by QR.
    phone_number: Option<String>,
}

/// Starts a session: links a phone, or connects again the one that is linked. Answers once there is a code or the phone
/// is connected, at the latest after ten seconds. Also starts one that was stopped or switched off.
#[utoipa::path(post, path = "/v1/sessions/{id}/link", tag = "sessions", params(("id" = Uuid, Path)),
    request_body = LinkRequest,
    responses((status = 200, body = SessionView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "`not_running`: no node took it up"),
        (status = 422, body = ErrorBody), (status = 504, body = ErrorBody)))]
async fn link(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<LinkRequest>,
) -> Result<axum::Json<SessionView>, ApiError> {
    caller.require(&MANAGERS)?;
    visible(&state, &caller, id).await?;
    let phone = match &request.phone_number {
        Some(text) => Some(linking::phone_of(&state, caller.org_id, text).await?),
        None => None,
    };
    let session = linking::link(&state, &caller, id, phone.as_ref()).await?;
    Ok(axum::Json(session.into()))
}

/// The QR code of the moment.
#[derive(Debug, Serialize, ToSchema)]
struct QrView {
    /// A PNG as data URL.
    qr_code: String,
    /// The text of the code; `null` where the picture was not made here.
    code: Option<String>,
    /// Then another one takes its place, or linking has ended.
    expires_at: DateTime<Utc>,
    status: String,
}

/// 404: there is nothing to scan.
pub(crate) fn no_qr_code(session: &LinkedPhone) -> ApiError {
    let message = if session.status == "connected" {
        "the phone is connected: there is nothing to scan"
    } else {
        "there is no QR code at the moment: start linking the phone"
    };
    ApiError::new(StatusCode::NOT_FOUND, "no_qr_code", message)
}

/// The code and until when it is good.
pub(crate) fn valid_qr(session: &LinkedPhone) -> Option<(&str, DateTime<Utc>)> {
    let code = session.qr_code.as_deref()?;
    let expires_at = session.qr_expires_at.filter(|at| *at > Utc::now())?;
    (session.status == "qr_pending").then_some((code, expires_at))
}

/// The QR code to scan, as JSON; with `Accept: image/png` as a picture.
#[utoipa::path(get, path = "/v1/sessions/{id}/qr", tag = "sessions", params(("id" = Uuid, Path)),
    responses((status = 200, description = "the code", content((QrView = "application/json"), (Vec<u8> = "image/png"))),
        (status = 404, body = ErrorBody, description = "`no_qr_code`: there is none, or the phone is connected")))]
async fn qr_code(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let session = visible(&state, &caller, id).await?;
    let Some((code, expires_at)) = valid_qr(&session) else {
        return Err(no_qr_code(&session));
    };
    let mut response = match qr::png_of(code).filter(|_| wants_png(&headers)) {
        Some(png) => ([(header::CONTENT_TYPE, "image/png")], png).into_response(),
        None => axum::Json(QrView {
            qr_code: code.to_owned(),
            code: qr::text_of(code),
            expires_at,
            status: session.status,
        })
        .into_response(),
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Whether a picture is asked for and JSON is not.
fn wants_png(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let accepts = |wanted: &str| {
        accept
            .split(',')
            .any(|kind| kind.split(';').next().unwrap_or("").trim() == wanted)
    };
    (accepts("image/png") || accepts("image/*")) && !accepts("application/json")
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasskeyRequest {
    /// The credential that `navigator.credentials.get` gave on web.whatsapp.com, as its `toJSON()` writes it.
    #[schema(value_type = Object)]
    assertion: Value,
}

/// What a command came to.
#[derive(Debug, Serialize, ToSchema)]
struct DoneView {
    /// What the session answered; mostly nothing.
    #[schema(value_type = Option<Object>)]
    result: Value,
}

/// Hands over the passkey's answer. Next comes `passkey_code`, or the phone is linked.
#[utoipa::path(post, path = "/v1/sessions/{id}/passkey", tag = "sessions", params(("id" = Uuid, Path)),
    request_body = PasskeyRequest,
    responses((status = 200, body = DoneView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "`no_passkey_asked` or `not_running`"),
        (status = 422, body = ErrorBody, description = "`session_refused`; `details.code` says how"),
        (status = 504, body = ErrorBody)))]
async fn passkey(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<PasskeyRequest>,
) -> Result<axum::Json<DoneView>, ApiError> {
    caller.require(&MANAGERS)?;
    let session = visible(&state, &caller, id).await?;
    if session.passkey_request.is_none() {
        return Err(no_passkey("WhatsApp has not asked for a passkey"));
    }
    let assertion = request.assertion;
    for part in ["clientDataJSON", "authenticatorData", "signature"] {
        if !assertion["response"][part].is_string() {
            let field = format!("assertion.response.{part}");
            return Err(ApiError::invalid(field, "is missing"));
        }
    }
    if !assertion["id"].is_string() && !assertion["rawId"].is_string() {
        return Err(ApiError::invalid("assertion.rawId", "is missing"));
    }
    let command = Command::PasskeyResponse { assertion };
    let result = commands::ask(&state, caller.org_id, id, &command, ANSWER_WAIT).await?;
    Ok(axum::Json(DoneView { result }))
}

fn no_passkey(message: &str) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "no_passkey_asked", message)
}

/// The person has compared `passkey_code` with the phone's and they are the same.
#[utoipa::path(post, path = "/v1/sessions/{id}/passkey/confirm", tag = "sessions", params(("id" = Uuid, Path)),
    responses((status = 200, body = DoneView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "`no_passkey_asked` or `not_running`"),
        (status = 422, body = ErrorBody, description = "`session_refused`; `details.code` says how"),
        (status = 504, body = ErrorBody)))]
async fn confirm_passkey(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<DoneView>, ApiError> {
    caller.require(&MANAGERS)?;
    let session = visible(&state, &caller, id).await?;
    if session.passkey_code.is_none() {
        return Err(no_passkey("there is no code to confirm"));
    }
    let command = Command::PasskeyConfirm;
    let result = commands::ask(&state, caller.org_id, id, &command, ANSWER_WAIT).await?;
    Ok(axum::Json(DoneView { result }))
}

/// Unlinks the phone and wipes the session's state; where none is linked, linking ends. The channel stays, and so do
/// its conversations.
#[utoipa::path(post, path = "/v1/sessions/{id}/logout", tag = "sessions", params(("id" = Uuid, Path)),
    responses((status = 200, body = SessionView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "`not_running`: start it, or delete the session"),
        (status = 422, body = ErrorBody, description = "`session_refused`; `details.code` says how"),
        (status = 504, body = ErrorBody)))]
async fn log_out(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<SessionView>, ApiError> {
    caller.require(&MANAGERS)?;
    let session = visible(&state, &caller, id).await?;
    linking::log_out(&state, caller.org_id, &session).await?;
    Ok(axum::Json(visible(&state, &caller, id).await?.into()))
}

/// What became of the phone.
#[derive(Debug, Serialize, ToSchema)]
struct DeletedView {
    /// `false`: the phone still lists this device; remove it there, under Linked devices.
    unlinked: bool,
}

/// Deletes a session and wipes its state, also where no node runs it. The phone is unlinked if it can be reached within
/// five seconds. The channel stays with its conversations, and is blocked until a phone is linked to it again.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = Uuid, Path)),
    responses((status = 200, body = DeletedView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<DeletedView>, ApiError> {
    caller.require(&MANAGERS)?;
    let session = visible(&state, &caller, id).await?;
    let unlinked = if session.linked_at.is_none() {
        true
    } else {
        match commands::ask(&state, caller.org_id, id, &Command::LogOut, FAREWELL).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(session.id = %id, error.code, "a deleted session could not unlink its phone");
                false
            }
        }
    };
    let mut tx = state.db.system().await?;
    session_requests::delete(&mut tx, caller.org_id, id, REMOVED).await?;
    tx.commit().await?;
    announce(&state);
    Ok(axum::Json(DeletedView { unlinked }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_sent_to_whoever_asks_for_one_only() {
        let wants = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            wants_png(&headers)
        };
        assert!(wants("image/png"));
        assert!(wants("image/avif,image/webp,image/*;q=0.8,*/*;q=0.5"));
        for other in ["*/*", "application/json", "application/json, image/png", ""] {
            assert!(!wants(other), "{other}");
        }
        assert!(!wants_png(&HeaderMap::new()));
    }
}
