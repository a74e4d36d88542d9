//! S2.1 `send-twilio-message`: for other server functions.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{about_to, answer, template_of};
use crate::auth::CallerKind;
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson};
use crate::http::v1::messages::idempotency_key;
use crate::notify::{self, Medium, Note};
use crate::state::AppState;

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SendTwilioMessageRequest {
    /// A phone number, as people of the organisation's country write it.
    to: String,
    /// The text, or the caption.
    message: Option<String>,
    #[serde(rename = "type")]
    kind: MessageType,
    request_id: Option<String>,
    /// A template of ours by its id (`/v1/templates`), or Twilio's Content SID.
    template_id: Option<String>,
    /// An approved Twilio template (`HX…`).
    content_sid: Option<String>,
    /// The template's variables.
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
    media_url: Option<String>,
    /// Anything you want kept with the message.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum MessageType {
    Sms,
    Whatsapp,
}

/// A server of yours sends an SMS or a WhatsApp message: with the service-role key, no limit per person, logged, with a
/// status callback.
#[utoipa::path(post, path = "/functions/v1/send-twilio-message", tag = "documents",
    request_body = SendTwilioMessageRequest,
    responses((status = 200, description = "`{success, message_id, status}`"), (status = 400), (status = 401),
        (status = 403, description = "not the service-role key"), (status = 404), (status = 422)))]
pub(super) async fn send_twilio_message(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    headers: HeaderMap,
    DocumentJson(request): DocumentJson<SendTwilioMessageRequest>,
) -> Result<Json<Value>, DocumentError> {
    if caller.kind != CallerKind::Service {
        let message =
            "this function is for servers, with the service-role key; people use send-whatsapp";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into());
    }
    let medium = match request.kind {
        MessageType::Sms => Medium::Sms,
        MessageType::Whatsapp => Medium::Whatsapp,
    };
    let note = Note {
        phone: Some(request.to),
        text: request.message,
        template: template_of(request.template_id, request.content_sid)?,
        variables: request.variables,
        media_url: request.media_url,
        request_id: request.request_id,
        metadata: request.metadata.unwrap_or_default(),
        ..Note::default()
    };
    let step = notify::step(&state, &caller, medium)?;
    let key = idempotency_key(&headers)?;
    let message = notify::send(&state, &caller, step, &note, &[], key)
        .await
        .map_err(about_to)?;
    Ok(Json(answer(&message)))
}
