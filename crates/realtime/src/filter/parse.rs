//! The grammar: splitting at commas, operators, quoting.

use regex::RegexBuilder;

use super::like::LikePattern;
use super::value::{Kind, Operand};
use super::{Comparison, Condition, Filter, FilterError, Test};
use crate::catalog::{Column, TableInfo};

/// Longest filter read; a hundred quoted UUIDs take 4 kB.
const MAX_BYTES: usize = 16 * 1024;
const MAX_CONDITIONS: usize = 20;
/// The documented bound of `in`.
const MAX_IN_VALUES: usize = 100;
/// Longest pattern of `like` and `match`: matching costs pattern × text steps, and rows wait for it.
const MAX_PATTERN_BYTES: usize = 512;
/// Memory that one compiled expression may take.
const REGEX_BYTES: usize = 64 * 1024;

pub(super) fn parse(text: &str, table: &TableInfo) -> Result<Filter, FilterError> {
    if text.len() > MAX_BYTES {
        return Err(FilterError::TooLong(MAX_BYTES));
    }
    if text.trim().is_empty() {
        return Ok(Filter::default());
    }
    let parts = split(text).ok_or_else(|| FilterError::Malformed(text.to_owned()))?;
    if parts.len() > MAX_CONDITIONS {
        return Err(FilterError::TooManyConditions(MAX_CONDITIONS));
    }
    let conditions = parts
        .into_iter()
        .map(|part| condition(part, table))
        .collect::<Result<_, _>>()?;
    Ok(Filter { conditions })
}

/// Splits at the commas outside parentheses and double quotes. `None` when a quote is not closed.
///
/// A quote opens only where a value can begin: after `.`, `(` or `,`. Elsewhere it is an ordinary character.
fn split(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut depth = 0_usize;
    let mut quoted = false;
    let mut previous = ',';
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quoted {
            match c {
                '\\' => {
                    chars.next()?;
                }
                '"' => quoted = false,
                _ => {}
            }
        } else {
            match c {
                '"' if matches!(previous, '.' | '(' | ',') => quoted = true,
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(&text[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        previous = c;
    }
    if quoted {
        return None;
    }
    parts.push(&text[start..]);
    Some(parts)
}

fn condition(part: &str, table: &TableInfo) -> Result<Condition, FilterError> {
    let malformed = || FilterError::Malformed(part.to_owned());
    let (name, rest) = part.split_once('=').ok_or_else(malformed)?;
    let name = name.trim();
    let (negated, rest) = match rest.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (operator, value) = rest.split_once('.').ok_or_else(malformed)?;
    let column = table
        .column(name)
        .ok_or_else(|| FilterError::UnknownColumn(name.to_owned()))?;
    let kind = Kind::of(&column.type_);
    Ok(Condition {
        column: name.to_owned(),
        kind,
        negated,
        test: test(operator, value, kind, column)?,
    })
}

fn test(operator: &str, value: &str, kind: Kind, column: &Column) -> Result<Test, FilterError> {
    let wrong_type = || FilterError::WrongType {
        operator: operator.to_owned(),
        type_: column.type_.clone(),
    };
    let invalid = || FilterError::InvalidValue {
        column: column.name.clone(),
        type_: column.type_.clone(),
    };
    let cast = |text: &str| kind.cast(text).ok_or_else(invalid);
    let compare = |comparison| -> Result<Test, FilterError> {
        let equality = matches!(comparison, Comparison::Eq | Comparison::Neq);
        if !kind.has_equality() || (!equality && !kind.has_order()) {
            return Err(wrong_type());
        }
        Ok(Test::Compare(comparison, cast(&unquote(value))?))
    };
    match operator {
        "eq" => compare(Comparison::Eq),
        "neq" => compare(Comparison::Neq),
        "lt" => compare(Comparison::Lt),
        "lte" => compare(Comparison::Lte),
        "gt" => compare(Comparison::Gt),
        "gte" => compare(Comparison::Gte),
        "in" if !kind.has_equality() => Err(wrong_type()),
        "in" => in_list(value, cast).and_then(|list| list.ok_or_else(invalid)),
        "is" => match value.to_ascii_lowercase().as_str() {
            "null" => Ok(Test::Is(None)),
            "true" | "false" | "unknown" if kind != Kind::Bool => Err(wrong_type()),
            "true" => Ok(Test::Is(Some(true))),
            "false" => Ok(Test::Is(Some(false))),
            "unknown" => Ok(Test::Is(None)),
            _ => Err(invalid()),
        },
        "isdistinct" if !kind.has_equality() => Err(wrong_type()),
        "isdistinct" if value.eq_ignore_ascii_case("null") => Ok(Test::IsDistinct(None)),
        "isdistinct" => Ok(Test::IsDistinct(Some(cast(&unquote(value))?))),
        "like" | "ilike" | "match" | "imatch" if !kind.is_text() => Err(wrong_type()),
        "like" | "ilike" | "match" | "imatch" if value.len() > MAX_PATTERN_BYTES => {
            Err(FilterError::PatternTooLong(MAX_PATTERN_BYTES))
        }
        "like" | "ilike" => {
            let ignore_case = operator == "ilike" || kind == Kind::CaseInsensitiveText;
            LikePattern::new(&unquote(value), ignore_case)
                .map(Test::Like)
                .ok_or_else(invalid)
        }
        "match" | "imatch" => RegexBuilder::new(&unquote(value))
            .case_insensitive(operator == "imatch" || kind == Kind::CaseInsensitiveText)
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(REGEX_BYTES)
            .build()
            .map(Test::Match)
            .map_err(|_| FilterError::InvalidPattern(column.name.clone())),
        _ => Err(FilterError::UnknownOperator(operator.to_owned())),
    }
}

/// Reads `(a,"b",c)`; the inner `None` means that the parentheses or quotes are wrong.
fn in_list(
    value: &str,
    cast: impl Fn(&str) -> Result<Operand, FilterError>,
) -> Result<Option<Test>, FilterError> {
    let inner = value
        .strip_prefix('(')
        .and_then(|value| value.strip_suffix(')'));
    let Some(inner) = inner else {
        return Ok(None);
    };
    if inner.trim().is_empty() {
        return Ok(Some(Test::In(Vec::new())));
    }
    let Some(items) = split(inner) else {
        return Ok(None);
    };
    if items.len() > MAX_IN_VALUES {
        return Err(FilterError::TooManyValues(MAX_IN_VALUES));
    }
    let operands = items
        .into_iter()
        .map(|item| cast(&unquote(item)))
        .collect::<Result<_, _>>()?;
    Ok(Some(Test::In(operands)))
}

/// Takes the double quotes off a quoted value and resolves its backslashes; other values stay as they are.
fn unquote(value: &str) -> String {
    let inner = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}
