//! Twilio's webhooks: forms and their signature.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// `X-Twilio-Signature` over the address and the form's parameters in order of their names.
#[must_use]
pub fn signature(auth_token: &str, url: &str, form: &[(&str, &str)]) -> String {
    let sorted: BTreeMap<&str, &str> = form.iter().copied().collect();
    let mut signed = url.to_owned();
    for (name, value) in sorted {
        signed.push_str(name);
        signed.push_str(value);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth_token.as_bytes());
    STANDARD.encode(hmac::sign(&key, signed.as_bytes()))
}

/// The form as a request body.
#[must_use]
pub fn body(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}

/// An inbound message's parameters.
#[must_use]
pub fn inbound<'a>(
    account: &'a str,
    from: &'a str,
    to: &'a str,
    sid: &'a str,
    text: &'a str,
) -> Vec<(&'a str, &'a str)> {
    vec![
        ("AccountSid", account),
        ("ApiVersion", "2010-04-01"),
        ("Body", text),
        ("From", from),
        ("MessageSid", sid),
        ("NumMedia", "0"),
        ("NumSegments", "1"),
        ("SmsMessageSid", sid),
        ("SmsSid", sid),
        ("SmsStatus", "received"),
        ("To", to),
    ]
}

/// A status callback's parameters.
#[must_use]
pub fn status<'a>(
    account: &'a str,
    from: &'a str,
    to: &'a str,
    sid: &'a str,
    status: &'a str,
) -> Vec<(&'a str, &'a str)> {
    let mut form = vec![
        ("AccountSid", account),
        ("ApiVersion", "2010-04-01"),
        ("From", from),
        ("MessageSid", sid),
        ("MessageStatus", status),
        ("SmsSid", sid),
        ("SmsStatus", status),
        ("To", to),
    ];
    if matches!(status, "failed" | "undelivered") {
        form.push(("ErrorCode", "30005"));
    }
    form
}
