//! Sending a template: does it exist, is it approved, do the parameters fit, what does it read like.

use serde_json::Value;

use super::MetaError;
use crate::world::Template;

/// The text a person reads, and the template's category.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) text: String,
    pub(super) category: String,
}

/// Checks `template` of a send against the templates of the WABA and fills it in.
pub(super) fn fill(templates: &[Template], sent: &Value) -> Result<Filled, MetaError> {
    let name = sent["name"].as_str().unwrap_or_default();
    let language = sent["language"]["code"].as_str().unwrap_or_default();
    let template = templates
        .iter()
        .find(|t| t.name == name && t.language == language)
        .ok_or_else(|| {
            MetaError::coded(
                132_001,
                format!("template name ({name}) does not exist in {language}"),
            )
        })?;
    match template.status.as_str() {
        "APPROVED" => {}
        "PAUSED" => return Err(MetaError::coded(132_015, "Template is paused")),
        "DISABLED" => return Err(MetaError::coded(132_016, "Template is disabled")),
        _ => {
            return Err(MetaError::coded(
                132_001,
                format!("template name ({name}) is not approved in {language}"),
            ));
        }
    }
    let empty = Vec::new();
    let components = sent["components"].as_array().unwrap_or(&empty);
    let mut text = String::new();
    for part in &template.components {
        match kind(part).as_str() {
            "BODY" => text = fill_text(template, "body", part, components)?,
            "HEADER" => check_header(template, part, components)?,
            "BUTTONS" => check_buttons(part, components)?,
            _ => {}
        }
    }
    for component in components {
        let wanted = kind(component);
        let there = template
            .components
            .iter()
            .any(|part| kind(part) == wanted || (wanted == "BUTTON" && kind(part) == "BUTTONS"));
        if !there && !parameters(component).is_empty() {
            return Err(MetaError::coded(
                132_000,
                format!("the template has no {} to fill", wanted.to_lowercase()),
            ));
        }
    }
    Ok(Filled {
        text,
        category: template.category.to_lowercase(),
    })
}

fn kind(component: &Value) -> String {
    component["type"]
        .as_str()
        .unwrap_or_default()
        .to_uppercase()
}

fn parameters(component: &Value) -> &[Value] {
    component["parameters"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// The parameters sent for a component.
fn sent_for<'a>(components: &'a [Value], wanted: &str) -> &'a [Value] {
    components
        .iter()
        .find(|component| kind(component).eq_ignore_ascii_case(wanted))
        .map_or(&[], parameters)
}

fn fill_text(
    template: &Template,
    place: &str,
    part: &Value,
    components: &[Value],
) -> Result<String, MetaError> {
    let pattern = part["text"].as_str().unwrap_or_default();
    let names = placeholders(pattern);
    let sent = sent_for(components, place);
    if sent.len() != names.len() {
        return Err(count_mismatch(place, sent.len(), names.len()));
    }
    let named = template.parameter_format.eq_ignore_ascii_case("NAMED");
    let mut filled = pattern.to_owned();
    for (position, name) in names.iter().enumerate() {
        let parameter = if named {
            sent.iter()
                .find(|p| p["parameter_name"].as_str() == Some(name))
                .ok_or_else(|| {
                    MetaError::coded(132_012, format!("{place}: parameter '{name}' is missing"))
                })?
        } else {
            // Positional placeholders are numbered from 1, in whatever order the text has them.
            let index = name
                .parse::<usize>()
                .map_or(position, |n| n.saturating_sub(1));
            sent.get(index)
                .ok_or_else(|| count_mismatch(place, sent.len(), names.len()))?
        };
        filled = filled.replace(&format!("{{{{{name}}}}}"), &value_of(place, parameter)?);
    }
    let limit = if place == "body" { 1_024 } else { 60 };
    if filled.chars().count() > limit {
        return Err(MetaError::coded(
            132_005,
            format!("{place}: filled-in text is longer than {limit} characters"),
        ));
    }
    Ok(filled)
}

fn count_mismatch(place: &str, sent: usize, expected: usize) -> MetaError {
    MetaError::coded(
        132_000,
        format!(
            "{place}: number of localizable_params ({sent}) does not match the expected number of params ({expected})"
        ),
    )
}

/// The text a parameter stands for.
fn value_of(place: &str, parameter: &Value) -> Result<String, MetaError> {
    match parameter["type"].as_str() {
        Some("text") => {
            let text = parameter["text"].as_str().unwrap_or_default();
            if text.is_empty() {
                return Err(MetaError::coded(
                    131_008,
                    format!("{place}: parameter of type text is missing text value"),
                ));
            }
            if text.contains(['\n', '\t']) || text.contains("     ") {
                return Err(MetaError::coded(
                    132_018,
                    "Param text cannot have new-line/tab characters or more than 4 consecutive spaces",
                ));
            }
            Ok(text.to_owned())
        }
        Some(kind @ ("currency" | "date_time")) => parameter[kind]["fallback_value"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| MetaError::missing(&format!("{kind}.fallback_value"))),
        other => Err(MetaError::coded(
            132_012,
            format!(
                "{place}: a parameter of type {} does not fit",
                other.unwrap_or("none")
            ),
        )),
    }
}

