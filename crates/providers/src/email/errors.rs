//! What a mail server's replies and bounces mean for us. Sources: RFC 5321 section 4.2 (reply codes), RFC 3463 and its
//! registry (enhanced status codes `class.subject.detail`).
//!
//! A code of ours is `smtp_550`, `smtp_550 5.1.1` where the server added an enhanced status, or, in a bounce, the
//! enhanced status alone.

use std::time::Duration;

use crate::{ErrorClass, SendError};

/// Longest text of a server's that is kept.
const MAX_DETAIL_CHARS: usize = 300;

/// A text of ours shorter than this gives nothing away, and is part of too many words to be cut out.
const SHORTEST_PRIVATE_CHARS: usize = 4;

/// Greylisting servers want to be asked again after a minute or more; most accept after five.
const GREYLIST_PAUSE: Duration = Duration::from_secs(60);

/// How far a transaction had come when the server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Greeting, EHLO and STARTTLS.
    Greeting,
    Auth,
    /// `MAIL FROM`: about us.
    Sender,
    /// `RCPT TO`: about them, or about us where the server waited for it.
    Recipient,
    /// `DATA` and the message: about its content.
    Content,
}

/// A negative reply as an error. `private` are texts that may not show up in it.
pub(super) fn from_reply(phase: Phase, reply: u16, words: &str, private: &[&str]) -> SendError {
    let enhanced = enhanced_status(words).filter(|status| {
        // A 550 that says 4.7.1 is a contradiction: the reply code decides.
        status.as_bytes().first() == Some(&(b'0' + (reply / 100) as u8))
    });
    let class = class_of_reply(phase, reply, enhanced);
    let detail = withheld(words, private);
    SendError {
        class,
        code: Some(match enhanced {
            Some(status) => format!("smtp_{reply} {status}"),
            None => format!("smtp_{reply}"),
        }),
        detail: if detail.is_empty() {
            format!("the mail server answered {reply}")
        } else {
            detail
        },
        retry_after: matches!(reply, 450 | 451).then_some(GREYLIST_PAUSE),
    }
}

fn class_of_reply(phase: Phase, reply: u16, enhanced: Option<&str>) -> ErrorClass {
    match (phase, reply) {
        (_, 530 | 534 | 535 | 538) => ErrorClass::ChannelBlocked,
        (_, 400..=499) => ErrorClass::Transient,
        (Phase::Greeting | Phase::Auth, _) => ErrorClass::ChannelBlocked,
        // Larger than the server takes (RFC 1870); everything else at this point is about our own address.
        (Phase::Sender, 552) => ErrorClass::Content,
        (Phase::Sender, _) => ErrorClass::ChannelBlocked,
        // Postfix keeps what it has against us, our address or relaying until here (smtpd_delay_reject). Every policy
        // counts (5.7): one recipient's own spam filter is asked by the mail server, after it took the message.
        (Phase::Recipient, _) => match enhanced.and_then(subject_and_detail) {
            Some((7, _) | (1, 7 | 8)) => ErrorClass::ChannelBlocked,
            _ => ErrorClass::Recipient,
        },
        // Some servers look the recipient up only now.
        (Phase::Content, _) => match enhanced.map(class_of_enhanced) {
            Some(class @ (ErrorClass::Recipient | ErrorClass::ChannelBlocked)) => class,
            _ => ErrorClass::Content,
        },
    }
}

/// The class of a code that came later than the answer, or that only the log still holds.
pub(super) fn classify(code: &str) -> ErrorClass {
    if let Some(status) = enhanced_status(code).filter(|_| !code.trim().starts_with("smtp_4")) {
        return class_of_enhanced(status);
    }
    let reply = code
        .split_whitespace()
        .next()
        .and_then(|word| word.strip_prefix("smtp_"))
        .and_then(|digits| digits.parse::<u16>().ok());
    match reply {
        Some(400..=499) => ErrorClass::Transient,
        Some(530 | 534 | 535 | 538) => ErrorClass::ChannelBlocked,
        Some(550 | 551 | 553) | None => ErrorClass::Recipient,
        Some(_) => ErrorClass::Content,
    }
}

