//! Filters: `column=operator.value`, and the trees of `and` and `or`.

use super::scan::Scan;
use super::select::{Field, scanned_field};
use crate::{RestError, limits};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    Test {
        field: Field,
        negated: bool,
        test: Test,
    },
    Group {
        negated: bool,
        /// `or`; else `and`.
        any: bool,
        members: Vec<Condition>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Compare {
        by: Comparison,
        quantifier: Option<Quantifier>,
        value: String,
    },
    In(Vec<String>),
    Is(Is),
    Search {
        kind: SearchKind,
        /// The text search configuration, such as `english`.
        config: Option<String>,
        words: String,
    },
}

/// The value is a list of which any or all must compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantifier {
    Any,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchKind {
    Query,
    Plain,
    Phrase,
    Web,
}

/// An operator between a column and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Like,
    Ilike,
    Match,
    Imatch,
    Distinct,
    Contains,
    ContainedBy,
    Overlaps,
    StrictlyLeft,
    StrictlyRight,
    NotRight,
    NotLeft,
    Adjacent,
}

impl Comparison {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "eq" => Self::Equal,
            "neq" => Self::NotEqual,
            "gt" => Self::Greater,
            "gte" => Self::GreaterOrEqual,
            "lt" => Self::Less,
            "lte" => Self::LessOrEqual,
            "like" => Self::Like,
            "ilike" => Self::Ilike,
            "match" => Self::Match,
            "imatch" => Self::Imatch,
            "isdistinct" => Self::Distinct,
            "cs" => Self::Contains,
            "cd" => Self::ContainedBy,
            "ov" => Self::Overlaps,
            "sl" => Self::StrictlyLeft,
            "sr" => Self::StrictlyRight,
            "nxr" => Self::NotRight,
            "nxl" => Self::NotLeft,
            "adj" => Self::Adjacent,
            _ => return None,
        })
    }

    pub fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Like => "LIKE",
            Self::Ilike => "ILIKE",
            Self::Match => "~",
            Self::Imatch => "~*",
            Self::Distinct => "IS DISTINCT FROM",
            Self::Contains => "@>",
            Self::ContainedBy => "<@",
            Self::Overlaps => "&&",
            Self::StrictlyLeft => "<<",
            Self::StrictlyRight => ">>",
            Self::NotRight => "&<",
            Self::NotLeft => "&>",
            Self::Adjacent => "-|-",
        }
    }

    /// The value is a pattern: a text, whatever the column is.
    pub fn is_pattern(self) -> bool {
        matches!(self, Self::Like | Self::Ilike | Self::Match | Self::Imatch)
    }

    fn takes_quantifier(self) -> bool {
        self.is_pattern()
            || matches!(
                self,
                Self::Equal
                    | Self::NotEqual
                    | Self::Greater
                    | Self::GreaterOrEqual
                    | Self::Less
                    | Self::LessOrEqual
            )
    }
}

fn counted(count: &mut usize) -> Result<(), RestError> {
    *count += 1;
    if *count > limits::CONDITIONS {
        return Err(RestError::too_much("conditions", limits::CONDITIONS));
    }
    Ok(())
}

/// `operator.value` of a parameter.
pub(super) fn condition(
    field: Field,
    value: &str,
    count: &mut usize,
) -> Result<Condition, RestError> {
    counted(count)?;
    let mut scan = Scan::new("filter", value);
    let (negated, test) = test(&mut scan, false)?;
    if !scan.is_done() {
        return Err(scan.fail("expecting the end of the value"));
    }
    Ok(Condition::Test {
        field,
        negated,
        test,
    })
}

/// `(a.eq.1,or(b.gt.2,c.is.null))`
pub(super) fn logic(value: &str, count: &mut usize) -> Result<Vec<Condition>, RestError> {
    let mut scan = Scan::new("logic tree", value);
    let members = members(&mut scan, count, 1)?;
    if !scan.is_done() {
        return Err(scan.fail("expecting the end"));
    }
    Ok(members)
}

fn members(
    scan: &mut Scan<'_>,
    count: &mut usize,
    depth: usize,
) -> Result<Vec<Condition>, RestError> {
    if depth > limits::LOGIC_DEPTH {
        return Err(RestError::too_much(
            "and/or inside each other",
            limits::LOGIC_DEPTH,
        ));
    }
    if !scan.eat("(") {
        return Err(scan.fail("expecting \"(\""));
    }
    let mut members = Vec::new();
    loop {
        scan.until(|c| !c.is_whitespace());
        members.push(member(scan, count, depth)?);
        if scan.eat(")") {
            return Ok(members);
        }
        if !scan.eat(",") {
            return Err(scan.fail("expecting \",\" or \")\""));
        }
    }
}

