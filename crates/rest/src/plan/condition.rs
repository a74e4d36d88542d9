//! Conditions and places in columns as SQL.

use super::sql::{Binds, array, quote};
use crate::query::{Comparison, Condition, Field, Is, Quantifier, SearchKind, Test};
use crate::schema::{Column, Relation};
use crate::{RestError, schema};

/// Where names are looked up: a relation by its alias, and what is embedded in it.
pub(super) struct Scope<'a> {
    pub relation: &'a Relation,
    pub alias: &'a str,
    /// Keys of embedded relations and their aliases.
    pub embeds: Vec<(String, String)>,
}

/// A place with its type.
pub(super) struct Place {
    pub sql: String,
    pub sql_type: String,
}

impl Scope<'_> {
    pub fn column(&self, name: &str) -> Result<&Column, RestError> {
        self.relation
            .column(name)
            .ok_or_else(|| RestError::unknown_column(&self.relation.name, name))
    }

    pub fn place(&self, binds: &mut Binds, field: &Field) -> Result<Place, RestError> {
        let column = self.column(&field.column)?;
        let plain = format!("{}.{}", self.alias, quote(&column.name));
        if field.path.is_empty() {
            return Ok(Place {
                sql: plain,
                sql_type: column.sql_type.clone(),
            });
        }
        let mut sql = match (column.is_json(), column.sql_type.as_str()) {
            (true, "jsonb") => plain,
            (true, _) => format!("{plain}::jsonb"),
            (false, _) => format!("to_jsonb({plain})"),
        };
        let mut sql_type = "jsonb";
        for step in &field.path {
            if sql_type == "text" {
                return Err(RestError::new(
                    400,
                    "42883",
                    "operator does not exist: text -> text",
                ));
            }
            let (arrow, result) = if step.as_text {
                ("->>", "text")
            } else {
                ("->", "jsonb")
            };
            let kind = if step.is_index { "int4" } else { "text" };
            let key = binds.bind(&step.key);
            sql = format!("({sql} {arrow} {key}::{kind})");
            sql_type = result;
        }
        Ok(Place {
            sql,
            sql_type: sql_type.to_owned(),
        })
    }

    /// All of `conditions`, or `TRUE` for none.
    pub fn all(&self, binds: &mut Binds, conditions: &[Condition]) -> Result<String, RestError> {
        self.group(binds, conditions, false)
    }

    fn group(
        &self,
        binds: &mut Binds,
        members: &[Condition],
        any: bool,
    ) -> Result<String, RestError> {
        if members.is_empty() {
            return Ok("TRUE".to_owned());
        }
        let members: Vec<_> = members
            .iter()
            .map(|member| self.condition(binds, member))
            .collect::<Result<_, _>>()?;
        Ok(members.join(if any { " OR " } else { " AND " }))
    }

    fn condition(&self, binds: &mut Binds, condition: &Condition) -> Result<String, RestError> {
        let not = |negated: bool| if negated { "NOT " } else { "" };
        match condition {
            Condition::Group {
                negated,
                any,
                members,
            } => Ok(format!(
                "{}({})",
                not(*negated),
                self.group(binds, members, *any)?
            )),
            Condition::Test {
                field,
                negated,
                test,
            } => {
                let sql = match self.embedded(field, test) {
                    Some(sql) => sql?,
                    None => {
                        let place = self.place(binds, field)?;
                        compare(binds, &place, test)
                    }
                };
                Ok(format!("{}({sql})", not(*negated)))
            }
        }
    }

    /// `relation=is.null`: whether there are rows of it.
    fn embedded(&self, field: &Field, test: &Test) -> Option<Result<String, RestError>> {
        let (_, alias) = self.embeds.iter().find(|(key, _)| *key == field.column)?;
        if self.relation.column(&field.column).is_some() {
            return None;
        }
        Some(match test {
            Test::Is(Is::Null) => Ok(format!("{alias}.j IS NULL")),
            Test::Is(Is::NotNull) => Ok(format!("{alias}.j IS NOT NULL")),
            _ => Err(RestError::new(
                400,
                "PGRST120",
                format!("Bad operator on the '{}' embedded resource", field.column),
            )
            .details("Only is null or not is null filters are allowed on embedded resources")),
        })
    }

    /// Whether any of the conditions asks about an embedded relation.
    pub fn asks_about_embeds(&self, conditions: &[Condition]) -> bool {
        conditions.iter().any(|condition| match condition {
            Condition::Group { members, .. } => self.asks_about_embeds(members),
            Condition::Test { field, test, .. } => self.embedded(field, test).is_some(),
        })
    }
}

fn compare(binds: &mut Binds, place: &Place, test: &Test) -> String {
    let Place { sql, sql_type } = place;
    match test {
        Test::Compare {
            by,
            quantifier,
            value,
        } => {
            // A star needs no escaping in a URL.
            let value = match by {
                Comparison::Like | Comparison::Ilike => value.replace('*', "%"),
                _ => value.clone(),
            };
            let value = binds.bind(value);
            let of_type = if by.is_pattern() { "text" } else { sql_type };
            match quantifier {
                None => format!("{sql} {} {value}::{of_type}", by.sql()),
                Some(Quantifier::Any) => format!("{sql} {} ANY({value}::{of_type}[])", by.sql()),
                Some(Quantifier::All) => format!("{sql} {} ALL({value}::{of_type}[])", by.sql()),
            }
        }
        Test::In(values) => format!("{sql} = ANY({}::{sql_type}[])", binds.bind(array(values))),
        Test::Is(is) => format!(
            "{sql} IS {}",
            match is {
                Is::Null => "NULL",
                Is::NotNull => "NOT NULL",
                Is::True => "TRUE",
                Is::False => "FALSE",
                Is::Unknown => "UNKNOWN",
            }
        ),
        Test::Search {
            kind,
            config,
            words,
        } => {
            let config = match config {
                Some(config) => format!("{}::regconfig, ", binds.bind(config)),
                None => String::new(),
            };
            let function = match kind {
                SearchKind::Query => "to_tsquery",
                SearchKind::Plain => "plainto_tsquery",
                SearchKind::Phrase => "phraseto_tsquery",
                SearchKind::Web => "websearch_to_tsquery",
            };
            let words = binds.bind(words);
            let document = match sql_type.as_str() {
                "tsvector" => sql.clone(),
                "json" | "jsonb" => format!("to_tsvector({config}{sql})"),
                _ => format!("to_tsvector({config}{sql}::text)"),
            };
            format!("{document} @@ {function}({config}{words}::text)")
        }
    }
}

/// The terms of an ORDER BY; empty for none.
pub(super) fn order_term(sql: &str, order: &crate::query::Order) -> String {
    let direction = if order.descending { " DESC" } else { "" };
    let nulls = match order.nulls_first {
        Some(true) => " NULLS FIRST",
        Some(false) => " NULLS LAST",
        None => "",
    };
    format!("{sql}{direction}{nulls}")
}

/// That the rows of a relationship belong together.
pub(super) fn join(relationship: &schema::Relationship<'_>, parent: &str, child: &str) -> String {
    let pairs: Vec<_> = relationship
        .key
        .columns
        .iter()
        .map(|(column, target)| {
            let (of_parent, of_child) = if relationship.forward {
                (column, target)
            } else {
                (target, column)
            };
            format!(
                "{child}.{} = {parent}.{}",
                quote(of_child),
                quote(of_parent)
            )
        })
        .collect();
    pairs.join(" AND ")
}