/// A report with a status of class 4 says "failed" only after days of trying, so both classes are final here.
fn class_of_enhanced(status: &str) -> ErrorClass {
    let Some(numbers) = subject_and_detail(status) else {
        return ErrorClass::Recipient;
    };
    match numbers {
        // Our own address or system is what they object to: bad sender (1.7, 1.8), authentication (7.8 to 7.14),
        // SPF, DKIM and DMARC (7.20 to 7.27).
        (1, 7 | 8) | (7, 8..=14 | 20..=27) => ErrorClass::ChannelBlocked,
        // Too large for the mailbox (2.3) or the system (3.4).
        (2, 3) | (3, 4) => ErrorClass::Content,
        (1..=4, _) => ErrorClass::Recipient,
        // The recipient refuses mail from us (7.1 and 7.2 are used for everything, spam above all).
        (5..=7, _) => ErrorClass::Content,
        _ => ErrorClass::Recipient,
    }
}

/// What an enhanced status is about, without its class.
fn subject_and_detail(status: &str) -> Option<(u16, u16)> {
    let mut numbers = status.split('.').skip(1).map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(subject)), Some(Ok(detail))) => Some((subject, detail)),
        _ => None,
    }
}

/// The first enhanced status in a text: `5.1.1`.
pub(super) fn enhanced_status(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|word| word.trim_matches('.'))
        .find(|word| {
            let mut parts = word.split('.');
            let class = parts.next();
            let is_number = |part: Option<&str>| {
                part.is_some_and(|part| {
                    (1..=3).contains(&part.len()) && part.parse::<u16>().is_ok()
                })
            };
            matches!(class, Some("2" | "4" | "5"))
                && is_number(parts.next())
                && is_number(parts.next())
                && parts.next().is_none()
        })
}

/// A server's words without these texts, and [`redacted`].
fn withheld(words: &str, private: &[&str]) -> String {
    // The longest first, or a part of it would be cut out and the rest left standing.
    let mut private: Vec<&str> = private.to_vec();
    private.retain(|text| text.chars().count() >= SHORTEST_PRIVATE_CHARS);
    private.sort_by_key(|text| std::cmp::Reverse(text.len()));
    // Addresses first: cutting out their local part would hide that they are one.
    let words = redacted(words);
    private
        .iter()
        .fold(words, |words, text| words.replace(text, "[withheld]"))
}

/// A server's words without the addresses in them, on one line and not too long.
pub(super) fn redacted(words: &str) -> String {
    let words: Vec<&str> = words
        .split_whitespace()
        .map(|word| {
            if word.contains('@') {
                "[address]"
            } else {
                word
            }
        })
        .collect();
    words.join(" ").chars().take(MAX_DETAIL_CHARS).collect()
}

