//! Values as the column's type understands them.

use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde_json::Value;
use uuid::Uuid;

/// How values of a column compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole numbers between the two bounds.
    Integer(i64, i64),
    Float,
    Numeric,
    Bool,
    Text,
    /// `bpchar`: blanks at the end do not count.
    PaddedText,
    /// `citext`.
    CaseInsensitiveText,
    Uuid,
    TimestampTz,
    Timestamp,
    Date,
    Time,
    Jsonb,
    /// Enums and whatever else is told apart by its text but sorts in a way unknown here.
    Opaque,
    /// Types for which texts do not decide equality: arrays, `json`, intervals.
    Incomparable,
}

/// A value after the cast.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Uuid(Uuid),
    /// Times before and after all others are `infinity`.
    Time(Instant),
    Json(Value),
}

/// A point in time of any of the date and time types; only like is compared with like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Instant {
    NegativeInfinity,
    At(NaiveDateTime),
    Infinity,
}

impl Kind {
    pub fn of(udt: &str) -> Self {
        match udt {
            "int2" => Self::Integer(i16::MIN.into(), i16::MAX.into()),
            "int4" => Self::Integer(i32::MIN.into(), i32::MAX.into()),
            "int8" => Self::Integer(i64::MIN, i64::MAX),
            "oid" => Self::Integer(0, u32::MAX.into()),
            "float4" | "float8" => Self::Float,
            "numeric" => Self::Numeric,
            "bool" => Self::Bool,
            "text" | "varchar" | "name" => Self::Text,
            "bpchar" => Self::PaddedText,
            "citext" => Self::CaseInsensitiveText,
            "uuid" => Self::Uuid,
            "timestamptz" => Self::TimestampTz,
            "timestamp" => Self::Timestamp,
            "date" => Self::Date,
            "time" => Self::Time,
            "jsonb" => Self::Jsonb,
            "json" | "xml" | "interval" | "timetz" | "point" | "polygon" => Self::Incomparable,
            array if array.starts_with('_') => Self::Incomparable,
            _ => Self::Opaque,
        }
    }

    pub fn is_text(self) -> bool {
        matches!(
            self,
            Self::Text | Self::PaddedText | Self::CaseInsensitiveText
        )
    }

    pub fn has_equality(self) -> bool {
        self != Self::Incomparable
    }

    pub fn has_order(self) -> bool {
        !matches!(self, Self::Incomparable | Self::Opaque | Self::Jsonb)
    }

    /// Reads the value a filter names. `None` when it is none of this type.
    pub fn cast(self, text: &str) -> Option<Operand> {
        let trimmed = text.trim();
        match self {
            Self::Integer(min, max) => {
                let number: i64 = trimmed.parse().ok()?;
                (min..=max)
                    .contains(&number)
                    .then_some(Operand::Integer(number))
            }
            Self::Float | Self::Numeric => number(trimmed),
            Self::Bool => boolean(trimmed).map(Operand::Bool),
            Self::Text | Self::Opaque => Some(Operand::Text(text.to_owned())),
            Self::PaddedText => Some(Operand::Text(text.trim_end_matches(' ').to_owned())),
            Self::CaseInsensitiveText => Some(Operand::Text(text.to_lowercase())),
            Self::Uuid => uuid(trimmed).map(Operand::Uuid),
            Self::TimestampTz => timestamp(trimmed, true).map(Operand::Time),
            Self::Timestamp => timestamp(trimmed, false).map(Operand::Time),
            Self::Date => date(trimmed).map(Operand::Time),
            Self::Time => {
                let time = clock_time(trimmed)?;
                Some(Operand::Time(Instant::At(
                    NaiveDate::default().and_time(time),
                )))
            }
            Self::Jsonb => serde_json::from_str(text).ok().map(Operand::Json),
            Self::Incomparable => None,
        }
    }

    /// Reads a row's value. `None` for NULL and for what is not of the column's type.
    pub fn read(self, value: &Value) -> Option<Operand> {
        match (self, value) {
            (_, Value::Null) => None,
            (Self::Jsonb, value) => Some(Operand::Json(value.clone())),
            (_, Value::String(text)) => self.cast(text),
            (Self::Bool, Value::Bool(value)) => Some(Operand::Bool(*value)),
            (Self::Integer(..) | Self::Float | Self::Numeric, Value::Number(number)) => number
                .as_i64()
                .map(Operand::Integer)
                .or_else(|| number.as_f64().map(Operand::Float)),
            _ => None,
        }
    }
}

