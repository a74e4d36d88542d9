//! Who posted the mail? Our own scheme, because raw mail comes from whatever the tenant's mail server runs:
//! `X-Wasel-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256(secret, "<t>." + body)>`; or, for mail services that
//! cannot sign, HTTP Basic auth with the secret as password. Where both are given the signature decides.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::AUTHORIZATION;
use ring::hmac;

use crate::{VerifyError, WebhookRequest};

pub(super) const HEADER: &str = "x-wasel-signature";
const HEADER_NAME: &str = "X-Wasel-Signature";
const BASIC_NAME: &str = "Authorization";

/// How far the signature's time may be from the request's, in seconds. Recorded requests are compared with the time
/// they first came in, so that they can be replayed for ever.
const MAX_SKEW_SECONDS: i64 = 300;

pub(super) fn verify(request: &WebhookRequest<'_>, secrets: &[String]) -> Result<(), VerifyError> {
    if secrets.is_empty() {
        return Err(VerifyError::NoSecret);
    }
    if let Some(header) = request.headers.get(HEADER) {
        return signed(request, header.as_bytes(), secrets);
    }
    match request.headers.get(AUTHORIZATION) {
        Some(header) => basic(header.as_bytes(), secrets),
        None => Err(VerifyError::MissingSignature(HEADER_NAME)),
    }
}

fn signed(
    request: &WebhookRequest<'_>,
    header: &[u8],
    secrets: &[String],
) -> Result<(), VerifyError> {
    let (time, tag) = parts(header).ok_or(VerifyError::MalformedSignature(HEADER_NAME))?;
    let seconds: i64 = time
        .parse()
        .map_err(|_| VerifyError::MalformedSignature(HEADER_NAME))?;
    let message = [time.as_bytes(), b".", request.body].concat();
    let is_ours = secrets.iter().any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        // Constant-time.
        hmac::verify(&key, &message, &tag).is_ok()
    });
    let age = request.received_at.timestamp().abs_diff(seconds);
    if is_ours && age <= MAX_SKEW_SECONDS.unsigned_abs() {
        Ok(())
    } else {
        Err(VerifyError::Mismatch)
    }
}

/// The time, as it was signed, and the tag.
fn parts(header: &[u8]) -> Option<(&str, Vec<u8>)> {
    let (time, tag) = std::str::from_utf8(header).ok()?.trim().split_once(',')?;
    let time = time.trim().strip_prefix("t=")?;
    let tag = hex::decode(tag.trim().strip_prefix("v1=")?).ok()?;
    let is_number = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && tag.len() == ring::digest::SHA256_OUTPUT_LEN).then_some((time, tag))
}

/// Any user with a secret as password.
fn basic(header: &[u8], secrets: &[String]) -> Result<(), VerifyError> {
    let malformed = VerifyError::MalformedSignature(BASIC_NAME);
    let header = std::str::from_utf8(header).map_err(|_| malformed)?;
    let (scheme, encoded) = header.split_once(' ').ok_or(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed);
    }
    let decoded = BASE64.decode(encoded.trim()).map_err(|_| malformed)?;
    let colon = decoded
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(malformed)?;
    let password = &decoded[colon + 1..];
    let is_ours = secrets.iter().any(|secret| {
        // Comparing the tags of both takes the same time wherever they first differ.
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, password);
        hmac::verify(&key, secret.as_bytes(), tag.as_ref()).is_ok()
    });
    if is_ours {
        Ok(())
    } else {
        Err(VerifyError::Mismatch)
    }
}
