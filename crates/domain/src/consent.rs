//! Opt-out and opt-in words, in English and Arabic.
//!
//! The English list is the one carriers and Twilio use (REVOKE and OPTOUT since 2025); Twilio handles it for
//! SMS by itself and still passes the message on. Arabic words nobody handles for us.

use serde::{Deserialize, Serialize};

/// What a customer decided about being written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    OptedOut,
    OptedIn,
}

impl Consent {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OptedOut => "opted_out",
            Self::OptedIn => "opted_in",
        }
    }
}

const STOP_WORDS: &[&str] = &[
    "stop",
    "stopall",
    "unsubscribe",
    "cancel",
    "end",
    "quit",
    "revoke",
    "optout",
    "opt out",
    "الغاء",
    "الغاء الاشتراك",
    "توقف",
    "ايقاف",
    "اوقف",
    "وقف",
];
const START_WORDS: &[&str] = &[
    "start",
    "unstop",
    "subscribe",
    "optin",
    "opt in",
    "اشتراك",
    "ابدا",
    "بدء",
    "استئناف",
];

/// Reads a whole message as a consent keyword. Only the bare word counts ("please cancel my order" is a
/// sentence, not an opt-out); case, punctuation, diacritics and the spelling of alef do not matter.
#[must_use]
pub fn keyword(text: &str) -> Option<Consent> {
    // No keyword is longer; a long message is not worth normalising.
    if text.len() > 64 {
        return None;
    }
    let word = normalise(text);
    if STOP_WORDS.contains(&word.as_str()) {
        Some(Consent::OptedOut)
    } else if START_WORDS.contains(&word.as_str()) {
        Some(Consent::OptedIn)
    } else {
        None
    }
}

fn normalise(text: &str) -> String {
    let letters = text.chars().filter_map(|c| match c {
        'أ' | 'إ' | 'آ' | 'ٱ' => Some('ا'),
        'ى' => Some('ي'),
        // Arabic diacritics and the tatweel that stretches a word.
        '\u{064B}'..='\u{065F}' | '\u{0670}' | '\u{0640}' => None,
        c if c.is_alphanumeric() => Some(c),
        c if c.is_whitespace() || c == '-' => Some(' '),
        _ => None,
    });
    let lower: String = letters.flat_map(char::to_lowercase).collect();
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_and_start_are_read_in_both_languages_however_they_are_written() {
        for text in [
            "STOP",
            " stop. ",
            "Unsubscribe!",
            "opt-out",
            "إلغاء",
            "الغاء",
            "إِلْغَاء",
            "تـوقف",
            "إيقاف",
            "أوقف",
        ] {
            assert_eq!(keyword(text), Some(Consent::OptedOut), "{text}");
        }
        for text in ["START", "unstop", "اشتراك", "إبدأ", "ابدأ"] {
            assert_eq!(keyword(text), Some(Consent::OptedIn), "{text}");
        }
    }

    #[test]
    fn a_sentence_with_the_word_in_it_is_not_an_opt_out() {
        for text in [
            "please cancel my order",
            "don't stop",
            "أريد إلغاء الموعد",
            "",
            "🛑",
        ] {
            assert_eq!(keyword(text), None, "{text}");
        }
    }
}
