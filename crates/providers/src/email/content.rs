//! A message's content as the parts of an e-mail: the one place that knows what e-mail can carry. A check before
//! queueing asks here, and so does sending.
//!
//! A file is sent as a link: we fetch no address that a caller supplies (it could be one of our own network), and the
//! recipient's mail program opens a link as well as an attachment.

use url::Url;
use wasel_domain::OutboundContent;
use wasel_domain::content::{MediaSource, OutboundMedia};
use wasel_domain::email::MAX_SUBJECT_CHARS;

use super::{MAX_TEXT_CHARS, html};
use crate::ContentError;

/// In characters. Gmail cuts what it shows at 100 KB.
const MAX_HTML_CHARS: usize = 1_000_000;

/// The parts of an e-mail. At least one of text and HTML is there.
#[derive(Debug)]
pub(super) struct Parts {
    /// `None`: the thread's.
    pub subject: Option<String>,
    pub text: String,
    pub html: Option<String>,
}

/// The parts for the content, or what about it cannot be sent.
pub(super) fn parts(content: &OutboundContent) -> Result<Parts, ContentError> {
    match content {
        OutboundContent::Text { body, .. } => only_text(body_text("body", body)?),
        OutboundContent::Email {
            subject,
            text,
            html,
        } => email(subject, text.as_deref(), html.as_deref()),
        OutboundContent::Image(media)
        | OutboundContent::Video(media)
        | OutboundContent::Audio(media)
        | OutboundContent::Document(media) => file(media),
        OutboundContent::Location {
            latitude,
            longitude,
            name,
            address,
        } => location(*latitude, *longitude, name.as_deref(), address.as_deref()),
        OutboundContent::Template(template) => match &template.text {
            Some(text) => only_text(body_text("text", text)?),
            None => Err(refusal(
                "text",
                "is what an e-mail shows of a template, and is missing",
            )),
        },
        OutboundContent::Sticker(_) => Err(refusal("type", "an e-mail has no stickers")),
        OutboundContent::Contacts { .. } => Err(refusal("type", "an e-mail has no contact cards")),
        OutboundContent::Interactive { .. } => {
            Err(refusal("type", "an e-mail has no buttons and lists"))
        }
        OutboundContent::Reaction { .. } => Err(refusal("type", "an e-mail has no reactions")),
    }
}

fn refusal(field: &str, reason: impl Into<String>) -> ContentError {
    ContentError {
        field: format!("content.{field}"),
        reason: reason.into(),
    }
}

fn only_text(text: String) -> Result<Parts, ContentError> {
    Ok(Parts {
        subject: None,
        text,
        html: None,
    })
}

fn body_text(field: &str, text: &str) -> Result<String, ContentError> {
    if text.trim().is_empty() {
        return Err(refusal(field, "is empty"));
    }
    if text.chars().count() > MAX_TEXT_CHARS {
        let reason = format!("is longer than {MAX_TEXT_CHARS} characters");
        return Err(refusal(field, reason));
    }
    Ok(text.to_owned())
}

fn email(subject: &str, text: Option<&str>, html: Option<&str>) -> Result<Parts, ContentError> {
    if subject.trim().is_empty() {
        return Err(refusal("subject", "is empty"));
    }
    // A line break would begin another header.
    if subject.chars().any(char::is_control) {
        return Err(refusal(
            "subject",
            "holds a line break or another control character",
        ));
    }
    if subject.chars().count() > MAX_SUBJECT_CHARS {
        let reason = format!("is longer than {MAX_SUBJECT_CHARS} characters");
        return Err(refusal("subject", reason));
    }
    let html = html.filter(|html| !html.trim().is_empty());
    if html.is_some_and(|html| html.chars().count() > MAX_HTML_CHARS) {
        let reason = format!("is longer than {MAX_HTML_CHARS} characters");
        return Err(refusal("html", reason));
    }
    let text = text.filter(|text| !text.trim().is_empty());
    let text = match (text, html) {
        (Some(text), _) => body_text("text", text)?,
        (None, Some(html)) => html::to_text(html),
        (None, None) => return Err(refusal("text", "is empty, and so is html")),
    };
    Ok(Parts {
        subject: Some(subject.trim().to_owned()),
        text,
        html: html.map(str::to_owned),
    })
}

fn file(media: &OutboundMedia) -> Result<Parts, ContentError> {
    let MediaSource::Link(link) = &media.source else {
        return Err(refusal("provider_id", "e-mail has no uploads; give a link"));
    };
    let is_web = Url::parse(link).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if !is_web || link.contains(char::is_whitespace) {
        return Err(refusal("link", "is not an http(s) address"));
    }
    let lines = [
        media.caption.as_deref(),
        media.filename.as_deref(),
        Some(link),
    ];
    let lines: Vec<&str> = lines
        .into_iter()
        .flatten()
        .filter(|line| !line.trim().is_empty())
        .collect();
    only_text(body_text("caption", &lines.join("\n\n"))?)
}

fn location(
    latitude: f64,
    longitude: f64,
    name: Option<&str>,
    address: Option<&str>,
) -> Result<Parts, ContentError> {
    if !(-90.0..=90.0).contains(&latitude) {
        return Err(refusal("latitude", "is not between -90 and 90"));
    }
    if !(-180.0..=180.0).contains(&longitude) {
        return Err(refusal("longitude", "is not between -180 and 180"));
    }
    // Google, "Maps URLs": opens the map program of a phone, and a page elsewhere.
    let link = format!("https://www.google.com/maps/search/?api=1&query={latitude}%2C{longitude}");
    let lines: Vec<&str> = [name, address, Some(&link)]
        .into_iter()
        .flatten()
        .filter(|line| !line.trim().is_empty())
        .collect();
    only_text(body_text("name", &lines.join("\n"))?)
}
