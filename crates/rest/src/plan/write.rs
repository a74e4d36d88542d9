//! Inserting, changing and deleting rows.

use std::collections::BTreeSet;

use super::condition::Scope;
use super::level::{Planner, Star};
use super::read::{Written, select};
use super::sql::{Binds, Shell, literal, public, quote, quote_all};
use super::{Plan, Request, Statement};
use crate::answer::{Shape, Verb};
use crate::query::Query;
use crate::schema::{Relation, RelationKind, Schema, TENANT};
use crate::{Payload, Resolution, RestError, Returning};

/// POST: new rows, or with `Prefer: resolution=…` rows that may be there already.
pub fn insert(
    schema: &Schema,
    table: &str,
    query: &Query,
    payload: &Payload,
    request: &Request,
) -> Result<Plan, RestError> {
    let relation = writable(schema, table)?;
    let columns = body_columns(relation, query, payload)?;
    let target = conflict_target(relation, query, request)?;
    let is_upsert = request.preferences.resolution.is_some();
    let verb = Verb::Insert { is_upsert };
    if payload.rows == 0 {
        return Ok(nothing(verb, relation, request));
    }
    let mut binds = Binds::default();
    let json = binds.bind(&payload.json);
    let rows = rows(relation, &columns, &json, request);
    let names = quote_all(columns.iter().copied());
    let into = if columns.is_empty() {
        // Each row is all defaults; Postgres makes one at a time.
        if payload.rows > 1 {
            return Err(RestError::bad_body(
                "Rows without columns come one at a time",
            ));
        }
        "DEFAULT VALUES".to_owned()
    } else {
        let selected: Vec<_> = columns
            .iter()
            .map(|column| format!("p.{}", quote(column)))
            .collect();
        format!("({names}) SELECT {} FROM {rows}", selected.join(", "))
    };
    let conflict = match (&target, request.preferences.resolution) {
        (Some(target), Some(resolution)) => {
            let updates: Vec<_> = columns
                .iter()
                .map(|column| format!("{0} = EXCLUDED.{0}", quote(column)))
                .collect();
            let target = quote_all(target.iter().map(String::as_str));
            if resolution == Resolution::Ignore || updates.is_empty() {
                format!(" ON CONFLICT ({target}) DO NOTHING")
            } else {
                format!(
                    " ON CONFLICT ({target}) DO UPDATE SET {}",
                    updates.join(", ")
                )
            }
        }
        _ => String::new(),
    };
    // Of a row that was there before, xmax is the transaction that changed it now.
    let tells = conflict.contains("DO UPDATE") && relation.kind == RelationKind::Table;
    let statement = format!("INSERT INTO {} AS t0 {into}{conflict}", public(table));
    finish(
        schema, relation, query, request, verb, binds, &statement, tells,
    )
}

/// PATCH: changes the rows that the filters leave.
pub fn update(
    schema: &Schema,
    table: &str,
    query: &Query,
    payload: &Payload,
    request: &Request,
) -> Result<Plan, RestError> {
    let relation = writable(schema, table)?;
    let columns = body_columns(relation, query, payload)?;
    if payload.rows != 1 {
        return Err(RestError::bad_body("A change is one object"));
    }
    if columns.is_empty() {
        return Ok(nothing(Verb::Update, relation, request));
    }
    let mut binds = Binds::default();
    let json = binds.bind(&payload.json);
    let sets: Vec<_> = columns
        .iter()
        .map(|column| format!("{0} = b.{0}", quote(column)))
        .collect();
    let conditions = conditions(relation, query, "UPDATE", &mut binds)?;
    let statement = format!(
        "UPDATE {table} AS t0 SET {sets} FROM (SELECT {names} FROM json_populate_recordset(NULL::{table}, {json}::json)) AS b \
         WHERE {conditions}",
        table = public(table),
        sets = sets.join(", "),
        names = quote_all(columns.iter().copied()),
    );
    finish(
        schema,
        relation,
        query,
        request,
        Verb::Update,
        binds,
        &statement,
        false,
    )
}

/// DELETE: the rows that the filters leave.
pub fn delete(
    schema: &Schema,
    table: &str,
    query: &Query,
    request: &Request,
) -> Result<Plan, RestError> {
    let relation = writable(schema, table)?;
    let mut binds = Binds::default();
    let conditions = conditions(relation, query, "DELETE", &mut binds)?;
    let statement = format!("DELETE FROM {} AS t0 WHERE {conditions}", public(table));
    finish(
        schema,
        relation,
        query,
        request,
        Verb::Delete,
        binds,
        &statement,
        false,
    )
}

fn writable<'a>(schema: &'a Schema, table: &str) -> Result<&'a Relation, RestError> {
    let relation = schema.relation(table)?;
    if relation.read_only {
        return Err(RestError::read_only(table));
    }
    Ok(relation)
}

/// Without a filter the whole table would be meant: refused in the words of Supabase's `safeupdate`.
fn conditions(
    relation: &Relation,
    query: &Query,
    verb: &str,
    binds: &mut Binds,
) -> Result<String, RestError> {
    if query.root.conditions.is_empty() {
        return Err(RestError::new(
            400,
            "21000",
            format!("{verb} requires a WHERE clause"),
        ));
    }
    let scope = Scope {
        relation,
        alias: "t0",
        embeds: Vec::new(),
    };
    scope.all(binds, &query.root.conditions)
}

