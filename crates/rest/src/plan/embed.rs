//! Rows of another relation inside a row: a lateral join that gives their JSON.

use super::condition::{Scope, join};
use super::level::{Output, Planner, Star};
use super::sql::{public, quote};
use crate::query::{Embed, Field};
use crate::schema::Relation;
use crate::{RestError, limits};

/// A joined relation.
pub(super) struct Embedded {
    pub key: String,
    /// Its alias; column `j` is null where there is no row.
    pub alias: String,
    /// With a space before it.
    pub join: String,
    /// Rows without a match are left out.
    pub inner: bool,
    pub outputs: Vec<Output>,
    /// Fields the parent is ordered by, and where they are found. Only for a relation to one row.
    pub ordered_by: Vec<(Field, String)>,
}

pub(super) fn embed(
    planner: &mut Planner<'_>,
    parent: &Relation,
    parent_alias: &str,
    wanted: &Embed,
    ordered_by: &[&Field],
) -> Result<Embedded, RestError> {
    let schema = planner.schema;
    let relationship =
        schema.relationship(&parent.name, &wanted.relation, wanted.hint.as_deref())?;
    let relation = schema.relation(relationship.target())?;
    let number = planner.binds.alias();
    let (child, alias) = (format!("t{number}"), format!("e{number}"));
    if wanted.spread && !relationship.is_to_one() {
        return Err(RestError::new(
            400,
            "PGRST119",
            format!(
                "A spread operation on '{}' is not possible",
                wanted.relation
            ),
        )
        .details(format!(
            "'{}' and '{}' do not form a many-to-one or one-to-one relationship",
            parent.name, wanted.relation
        )));
    }
    // The names of a spread's columns are needed.
    let star = if wanted.spread {
        Star::Expanded
    } else {
        Star::AsIs
    };
    let around = planner.breadth;
    if !relationship.is_to_one() {
        let limit = wanted.level.limit.unwrap_or(planner.max_rows);
        planner.breadth = around.saturating_mul(limit.min(planner.max_rows).max(1));
    }
    let parts = planner.level(relation, &child, &wanted.level, star)?;
    if !parts.counts && planner.breadth > planner.max_rows.saturating_pow(limits::LISTS) {
        return Err(RestError::too_broad());
    }
    planner.breadth = around;
    let table = public(&relation.name);
    let belongs = join(&relationship, parent_alias, &child);
    let rows = format!(
        "FROM {table} AS {child}{} WHERE {belongs} AND ({})",
        parts.joins, parts.conditions
    );
    let to_many = !relationship.is_to_one() || parts.counts;
    let mut places = Vec::new();
    let mut outputs = Vec::new();
    let lateral = if to_many {
        let cut = if parts.counts {
            String::new()
        } else {
            planner.page(&wanted.level)
        };
        outputs.push(format!("coalesce({alias}.j, '[]'::json)"));
        format!(
            "SELECT json_agg(x.*) AS j FROM (SELECT {} {rows}{}{cut}) AS x",
            parts.list(),
            parts.order
        )
    } else {
        let scope = Scope {
            relation,
            alias: &child,
            embeds: Vec::new(),
        };
        let mut selected = Vec::new();
        if wanted.spread {
            selected.push("TRUE AS j".to_owned());
            for (i, output) in parts.outputs.iter().enumerate() {
                selected.push(format!("{} AS s{i}", output.sql));
            }
        } else {
            selected.push(format!(
                "(SELECT row_to_json(x.*) FROM (SELECT {}) AS x) AS j",
                parts.list()
            ));
            outputs.push(format!("{alias}.j"));
        }
        for (i, field) in ordered_by.iter().enumerate() {
            let place = scope.place(&mut planner.binds, field)?;
            selected.push(format!("{} AS o{i}", place.sql));
            places.push(((*field).clone(), format!("{alias}.o{i}")));
        }
        format!("SELECT {} {rows}", selected.join(", "))
    };
    let (how, on) = match (wanted.inner, to_many) {
        (false, _) => ("LEFT JOIN", "TRUE".to_owned()),
        (true, false) => ("JOIN", "TRUE".to_owned()),
        (true, true) => ("JOIN", format!("{alias}.j IS NOT NULL")),
    };
    let outputs = if wanted.spread {
        let named = parts.outputs.into_iter().enumerate();
        named
            .map(|(i, output)| Output {
                name: output.name,
                sql: format!("{alias}.s{i}"),
            })
            .collect()
    } else if wanted.level.items.is_empty() {
        // `relation!inner()` only decides which rows there are.
        Vec::new()
    } else {
        let named = outputs.into_iter().map(|sql| Output {
            name: Some(wanted.key().to_owned()),
            sql,
        });
        named.collect()
    };
    Ok(Embedded {
        key: wanted.key().to_owned(),
        join: format!(" {how} LATERAL ({lateral}) AS {} ON {on}", quote(&alias)),
        alias,
        inner: wanted.inner,
        outputs,
        ordered_by: places,
    })
}
