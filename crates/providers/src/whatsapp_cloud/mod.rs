//! WhatsApp Cloud API (Meta Graph).
//!
//! - [`settings`]: what a channel is configured with
//! - [`webhook`]: signature and subscription handshake
//! - [`parse`]: webhooks to events
//! - [`check`]: content this channel can never carry
//! - [`send`]: messages and read receipts
//! - [`media`]: files from customers
//! - [`templates`]: message templates, theirs and ours
//! - [`errors`]: Meta's error codes by class
//!
//! Rules are Meta's, from <https://developers.facebook.com/documentation/business-messaging/whatsapp/>.

mod check;
mod errors;
mod graph;
mod media;
mod parse;
mod send;
mod settings;
mod templates;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use wasel_domain::event::{IdentityKind, RoutedEvent};
use wasel_domain::{ChannelId, MediaRef, OutboundContent};

pub use errors::classify;

use crate::{
    Accepted, Capabilities, ChannelKind, ContentError, ErrorClass, FetchFrom, FetchedMedia,
    OpenChannel, Outbound, PairPace, ParseError, Provider, ProviderConfig, ProviderTemplates,
    ReadReceipt, SendError, SettingsError, VerifyError, WebhookRequest,
};
use graph::Graph;
use settings::Settings;

static CAPABILITIES: Capabilities = Capabilities {
    has_service_window: true,
    read_receipts: true,
    typing_indicator: true,
    addressable: &[IdentityKind::Phone, IdentityKind::Bsuid],
    max_text_chars: check::MAX_TEXT_CHARS,
    // Meta's limit for documents; every other kind of file is smaller.
    max_media_bytes: 100 * 1024 * 1024,
    // Meta, "Throughput" and "About the platform" (pair rate limit).
    messages_per_second: 80.0,
    pair_pace: Some(PairPace {
        every: Duration::from_secs(6),
        burst: 45,
    }),
    answers_look_ups: false,
    threads_by_id: false,
    media_in_webhook: false,
};

/// The provider: see the module.
pub struct WhatsappCloud {
    config: ProviderConfig,
}

impl WhatsappCloud {
    #[must_use]
    pub fn new(config: ProviderConfig) -> Self {
        Self { config }
    }
}

impl Provider for WhatsappCloud {
    fn secret_fields(&self) -> &'static [&'static str] {
        &["access_token", "app_secret", "verify_token"]
    }

    fn classify(&self, code: &str) -> ErrorClass {
        errors::classify(code)
    }

    fn setting_fields(&self) -> &'static [&'static str] {
        &[
            "waba_id",
            "phone_number_id",
            "display_phone_number",
            "owner_business_id",
        ]
    }

    fn parse(&self, request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError> {
        parse::parse(request.body)
    }

    fn open(
        &self,
        _id: ChannelId,
        kind: ChannelKind,
        settings: &Value,
        secrets: &Value,
    ) -> Result<Arc<dyn OpenChannel>, SettingsError> {
        if kind != ChannelKind::WhatsappCloud {
            return Err(SettingsError {
                field: "kind",
                reason: format!("`{}` is not WhatsApp Cloud", kind.as_str()),
            });
        }
        let settings = Settings::read(&self.config, settings, secrets)?;
        let graph = Graph::new(&self.config, &settings)?;
        Ok(Arc::new(CloudChannel { settings, graph }))
    }
}

/// One WhatsApp Business number.
struct CloudChannel {
    settings: Settings,
    graph: Graph,
}

#[async_trait]
impl OpenChannel for CloudChannel {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    fn routing_keys(&self) -> Vec<String> {
        vec![
            parse::phone_route(&self.settings.phone_number_id),
            parse::waba_route(&self.settings.waba_id),
        ]
    }

    fn verify(&self, request: &WebhookRequest<'_>) -> Result<(), VerifyError> {
        webhook::verify(&self.settings.app_secrets, request)
    }

    fn challenge(&self, query: &[(String, String)]) -> Option<String> {
        webhook::challenge(self.settings.verify_token.as_ref(), query)
    }

    fn check(&self, message: &OutboundContent) -> Result<(), ContentError> {
        check::check(message)
    }

    async fn send(
        &self,
        http: &reqwest::Client,
        message: &Outbound<'_>,
    ) -> Result<Accepted, SendError> {
        send::send(&self.graph, http, message).await
    }

    async fn mark_read(
        &self,
        http: &reqwest::Client,
        receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError> {
        send::mark_read(&self.graph, http, receipt).await
    }

    fn templates(&self) -> Option<&dyn ProviderTemplates> {
        Some(self)
    }

    async fn fetch_media(
        &self,
        from: FetchFrom<'_>,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError> {
        media::fetch(&self.graph, from.http, media, max_bytes).await
    }
}
