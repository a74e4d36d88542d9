//! Meta's templates: made of ours, listed, filled in, checked.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wasel_domain::content::OutboundTemplate;
use wasel_domain::provider_template::{ParameterFormat, ProviderTemplate, VariableMap};
use wasel_providers::conformance::Answer;
use wasel_providers::templates::{DraftButton, DraftHeader, TemplateDraft};
use wasel_providers::{ContentError, ErrorClass};

use super::open;
use crate::stand_in::{StandIn, client};

const NOWHERE: &str = "http://127.0.0.1:9";

fn a_draft() -> TemplateDraft {
    let example = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    TemplateDraft {
        name: "order_ready".to_owned(),
        language: "ar".to_owned(),
        category: "UTILITY".to_owned(),
        format: ParameterFormat::Positional,
        text: "مرحباً {{customer_name}}، طلبك {{number}} جاهز.".to_owned(),
        variables: vec!["customer_name".to_owned(), "number".to_owned()],
        header: None,
        footer: None,
        buttons: Vec::new(),
        examples: BTreeMap::from([example("customer_name", "منى"), example("number", "17")]),
    }
}

fn draft(
    change: impl FnOnce(&mut TemplateDraft),
) -> Result<(ProviderTemplate, VariableMap), ContentError> {
    let mut wanted = a_draft();
    change(&mut wanted);
    let channel = open(NOWHERE);
    channel.templates().unwrap().draft(&wanted)
}

fn map(value: Value) -> VariableMap {
    serde_json::from_value(value).unwrap()
}

