//! Limits of Meta's that can be checked before a message is queued. What only Meta knows (a template's parameters,
//! a file's size behind a link) is left to Meta.

use std::collections::HashSet;

use serde_json::Value;
use url::Url;
use wasel_domain::content::{MediaSource, OutboundContent, OutboundMedia, OutboundTemplate};

use crate::ContentError;

pub(super) const MAX_TEXT_CHARS: usize = 4096;
const MAX_CAPTION_CHARS: usize = 1024;

pub(super) fn check(content: &OutboundContent) -> Result<(), ContentError> {
    match content {
        OutboundContent::Text { body, .. } => text("content.body", body, MAX_TEXT_CHARS),
        OutboundContent::Image(file)
        | OutboundContent::Video(file)
        | OutboundContent::Document(file) => media(file),
        OutboundContent::Audio(file) | OutboundContent::Sticker(file) => {
            if file.caption.is_some() {
                return wrong("content.caption", "audio and stickers have no caption");
            }
            media(file)
        }
        OutboundContent::Location {
            latitude,
            longitude,
            ..
        } => {
            if !(-90.0..=90.0).contains(latitude) {
                return wrong("content.latitude", "must be between -90 and 90");
            }
            if !(-180.0..=180.0).contains(longitude) {
                return wrong("content.longitude", "must be between -180 and 180");
            }
            Ok(())
        }
        OutboundContent::Email { .. } => {
            wrong("content.type", "an e-mail goes to an e-mail channel")
        }
        OutboundContent::Contacts { contacts } => cards(contacts),
        OutboundContent::Interactive { interactive: body } => interactive(body),
        OutboundContent::Template(named) => template(named),
        OutboundContent::Reaction { message_id, .. } if message_id.is_empty() => {
            wrong("content.message_id", "must name a message")
        }
        OutboundContent::Reaction { .. } => Ok(()),
    }
}

fn media(file: &OutboundMedia) -> Result<(), ContentError> {
    match &file.source {
        MediaSource::Link(link) => {
            let is_web = Url::parse(link)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !is_web {
                return wrong("content.link", "must be an http or https address");
            }
        }
        MediaSource::ProviderId(id) if id.is_empty() => {
            return wrong("content.provider_id", "must not be empty");
        }
        MediaSource::ProviderId(_) => {}
    }
    match &file.caption {
        Some(caption) => at_most("content.caption", caption, MAX_CAPTION_CHARS),
        None => Ok(()),
    }
}

fn cards(cards: &[Value]) -> Result<(), ContentError> {
    if cards.is_empty() {
        return wrong("content.contacts", "must hold at least one contact");
    }
    for (i, card) in cards.iter().enumerate() {
        let name = card.pointer("/name/formatted_name").and_then(Value::as_str);
        if name.is_none_or(str::is_empty) {
            let field = format!("content.contacts[{i}].name.formatted_name");
            return wrong(field, "is missing");
        }
    }
    Ok(())
}

fn template(template: &OutboundTemplate) -> Result<(), ContentError> {
    let name = template.name.as_deref().unwrap_or_default();
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() {
        return wrong("content.name", "must name an approved template");
    }
    if name.len() > 512 || !name.bytes().all(is_name) {
        return wrong(
            "content.name",
            "a template's name has lower-case letters, digits and _ only",
        );
    }
    if template.language.as_deref().unwrap_or_default().is_empty() {
        return wrong("content.language", "must be a language code such as `ar`");
    }
    for (i, component) in template.components.iter().enumerate() {
        if component.get("type").and_then(Value::as_str).is_none() {
            return wrong(format!("content.components[{i}].type"), "is missing");
        }
    }
    Ok(())
}

