//! One message for many people: reading the list, and what each of them will get.
//!
//! Everything that can be known when a job is made is settled then, row by row: the address, the variables, the text.
//! A row that will not do says why and stops nobody else.

mod csv;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use uuid::Uuid;
use wasel_db::bulk::{NewRecipient, Refusal};
use wasel_db::provider_templates::Mapping;
use wasel_db::templates::Template;
use wasel_domain::template::{self, TemplateError, TemplateTexts};
use wasel_domain::{OutboundContent, event::IdentityKind};

pub use self::csv::read_csv;
use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::notify::{self, Note};
use crate::outbound;
use crate::provider_templates;
use crate::registry::Channel;
use crate::state::AppState;

/// Recipients of one job.
pub const MAX_RECIPIENTS: usize = 100_000;
/// Rows between two breaths: other requests share the thread.
const BREATH: usize = 100;

/// What a job says.
#[derive(Clone, Debug)]
pub enum Source {
    /// A template of ours.
    Template(Box<Template>),
    /// Twilio's `HX…`; only Twilio knows its variables.
    ContentSid(String),
    /// A text, which may have `{{variables}}`.
    Message(String),
    /// A text as it stands.
    Plain(String),
    /// Content as in `POST /v1/messages`; any text in it may have `{{variables}}`.
    Content(Value),
}

impl Source {
    /// The template, text or content a caller names: exactly one of them.
    pub async fn find(
        state: &AppState,
        caller: &Caller,
        template_id: Option<String>,
        message: Option<String>,
        content: Option<Value>,
    ) -> Result<Self, ApiError> {
        let message = message.filter(|text| !text.trim().is_empty());
        match (template_id, message, content) {
            (Some(id), None, None) => {
                let note = Note {
                    template: Some(id.clone()),
                    ..Note::default()
                };
                let found = notify::find_template(state, caller, &note).await?;
                Ok(found.map_or(Self::ContentSid(id), |found| {
                    Self::Template(Box::new(found))
                }))
            }
            (None, Some(message), None) => Ok(Self::Message(message)),
            (None, None, Some(content)) => {
                // The braces of a variable are text like any other: the shape shows now.
                serde_json::from_value::<OutboundContent>(content.clone())
                    .map_err(|error| ApiError::invalid("content", error.to_string()))?;
                Ok(Self::Content(content))
            }
            (None, None, None) => Err(ApiError::invalid(
                "message",
                "is missing (or give template_id or content)",
            )),
            _ => Err(ApiError::invalid(
                "message",
                "only one of template_id, message and content",
            )),
        }
    }

    /// The variables in it; `None` where nobody here knows them.
    fn variables(&self) -> Option<Vec<String>> {
        match self {
            Self::Template(template) => {
                let fields = &template.fields;
                let texts = TemplateTexts {
                    text: &fields.message_template,
                    subject: fields.email_subject.as_deref(),
                    html: fields.email_html.as_deref(),
                };
                Some(texts.variables())
            }
            Self::ContentSid(_) => None,
            Self::Message(text) => Some(template::variables(text)),
            Self::Plain(_) => Some(Vec::new()),
            Self::Content(content) => {
                let mut names = Vec::new();
                for_each_text(content, &mut |text| {
                    for name in template::variables(text) {
                        if !names.contains(&name) {
                            names.push(name);
                        }
                    }
                });
                Some(names)
            }
        }
    }
}

fn for_each_text(value: &Value, see: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => see(text),
        Value::Array(items) => items.iter().for_each(|item| for_each_text(item, see)),
        Value::Object(fields) => fields.values().for_each(|field| for_each_text(field, see)),
        _ => {}
    }
}

/// The content with every text in it filled in, by values that were checked.
fn fill(content: &Value, values: &Map<String, Value>) -> Value {
    let is_email = content["type"] == "email";
    match content {
        Value::String(text) => fill_text(text, values, template::render),
        Value::Array(items) => items.iter().map(|item| fill(item, values)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| match field {
                // A name is no markup.
                Value::String(html) if name == "html" && is_email => {
                    (name.clone(), fill_text(html, values, template::render_html))
                }
                _ => (name.clone(), fill(field, values)),
            })
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn fill_text(
    text: &str,
    values: &Map<String, Value>,
    render: fn(&str, &Map<String, Value>) -> Result<String, TemplateError>,
) -> Value {
    let names = template::variables(text);
    let own = values
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::String(render(text, &own).unwrap_or_else(|_| text.to_owned()))
}

/// One row of a list as it was given.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub to: String,
    pub name: Option<String>,
    pub variables: Map<String, Value>,
    /// A file has columns for other purposes: values that no variable asks for are left out, not refused.
    pub from_file: bool,
    /// What this row says instead of what the job says.
    pub source: Option<Arc<Prepared>>,
    /// It cannot even be read.
    pub problem: Option<String>,
}

/// Turns the rows of one job into recipients.
pub struct Renderer<'a> {
    state: &'a AppState,
    caller: &'a Caller,
    channel: Arc<Channel>,
    source: Option<Prepared>,
    shared: Map<String, Value>,
}

