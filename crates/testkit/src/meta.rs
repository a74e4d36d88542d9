//! Meta's webhooks: payloads and their signature.

use ring::hmac;
use serde_json::{Value, json};

/// `X-Hub-Signature-256` over the raw body.
#[must_use]
pub fn signature(app_secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, app_secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

/// A webhook with one `messages` change for a number.
#[must_use]
pub fn change(phone_number_id: &str, fields: Value) -> Value {
    batch([entry(phone_number_id, fields)])
}

/// A webhook with several entries.
#[must_use]
pub fn batch(entries: impl IntoIterator<Item = Value>) -> Value {
    json!({ "object": "whatsapp_business_account", "entry": entries.into_iter().collect::<Vec<_>>() })
}

/// One entry with one `messages` change.
#[must_use]
pub fn entry(phone_number_id: &str, fields: Value) -> Value {
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550783881", "phone_number_id": phone_number_id },
    });
    for (name, field) in fields.as_object().expect("an object") {
        value[name] = field.clone();
    }
    json!({ "id": "102290129340398", "changes": [{ "field": "messages", "value": value }] })
}

/// `messages` and `contacts` of one text, sent now. `from` is digits, as Meta writes numbers.
#[must_use]
pub fn text(from: &str, id: &str, body: &str) -> Value {
    text_at(from, id, body, chrono::Utc::now().timestamp())
}

/// The same, sent at a time in seconds since 1970.
#[must_use]
pub fn text_at(from: &str, id: &str, body: &str, at: i64) -> Value {
    json!({
        "contacts": [{ "profile": { "name": "Customer" }, "wa_id": from }],
        "messages": [{ "from": from, "id": id, "timestamp": at.to_string(), "type": "text", "text": { "body": body } }],
    })
}

/// `statuses` with one status.
#[must_use]
pub fn status(recipient: &str, id: &str, status: &str, at: i64) -> Value {
    let mut one = json!({ "id": id, "status": status, "timestamp": at.to_string(), "recipient_id": recipient });
    if status == "failed" {
        one["errors"] = json!([{ "code": 131_026, "title": "Message undeliverable", "message": "Message undeliverable" }]);
    }
    json!({ "statuses": [one] })
}
