//! Pieces of SQL text.

use std::fmt::Write;

use crate::{RestError, limits};

/// An identifier, always in quotes.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn quote_all<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// A name of the schema as a text literal, for `jsonb_build_object`.
pub(super) fn literal(name: &str) -> String {
    // E'' reads backslashes the same whatever the settings are.
    format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

pub(super) fn public(name: &str) -> String {
    format!("\"public\".{}", quote(name))
}

/// The values of a list as one text in the form of a Postgres array.
pub(super) fn array(values: &[String]) -> String {
    let mut text = String::from("{");
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push('"');
        for c in value.chars() {
            if c == '"' || c == '\\' {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('"');
    }
    text.push('}');
    text
}

/// Collects binds and hands out aliases.
#[derive(Debug, Default)]
pub(super) struct Binds {
    pub values: Vec<String>,
    aliases: usize,
}

impl Binds {
    /// `$n` for this value.
    pub fn bind(&mut self, value: impl Into<String>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// The next number for the aliases of a relation.
    pub fn alias(&mut self) -> usize {
        self.aliases += 1;
        self.aliases
    }
}

/// The types a cast may name; the caller's text does not get into the statement.
pub(super) fn cast_type(name: &str) -> Result<&'static str, RestError> {
    const TYPES: &[(&str, &str, &str)] = &[
        ("text", "text", "text[]"),
        ("varchar", "varchar", "varchar[]"),
        ("int2", "int2", "int2[]"),
        ("smallint", "int2", "int2[]"),
        ("int4", "int4", "int4[]"),
        ("int", "int4", "int4[]"),
        ("integer", "int4", "int4[]"),
        ("int8", "int8", "int8[]"),
        ("bigint", "int8", "int8[]"),
        ("float4", "float4", "float4[]"),
        ("real", "float4", "float4[]"),
        ("float8", "float8", "float8[]"),
        ("double precision", "float8", "float8[]"),
        ("numeric", "numeric", "numeric[]"),
        ("decimal", "numeric", "numeric[]"),
        ("bool", "bool", "bool[]"),
        ("boolean", "bool", "bool[]"),
        ("uuid", "uuid", "uuid[]"),
        ("json", "json", "json[]"),
        ("jsonb", "jsonb", "jsonb[]"),
        ("date", "date", "date[]"),
        ("time", "time", "time[]"),
        ("timetz", "timetz", "timetz[]"),
        ("timestamp", "timestamp", "timestamp[]"),
        ("timestamptz", "timestamptz", "timestamptz[]"),
        ("interval", "interval", "interval[]"),
    ];
    let wanted = name.trim().to_ascii_lowercase();
    let (wanted, is_array) = match wanted.strip_suffix("[]") {
        Some(element) => (element.trim_end(), true),
        None => (wanted.as_str(), false),
    };
    TYPES
        .iter()
        .find(|(known, ..)| *known == wanted)
        .map(|(_, one, many)| if is_array { *many } else { *one })
        .ok_or_else(|| {
            let shown: String = name.chars().take(100).collect();
            RestError::new(400, "42704", format!("type \"{shown}\" does not exist"))
        })
}

/// The columns every statement answers with.
pub(super) struct Shell<'a> {
    /// What goes before, such as `WITH w AS (…)`.
    pub with: &'a str,
    /// Aggregates over the rows `r` of `source`.
    pub page: &'a str,
    pub total: &'a str,
    pub inserted: &'a str,
    pub body: &'a str,
    pub source: &'a str,
}

impl Shell<'_> {
    pub fn sql(&self) -> String {
        let Self {
            with,
            page,
            total,
            inserted,
            body,
            source,
        } = self;
        let mut sql = String::new();
        if !with.is_empty() {
            let _ = write!(sql, "WITH {with} ");
        }
        let most = limits::ANSWER;
        let _ = write!(
            sql,
            "SELECT answer.page, answer.total, answer.inserted, octet_length(answer.body) AS size, \
             CASE WHEN octet_length(answer.body) <= {most} THEN answer.body END AS body \
             FROM (SELECT {page} AS page, {total} AS total, {inserted} AS inserted, {body} AS body FROM {source}) AS answer"
        );
        sql
    }
}
