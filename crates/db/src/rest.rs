//! Statements that [`wasel_rest`] planned, and what it needs to know to plan them.

use std::collections::BTreeMap;

use serde::Deserialize;
use sqlx::postgres::PgDatabaseError;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow};
use wasel_rest::{
    Argument, Column, ForeignKey, Function, Outcome, Relation, RelationKind, Returns, Schema,
    Statement,
};

use crate::{ActorTx, Error, Result, SystemTx};

/// The server's own working tables, most of them closed to tenants by their grants. Writing to the others past the
/// server's rules would send what those rules hold back; so they have no name here, whoever asks.
const INTERNAL: &[&str] = &[
    "_sqlx_migrations",
    "change_log",
    "channel_notices",
    "channel_pace",
    "channel_reach",
    "channel_secrets",
    "external_refs",
    "idempotency_keys",
    "message_attempts",
    "message_checks",
    "message_failures",
    "message_fallbacks",
    "outbox",
    "pending_statuses",
    "rate_limits",
    "webhook_events",
    "whatsapp_session_commands",
    "whatsapp_session_keys",
    "whatsapp_session_leases",
];

/// Tables that tenants may read and the server alone writes, in its callers' names or its own: what a role may do to them
/// in SQL is for the server's use. A row made up here would be a delivery that never was, or a file without bytes.
const READ_ONLY: &[&str] = &[
    "automation_deliveries",
    "automation_runs",
    "invitations",
    "message_events",
    "storage_objects",
];

/// Which columns of a table a view shows, among those that keys are made of: (view, table, [(view's, table's)]). The views
/// are made by functions, so Postgres cannot tell.
type Shown = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);
const SHOWN: &[Shown] = &[
    (
        "whatsapp_conversations",
        "conversations",
        &[
            ("org_id", "org_id"),
            ("id", "id"),
            ("channel_id", "channel_id"),
            ("assigned_to", "assigned_to"),
        ],
    ),
    (
        "chat_conversations",
        "conversations",
        &[
            ("org_id", "org_id"),
            ("id", "id"),
            ("user_id", "assigned_to"),
        ],
    ),
    (
        "whatsapp_messages",
        "messages",
        &[
            ("org_id", "org_id"),
            ("id", "id"),
            ("conversation_id", "conversation_id"),
        ],
    ),
    (
        "chat_messages",
        "messages",
        &[
            ("org_id", "org_id"),
            ("id", "id"),
            ("conversation_id", "conversation_id"),
        ],
    ),
    (
        "message_logs",
        "messages",
        &[("org_id", "org_id"), ("id", "id")],
    ),
    (
        "whatsapp_scheduled_messages",
        "scheduled_messages",
        &[
            ("org_id", "org_id"),
            ("id", "id"),
            ("conversation_id", "conversation_id"),
            ("channel_id", "channel_id"),
        ],
    ),
];

/// References that are no foreign keys: (table, column, target, its column, inside the tenant). A template may be the
/// system's, which belongs to another tenant.
const REFERENCES: &[(&str, &str, &str, &str, bool)] = &[
    (
        "notification_queue",
        "template_id",
        "templates",
        "id",
        false,
    ),
    (
        "notification_queue",
        "template_id",
        "whatsapp_templates",
        "id",
        false,
    ),
    (
        "notification_queue",
        "whatsapp_message_id",
        "messages",
        "id",
        true,
    ),
    (
        "notification_queue",
        "whatsapp_message_id",
        "whatsapp_messages",
        "id",
        true,
    ),
    (
        "scheduled_messages",
        "template_id",
        "templates",
        "id",
        false,
    ),
    (
        "whatsapp_scheduled_messages",
        "template_id",
        "whatsapp_templates",
        "id",
        false,
    ),
    (
        "whatsapp_messages",
        "session_id",
        "whatsapp_sessions",
        "channel_id",
        true,
    ),
    ("phone_numbers", "waba_id", "waba_accounts", "waba_id", true),
    (
        "chat_conversations",
        "waba_id",
        "waba_accounts",
        "waba_id",
        true,
    ),
    (
        "chat_conversations",
        "phone_number_id",
        "phone_numbers",
        "phone_number_id",
        true,
    ),
];

