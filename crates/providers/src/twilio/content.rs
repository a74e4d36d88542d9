//! A message's content as Twilio's form fields: the one place that knows what a Twilio channel can carry. A
//! check before queueing asks here, and so does sending.

use serde_json::{Map, Value};
use url::Url;
use wasel_domain::OutboundContent;
use wasel_domain::content::{MediaSource, OutboundMedia, OutboundTemplate};

use super::MAX_BODY_CHARS;
use super::address::Network;
use crate::ContentError;

pub(super) type Fields = Vec<(&'static str, String)>;

/// The fields for the content, or what about it cannot be sent.
pub(super) fn fields(network: Network, content: &OutboundContent) -> Result<Fields, ContentError> {
    match content {
        // Twilio decides on link previews itself.
        OutboundContent::Text { body, .. } => {
            if body.trim().is_empty() {
                return Err(refusal("body", "is empty"));
            }
            Ok(vec![("Body", body_text("body", body)?)])
        }
        OutboundContent::Image(media)
        | OutboundContent::Video(media)
        | OutboundContent::Audio(media)
        | OutboundContent::Document(media) => file(media),
        // WhatsApp shows a WebP file as a sticker; an MMS has no such thing.
        OutboundContent::Sticker(media) if network == Network::Whatsapp => file(media),
        OutboundContent::Location {
            latitude,
            longitude,
            name,
            address,
        } if network == Network::Whatsapp => {
            location(*latitude, *longitude, name.as_deref(), address.as_deref())
        }
        OutboundContent::Template(content) => template(content),
        OutboundContent::Sticker(_) => Err(refusal("type", "SMS has no stickers")),
        OutboundContent::Location { .. } => Err(refusal(
            "type",
            "SMS has no locations; send a link to a map",
        )),
        OutboundContent::Email { .. } => {
            Err(refusal("type", "an e-mail goes to an e-mail channel"))
        }
        OutboundContent::Contacts { .. } => {
            Err(refusal("type", "Twilio cannot send contact cards"))
        }
        OutboundContent::Interactive { .. } => Err(refusal(
            "type",
            "Twilio sends buttons and lists as content templates only",
        )),
        OutboundContent::Reaction { .. } => Err(refusal("type", "Twilio cannot send reactions")),
    }
}

fn refusal(field: &str, reason: impl Into<String>) -> ContentError {
    ContentError {
        field: format!("content.{field}"),
        reason: reason.into(),
    }
}

fn body_text(field: &str, text: &str) -> Result<String, ContentError> {
    if text.chars().count() > MAX_BODY_CHARS {
        return Err(refusal(
            field,
            format!("is longer than {MAX_BODY_CHARS} characters"),
        ));
    }
    Ok(text.to_owned())
}

fn file(media: &OutboundMedia) -> Result<Fields, ContentError> {
    let MediaSource::Link(link) = &media.source else {
        return Err(refusal(
            "provider_id",
            "Twilio has no uploads; give a link it can fetch",
        ));
    };
    let is_fetchable = Url::parse(link)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_fetchable {
        return Err(refusal("link", "is not an http(s) address"));
    }
    let caption = media
        .caption
        .as_deref()
        .filter(|caption| !caption.is_empty());
    let mut fields = Fields::new();
    if let Some(caption) = caption {
        fields.push(("Body", body_text("caption", caption)?));
    }
    fields.push(("MediaUrl", link.clone()));
    Ok(fields)
}

/// Twilio, "Send location messages with WhatsApp": a body, and `geo:latitude,longitude|label` as the action.
fn location(
    latitude: f64,
    longitude: f64,
    name: Option<&str>,
    address: Option<&str>,
) -> Result<Fields, ContentError> {
    for (field, degrees, limit) in [
        ("latitude", latitude, 90.0),
        ("longitude", longitude, 180.0),
    ] {
        if !(-limit..=limit).contains(&degrees) {
            return Err(refusal(
                field,
                format!("is not between -{limit} and {limit}"),
            ));
        }
    }
    let place = format!("{latitude},{longitude}");
    let label = address.or(name).map_or_else(String::new, |label| {
        // The bar separates the label from the place.
        format!("|{}", label.replace('|', " "))
    });
    let body = name.or(address).unwrap_or(&place);
    Ok(vec![
        ("Body", body_text("name", body)?),
        ("PersistentAction", format!("geo:{place}{label}")),
    ])
}

fn template(template: &OutboundTemplate) -> Result<Fields, ContentError> {
    let content_sid = template
        .content_sid
        .as_deref()
        .filter(|sid| !sid.is_empty())
        .ok_or_else(|| {
            refusal(
                "content_sid",
                "is missing; Twilio knows templates by their Content SID",
            )
        })?;
    if !content_sid.starts_with("HX") {
        return Err(refusal("content_sid", "is not an id that starts with HX"));
    }
    let mut fields = vec![("ContentSid", content_sid.to_owned())];
    let variables = template.variables.iter().flatten();
    let variables: Map<String, Value> = variables
        .map(|(name, value)| Ok((name.clone(), Value::String(variable(name, value)?))))
        .collect::<Result<_, ContentError>>()?;
    if !variables.is_empty() {
        fields.push(("ContentVariables", Value::Object(variables).to_string()));
    }
    Ok(fields)
}

/// Twilio takes texts only.
fn variable(name: &str, value: &Value) -> Result<String, ContentError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(refusal(
            &format!("variables.{name}"),
            "is neither a text nor a number",
        )),
    }
}
