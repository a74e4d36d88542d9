//! An outbound message as the bytes of an e-mail (RFC 5322 with MIME).

use lettre::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};

use super::content::Parts;
use super::inbound::one_line;
use super::{address, errors};
use crate::{ErrorClass, Outbound, SendError, Thread};

/// Names our attempt in a bounce, whatever a relay did to the Message-ID.
pub(super) const ATTEMPT_HEADER: &str = "X-Wasel-Attempt-Id";

/// Ids in `References`. RFC 5322 section 3.6.4 sets no end; a header may not grow for ever, and mail programs look at
/// the first and the last ones.
const MAX_REFERENCES: usize = 20;

/// Of a text that has no thread to take its subject from.
const MAX_MADE_UP_SUBJECT_CHARS: usize = 60;

/// Answer marks of mail programs, lower-case: English and Arabic.
const REPLY_MARKS: [&str; 3] = ["re:", "رد:", "رد :"];

pub(super) struct Composed {
    pub to: Address,
    /// The Message-ID without angle brackets: the same for every attempt at the message, so that a mail that arrives
    /// twice is seen as one.
    pub id: String,
    pub subject: String,
    pub bytes: Vec<u8>,
}

/// Writes the e-mail.
pub(super) fn compose(
    from: &Mailbox,
    message: &Outbound<'_>,
    parts: Parts,
) -> Result<Composed, SendError> {
    let to: Address =
        message.to.value.trim().parse().map_err(|_| {
            errors::plain(ErrorClass::Recipient, "the recipient is no e-mail address")
        })?;
    let id = format!("{}@{}", message.message_id, ascii_domain(&from.email));
    let subject = parts
        .subject
        .clone()
        .unwrap_or_else(|| subject(message.thread, &parts.text));

    let mut builder = Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to.clone()))
        .date_now()
        .message_id(Some(format!("<{id}>")))
        .subject(&subject)
        .raw_header(header(ATTEMPT_HEADER, message.attempt_id.to_string()));
    let references = references(message);
    if let Some(last) = references.last() {
        builder = builder.raw_header(header("In-Reply-To", format!("<{last}>")));
        let references: Vec<String> = references.iter().map(|id| format!("<{id}>")).collect();
        builder = builder.raw_header(header("References", references.join("\r\n ")));
    }
    let text = SinglePart::builder()
        .header(ContentType::TEXT_PLAIN)
        .body(parts.text);
    let mail = match parts.html {
        None => builder.singlepart(text),
        Some(html) => {
            let html = SinglePart::builder()
                .header(ContentType::TEXT_HTML)
                .body(html);
            builder.multipart(MultiPart::alternative().singlepart(text).singlepart(html))
        }
    };
    let mail = mail.map_err(|_| {
        errors::plain(
            ErrorClass::Content,
            "the message cannot be written as an e-mail",
        )
    })?;
    Ok(Composed {
        to,
        id,
        subject,
        bytes: mail.formatted(),
    })
}

/// The domain as DNS and headers have it: `xn--…` for one in Arabic letters.
pub(super) fn ascii_domain(address: &Address) -> String {
    match url::Host::parse(address.domain()) {
        Ok(host) => host.to_string(),
        Err(_) => address.domain().to_owned(),
    }
}

/// A header of printable ASCII, already folded. `name` is one of ours.
fn header(name: &'static str, value: String) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str(name);
    HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value)
}

/// The messages before this one, the oldest first; the last one is what it answers. The ids came in with strangers'
/// mails, so only what is safe in a header is kept.
fn references(message: &Outbound<'_>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    let known = message
        .thread
        .into_iter()
        .flat_map(|thread| &thread.message_ids);
    for id in known.filter_map(|id| address::id(id)) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    if let Some(quoted) = message.quoted_message_id.and_then(address::id) {
        ids.retain(|id| *id != quoted);
        ids.push(quoted);
    }
    if ids.len() > MAX_REFERENCES {
        ids.drain(1..=ids.len() - MAX_REFERENCES);
    }
    ids
}

/// The subject of content that has none: an answer in its thread, or the first words.
fn subject(thread: Option<&Thread>, text: &str) -> String {
    let of_thread = thread
        .and_then(|thread| thread.subject.as_deref())
        .map(one_line)
        .filter(|subject| !subject.is_empty());
    match of_thread {
        Some(subject) => {
            let lower = subject.to_lowercase();
            if REPLY_MARKS.iter().any(|mark| lower.starts_with(mark)) {
                subject
            } else {
                format!("Re: {subject}")
            }
        }
        None => first_words(text),
    }
}

/// The first line, cut between words.
fn first_words(text: &str) -> String {
    let line = text.lines().map(one_line).find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    if line.chars().count() <= MAX_MADE_UP_SUBJECT_CHARS {
        return line;
    }
    let cut: String = line.chars().take(MAX_MADE_UP_SUBJECT_CHARS).collect();
    let whole_words = cut
        .rsplit_once(' ')
        .map_or(cut.as_str(), |(words, _)| words);
    format!("{whole_words}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_thread(subject: &str) -> String {
        let thread = Thread {
            subject: Some(subject.to_owned()),
            message_ids: Vec::new(),
        };
        super::subject(Some(&thread), "text")
    }

    #[test]
    fn an_answer_is_marked_once() {
        assert_eq!(of_thread("Order 7"), "Re: Order 7");
        assert_eq!(of_thread("RE: Order 7"), "RE: Order 7");
        assert_eq!(of_thread("رد: الطلب"), "رد: الطلب");
        assert_eq!(of_thread("a\r\nBcc: b"), "Re: a Bcc: b");
        assert_eq!(of_thread(" "), "text");
    }

    #[test]
    fn without_a_thread_the_first_words_are_the_subject() {
        assert_eq!(subject(None, "\n\n مرحبا بك \nمتى؟"), "مرحبا بك");
        let long = "word ".repeat(30);
        let made_up = subject(None, &long);
        assert!(made_up.ends_with("word…"), "{made_up}");
        assert!(made_up.chars().count() <= MAX_MADE_UP_SUBJECT_CHARS + 1);
    }
}
