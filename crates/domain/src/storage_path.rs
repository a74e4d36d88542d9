//! Names of stored files: `photos/2026/invoice.pdf`.
//!
//! The characters are those of Supabase Storage, `\w` and `/ ! - . * ' ( ) space & $ @ = ; : + , ?`. There `\w` is
//! ASCII; here letters and digits of any script count, so that a file may be called فاتورة.pdf.

use std::fmt;

use uuid::Uuid;

/// In bytes, as S3 has it.
pub const MAX_LENGTH: usize = 1024;

/// The folder of an organisation whose files need no token.
const PUBLIC_FOLDER: &str = "public";

/// The name of a file: segments parted by `/`, none of them empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName(String);

/// Why a text is no name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("is empty")]
    Empty,
    #[error("is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("holds a character that names cannot have")]
    Character,
    #[error("has an empty segment, `.` or `..`")]
    Segment,
}

impl ObjectName {
    /// Reads a name that is percent-decoded already. Nothing is put right: what is stored is what was asked for.
    ///
    /// # Errors
    /// When it is no name; a `%` that is left says that it was encoded twice, and is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(InvalidName::TooLong);
        }
        if !text.chars().all(is_allowed) {
            return Err(InvalidName::Character);
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(InvalidName::Segment);
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is put into an address. A `?` would end the path; the rest is escaped by whoever makes a whole URL of it,
    /// as supabase-js does. Since names hold no `%`, nothing else can look like this.
    #[must_use]
    pub fn to_url_path(&self) -> String {
        self.0.replace('?', "%3F")
    }

    /// The last segment.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The organisation whose public folder the name is in: `<organisation id>/public/…`. Whether it is that
    /// organisation's file is another question.
    #[must_use]
    pub fn public_org(&self) -> Option<Uuid> {
        let mut parts = self.0.splitn(3, '/');
        let (org, folder, _rest) = (parts.next()?, parts.next()?, parts.next()?);
        let id = Uuid::try_parse(org).ok()?;
        // One way of writing it only, so that one file has one address.
        (folder == PUBLIC_FOLDER && id.hyphenated().to_string() == org).then_some(id)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A folder as the beginning of names: empty, or ending in `/`.
///
/// # Errors
/// When it can be the beginning of no name.
pub fn parse_folder(text: &str) -> Result<String, InvalidName> {
    let text = text.trim_matches('/');
    if text.is_empty() {
        return Ok(String::new());
    }
    ObjectName::parse(text).map(|name| format!("{name}/"))
}

fn is_allowed(c: char) -> bool {
    c.is_alphanumeric()
        // Accents that file systems write as characters of their own.
        || ('\u{300}'..='\u{36f}').contains(&c)
        || matches!(
            c,
            '_' | '/' | '!' | '-' | '.' | '*' | '\'' | '(' | ')' | ' ' | '&' | '$' | '@' | '=' | ';' | ':' | '+'
                | ',' | '?'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_kept_as_it_was_written() {
        for name in [
            "a.jpg",
            "photos/2026/a b (1).pdf",
            "فواتير/مارس ٢٠٢٦/فاتورة.pdf",
            "cafe\u{301}.png",
            ".emptyFolderPlaceholder",
            "a...b/..c/d..",
            "x!-.*'() &$@=;:+,?",
        ] {
            assert_eq!(ObjectName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_question_mark_does_not_end_the_path_of_an_address() {
        let name = |text| ObjectName::parse(text).unwrap();
        assert_eq!(name("a?/b c?.png").to_url_path(), "a%3F/b c%3F.png");
        assert_eq!(name("a/فاتورة.pdf").to_url_path(), "a/فاتورة.pdf");
    }

    #[test]
    fn a_path_that_leaves_its_folder_or_says_nothing_is_no_name() {
        use InvalidName::{Character, Empty, Segment, TooLong};
        let long = "x".repeat(MAX_LENGTH + 1);
        for (text, reason) in [
            ("", Empty),
            (&long, TooLong),
            ("..", Segment),
            ("a/../b", Segment),
            ("a/./b", Segment),
            ("/a", Segment),
            ("a/", Segment),
            ("a//b", Segment),
            ("a\0b", Character),
            ("a\\..\\b", Character),
            ("a%2Fb", Character),
            ("a\nb", Character),
            ("a\u{202e}gpj.exe", Character),
            ("a#b", Character),
            ("a|b", Character),
        ] {
            assert_eq!(ObjectName::parse(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn only_the_public_folder_of_an_organisation_is_public() {
        let id = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00ab);
        let org = |name: String| ObjectName::parse(&name).unwrap().public_org();
        assert_eq!(org(format!("{id}/public/a.jpg")), Some(id));
        assert_eq!(org(format!("{id}/public/x/a.jpg")), Some(id));
        for name in [
            format!("{id}/public"),
            format!("{id}/a.jpg"),
            format!("{id}/Public/a.jpg"),
            format!("{id}/x/public/a.jpg"),
            format!("{}/public/a.jpg", id.simple()),
            format!("{}/public/a.jpg", id.to_string().to_uppercase()),
            "public/a.jpg".to_owned(),
        ] {
            assert_eq!(org(name.clone()), None, "{name}");
        }
    }

    #[test]
    fn a_folder_is_the_beginning_of_names() {
        assert_eq!(parse_folder("").unwrap(), "");
        assert_eq!(parse_folder("/").unwrap(), "");
        assert_eq!(parse_folder("a/b").unwrap(), "a/b/");
        assert_eq!(parse_folder("a/b/").unwrap(), "a/b/");
        assert!(parse_folder("a//b").is_err());
        assert!(parse_folder("../b").is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_a_name_stays_below_where_it_is_put(text in any::<String>()) {
            if let Ok(name) = ObjectName::parse(&text) {
                let path = std::path::Path::new(name.as_str());
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(ObjectName::parse(name.as_str()), Ok(name));
            }
        }
    }
}
