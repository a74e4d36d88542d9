//! `X-Twilio-Signature`: base64(HMAC-SHA1(auth token, address + parameters)).
//!
//! Source: Twilio, "Webhooks security", and the validators of Twilio's own client libraries, which settle what
//! the page leaves open:
//! 1. The address is the one configured at Twilio, with its query, without a fragment.
//! 2. A form's parameters follow in code-point order of their keys, each key followed by its value; a repeated
//!    key is written once for each of its *distinct* values, sorted. Empty values count.
//! 3. Twilio is inconsistent about the port, so the address counts with and without it; some of its back ends
//!    sign a re-encoded query.
//! 4. A body that is no form is covered by `bodySHA256` in the query instead of by its parameters.
//! 5. A GET has its parameters in the address only.
//! 6. The key is the account's auth token; while it is rotated, either token may have signed.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Method;
use ring::{digest, hmac};
use url::Url;

use super::form::{self, Params};
use crate::{VerifyError, WebhookRequest};

pub(super) const HEADER: &str = "x-twilio-signature";
const HEADER_NAME: &str = "X-Twilio-Signature";

pub(super) fn verify(request: &WebhookRequest<'_>, tokens: &[String]) -> Result<(), VerifyError> {
    if tokens.is_empty() {
        return Err(VerifyError::NoSecret);
    }
    let header = request
        .headers
        .get(HEADER)
        .ok_or(VerifyError::MissingSignature(HEADER_NAME))?;
    let signature = BASE64
        .decode(header.as_bytes())
        .ok()
        .filter(|signature| signature.len() == digest::SHA1_OUTPUT_LEN)
        .ok_or(VerifyError::MalformedSignature(HEADER_NAME))?;

    let url = form::without_fragment(request.url);
    let body_hash = Params::decode(form::query(url).as_bytes()).get("bodySHA256");
    let params = if request.method == Method::GET {
        String::new()
    } else if let Some(body_hash) = body_hash {
        // No secret is compared here: whether the hash itself is Twilio's, the signature tells.
        let actual = hex::encode(digest::digest(&digest::SHA256, request.body));
        if !actual.eq_ignore_ascii_case(&body_hash) {
            return Err(VerifyError::Mismatch);
        }
        String::new()
    } else {
        concatenated(&Params::decode(request.body))
    };

    let candidates = spellings(url);
    let is_signed = tokens.iter().any(|token| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
        candidates.iter().any(|url| {
            let signed = [url.as_bytes(), params.as_bytes()].concat();
            // Constant-time.
            hmac::verify(&key, &signed, &signature).is_ok()
        })
    });
    if is_signed {
        Ok(())
    } else {
        Err(VerifyError::Mismatch)
    }
}

/// Rule 2.
fn concatenated(params: &Params) -> String {
    let mut text = String::new();
    for (key, values) in params.iter() {
        let mut values: Vec<&str> = values.iter().map(String::as_str).collect();
        values.sort_unstable();
        values.dedup();
        for value in values {
            text.push_str(key);
            text.push_str(value);
        }
    }
    text
}

/// Rule 3: every spelling of the address that Twilio may have signed.
fn spellings(url: &str) -> Vec<String> {
    let mut spellings = vec![without_port(url), with_port(url)];
    if let Ok(normal) = Url::parse(url) {
        for normal in [without_port(normal.as_str()), with_port(normal.as_str())] {
            spellings.push(with_reencoded_query(&normal));
            spellings.push(normal);
        }
    }
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

/// An address cut up without changing a character of it.
struct Parts<'a> {
    /// `https://`
    scheme: &'a str,
    /// `user:password@`, or empty.
    user: &'a str,
    host: &'a str,
    /// `:443`, or empty.
    port: &'a str,
    /// Path and query.
    rest: &'a str,
}

fn parts(url: &str) -> Option<Parts<'_>> {
    let (scheme, after) = url.split_at(url.find("://")? + "://".len());
    let (authority, rest) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
    let (user, host_port) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    // A colon inside the brackets of an IPv6 address starts no port.
    let host_end = host_port.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = host_port[host_end..].find(':').map(|at| host_end + at);
    let (host, port) = host_port.split_at(colon.unwrap_or(host_port.len()));
    Some(Parts {
        scheme,
        user,
        host,
        port,
        rest,
    })
}

fn without_port(url: &str) -> String {
    parts(url).map_or_else(
        || url.to_owned(),
        |p| [p.scheme, p.user, p.host, p.rest].concat(),
    )
}

fn with_port(url: &str) -> String {
    parts(url).map_or_else(
        || url.to_owned(),
        |p| {
            let standard = if p.scheme.eq_ignore_ascii_case("https://") {
                ":443"
            } else {
                ":80"
            };
            let port = if p.port.is_empty() { standard } else { p.port };
            [p.scheme, p.user, p.host, port, p.rest].concat()
        },
    )
}

/// The query taken apart and written again as Node's `querystring` does it: values of one key together, a
/// blank as `%20`, `!'()*-._~` bare.
fn with_reencoded_query(url: &str) -> String {
    let Some((address, query)) = url.split_once('?').filter(|(_, query)| !query.is_empty()) else {
        return url.to_owned();
    };
    // A map beside the list: a stranger may send thousands of keys.
    let mut positions: HashMap<String, usize> = HashMap::new();
    let mut keys: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        let position = *positions.entry(key.clone()).or_insert(keys.len());
        if position == keys.len() {
            keys.push((key, Vec::new()));
        }
        keys[position].1.push(value);
    }
    let pairs: Vec<String> = keys
        .iter()
        .flat_map(|(key, values)| values.iter().map(move |value| (key, value)))
        .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
        .collect();
    format!("{address}?{}", pairs.join("&"))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"!'()*-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
