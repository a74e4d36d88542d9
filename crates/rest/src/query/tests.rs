use super::*;

fn read(text: &str) -> Query {
    Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn fields(query: &Query) -> Vec<String> {
    query.root.items.iter().map(show).collect()
}

/// An item in other words than it was written in.
fn show(item: &Item) -> String {
    match item {
        Item::All => "all".to_owned(),
        Item::Count { alias } => format!("count as {alias:?}"),
        Item::Field { alias, field, cast } => {
            let path: Vec<_> = field
                .path
                .iter()
                .map(|step| match (step.is_index, step.as_text) {
                    (false, false) => format!("/{}", step.key),
                    (true, false) => format!("#{}", step.key),
                    (false, true) => format!("/{}!", step.key),
                    (true, true) => format!("#{}!", step.key),
                })
                .collect();
            format!(
                "{}{}{}{}",
                field.column,
                path.concat(),
                cast.as_ref()
                    .map(|c| format!(" to {c}"))
                    .unwrap_or_default(),
                alias
                    .as_ref()
                    .map(|a| format!(" as {a}"))
                    .unwrap_or_default()
            )
        }
        Item::Embed(embed) => {
            let inside: Vec<_> = embed.level.items.iter().map(show).collect();
            format!(
                "{}{}{}[{}]{}{}",
                if embed.spread { "..." } else { "" },
                embed.relation,
                embed
                    .hint
                    .as_ref()
                    .map(|h| format!("!{h}"))
                    .unwrap_or_default(),
                inside.join(" "),
                if embed.inner { " inner" } else { "" },
                embed
                    .alias
                    .as_ref()
                    .map(|a| format!(" as {a}"))
                    .unwrap_or_default()
            )
        }
    }
}

#[test]
fn select_reads_columns_names_casts_paths_and_relations() {
    for (select, expected) in [
        ("*", "all"),
        ("id,body", "id|body"),
        ("id, body", "id|body"),
        ("text:body", "body as text"),
        (
            "id::text,n:retry_count::int8",
            "id to text|retry_count to int8 as n",
        ),
        (
            "metadata->a->>b,x:metadata->0->>1,metadata->\"a b\"",
            "metadata/a/b!|metadata#0#1! as x|metadata/a b",
        ),
        ("\"a,b\"", "a,b"),
        ("*,messages(*)", "all|messages[all]"),
        (
            "c:conversations!inner(id,contacts!contact_id(name))",
            "conversations[id contacts!contact_id[name]] inner as c",
        ),
        ("...contacts!fk!inner(name)", "...contacts!fk[name] inner"),
        ("messages()", "messages[]"),
        ("count()", "count as None"),
        ("n:count()", "count as Some(\"n\")"),
        ("", ""),
    ] {
        let text: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("select", select)
            .finish();
        assert_eq!(fields(&read(&text)).join("|"), expected, "{select}");
    }
    assert_eq!(fields(&read("")), ["all"]);
}

#[test]
fn what_is_no_select_is_refused_with_its_place() {
    for select in [
        "a,", ",a", "a(", "a(b", "a)", "a!", "a->", "a::", "(a)", "a.b", "a..b()", "\"a",
    ] {
        let error = Query::parse(&format!("select={select}")).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str()),
            (400, "PGRST100"),
            "{select}"
        );
    }
    let error = Query::parse("select=a,,b").unwrap_err();
    assert!(error.message.contains("column 3"), "{}", error.message);
    assert_eq!(
        Query::parse("select=retry_count.sum()").unwrap_err().code,
        "PGRST123"
    );
}

fn only(text: &str) -> Condition {
    let mut query = read(text);
    assert_eq!(query.root.conditions.len(), 1, "{text}");
    query.root.conditions.remove(0)
}

