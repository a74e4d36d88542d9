//! S2.2 `send-whatsapp`: for the front end.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{about_to, answer, template_of};
use crate::auth::{CallerKind, Role};
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson};
use crate::http::limits;
use crate::http::v1::messages::idempotency_key;
use crate::notify::{self, Medium, Note};
use crate::state::AppState;

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SendWhatsappRequest {
    /// A phone number, as people of the organisation's country write it.
    to: String,
    /// The text, or the caption.
    message: Option<String>,
    media_url: Option<String>,
    /// A template of ours by its id (`/v1/templates`), or Twilio's Content SID.
    template_id: Option<String>,
    /// An approved Twilio template (`HX…`), needed outside the 24-hour window.
    content_sid: Option<String>,
    /// The template's variables.
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
    request_id: Option<String>,
}

/// A signed-in person sends a WhatsApp message: 5 a minute each, logged, with a status callback.
#[utoipa::path(post, path = "/functions/v1/send-whatsapp", tag = "documents", request_body = SendWhatsappRequest,
    responses((status = 200, description = "`{success, message_id, status}`"), (status = 400), (status = 401),
        (status = 403), (status = 404), (status = 422), (status = 429)))]
pub(super) async fn send_whatsapp(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    headers: HeaderMap,
    DocumentJson(request): DocumentJson<SendWhatsappRequest>,
) -> Result<Json<Value>, DocumentError> {
    if caller.kind != CallerKind::User {
        let message = "this function is for signed-in people; servers use send-twilio-message";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into());
    }
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let note = Note {
        phone: Some(request.to),
        text: request.message,
        template: template_of(request.template_id, request.content_sid)?,
        variables: request.variables,
        media_url: request.media_url,
        request_id: request.request_id,
        ..Note::default()
    };
    let step = notify::step(&state, &caller, Medium::Whatsapp)?;
    let key = idempotency_key(&headers)?;
    limits::take_user_send(&state, &caller).await?;
    let message = notify::send(&state, &caller, step, &note, &[], key)
        .await
        .map_err(about_to)?;
    Ok(Json(answer(&message)))
}
