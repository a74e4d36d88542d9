use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalog::Column;

fn table() -> TableInfo {
    let columns = [
        ("id", "uuid"),
        ("n", "int4"),
        ("big", "int8"),
        ("price", "numeric"),
        ("ratio", "float8"),
        ("name", "text"),
        ("mail", "citext"),
        ("code", "bpchar"),
        ("open", "bool"),
        ("at", "timestamptz"),
        ("local", "timestamp"),
        ("day", "date"),
        ("clock", "time"),
        ("meta", "jsonb"),
        ("tags", "_text"),
        ("status", "message_status"),
    ];
    TableInfo {
        columns: columns
            .into_iter()
            .map(|(name, type_)| Column {
                name: name.to_owned(),
                type_: type_.to_owned(),
            })
            .collect(),
        ..TableInfo::default()
    }
}

fn matches(filter: &str, row: Value) -> bool {
    let filter = Filter::parse(filter, &table()).unwrap_or_else(|e| panic!("{filter}: {e}"));
    filter.matches(row.as_object().expect("rows are objects"))
}

#[test]
fn comparisons_follow_the_type_of_the_column() {
    let cases = [
        ("n=eq.10", json!({"n": 10}), true),
        ("n=gt.9", json!({"n": 10}), true),
        ("n=lt.9", json!({"n": 10}), false),
        ("name=lt.9", json!({"name": "10"}), true),
        ("n=neq.9", json!({"n": 10}), true),
        (
            "big=eq.9007199254740993",
            json!({"big": 9007199254740993_i64}),
            true,
        ),
        (
            "big=eq.9007199254740992",
            json!({"big": 9007199254740993_i64}),
            false,
        ),
        ("price=eq.1", json!({"price": 1.0}), true),
        ("price=gte.1.50", json!({"price": 1.5}), true),
        ("price=lt.2", json!({"price": 1.5}), true),
        ("price=gt.-2", json!({"price": -1.5}), true),
        ("ratio=eq.NaN", json!({"ratio": "NaN"}), true),
        ("ratio=gt.1e300", json!({"ratio": "Infinity"}), true),
        (
            "id=eq.0190A000-0000-7000-8000-00000000000A",
            json!({"id": "0190a000-0000-7000-8000-00000000000a"}),
            true,
        ),
        ("name=eq.Ali", json!({"name": "ali"}), false),
        ("mail=eq.A@B.c", json!({"mail": "a@b.C"}), true),
        ("code=eq.ab", json!({"code": "ab   "}), true),
        ("open=eq.t", json!({"open": true}), true),
        ("open=eq.off", json!({"open": true}), false),
        (
            "at=eq.2026-01-02T03:04:05Z",
            json!({"at": "2026-01-02T05:04:05+02:00"}),
            true,
        ),
        (
            "at=gt.2026-01-02 03:04:05+00",
            json!({"at": "2026-01-02T03:04:05.001+00:00"}),
            true,
        ),
        (
            "at=gte.2026-01-02",
            json!({"at": "2026-01-02T00:00:00+00:00"}),
            true,
        ),
        (
            "at=lt.infinity",
            json!({"at": "2026-01-02T00:00:00+00:00"}),
            true,
        ),
        (
            "local=eq.2026-01-02 03:04",
            json!({"local": "2026-01-02T03:04:00"}),
            true,
        ),
        ("day=lt.2026-02-01", json!({"day": "2026-01-31"}), true),
        ("clock=gt.09:30", json!({"clock": "10:00:00"}), true),
        (r#"meta=eq.{"a":1}"#, json!({"meta": {"a": 1.0}}), true),
        ("status=eq.read", json!({"status": "read"}), true),
        ("status=in.(sent,read)", json!({"status": "read"}), true),
    ];
    for (filter, row, expected) in cases {
        assert_eq!(matches(filter, row.clone()), expected, "{filter} on {row}");
    }
}

#[test]
fn null_meets_only_the_conditions_made_for_it() {
    for filter in [
        "n=eq.1",
        "n=neq.1",
        "n=not.eq.1",
        "n=in.(1,2)",
        "n=not.in.(1,2)",
        "n=lt.1",
    ] {
        assert!(!matches(filter, json!({"n": null})), "{filter}");
        assert!(!matches(filter, json!({})), "{filter} without the column");
    }
    assert!(!matches("name=like.%", json!({"name": null})));
    assert!(!matches("name=not.match.x", json!({"name": null})));
    assert!(matches("n=is.null", json!({"n": null})));
    assert!(!matches("n=is.null", json!({"n": 1})));
    assert!(!matches("n=is.null", json!({})));
    assert!(matches("n=not.is.null", json!({"n": 1})));
    assert!(matches("open=is.unknown", json!({"open": null})));
    assert!(matches("open=is.true", json!({"open": true})));
    assert!(!matches("open=is.false", json!({"open": null})));
    assert!(matches("open=not.is.true", json!({"open": null})));
    assert!(matches("n=isdistinct.1", json!({"n": null})));
    assert!(!matches("n=isdistinct.1", json!({"n": 1})));
    assert!(matches("n=not.isdistinct.null", json!({"n": null})));
}

#[test]
fn commas_mean_and_except_in_lists_and_quotes() {
    assert!(matches("n=gte.1,n=lt.3", json!({"n": 2})));
    assert!(!matches("n=gte.1,n=lt.3", json!({"n": 3})));
    assert!(matches(
        "n=in.(1,2),name=eq.a",
        json!({"n": 2, "name": "a"})
    ));
    assert!(matches(
        r#"name=eq."a,b=eq.c""#,
        json!({"name": "a,b=eq.c"})
    ));
    assert!(matches(r#"name=eq."a\"b\\c""#, json!({"name": r#"a"b\c"#})));
    assert!(matches(
        r#"name=in.("a,b","c)d",e)"#,
        json!({"name": "c)d"})
    ));
    assert!(matches(r#"name=eq.5" pipe"#, json!({"name": r#"5" pipe"#})));
    assert!(matches("name=eq.", json!({"name": ""})));
    assert!(matches("name=eq.a.b=c", json!({"name": "a.b=c"})));
    assert!(matches("  ", json!({})));
}

#[test]
fn patterns_work_as_in_sql() {
    let cases = [
        ("name=like.a%", "abc", true),
        ("name=like.a%", "Abc", false),
        ("name=ilike.a%", "Abc", true),
        ("name=like.%b_", "abc", true),
        ("name=like.%b_", "ab", false),
        ("name=like.%a%b%c", "xxaxxbxxbxc", true),
        (r"name=like.100\%", "100%", true),
        (r"name=like.100\%", "1000", false),
        ("name=ilike.مر%", "مرحبا", true),
        ("name=like._", "é", true),
        ("name=match.^a.c$", "abc", true),
        ("name=match.^A", "abc", false),
        ("name=imatch.^A", "abc", true),
        // A comma must be quoted, and a backslash in quotes doubled.
        (r#"name=match."^\\w+ \\d{3,}$""#, "غرفة 1234", true),
        (r"name=imatch.(room|غرفة)\s+[0-9]+\b", "the ROOM 7", true),
        ("name=not.like.a%", "b", true),
    ];
    for (filter, name, expected) in cases {
        assert_eq!(
            matches(filter, json!({"name": name})),
            expected,
            "{filter} on {name}"
        );
    }
}

#[test]
fn what_postgres_would_refuse_is_refused_at_subscription() {
    let too_many = format!("n=in.({})", vec!["1"; 101].join(","));
    let long_pattern = format!("name=like.{}", "a%".repeat(300));
    let long = format!("name=eq.{}", "x".repeat(20_000));
    for filter in [
        "n",
        "n=1",
        "n=eq",
        "missing=eq.1",
        "n=eq.x",
        "n=eq.3000000000",
        "n=near.1",
        "n=like.1%",
        "n=is.true",
        "n=is.maybe",
        "id=eq.not-a-uuid",
        "at=gt.yesterdayish",
        "n=in.1,2",
        "n=in.(1,x)",
        r#"name=eq."open"#,
        "name=match.(",
        "name=match.(a{1000}){1000}",
        r"name=like.a\",
        "tags=eq.{a}",
        "status=gt.sent",
        "n=eq.1,",
        &too_many,
        &long,
        &long_pattern,
    ] {
        assert!(Filter::parse(filter, &table()).is_err(), "{filter}");
    }
}

proptest! {
    #[test]
    fn no_filter_makes_the_parser_panic(text in ".{0,200}") {
        let _ = Filter::parse(&text, &table());
    }

    #[test]
    fn no_value_makes_a_cast_or_a_match_panic(
        column in 0usize..16,
        not: bool,
        operator in "(eq|neq|lt|lte|gt|gte|in|is|like|ilike|match|imatch|isdistinct)",
        value in "[-+0-9T:Z. \"\\\\(){},a-f%_]{0,30}",
        text in ".{0,30}",
    ) {
        let table = table();
        let name = &table.columns[column].name;
        let not = if not { "not." } else { "" };
        if let Ok(filter) = Filter::parse(&format!("{name}={not}{operator}.{value}"), &table) {
            for row in [json!({name: text}), json!({name: value}), json!({name: 1.5}), json!({name: null})] {
                filter.matches(row.as_object().expect("object"));
            }
        }
    }

    #[test]
    fn quoting_hides_every_character(text in "[^\u{0}]{0,40}") {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let one = format!("name=eq.\"{quoted}\"");
        let listed = format!("name=in.(\"x y\",\"{quoted}\")");
        for filter in [one, listed] {
            let met = matches(&filter, json!({"name": text.clone()}));
            prop_assert!(met, "{}", filter);
        }
    }

    #[test]
    fn integers_and_floats_order_as_their_values(a: i32, b: i32) {
        let row = json!({"ratio": f64::from(a)});
        prop_assert_eq!(matches(&format!("ratio=lt.{b}"), row.clone()), a < b);
        prop_assert_eq!(matches(&format!("ratio=eq.{b}"), row.clone()), a == b);
        prop_assert_eq!(matches(&format!("ratio=gt.{b}"), row), a > b);
    }
}
