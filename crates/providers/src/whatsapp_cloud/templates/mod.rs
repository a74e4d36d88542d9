//! Message templates of a WABA: `/{version}/{waba_id}/message_templates`.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/overview>
//!
//! - [`draft`]: ours in Meta's form, by Meta's rules
//! - [`parameters`]: what a template needs, filling it in, checking what somebody filled in

mod draft;
mod parameters;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;
use wasel_domain::content::OutboundTemplate;
use wasel_domain::provider_template::{ParameterFormat, ProviderTemplate, VariableMap};

use super::CloudChannel;
use super::graph::repeatable;
use crate::templates::{CreatedTemplate, TemplateDraft, TemplatePage, TemplateParameters};
use crate::{ContentError, ErrorClass, ProviderTemplates, SendError};

/// What we read of each template.
const FIELDS: &str =
    "id,name,language,status,category,parameter_format,components,quality_score,rejected_reason";
/// Templates asked for at a time.
const PAGE: &str = "100";

#[async_trait]
impl ProviderTemplates for CloudChannel {
    fn draft(
        &self,
        wanted: &TemplateDraft,
    ) -> Result<(ProviderTemplate, VariableMap), ContentError> {
        draft::draft(wanted)
    }

    fn parameters(&self, template: &ProviderTemplate) -> Option<TemplateParameters> {
        Some(parameters::of(template.components.as_deref()?))
    }

    fn fill(
        &self,
        template: &ProviderTemplate,
        variables: &VariableMap,
        values: &Map<String, Value>,
        media_url: Option<&str>,
    ) -> Result<OutboundTemplate, ContentError> {
        parameters::fill(template, variables, values, media_url)
    }

    fn check(
        &self,
        template: &ProviderTemplate,
        sent: &OutboundTemplate,
    ) -> Result<(), ContentError> {
        parameters::check(template, sent)
    }

    async fn list(
        &self,
        http: &reqwest::Client,
        after: Option<&str>,
    ) -> Result<TemplatePage, SendError> {
        let mut url = self.templates_url();
        url.query_pairs_mut()
            .append_pair("fields", FIELDS)
            .append_pair("limit", PAGE);
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let body = self.graph.call(http.get(url), &[]).await;
        let page: ListAnswer = read(&body.map_err(repeatable)?).map_err(repeatable)?;
        let next = page.paging.and_then(|paging| paging.next);
        Ok(TemplatePage {
            templates: page
                .data
                .into_iter()
                .map(ListedTemplate::into_template)
                .collect(),
            // Only the cursor is taken from the address: the request goes where ours go.
            next: next.as_deref().and_then(cursor_of),
        })
    }

    async fn create(
        &self,
        http: &reqwest::Client,
        template: &ProviderTemplate,
    ) -> Result<CreatedTemplate, SendError> {
        let body = json!({
            "name": template.name,
            "language": template.language,
            "category": template.category,
            "parameter_format": template.parameter_format.as_str(),
            "components": template.components,
        });
        let request = http.post(self.templates_url()).json(&body);
        let answer: CreateAnswer = read(&self.graph.call(request, &[]).await?)?;
        Ok(CreatedTemplate {
            provider_id: id_of(&answer.id).ok_or_else(unreadable)?,
            status: answer.status.unwrap_or_else(|| "PENDING".to_owned()),
            category: answer.category,
        })
    }

    async fn delete(
        &self,
        http: &reqwest::Client,
        template: &ProviderTemplate,
    ) -> Result<(), SendError> {
        let mut url = self.templates_url();
        url.query_pairs_mut().append_pair("name", &template.name);
        if let Some(id) = &template.provider_id {
            url.query_pairs_mut().append_pair("hsm_id", id);
        }
        match self.graph.call(http.delete(url), &[]).await {
            Ok(_) => Ok(()),
            // The repetition of a removal whose answer was lost.
            Err(error) if error.detail.contains("Message Template Not Found") => Ok(()),
            Err(error) => Err(repeatable(error)),
        }
    }
}

impl CloudChannel {
    fn templates_url(&self) -> Url {
        self.graph
            .url(&[&self.settings.waba_id, "message_templates"])
    }
}

#[derive(Deserialize)]
struct ListAnswer {
    #[serde(default)]
    data: Vec<ListedTemplate>,
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct Paging {
    next: Option<String>,
}

#[derive(Deserialize)]
struct ListedTemplate {
    #[serde(default)]
    id: Value,
    name: String,
    language: String,
    status: String,
    category: Option<String>,
    parameter_format: Option<String>,
    #[serde(default)]
    components: Vec<Value>,
    #[serde(default)]
    quality_score: Value,
    rejected_reason: Option<String>,
}

impl ListedTemplate {
    fn into_template(self) -> ProviderTemplate {
        let format = self
            .parameter_format
            .as_deref()
            .and_then(ParameterFormat::parse);
        ProviderTemplate {
            provider_id: id_of(&self.id),
            name: self.name,
            language: self.language,
            category: self.category,
            status: self.status,
            parameter_format: format.unwrap_or_else(|| parameters::format_of(&self.components)),
            components: Some(self.components),
            quality: self
                .quality_score
                .get("score")
                .and_then(Value::as_str)
                .map(str::to_owned),
            rejected_reason: self.rejected_reason.filter(|reason| reason != "NONE"),
        }
    }
}

#[derive(Deserialize)]
struct CreateAnswer {
    id: Value,
    status: Option<String>,
    category: Option<String>,
}

/// Meta writes ids as texts and, here and there, as numbers.
fn id_of(id: &Value) -> Option<String> {
    match id {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn cursor_of(next: &str) -> Option<String> {
    let next = Url::parse(next).ok()?;
    let found = next.query_pairs().find(|(name, _)| name == "after");
    found.map(|(_, cursor)| cursor.into_owned())
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, SendError> {
    serde_json::from_slice(body).map_err(|_| unreadable())
}

fn unreadable() -> SendError {
    SendError {
        class: ErrorClass::Ambiguous,
        code: None,
        detail: "the provider's answer could not be read".to_owned(),
        retry_after: None,
    }
}
