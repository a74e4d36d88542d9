//! What the Cloud API refuses at once, by message type (messages API reference and error codes).

use std::collections::HashSet;

use serde_json::Value;

use super::MetaError;

type Checked = Result<(), MetaError>;

pub(super) const MEDIA_KINDS: [&str; 5] = ["image", "audio", "video", "document", "sticker"];

const KINDS: [&str; 11] = [
    "text",
    "image",
    "audio",
    "video",
    "document",
    "sticker",
    "location",
    "contacts",
    "interactive",
    "reaction",
    "template",
];

/// Checks everything that needs no knowledge of templates or media; returns the message type.
pub(super) fn message(body: &Value) -> Result<&str, MetaError> {
    product(body)?;
    match body.get("recipient_type") {
        None => {}
        Some(value) if value == "individual" => {}
        Some(_) => {
            return Err(MetaError::parameter(
                "Param recipient_type must be one of {INDIVIDUAL}",
            ));
        }
    }
    if let Some(data) = body.get("biz_opaque_callback_data") {
        let Some(data) = data.as_str() else {
            return Err(MetaError::parameter(
                "Param biz_opaque_callback_data must be a string.",
            ));
        };
        at_most("biz_opaque_callback_data", data, 512)?;
    }
    let kind = match body.get("type") {
        None => "text",
        Some(kind) => kind
            .as_str()
            .filter(|kind| KINDS.contains(kind))
            .ok_or_else(|| {
                MetaError::parameter(format!(
                    "Param type must be one of {{{}}}",
                    KINDS.join(", ").to_uppercase()
                ))
            })?,
    };
    let content = body.get(kind).ok_or_else(|| MetaError::missing(kind))?;
    match kind {
        "text" => at_most("text.body", text(content, "body", "text.body")?, 4_096)?,
        "location" => location(content)?,
        "contacts" => contacts(content)?,
        "interactive" => interactive(content)?,
        "reaction" => {
            text(content, "message_id", "reaction.message_id")?;
            if !content.get("emoji").is_some_and(Value::is_string) {
                return Err(MetaError::missing("reaction.emoji"));
            }
        }
        "template" => {
            text(content, "name", "template.name")?;
            let language = content.get("language").unwrap_or(&Value::Null);
            text(language, "code", "template.language.code")?;
        }
        kind => media(kind, content)?,
    }
    Ok(kind)
}

pub(super) fn product(body: &Value) -> Checked {
    if body.get("messaging_product").and_then(Value::as_str) == Some("whatsapp") {
        Ok(())
    } else {
        Err(MetaError::parameter(
            "The parameter messaging_product is required.",
        ))
    }
}

/// A string that must be there and not empty.
pub(super) fn text<'a>(object: &'a Value, key: &str, path: &str) -> Result<&'a str, MetaError> {
    match object.get(key) {
        None | Some(Value::Null) => Err(MetaError::missing(path)),
        Some(Value::String(text)) if text.is_empty() => Err(MetaError::missing(path)),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(MetaError::parameter(format!(
            "Param {path} must be a string."
        ))),
    }
}

fn at_most(path: &str, text: &str, characters: usize) -> Checked {
    if text.chars().count() > characters {
        return Err(MetaError::parameter(format!(
            "Param {path} must be at most {characters} characters long."
        )));
    }
    Ok(())
}

fn media(kind: &str, content: &Value) -> Checked {
    let has = |key: &str| content.get(key).is_some_and(|value| !value.is_null());
    match (has("id"), has("link")) {
        (false, false) => return Err(MetaError::missing(&format!("{kind}.id or {kind}.link"))),
        (true, true) => {
            return Err(MetaError::parameter(format!(
                "Param {kind} must have exactly one of id and link."
            )));
        }
        (true, false) => drop(text(content, "id", &format!("{kind}.id"))?),
        (false, true) => {
            let link = text(content, "link", &format!("{kind}.link"))?;
            let web =
                url::Url::parse(link).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
            if !web {
                return Err(MetaError::parameter(format!(
                    "Param {kind}['link'] is not a valid URL."
                )));
            }
        }
    }
    if has("caption") {
        if matches!(kind, "audio" | "sticker") {
            return Err(MetaError::parameter(format!(
                "Unexpected key \"caption\" on param \"{kind}\"."
            )));
        }
        let path = format!("{kind}.caption");
        at_most(&path, text(content, "caption", &path)?, 1_024)?;
    }
    if has("filename") && kind != "document" {
        return Err(MetaError::parameter(format!(
            "Unexpected key \"filename\" on param \"{kind}\"."
        )));
    }
    Ok(())
}

