//! `select=`: columns, JSON paths, casts, new names, embedded relations.

use super::Level;
use super::scan::Scan;
use crate::{RestError, limits};

/// One thing selected.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// `*`
    All,
    Field {
        alias: Option<String>,
        field: Field,
        cast: Option<String>,
    },
    /// `count()`
    Count {
        alias: Option<String>,
    },
    Embed(Embed),
}

/// A column, or a place in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Field {
    pub column: String,
    pub path: Vec<JsonStep>,
}

/// `->key`, `->0`, or with `->>` as text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonStep {
    pub key: String,
    pub is_index: bool,
    pub as_text: bool,
}

/// Rows of another relation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embed {
    pub alias: Option<String>,
    pub relation: String,
    /// Which of several relationships is meant.
    pub hint: Option<String>,
    /// Rows without a match are left out.
    pub inner: bool,
    /// Its columns become the parent's.
    pub spread: bool,
    pub level: Level,
}

impl Embed {
    /// Its key in the answer.
    pub fn key(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.relation)
    }

    /// Whether filters of this name are for it.
    pub fn is_called(&self, name: &str) -> bool {
        self.key() == name
    }
}

impl Field {
    /// Its key in the answer: the last key of the path.
    pub fn key(&self) -> &str {
        self.path
            .iter()
            .rev()
            .find(|step| !step.is_index)
            .map_or(&self.column, |step| &step.key)
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Item>, RestError> {
    let mut scan = Scan::new("select parameter", text);
    let mut count = Counted::default();
    let items = items(&mut scan, &mut count, 0)?;
    if !scan.is_done() {
        return Err(scan.fail("expecting \",\" or the end"));
    }
    Ok(items)
}

#[derive(Default)]
struct Counted {
    items: usize,
    embeds: usize,
}

/// The items up to a closing parenthesis or the end.
fn items(scan: &mut Scan<'_>, count: &mut Counted, depth: usize) -> Result<Vec<Item>, RestError> {
    let mut items = Vec::new();
    skip_space(scan);
    if scan.is_done() || scan.peek() == Some(')') {
        return Ok(items);
    }
    loop {
        skip_space(scan);
        items.push(item(scan, count, depth)?);
        skip_space(scan);
        count.items += 1;
        if count.items > limits::ITEMS {
            return Err(RestError::too_much("selected items", limits::ITEMS));
        }
        if !scan.eat(",") {
            return Ok(items);
        }
    }
}

fn skip_space(scan: &mut Scan<'_>) {
    scan.until(|c| !c.is_whitespace());
}

fn item(scan: &mut Scan<'_>, count: &mut Counted, depth: usize) -> Result<Item, RestError> {
    if scan.eat("...") {
        let relation = scan.name()?;
        return embed(scan, count, depth, None, relation, true);
    }
    if scan.eat("*") {
        return Ok(Item::All);
    }
    let mut name = scan.name()?;
    let mut alias = None;
    if scan.peek() == Some(':') && !scan.rest().starts_with("::") {
        scan.next();
        alias = Some(name);
        skip_space(scan);
        name = scan.name()?;
    }
    if name == "count" && scan.eat("()") {
        return Ok(Item::Count { alias });
    }
    if matches!(scan.peek(), Some('!' | '(')) {
        return embed(scan, count, depth, alias, name, false);
    }
    let field = Field {
        column: name,
        path: json_path(scan)?,
    };
    let cast = cast(scan)?;
    if scan.eat(".") {
        let function = scan.word();
        if !["sum", "avg", "min", "max", "count"].contains(&function) || !scan.eat("()") {
            return Err(scan.fail("expecting sum(), avg(), min(), max() or count()"));
        }
        return Err(aggregates_are_off());
    }
    Ok(Item::Field { alias, field, cast })
}

/// As with Supabase, where they are off.
pub(crate) fn aggregates_are_off() -> RestError {
    RestError::new(400, "PGRST123", "Use of aggregate functions is not allowed")
        .hint("count() by itself is allowed")
}

fn cast(scan: &mut Scan<'_>) -> Result<Option<String>, RestError> {
    if !scan.eat("::") {
        return Ok(None);
    }
    let name = scan.until(|c| [',', '(', ')', '.'].contains(&c)).trim();
    if name.is_empty() {
        return Err(scan.fail("expecting a type"));
    }
    Ok(Some(name.to_owned()))
}

fn embed(
    scan: &mut Scan<'_>,
    count: &mut Counted,
    depth: usize,
    alias: Option<String>,
    relation: String,
    spread: bool,
) -> Result<Item, RestError> {
    count.embeds += 1;
    if count.embeds > limits::EMBEDS {
        return Err(RestError::too_much("embedded relations", limits::EMBEDS));
    }
    if depth == limits::EMBED_DEPTH {
        return Err(RestError::too_much(
            "relations inside each other",
            limits::EMBED_DEPTH,
        ));
    }
    let mut embed = Embed {
        alias,
        relation,
        hint: None,
        inner: false,
        spread,
        level: Level::default(),
    };
    while scan.eat("!") {
        match scan.name()?.as_str() {
            "inner" => embed.inner = true,
            "left" => embed.inner = false,
            hint => embed.hint = Some(hint.to_owned()),
        }
    }
    if !scan.eat("(") {
        return Err(scan.fail("expecting \"(\""));
    }
    embed.level.items = items(scan, count, depth + 1)?;
    if !scan.eat(")") {
        return Err(scan.fail("expecting \",\" or \")\""));
    }
    Ok(Item::Embed(embed))
}

/// A whole text that is a column, perhaps with a path.
pub(super) fn field(text: &str) -> Result<Field, RestError> {
    let mut scan = Scan::new("filter", text);
    let field = scanned_field(&mut scan)?;
    if !scan.is_done() {
        return Err(scan.fail("expecting the end of the column"));
    }
    Ok(field)
}

pub(super) fn scanned_field(scan: &mut Scan<'_>) -> Result<Field, RestError> {
    Ok(Field {
        column: scan.name()?,
        path: json_path(scan)?,
    })
}

fn json_path(scan: &mut Scan<'_>) -> Result<Vec<JsonStep>, RestError> {
    let mut path = Vec::new();
    while scan.eat("->") {
        let as_text = scan.eat(">");
        let (key, is_index) = if scan.peek() == Some('"') {
            (scan.quoted(|_| true)?, false)
        } else {
            let rest = scan.rest();
            let mut end = rest.find([',', '(', ')', '.', ':']).unwrap_or(rest.len());
            if let Some(arrow) = rest[..end].find("->") {
                end = arrow;
            }
            let key = &rest[..end];
            for _ in key.chars() {
                scan.next();
            }
            (key.to_owned(), key.parse::<i32>().is_ok())
        };
        if key.is_empty() {
            return Err(scan.fail("expecting a key"));
        }
        path.push(JsonStep {
            key,
            is_index,
            as_text,
        });
        if path.len() > limits::PATH {
            return Err(RestError::too_much("steps of a JSON path", limits::PATH));
        }
    }
    Ok(path)
}