/// A source, with what is looked up once for all rows that share it.
#[derive(Debug)]
pub struct Prepared {
    source: Source,
    needed: Option<Vec<String>>,
    /// The provider's template that stands in for ours.
    approved: OnceCell<Option<Mapping>>,
}

impl Prepared {
    #[must_use]
    pub fn new(source: Source) -> Self {
        let needed = source.variables();
        Self {
            source,
            needed,
            approved: OnceCell::new(),
        }
    }
}

impl<'a> Renderer<'a> {
    /// `shared` are the variables for all; one that the source does not ask for is refused. Without `source` every row
    /// brings its own.
    pub fn new(
        state: &'a AppState,
        caller: &'a Caller,
        channel: Arc<Channel>,
        source: Option<Source>,
        shared: Map<String, Value>,
    ) -> Result<Self, ApiError> {
        let source = source.map(Prepared::new);
        if let Some(Prepared {
            needed: Some(needed),
            ..
        }) = &source
            && let Some(name) = shared.keys().find(|name| !needed.contains(name))
        {
            return Err(ApiError::invalid(
                format!("variables.{name}"),
                "is not a variable of this message",
            ));
        }
        Ok(Self {
            state,
            caller,
            channel,
            source,
            shared,
        })
    }

    /// Every row in its place: what they will get, or why not. Of several rows with one address the first counts.
    ///
    /// # Errors
    /// Trouble of our own.
    pub async fn render_all(&self, rows: &[Row]) -> Result<Vec<NewRecipient>, ApiError> {
        let mut seen: HashSet<(IdentityKind, String, Option<usize>)> = HashSet::new();
        let mut recipients = Vec::with_capacity(rows.len());
        for (n, row) in rows.iter().enumerate() {
            if n % BREATH == BREATH - 1 {
                tokio::task::yield_now().await;
            }
            let mut recipient = NewRecipient {
                // Postgres' text has no NUL.
                address: row.to.replace('\0', "").trim().to_owned(),
                name: row.name.as_ref().map(|name| name.replace('\0', "")),
                variables: Value::Object(row.variables.clone()),
                outcome: Err(Refusal {
                    code: "invalid_row".to_owned(),
                    words: row.problem.clone().unwrap_or_default(),
                }),
            };
            if row.problem.is_none() {
                recipient.outcome = match outbound::address(&self.channel, &row.to) {
                    Err(error) => Err(refusal("invalid_recipient", &error)),
                    Ok(identity) => {
                        recipient.address.clone_from(&identity.value);
                        // Rows that say something of their own are messages, and a person may get several.
                        let own = row.source.as_ref().map(|_| n);
                        if seen.insert((identity.kind, identity.value, own)) {
                            self.render(row).await?
                        } else {
                            Err(Refusal {
                                code: Refusal::DUPLICATE.to_owned(),
                                words: "an earlier row has the same address".to_owned(),
                            })
                        }
                    }
                };
            }
            if has_nul(&recipient.variables) {
                recipient.variables = Value::Object(Map::new());
                recipient.outcome = Err(Refusal {
                    code: "invalid_row".to_owned(),
                    words: "variables: hold a NUL character".to_owned(),
                });
            }
            recipients.push(recipient);
        }
        Ok(recipients)
    }

    async fn render(&self, row: &Row) -> Result<Result<Value, Refusal>, ApiError> {
        let Some(prepared) = row.source.as_deref().or(self.source.as_ref()) else {
            return Err(ApiError::invalid("message", "is missing"));
        };
        let values = self.values(row, prepared.needed.as_deref());
        let rendered = match self.content(prepared, values).await {
            Ok(content) => outbound::check(&self.channel, &content).map(|()| content),
            Err(error) if error.status.is_server_error() => return Err(error),
            Err(error) => Err(error),
        };
        Ok(match rendered {
            Ok(content) => serde_json::to_value(&content).map_err(|_| Refusal {
                code: "invalid_content".to_owned(),
                words: "the content is not JSON".to_owned(),
            }),
            Err(error) => Err(refusal("invalid_content", &error)),
        })
    }

