//! A customer's mail as a message.

use chrono::{DateTime, Utc};
use mail_parser::{Message, MessagePart, MimeHeaders, PartType};
use ring::digest;
use serde_json::{Map, Value};
use wasel_domain::content::{MediaRef, MessageContent, MessageKind};
use wasel_domain::event::{Identity, IdentityKind, InboundMessage, Party, ProviderEvent};

use super::{MAX_TEXT_CHARS, address, html, quote};

/// HTML longer than this is not kept beside the text; the raw mail still has it.
const MAX_HTML_BYTES: usize = 512 * 1024;
const MAX_THREAD_IDS: usize = 50;
const MAX_FILES: usize = 100;
/// Addresses kept of `To` and of `Cc`.
const MAX_NAMED: usize = 50;
const MAX_NAME_CHARS: usize = 200;
const MAX_SUBJECT_CHARS: usize = 1_000;

/// Before the number of a part in [`MediaRef::provider_id`].
pub(super) const PART: &str = "part:";

/// The message, or `None` where it names no sender.
pub(super) fn message(mail: &Message<'_>, raw: &[u8], at: DateTime<Utc>) -> Option<ProviderEvent> {
    let customer = sender(mail)?;
    let references = address::ids(mail.references());
    let answers = address::ids(mail.in_reply_to());
    let mut thread_ids: Vec<String> = references.iter().rev().cloned().collect();
    // Some programs name only the one they answer.
    thread_ids.extend(
        answers
            .iter()
            .filter(|id| !references.contains(id))
            .cloned(),
    );
    thread_ids.truncate(MAX_THREAD_IDS);
    Some(ProviderEvent::Message(InboundMessage {
        provider_message_id: message_id(mail, raw),
        customer,
        sent_at: at,
        content: content(mail),
        quoted_message_id: answers.into_iter().next(),
        thread_ids,
        forwarded: false,
        referral: None,
        group_id: None,
        from_history: false,
    }))
}

/// The Message-ID, or one made of the bytes, which are the same when the mail is posted again.
fn message_id(mail: &Message<'_>, raw: &[u8]) -> String {
    mail.message_id().and_then(address::id).unwrap_or_else(|| {
        let hash = digest::digest(&digest::SHA256, raw);
        format!("sha256:{}", hex::encode(hash))
    })
}

fn sender(mail: &Message<'_>) -> Option<Party> {
    let named = [mail.from(), mail.sender(), mail.reply_to()];
    let (address, name) = named
        .into_iter()
        .flatten()
        .flat_map(mail_parser::Address::iter)
        .find_map(|one| Some((address::normalise(one.address()?)?, one.name())))?;
    let name = name
        .map(|name| bounded(&one_line(name), MAX_NAME_CHARS))
        .filter(|name| !name.is_empty());
    Some(Party {
        identities: vec![Identity::new(IdentityKind::Email, address)],
        name,
    })
}

fn content(mail: &Message<'_>) -> MessageContent {
    let subject = mail
        .subject()
        .map(|subject| bounded(&one_line(subject), MAX_SUBJECT_CHARS))
        .filter(|subject| !subject.is_empty());
    let media = files(mail);
    let Words { text, full, html } = words(mail, subject.as_deref());

    let mut detail = Map::new();
    let mut note = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            detail.insert(key.to_owned(), value);
        }
    };
    note("subject", subject.clone().map(Value::from));
    note("html", html.map(Value::from));
    note("full_text", full.map(Value::from));
    let named = |header| {
        let mut list = address::list(header);
        list.truncate(MAX_NAMED);
        Value::from(list)
    };
    note("to", Some(named(mail.to())));
    note("cc", Some(named(mail.cc())));
    note(
        "reply_to",
        mail.reply_to().map(|header| named(Some(header))),
    );
    // RFC 3834: whatever is not "no" must not be answered by a machine.
    let auto_submitted = address::text(mail, "Auto-Submitted")
        .map(|value| bounded(&one_line(value), MAX_NAME_CHARS).to_lowercase())
        .filter(|value| value != "no");
    note("auto_submitted", auto_submitted.map(Value::from));

    let kind = match (&text, media.first()) {
        (None, Some(file)) => kind_of(file),
        _ => MessageKind::Text,
    };
    MessageContent {
        kind,
        // A mail may be all subject.
        text: text.or_else(|| subject.filter(|_| media.is_empty())),
        media,
        detail: Value::Object(detail),
    }
}

