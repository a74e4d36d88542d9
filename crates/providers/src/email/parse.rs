//! From the raw mail of one webhook request to events: a customer's message, a bounce, a complaint, or our own mail
//! coming back.

use chrono::{DateTime, TimeDelta, Utc};
use mail_parser::{Message, MessageParser, PartType};
use wasel_domain::RoutedEvent;

use super::compose::ATTEMPT_HEADER;
use super::{address, inbound, report};
use crate::{ParseError, WebhookRequest};

/// Lines that may part a mail. Each part costs the parser more memory than it has bytes, and the mail is taken apart
/// before it is known who posted it.
const MAX_BOUNDARIES: usize = 10_000;

/// Mentions of a boundary. Each may send the parser through the whole rest of the mail to look for it.
const MAX_MULTIPARTS: usize = 1_000;

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

/// Takes a mail apart. It has at least its own headers as a part.
pub(super) fn read(raw: &[u8]) -> Result<Mail<'_>, ParseError> {
    let lines = raw.split(|byte| *byte == b'\n');
    let boundaries = lines.filter(|line| line.starts_with(b"--")).count();
    let words = raw.windows(b"boundary".len());
    let multiparts = words.filter(|word| word.eq_ignore_ascii_case(b"boundary"));
    if boundaries > MAX_BOUNDARIES || multiparts.count() > MAX_MULTIPARTS {
        return Err(error("the mail has too many parts"));
    }
    MessageParser::default()
        .parse(raw)
        .map(Mail)
        .filter(|mail| !mail.parts.is_empty())
        .ok_or_else(|| error("the body is no mail"))
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
