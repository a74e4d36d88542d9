//! Addresses as we compare them, and the routing keys made of them.

use mail_parser::{Address, HeaderValue, Message};

/// Routes of one request. A mail to hundreds of people names us among the first or in an envelope header.
const MAX_ROUTES: usize = 100;

/// Addresses and ids looked at in one header. More only cost time: lists are compared with each other.
const MAX_LISTED: usize = 200;

/// Where the mail server noted whom the message was delivered to, the most specific first.
const ENVELOPE_HEADERS: [&str; 3] = ["Delivered-To", "X-Original-To", "X-Envelope-To"];

/// An address as it is compared: lower case, without angle brackets. `None` for what is no address.
pub(super) fn normalise(address: &str) -> Option<String> {
    let address = address.trim().trim_matches(['<', '>']).trim();
    let (user, domain) = address.rsplit_once('@')?;
    let is_plain = !address.contains(|c: char| c.is_whitespace() || c.is_control());
    (is_plain && !user.is_empty() && !domain.is_empty() && address.len() <= 320)
        .then(|| address.to_lowercase())
}

/// The keys of one address (already [`normalise`]d): itself and, where it has one, without its `+tag`.
pub(super) fn routes(address: &str) -> Vec<String> {
    let mut routes = vec![format!("email:{address}")];
    if let Some((user, domain)) = address.rsplit_once('@')
        && let Some((base, _)) = user.split_once('+')
        && !base.is_empty()
    {
        routes.push(format!("email:{base}@{domain}"));
    }
    routes
}

/// The keys of all these addresses, each once, in order.
pub(super) fn routes_of(addresses: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for route in addresses.into_iter().flat_map(|address| routes(&address)) {
        if !all.contains(&route) {
            all.push(route);
        }
        if all.len() >= MAX_ROUTES {
            break;
        }
    }
    all
}

/// Whom the mail server delivered to, by its own headers.
pub(super) fn envelope(message: &Message<'_>) -> Vec<String> {
    ENVELOPE_HEADERS
        .iter()
        .flat_map(|name| texts(message, name))
        .flat_map(|value| value.split(',').filter_map(normalise).collect::<Vec<_>>())
        .take(MAX_LISTED)
        .collect()
}

/// Everybody the message names as a recipient, the most specific first.
pub(super) fn recipients(message: &Message<'_>) -> Vec<String> {
    let mut all = envelope(message);
    all.extend(list(message.to()));
    all.extend(list(message.cc()));
    all
}

/// The addresses of a header, [`normalise`]d.
pub(super) fn list(header: Option<&Address<'_>>) -> Vec<String> {
    header
        .into_iter()
        .flat_map(Address::iter)
        .filter_map(|address| address.address().and_then(normalise))
        .take(MAX_LISTED)
        .collect()
}

/// The values of a header that has no meaning for the parser.
pub(super) fn texts<'a>(message: &'a Message<'_>, name: &str) -> Vec<&'a str> {
    message
        .headers()
        .iter()
        .filter(|header| header.name().eq_ignore_ascii_case(name))
        .filter_map(|header| header.value().as_text())
        .map(str::trim)
        .collect()
}

/// The first of them.
pub(super) fn text<'a>(message: &'a Message<'_>, name: &str) -> Option<&'a str> {
    texts(message, name)
        .into_iter()
        .find(|text| !text.is_empty())
}

/// Message ids of a header, without angle brackets, in their order; of very many the last.
pub(super) fn ids(header: &HeaderValue<'_>) -> Vec<String> {
    let texts: Vec<&str> = match header {
        HeaderValue::Text(text) => vec![text],
        HeaderValue::TextList(list) => list.iter().map(AsRef::as_ref).collect(),
        _ => Vec::new(),
    };
    let last = texts.len().saturating_sub(MAX_LISTED);
    texts[last..].iter().filter_map(|text| id(text)).collect()
}

/// A message id without its angle brackets. `None` for what cannot be one (RFC 5322 wants `left@right`; real mail is
/// not that strict).
pub(super) fn id(text: &str) -> Option<String> {
    let text = text.trim().trim_matches(['<', '>']);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['<', '>']);
    (is_plain && (1..=250).contains(&text.len())).then(|| text.to_owned())
}
