//! One entry of `statuses[]`: what became of a message of ours.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/status>

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use wasel_domain::event::{Actor, ProviderError, ProviderEvent, Revoke, StatusEvent};
use wasel_domain::{AttemptId, MessageStatus};

use super::Sink;
use super::json::Object;

/// What is kept beside the status itself.
const DETAILS: [&str; 8] = [
    "pricing",
    "conversation",
    "recipient_id",
    "recipient_user_id",
    "recipient_parent_user_id",
    "recipient_type",
    "recipient_participant_id",
    "errors",
];

pub(super) fn read(raw: &RawValue, out: &mut Sink<'_>) {
    let Some(status) = Object::read(raw) else {
        return out.malformed("status", Some(raw));
    };
    let (Some(id), Some(word)) = (status.string("id"), status.text("status")) else {
        return out.malformed("status", Some(raw));
    };
    let at = status.time("timestamp");
    let known = match &*word {
        "sent" => MessageStatus::Sent,
        "delivered" => MessageStatus::Delivered,
        // A voice note that was played was read.
        "read" | "played" => MessageStatus::Read,
        "failed" => MessageStatus::Failed,
        "deleted" => {
            return out.push(ProviderEvent::Revoke(Revoke {
                target_message_id: id,
                by: Actor::Us,
                at,
            }));
        }
        _ => return out.notice("unknown_status", false, status.to_value()),
    };
    let attempt = status.text("biz_opaque_callback_data");
    let detail: Map<String, Value> = DETAILS
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), status.value(name)?)))
        .collect();
    out.push(ProviderEvent::Status(StatusEvent {
        provider_message_id: id,
        // Anything but a UUID was put there by another program on the same number.
        attempt_id: attempt.and_then(|text| text.parse::<AttemptId>().ok()),
        status: known,
        at,
        error: first_error(&status),
        detail: if detail.is_empty() {
            Value::Null
        } else {
            detail.into()
        },
    }));
}

fn first_error(status: &Object<'_>) -> Option<ProviderError> {
    let error = Object::read(status.list("errors").into_iter().next()?)?;
    let title = error.text("title").or_else(|| error.text("message"));
    let data = error.object("error_data");
    let details = data.and_then(|data| data.text("details"));
    let message = match (title, details) {
        (Some(title), Some(details))
            if title.trim_end_matches('.') != details.trim_end_matches('.') =>
        {
            format!("{title}: {details}")
        }
        (Some(text), _) | (None, Some(text)) => text.into_owned(),
        (None, None) => String::new(),
    };
    Some(ProviderError {
        code: error.string("code")?,
        message,
    })
}
