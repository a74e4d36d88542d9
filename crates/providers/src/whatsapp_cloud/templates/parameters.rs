//! What a template needs, filling it in, and checking what somebody filled in: Meta tells of a wrong number of
//! parameters (132000) only when the message is sent.

use serde_json::{Map, Value, json};
use url::Url;
use wasel_domain::content::OutboundTemplate;
use wasel_domain::provider_template::{ParameterFormat, ProviderTemplate, VariableMap};
use wasel_domain::template::{Piece, pieces, variables, written};

use crate::ContentError;
use crate::templates::TemplateParameters;

/// The longest texts with everything filled in, in characters.
const MAX_BODY: usize = 1024;
const MAX_HEADER: usize = 60;

/// A component's or button's type, upper-case.
fn kind(part: &Value) -> String {
    let kind = part.get("type").and_then(Value::as_str);
    kind.unwrap_or_default().to_ascii_uppercase()
}

fn text<'a>(part: &'a Value, name: &str) -> &'a str {
    part.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn component<'a>(components: &'a [Value], wanted: &str) -> Option<&'a Value> {
    components.iter().find(|part| kind(part) == wanted)
}

/// Numbers in order of their value, names in order of their places.
fn names_in(text: &str) -> Vec<String> {
    let mut names = variables(text);
    if names.iter().all(|name| name.parse::<u32>().is_ok()) {
        names.sort_by_key(|name| name.parse::<u32>().unwrap_or(u32::MAX));
    }
    names
}

/// For lists that do not tell: names are named, numbers are positions.
pub(super) fn format_of(components: &[Value]) -> ParameterFormat {
    let is_named = components
        .iter()
        .flat_map(|part| variables(text(part, "text")))
        .any(|name| name.parse::<u32>().is_err());
    if is_named {
        ParameterFormat::Named
    } else {
        ParameterFormat::Positional
    }
}

pub(super) fn of(components: &[Value]) -> TemplateParameters {
    let mut found = TemplateParameters::default();
    if let Some(header) = component(components, "HEADER") {
        match text(header, "format").to_ascii_lowercase().as_str() {
            "" | "text" => found.header = names_in(text(header, "text")),
            media => found.header_media = Some(media.to_owned()),
        }
    }
    if let Some(body) = component(components, "BODY") {
        found.body = match body.get("text").and_then(Value::as_str) {
            Some(text) => names_in(text),
            // An authentication template as it is handed in: Meta writes the text, around the code.
            None => vec!["1".to_owned()],
        };
    }
    for (place, button) in buttons(components).iter().enumerate() {
        if takes(button).is_some() {
            found.buttons.push(place);
        }
    }
    found
}

fn buttons(components: &[Value]) -> &[Value] {
    component(components, "BUTTONS")
        .and_then(|part| part.get("buttons"))
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// What a button needs when it is sent: the sub type of its component and the type of its parameter.
fn takes(button: &Value) -> Option<(&'static str, &'static str)> {
    match kind(button).as_str() {
        "URL" if !variables(text(button, "url")).is_empty() => Some(("url", "text")),
        // The code of an authentication template fills its button too.
        "OTP" => Some(("url", "text")),
        "COPY_CODE" => Some(("copy_code", "coupon_code")),
        _ => None,
    }
}

fn wrong<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, ContentError> {
    Err(ContentError {
        field: field.into(),
        reason: reason.into(),
    })
}

/// Meta takes no empty text (131008), no line break, tab or row of five spaces (132018).
fn unfit(text: &str) -> Option<&'static str> {
    if text.trim().is_empty() {
        Some("must not be empty in a WhatsApp template")
    } else if text.contains(['\n', '\r', '\t']) || text.contains("     ") {
        Some(
            "must have no line break, tab or more than four spaces in a row in a WhatsApp template",
        )
    } else {
        None
    }
}

