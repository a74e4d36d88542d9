//! Requests of `/rest/v1`: the first line is the query string, the second the `Prefer` header, the rest the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasel_rest::{
    Column, ForeignKey, MediaType, Payload, Preferences, Query, Relation, Request, Schema, plan,
};

fn relation(name: &str) -> Relation {
    let columns = [
        ("org_id", "uuid"),
        ("id", "uuid"),
        ("other_id", "uuid"),
        ("a", "text"),
        ("b", "jsonb"),
        ("c", "integer[]"),
    ];
    let key = vec!["org_id".to_owned(), "id".to_owned()];
    Relation {
        name: name.to_owned(),
        columns: columns
            .into_iter()
            .map(|(name, sql_type)| Column {
                name: name.to_owned(),
                sql_type: sql_type.to_owned(),
                nullable: true,
                default: Some("now()".to_owned()),
            })
            .collect(),
        primary_key: key.clone(),
        unique_keys: vec![key],
        ..Relation::default()
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (query, prefer, body) = (line(), line(), line());
    let schema = Schema {
        relations: ["t", "u"]
            .into_iter()
            .map(|name| (name.to_owned(), relation(name)))
            .collect(),
        foreign_keys: vec![ForeignKey {
            name: "t_u".to_owned(),
            table: "t".to_owned(),
            target: "u".to_owned(),
            columns: vec![("other_id".to_owned(), "id".to_owned())],
            one_to_one: false,
        }],
        functions: Vec::new(),
    };
    let Ok(preferences) = Preferences::parse([prefer].into_iter()) else {
        return;
    };
    let request = Request {
        preferences,
        media: MediaType::Csv,
        head: false,
        max_rows: 10,
    };
    let payload = Payload::parse(body);
    let Ok(query) = Query::parse(query) else {
        return;
    };
    let mut plans = vec![
        plan::read(&schema, "t", &query, &request),
        plan::delete(&schema, "u", &query, &request),
    ];
    if let Ok(payload) = payload {
        plans.push(plan::insert(&schema, "t", &query, &payload, &request));
        plans.push(plan::update(&schema, "t", &query, &payload, &request));
    }
    for statement in plans.into_iter().flatten().filter_map(|plan| plan.statement) {
        // Postgres takes NUL neither in a statement nor in a text.
        assert!(!statement.sql.contains('\0'), "{:?}", statement.sql);
        assert!(!statement.binds.iter().any(|bind| bind.contains('\0')));
        // Names are in quotes, values are binds: an odd quote would mean that one of them got out.
        assert_eq!(statement.sql.matches('"').count() % 2, 0, "{}", statement.sql);
    }
});