fn tested(text: &str) -> (bool, Test) {
    match only(text) {
        Condition::Test { negated, test, .. } => (negated, test),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_filter_is_an_operator_and_the_rest_verbatim() {
    let compare = |by, value: &str| Test::Compare {
        by,
        quantifier: None,
        value: value.to_owned(),
    };
    for (filter, expected) in [
        ("a=eq.x", (false, compare(Comparison::Equal, "x"))),
        ("a=eq.", (false, compare(Comparison::Equal, ""))),
        ("a=not.eq.x", (true, compare(Comparison::Equal, "x"))),
        (
            "a=eq.a.b,c)(%22",
            (false, compare(Comparison::Equal, "a.b,c)(\"")),
        ),
        ("a=like.*x*", (false, compare(Comparison::Like, "*x*"))),
        (
            "a=cs.{a,b}",
            (false, compare(Comparison::Contains, "{a,b}")),
        ),
        (
            "a=sl.[1,2)",
            (false, compare(Comparison::StrictlyLeft, "[1,2)")),
        ),
        ("a=is.null", (false, Test::Is(Is::Null))),
        ("a=not.is.NULL", (true, Test::Is(Is::Null))),
        ("a=is.not_null", (false, Test::Is(Is::NotNull))),
        (
            "a=isdistinct.5",
            (false, compare(Comparison::Distinct, "5")),
        ),
        (
            "a=like(any).{x*,y}",
            (
                false,
                Test::Compare {
                    by: Comparison::Like,
                    quantifier: Some(Quantifier::Any),
                    value: "{x*,y}".to_owned(),
                },
            ),
        ),
        (
            "a=wfts(english).fat+cat",
            (
                false,
                Test::Search {
                    kind: SearchKind::Web,
                    config: Some("english".to_owned()),
                    words: "fat cat".to_owned(),
                },
            ),
        ),
    ] {
        assert_eq!(tested(filter), expected, "{filter}");
    }
}

#[test]
fn a_list_takes_quotes_as_the_client_writes_them() {
    for (filter, expected) in [
        ("a=in.(x,y)", vec!["x", "y"]),
        ("a=in.()", vec![]),
        ("a=in.(\"x,y\",z)", vec!["x,y", "z"]),
        // The client does not escape a quote inside.
        ("a=in.(\"x,\"y\",z)", vec!["x,\"y", "z"]),
        ("a=in.(\"x\\\"y\")", vec!["x\"y"]),
        ("a=in.(,)", vec!["", ""]),
        ("a=not.in.(1)", vec!["1"]),
    ] {
        let Test::In(values) = tested(filter).1 else {
            panic!("{filter}");
        };
        assert_eq!(values, expected, "{filter}");
    }
}

#[test]
fn a_tree_of_and_and_or_keeps_its_shape() {
    let Condition::Group {
        any,
        negated,
        members,
    } = only("or=(a.eq.1,not.and(b.not.in.(1,2),c->>d.like.\"x,y\"),order.cs.{1,2})")
    else {
        panic!("no group");
    };
    assert!(any && !negated);
    assert_eq!(members.len(), 3);
    let Condition::Group {
        any: false,
        negated: true,
        members: inner,
    } = &members[1]
    else {
        panic!("{:?}", members[1]);
    };
    assert!(
        matches!(&inner[0], Condition::Test { negated: true, test: Test::In(values), .. } if values.len() == 2)
    );
    assert!(
        matches!(&inner[1], Condition::Test { field, test: Test::Compare { value, .. }, .. }
            if value == "x,y" && field.path[0].key == "d")
    );
    assert!(
        matches!(&members[2], Condition::Test { field, test: Test::Compare { value, .. }, .. }
            if value == "{1,2}" && field.column == "order")
    );
    assert!(matches!(
        only("not.or=(a.eq.1)"),
        Condition::Group {
            negated: true,
            any: true,
            ..
        }
    ));
}

#[test]
fn what_is_no_filter_is_refused() {
    for filter in [
        "a=x",
        "a=",
        "a=eq",
        "a=eqq.x",
        "a=is.maybe",
        "a=in.x",
        "a=in.(x",
        "a=in.(x)y",
        "or=a.eq.1",
        "or=(a.eq.1",
        "or=()",
        "or=(a)",
        "or=(a.b.eq.1)",
        "limit=x",
        "limit=-1",
        "offset=1.5",
        "order=",
        "order=a.up",
        "order=a,",
        "a->=eq.1",
        "=eq.1",
        "a=cs(any).{1}",
    ] {
        let error = Query::parse(filter).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str()),
            (400, "PGRST100"),
            "{filter}"
        );
    }
}

#[test]
fn parameters_reach_the_relation_they_name() {
    let query = read(
        "select=*,m:messages(*,contacts(*))&m.order=created_at.desc.nullslast&m.limit=5&m.offset=2\
         &m.contacts.name=eq.x&m.or=(a.eq.1,b.eq.2)&order=contacts(name).desc,id&limit=3",
    );
    let Item::Embed(messages) = &query.root.items[1] else {
        panic!("no relation");
    };
    assert_eq!((messages.level.limit, messages.level.offset), (Some(5), 2));
    assert_eq!(messages.level.order[0].nulls_first, Some(false));
    assert_eq!(messages.level.conditions.len(), 1);
    let Item::Embed(contacts) = &messages.level.items[1] else {
        panic!("no relation");
    };
    assert_eq!(contacts.level.conditions.len(), 1);
    assert_eq!(query.root.order[0].relation.as_deref(), Some("contacts"));
    assert_eq!(query.root.limit, Some(3));
    assert_eq!(
        Query::parse("select=*&messages.order=id").unwrap_err().code,
        "PGRST108"
    );
}

#[test]
fn names_in_columns_may_be_quoted() {
    let query = read("columns=%22a%22,%22b,c%22&on_conflict=org_id,id");
    assert_eq!(query.columns.unwrap(), ["a", "b,c"]);
    assert_eq!(query.on_conflict.unwrap(), ["org_id", "id"]);
}

#[test]
fn what_is_too_much_is_refused() {
    let nested = |depth| format!("select={}*{}", "a(".repeat(depth), ")".repeat(depth));
    assert!(Query::parse(&nested(limits::EMBED_DEPTH)).is_ok());
    let list = |count| format!("a=in.({})", vec!["1"; count].join(","));
    assert!(Query::parse(&list(limits::LIST)).is_ok());
    for text in [
        nested(limits::EMBED_DEPTH + 1),
        nested(10_000),
        list(limits::LIST + 1),
        vec!["a=eq.1"; limits::CONDITIONS + 1].join("&"),
        format!("or={}a.eq.1{}", "(or".repeat(50), ")".repeat(50)),
        format!("or={}(a.eq.1){}", "(or".repeat(50), ")".repeat(50)),
        format!("select={}", vec!["a"; limits::ITEMS + 1].join(",")),
        format!("select={}", vec!["a(*)"; limits::EMBEDS + 1].join(",")),
        format!("select=a{}", "->b".repeat(limits::PATH + 1)),
        format!("order={}", vec!["a"; limits::ORDER + 1].join(",")),
        "x".repeat(limits::QUERY + 1),
    ] {
        assert_eq!(Query::parse(&text).unwrap_err().code, "PGRST100");
    }
}
