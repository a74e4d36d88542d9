use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::schema::{
    Argument, Column, ForeignKey, Function, Relation, RelationKind, Returns, Schema,
};
use crate::{Outcome, Payload, Query, RestError};

fn relation(name: &str, kind: RelationKind, columns: &[(&str, &str)]) -> Relation {
    let columns = columns
        .iter()
        .map(|(name, sql_type)| Column {
            name: (*name).to_owned(),
            sql_type: (*sql_type).to_owned(),
            nullable: true,
            default: (*name == "id").then(|| "wasel.uuid7()".to_owned()),
        })
        .collect();
    let key = vec!["org_id".to_owned(), "id".to_owned()];
    let is_table = kind == RelationKind::Table;
    Relation {
        name: name.to_owned(),
        kind,
        columns,
        read_only: false,
        primary_key: if is_table { key.clone() } else { Vec::new() },
        unique_keys: if is_table { vec![key] } else { Vec::new() },
    }
}

fn key(name: &str, table: &str, column: &str, target: &str, one_to_one: bool) -> ForeignKey {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    ForeignKey {
        name: name.to_owned(),
        table: table.to_owned(),
        target: target.to_owned(),
        columns: vec![pair("org_id", "org_id"), pair(column, "id")],
        one_to_one,
    }
}

fn schema() -> Schema {
    let own = ("org_id", "uuid");
    let relations = [
        relation(
            "messages",
            RelationKind::Table,
            &[
                own,
                ("id", "uuid"),
                ("conversation_id", "uuid"),
                ("body", "text"),
                ("tags", "text[]"),
                ("metadata", "jsonb"),
                ("retry_count", "integer"),
                ("created_at", "timestamp with time zone"),
            ],
        ),
        relation(
            "conversations",
            RelationKind::Table,
            &[
                own,
                ("id", "uuid"),
                ("contact_id", "uuid"),
                ("closed_by", "uuid"),
                ("opened_by", "uuid"),
            ],
        ),
        relation(
            "contacts",
            RelationKind::Table,
            &[own, ("id", "uuid"), ("name", "text")],
        ),
        relation("profiles", RelationKind::Table, &[own, ("id", "uuid")]),
        relation(
            "outbox",
            RelationKind::Table,
            &[own, ("message_id", "uuid")],
        ),
        relation(
            "whatsapp_messages",
            RelationKind::View,
            &[own, ("id", "uuid"), ("content", "text")],
        ),
    ];
    let argument = |name: &str, optional| Argument {
        name: name.to_owned(),
        sql_type: "integer".to_owned(),
        optional,
        variadic: false,
    };
    let function = |name: &str, arguments: Vec<Argument>, returns: Returns| Function {
        name: name.to_owned(),
        arguments,
        returns,
        volatile: true,
    };
    Schema {
        relations: relations.into_iter().map(|r| (r.name.clone(), r)).collect(),
        foreign_keys: vec![
            key(
                "messages_conversation",
                "messages",
                "conversation_id",
                "conversations",
                false,
            ),
            key(
                "conversations_contact",
                "conversations",
                "contact_id",
                "contacts",
                false,
            ),
            key("closed", "conversations", "closed_by", "profiles", false),
            key("opened", "conversations", "opened_by", "profiles", false),
            key("outbox_message", "outbox", "message_id", "messages", true),
        ],
        functions: vec![
            function(
                "add",
                vec![argument("a", false), argument("b", true)],
                Returns::Scalar { set: false },
            ),
            function(
                "two",
                vec![argument("a", false)],
                Returns::Scalar { set: false },
            ),
            function(
                "two",
                vec![argument("a", true), argument("c", true)],
                Returns::Void,
            ),
            function(
                "newest",
                vec![],
                Returns::Rows {
                    set: true,
                    relation: Some("messages".to_owned()),
                    columns: vec![],
                },
            ),
        ],
    }
}

fn request(prefer: &str) -> Request {
    Request {
        preferences: Preferences::parse([prefer].into_iter()).unwrap(),
        media: MediaType::Json { strip_nulls: false },
        head: false,
        max_rows: 1000,
    }
}

