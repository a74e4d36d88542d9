//! From the raw mail of one webhook request to events: a customer's message, a bounce, a complaint, or our own mail
//! coming back.

use std::sync::LazyLock;

use chrono::{DateTime, TimeDelta, Utc};
use mail_parser::{Header, HeaderName, Message, MessageParser, MimeHeaders, PartType};
use wasel_domain::RoutedEvent;

use super::compose::ATTEMPT_HEADER;
use super::{address, bounds, inbound, report};
use crate::{ParseError, WebhookRequest};

/// Of one header field what lies behind is not decoded: words and lists may take the parser the square of their length.
const MAX_FIELD_BYTES: usize = 32 * 1024;
/// Of the fields of one mail.
const MAX_HEAD_BYTES: usize = 128 * 1024;

/// Reads of every header only what says where parts begin and end; the rest stays as it is. See [`head`].
static STRUCTURE: LazyLock<MessageParser> =
    LazyLock::new(|| shell().header_raw(HeaderName::ContentTransferEncoding));

/// Takes every part for unencoded.
static SHELL: LazyLock<MessageParser> = LazyLock::new(shell);

fn shell() -> MessageParser {
    MessageParser::new()
        .header_content_type(HeaderName::ContentType)
        .header_content_type(HeaderName::ContentDisposition)
        .ignore_header(HeaderName::ContentTransferEncoding)
        .default_header_raw()
}

/// A `Date` older than this is a broken clock; mail servers give up after days.
const OLDEST: TimeDelta = TimeDelta::days(366);

pub(super) fn events(request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError> {
    let mail = read(request.body)?;
    let at = sent_at(&mail, request.received_at);
    if let Some(events) = report::events(&mail, at) {
        return if events.iter().any(|event| event.routes.is_empty()) {
            Err(error("the report names no address of ours"))
        } else {
            Ok(events)
        };
    }
    if is_our_own(&mail) {
        return Ok(Vec::new());
    }
    let routes = address::routes_of(address::recipients(&mail));
    if routes.is_empty() {
        return Err(error("the mail names no recipient"));
    }
    let event = inbound::message(&mail, request.body, at)
        .ok_or_else(|| error("the mail names no sender"))?;
    Ok(vec![RoutedEvent { routes, event }])
}

/// A mail, taken apart. A stranger can put a mail into a mail into a mail …, thousands deep; dropping that level by
/// level would need as deep a stack, so it is done here without one.
pub(super) struct Mail<'x>(Message<'x>);

impl<'x> std::ops::Deref for Mail<'x> {
    type Target = Message<'x>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Mail<'_> {
    fn drop(&mut self) {
        let mut parts = std::mem::take(&mut self.0.parts);
        while let Some(mut part) = parts.pop() {
            if let PartType::Message(inner) = &mut part.body {
                parts.append(&mut inner.parts);
            }
        }
    }
}

/// Takes a mail apart. It has at least its own headers as a part, and those of its top are decoded.
pub(super) fn read(raw: &[u8]) -> Result<Mail<'_>, ParseError> {
    if !bounds::holds(raw) {
        return Err(error("the mail has too many parts"));
    }
    // What is encoded is not looked at here, so an encoded mail is found before it is decoded and taken apart as
    // well: nothing has counted what is in it. RFC 2046 section 5.2.1 forbids it.
    let shell = SHELL.parse(raw).map(Mail);
    if shell.is_some_and(|shell| has_encoded_mail(&shell)) {
        return Err(error("a mail within the mail is encoded"));
    }
    let mut mail = STRUCTURE
        .parse(raw)
        .map(Mail)
        .filter(|mail| !mail.parts.is_empty())
        .ok_or_else(|| error("the body is no mail"))?;
    if let (Some(head), Some(top)) = (head(&mail), mail.0.parts.first_mut())
        && let Some(decoded) = head.parts.into_iter().next()
    {
        top.headers = decoded.headers;
    }
    Ok(mail)
}

