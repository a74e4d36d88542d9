//! Mail that machines write about mail of ours: delivery reports (RFC 3464, and what mailer daemons wrote before it),
//! complaints (RFC 5965) and read receipts (RFC 8098).
//!
//! A report names our message twice: by the Message-ID in the headers it returns, and by our attempt id, which
//! survives relays that give mails a Message-ID of their own (Amazon SES, Exchange Online).

use chrono::{DateTime, Utc};
use mail_parser::{HeaderName, HeaderValue, Message, MessagePart, MimeHeaders, PartType};
use serde_json::json;
use wasel_domain::consent::Consent;
use wasel_domain::event::{
    ConsentEvent, Identity, IdentityKind, Notice, Party, ProviderError, ProviderEvent, RoutedEvent,
    StatusEvent,
};
use wasel_domain::{AttemptId, MessageStatus};

use super::compose::ATTEMPT_HEADER;
use super::{address, errors, inbound, parse};

/// "Other undefined status", where a report tells no code.
const UNKNOWN_STATUS: &str = "5.0.0";

/// A report on more recipients is none of ours: our messages have one.
const MAX_RECIPIENTS: usize = 20;

/// Who writes reports that are no `multipart/report`.
const DAEMONS: [&str; 3] = ["mailer-daemon", "postmaster", "mail-daemon"];

/// The line before the returned mail in reports without MIME parts: Exim, qmail.
const COPY_MARKS: [&str; 3] = [
    "------ This is a copy of ",
    "--- Below this line is a copy of the message.",
    "--- The header of the original message is following.",
];

/// What a report tells, or `None` where the mail is no report.
pub(super) fn events(mail: &Message<'_>, at: DateTime<Utc>) -> Option<Vec<RoutedEvent>> {
    let report_type = mail
        .content_type()
        .filter(|_| mail.is_content_type("multipart", "report"))
        .map(|content_type| content_type.attribute("report-type").unwrap_or_default());
    let statuses = part_text(mail, &["delivery-status", "global-delivery-status"]);
    let feedback = part_text(mail, &["feedback-report"]);
    let returned = Returned::find(mail);
    let events = match report_type {
        Some(_) if statuses.is_some() => delivery(&statuses?, &returned, mail, at),
        Some(_) if feedback.is_some() => complaint(&feedback?, &returned, at),
        Some(kind) if kind.eq_ignore_ascii_case("disposition-notification") => Vec::new(),
        _ => daemon(mail, &returned, at)?,
    };
    let routes = address::routes_of(
        address::recipients(mail)
            .into_iter()
            .chain(returned.from)
            .chain(returned.to),
    );
    let routed = events.into_iter().map(|event| RoutedEvent {
        routes: routes.clone(),
        event,
    });
    Some(routed.collect())
}

/// What came back of our message.
#[derive(Default)]
struct Returned {
    message_id: Option<String>,
    attempt_id: Option<AttemptId>,
    from: Vec<String>,
    to: Vec<String>,
    /// A mail or its headers were in the report, whatever they held.
    is_there: bool,
}

impl Returned {
    fn find(mail: &Message<'_>) -> Self {
        let mut returned = mail
            .parts
            .iter()
            .find_map(Self::in_part)
            .or_else(|| body(mail).and_then(Self::in_text))
            .unwrap_or_default();
        if returned.message_id.is_none() {
            // Gmail's reports answer the mail they are about.
            let answered = address::ids(mail.in_reply_to());
            returned.message_id = answered.into_iter().next();
        }
        returned
    }

    fn in_part(part: &MessagePart<'_>) -> Option<Self> {
        if let PartType::Message(mail) = &part.body {
            return parse::head(mail).map(|head| Self::of(&head));
        }
        let subtype = part.content_type()?.subtype()?;
        let is_headers = ["rfc822-headers", "rfc822", "global-headers", "global"]
            .iter()
            .any(|name| subtype.eq_ignore_ascii_case(name));
        is_headers
            .then(|| parse::head_of(part.contents()))
            .flatten()
            .map(|head| Self::of(&head))
    }

    fn in_text(text: &str) -> Option<Self> {
        let start = COPY_MARKS.iter().filter_map(|mark| text.find(mark)).min()?;
        let (_, copy) = text[start..].split_once('\n')?;
        let head = parse::head_of(copy.trim_start().as_bytes())?;
        Some(Self::of(&head))
    }