fn planned(table: &str, query: &str) -> Result<Statement, RestError> {
    let query = Query::parse(query)?;
    read(&schema(), table, &query, &request("")).map(|plan| plan.statement.unwrap())
}

/// The rows of the statement: what is between the body and the end.
fn rows(table: &str, query: &str) -> String {
    let statement = planned(table, query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let (_, rows) = statement.sql.split_once("AS body FROM (SELECT ").unwrap();
    let (_, rows) = rows.split_once(" AS body FROM (").unwrap();
    rows.strip_suffix(") AS r) AS answer").unwrap().to_owned()
}

#[test]
fn a_filter_casts_its_bind_to_the_columns_type() {
    for (filter, condition, bind) in [
        ("id=eq.1", "(t0.\"id\" = $1::uuid)", "1"),
        ("id=not.eq.1", "NOT (t0.\"id\" = $1::uuid)", "1"),
        (
            "created_at=gte.2026-01-01",
            "(t0.\"created_at\" >= $1::timestamp with time zone)",
            "2026-01-01",
        ),
        ("body=ilike.*a*", "(t0.\"body\" ILIKE $1::text)", "%a%"),
        ("id=like.a*", "(t0.\"id\" LIKE $1::text)", "a%"),
        (
            "body=like(any).{a*,b}",
            "(t0.\"body\" LIKE ANY($1::text[]))",
            "{a%,b}",
        ),
        (
            "retry_count=eq(all).{1}",
            "(t0.\"retry_count\" = ALL($1::integer[]))",
            "{1}",
        ),
        (
            "id=in.(a,\"b,\\\"c\")",
            "(t0.\"id\" = ANY($1::uuid[]))",
            "{\"a\",\"b,\\\"c\"}",
        ),
        ("id=in.()", "(t0.\"id\" = ANY($1::uuid[]))", "{}"),
        ("tags=cs.{a}", "(t0.\"tags\" @> $1::text[])", "{a}"),
        (
            "metadata=cd.{\"a\":1}",
            "(t0.\"metadata\" <@ $1::jsonb)",
            "{\"a\":1}",
        ),
        (
            "body=isdistinct.x",
            "(t0.\"body\" IS DISTINCT FROM $1::text)",
            "x",
        ),
        (
            "body=plfts.x",
            "(to_tsvector(t0.\"body\"::text) @@ plainto_tsquery($1::text))",
            "x",
        ),
    ] {
        let statement = planned("messages", filter).unwrap();
        assert_eq!(statement.binds[0], bind, "{filter}");
        let wanted = format!("FROM \"public\".\"messages\" AS t0 WHERE {condition} LIMIT $2::int8");
        assert!(
            rows("messages", filter).contains(&wanted),
            "{filter}: {}",
            statement.sql
        );
    }
}

#[test]
fn a_path_is_bound_key_by_key() {
    let statement = planned("messages", "metadata->a->>0=eq.x").unwrap();
    assert!(
        statement
            .sql
            .contains("((t0.\"metadata\" -> $1::text) ->> $2::int4) = $3::text")
    );
    assert_eq!(statement.binds[..3], ["a", "0", "x"]);
    assert!(
        rows("messages", "select=tags->0")
            .contains("(to_jsonb(t0.\"tags\") -> $1::int4) AS \"tags\"")
    );
    assert_eq!(
        planned("messages", "select=metadata->>a->b")
            .unwrap_err()
            .code,
        "42883"
    );
}

#[test]
fn groups_keep_their_parentheses() {
    assert!(
        rows(
            "messages",
            "id=is.null&or=(retry_count.gt.1,not.and(body.is.null,id.is.null))"
        )
        .contains(
            "WHERE (t0.\"id\" IS NULL) AND ((t0.\"retry_count\" > $1::integer) OR \
         NOT ((t0.\"body\" IS NULL) AND (t0.\"id\" IS NULL)))"
        )
    );
}

#[test]
fn requests_of_one_shape_have_one_text() {
    let one = planned(
        "messages",
        "id=eq.1&body=like.x&limit=5&offset=2&metadata->>a=eq.1",
    )
    .unwrap();
    let other = planned(
        "messages",
        "id=eq.2&body=like.y&limit=7&offset=9&metadata->>b=eq.2",
    )
    .unwrap();
    assert_eq!(one.sql, other.sql);
    assert_ne!(one.binds, other.binds);
    let list = |query| planned("messages", query).unwrap().sql;
    assert_eq!(list("id=in.(1)"), list("id=in.(1,2,3)"));
}

#[test]
fn a_page_is_never_longer_than_the_servers() {
    for (query, limit) in [
        ("", "1000"),
        ("limit=5", "5"),
        ("limit=99999999999", "1000"),
    ] {
        assert_eq!(planned("messages", query).unwrap().binds, [limit]);
    }
}

#[test]
fn a_relation_joins_on_every_column_of_its_key() {
    let one = rows("messages", "select=id,conversations(id)");
    assert!(one.contains("e1.j AS \"conversations\""), "{one}");
    assert!(
        one.contains(
            "LEFT JOIN LATERAL (SELECT (SELECT row_to_json(x.*) FROM (SELECT t1.\"id\" AS \"id\") AS x) AS j \
             FROM \"public\".\"conversations\" AS t1 WHERE t1.\"org_id\" = t0.\"org_id\" AND t1.\"id\" = t0.\"conversation_id\" AND (TRUE)) \
             AS \"e1\" ON TRUE"
        ),
        "{one}"
    );
    let many = rows(
        "conversations",
        "select=m:messages!inner(*)&m.order=created_at.desc&m.limit=3&m.body=eq.x",
    );
    assert!(
        many.contains("coalesce(e1.j, '[]'::json) AS \"m\""),
        "{many}"
    );
    assert!(
        many.contains(
            "JOIN LATERAL (SELECT json_agg(x.*) AS j FROM (SELECT t1.* FROM \"public\".\"messages\" AS t1 \
             WHERE t1.\"org_id\" = t0.\"org_id\" AND t1.\"conversation_id\" = t0.\"id\" AND ((t1.\"body\" = $1::text)) \
             ORDER BY t1.\"created_at\" DESC LIMIT $2::int8) AS x) AS \"e1\" ON e1.j IS NOT NULL"
        ),
        "{many}"
    );
    // A key that is unique gives an object from both ends.
    assert!(rows("messages", "select=outbox(message_id)").contains("e1.j AS \"outbox\""));
    let deep = rows("messages", "select=conversations(contacts(name))");
    assert!(deep.contains("t2.\"id\" = t1.\"contact_id\""), "{deep}");
}

#[test]
fn a_relation_can_be_spread_counted_asked_about_and_ordered_by() {
    let spread = rows("messages", "select=id,...conversations(contact_id,c:id)");
    assert!(
        spread.contains("e1.s0 AS \"contact_id\", e1.s1 AS \"c\""),
        "{spread}"
    );
    let counted = rows("conversations", "select=id,messages(count)");
    assert!(
        counted.contains("SELECT json_agg(x.*) AS j FROM (SELECT count(*) AS \"count\" FROM"),
        "{counted}"
    );
    assert!(!counted.contains("LIMIT $1::int8) AS x"), "{counted}");
    let without = rows("conversations", "select=id,messages()&messages=is.null");
    assert!(
        without.contains("WHERE (e1.j IS NULL)")
            && !without.contains("AS \"messages\" FROM \"public\".\"conv"),
        "{without}"
    );
    let ordered = rows(
        "messages",
        "select=id,conversations(id)&order=conversations(contact_id).desc,id",
    );
    assert!(
        ordered.contains("ORDER BY e1.o0 DESC, t0.\"id\""),
        "{ordered}"
    );
}

#[test]
fn a_total_counts_only_what_decides() {
    let query = Query::parse("select=*,messages(*),contacts!inner(*)&contacts.name=eq.x").unwrap();
    let plan = read(&schema(), "conversations", &query, &request("count=exact")).unwrap();
    let sql = plan.statement.unwrap().sql;
    let (_, count) = sql.split_once("(SELECT count(*) FROM ").unwrap();
    let (count, _) = count.split_once(" AS total").unwrap();
    assert!(
        count.contains("contacts") && !count.contains("messages"),
        "{count}"
    );
}

#[test]
fn lists_inside_each_other_are_few_or_short() {
    // A contact has conversations, these have messages, and those were seen by people.
    let mut schema = schema();
    schema
        .foreign_keys
        .push(key("seen", "profiles", "id", "messages", false));
    let of_contacts = |text: &str| {
        let query = Query::parse(text).unwrap();
        read(&schema, "contacts", &query, &request("")).map(drop)
    };
    assert!(of_contacts("select=conversations(messages(id))").is_ok());
    let three = "select=conversations(messages(profiles(id)))";
    assert_eq!(of_contacts(three).unwrap_err().code, "PGRST100");
    for limited in [
        format!("{three}&limit=1"),
        format!("{three}&conversations.messages.limit=1"),
        "select=conversations(messages(profiles(count)))".to_owned(),
    ] {
        assert!(of_contacts(&limited).is_ok(), "{limited}");
    }
}

#[test]
fn a_query_with_nul_is_refused() {
    for query in [
        "select=%22a%00b%22:id",
        "body=eq.%00",
        "b%00dy=eq.1",
        "columns=%00",
    ] {
        let error = planned("messages", query).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str()),
            (400, "PGRST100"),
            "{query}"
        );
    }
}

