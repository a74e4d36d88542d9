//! What Twilio's error codes mean for us. Source: Twilio, "Error and warning dictionary".

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::{ErrorClass, SendError};

/// Longest text of Twilio's that is kept.
const MAX_DETAIL_CHARS: usize = 300;

/// The class of the `ErrorCode` of a status callback, where no HTTP status helps. A code that is not known
/// here is taken as permanent ([`ErrorClass::Content`]): repeating what Twilio gave up on may cost money and
/// annoys people.
#[must_use]
pub fn classify_status_code(code: &str) -> ErrorClass {
    code.trim()
        .parse()
        .ok()
        .and_then(class_of_code)
        .unwrap_or(ErrorClass::Content)
}

/// Every code we know the meaning of, by what to do about it.
pub(super) fn class_of_code(code: u32) -> Option<ErrorClass> {
    Some(match code {
        // Internal errors, outages, congestion, unknown carrier errors, a file that could not be fetched.
        20500 | 20503 | 30008 | 30017 | 63010 | 63012 | 63019 => ErrorClass::Transient,
        // Too many requests, full queues, a sender's or a channel's rate.
        20429 | 21611 | 30001 | 63017 | 63018 => ErrorClass::ThrottledChannel,
        // Credentials, suspension, a sender that is not ours or not registered, the daily limit.
        20003 | 20005 | 21606 | 21607 | 30002 | 30032 | 30034 | 63001 | 63002 | 63007 | 63008
        | 63020 | 63022 | 63038 => ErrorClass::ChannelBlocked,
        21610 => ErrorClass::OptedOut,
        // No such number, not reachable, region not allowed, not on WhatsApp.
        21211
        | 21217
        | 21401
        | 21408
        | 21612
        | 21614
        | 30003
        | 30005
        | 30006
        | 63003
        | 63013..=63015
        | 63024
        | 63032
        | 63033 => ErrorClass::Recipient,
        // Missing or too long bodies, bad addresses of files and callbacks, filters, templates.
        21602..=21604
        | 21609
        | 21617
        | 21620
        | 21623
        | 21655
        | 21656
        | 21910
        | 30004
        | 30007
        | 35111
        | 35114
        | 35118
        | 63005
        | 63021
        | 63027
        | 63028
        | 63030
        | 63034
        | 63040
        | 63041 => ErrorClass::Content,
        63016 => ErrorClass::NeedsTemplate,
        63049 => ErrorClass::NotNow,
        _ => return None,
    })
}

/// Where Twilio names no code, or one that is not in the table.
fn class_of_status(status: StatusCode) -> ErrorClass {
    match status {
        StatusCode::TOO_MANY_REQUESTS => ErrorClass::ThrottledChannel,
        // Somebody between us and Twilio gave up waiting: Twilio may have it.
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ErrorClass::Ambiguous,
        status if status.is_server_error() => ErrorClass::Transient,
        // An account or a service that is not there; a redirect means a wrong base address.
        StatusCode::UNAUTHORIZED
        | StatusCode::PAYMENT_REQUIRED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND => ErrorClass::ChannelBlocked,
        status if status.is_client_error() => ErrorClass::Content,
        _ => ErrorClass::ChannelBlocked,
    }
}

/// A text of ours shorter than this gives nothing away, and is part of too many words to be cut out.
const SHORTEST_PRIVATE_CHARS: usize = 4;

/// Turns a refusal (`{code, message, more_info, status}`) into an error. `private` are texts that may not show
/// up in it: tokens, the body, the recipient.
pub(super) fn from_answer(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
    private: &[&str],
) -> SendError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = answer
        .get("code")
        .and_then(Value::as_u64)
        .and_then(|code| u32::try_from(code).ok());
    let detail = match answer.get("message").and_then(Value::as_str) {
        Some(message) => {
            // The longest first, or a part of it would be cut out and the rest left standing.
            let mut private: Vec<&str> = private.to_vec();
            private.retain(|text| text.chars().count() >= SHORTEST_PRIVATE_CHARS);
            private.sort_by_key(|text| std::cmp::Reverse(text.len()));
            let message = private.iter().fold(message.to_owned(), |message, text| {
                message.replace(text, "[withheld]")
            });
            redacted(&message)
        }
        None => format!("Twilio answered with HTTP status {}", status.as_u16()),
    };
    SendError {
        class: code
            .and_then(class_of_code)
            .unwrap_or_else(|| class_of_status(status)),
        code: Some(code.map_or_else(
            || format!("http_{}", status.as_u16()),
            |code| code.to_string(),
        )),
        detail,
        retry_after,
    }
}

/// Twilio's words without the numbers in them (it likes to quote `To` and `From`), and not too long.
pub(super) fn redacted(message: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    // A number may be written in groups: neighbouring words without a letter count as one.
    for group in message
        .split_whitespace()
        .collect::<Vec<_>>()
        .chunk_by(|a, b| is_numeric(a) && is_numeric(b))
    {
        let digits = group.iter().flat_map(|word| word.chars());
        // Error codes have five digits, phone numbers more. Twilio's ids count as numbers too.
        if digits.filter(|c| c.is_numeric()).count() > 5 {
            words.push("[number]");
        } else {
            words.extend(group);
        }
    }
    words.join(" ").chars().take(MAX_DETAIL_CHARS).collect()
}

fn is_numeric(word: &str) -> bool {
    word.chars().any(char::is_numeric) && !word.chars().any(char::is_alphabetic)
}
