//! Templates that a provider keeps and approves. A channel without any answers `None` to
//! [`crate::OpenChannel::templates`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Map, Value};
use wasel_domain::content::OutboundTemplate;
use wasel_domain::provider_template::{ParameterFormat, ProviderTemplate, VariableMap};

use crate::{ContentError, SendError};

/// What can be done with the templates of one account.
#[async_trait]
pub trait ProviderTemplates: Send + Sync {
    /// The provider's template that says what ours says, and how our variables fill it.
    ///
    /// # Errors
    /// Names the part that breaks one of the provider's rules.
    fn draft(
        &self,
        wanted: &TemplateDraft,
    ) -> Result<(ProviderTemplate, VariableMap), ContentError>;

    /// What has to be filled in to send a template; `None` while its components are not known.
    fn parameters(&self, template: &ProviderTemplate) -> Option<TemplateParameters>;

    /// The template with its parameters filled in, ready to be sent. `values` are checked simple values.
    ///
    /// # Errors
    /// Names the variable, the parameter or the file at fault.
    fn fill(
        &self,
        template: &ProviderTemplate,
        variables: &VariableMap,
        values: &Map<String, Value>,
        media_url: Option<&str>,
    ) -> Result<OutboundTemplate, ContentError>;

    /// Whether these are the parameters that the template needs. Says nothing where only the provider knows.
    ///
    /// # Errors
    /// Names the component or parameter at fault, as in the body of `POST /v1/messages`.
    fn check(
        &self,
        template: &ProviderTemplate,
        sent: &OutboundTemplate,
    ) -> Result<(), ContentError>;

    /// One page of the account's templates, from the start or after a cursor.
    async fn list(
        &self,
        http: &reqwest::Client,
        after: Option<&str>,
    ) -> Result<TemplatePage, SendError>;

    /// Hands a drafted template in for approval.
    async fn create(
        &self,
        http: &reqwest::Client,
        template: &ProviderTemplate,
    ) -> Result<CreatedTemplate, SendError>;

    /// Removes one language of a template, or all of them where the provider's id is not known. Removing what is not
    /// there is no error.
    async fn delete(
        &self,
        http: &reqwest::Client,
        template: &ProviderTemplate,
    ) -> Result<(), SendError>;
}

/// A template to be made at the provider out of one of ours.
#[derive(Clone, Debug)]
pub struct TemplateDraft {
    pub name: String,
    pub language: String,
    /// `UTILITY`, `MARKETING`, `AUTHENTICATION`.
    pub category: String,
    pub format: ParameterFormat,
    /// Our text, with `{{variables}}`.
    pub text: String,
    /// The variables of ours that may occur.
    pub variables: Vec<String>,
    pub header: Option<DraftHeader>,
    pub footer: Option<String>,
    pub buttons: Vec<DraftButton>,
    /// Variable → a value that shows the reviewer what it is.
    pub examples: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftHeader {
    /// With at most one `{{variable}}`.
    Text(String),
    /// A file that each message brings along.
    Media {
        /// `image` or `document`.
        kind: &'static str,
        /// The provider's handle of an uploaded example.
        example_handle: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftButton {
    QuickReply {
        text: String,
    },
    /// The address may end in one `{{variable}}`.
    Url {
        text: String,
        url: String,
    },
    Phone {
        text: String,
        phone_number: String,
    },
}

/// What a template needs to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateParameters {
    /// The header's parameters, by number or name, in the order in which they are sent.
    pub header: Vec<String>,
    /// What the header shows instead of a text: `image`, `video`, `document`, `location`.
    pub header_media: Option<String>,
    pub body: Vec<String>,
    /// The places of the buttons that take a parameter.
    pub buttons: Vec<usize>,
}

/// One page of an account's templates.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplatePage {
    pub templates: Vec<ProviderTemplate>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// The provider took a template in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTemplate {
    pub provider_id: String,
    pub status: String,
    /// What the provider made of the category asked for.
    pub category: Option<String>,
}
