//! `Prefer`, `Accept` and `Range`.

use crate::RestError;

/// What a write answers with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Returning {
    #[default]
    Minimal,
    HeadersOnly,
    Representation,
}

/// How the total is to be found. All three are answered exactly: an estimate of the planner is made of every tenant's
/// rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Exact,
    Planned,
    Estimated,
}

/// What becomes of a row that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    Merge,
    Ignore,
}

/// The `Prefer` headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    pub returning: Option<Returning>,
    pub count: Option<Count>,
    pub resolution: Option<Resolution>,
    /// A column that a row of the body does not have takes its default, not null.
    pub missing_default: bool,
    /// The transaction is undone after the answer is made.
    pub rollback: bool,
    /// Unknown preferences are errors, and `max-affected` counts.
    pub strict: bool,
    pub max_affected: Option<u64>,
}

impl Preferences {
    /// Reads the values of all `Prefer` headers. Unknown ones are passed over, unless `handling=strict`.
    pub fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Result<Self, RestError> {
        let mut preferences = Self::default();
        let mut unknown = Vec::new();
        for word in values.flat_map(|value| value.split(',')).map(str::trim) {
            match word {
                "" => {}
                "return=minimal" => preferences.returning = Some(Returning::Minimal),
                "return=headers-only" => preferences.returning = Some(Returning::HeadersOnly),
                "return=representation" => preferences.returning = Some(Returning::Representation),
                "count=exact" => preferences.count = Some(Count::Exact),
                "count=planned" => preferences.count = Some(Count::Planned),
                "count=estimated" => preferences.count = Some(Count::Estimated),
                "resolution=merge-duplicates" => preferences.resolution = Some(Resolution::Merge),
                "resolution=ignore-duplicates" => preferences.resolution = Some(Resolution::Ignore),
                "missing=default" => preferences.missing_default = true,
                "missing=null" => preferences.missing_default = false,
                "tx=rollback" => preferences.rollback = true,
                "tx=commit" => preferences.rollback = false,
                "handling=strict" => preferences.strict = true,
                "handling=lenient" => preferences.strict = false,
                other => match other.strip_prefix("max-affected=").map(str::parse) {
                    Some(Ok(rows)) => preferences.max_affected = Some(rows),
                    _ => unknown.push(other),
                },
            }
        }
        if preferences.strict && !unknown.is_empty() {
            return Err(RestError::new(
                400,
                "PGRST122",
                "Invalid preferences given with handling=strict",
            )
            .details(format!("Invalid preferences: {}", unknown.join(", "))));
        }
        Ok(preferences)
    }

    /// The value of `Preference-Applied`; empty for none.
    pub(crate) fn applied(&self, writes: bool, inserts: bool) -> String {
        let mut words = Vec::new();
        if let Some(resolution) = self.resolution.filter(|_| inserts) {
            words.push(match resolution {
                Resolution::Merge => "resolution=merge-duplicates".to_owned(),
                Resolution::Ignore => "resolution=ignore-duplicates".to_owned(),
            });
        }
        if self.missing_default && inserts {
            words.push("missing=default".to_owned());
        }
        if let Some(returning) = self.returning.filter(|_| writes) {
            words.push(match returning {
                Returning::Minimal => "return=minimal".to_owned(),
                Returning::HeadersOnly => "return=headers-only".to_owned(),
                Returning::Representation => "return=representation".to_owned(),
            });
        }
        if let Some(count) = self.count {
            words.push(match count {
                Count::Exact => "count=exact".to_owned(),
                Count::Planned => "count=planned".to_owned(),
                Count::Estimated => "count=estimated".to_owned(),
            });
        }
        if self.rollback && writes {
            words.push("tx=rollback".to_owned());
        }
        if self.strict {
            words.push("handling=strict".to_owned());
            if let Some(rows) = self.max_affected.filter(|_| writes) {
                words.push(format!("max-affected={rows}"));
            }
        }
        words.join(", ")
    }
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// A list of objects.
    Json {
        strip_nulls: bool,
    },
    /// One object, or a refusal.
    Single {
        strip_nulls: bool,
    },
    Csv,
}