#[test]
fn a_table_of_the_servers_is_read_and_not_written() {
    let mut schema = schema();
    schema.relations.get_mut("messages").unwrap().read_only = true;
    let query = Query::parse("id=eq.1").unwrap();
    let body = Payload::parse(r#"{"body":"x"}"#).unwrap();
    let request = request("");
    assert!(read(&schema, "messages", &query, &request).is_ok());
    for planned in [
        insert(&schema, "messages", &query, &body, &request),
        update(&schema, "messages", &query, &body, &request),
        delete(&schema, "messages", &query, &request),
    ] {
        let error = planned.unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (403, "42501"));
    }
}

#[test]
fn what_the_schema_does_not_know_is_refused_in_postgrests_words() {
    let refused = |table: &str, query: &str| planned(table, query).unwrap_err();
    for (table, query, status, code) in [
        ("nothing", "", 404, "PGRST205"),
        ("messages", "nothing=eq.1", 400, "42703"),
        ("messages", "select=nothing", 400, "42703"),
        ("messages", "order=nothing", 400, "42703"),
        ("messages", "select=id::nothing", 400, "42704"),
        ("messages", "select=contacts(*)", 400, "PGRST200"),
        ("conversations", "select=profiles(*)", 300, "PGRST201"),
        ("conversations", "select=...messages(*)", 400, "PGRST119"),
        (
            "conversations",
            "select=messages(*)&messages=eq.1",
            400,
            "PGRST120",
        ),
        (
            "conversations",
            "select=messages(*)&order=messages(id)",
            400,
            "PGRST118",
        ),
        ("messages", "order=conversations(id)", 400, "PGRST108"),
        ("messages", "select=id,count()", 400, "PGRST123"),
    ] {
        let error = refused(table, query);
        assert_eq!(
            (error.status, error.code.as_str()),
            (status, code),
            "{table}?{query}"
        );
    }
    let hint = refused("message", "").hint.unwrap();
    assert!(hint.contains("public.messages"), "{hint}");
    let ambiguous = refused("conversations", "select=profiles(*)");
    assert_eq!(ambiguous.details.as_array().unwrap().len(), 2);
    for hint in ["closed", "closed_by"] {
        assert!(
            planned("conversations", &format!("select=profiles!{hint}(*)")).is_ok(),
            "{hint}"
        );
    }
    assert!(rows("conversations", "select=opened_by(*)").contains("t1.\"id\" = t0.\"opened_by\""));
}