/// Why a statement gave no answer.
#[derive(Debug)]
pub enum Refusal {
    /// Postgres refused what the caller asked for, and says why.
    Database {
        sqlstate: String,
        message: String,
        details: Option<String>,
        hint: Option<String>,
    },
    /// No fault of the caller's.
    Failed(Error),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        let refused = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        if let Some(refused) = refused {
            let sqlstate = refused.code();
            // Connection trouble and a database that goes down are not about the statement.
            let is_away = ["08", "57P"]
                .iter()
                .any(|class| sqlstate.starts_with(class));
            if !is_away {
                return Self::Database {
                    sqlstate: sqlstate.to_owned(),
                    message: refused.message().to_owned(),
                    details: refused.detail().map(str::to_owned),
                    hint: refused.hint().map(str::to_owned),
                };
            }
        }
        Self::Failed(error.into())
    }
}

#[derive(FromRow)]
struct OutcomeRow {
    page: i64,
    total: Option<i64>,
    inserted: Option<i64>,
    size: Option<i32>,
    body: Option<String>,
}

/// Runs a planned statement.
pub async fn run(tx: &mut ActorTx, statement: &Statement) -> Result<Outcome, Refusal> {
    // The planner puts identifiers of the schema into the text, in quotes, and binds all else.
    let mut query = sqlx::query_as::<_, OutcomeRow>(AssertSqlSafe(statement.sql.clone()));
    for bind in &statement.binds {
        query = query.bind(bind);
    }
    let row = query.fetch_one(&mut **tx).await?;
    Ok(Outcome {
        page: row.page,
        total: row.total,
        inserted: row.inserted,
        size: row.size.unwrap_or_default().into(),
        body: row.body,
    })
}

/// Keeps what was done.
pub async fn commit(tx: ActorTx) -> Result<(), Refusal> {
    Ok(tx.commit().await?)
}

#[derive(FromRow)]
struct ColumnRow {
    relation: String,
    is_view: bool,
    name: String,
    sql_type: String,
    nullable: bool,
    default_sql: Option<String>,
}

#[derive(FromRow)]
struct KeyRow {
    relation: String,
    is_primary: bool,
    columns: Vec<String>,
}

/// A view that Postgres itself carries writes through, and its table.
#[derive(FromRow)]
struct PlainViewRow {
    relation: String,
    of_table: String,
}

#[derive(FromRow)]
struct ForeignKeyRow {
    name: String,
    relation: String,
    target: String,
    columns: Vec<String>,
    target_columns: Vec<String>,
}

#[derive(FromRow)]
struct FunctionRow {
    name: String,
    is_volatile: bool,
    returns_set: bool,
    returns_void: bool,
    returns_row: bool,
    relation: Option<String>,
    columns: Json<Vec<ArgumentRow>>,
    arguments: Json<Vec<ArgumentRow>>,
}

#[derive(Deserialize)]
struct ArgumentRow {
    name: String,
    sql_type: String,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    variadic: bool,
}