struct Words {
    text: Option<String>,
    /// With what was quoted, where that was cut off.
    full: Option<String>,
    html: Option<String>,
}

fn words(mail: &Message<'_>, subject: Option<&str>) -> Words {
    let html = parts(mail, &mail.html_body).find_map(|part| match &part.body {
        PartType::Html(html) => Some(html.as_ref()),
        _ => None,
    });
    let plain: Vec<&str> = parts(mail, &mail.text_body)
        .filter_map(|part| match &part.body {
            PartType::Text(text) => Some(text.trim()),
            _ => None,
        })
        .filter(|text| !text.is_empty())
        .collect();
    // Only a reply quotes; what a customer forwards is what they have to say.
    let is_forward = subject.is_some_and(|subject| {
        let subject = subject.to_lowercase();
        ["fw:", "fwd:", "إعادة توجيه:"]
            .iter()
            .any(|mark| subject.starts_with(mark))
    });
    let is_reply = !is_forward
        && (!address::ids(mail.in_reply_to()).is_empty()
            || !address::ids(mail.references()).is_empty());

    let (whole, own) = if plain.is_empty() {
        let own = html.and_then(quote::own_html).map(html::to_text);
        (html.map(html::to_text).unwrap_or_default(), own)
    } else {
        let whole = plain.join("\n\n").replace("\r\n", "\n");
        // Bounded first: what lies behind the bound is not looked at for quotations either.
        let whole = bounded(&whole, MAX_TEXT_CHARS);
        let own = quote::own_text(&whole).map(str::to_owned);
        (whole, own)
    };
    let whole = bounded(&whole, MAX_TEXT_CHARS);
    let own = own
        .filter(|own| is_reply && !own.trim().is_empty() && *own != whole)
        .map(|own| bounded(&own, MAX_TEXT_CHARS));
    let (text, full) = match own {
        Some(own) => (own, Some(whole)),
        None => (whole, None),
    };
    Words {
        text: Some(text).filter(|text| !text.trim().is_empty()),
        full,
        html: html
            .filter(|html| html.len() <= MAX_HTML_BYTES && !html.trim().is_empty())
            .map(str::to_owned),
    }
}

fn parts<'a, 'x>(
    mail: &'a Message<'x>,
    ids: &'a [u32],
) -> impl Iterator<Item = &'a MessagePart<'x>> {
    ids.iter().filter_map(|id| mail.part(*id))
}

/// The mail's files, by the number of their part.
fn files(mail: &Message<'_>) -> Vec<MediaRef> {
    let mut files = Vec::new();
    for id in &mail.attachments {
        let Some(part) = mail.part(*id) else { continue };
        if matches!(part.body, PartType::Multipart(_)) || part.contents().is_empty() {
            continue;
        }
        files.push(MediaRef {
            provider_id: Some(format!("{PART}{id}")),
            mime_type: Some(mime_type(part)),
            filename: filename(part),
            ..MediaRef::default()
        });
        if files.len() == MAX_FILES {
            break;
        }
    }
    files
}

/// The declared type in lower case; `application/octet-stream` where there is none.
pub(super) fn mime_type(part: &MessagePart<'_>) -> String {
    let declared = part.content_type().and_then(|declared| {
        let whole = format!("{}/{}", declared.ctype(), declared.subtype()?).to_lowercase();
        let is_token =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '+' | '.' | '_');
        (whole.len() <= 127 && whole.chars().all(is_token)).then_some(whole)
    });
    declared.unwrap_or_else(|| match part.body {
        PartType::Message(_) => "message/rfc822".to_owned(),
        PartType::Text(_) => "text/plain".to_owned(),
        _ => "application/octet-stream".to_owned(),
    })
}

/// Without folders: some programs send whole paths, and attackers do.
fn filename(part: &MessagePart<'_>) -> Option<String> {
    let name = part.attachment_name()?;
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = bounded(&one_line(name), MAX_NAME_CHARS);
    Some(name).filter(|name| !name.is_empty() && !matches!(name.as_str(), "." | ".."))
}

fn kind_of(file: &MediaRef) -> MessageKind {
    let mime_type = file.mime_type.as_deref().unwrap_or_default();
    match mime_type.split('/').next() {
        Some("image") => MessageKind::Image,
        Some("audio") => MessageKind::Audio,
        Some("video") => MessageKind::Video,
        _ => MessageKind::Document,
    }
}

/// Without line breaks and other control characters, and with single spaces.
pub(super) fn one_line(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn bounded(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
