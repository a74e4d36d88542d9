//! Our template in Meta's form. What Meta would refuse after a review of minutes or hours is refused here at once.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/components>

use std::collections::BTreeMap;

use serde_json::{Value, json};
use url::Url;
use wasel_domain::provider_template::{ParameterFormat, ProviderTemplate, VariableMap};
use wasel_domain::template::{Piece, pieces};

use crate::ContentError;
use crate::templates::{DraftButton, DraftHeader, TemplateDraft};

const MAX_NAME: usize = 512;
const MAX_BODY: usize = 1024;
/// Of a header's text and of a footer.
const MAX_LINE: usize = 60;
const MAX_BUTTONS: usize = 10;
const MAX_URL_BUTTONS: usize = 2;
const MAX_BUTTON_TEXT: usize = 25;
const MAX_URL: usize = 2000;
const MAX_PHONE: usize = 20;
const CATEGORIES: [&str; 3] = ["UTILITY", "MARKETING", "AUTHENTICATION"];

type Result<T> = std::result::Result<T, ContentError>;

fn wrong<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T> {
    Err(ContentError {
        field: field.into(),
        reason: reason.into(),
    })
}

pub(super) fn draft(wanted: &TemplateDraft) -> Result<(ProviderTemplate, VariableMap)> {
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let name = &wanted.name;
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_name) {
        return wrong(
            "name",
            format!("must have 1 to {MAX_NAME} lower-case letters, digits and _ only"),
        );
    }
    if !is_language(&wanted.language) {
        return wrong(
            "language",
            "must be a language code such as `ar` or `en_US`",
        );
    }
    if !CATEGORIES.contains(&wanted.category.as_str()) {
        return wrong(
            "category",
            format!("must be one of {}", CATEGORIES.join(", ")),
        );
    }
    let mut map = VariableMap::default();
    let components = if wanted.category == "AUTHENTICATION" {
        authentication(wanted, &mut map)?
    } else {
        let mut components = Vec::new();
        components.extend(header(wanted, &mut map)?);
        components.push(body(wanted, &mut map)?);
        components.extend(footer(wanted)?);
        components.extend(buttons(wanted, &mut map)?);
        components
    };
    let template = ProviderTemplate {
        provider_id: None,
        name: name.clone(),
        language: wanted.language.clone(),
        category: Some(wanted.category.clone()),
        status: "PENDING".to_owned(),
        parameter_format: wanted.format,
        components: Some(components),
        quality: None,
        rejected_reason: None,
    };
    Ok((template, map))
}

/// `ar`, `fil`, `en_US`, `zh_HK`.
fn is_language(code: &str) -> bool {
    let (language, country) = match code.split_once('_') {
        Some((language, country)) => (language, Some(country)),
        None => (code, None),
    };
    (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_lowercase())
        && country.is_none_or(|country| {
            (2..=3).contains(&country.len()) && country.bytes().all(|b| b.is_ascii_uppercase())
        })
}

/// Meta writes the text of a one-time password itself, in the template's language; ours only says which variable the
/// code is.
fn authentication(wanted: &TemplateDraft, map: &mut VariableMap) -> Result<Vec<Value>> {
    if wanted.header.is_some() {
        return wrong("header", "an authentication template has none");
    }
    if wanted.footer.is_some() {
        return wrong("footer", "an authentication template has none of its own");
    }
    if !wanted.buttons.is_empty() {
        return wrong(
            "buttons",
            "an authentication template has one that copies the code",
        );
    }
    let mut names = wasel_domain::template::variables(&wanted.text).into_iter();
    let (Some(code), None) = (names.next(), names.next()) else {
        return wrong(
            "message_template",
            "must have one variable, the code, to be an authentication template",
        );
    };
    map.body.insert("1".to_owned(), code.clone());
    map.buttons.insert("0".to_owned(), code);
    Ok(vec![
        json!({"type": "BODY", "add_security_recommendation": true}),
        json!({"type": "BUTTONS", "buttons": [{"type": "OTP", "otp_type": "COPY_CODE"}]}),
    ])
}

/// A text with its variables in Meta's form, and what fills them.
struct Converted {
    text: String,
    /// Parameter and variable, by place.
    parameters: Vec<(String, String)>,
}

