//! Who sent a webhook: Meta's signature and its subscription handshake.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/create-webhook-endpoint>

use ring::hmac;

use super::settings::Secret;
use crate::{VerifyError, WebhookRequest};

const SIGNATURE: &str = "X-Hub-Signature-256";

/// `sha256=` and the hex HMAC-SHA256 of the raw body under the app secret. Over the raw bytes: Meta escapes
/// non-ASCII and `/` in its own way, so a body that was read and written again has another signature.
pub(super) fn verify(
    app_secrets: &[Secret],
    request: &WebhookRequest<'_>,
) -> Result<(), VerifyError> {
    let header = request
        .headers
        .get(SIGNATURE)
        .ok_or(VerifyError::MissingSignature(SIGNATURE))?;
    let malformed = VerifyError::MalformedSignature(SIGNATURE);
    let hex = header
        .as_bytes()
        .strip_prefix(b"sha256=")
        .ok_or(malformed)?;
    let mut signature = [0u8; 32];
    hex::decode_to_slice(hex, &mut signature).map_err(|_| malformed)?;

    if app_secrets.is_empty() {
        return Err(VerifyError::NoSecret);
    }
    let is_signed_with = |secret: &Secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        hmac::verify(&key, request.body, &signature).is_ok()
    };
    if app_secrets.iter().any(is_signed_with) {
        Ok(())
    } else {
        Err(VerifyError::Mismatch)
    }
}

/// The text to answer Meta's subscription request with, if it knows our token.
pub(super) fn challenge(
    verify_token: Option<&Secret>,
    query: &[(String, String)],
) -> Option<String> {
    let parameter = |name: &str| {
        let found = query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    let expected = verify_token?;
    let is_subscription = parameter("hub.mode") == Some("subscribe");
    if is_subscription && is_same(expected.expose(), parameter("hub.verify_token")?) {
        parameter("hub.challenge").map(str::to_owned)
    } else {
        None
    }
}

/// Compares in a time that tells nothing about where the texts differ: their MACs are compared, not they.
fn is_same(expected: &str, given: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, expected.as_bytes());
    let tag = hmac::sign(&key, given.as_bytes());
    hmac::verify(&key, expected.as_bytes(), tag.as_ref()).is_ok()
}