/// The columns written: those of `columns`, else those of the body.
fn body_columns<'a>(
    relation: &'a Relation,
    query: &Query,
    payload: &Payload,
) -> Result<Vec<&'a str>, RestError> {
    let names: BTreeSet<&String> = match &query.columns {
        Some(columns) => columns.iter().collect(),
        None if !payload.uniform => {
            return Err(RestError::bad_body("All object keys must match"));
        }
        None => payload.keys.iter().collect(),
    };
    names
        .into_iter()
        .map(|name| match relation.column(name) {
            Some(column) => Ok(column.name.as_str()),
            None => Err(RestError::unknown_body_column(&relation.name, name)),
        })
        .collect()
}

/// The unique key an upsert goes by. Ours all begin with the tenant, which the caller need not name.
fn conflict_target(
    relation: &Relation,
    query: &Query,
    request: &Request,
) -> Result<Option<Vec<String>>, RestError> {
    if request.preferences.resolution.is_none() {
        return Ok(None);
    }
    let Some(named) = query.on_conflict.as_ref().filter(|named| !named.is_empty()) else {
        let key = &relation.primary_key;
        return Ok((!key.is_empty()).then(|| key.clone()));
    };
    for name in named {
        if relation.column(name).is_none() {
            return Err(RestError::unknown_column(&relation.name, name));
        }
    }
    let as_set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let given = as_set(named);
    let mut with_tenant = given.clone();
    with_tenant.insert(TENANT.to_owned());
    let is_key = |wanted: &BTreeSet<String>| {
        let mut keys = relation.unique_keys.iter();
        keys.any(|key| as_set(key) == *wanted)
    };
    Ok(Some(if !is_key(&given) && is_key(&with_tenant) {
        with_tenant.into_iter().collect()
    } else {
        named.clone()
    }))
}

/// The rows of the body as a table.
fn rows(relation: &Relation, columns: &[&str], json: &str, request: &Request) -> String {
    let table = public(&relation.name);
    if !request.preferences.missing_default {
        return format!("json_populate_recordset(NULL::{table}, {json}::json) AS p");
    }
    let values: Vec<_> = relation
        .columns
        .iter()
        .filter(|column| columns.contains(&column.name.as_str()))
        .map(|column| {
            let name = quote(&column.name);
            match &column.default {
                // Not put into the record: there a default of JSON's null would become SQL's.
                Some(default) => format!(
                    "CASE WHEN d.v ? {} THEN r.{name} ELSE ({default})::{} END AS {name}",
                    literal(&column.name),
                    column.sql_type
                ),
                None => format!("r.{name}"),
            }
        })
        .collect();
    format!(
        "(SELECT {} FROM jsonb_array_elements({json}::jsonb) AS d(v), \
         LATERAL jsonb_populate_record(NULL::{table}, d.v) AS r) AS p",
        values.join(", ")
    )
}

fn nothing(verb: Verb, relation: &Relation, request: &Request) -> Plan {
    Plan {
        statement: None,
        writes: Some(relation.name.clone()),
        rollback: request.preferences.rollback,
        shape: Shape::new(verb, request, 0),
    }
}

/// Makes the answer of the rows written.
#[expect(clippy::too_many_arguments, reason = "the pieces of one statement")]
fn finish(
    schema: &Schema,
    relation: &Relation,
    query: &Query,
    request: &Request,
    verb: Verb,
    binds: Binds,
    statement: &str,
    tells_inserted: bool,
) -> Result<Plan, RestError> {
    let shape = Shape::new(verb, request, query.root.offset);
    let (marker, inserted) = if tells_inserted {
        (
            ", (t0.xmax = 0) AS wasel_inserted",
            "(SELECT count(*) FROM w WHERE wasel_inserted)",
        )
    } else {
        ("", "NULL::int8")
    };
    let mut planner = Planner::new(schema, binds, request, &query.root);
    let sql = if request.preferences.returning == Some(Returning::Representation) {
        let with = format!("w AS ({statement} RETURNING t0.*{marker})");
        // The filters chose the rows already.
        let mut of_written = query.clone();
        of_written.root.conditions.clear();
        let parts = planner.level(relation, "t0", &of_written.root, Star::Expanded)?;
        let written = Written {
            rows: "w",
            inserted,
        };
        select(
            &mut planner,
            &parts,
            &of_written,
            request,
            &with,
            "w AS t0",
            Some(&written),
        )
    } else {
        Shell {
            with: &format!("w AS ({statement} RETURNING 1 AS one{marker})"),
            page: "count(*)",
            total: "count(*)",
            inserted,
            body: "''",
            source: "w",
        }
        .sql()
    };
    Ok(Plan {
        statement: Some(Statement {
            sql,
            binds: planner.binds.values,
            read_only: false,
        }),
        writes: Some(relation.name.clone()),
        rollback: request.preferences.rollback,
        shape,
    })
}