/// Reads the tables, views, keys and functions of schema `public`.
pub async fn find_schema(tx: &mut SystemTx) -> Result<Schema> {
    let columns: Vec<ColumnRow> = sqlx::query_as(
        "SELECT c.relname::text AS relation, c.relkind IN ('v', 'm') AS is_view, a.attname::text AS name,
             format_type(a.atttypid, NULL) AS sql_type, NOT a.attnotnull AS nullable,
             CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default_sql
         FROM pg_class c
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
             AND NOT c.relispartition AND c.relname <> ALL ($1)
         ORDER BY c.relname, a.attnum",
    )
    .bind(INTERNAL)
    .fetch_all(&mut **tx)
    .await?;
    let keys: Vec<KeyRow> = sqlx::query_as(
        "SELECT c.relname::text AS relation, i.indisprimary AS is_primary, array_agg(a.attname::text ORDER BY k.place) AS columns
         FROM pg_index i
         JOIN pg_class c ON c.oid = i.indrelid
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
         WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
             AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
         GROUP BY c.relname, i.indexrelid, i.indisprimary
         ORDER BY c.relname, i.indexrelid",
    )
    .fetch_all(&mut **tx)
    .await?;
    let plain_views: Vec<PlainViewRow> = sqlx::query_as(
        "SELECT v.relname::text AS relation, min(t.relname::text) AS of_table
         FROM pg_class v
         JOIN pg_rewrite r ON r.ev_class = v.oid AND r.rulename = '_RETURN'
         JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
         JOIN pg_class t ON t.oid = d.refobjid
         WHERE v.relnamespace = 'public'::regnamespace AND v.relkind = 'v' AND (pg_relation_is_updatable(v.oid, false) & 8) = 8
             AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = v.oid AND NOT g.tgisinternal)
         GROUP BY v.oid, v.relname
         HAVING count(DISTINCT t.oid) = 1 AND bool_and(t.relkind IN ('r', 'p') AND t.relnamespace = 'public'::regnamespace)
         ORDER BY v.relname",
    )
    .fetch_all(&mut **tx)
    .await?;
    let foreign_keys: Vec<ForeignKeyRow> = sqlx::query_as(
        "SELECT k.conname::text AS name, t.relname::text AS relation, f.relname::text AS target,
             (SELECT array_agg(a.attname::text ORDER BY x.place) FROM unnest(k.conkey) WITH ORDINALITY AS x (number, place)
              JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.number) AS columns,
             (SELECT array_agg(a.attname::text ORDER BY x.place) FROM unnest(k.confkey) WITH ORDINALITY AS x (number, place)
              JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = x.number) AS target_columns
         FROM pg_constraint k
         JOIN pg_class t ON t.oid = k.conrelid AND t.relnamespace = 'public'::regnamespace
         JOIN pg_class f ON f.oid = k.confrelid AND f.relnamespace = 'public'::regnamespace
         WHERE k.contype = 'f' AND k.conparentid = 0
         ORDER BY t.relname, k.conname",
    )
    .fetch_all(&mut **tx)
    .await?;
    let functions: Vec<FunctionRow> = sqlx::query_as(
        "SELECT p.proname::text AS name, p.provolatile = 'v' AS is_volatile, p.proretset AS returns_set,
             p.prorettype = 'void'::regtype AS returns_void,
             coalesce(o.columns, r.columns) IS NOT NULL AS returns_row,
             CASE WHEN o.columns IS NULL THEN r.relation END AS relation,
             coalesce(o.columns, r.columns, '[]') AS columns, coalesce(i.arguments, '[]') AS arguments
         FROM pg_proc p
         JOIN pg_type t ON t.oid = p.prorettype
         CROSS JOIN LATERAL (
             SELECT jsonb_agg(jsonb_build_object('name', n.name, 'sql_type', format_type(n.type, NULL),
                        'optional', n.input > p.pronargs - p.pronargdefaults OR n.mode = 'v', 'variadic', n.mode = 'v')
                    ORDER BY n.place) AS arguments, coalesce(bool_and(n.name <> ''), true) AS all_named
             FROM (SELECT a.place, a.type, coalesce(p.proargnames[a.place], '') AS name,
                       coalesce(p.proargmodes[a.place], 'i') AS mode, row_number() OVER (ORDER BY a.place) AS input
                   FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS a (type, place)
                   WHERE coalesce(p.proargmodes[a.place], 'i') IN ('i', 'b', 'v')) n
         ) i
         CROSS JOIN LATERAL (
             SELECT jsonb_agg(jsonb_build_object('name', p.proargnames[a.place], 'sql_type', format_type(a.type, NULL))
                    ORDER BY a.place) AS columns
             FROM unnest(p.proallargtypes) WITH ORDINALITY AS a (type, place)
             WHERE p.proargmodes[a.place] IN ('o', 'b', 't')
         ) o
         CROSS JOIN LATERAL (
             SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'sql_type', format_type(a.atttypid, NULL))
                    ORDER BY a.attnum) AS columns,
                 max(c.relname::text) FILTER (WHERE c.relkind <> 'c' AND c.relnamespace = 'public'::regnamespace) AS relation
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.oid = t.typrelid
         ) r
         WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f' AND i.all_named
             AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
             AND (p.prorettype <> 'record'::regtype OR o.columns IS NOT NULL)
             AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
         ORDER BY p.proname, p.oid",
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut relations = relations(columns);
    for key in keys {
        if let Some(relation) = relations.get_mut(&key.relation) {
            if key.is_primary {
                relation.primary_key.clone_from(&key.columns);
            }
            relation.unique_keys.push(key.columns);
        }
    }
    for view in plain_views {
        if let Some(table) = relations.get(&view.of_table).cloned()
            && let Some(relation) = relations.get_mut(&view.relation)
        {
            show_keys(relation, table);
        }
    }
    Ok(Schema {
        foreign_keys: references(&relations, foreign_keys),
        functions: functions.into_iter().map(function).collect(),
        relations,
    })
}