fn values(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn theirs(format: ParameterFormat, components: Value) -> ProviderTemplate {
    ProviderTemplate {
        provider_id: Some("1".to_owned()),
        name: "order_ready".to_owned(),
        language: "ar".to_owned(),
        category: Some("UTILITY".to_owned()),
        status: "APPROVED".to_owned(),
        parameter_format: format,
        components: Some(components.as_array().unwrap().clone()),
        quality: None,
        rejected_reason: None,
    }
}

#[test]
fn ours_becomes_metas_with_numbers_and_examples_and_says_what_fills_them() {
    let (template, variables) = draft(|wanted| {
        wanted.text = "مرحباً {{customer_name}}، طلبك {{number}} يا {{customer_name}}.".to_owned();
        wanted.header = Some(DraftHeader::Text("طلب {{number}}".to_owned()));
        wanted.footer = Some("المتجر".to_owned());
        wanted.buttons = vec![
            DraftButton::QuickReply {
                text: "شكراً".to_owned(),
            },
            DraftButton::Url {
                text: "تتبع".to_owned(),
                url: "https://x.test/o/{{number}}".to_owned(),
            },
            DraftButton::Phone {
                text: "اتصل".to_owned(),
                phone_number: "+201000000000".to_owned(),
            },
        ];
    })
    .unwrap();
    assert_eq!(
        json!(template.components),
        json!([
            {"type": "HEADER", "format": "TEXT", "text": "طلب {{1}}", "example": {"header_text": ["17"]}},
            // A variable that occurs twice has two numbers.
            {"type": "BODY", "text": "مرحباً {{1}}، طلبك {{2}} يا {{3}}.", "example": {"body_text": [["منى", "17", "منى"]]}},
            {"type": "FOOTER", "text": "المتجر"},
            {"type": "BUTTONS", "buttons": [
                {"type": "QUICK_REPLY", "text": "شكراً"},
                {"type": "URL", "text": "تتبع", "url": "https://x.test/o/{{1}}", "example": ["17"]},
                {"type": "PHONE_NUMBER", "text": "اتصل", "phone_number": "+201000000000"},
            ]},
        ])
    );
    let expected = json!({"header": {"1": "number"}, "buttons": {"1": "number"},
        "body": {"1": "customer_name", "2": "number", "3": "customer_name"}});
    assert_eq!(variables, map(expected));

    let (template, variables) = draft(|wanted| wanted.format = ParameterFormat::Named).unwrap();
    assert_eq!(
        json!(template.components),
        json!([{"type": "BODY", "text": "مرحباً {{customer_name}}، طلبك {{number}} جاهز.",
            "example": {"body_text_named_params": [
                {"param_name": "customer_name", "example": "منى"}, {"param_name": "number", "example": "17"}]}}])
    );
    assert_eq!(variables.body["number"], "number");

    let (template, _) = draft(|wanted| {
        wanted.header = Some(DraftHeader::Media {
            kind: "document",
            example_handle: "4::aW".to_owned(),
        });
    })
    .unwrap();
    assert_eq!(
        template.components.unwrap()[0],
        json!({"type": "HEADER", "format": "DOCUMENT", "example": {"header_handle": ["4::aW"]}})
    );

    let (template, variables) = draft(|wanted| {
        wanted.category = "AUTHENTICATION".to_owned();
        wanted.text = "رمزك {{number}}".to_owned();
    })
    .unwrap();
    let components = template.components.unwrap();
    assert_eq!(components[1]["buttons"][0]["type"], "OTP");
    assert_eq!(
        variables,
        map(json!({"body": {"1": "number"}, "buttons": {"0": "number"}}))
    );
}

#[test]
fn each_rule_of_metas_is_refused_with_the_field_named() {
    type Change = fn(&mut TemplateDraft);
    let quick = |text: &str| DraftButton::QuickReply {
        text: text.to_owned(),
    };
    fn url(url: &str) -> Vec<DraftButton> {
        vec![DraftButton::Url {
            text: "x".to_owned(),
            url: url.to_owned(),
        }]
    }
    let cases: [(&str, Change); 28] = [
        ("name", |d| d.name = "Order".to_owned()),
        ("name", |d| d.name = String::new()),
        ("name", |d| d.name = "x".repeat(513)),
        ("language", |d| d.language = "en-US".to_owned()),
        ("language", |d| d.language = "arabic".to_owned()),
        ("category", |d| d.category = "SERVICE".to_owned()),
        ("message_template", |d| {
            d.text = "{{number}} is ready".to_owned()
        }),
        ("message_template", |d| {
            d.text = "Ready: {{number}} ".to_owned()
        }),
        ("message_template", |d| {
            d.text = "a {{number}} {{customer_name}} b".to_owned()
        }),
        ("message_template", |d| d.text = "م".repeat(1025)),
        ("message_template", |d| {
            d.text = "a {{stranger}} b".to_owned()
        }),
        ("examples.number", |d| drop(d.examples.remove("number"))),
        ("examples.number", |d| {
            drop(d.examples.insert("number".to_owned(), " ".to_owned()))
        }),
        ("parameter_format", |d| {
            d.format = ParameterFormat::Named;
            d.variables.push("اسم".to_owned());
            d.text = "يا {{اسم}} أهلاً".to_owned();
        }),
        ("parameter_format", |d| {
            d.format = ParameterFormat::Named;
            d.text = "a {{number}} b {{number}} c".to_owned();
        }),
        ("header.text", |d| {
            d.header = Some(DraftHeader::Text("x".repeat(61)))
        }),
        ("header.text", |d| {
            d.header = Some(DraftHeader::Text("a\nb".to_owned()))
        }),
        ("header.text", |d| {
            d.header = Some(DraftHeader::Text("{{number}} {{customer_name}}".to_owned()))
        }),
        ("header.example_handle", |d| {
            d.header = Some(DraftHeader::Media {
                kind: "image",
                example_handle: String::new(),
            });
        }),
        ("footer", |d| d.footer = Some("x".repeat(61))),
        ("footer", |d| d.footer = Some("{{number}}".to_owned())),
        ("buttons[0].url", |d| d.buttons = url("ftp://x.test")),
        ("buttons[0].url", |d| {
            d.buttons = url("https://x.test/{{number}}/more")
        }),
        ("buttons[0].url", |d| {
            d.buttons = url("https://x.test/{{stranger}}")
        }),
        ("buttons[0].url", |d| d.buttons = url("{{number}}")),
        ("buttons", |d| {
            d.buttons = [
                url("https://x.test"),
                url("https://x.test"),
                url("https://x.test"),
            ]
            .concat();
        }),
        ("buttons[0].phone_number", |d| {
            d.buttons = vec![DraftButton::Phone {
                text: "x".to_owned(),
                phone_number: "call me".to_owned(),
            }];
        }),
        ("message_template", |d| {
            d.category = "AUTHENTICATION".to_owned()
        }),
    ];
    for (field, change) in cases {
        let error = draft(change).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
    let error = draft(|d| d.buttons = vec![quick(&"x".repeat(26))]).unwrap_err();
    assert_eq!(error.field, "buttons[0].text");
    let error =
        draft(|d| d.buttons = [vec![quick("a")], url("https://x.test"), vec![quick("b")]].concat());
    assert_eq!(error.unwrap_err().field, "buttons");
    let error = draft(|d| d.buttons = (0..11).map(|_| quick("a")).collect());
    assert_eq!(error.unwrap_err().field, "buttons");
}

#[test]
fn a_template_is_filled_in_with_what_the_customer_will_read() {
    let template = theirs(
        ParameterFormat::Positional,
        json!([
            {"type": "HEADER", "format": "DOCUMENT"},
            {"type": "BODY", "text": "{{2}} يا {{1}}، وصل {{2}}."},
            {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "x"},
                {"type": "URL", "text": "x", "url": "https://x.test/{{1}}"}, {"type": "COPY_CODE", "text": "x"}]},
        ]),
    );
    let channel = open(NOWHERE);
    let desk = channel.templates().unwrap();
    let needed = desk.parameters(&template).unwrap();
    assert_eq!(
        (needed.body, needed.buttons),
        (vec!["1".to_owned(), "2".to_owned()], vec![1, 2])
    );
    let variables =
        map(json!({"body": {"1": "name", "2": "number"}, "buttons": {"1": "number", "2": "code"}}));
    let given = values(json!({"name": "منى", "number": 17, "code": "ABC"}));
    let file = "https://x.test/a/%D9%81%D8%A7%D8%AA%D9%88%D8%B1%D8%A9.pdf?v=1";
    let filled = desk
        .fill(&template, &variables, &given, Some(file))
        .unwrap();
    assert_eq!(filled.text.as_deref(), Some("17 يا منى، وصل 17."));
    assert_eq!(
        json!(filled.components),
        json!([
            {"type": "header", "parameters": [{"type": "document", "document": {"link": file, "filename": "فاتورة.pdf"}}]},
            {"type": "body", "parameters": [{"type": "text", "text": "منى"}, {"type": "text", "text": "17"}]},
            {"type": "button", "sub_type": "url", "index": "1", "parameters": [{"type": "text", "text": "17"}]},
            {"type": "button", "sub_type": "copy_code", "index": "2", "parameters": [{"type": "coupon_code", "coupon_code": "ABC"}]},
        ])
    );
    desk.check(&template, &filled).unwrap();

    let refused = |change: &[(&str, Value)], media: Option<&str>| {
        let mut given = given.clone();
        given.extend(
            change
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        desk.fill(&template, &variables, &given, media)
            .unwrap_err()
            .field
    };
    assert_eq!(refused(&[], None), "media_url");
    assert_eq!(
        refused(&[("name", json!("a\nb"))], Some(file)),
        "variables.name"
    );
    assert_eq!(
        refused(&[("name", json!("a     b"))], Some(file)),
        "variables.name"
    );
    assert_eq!(
        refused(&[("code", json!(" "))], Some(file)),
        "variables.code"
    );
    assert_eq!(
        refused(&[("name", json!("x".repeat(1024)))], Some(file)),
        "variables"
    );
    let unmapped = desk.fill(
        &template,
        &map(json!({"body": {"1": "name"}})),
        &given,
        Some(file),
    );
    assert_eq!(unmapped.unwrap_err().field, "variable_map.body.2");

    let named = theirs(
        ParameterFormat::Named,
        json!([{"type": "BODY", "text": "Hi {{first_name}}!"}]),
    );
    let filled = desk
        .fill(
            &named,
            &map(json!({"body": {"first_name": "name"}})),
            &given,
            None,
        )
        .unwrap();
    assert_eq!(
        json!(filled.components),
        json!([{"type": "body", "parameters": [{"type": "text", "text": "منى", "parameter_name": "first_name"}]}])
    );
}

#[test]
fn a_wrong_number_or_kind_of_parameters_is_found_before_meta_finds_it() {
    let template = theirs(
        ParameterFormat::Positional,
        json!([
            {"type": "HEADER", "format": "IMAGE"},
            {"type": "BODY", "text": "{{1}} and {{2}}"},
            {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "x", "url": "https://x.test/{{1}}"},
                {"type": "URL", "text": "x", "url": "https://x.test"}, {"type": "QUICK_REPLY", "text": "x"}]},
        ]),
    );
    let channel = open(NOWHERE);
    let desk = channel.templates().unwrap();
    let check = |template: &ProviderTemplate, components: Value| {
        let sent = OutboundTemplate {
            components: components.as_array().unwrap().clone(),
            ..OutboundTemplate::default()
        };
        desk.check(template, &sent).map_err(|error| error.field)
    };
    let header = json!({"type": "header", "parameters": [{"type": "image", "image": {"link": "https://x.test/a"}}]});
    let body = json!({"type": "BODY", "parameters": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
    let button = json!({"type": "button", "sub_type": "URL", "index": 0, "parameters": [{"type": "text", "text": "a"}]});
    assert_eq!(check(&template, json!([header, body, button])), Ok(()));
    let payload = json!({"type": "button", "sub_type": "quick_reply", "index": "2", "parameters": [{"type": "payload", "payload": "a"}]});
    assert_eq!(
        check(&template, json!([header, body, button, payload])),
        Ok(())
    );
    let with = |path: &str, value: Value, part: &Value| {
        let mut part = part.clone();
        *part.pointer_mut(path).unwrap() = value;
        part
    };
    for (field, components) in [
        ("content.components", json!([body, button])),
        ("content.components", json!([header, button])),
        ("content.components", json!([header, body])),
        (
            "content.components[1]",
            json!([header, header, body, button]),
        ),
        (
            "content.components[0].parameters",
            json!([with("/parameters", json!([]), &header), body, button]),
        ),
        (
            "content.components[0].parameters[0].type",
            json!([
                with("/parameters/0/type", json!("document"), &header),
                body,
                button
            ]),
        ),
        (
            "content.components[0].parameters[0].image",
            json!([
                with("/parameters/0/image", json!({}), &header),
                body,
                button
            ]),
        ),
        (
            "content.components[1].parameters",
            json!([
                header,
                with("/parameters", json!([{"type": "text", "text": "a"}]), &body),
                button
            ]),
        ),
        (
            "content.components[1].parameters[1].text",
            json!([header, with("/parameters/1/text", json!(""), &body), button]),
        ),
        (
            "content.components[1].parameters[0].text",
            json!([
                header,
                with("/parameters/0/text", json!("a\tb"), &body),
                button
            ]),
        ),
        (
            "content.components[1].parameters[0].type",
            json!([
                header,
                with("/parameters/0/type", json!("image"), &body),
                button
            ]),
        ),
        (
            "content.components[2].index",
            json!([header, body, with("/index", json!("7"), &button)]),
        ),
        (
            "content.components[2].sub_type",
            json!([
                header,
                body,
                with("/sub_type", json!("quick_reply"), &button)
            ]),
        ),
        (
            "content.components[2].parameters",
            json!([header, body, with("/parameters", json!([]), &button)]),
        ),
        (
            "content.components[3].parameters",
            json!([header, body, button, with("/index", json!(1), &button)]),
        ),
        (
            "content.components[3].type",
            json!([header, body, button, {"type": "footer"}]),
        ),
    ] {
        assert_eq!(
            check(&template, components.clone()),
            Err(field.to_owned()),
            "{components}"
        );
    }
    let plain = theirs(
        ParameterFormat::Positional,
        json!([{"type": "BODY", "text": "Hello"}]),
    );
    assert_eq!(check(&plain, json!([])), Ok(()));
    assert_eq!(
        check(&plain, json!([body])),
        Err("content.components[0].parameters".to_owned())
    );

    let named = theirs(
        ParameterFormat::Named,
        json!([{"type": "BODY", "text": "{{a}} {{b}}"}]),
    );
    let parameter = |name: &str| json!({"type": "text", "text": "x", "parameter_name": name});
    let sent = |names: [&str; 2]| json!([{"type": "body", "parameters": names.map(parameter)}]);
    assert_eq!(check(&named, sent(["b", "a"])), Ok(()));
    let field = Err("content.components[0].parameters[1].parameter_name".to_owned());
    assert_eq!(check(&named, sent(["a", "c"])), field);
    assert_eq!(check(&named, sent(["a", "a"])), field);
}

#[tokio::test]
async fn the_list_is_followed_by_its_cursor_and_never_to_another_host() {
    let one = json!({"id": "17", "name": "a", "language": "ar", "status": "APPROVED", "category": "UTILITY",
        "components": [{"type": "BODY", "text": "Hi {{name}}"}], "quality_score": {"score": "GREEN"}, "rejected_reason": "NONE"});
    let next = "https://elsewhere.example/v26.0/1/message_templates?limit=1&after=c%2F1%3D";
    let provider = StandIn::start([
        Answer::json(
            200,
            &json!({"data": [one], "paging": {"cursors": {"after": "x"}, "next": next}}),
        ),
        Answer::json(
            200,
            &json!({"data": [], "paging": {"cursors": {"after": "x"}}}),
        ),
    ])
    .await;
    let channel = open(&provider.base);
    let desk = channel.templates().unwrap();
    let page = desk.list(&client(), None).await.unwrap();
    assert_eq!(page.next.as_deref(), Some("c/1="));
    let template = &page.templates[0];
    assert_eq!(template.parameter_format, ParameterFormat::Named);
    assert_eq!(template.quality.as_deref(), Some("GREEN"));
    assert_eq!(template.rejected_reason, None);
    let page = desk.list(&client(), page.next.as_deref()).await.unwrap();
    assert_eq!((page.templates.len(), page.next), (0, None));
    let seen = provider.seen();
    assert!(
        seen[1]
            .path
            .starts_with("/v26.0/102290129340398/message_templates?")
    );
    assert!(
        seen[1].path.ends_with("&after=c%2F1%3D"),
        "{}",
        seen[1].path
    );
}

#[tokio::test]
async fn a_template_is_handed_in_and_removed_by_its_id() {
    let (template, _) = draft(|_| {}).unwrap();
    let not_found = json!({"error": {"code": 100, "error_subcode": 2593002, "message": "Invalid parameter",
        "error_user_title": "Message Template Not Found", "error_user_msg": "Look again."}});
    let provider = StandIn::start([
        Answer::json(
            200,
            &json!({"id": 17, "status": "PENDING", "category": "MARKETING"}),
        ),
        Answer::json(200, &json!({"success": true})),
        Answer::json(400, &not_found),
        Answer::json(
            400,
            &json!({"error": {"code": 100, "message": "Invalid parameter"}}),
        ),
    ])
    .await;
    let channel = open(&provider.base);
    let desk = channel.templates().unwrap();
    let created = desk.create(&client(), &template).await.unwrap();
    assert_eq!(
        (created.provider_id.as_str(), created.category.as_deref()),
        ("17", Some("MARKETING"))
    );
    let body = provider.seen()[0].json();
    assert_eq!(body["name"], "order_ready");
    assert_eq!(body["parameter_format"], "positional");
    assert_eq!(body["components"], json!(template.components));

    let kept = ProviderTemplate {
        provider_id: Some("17".to_owned()),
        ..template
    };
    desk.delete(&client(), &kept).await.unwrap();
    assert!(
        provider.seen()[1]
            .path
            .ends_with("?name=order_ready&hsm_id=17")
    );
    // Gone already.
    desk.delete(&client(), &kept).await.unwrap();
    let refused = desk.delete(&client(), &kept).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Content);
}
