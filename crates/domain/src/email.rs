//! E-mail addresses, as far as they are keys of ours, and what every e-mail keeps to.

/// The longest subject that is sent, in characters. Mail programs show the first 60 or so; a line of a header may have
/// 998 bytes (RFC 5322 section 2.1.1), but is folded.
pub const MAX_SUBJECT_CHARS: usize = 500;

/// An address in the form we keep and compare: trimmed and lower-case, `name@example.com`. The local part is folded too:
/// RFC 5321 lets it be case-sensitive, no mail service of today does.
pub fn parse(text: &str) -> Result<String, &'static str> {
    const REFUSAL: &str = "is no e-mail address such as name@example.com";
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@').ok_or(REFUSAL)?;
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>(),;:\\\"[]@".contains(c);
    let label_is_good =
        |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let is_good = (1..=64).contains(&local.len())
        && domain.len() <= 253
        && local.chars().all(is_plain)
        && domain.chars().all(is_plain)
        && domain.contains('.')
        && domain.split('.').all(label_is_good);
    if is_good {
        Ok(text.to_lowercase())
    } else {
        Err(REFUSAL)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_is_kept_in_one_spelling() {
        assert_eq!(
            super::parse(" Sara.Ali+x@Example.COM ").as_deref(),
            Ok("sara.ali+x@example.com")
        );
        assert!(
            super::parse(
                "\u{645}\u{647}\u{627}@\u{645}\u{62B}\u{627}\u{644}.\u{645}\u{635}\u{631}"
            )
            .is_ok()
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "sara",
            "@example.com",
            "sara@",
            "sara@localhost",
            "sara@.com",
            "a b@example.com",
            "sara@example.com\r\nBcc: x@example.com",
            "Sara <sara@example.com>",
            "sara@@example.com",
            "sara@-x.com",
        ] {
            assert!(super::parse(text).is_err(), "{text:?}");
        }
    }
}
