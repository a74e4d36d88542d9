//! Meta's error answers.
//!
//! Codes and texts: developers.facebook.com, WhatsApp Cloud API, "Error codes". Clients decide on
//! `code`; the HTTP status is what Meta sends along, and no guide.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetaError {
    status: u16,
    pub(crate) code: u32,
    subcode: Option<u32>,
    kind: &'static str,
    message: String,
    pub(crate) details: Option<String>,
}

impl MetaError {
    fn new(status: u16, code: u32, title: &str) -> Self {
        Self {
            status,
            code,
            subcode: None,
            kind: "OAuthException",
            message: format!("(#{code}) {title}"),
            details: None,
        }
    }

    /// An error of the WhatsApp table, with its `error_data.details`.
    pub(crate) fn coded(code: u32, details: impl Into<String>) -> Self {
        Self {
            details: Some(details.into()),
            ..Self::new(http_status(code), code, title(code))
        }
    }

    /// 100 with the sentence as message, the way Graph complains about one parameter.
    pub(crate) fn parameter(sentence: impl AsRef<str>) -> Self {
        Self::new(400, 100, sentence.as_ref())
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        Self::coded(
            131_008,
            format!("Required parameter '{parameter}' is missing"),
        )
    }

    pub(crate) fn invalid(details: impl Into<String>) -> Self {
        Self::coded(131_009, details)
    }

    pub(crate) fn throughput() -> Self {
        Self::coded(
            130_429,
            "Message failed to send because there were too many messages sent from this phone number in a short period of time",
        )
    }

    pub(crate) fn internal() -> Self {
        Self::coded(131_000, "Message failed to send due to an unknown error.")
    }

    pub(crate) fn bad_token() -> Self {
        Self {
            message: "Invalid OAuth access token - Cannot parse access token".to_owned(),
            ..Self::new(401, 190, "")
        }
    }

    pub(crate) fn expired_token() -> Self {
        Self {
            message: "Error validating access token: Session has expired.".to_owned(),
            subcode: Some(463),
            ..Self::new(401, 190, "")
        }
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Graph's answer for an object that is not there or not yours: it does not say which.
    pub(crate) fn no_object(method: &str, id: &str) -> Self {
        Self {
            subcode: Some(33),
            kind: "GraphMethodException",
            message: format!(
                "Unsupported {} request. Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, or does not support this operation",
                method.to_lowercase()
            ),
            ..Self::new(400, 100, "")
        }
    }
}

impl IntoResponse for MetaError {
    fn into_response(self) -> Response {
        let mut error = json!({
            "message": self.message,
            "type": self.kind,
            "code": self.code,
        });
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        if let Some(details) = self.details {
            error["error_data"] = json!({"messaging_product": "whatsapp", "details": details});
        }
        let trace = Uuid::new_v4();
        error["fbtrace_id"] = json!(format!("A{}", URL_SAFE_NO_PAD.encode(trace.as_bytes())));
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, Json(json!({ "error": error }))).into_response()
    }
}

/// An element of `statuses[].errors` or `messages[].errors`.
pub(crate) fn webhook_error(code: u32) -> Value {
    json!({
        "code": code,
        "title": title(code),
        "message": title(code),
        "error_data": {"details": details(code)},
        "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
    })
}

fn http_status(code: u32) -> u16 {
    match code {
        190 => 401,
        130_429 => 429,
        131_000 => 500,
        132_001 => 404,
        _ => 400,
    }
}

fn title(code: u32) -> &'static str {
    match code {
        100 => "Invalid parameter",
        130_429 => "Rate limit hit",
        131_000 => "Something went wrong",
        131_008 => "Required parameter is missing",
        131_009 => "Parameter value is not valid",
        131_021 => "Recipient cannot be sender",
        131_026 => "Message undeliverable",
        131_047 => "Re-engagement message",
        131_049 => "This message was not delivered to maintain healthy ecosystem engagement.",
        131_050 => "User has stopped receiving marketing messages",
        131_051 => "Message type unknown",
        131_053 => "Media upload error",
        131_056 => "(Business Account, Consumer Account) pair rate limit hit",
        131_062 => "Business-scoped user id recipients are not supported for this message",
        132_000 => "Number of parameters does not match the expected number of params",
        132_001 => "Template name does not exist in the translation",
        132_005 => "Template hydrated text too long",
        132_012 => "Parameter format does not match format in the created template",
        132_015 => "Template is paused",
        132_016 => "Template is disabled",
        132_018 => "There is an issue with the parameters in your template",
        _ => "Message failed to send",
    }
}

fn details(code: u32) -> &'static str {
    match code {
        131_026 => "Message undeliverable.",
        131_047 => {
            "Message failed to send because more than 24 hours have passed since the customer last replied to this number."
        }
        131_050 => "The user has chosen not to receive marketing messages from this business.",
        131_051 => "Message type is currently not supported.",
        131_053 => "The media could not be processed: its type does not fit the message.",
        _ => title(code),
    }
}
