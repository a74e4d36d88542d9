//! Phone numbers as far as the simulator needs them.

use ring::digest;

/// Country codes the BSUID stand-in knows; anything else is called `US`.
const COUNTRIES: &[(&str, &str)] = &[
    ("20", "EG"),
    ("966", "SA"),
    ("971", "AE"),
    ("965", "KW"),
    ("974", "QA"),
    ("962", "JO"),
    ("49", "DE"),
    ("44", "GB"),
    ("33", "FR"),
    ("55", "BR"),
    ("52", "MX"),
    ("91", "IN"),
    ("1", "US"),
];

/// The digits of a number in any spelling.
pub(crate) fn digits(input: &str) -> String {
    input.chars().filter(char::is_ascii_digit).collect()
}

/// `+` and 7 to 15 digits, the first not 0.
pub(crate) fn is_e164(number: &str) -> bool {
    number.strip_prefix('+').is_some_and(|rest| {
        (7..=15).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_digit())
            && !rest.starts_with('0')
    })
}

/// The country calling code a number starts with, as far as known here.
pub(crate) fn calling_code(digits: &str) -> Option<&'static str> {
    COUNTRIES
        .iter()
        .map(|(code, _)| *code)
        .find(|code| digits.starts_with(code))
}

/// The two-letter country of a number; `US` when unknown.
pub(crate) fn country(number: &str) -> &'static str {
    let digits = digits(number);
    COUNTRIES
        .iter()
        .find(|(code, _)| digits.starts_with(code))
        .map_or("US", |(_, country)| country)
}

/// A business-scoped user id that is always the same for a number: `EG.` and 16 digits.
pub(crate) fn user_id(number: &str) -> String {
    let hash = digest::digest(&digest::SHA256, number.as_bytes());
    let digits: String = hash
        .as_ref()
        .iter()
        .take(16)
        .map(|byte| char::from(b'0' + byte % 10))
        .collect();
    format!("{}.{digits}", country(number))
}

/// True for `EG.1349…`: two letters, a point, up to 128 letters and digits (a parent id has `.ENT.` in it).
pub(crate) fn is_user_id(input: &str) -> bool {
    let Some((country, rest)) = input.split_once('.') else {
        return false;
    };
    let rest = rest.strip_prefix("ENT.").unwrap_or(rest);
    country.len() == 2
        && country.bytes().all(|b| b.is_ascii_uppercase())
        && (1..=128).contains(&rest.len())
        && rest.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_stable_and_carry_the_country() {
        let id = user_id("+201001234567");
        assert_eq!(id, user_id("+201001234567"));
        assert_ne!(id, user_id("+201001234568"));
        assert!(id.starts_with("EG.") && is_user_id(&id), "{id}");
        assert!(is_user_id("US.ENT.abc123") && !is_user_id("+201001234567"));
    }

    #[test]
    fn e164_needs_a_plus_and_no_leading_zero() {
        assert!(is_e164("+201001234567"));
        for wrong in ["201001234567", "+0100", "+20100123456789012", "+20 100", ""] {
            assert!(!is_e164(wrong), "{wrong}");
        }
    }
}
