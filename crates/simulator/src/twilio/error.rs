//! Twilio's error answers: `{code, message, more_info, status}` (twilio.com/docs/api/errors).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::json;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TwilioError {
    status: u16,
    pub(crate) code: u32,
    message: String,
}

impl TwilioError {
    pub(super) fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn bad(code: u32, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    pub(crate) fn authenticate() -> Self {
        Self::new(401, 20_003, "Authenticate")
    }

    pub(crate) fn too_many_requests() -> Self {
        Self::new(429, 20_429, "Too Many Requests")
    }

    pub(crate) fn internal() -> Self {
        Self::new(500, 20_500, "Internal Server Error")
    }

    pub(super) fn not_found(path: &str) -> Self {
        Self::new(
            404,
            20_404,
            format!("The requested resource {path} was not found"),
        )
    }
}

impl IntoResponse for TwilioError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = Json(json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status,
        }));
        let mut response = (status, body).into_response();
        if self.status == 429 {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// `ErrorMessage` of a callback and `error_message` of a message.
pub(super) fn message_for(code: u32) -> &'static str {
    match code {
        30_003 => "Unreachable destination handset",
        30_008 => "Unknown error",
        63_016 => {
            "Failed to send freeform message because you are outside the allowed window. If you are using WhatsApp, please use a Message Template."
        }
        63_024 => "Invalid message recipient",
        63_028 => "Number of parameters provided does not match the expected number of parameters",
        63_049 => "Meta chose not to deliver this WhatsApp marketing message",
        _ => "Message delivery failed",
    }
}
