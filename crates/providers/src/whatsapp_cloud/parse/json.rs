//! Lenient reading of JSON: an object is cut into its members once, and each member is read when it is asked for.
//! A member of the wrong type is then as good as absent and harms nothing beside it.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

pub(super) struct Object<'a> {
    raw: &'a RawValue,
    members: Members<'a>,
}

impl<'a> Object<'a> {
    /// `None` if it is no object.
    pub fn read(raw: &'a RawValue) -> Option<Self> {
        let members = serde_json::from_str(raw.get()).ok()?;
        Some(Self { raw, members })
    }

    /// A member that is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.members.0.iter().find(|(key, _)| key == name);
        found.map(|(_, raw)| *raw).filter(|raw| raw.get() != "null")
    }

    /// A text that is not empty, or a number as it is written: Meta uses both for ids and times.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(text_of)
    }

    pub fn string(&self, name: &str) -> Option<String> {
        self.text(name).map(Cow::into_owned)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|raw| raw.get() == "true")
    }

    pub fn object(&self, name: &str) -> Option<Object<'a>> {
        self.get(name).and_then(Object::read)
    }

    /// The items of a list; a single object counts as a list of one.
    pub fn list(&self, name: &str) -> Vec<&'a RawValue> {
        match self.get(name) {
            None => Vec::new(),
            Some(raw) if raw.get().starts_with('[') => {
                serde_json::from_str(raw.get()).unwrap_or_default()
            }
            Some(raw) => vec![raw],
        }
    }

    pub fn value(&self, name: &str) -> Option<Value> {
        self.get(name).map(value_of)
    }

    pub fn raw(&self) -> &'a RawValue {
        self.raw
    }

    pub fn to_value(&self) -> Value {
        value_of(self.raw)
    }

    /// Seconds since 1970, as a text or a number. The epoch itself stands for "not said".
    pub fn time(&self, name: &str) -> DateTime<Utc> {
        self.get(name).map_or(DateTime::UNIX_EPOCH, time_of)
    }
}

/// As [`Object::time`].
pub(super) fn time_of(raw: &RawValue) -> DateTime<Utc> {
    /// Anything later is milliseconds, which some fields use.
    const YEAR_2286: i64 = 9_999_999_999;

    let seconds = text_of(raw).and_then(|text| text.parse::<i64>().ok());
    let time = match seconds {
        Some(seconds @ 0..=YEAR_2286) => DateTime::from_timestamp(seconds, 0),
        Some(millis) if (0..=YEAR_2286 * 1000).contains(&millis) => {
            DateTime::from_timestamp_millis(millis)
        }
        _ => None,
    };
    time.unwrap_or(DateTime::UNIX_EPOCH)
}

/// Null only where the value is nested deeper than the JSON reader goes (128 levels).
pub(super) fn value_of(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let text = match json.as_bytes() {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => {
            Cow::Borrowed(&json[1..json.len() - 1])
        }
        [b'"', ..] => Cow::Owned(serde_json::from_str(json).ok()?),
        [b'-' | b'0'..=b'9', ..] => Cow::Borrowed(json),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// The members of an object, unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Cutter;
        impl<'de> Visitor<'de> for Cutter {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((Key(key), raw)) = map.next_entry()? {
                    members.push((key, raw));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Cutter)
    }
}

/// Replaces by U+FFFD what no database text holds: NUL, and halves of a surrogate pair (a client that cuts a text
/// in the middle of an emoji). Both can only arrive as `\u` escapes, and the replacement is as long as they are.
pub(super) fn repaired(body: &[u8]) -> Cow<'_, [u8]> {
    const REPLACEMENT: &[u8; 6] = b"\\ufffd";
    let mut body = Cow::Borrowed(body);
    let mut at = 0;
    while let Some(found) = body[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        let Some(unit) = escape_at(&body, at) else {
            // Another escape such as `\n` or `\\`.
            at = body.len().min(at + 2);
            continue;
        };
        match unit {
            0xD800..=0xDBFF if matches!(escape_at(&body, at + 6), Some(0xDC00..=0xDFFF)) => {
                at += 12;
            }
            0 | 0xD800..=0xDFFF => {
                body.to_mut()[at..at + 6].copy_from_slice(REPLACEMENT);
                at += 6;
            }
            _ => at += 6,
        }
    }
    body
}

/// The UTF-16 unit of the escape `\uXXXX` that begins at `at`.
fn escape_at(body: &[u8], at: usize) -> Option<u16> {
    let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0u16, |unit, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | value as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_an_emoji_and_nul_are_replaced_and_the_rest_stays_as_it_is() {
        for (given, expected) in [
            (r#""\ud83d\ude00 \u0645""#, r#""\ud83d\ude00 \u0645""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""a\u0000b""#, r#""a\ufffdb""#),
            (r#""\\u0000 \\\u0000""#, r#""\\u0000 \\\ufffd""#),
            (r#""\"#, r#""\"#),
            (r#""\u00"#, r#""\u00"#),
        ] {
            assert_eq!(repaired(given.as_bytes()), expected.as_bytes(), "{given}");
        }
    }

    #[test]
    fn a_time_is_read_from_a_text_or_a_number_in_seconds_or_milliseconds() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        for (json, expected) in [
            (r#"{"t":"1749416383"}"#, 1_749_416_383),
            (r#"{"t":1749416383}"#, 1_749_416_383),
            (r#"{"t":1749416383000}"#, 1_749_416_383),
            (r#"{"t":"soon"}"#, 0),
            (r#"{"t":-1}"#, 0),
            (r#"{"t":99999999999999999999}"#, 0),
            (r#"{}"#, 0),
        ] {
            let raw = raw(json);
            let time = Object::read(&raw).unwrap().time("t");
            assert_eq!(time.timestamp(), expected, "{json}");
        }
    }
}
