//! Meta's error codes by class. The code decides: HTTP status and title are no guide, Meta says so itself.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes>

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::{ErrorClass, SendError};

/// What a code in a `failed` status or an account-level error means. An unknown code is not retried.
#[must_use]
pub fn classify(code: &str) -> ErrorClass {
    let code = code.parse().ok();
    code.and_then(known).unwrap_or(ErrorClass::Content)
}

fn known(code: i64) -> Option<ErrorClass> {
    Some(match code {
        // Unknown error, service down, generic failure, server starting, account being moved up a tier.
        1 | 2 | 131000 | 131016 | 131057 | 133004 => ErrorClass::Transient,
        130429 => ErrorClass::ThrottledChannel,
        131056 => ErrorClass::ThrottledPair,
        // Hourly quotas of the app and the account, and of registration.
        4 | 80007 | 133016 => ErrorClass::ThrottledAccount,
        // Authorisation, permissions, lock, payment, registration, policy; an object that is not there or not ours.
        0
        | 3
        | 10
        | 33
        | 190
        | 200..=299
        | 368
        | 131005
        | 131031
        | 131037
        | 131042
        | 131045
        | 133010 => ErrorClass::ChannelBlocked,
        // Marketing frequency, experiment group, spam limits, and a per-user limit.
        131049 | 130472 | 131048 | 131064 => ErrorClass::NotNow,
        131047 => ErrorClass::NeedsTemplate,
        131050 => ErrorClass::OptedOutOfMarketing,
        // No WhatsApp, ourselves, group or country not allowed, not on the test list, no BSUID here.
        131026 | 131021 | 130403 | 130497 | 131030 | 131062 | 137000 => ErrorClass::Recipient,
        // Parameters, unsupported type, media, templates, flows.
        100 | 131008 | 131009 | 131051 | 131053 | 132000 | 132001 | 132005 | 132007 | 132012
        | 132015 | 132016 | 132018 | 132068 | 132069 | 134011 | 135000 => ErrorClass::Content,
        _ => return None,
    })
}

/// Meta's own words on how long to wait, where the answer has no `Retry-After`.
fn usual_wait(code: i64) -> Option<Duration> {
    match code {
        // The upgrade takes about a minute.
        131057 => Some(Duration::from_secs(60)),
        // Not before a day has passed.
        131049 => Some(Duration::from_secs(24 * 60 * 60)),
        _ => None,
    }
}

/// `{"error": {…}}` as every Graph endpoint answers it.
#[derive(Deserialize)]
struct GraphAnswer {
    error: Option<GraphError>,
}

#[derive(Deserialize)]
struct GraphError {
    code: i64,
    error_subcode: Option<i64>,
    message: Option<String>,
    /// The management API explains itself here, under a message that says "Invalid parameter".
    error_user_title: Option<String>,
    error_user_msg: Option<String>,
    error_data: Option<ErrorData>,
}

#[derive(Deserialize)]
struct ErrorData {
    details: Option<String>,
}

/// Reads Meta's error out of an answer, if there is one. `private` holds texts that must not be repeated.
pub(super) fn from_answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    private: &[&str],
) -> Option<SendError> {
    let answer: GraphAnswer = serde_json::from_slice(body).ok()?;
    let error = answer.error?;
    let class = match (error.code, error.error_subcode) {
        // "Object does not exist or permissions are missing": the number id or the token, not the message.
        (100, Some(33)) => ErrorClass::ChannelBlocked,
        (code, _) => known(code).unwrap_or_else(|| class_of_status(status)),
    };
    let message = error.message.unwrap_or_default();
    let details = error.error_data.and_then(|data| data.details);
    let mut detail = message;
    for more in [details, error.error_user_title, error.error_user_msg] {
        if let Some(more) = more.filter(|more| !detail.contains(more)) {
            detail = format!("{detail}: {more}");
        }
    }
    Some(SendError {
        class,
        code: Some(error.code.to_string()),
        detail: redact(&detail, private),
        retry_after: retry_after(headers).or_else(|| usual_wait(error.code)),
    })
}

/// An error status with no code of Meta's in it: a proxy, a gateway, an outage.
pub(super) fn from_status(status: StatusCode, headers: &HeaderMap) -> SendError {
    SendError {
        class: class_of_status(status),
        code: Some(format!("http_{}", status.as_u16())),
        detail: "the provider answered without an error code".to_owned(),
        retry_after: retry_after(headers),
    }
}

fn class_of_status(status: StatusCode) -> ErrorClass {
    match status.as_u16() {
        429 => ErrorClass::ThrottledChannel,
        // Something in between gave up waiting for somebody who may have taken it.
        408 | 504 => ErrorClass::Ambiguous,
        500.. => ErrorClass::Transient,
        // Wrong token, wrong address or version, or a redirect that was not followed: somebody has to look.
        300..=399 | 401 | 403 | 404 => ErrorClass::ChannelBlocked,
        _ => ErrorClass::Content,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    header.trim().parse().ok().map(Duration::from_secs)
}

/// Meta's words may repeat the recipient: no number of a phone's length and none of `private` stays.
fn redact(text: &str, private: &[&str]) -> String {
    const SHORTEST_PHONE: usize = 7;
    let mut text = text.to_owned();
    for secret in private.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "…");
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(start);
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        clean.push_str(before);
        clean.push_str(if end < SHORTEST_PHONE {
            &digits[..end]
        } else {
            "…"
        });
        rest = &digits[end..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipient_and_the_token_are_taken_out_of_metas_words() {
        assert_eq!(
            redact("Recipient +201012345678 with EAAG1 is not 24h", &["EAAG1"]),
            "Recipient +… with … is not 24h"
        );
    }
}