fn check_header(template: &Template, part: &Value, components: &[Value]) -> Result<(), MetaError> {
    let format = part["format"].as_str().unwrap_or("TEXT").to_lowercase();
    if format == "text" {
        return fill_text(template, "header", part, components).map(drop);
    }
    let sent = sent_for(components, "header");
    if sent.len() != 1 {
        return Err(count_mismatch("header", sent.len(), 1));
    }
    let got = sent[0]["type"].as_str().unwrap_or("none");
    if got != format {
        return Err(MetaError::coded(
            132_012,
            format!(
                "header: Format mismatch, expected {}, received {}",
                format.to_uppercase(),
                got.to_uppercase()
            ),
        ));
    }
    Ok(())
}

fn check_buttons(part: &Value, components: &[Value]) -> Result<(), MetaError> {
    let empty = Vec::new();
    let buttons = part["buttons"].as_array().unwrap_or(&empty);
    for (index, button) in buttons.iter().enumerate() {
        let dynamic = kind(button) == "URL"
            && !placeholders(button["url"].as_str().unwrap_or_default()).is_empty();
        let sent = components
            .iter()
            .find(|component| kind(component) == "BUTTON" && index_of(component) == Some(index));
        let count = sent.map_or(0, |component| parameters(component).len());
        if dynamic && count != 1 {
            return Err(MetaError::coded(
                132_000,
                format!("button at index {index}: expected 1 parameter, received {count}"),
            ));
        }
    }
    let stray = components
        .iter()
        .filter(|component| kind(component) == "BUTTON")
        .any(|component| index_of(component).is_none_or(|index| index >= buttons.len()));
    if stray {
        return Err(MetaError::coded(
            132_012,
            "button: there is no button at that index",
        ));
    }
    Ok(())
}

/// `index` is a string in Meta's examples and a number in its SDKs; both are taken.
fn index_of(component: &Value) -> Option<usize> {
    match &component["index"] {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().and_then(|n| usize::try_from(n).ok()),
        _ => None,
    }
}

/// The distinct `{{…}}` names of a text, in order.
pub(crate) fn placeholders(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else {
            break;
        };
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
        rest = tail;
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(format: &str, components: Value) -> Template {
        serde_json::from_value(json!({"name": "order", "language": "ar",
            "parameter_format": format, "components": components}))
        .expect("template")
    }

    fn send(template: &Template, components: Value) -> Result<String, u32> {
        let sent = json!({"name": "order", "language": {"code": "ar"}, "components": components});
        fill(std::slice::from_ref(template), &sent)
            .map(|filled| filled.text)
            .map_err(|error| error.code)
    }

    fn texts(values: &[&str]) -> Value {
        let parameters: Vec<_> = values
            .iter()
            .map(|v| json!({"type": "text", "text": v}))
            .collect();
        json!([{"type": "body", "parameters": parameters}])
    }

    #[test]
    fn positional_parameters_fill_by_number_and_must_be_as_many_as_the_template_has() {
        let template = template(
            "POSITIONAL",
            json!([{"type": "BODY", "text": "{{2}}, order {{1}}"}]),
        );
        assert_eq!(
            send(&template, texts(&["7", "Mona"])),
            Ok("Mona, order 7".to_owned())
        );
        assert_eq!(send(&template, texts(&["7"])), Err(132_000));
        assert_eq!(send(&template, texts(&["7", "a\nb"])), Err(132_018));
        assert_eq!(send(&template, texts(&["7", ""])), Err(131_008));
        assert_eq!(
            send(&template, texts(&["7", &"x".repeat(1_024)])),
            Err(132_005)
        );
    }

    #[test]
    fn named_parameters_must_carry_their_names() {
        let template = template("NAMED", json!([{"type": "BODY", "text": "Hi {{who}}"}]));
        let named = json!([{"type": "body", "parameters": [{"type": "text", "text": "A", "parameter_name": "who"}]}]);
        assert_eq!(send(&template, named), Ok("Hi A".to_owned()));
        assert_eq!(send(&template, texts(&["A"])), Err(132_012));
    }

    #[test]
    fn a_media_header_and_a_link_button_want_their_own_parameters() {
        let template = template(
            "POSITIONAL",
            json!([{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "b"},
                {"type": "BUTTONS", "buttons": [{"type": "URL", "url": "https://x.test/{{1}}"}]}]),
        );
        let image = json!({"type": "header", "parameters": [{"type": "image", "image": {"link": "https://x.test/a"}}]});
        let wrong = json!({"type": "header", "parameters": [{"type": "text", "text": "a"}]});
        let button = json!({"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "a"}]});
        assert_eq!(send(&template, json!([image, button])), Ok("b".to_owned()));
        assert_eq!(send(&template, json!([wrong, button])), Err(132_012));
        assert_eq!(send(&template, json!([image])), Err(132_000));
        assert_eq!(send(&template, json!([button])), Err(132_000));
    }
}