impl MediaType {
    /// The first form of an `Accept` header that is spoken here.
    pub fn parse(accept: Option<&str>) -> Result<Self, RestError> {
        let accept = accept.unwrap_or("*/*");
        for wanted in accept.split(',') {
            let mut parts = wanted.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let strip_nulls = parts.any(|part| part == "nulls=stripped");
            match name.as_str() {
                "" | "*/*" | "application/*" | "application/json" => {
                    return Ok(Self::Json { strip_nulls: false });
                }
                "application/vnd.pgrst.array+json" | "application/vnd.pgrst.array" => {
                    return Ok(Self::Json { strip_nulls });
                }
                "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => {
                    return Ok(Self::Single { strip_nulls });
                }
                "text/csv" | "text/*" => return Ok(Self::Csv),
                _ => {}
            }
        }
        let shown: String = accept.chars().take(200).collect();
        Err(RestError::new(
            406,
            "PGRST107",
            format!("None of these media types are available: {shown}"),
        ))
    }

    #[must_use]
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json { .. } => "application/json; charset=utf-8",
            Self::Single { .. } => "application/vnd.pgrst.object+json; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// The header `Range: 0-9` of older clients: rows, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRange {
    pub offset: u64,
    pub limit: Option<u64>,
}

impl RowRange {
    /// `None` for a range of something else, such as bytes, and for what is no range.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (first, last) = value.trim().split_once('-')?;
        let offset: u64 = first.parse().ok()?;
        if last.is_empty() {
            return Some(Self {
                offset,
                limit: None,
            });
        }
        let last: u64 = last.parse().ok()?;
        let limit = Some(last.checked_sub(offset)?.saturating_add(1));
        Some(Self { offset, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_from_several_headers_and_lists() {
        let read = |values: &[&str]| Preferences::parse(values.iter().copied());
        let preferences = read(&["count=exact, return=representation", "missing=default"]).unwrap();
        assert_eq!(preferences.count, Some(Count::Exact));
        assert_eq!(preferences.returning, Some(Returning::Representation));
        assert!(preferences.missing_default);
        assert_eq!(
            preferences.applied(true, true),
            "missing=default, return=representation, count=exact"
        );
        assert_eq!(read(&["wait=5"]).unwrap(), Preferences::default());
        let refused = read(&["handling=strict, wait=5, max-affected=x"]).unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (400, "PGRST122"));
        assert_eq!(
            read(&["handling=strict,max-affected=3"])
                .unwrap()
                .max_affected,
            Some(3)
        );
    }

    #[test]
    fn the_form_of_the_answer_is_the_first_one_known() {
        for (accept, expected) in [
            (None, Some(MediaType::Json { strip_nulls: false })),
            (Some("*/*"), Some(MediaType::Json { strip_nulls: false })),
            (
                Some("application/vnd.pgrst.object+json"),
                Some(MediaType::Single { strip_nulls: false }),
            ),
            (
                Some("application/vnd.pgrst.array+json;nulls=stripped"),
                Some(MediaType::Json { strip_nulls: true }),
            ),
            (Some("image/png, text/csv"), Some(MediaType::Csv)),
            (Some("application/geo+json"), None),
            (Some("application/vnd.pgrst.plan+json"), None),
        ] {
            assert_eq!(MediaType::parse(accept).ok(), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_range_counts_rows() {
        let range = |offset, limit| Some(RowRange { offset, limit });
        for (value, expected) in [
            ("0-9", range(0, Some(10))),
            ("5-", range(5, None)),
            ("3-3", range(3, Some(1))),
            ("bytes=0-9", None),
            ("9-3", None),
            ("-5", None),
            ("", None),
        ] {
            assert_eq!(RowRange::parse(value), expected, "{value}");
        }
    }
}
