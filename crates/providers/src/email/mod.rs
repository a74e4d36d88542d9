//! E-mail: SMTP out, raw mail in by webhook.
//!
//! Read the files in this order: `settings` (what makes a channel), `signature` (who posted it?), `address` (whom it
//! is for), `bounds` with `parse` (what kind of mail?), `inbound` with `quote` and `html` (a customer's), `report`
//! (bounces and complaints), `media` (a file in it), `content` and `compose` (saying something), `relay` with `clear`
//! (handing it over), `errors` (what a reply means).
//!
//! What mail cannot do, and what this folder does about it:
//! - A mail server that took a mail reports nothing more when all goes well, so acceptance is `Sent` and there is no
//!   `Delivered`, let alone `Read`, unless a server reports it unasked.
//! - There is no idempotency key. All attempts at a message bear the same Message-ID, by which many mail systems drop
//!   a second copy; a bounce names the attempt.
//! - A file goes out as a link (see `content`).
//! - Message ids are without angle brackets everywhere but on the wire.

mod address;
mod bounds;
mod clear;
mod compose;
mod content;
mod errors;
mod html;
mod inbound;
mod media;
mod parse;
mod quote;
mod relay;
mod report;
mod settings;
mod signature;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use wasel_domain::event::IdentityKind;
use wasel_domain::{ChannelId, MediaRef, MessageStatus, OutboundContent, RoutedEvent};

use self::relay::{Parcel, Relay};
use self::settings::Settings;
use crate::{
    Accepted, Capabilities, ChannelKind, ContentError, ErrorClass, FetchFrom, FetchedMedia,
    OpenChannel, Outbound, ParseError, Provider, ProviderConfig, ReadReceipt, SendError,
    SettingsError, VerifyError, WebhookRequest,
};

/// In and out. Nobody reads more, and a search index does not want it.
const MAX_TEXT_CHARS: usize = 100_000;

static CAPABILITIES: Capabilities = Capabilities {
    has_service_window: false,
    read_receipts: false,
    typing_indicator: false,
    addressable: &[IdentityKind::Email],
    max_text_chars: MAX_TEXT_CHARS,
    // What Gmail and most others let a mail have.
    max_media_bytes: 25 * 1024 * 1024,
    messages_per_second: 20.0,
    pair_pace: None,
    answers_look_ups: false,
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
    fn parse(&self, request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError> {
        parse::events(request)
    }

    fn classify(&self, code: &str) -> ErrorClass {
        errors::classify(code)
    }

    fn secret_fields(&self) -> &'static [&'static str] {
        &["smtp_url", "webhook_secret"]
    }

    fn setting_fields(&self) -> &'static [&'static str] {
        &["from", "smtp_ca"]
    }

    fn open(
        &self,
        _id: ChannelId,
        kind: ChannelKind,
        settings: &Value,
        secrets: &Value,
    ) -> Result<Arc<dyn OpenChannel>, SettingsError> {
        if kind != ChannelKind::Email {
            return Err(SettingsError {
                field: "kind",
                reason: "is not e-mail".to_owned(),
            });
        }
        let mut settings = Settings::read(&self.config, settings, secrets)?;
        let relay = settings.server.take().map(Relay::new);
        Ok(Arc::new(EmailChannel { settings, relay }))
    }
}

/// One mailbox.
struct EmailChannel {
    settings: Settings,
    /// `None`: the channel only receives.
    relay: Option<Relay>,
}

#[async_trait]
impl OpenChannel for EmailChannel {
    fn capabilities(&self) -> &'static Capabilities {
        &CAPABILITIES
    }

    fn routing_keys(&self) -> Vec<String> {
        let from = self.settings.from.email.to_string().to_lowercase();
        vec![format!("email:{from}")]
    }

    fn verify(&self, request: &WebhookRequest<'_>) -> Result<(), VerifyError> {
        signature::verify(request, &self.settings.webhook_secrets)
    }

    fn challenge(&self, _query: &[(String, String)]) -> Option<String> {
        None
    }

    fn check(&self, message: &OutboundContent) -> Result<(), ContentError> {
        content::parts(message).map(drop)
    }

    async fn send(
        &self,
        _http: &reqwest::Client,
        message: &Outbound<'_>,
    ) -> Result<Accepted, SendError> {
        let relay = self.relay.as_ref().ok_or_else(|| {
            errors::plain(
                ErrorClass::ChannelBlocked,
                "the channel has no smtp_url, and the server no SMTP_URL: it can only receive",
            )
        })?;
        let parts = content::parts(message.content)
            .map_err(|error| errors::plain(ErrorClass::Content, &error.to_string()))?;
        let text = parts.text.clone();
        let mail = compose::compose(&self.settings.from, message, parts)?;
        let from = &self.settings.from.email;
        let mut private = vec![
            mail.subject.as_str(),
            mail.to.as_ref(),
            mail.to.user(),
            from.as_ref(),
            from.user(),
        ];
        // Spam filters like to quote a line of what they object to.
        private.extend(text.lines().map(str::trim));
        relay
            .deliver(&Parcel {
                from,
                to: &mail.to,
                message: &mail.bytes,
                private: &private,
            })
            .await?;
        Ok(Accepted {
            provider_message_id: mail.id,
            status: Some(MessageStatus::Sent),
            recipient: vec![message.to.clone()],
        })
    }

    /// Never called: the capabilities say that mail has no receipts.
    async fn mark_read(
        &self,
        _http: &reqwest::Client,
        _receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError> {
        Err(errors::plain(
            ErrorClass::Content,
            "an e-mail has no read receipts",
        ))
    }

    async fn fetch_media(
        &self,
        from: FetchFrom<'_>,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError> {
        media::fetch(from.webhook_body, media, max_bytes)
    }
}
