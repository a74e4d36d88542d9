//! The query string: what is selected, filtered, ordered and cut, at the root and in each embedded relation.

mod filter;
mod scan;
mod select;

use scan::Scan;

pub(crate) use filter::{Comparison, Condition, Is, Quantifier, SearchKind, Test};
pub(crate) use select::{Embed, Field, Item, aggregates_are_off};

use crate::{RestError, RowRange, limits};

/// A read query string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub(crate) root: Level,
    /// The columns of the body that count; `None`: those it has.
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) on_conflict: Option<Vec<String>>,
}

/// What is asked of one relation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Level {
    pub items: Vec<Item>,
    pub conditions: Vec<Condition>,
    pub order: Vec<Order>,
    pub limit: Option<u64>,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    /// The embedded relation whose column it is; `None`: the level's own.
    pub relation: Option<String>,
    pub field: Field,
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

impl Query {
    /// Reads a query string, without its question mark. Total: anything else is a [`RestError`].
    pub fn parse(text: &str) -> Result<Self, RestError> {
        Self::of_pairs(pairs(text)?)
    }

    /// The same for a function called by GET: parameters that `is_argument` knows are its arguments.
    pub(crate) fn parse_call(
        text: &str,
        is_argument: impl Fn(&str) -> bool,
    ) -> Result<(Self, Vec<(String, String)>), RestError> {
        let (arguments, rest) = pairs(text)?
            .into_iter()
            .partition(|(name, _)| is_argument(name));
        Ok((Self::of_pairs(rest)?, arguments))
    }

    /// Cut to this range, unless the query string has its own.
    #[must_use]
    pub fn within(mut self, range: RowRange) -> Self {
        let root = &mut self.root;
        if root.limit.is_none() && root.offset == 0 {
            root.limit = range.limit;
            root.offset = range.offset;
        }
        self
    }

    fn of_pairs(pairs: Vec<(String, String)>) -> Result<Self, RestError> {
        let mut query = Self::default();
        query.root.items = match pairs.iter().rev().find(|(name, _)| name == "select") {
            Some((_, value)) => select::parse(value)?,
            None => vec![Item::All],
        };
        let mut conditions = 0;
        for (name, value) in &pairs {
            match name.as_str() {
                "select" => {}
                "columns" => query.columns = Some(names("columns parameter", value)?),
                "on_conflict" => query.on_conflict = Some(names("on_conflict parameter", value)?),
                _ => query.root.read(name, value, &mut conditions)?,
            }
        }
        Ok(query)
    }
}

/// The decoded parameters, in order.
fn pairs(text: &str) -> Result<Vec<(String, String)>, RestError> {
    if text.len() > limits::QUERY {
        return Err(RestError::too_much("characters", limits::QUERY));
    }
    let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect();
    // Postgres has it neither in a text nor in a statement.
    if pairs
        .iter()
        .any(|(name, value)| name.contains('\0') || value.contains('\0'))
    {
        return Err(RestError::new(
            400,
            "PGRST100",
            "The query string has a NUL character",
        ));
    }
    Ok(pairs)
}

impl Level {
    /// One parameter: `a.b.order=…` is the order of `b` inside `a`.
    fn read(&mut self, name: &str, value: &str, conditions: &mut usize) -> Result<(), RestError> {
        let mut path = segments(name)?;
        let last = path.pop().unwrap_or_default();
        match last {
            "order" => self.embedded(&path)?.order.extend(order(value)?),
            "limit" => self.embedded(&path)?.limit = Some(number("limit", value)?),
            "offset" => self.embedded(&path)?.offset = number("offset", value)?,
            "and" | "or" => {
                let negated = path.last() == Some(&"not");
                if negated {
                    path.pop();
                }
                let members = filter::logic(value, conditions)?;
                self.embedded(&path)?.conditions.push(Condition::Group {
                    negated,
                    any: last == "or",
                    members,
                });
            }
            _ => {
                let field = select::field(last)?;
                let condition = filter::condition(field, value, conditions)?;
                self.embedded(&path)?.conditions.push(condition);
            }
        }
        Ok(())
    }

    fn embedded(&mut self, path: &[&str]) -> Result<&mut Self, RestError> {
        let Some((first, rest)) = path.split_first() else {
            return Ok(self);
        };
        let first = unquoted(first);
        let found = self.items.iter_mut().find_map(|item| match item {
            Item::Embed(embed) if embed.is_called(first) => Some(&mut embed.level),
            _ => None,
        });
        match found {
            Some(level) => level.embedded(rest),
            None => Err(RestError::not_embedded(first)),
        }
    }
}

fn unquoted(name: &str) -> &str {
    name.strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
        .unwrap_or(name)
}

/// Splits at dots outside double quotes.
fn segments(name: &str) -> Result<Vec<&str>, RestError> {
    let mut quoted = false;
    let parts: Vec<_> = name
        .split(|c: char| {
            quoted ^= c == '"';
            c == '.' && !quoted
        })
        .collect();
    if parts.len() > limits::EMBED_DEPTH + 3 {
        return Err(RestError::too_much(
            "relations inside each other",
            limits::EMBED_DEPTH,
        ));
    }
    Ok(parts)
}

fn number(what: &str, value: &str) -> Result<u64, RestError> {
    // The largest that fits both a bigint and the sum of two.
    const MOST: u64 = i64::MAX as u64 / 2;
    match value.trim().parse::<u64>() {
        Ok(number) => Ok(number.min(MOST)),
        Err(_) => Err(RestError::unreadable(
            &format!("{what} parameter"),
            value,
            1,
            "expecting a number that is not negative",
        )),
    }
}

/// A list of column names.
fn names(what: &'static str, value: &str) -> Result<Vec<String>, RestError> {
    let mut scan = Scan::new(what, value);
    let mut names = Vec::new();
    while !scan.is_done() {
        names.push(scan.name()?);
        if names.len() > limits::ITEMS {
            return Err(RestError::too_much("columns", limits::ITEMS));
        }
        if !scan.eat(",") && !scan.is_done() {
            return Err(scan.fail("expecting \",\""));
        }
    }
    Ok(names)
}

fn order(value: &str) -> Result<Vec<Order>, RestError> {
    let mut scan = Scan::new("order", value);
    let mut order = Vec::new();
    loop {
        let mut field = select::scanned_field(&mut scan)?;
        let mut relation = None;
        if scan.eat("(") {
            relation = Some(field.column);
            field = select::scanned_field(&mut scan)?;
            if !scan.eat(")") {
                return Err(scan.fail("expecting \")\""));
            }
        }
        let mut term = Order {
            relation,
            field,
            descending: false,
            nulls_first: None,
        };
        while scan.eat(".") {
            match scan.word() {
                "asc" => term.descending = false,
                "desc" => term.descending = true,
                "nullsfirst" => term.nulls_first = Some(true),
                "nullslast" => term.nulls_first = Some(false),
                _ => return Err(scan.fail("expecting asc, desc, nullsfirst or nullslast")),
            }
        }
        order.push(term);
        if order.len() > limits::ORDER {
            return Err(RestError::too_much("columns to order by", limits::ORDER));
        }
        if scan.is_done() {
            return Ok(order);
        }
        if !scan.eat(",") {
            return Err(scan.fail("expecting \",\", \".\" or the end"));
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
