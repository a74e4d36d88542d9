//! Linked phones: WhatsApp as one of its own phones speaks it.
//!
//! There is no web service to call: the session that speaks for the phone runs in this server (or in another node of
//! it), so this folder only says what such a channel can do and what its refusals mean. [`LinkedPhones`] is what runs
//! the sessions.

mod content;
mod errors;

pub use errors::classify;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wasel_domain::event::{IdentityKind, ProviderEvent};
use wasel_domain::{ChannelId, MediaRef, OutboundContent, RoutedEvent};

use crate::{
    Accepted, Capabilities, ChannelKind, ContentError, ErrorClass, FetchFrom, FetchedMedia,
    OpenChannel, Outbound, ParseError, Provider, ReadReceipt, SendError, SettingsError,
    VerifyError, WebhookRequest,
};

static CAPABILITIES: Capabilities = Capabilities {
    has_service_window: false,
    read_receipts: true,
    typing_indicator: true,
    addressable: &[IdentityKind::Phone, IdentityKind::Jid, IdentityKind::Lid],
    max_text_chars: 65_536,
    // Documents may be larger; they are held in memory on their way.
    max_media_bytes: 100 * 1024 * 1024,
    // A phone that writes faster than a person looks like what gets blocked.
    messages_per_second: 1.0,
    pair_pace: None,
    answers_look_ups: false,
    threads_by_id: false,
    media_in_webhook: false,
};

/// In front of the channel's id, where the ledger keeps a webhook's path.
pub const STORED_PATH: &str = "/linked-phones/";

/// Runs the sessions of linked phones.
#[async_trait]
pub trait LinkedPhones: Send + Sync {
    /// Reads stored traffic again. Pure and total.
    fn parse(&self, stored: &[u8]) -> Result<Vec<ProviderEvent>, ParseError>;

    /// As [`OpenChannel::send`].
    async fn send(&self, channel: ChannelId, message: &Outbound<'_>)
    -> Result<Accepted, SendError>;

    /// As [`OpenChannel::mark_read`].
    async fn mark_read(
        &self,
        channel: ChannelId,
        receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError>;

    /// As [`OpenChannel::fetch_media`].
    async fn fetch_media(
        &self,
        from: FetchFrom<'_>,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError>;
}

/// The provider: see the module.
pub struct WhatsappWeb {
    /// `None` where this build has none.
    phones: Option<Arc<dyn LinkedPhones>>,
}

impl WhatsappWeb {
    #[must_use]
    pub fn new(phones: Option<Arc<dyn LinkedPhones>>) -> Self {
        Self { phones }
    }
}

/// How stored traffic names its channel.
fn route(channel: ChannelId) -> String {
    format!("whatsapp_web:{channel}")
}

impl Provider for WhatsappWeb {
    fn parse(&self, request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError> {
        let phones = self
            .phones
            .as_ref()
            .ok_or_else(|| ParseError(NOT_BUILT.to_owned()))?;
        let channel = request
            .url
            .rsplit_once(STORED_PATH)
            .and_then(|(_, id)| id.parse().ok())
            .ok_or_else(|| ParseError("names no channel".to_owned()))?;
        let routes = vec![route(ChannelId(channel))];
        let events = phones.parse(request.body)?;
        Ok(events
            .into_iter()
            .map(|event| RoutedEvent {
                routes: routes.clone(),
                event,
            })
            .collect())
    }

    fn classify(&self, code: &str) -> ErrorClass {
        classify(code)
    }

    fn secret_fields(&self) -> &'static [&'static str] {
        &[]
    }

    fn setting_fields(&self) -> &'static [&'static str] {
        &[]
    }

    fn open(
        &self,
        id: ChannelId,
        kind: ChannelKind,
        _settings: &Value,
        _secrets: &Value,
    ) -> Result<Arc<dyn OpenChannel>, SettingsError> {
        let refuse = |reason: &str| SettingsError {
            field: "kind",
            reason: reason.to_owned(),
        };
        if kind != ChannelKind::WhatsappWeb {
            return Err(refuse("is not a linked phone"));
        }
        let phones = self.phones.clone().ok_or_else(|| refuse(NOT_BUILT))?;
        Ok(Arc::new(LinkedPhone { id, phones }))
    }
}

const NOT_BUILT: &str = "this build has no linked phones (feature linked-phones)";

/// One phone.
struct LinkedPhone {
    id: ChannelId,
    phones: Arc<dyn LinkedPhones>,
}

#[async_trait]
impl OpenChannel for LinkedPhone {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    fn routing_keys(&self) -> Vec<String> {
        vec![route(self.id)]
    }

    fn verify(&self, _request: &WebhookRequest<'_>) -> Result<(), VerifyError> {
        // Nothing comes by webhook, so whatever does is not ours.
        Err(VerifyError::NoSecret)
    }

    fn challenge(&self, _query: &[(String, String)]) -> Option<String> {
        None
    }

    fn check(&self, message: &OutboundContent) -> Result<(), ContentError> {
        content::check(message, CAPABILITIES.max_text_chars)
    }

    async fn send(
        &self,
        _http: &reqwest::Client,
        message: &Outbound<'_>,
    ) -> Result<Accepted, SendError> {
        self.phones.send(self.id, message).await
    }

    async fn mark_read(
        &self,
        _http: &reqwest::Client,
        receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError> {
        self.phones.mark_read(self.id, receipt).await
    }

    async fn fetch_media(
        &self,
        from: FetchFrom<'_>,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError> {
        self.phones.fetch_media(from, media, max_bytes).await
    }
}
