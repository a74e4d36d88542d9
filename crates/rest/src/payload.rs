//! The body of a write: which columns its rows have. The rows themselves go to Postgres as they came.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{RestError, limits};

/// JSON rows, checked for shape only.
#[derive(Clone, Debug)]
pub struct Payload {
    /// A JSON list of objects.
    pub(crate) json: String,
    /// The keys of the first row, in order of name.
    pub(crate) keys: BTreeSet<String>,
    /// Whether every row has just those.
    pub(crate) uniform: bool,
    pub(crate) rows: usize,
}

impl Payload {
    /// Reads an object or a list of objects.
    pub fn parse(body: &str) -> Result<Self, RestError> {
        let shape: Shape =
            serde_json::from_str(body).map_err(|_| RestError::bad_body("Empty or invalid json"))?;
        match shape {
            Shape::Row(keys) => Ok(Self {
                json: format!("[{body}]"),
                keys,
                uniform: true,
                rows: 1,
            }),
            Shape::Rows(rows) if rows.count > limits::ROWS => {
                Err(RestError::too_much("rows", limits::ROWS))
            }
            Shape::Rows(rows) => Ok(Self {
                json: body.to_owned(),
                keys: rows.keys,
                uniform: rows.uniform,
                rows: rows.count,
            }),
        }
    }

    /// The arguments of a function: an object; nothing counts as an empty one.
    pub fn arguments(body: &str) -> Result<Self, RestError> {
        let body = if body.trim().is_empty() { "{}" } else { body };
        match serde_json::from_str(body) {
            Ok(Shape::Row(keys)) => Ok(Self {
                json: body.to_owned(),
                keys,
                uniform: true,
                rows: 1,
            }),
            _ => Err(RestError::bad_body("Empty or invalid json")),
        }
    }
}

enum Shape {
    Row(BTreeSet<String>),
    Rows(Rows),
}

#[derive(Default)]
struct Rows {
    keys: BTreeSet<String>,
    uniform: bool,
    count: usize,
}

struct Keys(BTreeSet<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Row;
        impl<'de> Visitor<'de> for Row {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Keys, A::Error> {
                read_keys(map).map(Keys)
            }
        }
        deserializer.deserialize_map(Row)
    }
}

fn read_keys<'de, A: MapAccess<'de>>(mut map: A) -> Result<BTreeSet<String>, A::Error> {
    let mut keys = BTreeSet::new();
    while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
        keys.insert(key);
    }
    Ok(keys)
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Body;
        impl<'de> Visitor<'de> for Body {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list of objects")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shape, A::Error> {
                read_keys(map).map(Shape::Row)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut rows = Rows {
                    uniform: true,
                    ..Rows::default()
                };
                while let Some(Keys(keys)) = list.next_element()? {
                    if rows.count == 0 {
                        rows.keys = keys;
                    } else if rows.keys != keys {
                        rows.uniform = false;
                    }
                    rows.count += 1;
                }
                Ok(Shape::Rows(rows))
            }
        }
        deserializer.deserialize_any(Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_row_or_a_list_of_rows() {
        for (body, expected) in [
            (r#"{"b":1,"a":{"x":[1]}}"#, Some((1, true, "a,b"))),
            (r#"[{"a":1},{"a":2}]"#, Some((2, true, "a"))),
            (r#"[{"a":1},{"b":2}]"#, Some((2, false, "a"))),
            ("[]", Some((0, true, ""))),
            ("{}", Some((1, true, ""))),
            ("", None),
            ("1", None),
            ("[1]", None),
            ("null", None),
            (r#"{"a":1} x"#, None),
        ] {
            let read = Payload::parse(body).ok().map(|payload| {
                let keys: Vec<_> = payload.keys.into_iter().collect();
                (payload.rows, payload.uniform, keys.join(","))
            });
            let expected = expected.map(|(rows, uniform, keys)| (rows, uniform, keys.to_owned()));
            assert_eq!(read, expected, "{body}");
        }
    }
}