    fn of(head: &Message<'_>) -> Self {
        Self {
            message_id: head.message_id().and_then(address::id),
            attempt_id: address::text(head, ATTEMPT_HEADER).and_then(|id| id.parse().ok()),
            from: address::list(head.from()),
            to: address::list(head.to()),
            is_there: true,
        }
    }

    fn names_a_message(&self) -> bool {
        self.message_id.is_some() || self.attempt_id.is_some()
    }
}

/// RFC 3464: one group of fields about the message, then one per recipient.
fn delivery(
    text: &str,
    returned: &Returned,
    mail: &Message<'_>,
    at: DateTime<Utc>,
) -> Vec<ProviderEvent> {
    let recipients = groups(text)
        .into_iter()
        .filter(|fields| fields.get("action").is_some() || fields.get("status").is_some())
        .take(MAX_RECIPIENTS);
    let outcomes = recipients.map(|fields| {
        let status = fields.get("status").and_then(errors::enhanced_status);
        let diagnostic = fields.get("diagnostic-code").unwrap_or_default();
        // The type of the code: "smtp; 550 …".
        let diagnostic = match diagnostic.split_once(';') {
            Some((kind, words)) if !kind.trim().contains(' ') => words,
            _ => diagnostic,
        };
        let code = match (status, errors::enhanced_status(diagnostic)) {
            // "5.0.0" is what a relay writes that does not look into the answer it got.
            (Some(status), Some(better)) if status.ends_with(".0.0") => better,
            (Some(status), _) => status,
            (None, Some(status)) => status,
            (None, None) => UNKNOWN_STATUS,
        };
        let message = match errors::redacted(diagnostic) {
            words if words.is_empty() => {
                errors::redacted(mail.subject().unwrap_or("The mail was returned."))
            }
            words => words,
        };
        let action = fields.get("action").unwrap_or_default().to_lowercase();
        let action = match action.split_whitespace().next() {
            Some("failed") => Action::Failed,
            Some("delayed") => Action::Delayed,
            Some("delivered" | "relayed" | "expanded") => Action::Delivered,
            // Written by something that knows no actions: the class of the status tells.
            _ => match status.map(|status| &status[..1]) {
                Some("2") => Action::Delivered,
                Some("4") => Action::Delayed,
                _ => Action::Failed,
            },
        };
        outcome(action, code, message, returned, at)
    });
    outcomes.collect()
}

#[derive(Clone, Copy)]
enum Action {
    Failed,
    Delayed,
    Delivered,
}

fn outcome(
    action: Action,
    code: &str,
    message: String,
    returned: &Returned,
    at: DateTime<Utc>,
) -> ProviderEvent {
    let error = ProviderError {
        code: code.to_owned(),
        message,
    };
    let (status, error) = match action {
        Action::Delayed => return notice("email_delayed", &error, returned),
        _ if !returned.names_a_message() => return notice("email_report", &error, returned),
        Action::Failed => (MessageStatus::Failed, Some(error)),
        Action::Delivered => (MessageStatus::Delivered, None),
    };
    ProviderEvent::Status(StatusEvent {
        // Where only the attempt is known, it has to do.
        provider_message_id: returned.message_id.clone().unwrap_or_default(),
        attempt_id: returned.attempt_id,
        status,
        at,
        error,
        detail: serde_json::Value::Null,
    })
}

/// Something to know that changes no message.
fn notice(topic: &str, error: &ProviderError, returned: &Returned) -> ProviderEvent {
    ProviderEvent::Notice(Notice {
        topic: topic.to_owned(),
        pauses_channel: false,
        detail: json!({
            "code": error.code,
            "message": error.message,
            "provider_message_id": returned.message_id,
        }),
    })
}