fn inserted(query: &str, body: &str, prefer: &str) -> Result<Plan, RestError> {
    let (query, body) = (Query::parse(query)?, Payload::parse(body)?);
    insert(&schema(), "messages", &query, &body, &request(prefer))
}

fn sql(plan: Plan) -> String {
    plan.statement.unwrap().sql
}

#[test]
fn an_insert_takes_its_rows_from_one_bind() {
    let plan = inserted(
        "columns=%22body%22,%22id%22",
        r#"[{"id":"1"},{"body":"x"}]"#,
        "",
    )
    .unwrap();
    assert_eq!(plan.writes.as_deref(), Some("messages"));
    let text = sql(plan);
    assert!(
        text.starts_with(
            "WITH w AS (INSERT INTO \"public\".\"messages\" AS t0 (\"body\", \"id\") SELECT p.\"body\", p.\"id\" \
             FROM json_populate_recordset(NULL::\"public\".\"messages\", $1::json) AS p RETURNING 1 AS one)"
        ),
        "{text}"
    );
    let text = sql(inserted("", r#"{"body":"x","id":null}"#, "missing=default").unwrap());
    assert!(
        text.contains(
            "(SELECT r.\"body\", CASE WHEN d.v ? E'id' THEN r.\"id\" ELSE (wasel.uuid7())::uuid END AS \"id\" FROM"
        ) || text.contains(
            "CASE WHEN d.v ? E'id' THEN r.\"id\" ELSE (wasel.uuid7())::uuid END AS \"id\", r.\"body\" FROM"
        ),
        "{text}"
    );
    let text = sql(inserted(
        "select=id,conversations(id)",
        r#"{"body":"x"}"#,
        "return=representation",
    )
    .unwrap());
    assert!(
        text.contains("RETURNING t0.*)") && text.contains("FROM w AS t0 LEFT JOIN LATERAL"),
        "{text}"
    );
    assert!(sql(inserted("", "{}", "").unwrap()).contains("DEFAULT VALUES"));
    assert!(inserted("", "[]", "").unwrap().statement.is_none());
}

#[test]
fn an_upsert_goes_by_the_primary_key_or_the_one_named() {
    let merge = "resolution=merge-duplicates";
    let text = sql(inserted("", r#"{"id":"1","body":"x"}"#, merge).unwrap());
    assert!(
        text.contains("ON CONFLICT (\"org_id\", \"id\") DO UPDATE SET \"body\" = EXCLUDED.\"body\", \"id\" = EXCLUDED.\"id\""),
        "{text}"
    );
    assert!(text.contains("t0.xmax = 0"), "{text}");
    // Every key of ours has the tenant; nobody writes it.
    let text = sql(inserted(
        "on_conflict=id",
        r#"{"id":"1"}"#,
        "resolution=ignore-duplicates",
    )
    .unwrap());
    assert!(
        text.contains("ON CONFLICT (\"id\", \"org_id\") DO NOTHING"),
        "{text}"
    );
    let text = sql(inserted("on_conflict=body", r#"{"id":"1"}"#, merge).unwrap());
    assert!(text.contains("ON CONFLICT (\"body\")"), "{text}");
}

#[test]
fn a_body_is_refused_for_columns_that_are_not_there_and_rows_that_differ() {
    for (query, body, code) in [
        ("", r#"{"nothing":1}"#, "PGRST204"),
        ("columns=nothing", r#"{"body":1}"#, "PGRST204"),
        ("", r#"[{"body":1},{"id":1}]"#, "PGRST102"),
        ("on_conflict=nothing", r#"{"body":1}"#, "42703"),
    ] {
        let prefer = "resolution=merge-duplicates";
        assert_eq!(
            inserted(query, body, prefer).unwrap_err().code,
            code,
            "{query} {body}"
        );
    }
}

#[test]
fn a_change_of_every_row_is_refused() {
    let body = Payload::parse(r#"{"body":"x"}"#).unwrap();
    for query in ["", "select=id,conversations(id)&conversations.id=eq.1"] {
        let query = Query::parse(query).unwrap();
        let refused = update(&schema(), "messages", &query, &body, &request("")).unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.message.as_str()),
            ("21000", "UPDATE requires a WHERE clause")
        );
        let refused = delete(&schema(), "messages", &query, &request("")).unwrap_err();
        assert_eq!(refused.message, "DELETE requires a WHERE clause");
    }
    let query = Query::parse("id=eq.1").unwrap();
    let text = sql(update(&schema(), "messages", &query, &body, &request("")).unwrap());
    assert!(
        text.contains(
            "UPDATE \"public\".\"messages\" AS t0 SET \"body\" = b.\"body\" FROM (SELECT \"body\" FROM \
             json_populate_recordset(NULL::\"public\".\"messages\", $1::json)) AS b WHERE (t0.\"id\" = $2::uuid) RETURNING"
        ),
        "{text}"
    );
    let empty = Payload::parse("{}").unwrap();
    assert!(
        update(&schema(), "messages", &query, &empty, &request(""))
            .unwrap()
            .statement
            .is_none()
    );
}

#[test]
fn a_function_is_chosen_by_its_arguments() {
    let called = |name: &str, query: &str, body: Option<&str>| {
        let body = body.map(|body| Payload::arguments(body).unwrap());
        call(&schema(), name, query, body.as_ref(), &request(""))
    };
    let text = sql(called("add", "", Some(r#"{"a":1}"#)).unwrap());
    assert!(
        text.contains("json_to_record($1::json) AS a(\"a\" integer), LATERAL \"public\".\"add\"(\"a\" => a.\"a\") AS r(v)"),
        "{text}"
    );
    let plan = called("add", "a=1&b=2", None).unwrap();
    let statement = plan.statement.unwrap();
    assert!(statement.read_only);
    assert_eq!(statement.binds[0], r#"{"a":"1","b":"2"}"#);
    let text = sql(called("newest", "select=id&retry_count=gt.1&limit=2", None).unwrap());
    assert!(
        text.contains(
            "FROM \"public\".\"newest\"() AS t0 WHERE (t0.\"retry_count\" > $1::integer)"
        ),
        "{text}"
    );
    let counted = call(
        &schema(),
        "newest",
        "retry_count=gt.1",
        Some(&Payload::arguments("{}").unwrap()),
        &request("count=exact"),
    );
    let text = sql(counted.unwrap());
    assert_eq!(text.matches("\"newest\"()").count(), 1, "{text}");
    assert!(
        text.starts_with(
            "WITH called AS MATERIALIZED (SELECT t0.* FROM \"public\".\"newest\"() AS t0) "
        ) && text.contains("(SELECT count(*) FROM called AS t0 WHERE (t0.\"retry_count\" > "),
        "{text}"
    );
    for (name, body, status, code) in [
        ("nothing", "{}", 404, "PGRST202"),
        ("add", "{}", 404, "PGRST202"),
        ("add", r#"{"a":1,"c":1}"#, 404, "PGRST202"),
        ("two", r#"{"a":1}"#, 300, "PGRST203"),
    ] {
        let error = called(name, "", Some(body)).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str()),
            (status, code),
            "{name} {body}"
        );
    }
}

#[test]
fn the_answer_follows_from_what_came_back() {
    let outcome = |page: i64, total: Option<i64>| Outcome {
        page,
        total,
        inserted: None,
        size: 2,
        body: Some("[]".to_owned()),
    };
    let plan = |query: &str, prefer: &str| {
        read(
            &schema(),
            "messages",
            &Query::parse(query).unwrap(),
            &request(prefer),
        )
        .unwrap()
    };
    for (query, prefer, page, total, status, range) in [
        ("", "", 3, None, 200, "0-2/*"),
        ("", "", 0, None, 200, "*/*"),
        ("", "count=exact", 3, Some(3), 200, "0-2/3"),
        ("offset=2", "count=exact", 3, Some(57), 206, "2-4/57"),
        ("", "count=exact", 0, Some(0), 200, "*/0"),
    ] {
        let answer = plan(query, prefer)
            .judge(Some(outcome(page, total)))
            .unwrap();
        assert_eq!(
            (answer.status, answer.content_range.as_deref()),
            (status, Some(range)),
            "{query}"
        );
    }
    let refused = plan("offset=5", "count=exact")
        .judge(Some(outcome(0, Some(3))))
        .unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (416, "PGRST103"));

    let mut single = request("");
    single.media = MediaType::Single { strip_nulls: false };
    let plan = read(&schema(), "messages", &Query::default(), &single).unwrap();
    assert_eq!(plan.judge(Some(outcome(1, None))).unwrap().status, 200);
    for rows in [0, 2] {
        let refused = plan.judge(Some(outcome(rows, None))).unwrap_err();
        assert_eq!(
            (refused.status, refused.details),
            (406, Value::from(format!("The result contains {rows} rows")))
        );
    }
    let too_large = Outcome {
        body: None,
        size: 1 << 30,
        ..outcome(1, None)
    };
    assert_eq!(plan.judge(Some(too_large)).unwrap_err().status, 413);

    let written = |prefer| inserted("", r#"{"id":"1","body":"x"}"#, prefer).unwrap();
    let new = |inserted| {
        Some(Outcome {
            inserted,
            ..outcome(1, Some(1))
        })
    };
    assert_eq!(written("").judge(new(None)).unwrap().status, 201);
    let merge = "resolution=merge-duplicates,return=representation";
    assert_eq!(written(merge).judge(new(Some(1))).unwrap().status, 201);
    assert_eq!(written(merge).judge(new(Some(0))).unwrap().status, 200);
    let refused = written("handling=strict,max-affected=0")
        .judge(new(None))
        .unwrap_err();
    assert_eq!(refused.code, "PGRST124");
    assert_eq!(
        inserted("", "[]", "return=representation")
            .unwrap()
            .judge(None)
            .unwrap()
            .body,
        "[]"
    );
}

/// Text that no name of the schema and no SQL of ours contains.
const MARK: &str = "zqxj";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn reading_a_query_never_panics(text in ".{0,200}") {
        drop(Query::parse(&text));
    }

    #[test]
    fn planning_never_panics(
        select in "[a-z*,():!.>\\-\"]{0,40}",
        filter in "[a-z,().{}\"0-9]{0,40}",
    ) {
        let text: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("select", &select).append_pair("id", &filter).append_pair("or", &filter).finish();
        drop(planned("messages", &text));
    }

    #[test]
    fn no_value_ever_becomes_part_of_the_text(noise in "[^\n\x00]{0,30}", place in 0_usize..8) {
        let value = format!("{MARK}{noise}");
        let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        let (name, value) = [
            ("body", format!("eq.{value}")),
            ("body", format!("not.like.{value}")),
            ("body", format!("in.({quoted})")),
            ("tags", format!("cs.{{{value}}}")),
            ("or", format!("(body.eq.{quoted},id.is.null)")),
            ("metadata->>\"zqxj'\"", format!("eq.{value}")),
            ("body", format!("wfts({MARK}).{value}")),
            ("retry_count", format!("gt(any).{value}")),
        ][place].clone();
        let text: String = form_urlencoded::Serializer::new(String::new()).append_pair(name, &value).finish();
        let statement = planned("messages", &text).unwrap();
        prop_assert!(!statement.sql.contains(MARK), "{}", statement.sql);
        prop_assert!(statement.binds.iter().any(|bind| bind.contains(MARK)));
    }

    #[test]
    fn a_new_name_stays_inside_its_quotes(name in "[a-z\"';\\-\\\\ ]{1,20}") {
        let asked = format!("\"{}\":id", name.replace('\\', "\\\\").replace('"', "\\\""));
        let text: String = form_urlencoded::Serializer::new(String::new()).append_pair("select", &asked).finish();
        let statement = planned("messages", &text).unwrap();
        let quoted = format!(" AS \"{}\" FROM", name.replace('"', "\"\""));
        prop_assert!(statement.sql.contains(&quoted), "{}", statement.sql);
    }
}
