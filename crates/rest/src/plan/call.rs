//! Calling a function.

use serde_json::{Map, Value};

use super::level::Planner;
use super::read::{select, star_of};
use super::sql::{Binds, Shell, public, quote};
use super::{Plan, Request, Statement};
use crate::answer::{Shape, Verb};
use crate::query::Query;
use crate::schema::{Function, Relation, RelationKind, Returns, Schema};
use crate::{MediaType, Payload, RestError};

/// POST with the arguments as an object, or GET (`body` is `None`) with the arguments in the query string. A GET runs in a
/// transaction that cannot write.
pub fn call(
    schema: &Schema,
    name: &str,
    query: &str,
    body: Option<&Payload>,
    request: &Request,
) -> Result<Plan, RestError> {
    let candidates: Vec<_> = schema
        .functions
        .iter()
        .filter(|function| function.name == name)
        .collect();
    let (query, arguments, given) = match body {
        Some(payload) => {
            let given: Vec<&str> = payload.keys.iter().map(String::as_str).collect();
            (Query::parse(query)?, payload.json.clone(), owned(&given))
        }
        None => {
            let is_argument = |name: &str| {
                let mut all = candidates.iter().flat_map(|function| &function.arguments);
                all.any(|argument| argument.name == name)
            };
            let (query, pairs) = Query::parse_call(query, is_argument)?;
            let given: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
            let given = owned(&given);
            let object: Map<String, Value> = pairs
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)))
                .collect();
            (query, Value::Object(object).to_string(), given)
        }
    };
    let function = choose(&candidates, name, &given)?;
    let mut planner = Planner::new(schema, Binds::default(), request, &query.root);
    let invoked = invocation(&mut planner.binds, function, &given, arguments);
    // A single row or value answers as itself.
    let as_itself = |media: MediaType| match media {
        MediaType::Json { strip_nulls } => MediaType::Single { strip_nulls },
        other => other,
    };
    let mut request = request.clone();
    let (verb, sql) = match &function.returns {
        Returns::Void => {
            let source = format!("{} AS r", invoked.from);
            let sql = plain(&request, "count(*)", "''", &source);
            (Verb::CallVoid, sql)
        }
        Returns::Scalar { set } => {
            let source = format!("{} AS r(v)", invoked.from);
            let body = if *set {
                "coalesce(json_agg(r.v), '[]')::text"
            } else {
                "coalesce((json_agg(r.v) -> 0)::text, 'null')"
            };
            (Verb::CallValue, plain(&request, "count(*)", body, &source))
        }
        Returns::Rows {
            set,
            relation,
            columns,
        } => {
            if !set {
                request.media = as_itself(request.media);
            }
            let rows = match relation
                .as_ref()
                .and_then(|name| schema.relations.get(name))
            {
                Some(relation) => relation.clone(),
                None => Relation {
                    name: function.name.clone(),
                    kind: RelationKind::View,
                    columns: columns.clone(),
                    ..Relation::default()
                },
            };
            let parts = planner.level(&rows, "t0", &query.root, star_of(&request))?;
            let mut from = format!("{} AS t0", invoked.from);
            let mut with = String::new();
            if request.preferences.count.is_some() {
                // Page and total are of one call.
                with = format!("called AS MATERIALIZED (SELECT t0.* FROM {from})");
                from = "called AS t0".to_owned();
            }
            let sql = select(&mut planner, &parts, &query, &request, &with, &from, None);
            (Verb::Read, sql)
        }
    };
    let read_only = body.is_none();
    Ok(Plan {
        statement: Some(Statement {
            sql,
            binds: planner.binds.values,
            read_only,
        }),
        writes: (!read_only && function.volatile).then(String::new),
        rollback: request.preferences.rollback && !read_only,
        shape: Shape::new(verb, &request, query.root.offset),
    })
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn plain(request: &Request, page: &str, body: &str, source: &str) -> String {
    Shell {
        with: "",
        page,
        total: "NULL::int8",
        inserted: "NULL::int8",
        body: if request.head { "''" } else { body },
        source,
    }
    .sql()
}

struct Invocation {
    /// What to put after FROM, to be followed by an alias.
    from: String,
}

/// The call with its arguments by name.
fn invocation(
    binds: &mut Binds,
    function: &Function,
    given: &[String],
    arguments: String,
) -> Invocation {
    let used: Vec<_> = function
        .arguments
        .iter()
        .filter(|argument| given.contains(&argument.name))
        .collect();
    let called = public(&function.name);
    if used.is_empty() {
        return Invocation {
            from: format!("{called}()"),
        };
    }
    let json = binds.bind(arguments);
    let columns: Vec<_> = used
        .iter()
        .map(|argument| format!("{} {}", quote(&argument.name), argument.sql_type))
        .collect();
    let passed: Vec<_> = used
        .iter()
        .map(|argument| {
            let variadic = if argument.variadic { "VARIADIC " } else { "" };
            format!("{variadic}{0} => a.{0}", quote(&argument.name))
        })
        .collect();
    Invocation {
        from: format!(
            "json_to_record({json}::json) AS a({}), LATERAL {called}({})",
            columns.join(", "),
            passed.join(", ")
        ),
    }
}

/// The function of that name that takes these arguments and needs no other.
fn choose<'a>(
    candidates: &[&'a Function],
    name: &str,
    given: &[String],
) -> Result<&'a Function, RestError> {
    let fits = |function: &&&Function| {
        let arguments = &function.arguments;
        given
            .iter()
            .all(|name| arguments.iter().any(|argument| argument.name == *name))
            && arguments
                .iter()
                .all(|argument| argument.optional || given.contains(&argument.name))
    };
    let fitting: Vec<_> = candidates.iter().filter(fits).collect();
    match fitting.as_slice() {
        [only] => Ok(only),
        [] => {
            let (list, searched) = if given.is_empty() {
                (
                    "without parameters".to_owned(),
                    "without parameters".to_owned(),
                )
            } else {
                let list = given.join(", ");
                (format!("({list})"), format!("with parameters {list}"))
            };
            let space = if given.is_empty() { " " } else { "" };
            Err(RestError::new(
                404,
                "PGRST202",
                format!(
                    "Could not find the function public.{name}{space}{list} in the schema cache"
                ),
            )
            .details(format!(
                "Searched for the function public.{name} {searched}, but no matches were found in the schema cache."
            )))
        }
        several => {
            let shown: Vec<_> = several
                .iter()
                .map(|function| {
                    let arguments: Vec<_> = function
                        .arguments
                        .iter()
                        .map(|argument| format!("{} => {}", argument.name, argument.sql_type))
                        .collect();
                    format!("public.{name}({})", arguments.join(", "))
                })
                .collect();
            Err(RestError::new(
                300,
                "PGRST203",
                format!(
                    "Could not choose the best candidate function between: {}",
                    shown.join(", ")
                ),
            )
            .hint("Try renaming the parameters or the function itself in the database so function overloading can be resolved"))
        }
    }
}
