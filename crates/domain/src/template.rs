//! Texts with `{{variables}}`, as people write them into message templates.
//!
//! A variable is `{{`, a name and `}}`. The name is any text without braces and line breaks, in any script, of up to
//! [`MAX_NAME`] characters; spaces around it do not count. Whatever else has braces is text: there is no escaping, and
//! a value is never looked through for variables again.

use std::collections::HashSet;
use std::fmt;

use serde_json::{Map, Value};

/// The longest name of a variable, in characters.
pub const MAX_NAME: usize = 64;

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Never empty.
    Text(&'a str),
    /// A variable's name.
    Variable(&'a str),
}

/// A text cut into what is written and what is to be filled in, in order.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, name, after)) = next_variable(rest) {
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// The first variable: what stands before it, its name, what comes after.
fn next_variable(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(found) = text[from..].find("{{") {
        let open = from + found;
        let inside = &text[open + 2..];
        if let Some(end) = inside.find(['{', '}']) {
            let (name, rest) = inside.split_at(end);
            if let Some(after) = rest.strip_prefix("}}")
                && let Some(name) = name_of(name)
            {
                return Some((&text[..open], name, after));
            }
        }
        // One brace on: in `{{{name}}}` the inner two are the variable's.
        from = open + 1;
    }
    None
}

fn name_of(text: &str) -> Option<&str> {
    let name = text.trim();
    let is_name =
        !name.is_empty() && name.chars().count() <= MAX_NAME && !text.contains(is_line_break);
    is_name.then_some(name)
}

/// The names of the variables in a text, each once, in the order of their first places.
#[must_use]
pub fn variables(text: &str) -> Vec<String> {
    let (mut names, mut known) = (Vec::new(), HashSet::new());
    for piece in pieces(text) {
        if let Piece::Variable(name) = piece
            && known.insert(name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// Why a text cannot be filled in: every variable at fault with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// At least one.
    pub problems: Vec<VariableProblem>,
}

/// What is wrong with one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableProblem {
    pub variable: String,
    /// For people, to be read after the variable's name.
    pub reason: &'static str,
}

impl fmt::Display for VariableProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "variables.{}: {}", self.variable, self.reason)
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateError {}

/// Whether these values are just what the named variables need: one each, nothing else.
///
/// # Errors
/// Names every variable that is missing or no simple value, then every value that no variable asks for.
pub fn check(names: &[String], values: &Map<String, Value>) -> Result<(), TemplateError> {
    let problem = |variable: &String, reason| VariableProblem {
        variable: variable.clone(),
        reason,
    };
    let needed = names.iter().filter_map(|name| match values.get(name) {
        None | Some(Value::Null) => Some(problem(name, "is missing")),
        Some(Value::Array(_) | Value::Object(_)) => {
            Some(problem(name, "must be text, a number, true or false"))
        }
        Some(Value::String(_) | Value::Number(_) | Value::Bool(_)) => None,
    });
    let unknown = values
        .keys()
        .filter(|name| !names.contains(name))
        .map(|name| problem(name, "is not a variable of this template"));
    let problems: Vec<_> = needed.chain(unknown).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(TemplateError { problems })
    }
}

/// The text with its variables filled in.
///
/// # Errors
/// As [`check`], for the variables of this text.
pub fn render(text: &str, values: &Map<String, Value>) -> Result<String, TemplateError> {
    check(&variables(text), values)?;
    Ok(fill(text, values, |value| value))
}

/// The same for HTML: values are shown as they are, whatever is in them.
///
/// # Errors
/// As [`render`].
pub fn render_html(html: &str, values: &Map<String, Value>) -> Result<String, TemplateError> {
    check(&variables(html), values)?;
    Ok(fill(html, values, escape_html))
}

/// Fills in checked values.
fn fill(text: &str, values: &Map<String, Value>, write: impl Fn(String) -> String) -> String {
    pieces(text)
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Variable(name) => write(values.get(name).map(written).unwrap_or_default()),
        })
        .collect()
}