pub(super) fn fill(
    template: &ProviderTemplate,
    map: &VariableMap,
    values: &Map<String, Value>,
    media_url: Option<&str>,
) -> Result<OutboundTemplate, ContentError> {
    let Some(components) = template.components.as_deref() else {
        return wrong(
            "name",
            "its components are not known yet: sync the channel's templates",
        );
    };
    let needed = of(components);
    let value =
        |part: &str, parameters: &std::collections::BTreeMap<String, String>, name: &str| {
            let Some(variable) = parameters.get(name) else {
                return wrong(
                    format!("variable_map.{part}.{name}"),
                    "is not mapped to a variable",
                );
            };
            let Some(value) = values.get(variable) else {
                return wrong(format!("variables.{variable}"), "is missing");
            };
            let value = written(value);
            match unfit(&value) {
                Some(reason) => wrong(format!("variables.{variable}"), reason),
                None => Ok(value),
            }
        };
    let named = template.parameter_format == ParameterFormat::Named;
    let parameter = |name: &str, value: &str| {
        let mut parameter = json!({"type": "text", "text": value});
        if named {
            parameter["parameter_name"] = name.into();
        }
        parameter
    };
    let mut filled = Vec::new();
    if let Some(media) = &needed.header_media {
        let Some(link) = media_url else {
            return wrong(
                "media_url",
                format!("the template's header shows a file ({media})"),
            );
        };
        let mut file = json!({"link": link});
        // Without a name the customer sees "Untitled".
        if let ("document", Some(name)) = (media.as_str(), file_name(link)) {
            file["filename"] = name.into();
        }
        filled.push(json!({"type": "header", "parameters": [{"type": media, media: file}]}));
    }
    let mut texts = Map::new();
    for (part, names, parameters) in [
        ("header", &needed.header, &map.header),
        ("body", &needed.body, &map.body),
    ] {
        let mut sent = Vec::new();
        for name in names {
            let value = value(part, parameters, name)?;
            sent.push(parameter(name, &value));
            texts.insert(format!("{part}.{name}"), value.into());
        }
        if !sent.is_empty() {
            filled.push(json!({"type": part, "parameters": sent}));
        }
    }
    for place in &needed.buttons {
        let Some((sub_type, kind)) = takes(&buttons(components)[*place]) else {
            continue;
        };
        let value = value("buttons", &map.buttons, &place.to_string())?;
        filled.push(
            json!({"type": "button", "sub_type": sub_type, "index": place.to_string(),
            "parameters": [{"type": kind, kind: value}]}),
        );
    }
    let shown = |wanted: &str, part: &str| {
        let pattern = component(components, wanted)?.get("text")?.as_str()?;
        Some(shown(pattern, part, &texts))
    };
    let (header, body) = (shown("HEADER", "header"), shown("BODY", "body"));
    for (text, max, part) in [(&header, MAX_HEADER, "header"), (&body, MAX_BODY, "body")] {
        let chars = text.as_deref().map_or(0, |text| text.chars().count());
        if chars > max {
            let reason =
                format!("the {part} has {chars} characters with these values; {max} are allowed");
            return wrong("variables", reason);
        }
    }
    Ok(OutboundTemplate {
        name: Some(template.name.clone()),
        language: Some(template.language.clone()),
        components: filled,
        text: match (header, body) {
            (Some(header), Some(body)) => Some(format!("{header}\n\n{body}")),
            (_, body) => body,
        },
        ..OutboundTemplate::default()
    })
}

fn file_name(link: &str) -> Option<String> {
    let link = Url::parse(link).ok()?;
    let name = link.path_segments()?.next_back()?;
    let name = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    Some(name.into_owned()).filter(|name| !name.is_empty())
}

/// What the customer reads.
fn shown(pattern: &str, part: &str, texts: &Map<String, Value>) -> String {
    let piece = |piece| match piece {
        Piece::Text(text) => text,
        Piece::Variable(name) => texts
            .get(&format!("{part}.{name}"))
            .and_then(Value::as_str)
            .unwrap_or_default(),
    };
    pieces(pattern).into_iter().map(piece).collect()
}

pub(super) fn check(
    template: &ProviderTemplate,
    sent: &OutboundTemplate,
) -> Result<(), ContentError> {
    let Some(components) = template.components.as_deref() else {
        return Ok(());
    };
    let special = ["CAROUSEL", "LIMITED_TIME_OFFER", "PRODUCT"];
    if components
        .iter()
        .any(|part| special.contains(&kind(part).as_str()))
    {
        // Cards and offers have parameters of their own, which only Meta knows well enough.
        return Ok(());
    }
    let needed = of(components);
    match &needed.header_media {
        Some(media) => check_media(media, sent)?,
        None => check_texts(template, "header", &needed.header, sent)?,
    }
    check_texts(template, "body", &needed.body, sent)?;
    check_buttons(buttons(components), sent)
}

/// The component sent for a part, with the path of it.
fn sent_for<'a>(
    sent: &'a OutboundTemplate,
    part: &str,
) -> Result<Option<(String, &'a [Value])>, ContentError> {
    let mut found = sent
        .components
        .iter()
        .enumerate()
        .filter(|(_, component)| kind(component).eq_ignore_ascii_case(part));
    let Some((place, component)) = found.next() else {
        return Ok(None);
    };
    if let Some((again, _)) = found.next() {
        return wrong(
            format!("content.components[{again}]"),
            format!("is a second {part}"),
        );
    }
    Ok(Some((
        format!("content.components[{place}].parameters"),
        parameters_of(component),
    )))
}

