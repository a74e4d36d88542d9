//! Content that is refused before it is queued.

use serde_json::{Value, json};
use wasel_domain::OutboundContent;

use super::open;

/// The field the content is refused for; `""` where it is taken.
fn refused_field(content: &Value) -> String {
    let content: OutboundContent = serde_json::from_value(content.clone()).unwrap();
    match open("http://127.0.0.1:9").check(&content) {
        Ok(()) => String::new(),
        Err(error) => error.field,
    }
}

fn check(cases: impl IntoIterator<Item = (Value, &'static str)>) {
    for (content, field) in cases {
        let shown: String = content.to_string().chars().take(200).collect();
        assert_eq!(refused_field(&content), field, "{shown}");
    }
}

#[test]
fn text_is_counted_in_characters_not_bytes() {
    check([
        (json!({"type": "text", "body": "م".repeat(4096)}), ""),
        (
            json!({"type": "text", "body": "a".repeat(4097)}),
            "content.body",
        ),
        (json!({"type": "text", "body": " \n"}), "content.body"),
    ]);
}

#[test]
fn a_file_has_a_web_address_or_an_id_and_a_caption_only_where_it_is_shown() {
    let link = "https://example.com/a";
    check([
        (
            json!({"type": "image", "link": link, "caption": "ا".repeat(1024)}),
            "",
        ),
        (
            json!({"type": "image", "link": link, "caption": "a".repeat(1025)}),
            "content.caption",
        ),
        (json!({"type": "video", "provider_id": "1"}), ""),
        (
            json!({"type": "video", "provider_id": ""}),
            "content.provider_id",
        ),
        (json!({"type": "audio", "link": link}), ""),
        (
            json!({"type": "audio", "link": link, "caption": "A"}),
            "content.caption",
        ),
        (
            json!({"type": "sticker", "link": link, "caption": ""}),
            "content.caption",
        ),
        (
            json!({"type": "document", "link": "ftp://example.com/a"}),
            "content.link",
        ),
        (
            json!({"type": "document", "link": "example.com/a"}),
            "content.link",
        ),
        (
            json!({"type": "document", "link": "file:///etc/passwd"}),
            "content.link",
        ),
        (
            json!({"type": "document", "link": "http://example.com/a"}),
            "",
        ),
    ]);
}

#[test]
fn places_cards_templates_and_reactions_have_what_they_need() {
    let place = |latitude: f64, longitude: f64| json!({"type": "location", "latitude": latitude, "longitude": longitude});
    let template = |name: &str, language: &str| json!({"type": "template", "name": name, "language": language});
    check([
        (place(30.0, 31.0), ""),
        (place(90.1, 31.0), "content.latitude"),
        (place(30.0, -180.5), "content.longitude"),
        (
            json!({"type": "contacts", "contacts": []}),
            "content.contacts",
        ),
        (
            json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}}, {"name": {}}]}),
            "content.contacts[1].name.formatted_name",
        ),
        (template("order_confirmation_2", "en_US"), ""),
        (template("", "en_US"), "content.name"),
        (template("Order Confirmation", "en_US"), "content.name"),
        (template("order", ""), "content.language"),
        (
            json!({"type": "template", "content_sid": "HX1"}),
            "content.name",
        ),
        (
            json!({"type": "template", "name": "order"}),
            "content.language",
        ),
        (
            json!({"type": "template", "name": "order", "language": "ar", "components": [{"type": "body"}, {}]}),
            "content.components[1].type",
        ),
        (
            json!({"type": "reaction", "message_id": "wamid.1", "emoji": ""}),
            "",
        ),
        (
            json!({"type": "reaction", "message_id": "", "emoji": "👍"}),
            "content.message_id",
        ),
    ]);
}

fn interactive(kind: &str, action: Value) -> Value {
    json!({"type": "interactive", "interactive": {
        "type": kind, "body": {"text": "Which?"}, "action": action,
    }})
}

fn with(mut content: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    content.pointer_mut(parent).unwrap()[name] = value;
    content
}

