//! Filters of `postgres_changes` bindings: `column=[not.]op.value`, joined by commas that mean AND.
//!
//! A filter is parsed against the columns of its table and evaluated on the JSON of a row, with the meaning that the
//! same comparison has in Postgres. The one simplification: text sorts by bytes, as under collation `C`.

mod like;
mod parse;
mod value;

use regex::Regex;
use serde_json::{Map, Value};

use crate::catalog::TableInfo;
use like::LikePattern;
use value::{Kind, Operand};

/// A parsed filter; the empty one matches every row.
#[derive(Debug, Default)]
pub struct Filter {
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    column: String,
    kind: Kind,
    negated: bool,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Compare(Comparison, Operand),
    In(Vec<Operand>),
    /// `is.null` as `None`, `is.true` and `is.false` with their value; `is.unknown` is `is.null` on a boolean.
    Is(Option<bool>),
    Like(LikePattern),
    Match(Regex),
    /// `None` compares with NULL.
    IsDistinct(Option<Operand>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
}

/// Why a filter was refused. The text goes to the client, in a system event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("filter is longer than {0} bytes")]
    TooLong(usize),
    #[error("filter has more than {0} conditions")]
    TooManyConditions(usize),
    #[error("more than {0} values for operator in")]
    TooManyValues(usize),
    #[error("pattern is longer than {0} bytes")]
    PatternTooLong(usize),
    #[error("malformed condition, expected column=operator.value: {0}")]
    Malformed(String),
    #[error("unknown operator: {0}")]
    UnknownOperator(String),
    #[error("column does not exist: {0}")]
    UnknownColumn(String),
    #[error("invalid value for column {column} of type {type_}")]
    InvalidValue { column: String, type_: String },
    #[error("operator {operator} does not work on type {type_}")]
    WrongType { operator: String, type_: String },
    #[error("invalid regular expression for column {0}")]
    InvalidPattern(String),
}

impl Filter {
    /// Parses a filter for a table. Blank text is the filter that matches everything.
    pub fn parse(text: &str, table: &TableInfo) -> Result<Self, FilterError> {
        parse::parse(text, table)
    }

    /// Whether the row matches. A condition on NULL or on a column the row does not show is not met.
    pub fn matches(&self, row: &Map<String, Value>) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.evaluate(row) == Some(true))
    }
}

impl Condition {
    /// SQL's three-valued answer; `None` is NULL.
    fn evaluate(&self, row: &Map<String, Value>) -> Option<bool> {
        let value = row.get(&self.column)?;
        self.test
            .evaluate(self.kind, value)
            .map(|met| met != self.negated)
    }
}

impl Test {
    fn evaluate(&self, kind: Kind, value: &Value) -> Option<bool> {
        match self {
            Self::Is(None) => Some(value.is_null()),
            Self::Is(Some(expected)) => Some(value.as_bool() == Some(*expected)),
            Self::IsDistinct(None) => Some(!value.is_null()),
            Self::IsDistinct(Some(operand)) => {
                Some(kind.read(value).is_none_or(|actual| actual != *operand))
            }
            Self::Compare(comparison, operand) => {
                let actual = kind.read(value)?;
                match comparison {
                    Comparison::Eq => Some(actual == *operand),
                    Comparison::Neq => Some(actual != *operand),
                    Comparison::Lt => Some(actual.order(operand)?.is_lt()),
                    Comparison::Lte => Some(actual.order(operand)?.is_le()),
                    Comparison::Gt => Some(actual.order(operand)?.is_gt()),
                    Comparison::Gte => Some(actual.order(operand)?.is_ge()),
                }
            }
            Self::In(operands) => {
                let actual = kind.read(value)?;
                Some(operands.contains(&actual))
            }
            Self::Like(pattern) => Some(pattern.matches(value.as_str()?)),
            Self::Match(regex) => Some(regex.is_match(value.as_str()?)),
        }
    }
}

#[cfg(test)]
mod tests;