/// Somebody pressed "this is spam": they do not want our mail.
fn complaint(text: &str, returned: &Returned, at: DateTime<Utc>) -> Vec<ProviderEvent> {
    let groups = groups(text);
    let field = |name: &str| groups.iter().find_map(|fields| fields.get(name));
    let kind = field("feedback-type").unwrap_or_default().to_lowercase();
    // Whom we wrote to: our own words first, for anybody can write a report.
    let recipient = returned
        .to
        .first()
        .cloned()
        .or_else(|| field("original-rcpt-to").and_then(address::normalise));
    match recipient {
        // Only of mail that is ours, as far as one can see from here.
        Some(recipient) if returned.attempt_id.is_some() && kind != "not-spam" => {
            vec![ProviderEvent::Consent(ConsentEvent {
                about_attempt: returned.attempt_id,
                customer: Party {
                    identities: vec![Identity::new(IdentityKind::Email, recipient)],
                    name: None,
                },
                consent: Consent::OptedOut,
                category: "all".to_owned(),
                at,
            })]
        }
        _ => vec![ProviderEvent::Notice(Notice {
            topic: "email_feedback".to_owned(),
            pauses_channel: false,
            detail: json!({
                "feedback_type": inbound::bounded(&kind, 50),
                "provider_message_id": returned.message_id,
            }),
        })],
    }
}

/// A report from before RFC 3464, or by something that never read it.
fn daemon(
    mail: &Message<'_>,
    returned: &Returned,
    at: DateTime<Utc>,
) -> Option<Vec<ProviderEvent>> {
    let from = address::list(mail.from());
    let is_daemon = from.iter().any(|from| {
        let user = from.split('@').next().unwrap_or_default();
        DAEMONS.contains(&user)
    });
    let names_failed = address::text(mail, "X-Failed-Recipients").is_some();
    // A postmaster is also a person who attaches mails: what came back is ours, or nobody is to answer the report.
    let is_returned =
        returned.is_there && (returned.attempt_id.is_some() || has_empty_return_path(mail));
    if !(is_daemon && (is_returned || names_failed)) {
        return None;
    }
    let text = body(mail).unwrap_or_default();
    let own = COPY_MARKS.iter().filter_map(|mark| text.find(mark)).min();
    let text = &text[..own.unwrap_or(text.len())];
    let subject = mail.subject().unwrap_or_default();
    let why = text
        .lines()
        .map(str::trim)
        .find(|line| errors::enhanced_status(line).is_some() || has_reply_code(line))
        .unwrap_or(subject);
    let status = errors::enhanced_status(why);
    let is_delay = subject.to_lowercase().contains("delay") && !names_failed;
    let action = if is_delay {
        Action::Delayed
    } else {
        Action::Failed
    };
    let code = status.unwrap_or(UNKNOWN_STATUS);
    Some(vec![outcome(
        action,
        code,
        errors::redacted(why),
        returned,
        at,
    )])
}

/// `Return-Path: <>`, which mail servers write at delivery: the sender of reports (RFC 5321 section 4.5.5).
fn has_empty_return_path(mail: &Message<'_>) -> bool {
    mail.header(HeaderName::ReturnPath)
        .is_some_and(HeaderValue::is_empty)
}

/// `550 …` or `… 550-…` as a word of its own.
fn has_reply_code(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word.len() == 3 && word.starts_with('5') && word.parse::<u16>().is_ok())
}

/// The mail's first plain text.
fn body<'a>(mail: &'a Message<'_>) -> Option<&'a str> {
    mail.text_body
        .iter()
        .find_map(|id| match &mail.part(*id)?.body {
            PartType::Text(text) => Some(text.as_ref()),
            _ => None,
        })
}

/// The text of the first `message/…` part of one of these kinds.
fn part_text(mail: &Message<'_>, subtypes: &[&str]) -> Option<String> {
    let part = mail.parts.iter().find(|part| {
        subtypes
            .iter()
            .any(|subtype| part.is_content_type("message", subtype))
    })?;
    Some(String::from_utf8_lossy(part.contents()).into_owned())
}

/// A group of `Name: value` lines. The first of a name counts.
struct Fields(Vec<(String, String)>);

impl Fields {
    /// By name in lower case.
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found == name)?;
        Some(value)
    }
}

/// The groups of fields, which empty lines part.
fn groups(text: &str) -> Vec<Fields> {
    let mut groups = vec![Fields(Vec::new())];
    for line in text.lines() {
        let Some(Fields(group)) = groups.last_mut() else {
            break;
        };
        if line.trim().is_empty() {
            if !group.is_empty() {
                groups.push(Fields(Vec::new()));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = group.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            group.push((name.trim().to_lowercase(), value.trim().to_owned()));
        }
    }
    groups
}
