//! E-mail: SMTP out, raw MIME in by webhook.

mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wasel_domain::event::IdentityKind;
use wasel_domain::{MediaRef, OutboundContent, RoutedEvent};

use crate::{
    Accepted, Capabilities, ChannelKind, ContentError, ErrorClass, FetchFrom, FetchedMedia,
    OpenChannel, Outbound, ParseError, Provider, ProviderConfig, ReadReceipt, SendError,
    SettingsError, VerifyError, WebhookRequest,
};
use settings::Settings;

static CAPABILITIES: Capabilities = Capabilities {
    has_service_window: false,
    read_receipts: false,
    typing_indicator: false,
    addressable: &[IdentityKind::Email],
    max_text_chars: 100_000,
    max_media_bytes: 25 * 1024 * 1024,
    threads_by_id: true,
    media_in_webhook: true,
};

/// The provider: see the module.
pub struct Email {
    config: ProviderConfig,
}

impl Email {
    #[must_use]
    pub fn new(config: ProviderConfig) -> Self {
        Self { config }
    }
}

impl Provider for Email {
    fn parse(&self, _request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError> {
        Err(ParseError("not understood yet".to_owned()))
    }

    fn classify(&self, _code: &str) -> ErrorClass {
        ErrorClass::Recipient
    }

    fn secret_fields(&self) -> &'static [&'static str] {
        &["smtp_url", "webhook_secret"]
    }

    fn setting_fields(&self) -> &'static [&'static str] {
        &["from"]
    }

    fn open(
        &self,
        _kind: ChannelKind,
        settings: &Value,
        secrets: &Value,
    ) -> Result<Arc<dyn OpenChannel>, SettingsError> {
        Ok(Arc::new(EmailChannel {
            settings: Settings::read(&self.config, settings, secrets)?,
        }))
    }
}

struct EmailChannel {
    settings: Settings,
}

#[async_trait]
impl OpenChannel for EmailChannel {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    fn routing_keys(&self) -> Vec<String> {
        vec![format!("email:{}", self.settings.from)]
    }

    fn verify(&self, _request: &WebhookRequest<'_>) -> Result<(), VerifyError> {
        Err(VerifyError::NoSecret)
    }

    fn challenge(&self, _query: &[(String, String)]) -> Option<String> {
        None
    }

    fn check(&self, _message: &OutboundContent) -> Result<(), ContentError> {
        Ok(())
    }

    async fn send(
        &self,
        _http: &reqwest::Client,
        _message: &Outbound<'_>,
    ) -> Result<Accepted, SendError> {
        Err(not_yet())
    }

    async fn mark_read(
        &self,
        _http: &reqwest::Client,
        _receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError> {
        Err(not_yet())
    }

    async fn fetch_media(
        &self,
        _from: FetchFrom<'_>,
        _media: &MediaRef,
        _max_bytes: u64,
    ) -> Result<FetchedMedia, SendError> {
        Err(not_yet())
    }
}

fn not_yet() -> SendError {
    SendError {
        class: ErrorClass::Content,
        code: None,
        detail: "not built yet".to_owned(),
        retry_after: None,
    }
}
