//! The kinds of values a setting can have, and how they are written as text.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// What stands for a secret wherever one would be shown.
pub(crate) const HIDDEN: &str = "***";

/// A text that is never shown: `Debug`, `Display` and `Serialize` give `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret(String);

impl Secret {
    /// The value itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Secret {
    type Error = String;

    /// Refuses an empty text and `***`, which a printed configuration has in place of secrets.
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "" => Err("must not be empty".to_owned()),
            HIDDEN => Err(format!(
                "is {HIDDEN}, as in a printed configuration, not the secret itself"
            )),
            _ => Ok(Self(text)),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// An http or https address, without a slash at its end, so that a path can be added.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct WebUrl(String);

/// Like [`WebUrl`], and ws or wss too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct SocketUrl(String);

impl WebUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SocketUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WebUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        address(&text, &["https", "http"]).map(Self)
    }
}

impl TryFrom<String> for SocketUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        address(&text, &["wss", "ws", "https", "http"]).map(Self)
    }
}

fn address(text: &str, schemes: &[&str]) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| {
        format!(
            "must be a full address such as {}://example.com ({error})",
            schemes[0]
        )
    })?;
    if !schemes.contains(&url.scheme()) {
        let schemes: Vec<String> = schemes
            .iter()
            .map(|scheme| format!("{scheme}://"))
            .collect();
        return Err(format!("must start with {}", schemes.join(" or ")));
    }
    // These settings are shown and logged.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must not have a part after #".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// A value that may be missing, written as an empty text.
pub(crate) mod optional {
    use serde::de::IntoDeserializer;
    use serde::de::value::StringDeserializer;

    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        let text: StringDeserializer<D::Error> = text.into_deserializer();
        T::deserialize(text).map(Some)
    }

    pub(crate) fn serialize<S, T>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        T: Serialize,
    {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}

/// A duration written as `50ms`, `10s`, `2m`, `1h` or `3d`.
pub(crate) mod duration {
    use std::time::Duration;

    use super::{Deserialize, Deserializer, Serializer, parse_units, write_units};

    const UNITS: &[(&str, u64)] = &[
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];

    /// Ten years: what is longer is a slip, and overflows clocks further on.
    const MAX_MILLIS: u64 = 3650 * 86_400_000;

    pub(crate) fn parse(text: &str) -> Result<Duration, String> {
        let millis =
            parse_units(text, UNITS).ok_or("must be a duration such as 50ms, 10s, 2m, 1h or 3d")?;
        if millis > MAX_MILLIS {
            return Err("must be at most 3650d".to_owned());
        }
        Ok(Duration::from_millis(millis))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    pub(crate) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        // Zero would otherwise be written as 0d.
        let text = if millis == 0 {
            "0s".to_owned()
        } else {
            write_units(millis, UNITS)
        };
        serializer.serialize_str(&text)
    }

    /// The same, longer than nothing.
    pub(crate) mod positive {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Duration, D::Error> {
            match super::parse(&String::deserialize(deserializer)?) {
                Ok(Duration::ZERO) => Err(serde::de::Error::custom("must be longer than nothing")),
                other => other.map_err(serde::de::Error::custom),
            }
        }

        pub(crate) fn serialize<S: Serializer>(
            value: &Duration,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            super::serialize(value, serializer)
        }
    }
}

/// A number of bytes above zero, written as `512B`, `64KiB`, `3MiB` or `1GiB`.
pub(crate) mod size {
    use super::{Deserialize, Deserializer, Serializer, parse_units, write_units};

    const UNITS: &[(&str, u64)] = &[
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("B", 1),
    ];

    pub(crate) fn parse(text: &str) -> Result<usize, String> {
        parse_units(text, UNITS)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| "must be a size such as 64KiB, 3MiB or 1GiB".to_owned())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<usize, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    pub(crate) fn serialize<S: Serializer>(
        value: &usize,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write_units(*value as u64, UNITS))
    }
}

/// Reads a whole number followed by a unit.
fn parse_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end_of_number = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end_of_number);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Reads `50ms`, `10s`, `2m`, `1h` or `3d`, for command-line arguments.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    duration::parse(text)
}

/// Writes a number in the largest unit that gives a whole number. `units` go from large to small, the last is 1.
fn write_units(value: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .find(|(_, factor)| value.is_multiple_of(*factor))
        .map_or_else(
            || value.to_string(),
            |(unit, factor)| format!("{}{unit}", value / factor),
        )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        for (text, millis) in [
            ("50ms", 50),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("3d", 259_200_000),
            ("0s", 0),
        ] {
            assert_eq!(
                duration::parse(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "s",
            "1.5h",
            "-1s",
            "1 s",
            "1h30m",
            "1S",
            "99999999999999999999s",
            "213503982335d",
        ] {
            assert!(duration::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            duration::parse("3651d"),
            Err("must be at most 3650d".to_owned())
        );
    }

    #[test]
    fn sizes_are_a_whole_number_and_a_unit() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("3MiB", 3_145_728),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size::parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "3", "3MB", "0B", "-1B", "99999999999GiB"] {
            assert!(size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::try_from("hunter2".to_owned()).unwrap();
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "*** *** Some(***)"
        );
        assert_eq!(
            toml::Value::try_from(&secret).unwrap().as_str(),
            Some("***")
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn addresses_lose_the_slash_at_their_end_and_must_be_plain() {
        let url = |text: &str| WebUrl::try_from(text.to_owned());
        assert_eq!(
            url("http://127.0.0.1:9000/").unwrap().as_str(),
            "http://127.0.0.1:9000"
        );
        assert_eq!(
            url("https://example.com/base/").unwrap().as_str(),
            "https://example.com/base"
        );
        for text in [
            "",
            "example.com",
            "localhost:3001",
            "ftp://example.com",
            "https://user:pw@example.com",
            "https://a.example/#x",
            "wss://a.example",
        ] {
            let reason = url(text).unwrap_err();
            assert!(!reason.contains("pw"), "{reason}");
        }
        assert!(SocketUrl::try_from("wss://a.example/ws/chat".to_owned()).is_ok());
    }
}