/// A checked value as it stands in a text.
#[must_use]
pub fn written(value: &Value) -> String {
    match value {
        Value::String(value) => value.clone(),
        value => value.to_string(),
    }
}

/// For an element's text and for a quoted attribute.
fn escape_html(value: String) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The texts of one message template. They share their variables: a value need not occur in each of them.
#[derive(Clone, Copy, Debug)]
pub struct TemplateTexts<'a> {
    pub text: &'a str,
    /// The subject line of an e-mail.
    pub subject: Option<&'a str>,
    /// The HTML part of an e-mail.
    pub html: Option<&'a str>,
}

/// A message template with its variables filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedTemplate {
    pub text: String,
    /// One line, whatever the values hold.
    pub subject: Option<String>,
    pub html: Option<String>,
}

impl TemplateTexts<'_> {
    /// The variables of all texts, each once: those of the text first, then of the subject, then of the HTML.
    #[must_use]
    pub fn variables(&self) -> Vec<String> {
        let mut names = variables(self.text);
        for text in [self.subject, self.html].into_iter().flatten() {
            for name in variables(text) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Fills in all texts.
    ///
    /// # Errors
    /// As [`check`], for the variables of all texts together.
    pub fn render(&self, values: &Map<String, Value>) -> Result<RenderedTemplate, TemplateError> {
        check(&self.variables(), values)?;
        Ok(RenderedTemplate {
            text: fill(self.text, values, |value| value),
            // A line break would begin another header field.
            subject: self
                .subject
                .map(|subject| fill(subject, values, |value| on_one_line(&value))),
            html: self.html.map(|html| fill(html, values, escape_html)),
        })
    }
}

fn on_one_line(value: &str) -> String {
    value
        .split(is_line_break)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a character ends a line or controls anything else: none may be in a subject line.
#[must_use]
pub fn is_line_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn variables_come_in_order_and_once_in_any_script() {
        assert_eq!(
            variables("{{b}} {{ a }}, {{b}} {{اسم العميل}} {{ 名前 }}"),
            ["b", "a", "اسم العميل", "名前"]
        );
    }

    #[test]
    fn whatever_is_no_variable_is_text() {
        let long = format!("{{{{{}}}}}", "x".repeat(MAX_NAME + 1));
        for text in [
            "", "{", "{{", "}}", "{{}}", "{{ }}", "{{a}", "{a}}", "{{a\nb}}", "{{\na}}", "{{a}b}}",
            &long,
        ] {
            assert!(variables(text).is_empty(), "{text}");
            assert_eq!(render(text, &Map::new()).as_deref(), Ok(text));
        }
        assert_eq!(
            render("{{{{a}}}} {{{a}}} {{{a}}", &values(json!({ "a": 1 }))).as_deref(),
            Ok("{{1}} {1} {1")
        );
    }

    #[test]
    fn simple_values_are_written_plainly() {
        let given = values(json!({ "s": "نص", "i": 30, "f": 9.5, "b": true, "empty": "" }));
        assert_eq!(
            render("{{s}}|{{i}}|{{f}}|{{b}}|{{empty}}|{{s}}", &given).as_deref(),
            Ok("نص|30|9.5|true||نص")
        );
    }

    #[test]
    fn every_variable_at_fault_is_named_with_the_reason() {
        let given = values(json!({ "null": null, "list": [1], "object": {}, "extra": 1, "ok": 1 }));
        let error = render(
            "{{customer_name}} {{null}} {{list}} {{object}} {{ok}}",
            &given,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "variables.customer_name: is missing; variables.null: is missing; \
             variables.list: must be text, a number, true or false; \
             variables.object: must be text, a number, true or false; \
             variables.extra: is not a variable of this template"
        );
    }

    #[test]
    fn html_shows_a_value_and_does_not_run_it() {
        let given = values(json!({ "name": "<script>\"Tom & 'Jerry'\"</script>" }));
        assert_eq!(
            render_html("<b title=\"{{name}}\">", &given).as_deref(),
            Ok("<b title=\"&lt;script&gt;&quot;Tom &amp; &#39;Jerry&#39;&quot;&lt;/script&gt;\">")
        );
    }

    #[test]
    fn the_texts_of_a_template_share_their_variables_and_the_subject_stays_one_line() {
        let texts = TemplateTexts {
            text: "{{a}}",
            subject: Some("{{b}}: {{a}}"),
            html: Some("<p>{{c}} {{a}}</p>"),
        };
        assert_eq!(texts.variables(), ["a", "b", "c"]);
        let rendered = texts
            .render(&values(
                json!({ "a": "x\r\nBcc: y", "b": "\u{2028}B", "c": "<" }),
            ))
            .unwrap();
        assert_eq!(rendered.text, "x\r\nBcc: y");
        assert_eq!(rendered.subject.as_deref(), Some("B: x Bcc: y"));
        assert_eq!(rendered.html.as_deref(), Some("<p>&lt; x\r\nBcc: y</p>"));
        let error = texts.render(&values(json!({ "a": 1 }))).unwrap_err();
        assert_eq!(error.problems.len(), 2, "{error}");
    }

    /// Texts with many braces.
    fn texts() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![
                Just("{"),
                Just("}"),
                Just("{{"),
                Just("}}"),
                Just("{{a}}"),
                Just("{{ ب }}"),
                Just(" "),
                Just("a"),
                Just("\n"),
                Just("🚗")
            ],
            0..20,
        )
        .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_text_without_variables_stays_as_it_is(text in texts()) {
            prop_assume!(variables(&text).is_empty());
            prop_assert_eq!(render(&text, &Map::new()), Ok(text));
        }

        #[test]
        fn any_text_at_all_can_be_looked_through(text in any::<String>()) {
            let names = variables(&text);
            let given: Map<String, Value> =
                names.iter().map(|name| (name.clone(), json!("v"))).collect();
            prop_assert!(render(&text, &given).is_ok());
        }

        #[test]
        fn variables_filled_with_themselves_give_the_text_again(text in texts()) {
            // But for the spaces around names.
            let given: Map<String, Value> = variables(&text)
                .into_iter()
                .map(|name| (name.clone(), json!(format!("{{{{{name}}}}}"))))
                .collect();
            let again = render(&text, &given).unwrap();
            prop_assert_eq!(again.replace(' ', ""), text.replace(' ', ""));
        }

        #[test]
        fn a_value_is_never_looked_through(text in texts(), value in texts()) {
            let names = variables(&text);
            prop_assume!(!names.is_empty());
            let given: Map<String, Value> =
                names.iter().map(|name| (name.clone(), json!(value))).collect();
            let marked: Map<String, Value> =
                names.iter().map(|name| (name.clone(), json!("\u{1}"))).collect();
            let marked = render(&text, &marked).unwrap();
            prop_assert_eq!(render(&text, &given), Ok(marked.replace('\u{1}', &value)));
        }

        #[test]
        fn without_any_one_of_its_variables_a_text_is_refused(text in texts(), which in any::<prop::sample::Index>()) {
            let names = variables(&text);
            prop_assume!(!names.is_empty());
            let left_out = which.get(&names);
            let given: Map<String, Value> = names
                .iter()
                .filter(|name| *name != left_out)
                .map(|name| (name.clone(), json!(1)))
                .collect();
            let error = render(&text, &given).unwrap_err();
            prop_assert_eq!(error.problems.len(), 1);
            prop_assert_eq!(&error.problems[0].variable, left_out);
        }

        #[test]
        fn an_html_value_opens_no_tag_and_ends_no_attribute(value in any::<String>()) {
            let mut given = Map::new();
            given.insert("v".to_owned(), json!(value));
            let html = render_html("{{v}}", &given).unwrap();
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
        }
    }
}
