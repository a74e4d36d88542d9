//! The providers: stateless translation between one provider's wire format and the domain.
//!
//! A provider is one folder. Adding one: `docs/add-a-provider.md`. The contract is small and mandatory
//! ([`Provider`], [`OpenChannel`]); what a channel cannot do is a value ([`Capabilities`]), never a method that
//! answers "not supported". Every folder passes [`conformance`].

pub mod capabilities;
pub mod conformance;
pub mod email;
pub mod error;
pub mod media;
pub mod templates;
pub mod twilio;
pub mod webhook;
pub mod whatsapp_cloud;
pub mod whatsapp_web;
pub mod words;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wasel_domain::event::{Identity, RoutedEvent, StatusEvent};
use wasel_domain::{AttemptId, ChannelId, MediaRef, MessageId, MessageStatus, OutboundContent};

pub use capabilities::{Capabilities, PairPace};
pub use error::{ErrorClass, Fault, SendError};
pub use media::{FetchFrom, FetchedMedia};
pub use templates::ProviderTemplates;
pub use webhook::{ParseError, VerifyError, WebhookRequest};
pub use whatsapp_web::LinkedPhones;
pub use words::{Explanation, Language};

/// A kind of channel, as `wasel apply` and the `channels.kind` column name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    WhatsappCloud,
    TwilioSms,
    TwilioWhatsapp,
    Email,
    /// A linked phone.
    WhatsappWeb,
}

impl ChannelKind {
    pub const ALL: [ChannelKind; 5] = [
        Self::WhatsappCloud,
        Self::TwilioSms,
        Self::TwilioWhatsapp,
        Self::Email,
        Self::WhatsappWeb,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WhatsappCloud => "whatsapp_cloud",
            Self::TwilioSms => "twilio_sms",
            Self::TwilioWhatsapp => "twilio_whatsapp",
            Self::Email => "email",
            Self::WhatsappWeb => "whatsapp_web",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where the providers are and what all channels share. Read from the server's configuration.
#[derive(Clone, Debug, Default)]
pub struct ProviderConfig {
    /// `META_GRAPH_BASE`, without a trailing slash.
    pub meta_graph_base: String,
    /// Graph API version, `v26.0`.
    pub meta_graph_version: String,
    /// `META_APP_SECRET`: for channels that name no secret of their own.
    pub meta_app_secret: Option<String>,
    /// `META_VERIFY_TOKEN`: likewise.
    pub meta_verify_token: Option<String>,
    /// `TWILIO_API_BASE`, without a trailing slash.
    pub twilio_api_base: String,
    /// `TWILIO_AUTH_TOKEN`: likewise.
    pub twilio_auth_token: Option<String>,
    /// `SMTP_URL`: the mail server of e-mail channels that name none.
    pub smtp_url: Option<String>,
    /// `EMAIL_WEBHOOK_SECRET`: signs inbound mail for e-mail channels that name no secret of their own.
    pub email_webhook_secret: Option<String>,
}

/// A provider: parses its webhooks and opens its channels. Stateless.
pub trait Provider: Send + Sync {
    /// Turns one webhook request into events. Pure and total: any bytes give events or an error, never a panic.
    /// Nothing is trusted yet: the signature is checked next, against the channel that each event claims.
    fn parse(&self, request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError>;

    /// What kind of failure one of this provider's error codes is, for codes that come later than the answer to a send.
    fn classify(&self, code: &str) -> ErrorClass;

    /// Which keys of a channel's declaration are secret: they are stored sealed.
    fn secret_fields(&self) -> &'static [&'static str];

    /// The other keys, which anybody in the tenant may see.
    fn setting_fields(&self) -> &'static [&'static str];

    /// Binds the provider to one channel's settings and secrets (JSON objects, see each folder's `settings.rs`).
    fn open(
        &self,
        id: ChannelId,
        kind: ChannelKind,
        settings: &Value,
        secrets: &Value,
    ) -> Result<Arc<dyn OpenChannel>, SettingsError>;
}

/// One configured channel, ready to verify, send and fetch.
#[async_trait]
pub trait OpenChannel: Send + Sync {
    /// What this kind of channel can do.
    fn capabilities(&self) -> &'static Capabilities;

    /// Every key under which a webhook may name this channel, in the same spelling as [`RoutedEvent::routes`].
    fn routing_keys(&self) -> Vec<String>;