fn convert(field: &str, text: &str, wanted: &TemplateDraft) -> Result<Converted> {
    let mut converted = Converted {
        text: String::new(),
        parameters: Vec::new(),
    };
    for piece in pieces(text) {
        let name = match piece {
            Piece::Text(text) => {
                converted.text.push_str(text);
                continue;
            }
            Piece::Variable(name) => name,
        };
        if !wanted.variables.iter().any(|known| known == name) {
            return wrong(
                field,
                format!("`{name}` is not a variable of this template"),
            );
        }
        let parameter = match wanted.format {
            // One number for each place, also where a variable occurs twice.
            ParameterFormat::Positional => (converted.parameters.len() + 1).to_string(),
            ParameterFormat::Named => {
                if !is_parameter_name(name) {
                    let reason = format!(
                        "`{name}` is no name for Meta (lower-case letters, digits and _): use positional parameters"
                    );
                    return wrong("parameter_format", reason);
                }
                if converted.parameters.iter().any(|(known, _)| known == name) {
                    let reason = format!("`{name}` occurs twice: use positional parameters");
                    return wrong("parameter_format", reason);
                }
                name.to_owned()
            }
        };
        converted.text.push_str(&format!("{{{{{parameter}}}}}"));
        converted.parameters.push((parameter, name.to_owned()));
    }
    Ok(converted)
}

fn is_parameter_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn example<'a>(wanted: &'a TemplateDraft, variable: &str) -> Result<&'a str> {
    match wanted.examples.get(variable).map(|example| example.trim()) {
        Some(example) if !example.is_empty() => Ok(example),
        _ => wrong(
            format!("examples.{variable}"),
            "is missing: Meta's reviewers want to see a value",
        ),
    }
}

/// Examples for `header` or `body`: a list of values, in Meta's two spellings.
fn examples(wanted: &TemplateDraft, part: &str, converted: &Converted) -> Result<Option<Value>> {
    if converted.parameters.is_empty() {
        return Ok(None);
    }
    let mut values = Vec::new();
    for (parameter, variable) in &converted.parameters {
        let value = example(wanted, variable)?;
        values.push(match wanted.format {
            ParameterFormat::Positional => json!(value),
            ParameterFormat::Named => json!({"param_name": parameter, "example": value}),
        });
    }
    Ok(Some(match (wanted.format, part) {
        (ParameterFormat::Positional, "body") => json!({"body_text": [values]}),
        (ParameterFormat::Named, "body") => json!({"body_text_named_params": values}),
        (ParameterFormat::Positional, _) => json!({"header_text": values}),
        (ParameterFormat::Named, _) => json!({"header_text_named_params": values}),
    }))
}

fn body(wanted: &TemplateDraft, map: &mut VariableMap) -> Result<Value> {
    const FIELD: &str = "message_template";
    let is_blank = |piece: &Piece<'_>| matches!(piece, Piece::Text(text) if text.trim().is_empty());
    let cut: Vec<Piece<'_>> = pieces(&wanted.text)
        .into_iter()
        .filter(|piece| !is_blank(piece))
        .collect();
    for (end, word) in [(cut.first(), "begin"), (cut.last(), "end")] {
        if let Some(Piece::Variable(name)) = end {
            return wrong(
                FIELD,
                format!("must not {word} with a variable (`{name}`) at Meta"),
            );
        }
    }
    let next_to_another = cut.windows(2).find_map(|pair| match pair {
        [Piece::Variable(_), Piece::Variable(name)] => Some(name),
        _ => None,
    });
    if let Some(name) = next_to_another {
        return wrong(
            FIELD,
            format!("must have words before `{name}`: Meta takes no two variables in a row"),
        );
    }
    let converted = convert(FIELD, &wanted.text, wanted)?;
    let chars = converted.text.chars().count();
    if chars > MAX_BODY {
        return wrong(
            FIELD,
            format!("has {chars} characters; Meta takes {MAX_BODY}"),
        );
    }
    let mut component = json!({"type": "BODY", "text": converted.text});
    if let Some(example) = examples(wanted, "body", &converted)? {
        component["example"] = example;
    }
    map.body = BTreeMap::from_iter(converted.parameters);
    Ok(component)
}

fn line(field: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return wrong(field, "must not be empty");
    }
    if text.chars().count() > MAX_LINE {
        return wrong(field, format!("must have at most {MAX_LINE} characters"));
    }
    if text.contains(['\n', '\r', '\t']) {
        return wrong(field, "must be one line");
    }
    Ok(())
}

fn header(wanted: &TemplateDraft, map: &mut VariableMap) -> Result<Option<Value>> {
    match &wanted.header {
        None => Ok(None),
        Some(DraftHeader::Text(text)) => {
            let converted = convert("header.text", text, wanted)?;
            line("header.text", &converted.text)?;
            if converted.parameters.len() > 1 {
                return wrong("header.text", "may have one variable");
            }
            let mut component = json!({"type": "HEADER", "format": "TEXT", "text": converted.text});
            if let Some(example) = examples(wanted, "header", &converted)? {
                component["example"] = example;
            }
            map.header = BTreeMap::from_iter(converted.parameters);
            Ok(Some(component))
        }
        Some(DraftHeader::Media {
            kind,
            example_handle,
        }) => {
            if example_handle.trim().is_empty() {
                return wrong(
                    "header.example_handle",
                    "is missing: upload an example file with Meta's Resumable Upload API and give its handle",
                );
            }
            Ok(Some(
                json!({"type": "HEADER", "format": kind.to_ascii_uppercase(),
                "example": {"header_handle": [example_handle]}}),
            ))
        }
    }
}

