//! Numbers and e-mail addresses, in any spelling the old tables use.

use wasel_domain::E164;
use wasel_domain::event::IdentityKind;
use wasel_domain::phone::Region;

use super::Reason;

/// What kind of address a text is, or why none that somebody could be answered at.
pub fn kind_of(text: &str) -> Result<IdentityKind, &'static str> {
    let Some((user, server)) = text.trim().rsplit_once('@') else {
        return Ok(IdentityKind::Phone);
    };
    match server.to_ascii_lowercase().as_str() {
        "s.whatsapp.net" | "c.us" => Ok(IdentityKind::Phone),
        "g.us" => Err("a group"),
        // WhatsApp's other servers: lid, newsletter, broadcast, bot, call …
        "hosted.lid" => Err(NO_NUMBER),
        server if !server.contains('.') => Err(NO_NUMBER),
        _ if user.is_empty()
            || text
                .trim()
                .contains(|c: char| c.is_whitespace() || c.is_control()) =>
        {
            Err("not an e-mail address")
        }
        _ => Ok(IdentityKind::Email),
    }
}

const NO_NUMBER: &str = "an address without a number";

/// E.164, from what a person typed, `whatsapp:+20…`, a JID or Meta's `wa_id`.
pub fn read_phone(raw: &str, region: Option<Region>, is_meta: bool) -> Result<E164, Reason> {
    let mut text = raw.trim();
    for prefix in ["whatsapp:", "sms:", "tel:"] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    // A JID: number, perhaps the device, server.
    let jid = text.split_once('@').map(|(user, _)| user);
    if let Some(user) = jid {
        text = user.split([':', '.']).next().unwrap_or(user);
    }
    let international = || {
        let digits = text.len() >= 10 && text.bytes().all(|b| b.is_ascii_digit());
        (digits && !text.starts_with('0'))
            .then(|| E164::parse(&format!("+{text}"), None).ok())
            .flatten()
    };
    if (is_meta || jid.is_some())
        && let Some(number) = international()
    {
        return Ok(number);
    }
    E164::parse(text, region)
        .or_else(|error| international().ok_or(error))
        .map_err(|error| error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_people_have_addresses() {
        for text in [
            "201012345678@s.whatsapp.net",
            "201012345678:3@c.us",
            "+20 10 12345678",
        ] {
            assert_eq!(kind_of(text), Ok(IdentityKind::Phone), "{text}");
        }
        assert_eq!(kind_of("A.b@Shop.test"), Ok(IdentityKind::Email));
        for text in [
            "201012345678@lid",
            "201012345678@hosted.lid",
            "120363@newsletter",
            "status@broadcast",
            "120363@g.us",
            "a b@shop.test",
            "@shop.test",
        ] {
            assert!(kind_of(text).is_err(), "{text}");
        }
    }
}
