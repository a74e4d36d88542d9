//! Who is who: Twilio's spellings of numbers and senders, and the keys that name a channel.

use wasel_domain::E164;
use wasel_domain::event::{Identity, IdentityKind};

const WHATSAPP_PREFIX: &str = "whatsapp:";

/// Which of Twilio's networks a message is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Sms,
    Whatsapp,
}

impl Network {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Whatsapp => "whatsapp",
        }
    }

    /// An address as Twilio wants it: WhatsApp's carry a prefix.
    pub fn spell(self, address: &str) -> String {
        match self {
            Self::Sms => address.to_owned(),
            Self::Whatsapp => format!("{WHATSAPP_PREFIX}{address}"),
        }
    }
}

/// The keys that name a channel, the most specific first.
pub(super) fn routes(
    account_sid: &str,
    network: Network,
    our_number: Option<&str>,
    messaging_service_sid: Option<&str>,
) -> Vec<String> {
    let by_number =
        our_number.map(|number| format!("twilio:{account_sid}:{}:{number}", network.as_str()));
    let by_service = messaging_service_sid.map(|service| {
        format!(
            "twilio:{account_sid}:{}:service:{service}",
            network.as_str()
        )
    });
    by_number.into_iter().chain(by_service).collect()
}

pub(super) fn has_whatsapp_prefix(address: &str) -> bool {
    address
        .trim_start()
        .get(..WHATSAPP_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(WHATSAPP_PREFIX))
}

/// The address without `whatsapp:`.
pub(super) fn without_prefix(address: &str) -> &str {
    let address = address.trim();
    if has_whatsapp_prefix(address) {
        address[WHATSAPP_PREFIX.len()..].trim()
    } else {
        address
    }
}

/// Whether the address belongs to a network that is neither SMS nor WhatsApp (`rcs:`, `messenger:`).
pub(super) fn is_foreign(address: &str) -> bool {
    address.contains(':') && !has_whatsapp_prefix(address)
}

/// One spelling for one address: a number gets its `+` (some frameworks decode it to a blank), a short code or
/// a sender of letters stays as it is.
pub(super) fn normalise(address: &str) -> String {
    let address = address.trim();
    let digits: String = address
        .chars()
        .filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.'))
        .collect();
    if is_e164(&digits) {
        return digits;
    }
    // Short codes have up to eight digits; anything longer is a number that lost its `+`.
    match E164::from_wa_id(&digits) {
        Ok(number) if !is_short_code(&digits) && !digits.starts_with('+') => {
            number.as_str().to_owned()
        }
        _ => address.to_owned(),
    }
}

pub(super) fn is_e164(address: &str) -> bool {
    address.starts_with('+') && E164::from_wa_id(address).is_ok()
}

pub(super) fn is_short_code(address: &str) -> bool {
    (3..=8).contains(&address.len()) && address.bytes().all(|b| b.is_ascii_digit())
}

/// Up to 11 letters, digits and a few marks, with at least one letter (Twilio, "Alphanumeric Sender ID").
pub(super) fn is_alphanumeric_sender(address: &str) -> bool {
    (1..=11).contains(&address.len())
        && address.bytes().any(|b| b.is_ascii_alphabetic())
        && address
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b" +-_&".contains(&b))
}

/// Meta's business-scoped user id: a country, a dot, letters and digits.
pub(super) fn is_bsuid(address: &str) -> bool {
    let bytes = address.as_bytes();
    bytes.len() > 3
        && bytes.len() <= 131
        && bytes[..2].iter().all(u8::is_ascii_uppercase)
        && bytes[2] == b'.'
        && bytes[3..]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'.')
}

/// A person's address as an identity; `None` if nothing is left of it without its prefix.
pub(super) fn identity(address: &str) -> Option<Identity> {
    let address = without_prefix(address);
    if address.is_empty() {
        None
    } else if is_bsuid(address) {
        Some(Identity::new(IdentityKind::Bsuid, address))
    } else {
        Some(Identity::new(IdentityKind::Phone, normalise(address)))
    }
}
