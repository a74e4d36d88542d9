//! What a message holds, by its type: `message.<type>` to the shapes of [`MessageContent`].

use serde_json::{Map, Value, json};
use wasel_domain::{MediaRef, MessageContent, MessageKind};

use super::json::Object;

/// `None` for a type that is unknown or lacks what its type promises.
pub(super) fn read(message: &Object<'_>, kind: &str) -> Option<MessageContent> {
    let mut content = match kind {
        "text" => MessageContent::text(message.object("text")?.string("body")?),
        "image" => media(message, kind, MessageKind::Image)?,
        "video" => media(message, kind, MessageKind::Video)?,
        "audio" | "voice" => media(message, kind, MessageKind::Audio)?,
        "document" => media(message, kind, MessageKind::Document)?,
        "sticker" => media(message, kind, MessageKind::Sticker)?,
        "location" => location(&message.object(kind)?)?,
        "contacts" => contacts(message)?,
        "interactive" => interactive(&message.object(kind)?)?,
        "button" => button(&message.object(kind)?)?,
        "order" => order(&message.object(kind)?)?,
        _ => return None,
    };
    // The catalogue item a question is about.
    let context = message.object("context");
    if let Some(product) = context.and_then(|context| context.value("referred_product")) {
        match &mut content.detail {
            Value::Object(detail) => {
                detail.insert("referred_product".to_owned(), product);
            }
            detail => *detail = json!({"referred_product": product}),
        }
    }
    Some(content)
}

/// A placeholder that says what came and keeps it whole.
pub(super) fn unsupported(message: &Object<'_>, kind: &str) -> MessageContent {
    let mut detail = Map::new();
    detail.insert("type".to_owned(), kind.into());
    if let Some(errors) = message.value("errors") {
        detail.insert("errors".to_owned(), errors);
    }
    detail.insert("raw".to_owned(), message.to_value());
    MessageContent {
        kind: MessageKind::Unsupported,
        text: None,
        media: Vec::new(),
        detail: detail.into(),
    }
}

fn media(message: &Object<'_>, name: &str, kind: MessageKind) -> Option<MessageContent> {
    let file = message.object(name)?;
    let media = MediaRef {
        provider_id: file.string("id"),
        url: file.string("url"),
        mime_type: file.string("mime_type"),
        filename: file.string("filename"),
        sha256: file.string("sha256"),
        // Older versions have the type `voice` for what is now audio with a flag.
        voice: name == "voice" || file.flag("voice"),
    };
    if media.provider_id.is_none() && media.url.is_none() {
        return None;
    }
    let is_animated = file.flag("animated");
    Some(MessageContent {
        kind,
        text: file.string("caption"),
        media: vec![media],
        detail: if is_animated {
            json!({"animated": true})
        } else {
            Value::Null
        },
    })
}

fn location(place: &Object<'_>) -> Option<MessageContent> {
    place.text("latitude")?;
    place.text("longitude")?;
    let text = place.string("name").or_else(|| place.string("address"));
    Some(with_detail(MessageKind::Location, text, place.to_value()))
}

/// Cards with a name, or vCards as text (`{vcard, origin}`).
fn contacts(message: &Object<'_>) -> Option<MessageContent> {
    let cards = message.list("contacts");
    let cards: Option<Vec<Object<'_>>> = cards.into_iter().map(Object::read).collect();
    let cards = cards.filter(|cards| !cards.is_empty())?;
    let names: Vec<String> = cards.iter().filter_map(name_on).collect();
    let text = Some(names.join(", ")).filter(|text| !text.is_empty());
    let cards: Vec<Value> = cards.iter().map(Object::to_value).collect();
    Some(with_detail(
        MessageKind::Contacts,
        text,
        json!({"contacts": cards}),
    ))
}

fn name_on(card: &Object<'_>) -> Option<String> {
    if let Some(name) = card.object("name") {
        return name.string("formatted_name");
    }
    let vcard = card.text("vcard")?;
    let line = vcard.lines().find_map(|line| line.strip_prefix("FN:"))?;
    Some(line.trim().to_owned())
}

/// The customer's choice: `{type, <type>: {…}}` becomes `{type, …}`.
fn interactive(interactive: &Object<'_>) -> Option<MessageContent> {
    let kind = interactive.string("type")?;
    let choice = interactive.object(&kind)?;
    let Value::Object(mut detail) = choice.to_value() else {
        return None;
    };
    // A flow's answers are JSON inside a text, by custom an object.
    if let Some(response) = choice.text("response_json") {
        detail.remove("response_json");
        let response = serde_json::from_str(&response).unwrap_or_else(|_| response.into());
        detail.insert("response".to_owned(), response);
    }
    detail.insert("type".to_owned(), kind.into());
    let text = ["title", "body", "name", "response"];
    let text = text.into_iter().find_map(|name| choice.string(name));
    Some(with_detail(MessageKind::Interactive, text, detail.into()))
}

/// A tap on a template's quick reply.
fn button(button: &Object<'_>) -> Option<MessageContent> {
    let text = button.string("text").or_else(|| button.string("payload"))?;
    Some(with_detail(
        MessageKind::Button,
        Some(text),
        button.to_value(),
    ))
}

fn order(order: &Object<'_>) -> Option<MessageContent> {
    order.get("product_items")?;
    Some(with_detail(
        MessageKind::Order,
        order.string("text"),
        order.to_value(),
    ))
}

fn with_detail(kind: MessageKind, text: Option<String>, detail: Value) -> MessageContent {
    MessageContent {
        kind,
        text,
        media: Vec::new(),
        detail,
    }
}
