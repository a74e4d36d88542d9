//! Phone numbers in E.164, by Google's rules (crate `rlibphonenumber`).

pub use rlibphonenumber::Region;
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat};
use serde::{Deserialize, Serialize};

/// A number in E.164: `+`, country code, subscriber number; at most 15 digits. Numbers of one person that WhatsApp writes
/// in two ways (Brazil, Mexico) are one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(String);

/// Why a text is no phone number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhoneError {
    #[error("not a phone number")]
    NotANumber,
    #[error(
        "a national number needs a country: write it with + and the country code, or set the organisation's region"
    )]
    NoRegion,
    #[error("too long or too short to be a phone number")]
    WrongLength,
    #[error("`{0}` is not a two-letter country code")]
    UnknownRegion(String),
}

/// Reads an ISO 3166-1 alpha-2 country (`EG`, `eg`), which gives a national number its country code.
pub fn parse_region(text: &str) -> Result<Region, PhoneError> {
    text.to_ascii_uppercase()
        .parse()
        .map_err(|_| PhoneError::UnknownRegion(text.to_owned()))
}

impl E164 {
    /// Reads what a person typed: national or international, with spaces, dashes, Arabic-Indic digits or bidi
    /// marks. A *possible* number is accepted even where the plan does not list its range yet: operators open
    /// new ranges faster than metadata follows.
    pub fn parse(text: &str, region: Option<Region>) -> Result<Self, PhoneError> {
        let cleaned: String = text.chars().filter(|c| !is_invisible(*c)).collect();
        let mut international = rewrite_international_prefix(cleaned.trim());
        // The library takes the old Mexican form for too long.
        if let Some(digits) = international.strip_prefix('+') {
            let compact: String = digits.chars().filter(char::is_ascii_digit).collect();
            if compact.starts_with("521") {
                international = as_dialled_today(&format!("+{compact}"));
            }
        }
        if region.is_none() && !international.starts_with(['+', '＋']) {
            return Err(PhoneError::NoRegion);
        }
        let number = PHONE_NUMBER_UTIL
            .parse(&international, region)
            .map_err(|_| PhoneError::NotANumber)?;
        if !PHONE_NUMBER_UTIL.is_possible_number(&number) {
            return Err(PhoneError::WrongLength);
        }
        let formatted = PHONE_NUMBER_UTIL.format(&number, PhoneNumberFormat::E164);
        Ok(Self(as_dialled_today(&formatted)))
    }

    /// A provider's `wa_id` or `msisdn`: digits with the country code and no `+`. Never read with a default
    /// region, which would double the country code.
    pub fn from_wa_id(digits: &str) -> Result<Self, PhoneError> {
        let digits = digits.strip_prefix('+').unwrap_or(digits);
        if digits.len() < 6 || digits.len() > 15 {
            return Err(PhoneError::WrongLength);
        }
        if !digits.bytes().all(|b| b.is_ascii_digit()) || digits.starts_with('0') {
            return Err(PhoneError::NotANumber);
        }
        Ok(Self(as_dialled_today(&format!("+{digits}"))))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the `+`, as WhatsApp writes it.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }
}

impl std::fmt::Display for E164 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for E164 {
    type Error = PhoneError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text, None)
    }
}

impl From<E164> for String {
    fn from(number: E164) -> Self {
        number.0
    }
}

/// Bidi marks and zero-width characters that come along when a number is copied from an Arabic page.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{061C}' | '\u{FEFF}')
}

/// Two countries renumbered their mobiles, and WhatsApp ids of older accounts keep the old form: Brazil put a 9 before
/// eight-digit mobiles (Anatel, resolution 553/2010; landlines start with 2 to 5), Mexico dropped the 1 after its country
/// code (IFT, 2019). Meta answers with either form, so both are kept as today's.
fn as_dialled_today(number: &str) -> String {
    let is_digits =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = number
        .strip_prefix("+521")
        .filter(|rest| is_digits(rest, 10))
    {
        return format!("+52{rest}");
    }
    if let Some(rest) = number
        .strip_prefix("+55")
        .filter(|rest| is_digits(rest, 10))
    {
        let (area, subscriber) = rest.split_at(2);
        if subscriber.starts_with(['6', '7', '8', '9']) {
            return format!("+55{area}9{subscriber}");
        }
    }
    number.to_owned()
}

/// `00` is how most of the world dials `+`; with no region the library cannot know that.
fn rewrite_international_prefix(text: &str) -> String {
    let mut chars = text.chars();
    let is_zero = |c: char| matches!(c, '0' | '٠' | '۰');
    match (chars.next(), chars.next()) {
        (Some(a), Some(b)) if is_zero(a) && is_zero(b) => format!("+{}", chars.as_str()),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egypt(text: &str) -> Result<String, PhoneError> {
        E164::parse(text, Some(parse_region("EG").unwrap())).map(String::from)
    }

    #[test]
    fn every_way_an_egyptian_types_a_mobile_number_is_the_same_number() {
        for spelling in [
            "01012345678",
            "1012345678",
            "201012345678",
            "+201012345678",
            "00201012345678",
            "+20 10 1234 5678",
            "+20 (0)10-1234-5678",
            "٠١٠١٢٣٤٥٦٧٨",
            "٠٠٢٠١٠١٢٣٤٥٦٧٨",
            "۰۱۰۱۲۳۴۵۶۷۸",
            "\u{200F}010 1234\u{00A0}5678\u{200E}",
        ] {
            assert_eq!(
                egypt(spelling).as_deref(),
                Ok("+201012345678"),
                "{spelling:?}"
            );
        }
    }

    #[test]
    fn a_saudi_number_with_its_trunk_zero_is_read() {
        let saudi = parse_region("sa").unwrap();
        for spelling in [
            "0512345678",
            "+966512345678",
            "966 0512345678",
            "00966512345678",
        ] {
            assert_eq!(
                E164::parse(spelling, Some(saudi)).unwrap().as_str(),
                "+966512345678",
                "{spelling}"
            );
        }
    }

    #[test]
    fn the_old_and_new_form_of_a_brazilian_or_mexican_mobile_are_one_person() {
        for (old, new) in [
            ("551187654321", "+5511987654321"),
            ("5511987654321", "+5511987654321"),
            // A landline has no second form.
            ("551133334444", "+551133334444"),
            ("5215512345678", "+525512345678"),
            ("525512345678", "+525512345678"),
        ] {
            assert_eq!(E164::from_wa_id(old).unwrap().as_str(), new, "{old}");
            let typed = format!("+{old}");
            assert_eq!(E164::parse(&typed, None).unwrap().as_str(), new, "{typed}");
        }
    }

    #[test]
    fn rubbish_is_refused_with_its_reason() {
        assert_eq!(egypt("hello"), Err(PhoneError::NotANumber));
        assert_eq!(egypt(""), Err(PhoneError::NotANumber));
        assert_eq!(egypt("12"), Err(PhoneError::WrongLength));
        assert_eq!(E164::parse("01012345678", None), Err(PhoneError::NoRegion));
        assert_eq!(E164::parse("hello", None), Err(PhoneError::NoRegion));
    }

    #[test]
    fn a_wa_id_is_never_read_with_a_default_region() {
        assert_eq!(
            E164::from_wa_id("4915112345678").unwrap().as_str(),
            "+4915112345678"
        );
        assert_eq!(E164::from_wa_id("EG.1349"), Err(PhoneError::NotANumber));
    }
}
