//! Document S2: the functions of a property-maintenance company that sends by Twilio. The status webhook is
//! `http::webhooks::twilio`.

mod send_twilio_message;
mod send_unified_notification;
mod send_whatsapp;

use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::messages::Message;

use crate::http::error::ApiError;
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(send_twilio_message::send_twilio_message))
        .routes(routes!(send_whatsapp::send_whatsapp))
        .routes(routes!(
            send_unified_notification::send_unified_notification
        ))
}

/// What both sending functions answer.
fn answer(message: &Message) -> Value {
    json!({ "success": true, "message_id": message.id, "status": message.status })
}

/// The documents name a template of ours or Twilio's, by either key.
fn template_of(
    template_id: Option<String>,
    content_sid: Option<String>,
) -> Result<Option<String>, ApiError> {
    match (template_id, content_sid) {
        (Some(_), Some(_)) => Err(ApiError::invalid("content_sid", "goes without template_id")),
        (template, sid) => Ok(template.or(sid)),
    }
}

/// The one recipient of these functions is called `to`.
fn about_to(error: ApiError) -> ApiError {
    match error.field.as_deref() {
        Some("recipient_phone") => error.at("to"),
        _ => error,
    }
}
