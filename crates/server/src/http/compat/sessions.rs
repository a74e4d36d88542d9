//! Document S4.7: one linked phone per organisation, under `/api/sessions`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::session_requests::{self, LinkedPhone};

use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson, DocumentPath};
use crate::http::v1::sessions::{linking, no_qr_code, valid_qr};
use crate::state::AppState;

const MANAGERS: [Role; 2] = [Role::Owner, Role::Admin];

/// What changes something.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(init))
        .routes(routes!(init_function))
        .routes(routes!(logout))
}

/// What a page asks for every three seconds while it waits (S4.8): more than the general rate limit allows.
pub fn polled_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(qr))
        .routes(routes!(status))
}

/// S4.7 `POST /api/sessions/init`.
#[derive(Debug, Deserialize, ToSchema)]
struct InitRequest {
    /// Must be the caller's organisation.
    org_id: Option<Uuid>,
    /// Link by code on this phone instead of by QR.
    phone_number: Option<String>,
}

/// Another organisation's session is not there.
fn own_org(caller: &Caller, org: Uuid) -> Result<(), ApiError> {
    if org == caller.org_id.0 {
        Ok(())
    } else {
        Err(ApiError::not_found("organisation"))
    }
}

/// Links a phone: starts the organisation's session, which is made where there is none, and answers with the QR code, or
/// with the pairing code where `phone_number` is given. A connected phone stays connected.
#[utoipa::path(post, path = "/api/sessions/init", tag = "documents", request_body = InitRequest,
    responses((status = 200, description = "`{success, session_id, status, qr_code, pairing_code?, expires_at, message}`"),
        (status = 400), (status = 401), (status = 403), (status = 404), (status = 409), (status = 422), (status = 429),
        (status = 504)))]
async fn init(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentJson(request): DocumentJson<InitRequest>,
) -> Result<Json<Value>, DocumentError> {
    if let Some(org) = request.org_id {
        own_org(&caller, org)?;
    }
    caller.require(&MANAGERS)?;
    // An empty field of a form is no number.
    let typed = request
        .phone_number
        .as_deref()
        .filter(|text| !text.trim().is_empty());
    let phone = match typed {
        Some(text) => Some(linking::phone_of(&state, caller.org_id, text).await?),
        None => None,
    };
    let id = linking::first_session(&state, caller.org_id).await?;
    let session = linking::link(&state, &caller, id, phone.as_ref()).await?;
    if let Some(reason) = &session.stop_reason {
        let words = session.connection_error.as_deref().unwrap_or(reason);
        return Err(ApiError::refused("session_stopped", words).into());
    }
    let qr_code = valid_qr(&session).map(|(code, _)| code);
    let pairing_code = session.pairing_code.as_deref().filter(|_| phone.is_some());
    let message = if session.status == "connected" {
        "The phone is connected."
    } else if session.passkey_request.is_some() {
        "WhatsApp asks for a passkey: see GET /v1/sessions/{id}."
    } else if pairing_code.is_some() {
        "Type the code in on the phone: Linked devices, Link with phone number."
    } else if qr_code.is_some() {
        "Scan the QR code with the phone: Linked devices, Link a device."
    } else {
        "The session is starting; ask for its status again in a moment."
    };
    let mut body = json!({
        "success": true, "session_id": session.id, "status": session.status, "qr_code": qr_code, "message": message,
        "expires_at": session.qr_expires_at,
    });
    if let Some(code) = pairing_code {
        body["pairing_code"] = json!(code);
    }
    Ok(Json(body))
}

/// The same as a function (S4.13).
#[utoipa::path(post, path = "/functions/v1/whatsapp-init", tag = "documents", request_body = InitRequest,
    responses((status = 200, description = "`{success, session_id, status, qr_code, pairing_code?, expires_at, message}`"),
        (status = 400), (status = 401), (status = 403), (status = 404), (status = 409), (status = 422), (status = 429),
        (status = 504)))]
async fn init_function(
    state: State<AppState>,
    caller: DocumentCaller,
    request: DocumentJson<InitRequest>,
) -> Result<Json<Value>, DocumentError> {
    init(state, caller, request).await
}

/// The organisation's session, if there is one.
async fn find(
    state: &AppState,
    caller: &Caller,
    org: Uuid,
) -> Result<Option<LinkedPhone>, ApiError> {
    own_org(caller, org)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let session = session_requests::find_first(&mut tx, caller.org_id).await?;
    tx.commit().await?;
    Ok(session)
}

/// The QR code of the moment.
#[utoipa::path(get, path = "/api/sessions/{org_id}/qr", tag = "documents", params(("org_id" = Uuid, Path)),
    responses((status = 200, description = "`{success, qr_code, expires_at, status}`"), (status = 401), (status = 403),
        (status = 404, description = "there is none, or the phone is connected")))]
async fn qr(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentPath(org): DocumentPath<Uuid>,
) -> Result<Json<Value>, DocumentError> {
    let session = find(&state, &caller, org).await?;
    let session = session.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "no_qr_code",
            "there is no session: start with /api/sessions/init",
        )
    })?;
    let (code, expires_at) = valid_qr(&session).ok_or_else(|| no_qr_code(&session))?;
    Ok(Json(json!({
        "success": true, "qr_code": code, "expires_at": expires_at, "status": session.status,
    })))
}

/// How the session is. An organisation that never linked a phone is `disconnected`.
#[utoipa::path(get, path = "/api/sessions/{org_id}/status", tag = "documents", params(("org_id" = Uuid, Path)),
    responses((status = 200, description = "`{success, status, phone_number, display_name, last_connected_at, session_id, \
        connection_error}`"), (status = 401), (status = 403), (status = 404)))]
async fn status(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentPath(org): DocumentPath<Uuid>,
) -> Result<Json<Value>, DocumentError> {
    let session = find(&state, &caller, org).await?;
    Ok(Json(match session {
        Some(session) => json!({
            "success": true, "status": session.status, "phone_number": session.phone_number,
            "display_name": session.display_name, "last_connected_at": session.last_connected_at,
            "session_id": session.id, "connection_error": session.connection_error,
        }),
        None => json!({
            "success": true, "status": "disconnected", "phone_number": null, "display_name": null,
            "last_connected_at": null, "session_id": null, "connection_error": null,
        }),
    }))
}

/// Unlinks the phone.
#[utoipa::path(post, path = "/api/sessions/{org_id}/logout", tag = "documents", params(("org_id" = Uuid, Path)),
    responses((status = 200, description = "`{success, message}`"), (status = 401), (status = 403), (status = 404),
        (status = 409), (status = 422), (status = 429), (status = 504)))]
async fn logout(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentPath(org): DocumentPath<Uuid>,
) -> Result<Json<Value>, DocumentError> {
    own_org(&caller, org)?;
    caller.require(&MANAGERS)?;
    let session = find(&state, &caller, org)
        .await?
        .ok_or_else(|| ApiError::not_found("session"))?;
    linking::log_out(&state, caller.org_id, &session).await?;
    Ok(Json(
        json!({ "success": true, "message": "The phone is unlinked." }),
    ))
}
