//! Reading rows.

use super::level::{Planner, Star};
use super::sql::{Binds, Shell, literal, public};
use super::{Plan, Request, Statement};
use crate::answer::{Shape, Verb};
use crate::plan::level::Parts;
use crate::query::Query;
use crate::schema::Schema;
use crate::{MediaType, RestError};

/// GET or HEAD of a table or view.
pub fn read(
    schema: &Schema,
    table: &str,
    query: &Query,
    request: &Request,
) -> Result<Plan, RestError> {
    let relation = schema.relation(table)?;
    let mut planner = Planner::new(schema, Binds::default(), request, &query.root);
    let star = star_of(request);
    let parts = planner.level(relation, "t0", &query.root, star)?;
    let from = format!("{} AS t0", public(table));
    let sql = select(&mut planner, &parts, query, request, "", &from, None);
    Ok(Plan {
        statement: Some(Statement {
            sql,
            binds: planner.binds.values,
            read_only: true,
        }),
        writes: None,
        rollback: false,
        shape: Shape::new(Verb::Read, request, query.root.offset),
    })
}

/// How `*` has to be written for an answer of this form.
pub(super) fn star_of(request: &Request) -> Star {
    if request.media == MediaType::Csv {
        Star::Expanded
    } else {
        Star::AsIs
    }
}

/// The whole statement that lists the rows of `from`, cut to a page. With `written`, rows of the CTE of that name: all of
/// them, and the total is their number.
pub(super) fn select(
    planner: &mut Planner<'_>,
    parts: &Parts,
    query: &Query,
    request: &Request,
    with: &str,
    from: &str,
    written: Option<&Written<'_>>,
) -> String {
    let Parts {
        joins,
        deciding_joins,
        conditions,
        order,
        ..
    } = parts;
    let cut = match written {
        _ if parts.counts => String::new(),
        Some(_) if query.root.limit.is_none() && query.root.offset == 0 => String::new(),
        _ => planner.page(&query.root),
    };
    let source = format!(
        "(SELECT {} FROM {from}{joins} WHERE {conditions}{order}{cut}) AS r",
        parts.list()
    );
    let total = match written {
        Some(written) => format!("(SELECT count(*) FROM {})", written.rows),
        None if request.preferences.count.is_some() => {
            format!("(SELECT count(*) FROM {from}{deciding_joins} WHERE {conditions})")
        }
        None => "NULL::int8".to_owned(),
    };
    Shell {
        with,
        page: "count(*)",
        total: &total,
        inserted: written.map_or("NULL::int8", |written| written.inserted),
        body: &body(parts, request),
        source: &source,
    }
    .sql()
}

/// A CTE of rows written.
pub(super) struct Written<'a> {
    pub rows: &'a str,
    /// How many are new, as SQL.
    pub inserted: &'a str,
}

/// The aggregate over the rows `r` that gives the body.
fn body(parts: &Parts, request: &Request) -> String {
    if request.head {
        return "''".to_owned();
    }
    match request.media {
        MediaType::Json { strip_nulls: false } => "coalesce(json_agg(r.*), '[]')::text".to_owned(),
        MediaType::Json { strip_nulls: true } => {
            "coalesce(json_strip_nulls(json_agg(r.*)), '[]')::text".to_owned()
        }
        MediaType::Single { strip_nulls: false } => {
            "coalesce((json_agg(r.*) -> 0)::text, 'null')".to_owned()
        }
        MediaType::Single { strip_nulls: true } => {
            "coalesce(json_strip_nulls(json_agg(r.*) -> 0)::text, 'null')".to_owned()
        }
        MediaType::Csv => {
            let names: Vec<_> = parts
                .outputs
                .iter()
                .map(|output| csv_field(output.name.as_deref().unwrap_or_default()))
                .collect();
            let header = literal(&names.join(","));
            // A row as text is its values in CSV's quoting, in parentheses.
            format!(
                "{header} || coalesce(string_agg(E'\\n' || substring((r.*)::text, 2, length((r.*)::text) - 2), ''), '')"
            )
        }
    }
}

fn csv_field(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}