fn footer(wanted: &TemplateDraft) -> Result<Option<Value>> {
    let Some(text) = &wanted.footer else {
        return Ok(None);
    };
    line("footer", text)?;
    if !wasel_domain::template::variables(text).is_empty() {
        return wrong("footer", "may have no variable");
    }
    Ok(Some(json!({"type": "FOOTER", "text": text})))
}

fn buttons(wanted: &TemplateDraft, map: &mut VariableMap) -> Result<Option<Value>> {
    let all = &wanted.buttons;
    if all.is_empty() {
        return Ok(None);
    }
    if all.len() > MAX_BUTTONS {
        return wrong("buttons", format!("must be at most {MAX_BUTTONS}"));
    }
    let count = |is: fn(&DraftButton) -> bool| all.iter().filter(|button| is(button)).count();
    if count(|button| matches!(button, DraftButton::Url { .. })) > MAX_URL_BUTTONS {
        return wrong("buttons", format!("may hold {MAX_URL_BUTTONS} of type url"));
    }
    if count(|button| matches!(button, DraftButton::Phone { .. })) > 1 {
        return wrong("buttons", "may hold 1 of type phone");
    }
    // Quick replies in one group, the others in another.
    let groups: Vec<bool> = all
        .iter()
        .map(|button| matches!(button, DraftButton::QuickReply { .. }))
        .collect();
    if groups.windows(2).filter(|pair| pair[0] != pair[1]).count() > 1 {
        return wrong("buttons", "must have their quick replies side by side");
    }
    let mut made = Vec::new();
    for (place, button) in all.iter().enumerate() {
        made.push(one_button(place, button, wanted, map)?);
    }
    Ok(Some(json!({"type": "BUTTONS", "buttons": made})))
}

fn one_button(
    place: usize,
    button: &DraftButton,
    wanted: &TemplateDraft,
    map: &mut VariableMap,
) -> Result<Value> {
    let path = format!("buttons[{place}]");
    let (DraftButton::QuickReply { text }
    | DraftButton::Url { text, .. }
    | DraftButton::Phone { text, .. }) = button;
    let chars = text.chars().count();
    if text.trim().is_empty() || chars > MAX_BUTTON_TEXT {
        return wrong(
            format!("{path}.text"),
            format!("must be of 1 to {MAX_BUTTON_TEXT} characters"),
        );
    }
    if !wasel_domain::template::variables(text).is_empty() {
        return wrong(format!("{path}.text"), "may have no variable");
    }
    match button {
        DraftButton::QuickReply { .. } => Ok(json!({"type": "QUICK_REPLY", "text": text})),
        DraftButton::Phone { phone_number, .. } => {
            let digits = phone_number.strip_prefix('+').unwrap_or(phone_number);
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if !is_number || phone_number.len() > MAX_PHONE {
                return wrong(
                    format!("{path}.phone_number"),
                    format!(
                        "must be a number with its country code, at most {MAX_PHONE} characters"
                    ),
                );
            }
            Ok(json!({"type": "PHONE_NUMBER", "text": text, "phone_number": phone_number}))
        }
        DraftButton::Url { url, .. } => {
            let field = format!("{path}.url");
            let cut = pieces(url);
            let variables: Vec<&str> = cut
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Variable(name) => Some(*name),
                    Piece::Text(_) => None,
                })
                .collect();
            let (fixed, variable) = match (cut.as_slice(), variables.as_slice()) {
                ([Piece::Text(fixed)], []) => (*fixed, None),
                ([Piece::Text(fixed), Piece::Variable(name)], [_]) => (*fixed, Some(*name)),
                _ => return wrong(field, "may have one variable, at its end"),
            };
            let is_web = Url::parse(fixed)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if !is_web || url.chars().count() > MAX_URL {
                return wrong(field, "must be an https or http address");
            }
            let Some(variable) = variable else {
                return Ok(json!({"type": "URL", "text": text, "url": url}));
            };
            if !wanted.variables.iter().any(|known| known == variable) {
                return wrong(
                    field,
                    format!("`{variable}` is not a variable of this template"),
                );
            }
            map.buttons.insert(place.to_string(), variable.to_owned());
            // Also in a template of named parameters: a button has at most one.
            Ok(
                json!({"type": "URL", "text": text, "url": format!("{fixed}{{{{1}}}}"),
                "example": [example(wanted, variable)?]}),
            )
        }
    }
}
