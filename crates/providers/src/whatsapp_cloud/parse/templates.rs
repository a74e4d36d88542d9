//! News about the account's message templates. They name no number: only the account's id says whose they are.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/message_template_status_update>

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use wasel_domain::event::{ProviderEvent, TemplateChange, TemplateEvent};

use super::Sink;
use super::json::Object;

/// Longer names and codes are not Meta's, and they are copied.
const MAX_NAME: usize = 512;
const MAX_LANGUAGE: usize = 16;
const MAX_WORD: usize = 64;

pub(super) const FIELDS: [&str; 4] = [
    "message_template_status_update",
    "message_template_quality_update",
    "message_template_components_update",
    "template_category_update",
];

/// What names no template, or says nothing we know, stays a notice.
pub(super) fn update(field: &str, value: &Object<'_>, at: DateTime<Utc>, out: &mut Sink<'_>) {
    let text = |name: &str, max: usize| value.string(name).filter(|text| text.len() <= max);
    let name = text("message_template_name", MAX_NAME);
    let language = text("message_template_language", MAX_LANGUAGE);
    let change = match field {
        "message_template_status_update" => status(value),
        "message_template_quality_update" => {
            text("new_quality_score", MAX_WORD).map(TemplateChange::Quality)
        }
        "template_category_update" => category(value),
        _ => texts(value),
    };
    match (name, language, change) {
        (Some(name), Some(language), Some(change)) => {
            out.push(ProviderEvent::Template(TemplateEvent {
                provider_id: text("message_template_id", MAX_WORD),
                name,
                // en-US here, en_US in the API.
                language: language.replace('-', "_"),
                change,
                at,
                topic: field.to_owned(),
                detail: value.to_value(),
            }));
        }
        _ => out.notice(field, false, value.to_value()),
    }
}

fn status(value: &Object<'_>) -> Option<TemplateChange> {
    let event = value
        .string("event")
        .filter(|event| event.len() <= MAX_WORD)?;
    let status = match event.as_str() {
        "REINSTATED" | "UNARCHIVED" => Some("APPROVED".to_owned()),
        // A warning, and a note that it cannot be edited: it is sent as before.
        "FLAGGED" | "LOCKED" => None,
        _ => Some(event.clone()),
    };
    let more = value.object("other_info");
    let more = more.and_then(|info| info.string("description").or_else(|| info.string("title")));
    let reason = value.string("reason").filter(|reason| reason != "NONE");
    Some(TemplateChange::Status {
        status,
        category: value.string("message_template_category"),
        reason: reason.or(more),
        alarming: matches!(
            event.as_str(),
            "REJECTED" | "PAUSED" | "DISABLED" | "FLAGGED"
        ),
    })
}

/// Announced: `new_category` is what it still is, `correct_category` what it will be.
fn category(value: &Object<'_>) -> Option<TemplateChange> {
    let word = |name: &str| value.string(name).filter(|word| word.len() <= MAX_WORD);
    let (now, announced) = (word("new_category"), word("correct_category"));
    (now.is_some() || announced.is_some()).then_some(TemplateChange::Category { now, announced })
}

fn texts(value: &Object<'_>) -> Option<TemplateChange> {
    let mut components = Vec::new();
    if let Some(title) = value.string("message_template_title") {
        components.push(json!({"type": "HEADER", "format": "TEXT", "text": title}));
    }
    components.push(json!({"type": "BODY", "text": value.string("message_template_element")?}));
    if let Some(footer) = value.string("message_template_footer") {
        components.push(json!({"type": "FOOTER", "text": footer}));
    }
    let buttons: Vec<Value> = value
        .list("message_template_buttons")
        .into_iter()
        .filter_map(Object::read)
        .map(|button| {
            let mut made = json!({});
            for (from, to) in [
                ("message_template_button_type", "type"),
                ("message_template_button_text", "text"),
                ("message_template_button_url", "url"),
                ("message_template_button_phone_number", "phone_number"),
            ] {
                if let Some(text) = button.string(from) {
                    made[to] = text.into();
                }
            }
            made
        })
        .collect();
    if !buttons.is_empty() {
        components.push(json!({"type": "BUTTONS", "buttons": buttons}));
    }
    Some(TemplateChange::Texts(components))
}