    /// The row's values before those for all; its name where a variable `name` has no other.
    fn values(&self, row: &Row, needed: Option<&[String]>) -> Map<String, Value> {
        let is_needed = |name: &String| needed.is_none_or(|needed| needed.contains(name));
        let mut values = self.shared.clone();
        for (name, value) in &row.variables {
            if !row.from_file || is_needed(name) {
                values.insert(name.clone(), value.clone());
            }
        }
        let wants_name = needed.is_some_and(|needed| needed.iter().any(|name| name == "name"));
        if let (true, Some(name)) = (wants_name, &row.name) {
            values
                .entry("name")
                .or_insert_with(|| Value::String(name.clone()));
        }
        values
    }

    async fn content(
        &self,
        prepared: &Prepared,
        values: Map<String, Value>,
    ) -> Result<OutboundContent, ApiError> {
        let (source, needed) = (&prepared.source, prepared.needed.as_deref());
        if let (Source::Message(_) | Source::Content(_), Some(needed)) = (source, needed) {
            template::check(needed, &values)
                .map_err(|error| ApiError::refused("template_variables", error.to_string()))?;
        }
        let note =
            match source {
                Source::Content(content) => {
                    return serde_json::from_value(fill(content, &values))
                        .map_err(|error| ApiError::invalid("content", error.to_string()));
                }
                Source::Template(template) => Note {
                    template: Some(template.id.to_string()),
                    variables: Some(values),
                    ..Note::default()
                },
                Source::ContentSid(sid) => Note {
                    template: Some(sid.clone()),
                    variables: Some(values),
                    ..Note::default()
                },
                Source::Plain(text) => Note {
                    text: Some(text.clone()),
                    ..Note::default()
                },
                Source::Message(text) => Note {
                    text: Some(template::render(text, &values).map_err(|error| {
                        ApiError::refused("template_variables", error.to_string())
                    })?),
                    ..Note::default()
                },
            };
        let template = match source {
            Source::Template(template) => Some(&**template),
            _ => None,
        };
        let (content, _) = notify::content_of(
            self.state,
            self.caller,
            &self.channel,
            None,
            &note,
            template,
        )
        .await?;
        // Weeks may pass until it is sent: who is in a conversation then nobody knows, and the approved template may always go.
        let Some((desk, template)) = self.channel.open.templates().zip(template) else {
            return Ok(content);
        };
        let mapping = prepared
            .approved
            .get_or_try_init(|| self.find_approved(template.id))
            .await?;
        let Some(mapping) = mapping else {
            return Ok(content);
        };
        let media_url = template.fields.media_url.as_deref();
        let values = note.variables.unwrap_or_default();
        let mut filled = provider_templates::fill(desk, mapping, &values, media_url)?;
        if filled.text.is_none() {
            filled.text = content.text().map(str::to_owned);
        }
        Ok(OutboundContent::Template(filled))
    }

    async fn find_approved(&self, template: Uuid) -> Result<Option<Mapping>, ApiError> {
        let mut tx = self.state.db.tenant(&self.caller.claims()).await?;
        let org = self.caller.org_id;
        let mapping = provider_templates::approved(&mut tx, org, &self.channel, template).await?;
        tx.commit().await?;
        Ok(mapping)
    }
}

/// `jsonb` has no NUL either.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| name.contains('\0') || has_nul(field)),
        _ => false,
    }
}

/// An error of one row. What the API calls an invalid request has a better name here.
fn refusal(code: &str, error: &ApiError) -> Refusal {
    let code = if error.code == "invalid_request" {
        code
    } else {
        error.code
    };
    Refusal {
        code: code.to_owned(),
        words: error.in_words(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_found_and_filled_in_anywhere_in_content() {
        let content = json!({ "type": "template", "name": "order_ready", "components": [
            { "type": "body", "parameters": [{ "type": "text", "text": "{{order}} {{who}}" }] }], "n": 1 });
        let source = Source::Content(content.clone());
        assert_eq!(
            source.variables(),
            Some(vec!["order".to_owned(), "who".to_owned()])
        );
        let values = json!({ "order": "{{who}}", "who": 7 });
        let filled = fill(&content, values.as_object().unwrap());
        assert_eq!(
            filled.pointer("/components/0/parameters/0/text"),
            Some(&json!("{{who}} 7")),
            "a value is not looked through"
        );
        assert_eq!(filled["n"], 1);
    }

    #[test]
    fn nul_is_found_wherever_it_hides() {
        assert!(has_nul(&json!({ "a": [{ "b": "x\u{0}" }] })));
        assert!(has_nul(&json!({ "a\u{0}": 1 })));
        assert!(!has_nul(&json!({ "a": ["b", 1, null] })));
    }
}