#[test]
fn buttons_are_one_to_three_short_and_distinct() {
    let button =
        |id: &str, title: &str| json!({"type": "reply", "reply": {"id": id, "title": title}});
    let buttons = |list: Vec<Value>| interactive("button", json!({"buttons": list}));
    let one = buttons(vec![button("a", "A")]);
    check([
        (one.clone(), ""),
        (
            buttons(vec![button("a", "A"), button("b", "B"), button("c", "C")]),
            "",
        ),
        (buttons(vec![]), "content.interactive.action.buttons"),
        (
            buttons(vec![button("a", "A"); 4]),
            "content.interactive.action.buttons",
        ),
        (
            buttons(vec![button("a", "A"), button("a", "B")]),
            "content.interactive.action.buttons[1].reply.id",
        ),
        (
            buttons(vec![button("a", &"t".repeat(21))]),
            "content.interactive.action.buttons[0].reply.title",
        ),
        (
            buttons(vec![button(&"i".repeat(257), "A")]),
            "content.interactive.action.buttons[0].reply.id",
        ),
        (
            buttons(vec![json!({"type": "reply"})]),
            "content.interactive.action.buttons[0].reply.title",
        ),
        (
            with(
                one.clone(),
                "/interactive/body/text",
                json!("b".repeat(1025)),
            ),
            "content.interactive.body.text",
        ),
        (
            with(one.clone(), "/interactive/body", Value::Null),
            "content.interactive.body.text",
        ),
        (
            with(
                one.clone(),
                "/interactive/header",
                json!({"type": "text", "text": "h".repeat(61)}),
            ),
            "content.interactive.header.text",
        ),
        (
            with(
                one.clone(),
                "/interactive/footer",
                json!({"text": "f".repeat(61)}),
            ),
            "content.interactive.footer.text",
        ),
        (
            json!({"type": "interactive", "interactive": {"body": {"text": "?"}}}),
            "content.interactive.type",
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "flow", "body": {"text": "?"}}}),
            "content.interactive.action",
        ),
        (interactive("cta_url", json!({"name": "cta_url"})), ""),
    ]);
}

#[test]
fn a_list_has_at_most_ten_rows_in_all() {
    let rows = |first: usize, count: usize| -> Vec<Value> {
        (first..first + count)
            .map(|id| json!({"id": id.to_string(), "title": "Row", "description": "d".repeat(72)}))
            .collect()
    };
    let section = |title: &str, rows: Vec<Value>| json!({"title": title, "rows": rows});
    let list = |sections: Vec<Value>| {
        interactive("list", json!({"button": "Choose", "sections": sections}))
    };
    let five_and_five = list(vec![section("A", rows(0, 5)), section("B", rows(5, 5))]);
    check([
        (five_and_five.clone(), ""),
        (list(vec![json!({"rows": rows(0, 10)})]), ""),
        (
            with(
                five_and_five.clone(),
                "/interactive/body/text",
                json!("b".repeat(4096)),
            ),
            "",
        ),
        (
            list(vec![section("A", rows(0, 5)), section("B", rows(5, 6))]),
            "content.interactive.action.sections",
        ),
        (list(vec![]), "content.interactive.action.sections"),
        (
            list(vec![section("A", rows(0, 1)), json!({"rows": rows(1, 1)})]),
            "content.interactive.action.sections[1].title",
        ),
        (
            list(vec![section("A", vec![])]),
            "content.interactive.action.sections[0].rows",
        ),
        (
            list(vec![section("A", rows(0, 2)), section("B", rows(1, 1))]),
            "content.interactive.action.sections[1].rows[0].id",
        ),
        (
            list(vec![section(
                "A",
                vec![json!({"id": "1", "title": "t".repeat(25)})],
            )]),
            "content.interactive.action.sections[0].rows[0].title",
        ),
        (
            list(vec![section(
                "A",
                vec![json!({"id": "1", "title": "t", "description": "d".repeat(73)})],
            )]),
            "content.interactive.action.sections[0].rows[0].description",
        ),
        (
            interactive("list", json!({"sections": [section("A", rows(0, 1))]})),
            "content.interactive.action.button",
        ),
    ]);
}
