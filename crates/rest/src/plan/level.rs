//! One relation of a request: what is selected of it, joined to it, asked of it.

use super::Request;
use super::condition::{Scope, order_term};
use super::embed::{Embedded, embed};
use super::sql::{Binds, cast_type, quote};
use crate::RestError;
use crate::query::{Item, Level, aggregates_are_off};
use crate::schema::{Relation, Schema};

/// What a statement is planned with.
pub(super) struct Planner<'a> {
    pub schema: &'a Schema,
    pub binds: Binds,
    pub max_rows: u64,
    /// Rows there may be of the relation in hand, over all the rows around it.
    pub breadth: u64,
}

/// A selected expression.
pub(super) struct Output {
    /// Its key in the answer; `None` for `*`.
    pub name: Option<String>,
    pub sql: String,
}

impl Output {
    pub fn sql(&self) -> String {
        match &self.name {
            Some(name) => format!("{} AS {}", self.sql, quote(name)),
            None => self.sql.clone(),
        }
    }
}

/// The pieces of `SELECT list FROM … joins WHERE conditions ORDER BY order`.
pub(super) struct Parts {
    pub outputs: Vec<Output>,
    /// Every join, each with a space before it.
    pub joins: String,
    /// Those that decide which rows there are.
    pub deciding_joins: String,
    pub conditions: String,
    /// With ` ORDER BY `; empty for none.
    pub order: String,
    /// The rows are counted, not listed.
    pub counts: bool,
}

impl Parts {
    pub fn list(&self) -> String {
        let outputs: Vec<_> = self.outputs.iter().map(Output::sql).collect();
        outputs.join(", ")
    }
}

/// How `*` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Star {
    AsIs,
    /// As the columns known: where the row may have more, or the names are needed.
    Expanded,
}

impl<'a> Planner<'a> {
    /// For a statement whose outermost rows are those of `root`.
    pub fn new(schema: &'a Schema, binds: Binds, request: &Request, root: &Level) -> Self {
        let max_rows = request.max_rows;
        Self {
            schema,
            binds,
            max_rows,
            breadth: root.limit.unwrap_or(max_rows).min(max_rows),
        }
    }

    /// Plans `level` over rows of `relation` called `alias`.
    pub fn level(
        &mut self,
        relation: &Relation,
        alias: &str,
        level: &Level,
        star: Star,
    ) -> Result<Parts, RestError> {
        let counts = counts_only(relation, level)?;
        let mut parts = Parts {
            outputs: Vec::new(),
            joins: String::new(),
            deciding_joins: String::new(),
            conditions: String::new(),
            order: String::new(),
            counts,
        };
        let mut scope = Scope {
            relation,
            alias,
            embeds: Vec::new(),
        };
        let mut joined = Vec::new();
        if let (true, Some(name)) = (counts, level.items.first().and_then(count_name)) {
            parts.outputs.push(Output {
                name: Some(name.to_owned()),
                sql: "count(*)".to_owned(),
            });
        } else {
            for item in &level.items {
                self.item(&mut scope, &mut parts, &mut joined, item, level, star)?;
            }
        }
        let deciding_all = scope.asks_about_embeds(&level.conditions);
        for embedded in &joined {
            parts.joins.push_str(&embedded.join);
            if embedded.inner || deciding_all {
                parts.deciding_joins.push_str(&embedded.join);
            }
        }
        parts.conditions = scope.all(&mut self.binds, &level.conditions)?;
        if !counts {
            parts.order = self.order(&scope, &joined, level)?;
        }
        Ok(parts)
    }

    fn item(
        &mut self,
        scope: &mut Scope<'_>,
        parts: &mut Parts,
        joined: &mut Vec<Embedded>,
        item: &Item,
        level: &Level,
        star: Star,
    ) -> Result<(), RestError> {
        match item {
            Item::All if star == Star::AsIs => parts.outputs.push(Output {
                name: None,
                sql: format!("{}.*", scope.alias),
            }),
            Item::All => {
                for column in &scope.relation.columns {
                    parts.outputs.push(Output {
                        name: Some(column.name.clone()),
                        sql: format!("{}.{}", scope.alias, quote(&column.name)),
                    });
                }
            }
            Item::Field { alias, field, cast } => {
                let place = scope.place(&mut self.binds, field)?;
                let sql = match cast {
                    Some(cast) => format!("({})::{}", place.sql, cast_type(cast)?),
                    None => place.sql,
                };
                parts.outputs.push(Output {
                    name: Some(alias.as_deref().unwrap_or(field.key()).to_owned()),
                    sql,
                });
            }
            Item::Count { .. } => return Err(aggregates_are_off()),
            Item::Embed(wanted) => {
                let ordered_by: Vec<_> = level
                    .order
                    .iter()
                    .filter(|order| order.relation.as_deref() == Some(wanted.key()))
                    .map(|order| &order.field)
                    .collect();
                let mut embedded = embed(self, scope.relation, scope.alias, wanted, &ordered_by)?;
                scope
                    .embeds
                    .push((wanted.key().to_owned(), embedded.alias.clone()));
                parts.outputs.append(&mut embedded.outputs);
                joined.push(embedded);
            }
        }
        Ok(())
    }

    fn order(
        &mut self,
        scope: &Scope<'_>,
        joined: &[Embedded],
        level: &Level,
    ) -> Result<String, RestError> {
        let mut terms = Vec::new();
        for order in &level.order {
            let Some(relation) = &order.relation else {
                let place = scope.place(&mut self.binds, &order.field)?;
                terms.push(order_term(&place.sql, order));
                continue;
            };
            let embedded = joined
                .iter()
                .find(|embedded| embedded.key == *relation)
                .ok_or_else(|| RestError::not_embedded(relation))?;
            let place = embedded
                .ordered_by
                .iter()
                .find(|(field, _)| *field == order.field)
                .ok_or_else(|| {
                    RestError::new(
                        400,
                        "PGRST118",
                        format!(
                            "A related order on '{relation}' is not possible"
                        ),
                    )
                    .details(format!(
                        "'{}' and '{relation}' do not form a many-to-one or one-to-one relationship",
                        scope.relation.name
                    ))
                })?;
            terms.push(order_term(&place.1, order));
        }
        Ok(if terms.is_empty() {
            String::new()
        } else {
            format!(" ORDER BY {}", terms.join(", "))
        })
    }

    /// ` LIMIT … OFFSET …`, never more than the page's size.
    pub fn page(&mut self, level: &Level) -> String {
        let limit = level.limit.unwrap_or(self.max_rows).min(self.max_rows);
        let limit = self.binds.bind(limit.to_string());
        let mut sql = format!(" LIMIT {limit}::int8");
        if level.offset > 0 {
            let offset = self.binds.bind(level.offset.to_string());
            sql.push_str(&format!(" OFFSET {offset}::int8"));
        }
        sql
    }
}

/// `count()`, or `count` where no column is called so, as the only thing selected.
fn counts_only(relation: &Relation, level: &Level) -> Result<bool, RestError> {
    let is_count = |item: &Item| match item {
        Item::Count { .. } => true,
        Item::Field { field, .. } => {
            field.column == "count" && field.path.is_empty() && relation.column("count").is_none()
        }
        _ => false,
    };
    match level.items.as_slice() {
        [only] => Ok(is_count(only)),
        several if several.iter().any(is_count) => Err(aggregates_are_off()),
        _ => Ok(false),
    }
}

fn count_name(item: &Item) -> Option<&str> {
    match item {
        Item::Count { alias } | Item::Field { alias, .. } => {
            Some(alias.as_deref().unwrap_or("count"))
        }
        _ => None,
    }
}