impl Operand {
    /// The order of two values of one type; `None` where there is none.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => Some(order_floats(*a, *b)),
            (Self::Integer(a), Self::Float(b)) => Some(order_mixed(*a, *b)),
            (Self::Float(a), Self::Integer(b)) => Some(order_mixed(*b, *a).reverse()),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Uuid(a), Self::Uuid(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl PartialEq for Operand {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Json(a), Self::Json(b)) => same_json(a, b),
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }
}

/// Postgres' order: NaN equals itself and is above everything.
fn order_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Compares without rounding the integer, so that 2^53 + 1 is not 2^53.
fn order_mixed(a: i64, b: f64) -> Ordering {
    // 2^63 as a float; every i64 is below it and not below its negative.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if b.is_nan() || b >= LIMIT {
        return Ordering::Less;
    }
    if b < -LIMIT {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    // A whole number inside the range of i64: nothing is cut off.
    let whole_int = whole as i64;
    a.cmp(&whole_int).then_with(|| order_floats(0.0, b - whole))
}

/// `jsonb` equality: numbers by value, objects without order.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => Kind::Numeric.read(a) == Kind::Numeric.read(b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same_json(a, b)))
        }
        _ => a == b,
    }
}

fn number(text: &str) -> Option<Operand> {
    if let Ok(integer) = text.parse::<i64>() {
        return Some(Operand::Integer(integer));
    }
    text.parse::<f64>().ok().map(Operand::Float)
}

/// Postgres takes any unambiguous beginning of these words.
fn boolean(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if text == "1" || text == "on" || begins("true", 1) || begins("yes", 1) {
        Some(true)
    } else if text == "0" || begins("off", 2) || begins("false", 1) || begins("no", 1) {
        Some(false)
    } else {
        None
    }
}

fn uuid(text: &str) -> Option<Uuid> {
    if text.starts_with("urn:") {
        return None;
    }
    Uuid::parse_str(text).ok()
}

fn infinity(text: &str) -> Option<Instant> {
    match text.to_ascii_lowercase().as_str() {
        "infinity" | "+infinity" => Some(Instant::Infinity),
        "-infinity" => Some(Instant::NegativeInfinity),
        _ => None,
    }
}

fn date(text: &str) -> Option<Instant> {
    infinity(text).or_else(|| {
        let day = text.get(..10).unwrap_or(text);
        let date = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
        Some(Instant::At(date.and_time(NaiveTime::MIN)))
    })
}

fn clock_time(text: &str) -> Option<NaiveTime> {
    NaiveTime::parse_from_str(text, "%H:%M:%S%.f")
        .or_else(|_| NaiveTime::parse_from_str(text, "%H:%M"))
        .ok()
}

/// Reads ISO 8601 with `T` or a blank, with any or no offset. With `zoned` the offset counts and its absence means UTC;
/// without, Postgres ignores it.
fn timestamp(text: &str, zoned: bool) -> Option<Instant> {
    if let Some(infinite) = infinity(text) {
        return Some(infinite);
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(Instant::At(date.and_time(NaiveTime::MIN)));
    }
    let text = text.replacen(' ', "T", 1);
    let offset_at = text
        .get(11..)?
        .find(['+', '-', 'Z', 'z', ' '])
        .map(|at| at + 11);
    let (local, offset) = text.split_at(offset_at.unwrap_or(text.len()));
    let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(local, "%Y-%m-%dT%H:%M"))
        .ok()?;
    let offset = offset.trim();
    if offset.is_empty() || offset.eq_ignore_ascii_case("z") {
        return Some(Instant::At(local));
    }
    // Postgres writes whole-hour offsets as `+00`.
    let padded = if offset.len() == 3 {
        format!("{offset}:00")
    } else {
        offset.to_owned()
    };
    let with_offset = format!("{}{padded}", local.format("%Y-%m-%dT%H:%M:%S%.f"));
    let utc: DateTime<Utc> = DateTime::parse_from_str(&with_offset, "%Y-%m-%dT%H:%M:%S%.f%:z")
        .ok()?
        .into();
    Some(Instant::At(if zoned { utc.naive_utc() } else { local }))
}