fn parameters_of(component: &Value) -> &[Value] {
    component
        .get("parameters")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn check_media(media: &str, sent: &OutboundTemplate) -> Result<(), ContentError> {
    let Some((path, parameters)) = sent_for(sent, "header")? else {
        return wrong(
            "content.components",
            format!("the template's header needs one parameter of type {media}"),
        );
    };
    let [parameter] = parameters else {
        let count = parameters.len();
        return wrong(
            path,
            format!("the header takes 1 parameter of type {media}, not {count}"),
        );
    };
    if !text(parameter, "type").eq_ignore_ascii_case(media) {
        return wrong(format!("{path}[0].type"), format!("must be {media}"));
    }
    let file = parameter.get(media).unwrap_or(&Value::Null);
    if media != "location" && text(file, "link").is_empty() && text(file, "id").is_empty() {
        return wrong(format!("{path}[0].{media}"), "must have a link or an id");
    }
    Ok(())
}

fn check_texts(
    template: &ProviderTemplate,
    part: &str,
    names: &[String],
    sent: &OutboundTemplate,
) -> Result<(), ContentError> {
    let (path, parameters) = match sent_for(sent, part)? {
        Some(found) => found,
        None if names.is_empty() => return Ok(()),
        None => ("content.components".to_owned(), [].as_slice()),
    };
    if parameters.len() != names.len() {
        let reason = format!(
            "the {part} of `{}` takes {} parameters ({}), not {}",
            template.name,
            names.len(),
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            },
            parameters.len()
        );
        return wrong(path, reason);
    }
    for (place, parameter) in parameters.iter().enumerate() {
        let path = format!("{path}[{place}]");
        match text(parameter, "type").to_ascii_lowercase().as_str() {
            "text" => {
                if let Some(reason) = unfit(text(parameter, "text")) {
                    return wrong(format!("{path}.text"), reason);
                }
            }
            "currency" | "date_time" => {}
            _ => {
                return wrong(
                    format!("{path}.type"),
                    format!("a parameter of the {part} is a text"),
                );
            }
        }
        if template.parameter_format == ParameterFormat::Named {
            let name = text(parameter, "parameter_name");
            if !names.iter().any(|known| known == name) {
                let reason = format!("must be one of {}", names.join(", "));
                return wrong(format!("{path}.parameter_name"), reason);
            }
            let earlier = &parameters[..place];
            if earlier
                .iter()
                .any(|other| text(other, "parameter_name") == name)
            {
                return wrong(format!("{path}.parameter_name"), "is used twice");
            }
        }
    }
    Ok(())
}

fn check_buttons(buttons: &[Value], sent: &OutboundTemplate) -> Result<(), ContentError> {
    let mut filled = vec![false; buttons.len()];
    for (at, component) in sent.components.iter().enumerate() {
        let path = format!("content.components[{at}]");
        match kind(component).as_str() {
            "HEADER" | "BODY" => continue,
            "BUTTON" => {}
            _ => return wrong(format!("{path}.type"), "must be header, body or button"),
        }
        let place = match component.get("index") {
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_u64().and_then(|n| usize::try_from(n).ok()),
            _ => None,
        };
        let Some((place, button)) =
            place.and_then(|place: usize| Some((place, buttons.get(place)?)))
        else {
            let reason = format!("the template has {} buttons, counted from 0", buttons.len());
            return wrong(format!("{path}.index"), reason);
        };
        let parameters = parameters_of(component);
        let Some((sub_type, wanted)) = takes(button) else {
            if kind(button) == "URL" && !parameters.is_empty() {
                return wrong(
                    format!("{path}.parameters"),
                    "this button's address has no variable",
                );
            }
            // A quick reply may carry a payload, a flow or a catalogue its own data.
            continue;
        };
        if !text(component, "sub_type").eq_ignore_ascii_case(sub_type) {
            return wrong(format!("{path}.sub_type"), format!("must be {sub_type}"));
        }
        let [parameter] = parameters else {
            let count = parameters.len();
            return wrong(
                format!("{path}.parameters"),
                format!("this button takes 1 parameter, not {count}"),
            );
        };
        if text(parameter, wanted).trim().is_empty() {
            return wrong(format!("{path}.parameters[0].{wanted}"), "is missing");
        }
        filled[place] = true;
    }
    for (place, button) in buttons.iter().enumerate() {
        if takes(button).is_some() && !filled[place] {
            return wrong(
                "content.components",
                format!("button {place} needs its parameter"),
            );
        }
    }
    Ok(())
}