    /// Checks that the provider, and nobody else, sent this request for this channel: constant-time, over the
    /// raw body bytes.
    fn verify(&self, request: &WebhookRequest<'_>) -> Result<(), VerifyError>;

    /// Answers a provider's subscription handshake (Meta's GET with `hub.challenge`): the text to send back, or
    /// `None` if the request is no handshake for this channel.
    fn challenge(&self, query: &[(String, String)]) -> Option<String>;

    /// Refuses content this channel can never carry, naming the field, before it is queued.
    fn check(&self, message: &OutboundContent) -> Result<(), ContentError>;

    /// Hands one message to the provider. `Ok` means accepted, not delivered. An error whose class is
    /// [`ErrorClass::Ambiguous`] means that the provider may have it.
    async fn send(
        &self,
        http: &reqwest::Client,
        message: &Outbound<'_>,
    ) -> Result<Accepted, SendError>;

    /// Tells the customer that their message was read, optionally showing "typing…".
    /// Only called where the capabilities say so.
    async fn mark_read(
        &self,
        http: &reqwest::Client,
        receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError>;

    /// Asks the provider how a message of ours fared. Only called where the capabilities say so.
    async fn look_up(
        &self,
        _http: &reqwest::Client,
        _provider_message_id: &str,
    ) -> Result<LookedUp, SendError> {
        Err(SendError {
            class: ErrorClass::Content,
            code: None,
            detail: "this provider cannot be asked how a message fared".to_owned(),
            retry_after: None,
        })
    }

    /// The templates its provider keeps and approves; `None` where it keeps none that we can reach.
    fn templates(&self) -> Option<&dyn ProviderTemplates> {
        None
    }

    /// Gets a file a customer sent. Credentials go only to the provider's own hosts.
    async fn fetch_media(
        &self,
        from: FetchFrom<'_>,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError>;
}

/// One message on its way out.
#[derive(Clone, Debug)]
pub struct Outbound<'a> {
    /// The same for every attempt at this message.
    pub message_id: MessageId,
    pub attempt_id: AttemptId,
    /// Whom to, by the identity this channel can address.
    pub to: &'a Identity,
    pub content: &'a OutboundContent,
    /// The provider's id of the message this one quotes.
    pub quoted_message_id: Option<&'a str>,
    /// What was said before, where the channel asks for it ([`Capabilities::threads_by_id`]).
    pub thread: Option<&'a Thread>,
    /// The group it goes to, where it goes to one; `to` is then somebody in it.
    pub group_id: Option<&'a str>,
    /// Where the provider shall report, for those that take an address per message; it carries the attempt id.
    pub status_callback: Option<&'a str>,
}

/// The conversation a message continues, for channels whose messages name those before them (e-mail).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its subject line.
    pub subject: Option<String>,
    /// The provider's ids of its latest messages, the oldest first.
    pub message_ids: Vec<String>,
}

/// The provider took the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub provider_message_id: String,
    /// What taking it already proves, where no report will follow: an SMTP server that took a message has it `Sent`.
    pub status: Option<MessageStatus>,
    /// The recipient as the provider knows them, where it says so (Brazil and Mexico differ from what was dialled).
    pub recipient: Vec<Identity>,
}

/// How a message fared, by the provider's own record of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LookedUp {
    pub status: StatusEvent,
    /// `{price?, currency?, segments?}`; the price as the provider writes it.
    pub pricing: Option<Value>,
}

#[derive(Clone, Debug)]
pub struct ReadReceipt<'a> {
    pub provider_message_id: &'a str,
    pub typing: bool,
}

/// Settings or secrets that do not make a channel.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SettingsError {
    pub field: &'static str,
    pub reason: String,
}

/// Content this channel cannot carry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ContentError {
    /// JSON path in the request, e.g. `content.body`.
    pub field: String,
    pub reason: String,
}

/// All providers, by the kinds of channel they serve.
pub struct Providers {
    whatsapp_cloud: whatsapp_cloud::WhatsappCloud,
    twilio: twilio::Twilio,
    email: email::Email,
    whatsapp_web: whatsapp_web::WhatsappWeb,
}

impl Providers {
    /// `phones` runs the linked ones; `None` where this build has none.
    #[must_use]
    pub fn new(config: ProviderConfig, phones: Option<Arc<dyn LinkedPhones>>) -> Self {
        Self {
            whatsapp_cloud: whatsapp_cloud::WhatsappCloud::new(config.clone()),
            twilio: twilio::Twilio::new(config.clone()),
            email: email::Email::new(config),
            whatsapp_web: whatsapp_web::WhatsappWeb::new(phones),
        }
    }

    #[must_use]
    pub fn of(&self, kind: ChannelKind) -> &dyn Provider {
        match kind {
            ChannelKind::WhatsappCloud => &self.whatsapp_cloud,
            ChannelKind::TwilioSms | ChannelKind::TwilioWhatsapp => &self.twilio,
            ChannelKind::Email => &self.email,
            ChannelKind::WhatsappWeb => &self.whatsapp_web,
        }
    }
}