fn member(scan: &mut Scan<'_>, count: &mut usize, depth: usize) -> Result<Condition, RestError> {
    counted(count)?;
    for (token, negated, any) in [
        ("and", false, false),
        ("or", false, true),
        ("not.and", true, false),
        ("not.or", true, true),
    ] {
        // A column may begin with these letters.
        if scan
            .rest()
            .strip_prefix(token)
            .is_some_and(|rest| rest.starts_with('('))
        {
            scan.eat(token);
            let members = members(scan, count, depth + 1)?;
            return Ok(Condition::Group {
                negated,
                any,
                members,
            });
        }
    }
    let field = scanned_field(scan)?;
    if !scan.eat(".") {
        return Err(scan.fail("expecting \".\""));
    }
    let (negated, test) = test(scan, true)?;
    Ok(Condition::Test {
        field,
        negated,
        test,
    })
}

/// An operator with its value. In a tree the value ends at a comma or a parenthesis, else at the end.
fn test(scan: &mut Scan<'_>, in_tree: bool) -> Result<(bool, Test), RestError> {
    const EXPECTING: &str = "expecting \"not\" or operator (eq, gt, ...)";
    let negated = scan.eat("not.");
    let start = scan.rest();
    let word = scan.word();
    let search = match word {
        "fts" => Some(SearchKind::Query),
        "plfts" => Some(SearchKind::Plain),
        "phfts" => Some(SearchKind::Phrase),
        "wfts" => Some(SearchKind::Web),
        _ => None,
    };
    let mut config = None;
    let mut quantifier = None;
    let comparison = Comparison::of(word);
    if search.is_some() && scan.eat("(") {
        config = Some(scan.until(|c| c == ')').to_owned());
        scan.eat(")");
    } else if comparison.is_some_and(Comparison::takes_quantifier) {
        if scan.eat("(any)") {
            quantifier = Some(Quantifier::Any);
        } else if scan.eat("(all)") {
            quantifier = Some(Quantifier::All);
        }
    }
    if !scan.eat(".") {
        return Err(Scan::new("filter", start).fail(EXPECTING));
    }
    let test = match (word, comparison, search) {
        (_, Some(by), _) => Test::Compare {
            by,
            quantifier,
            value: value(scan, in_tree)?,
        },
        (_, _, Some(kind)) => Test::Search {
            kind,
            config,
            words: value(scan, in_tree)?,
        },
        ("in", ..) => Test::In(list(scan)?),
        ("is", ..) => Test::Is(is(scan, in_tree)?),
        _ => return Err(Scan::new("filter", start).fail(EXPECTING)),
    };
    Ok((negated, test))
}

fn is(scan: &mut Scan<'_>, in_tree: bool) -> Result<Is, RestError> {
    let here = scan.rest();
    match value(scan, in_tree)?.to_ascii_lowercase().as_str() {
        "null" => Ok(Is::Null),
        "not_null" => Ok(Is::NotNull),
        "true" => Ok(Is::True),
        "false" => Ok(Is::False),
        "unknown" => Ok(Is::Unknown),
        _ => {
            Err(Scan::new("filter", here).fail("expecting null, not_null, true, false or unknown"))
        }
    }
}

fn ends_value(next: Option<char>) -> bool {
    matches!(next, None | Some(',' | ')'))
}

fn value(scan: &mut Scan<'_>, in_tree: bool) -> Result<String, RestError> {
    if !in_tree {
        return Ok(scan.rest_of_text().to_owned());
    }
    match scan.peek() {
        Some('"') => scan.quoted(ends_value),
        Some('{') => braced(scan),
        _ => Ok(scan.until(|c| c == ',' || c == ')').to_owned()),
    }
}

/// A Postgres array or a JSON object, up to the brace that closes it.
fn braced(scan: &mut Scan<'_>) -> Result<String, RestError> {
    let mut text = String::new();
    let (mut open, mut quoted) = (0_usize, false);
    while let Some(c) = scan.next() {
        text.push(c);
        match c {
            '\\' if quoted => text.extend(scan.next()),
            '"' => quoted = !quoted,
            '{' if !quoted => open += 1,
            '}' if !quoted => {
                open -= 1;
                if open == 0 {
                    return Ok(text);
                }
            }
            _ => {}
        }
    }
    Err(scan.fail("expecting a closing brace"))
}

/// `(a,"b,c")`
fn list(scan: &mut Scan<'_>) -> Result<Vec<String>, RestError> {
    if !scan.eat("(") {
        return Err(scan.fail("expecting \"(\""));
    }
    let mut values = Vec::new();
    if scan.eat(")") {
        return Ok(values);
    }
    loop {
        values.push(match scan.peek() {
            Some('"') => scan.quoted(ends_value)?,
            _ => scan.until(|c| c == ',' || c == ')').to_owned(),
        });
        if values.len() > limits::LIST {
            return Err(RestError::too_much("values in a list", limits::LIST));
        }
        if scan.eat(")") {
            return Ok(values);
        }
        if !scan.eat(",") {
            return Err(scan.fail("expecting \",\" or \")\""));
        }
    }
}