/// The types whose limits are known; the others (flows, catalogues, carousels …) only need a type and an action.
fn interactive(body: &Value) -> Result<(), ContentError> {
    const PATH: &str = "content.interactive";
    let Some(kind) = body.get("type").and_then(Value::as_str) else {
        return wrong(format!("{PATH}.type"), "is missing");
    };
    let max_body = if kind == "list" { 4096 } else { 1024 };
    let texts = [
        ("body", "body.text", max_body),
        ("header", "header.text", 60),
        ("footer", "footer.text", 60),
    ];
    for (part, path, max) in texts {
        if let Some(found) = body.get(part).and_then(|part| part.get("text")) {
            let path = format!("{PATH}.{path}");
            text(path.clone(), as_text(&path, found)?, max)?;
        }
    }
    let needs_body = !matches!(kind, "product" | "address_message");
    if needs_body && body.pointer("/body/text").is_none() {
        return wrong(format!("{PATH}.body.text"), "is missing");
    }
    let Some(action) = body.get("action") else {
        return wrong(format!("{PATH}.action"), "is missing");
    };
    match kind {
        "button" => buttons(action),
        "list" => list(action),
        _ => Ok(()),
    }
}

fn buttons(action: &Value) -> Result<(), ContentError> {
    const PATH: &str = "content.interactive.action.buttons";
    let buttons = action.get("buttons").and_then(Value::as_array);
    let Some(buttons) = buttons.filter(|buttons| (1..=3).contains(&buttons.len())) else {
        return wrong(PATH, "must hold one to three buttons");
    };
    let mut ids = HashSet::new();
    for (i, button) in buttons.iter().enumerate() {
        let reply = button.get("reply").unwrap_or(&Value::Null);
        let path = format!("{PATH}[{i}].reply");
        required(&path, reply, "title", 20)?;
        let id = required(&path, reply, "id", 256)?;
        if !ids.insert(id) {
            return wrong(format!("{path}.id"), "is used twice");
        }
    }
    Ok(())
}

fn list(action: &Value) -> Result<(), ContentError> {
    const PATH: &str = "content.interactive.action";
    required(PATH, action, "button", 20)?;
    let sections = action.get("sections").and_then(Value::as_array);
    let Some(sections) = sections.filter(|sections| (1..=10).contains(&sections.len())) else {
        return wrong(format!("{PATH}.sections"), "must hold one to ten sections");
    };
    let mut ids = HashSet::new();
    for (i, section) in sections.iter().enumerate() {
        let path = format!("{PATH}.sections[{i}]");
        if sections.len() > 1 {
            required(&path, section, "title", 24)?;
        }
        let rows = section.get("rows").and_then(Value::as_array);
        let Some(rows) = rows.filter(|rows| !rows.is_empty()) else {
            return wrong(format!("{path}.rows"), "must hold at least one row");
        };
        for (j, row) in rows.iter().enumerate() {
            let path = format!("{path}.rows[{j}]");
            required(&path, row, "title", 24)?;
            if let Some(description) = row.get("description") {
                let path = format!("{path}.description");
                at_most(path.clone(), as_text(&path, description)?, 72)?;
            }
            let id = required(&path, row, "id", 200)?;
            if !ids.insert(id) {
                return wrong(format!("{path}.id"), "is used twice");
            }
        }
    }
    if ids.len() > 10 {
        return wrong(
            format!("{PATH}.sections"),
            "a list has at most ten rows in all",
        );
    }
    Ok(())
}

fn required<'a>(
    path: &str,
    object: &'a Value,
    name: &str,
    max: usize,
) -> Result<&'a str, ContentError> {
    let path = format!("{path}.{name}");
    let found = as_text(&path, object.get(name).unwrap_or(&Value::Null))?;
    text(path, found, max)?;
    Ok(found)
}

fn as_text<'a>(path: &str, value: &'a Value) -> Result<&'a str, ContentError> {
    value.as_str().ok_or_else(|| ContentError {
        field: path.to_owned(),
        reason: "must be a text".to_owned(),
    })
}

/// Not blank, and not longer than `max` characters.
fn text(field: impl Into<String>, text: &str, max: usize) -> Result<(), ContentError> {
    if text.trim().is_empty() {
        return wrong(field, "must not be empty");
    }
    at_most(field, text, max)
}

fn at_most(field: impl Into<String>, text: &str, max: usize) -> Result<(), ContentError> {
    let chars = text.chars().count();
    if chars > max {
        return wrong(field, format!("has {chars} characters; {max} are allowed"));
    }
    Ok(())
}

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> Result<(), ContentError> {
    Err(ContentError {
        field: field.into(),
        reason: reason.into(),
    })
}