/// The headers of a mail or of a mail within one, decoded; no parts.
pub(super) fn head(mail: &Message<'_>) -> Option<Message<'static>> {
    let mut text = Vec::new();
    for field in &mail.parts.first()?.headers {
        let (start, end) = (field.offset_field as usize, field.offset_end as usize);
        let field = mail.raw_message.get(start..end).unwrap_or_default();
        text.extend_from_slice(&field[..field.len().min(MAX_FIELD_BYTES)]);
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        if text.len() > MAX_HEAD_BYTES {
            break;
        }
    }
    let head = MessageParser::default().parse_headers(&text)?;
    Some(head.into_owned())
}

/// The same of headers that stand for themselves.
pub(super) fn head_of(text: &[u8]) -> Option<Message<'static>> {
    let text = &text[..text.len().min(MAX_HEAD_BYTES)];
    head(&STRUCTURE.parse_headers(text)?)
}

/// Whether a mail within the mail is written in base64 or the like.
fn has_encoded_mail(mail: &Message<'_>) -> bool {
    let mut mails = vec![mail];
    while let Some(mail) = mails.pop() {
        // There a part without a type is a mail (RFC 2046 section 5.1.5).
        let is_digest = mail
            .parts
            .iter()
            .any(|part| part.is_content_type("multipart", "digest"));
        for part in &mail.parts {
            let is_mail = match part.content_type() {
                None => is_digest,
                Some(_) => ["rfc822", "global"]
                    .iter()
                    .any(|subtype| part.is_content_type("message", subtype)),
            };
            let is_encoded = |field: &Header<'_>| {
                let (start, end) = (field.offset_start as usize, field.offset_end as usize);
                let value = mail.raw_message.get(start..end).unwrap_or_default();
                field.name == HeaderName::ContentTransferEncoding
                    && ["base64", "quoted-printable"]
                        .iter()
                        .any(|name| value.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
            };
            if is_mail && part.headers.iter().any(is_encoded) {
                return true;
            }
            if let PartType::Message(inner) = &part.body {
                mails.push(inner);
            }
        }
    }
    false
}

fn error(reason: &str) -> ParseError {
    ParseError(reason.to_owned())
}

/// The time in the mail, if it is a likely one; otherwise that of its arrival.
fn sent_at(mail: &Message<'_>, received_at: DateTime<Utc>) -> DateTime<Utc> {
    mail.date()
        .filter(|date| date.is_valid())
        .and_then(|date| DateTime::from_timestamp(date.to_timestamp(), 0))
        .filter(|date| *date <= received_at && received_at - *date <= OLDEST)
        .unwrap_or(received_at)
}

/// Mail of ours that came back to the mailbox it was sent from: the customer forwards everything, or a list repeats
/// what it gets. Mail from one of our channels to another is a message like any other.
fn is_our_own(mail: &Message<'_>) -> bool {
    let from = address::list(mail.from());
    let is_from = |addresses: Vec<String>| addresses.iter().any(|address| from.contains(address));
    is_from(address::envelope(mail))
        || (address::text(mail, ATTEMPT_HEADER).is_some() && is_from(address::recipients(mail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_field_longer_than_mail_programs_write_only_the_beginning_is_decoded() {
        let address = "someone@b.example, ";
        let text = format!("From: a@b.example\nTo: {}\n\nhi", address.repeat(100_000));
        let mail = read(text.as_bytes()).unwrap();
        let count = mail.to().unwrap().iter().count();
        assert!(
            (1..=MAX_FIELD_BYTES / address.len() + 1).contains(&count),
            "{count}"
        );
        assert_eq!(address::list(mail.from()), ["a@b.example"]);

        let many = "To: a@b.example\n".repeat(100_000);
        let head = head_of(many.as_bytes()).unwrap();
        assert!(head.headers().len() <= MAX_HEAD_BYTES / "To: a@b.example\n".len() + 1);
        let top = read(many.as_bytes()).unwrap().headers().len();
        assert!(
            top <= MAX_HEAD_BYTES / "To: a@b.example\n".len() + 1,
            "{top}"
        );
    }

    #[test]
    fn only_the_parts_of_a_mail_that_keeps_the_bounds_are_made() {
        let head = "From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n";
        let few = head.to_owned() + &"x--b\n\n".repeat(1_000);
        // Itself, one before which the first mark stands, and one between each two marks.
        let count = read(few.as_bytes()).unwrap().parts.len();
        assert!((1_000..=1_002).contains(&count), "{count}");
        let many = head.to_owned() + &"x--b\n\n".repeat(60_000);
        assert!(read(many.as_bytes()).is_err());
    }
}