fn location(content: &Value) -> Checked {
    for (key, limit) in [("latitude", 90.0), ("longitude", 180.0)] {
        let path = format!("location.{key}");
        let value = match content.get(key) {
            None | Some(Value::Null) => return Err(MetaError::missing(&path)),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        if !value.is_some_and(|value: f64| value.abs() <= limit) {
            return Err(MetaError::invalid(format!("Param {path} is out of range.")));
        }
    }
    Ok(())
}

fn contacts(content: &Value) -> Checked {
    let cards = content
        .as_array()
        .filter(|cards| !cards.is_empty())
        .ok_or_else(|| MetaError::missing("contacts"))?;
    for card in cards {
        let name = card.get("name").unwrap_or(&Value::Null);
        text(name, "formatted_name", "contacts.name.formatted_name")?;
    }
    Ok(())
}

fn interactive(content: &Value) -> Checked {
    let kind = text(content, "type", "interactive.type")?;
    let action = content.get("action").unwrap_or(&Value::Null);
    let body_limit = if kind == "list" { 4_096 } else { 1_024 };
    // A single product shows itself; everything else needs words.
    if kind != "product" {
        let body = content.get("body").unwrap_or(&Value::Null);
        let words = text(body, "text", "interactive.body.text")?;
        at_most("interactive.body.text", words, body_limit)?;
    }
    if let Some(footer) = content.get("footer") {
        let words = text(footer, "text", "interactive.footer.text")?;
        at_most("interactive.footer.text", words, 60)?;
    }
    if let Some(header) = content.get("header") {
        let shape = text(header, "type", "interactive.header.type")?;
        if shape == "text" {
            let words = text(header, "text", "interactive.header.text")?;
            at_most("interactive.header.text", words, 60)?;
        } else if kind == "list" {
            return Err(MetaError::invalid("A list takes a text header only."));
        }
    }
    if action.is_null() {
        return Err(MetaError::missing("interactive.action"));
    }
    match kind {
        "button" => buttons(action),
        "list" => list(action),
        "cta_url" => {
            let parameters = action.get("parameters").unwrap_or(&Value::Null);
            text(
                parameters,
                "display_text",
                "interactive.action.parameters.display_text",
            )?;
            text(parameters, "url", "interactive.action.parameters.url").map(drop)
        }
        "flow" => {
            let parameters = action.get("parameters").unwrap_or(&Value::Null);
            text(
                parameters,
                "flow_cta",
                "interactive.action.parameters.flow_cta",
            )
            .map(drop)
        }
        "product" | "product_list" => {
            text(action, "catalog_id", "interactive.action.catalog_id").map(drop)
        }
        "location_request_message"
        | "address_message"
        | "catalog_message"
        | "carousel"
        | "call_permission_request" => Ok(()),
        _ => Err(MetaError::invalid("Param interactive.type is not known.")),
    }
}

fn buttons(action: &Value) -> Checked {
    let buttons = items(action, "buttons", "interactive.action.buttons")?;
    if buttons.len() > 3 {
        return Err(MetaError::invalid(
            "Invalid buttons count. Min allowed buttons: 1, Max allowed buttons: 3",
        ));
    }
    let mut ids = HashSet::new();
    let mut titles = HashSet::new();
    for button in buttons {
        let reply = button.get("reply").unwrap_or(&Value::Null);
        let id = text(reply, "id", "interactive.action.buttons.reply.id")?;
        let title = text(reply, "title", "interactive.action.buttons.reply.title")?;
        if id.chars().count() > 256 {
            return Err(MetaError::invalid(
                "Button id is longer than 256 characters.",
            ));
        }
        if title.chars().count() > 20 {
            return Err(MetaError::invalid(
                "Button title length invalid. Min length: 1, Max length: 20",
            ));
        }
        if !ids.insert(id) || !titles.insert(title) {
            return Err(MetaError::invalid("Duplicated button id or title."));
        }
    }
    Ok(())
}

fn list(action: &Value) -> Checked {
    let button = text(action, "button", "interactive.action.button")?;
    if button.chars().count() > 20 {
        return Err(MetaError::invalid(
            "List button length invalid. Max length: 20",
        ));
    }
    let sections = items(action, "sections", "interactive.action.sections")?;
    if sections.len() > 10 {
        return Err(MetaError::invalid("Max allowed sections: 10"));
    }
    let mut ids = HashSet::new();
    let mut rows_in_all = 0;
    for section in sections {
        match section.get("title") {
            Some(Value::String(title)) if title.chars().count() <= 24 => {}
            None if sections.len() == 1 => {}
            _ => {
                return Err(MetaError::invalid(
                    "Section title is needed with several sections. Max length: 24",
                ));
            }
        }
        let rows = items(section, "rows", "interactive.action.sections.rows")?;
        rows_in_all += rows.len();
        for row in rows {
            let id = text(row, "id", "interactive.action.sections.rows.id")?;
            let title = text(row, "title", "interactive.action.sections.rows.title")?;
            let description = row
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if id.chars().count() > 200
                || title.chars().count() > 24
                || description.chars().count() > 72
            {
                return Err(MetaError::invalid(
                    "Row too long. Max length of id: 200, title: 24, description: 72",
                ));
            }
            if !ids.insert(id) {
                return Err(MetaError::invalid("Duplicated row id."));
            }
        }
    }
    if rows_in_all > 10 {
        return Err(MetaError::invalid(
            "Total row count exceed max allowed count: 10",
        ));
    }
    Ok(())
}

/// A list that must be there and not empty.
fn items<'a>(object: &'a Value, key: &str, path: &str) -> Result<&'a [Value], MetaError> {
    object
        .get(key)
        .and_then(Value::as_array)
        .filter(|items| !items.is_empty())
        .map(Vec::as_slice)
        .ok_or_else(|| MetaError::missing(path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn code(kind: &str, content: Value) -> u32 {
        let body =
            json!({"messaging_product": "whatsapp", "to": "+20", "type": kind, kind: content});
        message(&body).map_or_else(|error| error.code, |_| 0)
    }

    fn reply(id: &str, title: &str) -> Value {
        json!({"type": "reply", "reply": {"id": id, "title": title}})
    }

    fn with_buttons(buttons: Vec<Value>) -> Value {
        json!({"type": "button", "body": {"text": "?"}, "action": {"buttons": buttons}})
    }

    #[test]
    fn each_kind_is_taken_when_right_and_refused_with_its_code_when_wrong() {
        let row = json!({"id": "1", "title": "One"});
        let list = |rows: usize| {
            let rows: Vec<_> = (0..rows)
                .map(|n| json!({"id": n.to_string(), "title": "r"}))
                .collect();
            json!({"type": "list", "body": {"text": "?"},
                "action": {"button": "Pick", "sections": [{"title": "s", "rows": rows}]}})
        };
        let cases = [
            ("text", json!({"body": "ا".repeat(4_096)}), 0),
            ("text", json!({"body": "a".repeat(4_097)}), 100),
            ("text", json!({}), 131_008),
            (
                "image",
                json!({"link": "https://x.test/a.png", "caption": "c"}),
                0,
            ),
            ("image", json!({"link": "ftp://x.test/a.png"}), 100),
            ("image", json!({"id": "1", "link": "https://x.test"}), 100),
            ("image", json!({}), 131_008),
            ("audio", json!({"id": "1", "caption": "c"}), 100),
            ("document", json!({"id": "1", "filename": "a.pdf"}), 0),
            (
                "location",
                json!({"latitude": 30.0, "longitude": "31.2"}),
                0,
            ),
            ("location", json!({"latitude": 30.0}), 131_008),
            (
                "location",
                json!({"latitude": 300.0, "longitude": 1}),
                131_009,
            ),
            ("contacts", json!([{"name": {"formatted_name": "A"}}]), 0),
            ("contacts", json!([{"name": {}}]), 131_008),
            ("reaction", json!({"message_id": "x", "emoji": ""}), 0),
            ("reaction", json!({"emoji": "x"}), 131_008),
            ("interactive", with_buttons(vec![reply("1", "Yes")]), 0),
            ("interactive", with_buttons(vec![]), 131_008),
            (
                "interactive",
                with_buttons(
                    (0..4)
                        .map(|n| reply(&n.to_string(), &n.to_string()))
                        .collect(),
                ),
                131_009,
            ),
            (
                "interactive",
                with_buttons(vec![reply("1", "a"), reply("1", "b")]),
                131_009,
            ),
            (
                "interactive",
                with_buttons(vec![reply("1", &"t".repeat(21))]),
                131_009,
            ),
            ("interactive", list(10), 0),
            ("interactive", list(11), 131_009),
            (
                "interactive",
                json!({"type": "list", "body": {"text": "?"}, "action":
                {"button": "b", "sections": [{"rows": [row]}, {"rows": [row]}]}}),
                131_009,
            ),
            (
                "template",
                json!({"name": "a", "language": {"code": "ar"}}),
                0,
            ),
            ("template", json!({"name": "a"}), 131_008),
            ("hologram", json!({}), 100),
        ];
        for (kind, content, expected) in cases {
            assert_eq!(code(kind, content.clone()), expected, "{kind} {content}");
        }
    }
}