/// An error without a code.
pub(super) fn plain(class: ErrorClass, detail: &str) -> SendError {
    SendError {
        class,
        code: None,
        detail: detail.to_owned(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_decides_whose_fault_a_refusal_is() {
        use ErrorClass::*;
        for (phase, reply, words, class, code) in [
            (Phase::Greeting, 421, "busy", Transient, "smtp_421"),
            (
                Phase::Greeting,
                554,
                "no service",
                ChannelBlocked,
                "smtp_554",
            ),
            (
                Phase::Auth,
                535,
                "5.7.8 bad password",
                ChannelBlocked,
                "smtp_535 5.7.8",
            ),
            (Phase::Auth, 454, "4.7.0 later", Transient, "smtp_454 4.7.0"),
            (
                Phase::Sender,
                530,
                "5.7.0 must authenticate",
                ChannelBlocked,
                "smtp_530 5.7.0",
            ),
            (
                Phase::Sender,
                553,
                "not your address",
                ChannelBlocked,
                "smtp_553",
            ),
            (
                Phase::Sender,
                552,
                "5.3.4 too big",
                Content,
                "smtp_552 5.3.4",
            ),
            (
                Phase::Recipient,
                550,
                "5.1.1 unknown",
                Recipient,
                "smtp_550 5.1.1",
            ),
            (
                Phase::Recipient,
                450,
                "4.2.0 greylisted",
                Transient,
                "smtp_450 4.2.0",
            ),
            (Phase::Recipient, 550, "4.2.0 odd", Recipient, "smtp_550"),
            (
                Phase::Recipient,
                553,
                "5.7.1 Sender address rejected: not owned by user",
                ChannelBlocked,
                "smtp_553 5.7.1",
            ),
            (
                Phase::Recipient,
                554,
                "5.7.1 Relay access denied",
                ChannelBlocked,
                "smtp_554 5.7.1",
            ),
            (
                Phase::Recipient,
                550,
                "5.1.8 Sender address rejected: domain not found",
                ChannelBlocked,
                "smtp_550 5.1.8",
            ),
            (
                Phase::Recipient,
                552,
                "5.2.2 mailbox full",
                Recipient,
                "smtp_552 5.2.2",
            ),
            (
                Phase::Recipient,
                554,
                "Relay access denied",
                Recipient,
                "smtp_554",
            ),
            (Phase::Content, 554, "5.7.1 spam", Content, "smtp_554 5.7.1"),
            (Phase::Content, 552, "too much", Content, "smtp_552"),
            (
                Phase::Content,
                550,
                "5.1.1 unknown after all",
                Recipient,
                "smtp_550 5.1.1",
            ),
            (
                Phase::Content,
                550,
                "5.7.26 unauthenticated",
                ChannelBlocked,
                "smtp_550 5.7.26",
            ),
            (
                Phase::Content,
                451,
                "4.3.0 full",
                Transient,
                "smtp_451 4.3.0",
            ),
        ] {
            let error = from_reply(phase, reply, words, &[]);
            let found = (error.class, error.code.as_deref());
            assert_eq!(found, (class, Some(code)), "{phase:?} {reply} {words}");
            let is_greylisting = matches!(reply, 450 | 451);
            assert_eq!(error.retry_after.is_some(), is_greylisting, "{reply}");
        }
    }

    #[test]
    fn a_code_from_the_log_or_a_bounce_keeps_its_class() {
        use ErrorClass::*;
        for (code, class) in [
            ("5.1.1", Recipient),
            ("5.2.2", Recipient),
            ("4.4.7", Recipient),
            ("5.3.4", Content),
            ("5.6.0", Content),
            ("5.7.1", Content),
            ("5.7.26", ChannelBlocked),
            ("5.0.0", Recipient),
            ("smtp_550 5.1.1", Recipient),
            ("smtp_450 4.2.0", Transient),
            ("smtp_421", Transient),
            ("smtp_535", ChannelBlocked),
            ("smtp_552", Content),
            ("smtp_554", Content),
            ("", Recipient),
            ("nonsense", Recipient),
        ] {
            assert_eq!(classify(code), class, "{code}");
        }
    }

    #[test]
    fn an_enhanced_status_is_not_an_address() {
        assert_eq!(enhanced_status("550-5.1.1 no such user"), Some("5.1.1"));
        assert_eq!(enhanced_status("host 5.9.10.11 said 250"), None);
        assert_eq!(enhanced_status("5.1 or 5.1.1234"), None);
    }

    #[test]
    fn words_come_without_addresses_and_what_we_sent() {
        let error = from_reply(
            Phase::Recipient,
            550,
            "5.1.1 <sara@example.com>: sara.ali unknown,\n re 'Your order'",
            &["sara.ali", "Your order"],
        );
        assert_eq!(
            error.detail,
            "5.1.1 [address] [withheld] unknown, re '[withheld]'"
        );
    }
}