fn relations(columns: Vec<ColumnRow>) -> BTreeMap<String, Relation> {
    let mut relations: BTreeMap<String, Relation> = BTreeMap::new();
    for column in columns {
        let relation = relations
            .entry(column.relation.clone())
            .or_insert_with(|| Relation {
                read_only: READ_ONLY.contains(&column.relation.as_str()),
                name: column.relation,
                kind: if column.is_view {
                    RelationKind::View
                } else {
                    RelationKind::Table
                },
                ..Relation::default()
            });
        relation.columns.push(Column {
            name: column.name,
            sql_type: column.sql_type,
            nullable: column.nullable,
            default: column.default_sql,
        });
    }
    relations
}

/// Gives a plain view the keys and defaults of its table, where it shows the columns under their names.
fn show_keys(view: &mut Relation, table: Relation) {
    let is_shown = |key: &Vec<String>| key.iter().all(|column| view.column(column).is_some());
    let unique_keys: Vec<_> = table.unique_keys.into_iter().filter(is_shown).collect();
    if is_shown(&table.primary_key) {
        view.primary_key = table.primary_key;
    }
    view.unique_keys = unique_keys;
    for column in &mut view.columns {
        if column.default.is_none() {
            let mut columns = table.columns.iter();
            column.default = columns
                .find(|of_table| of_table.name == column.name)
                .and_then(|of_table| of_table.default.clone());
        }
    }
}

/// The foreign keys, the same between the views that show their tables, and the references that are none.
fn references(relations: &BTreeMap<String, Relation>, rows: Vec<ForeignKeyRow>) -> Vec<ForeignKey> {
    let mut keys = Vec::new();
    for row in rows {
        let one_to_one = relations.get(&row.relation).is_some_and(|relation| {
            let mut unique = relation.unique_keys.iter();
            unique.any(|key| key.iter().all(|column| row.columns.contains(column)))
        });
        for (table, columns) in shown(&row.relation, &row.columns) {
            for (target, target_columns) in shown(&row.target, &row.target_columns) {
                if relations.contains_key(&table) && relations.contains_key(&target) {
                    keys.push(ForeignKey {
                        name: row.name.clone(),
                        table: table.clone(),
                        target: target.clone(),
                        columns: columns.iter().cloned().zip(target_columns).collect(),
                        one_to_one,
                    });
                }
            }
        }
    }
    let has = |table: &str, column: &str| {
        let relation = relations.get(table);
        relation.is_some_and(|relation| relation.column(column).is_some())
    };
    for (table, column, target, target_column, in_tenant) in REFERENCES {
        if has(table, column) && has(target, target_column) {
            let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
            let tenant = in_tenant.then(|| pair("org_id", "org_id"));
            keys.push(ForeignKey {
                name: format!("{table}_{column}_{target}"),
                table: (*table).to_owned(),
                target: (*target).to_owned(),
                columns: tenant
                    .into_iter()
                    .chain([pair(column, target_column)])
                    .collect(),
                one_to_one: false,
            });
        }
    }
    keys
}

/// A table and the views that show these columns of it, with their names there.
fn shown(table: &str, columns: &[String]) -> Vec<(String, Vec<String>)> {
    let mut names = vec![(table.to_owned(), columns.to_vec())];
    for (view, _, pairs) in SHOWN.iter().filter(|(_, shown, _)| *shown == table) {
        let in_view: Option<Vec<String>> = columns
            .iter()
            .map(|column| {
                let mut pairs = pairs.iter();
                let pair = pairs.find(|(_, of_table)| of_table == column);
                pair.map(|(of_view, _)| (*of_view).to_owned())
            })
            .collect();
        names.extend(in_view.map(|in_view| ((*view).to_owned(), in_view)));
    }
    names
}

fn function(row: FunctionRow) -> Function {
    let columns = || {
        let columns = row.columns.0.iter().map(|column| Column {
            name: column.name.clone(),
            sql_type: column.sql_type.clone(),
            nullable: true,
            default: None,
        });
        columns.collect()
    };
    let set = row.returns_set;
    Function {
        returns: match (row.returns_void, row.returns_row) {
            (true, _) => Returns::Void,
            (_, false) => Returns::Scalar { set },
            (_, true) => Returns::Rows {
                set,
                relation: row.relation.clone(),
                columns: columns(),
            },
        },
        name: row.name,
        arguments: row
            .arguments
            .0
            .into_iter()
            .map(|argument| Argument {
                name: argument.name,
                sql_type: argument.sql_type,
                optional: argument.optional,
                variadic: argument.variadic,
            })
            .collect(),
        volatile: row.is_volatile,
    }
}
