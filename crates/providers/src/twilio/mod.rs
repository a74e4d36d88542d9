//! Twilio Programmable Messaging: SMS/MMS (`twilio_sms`) and WhatsApp (`twilio_whatsapp`).
//!
//! Read the files in this order: `settings` (what makes a channel), `form` (a request's parameters),
//! `signature` (is it Twilio?), `address`, `parse` and `inbound` (what does it say?), `content` and `send`
//! (saying something), `look_up` (asking how it fared), `media` (fetching a customer's file), `errors` (what a code means).
//!
//! What Twilio's API cannot do, and what this folder does about it:
//! - There is no handshake, so [`OpenChannel::challenge`] is always `None`.
//! - A message cannot quote another: [`Outbound::quoted_message_id`] is ignored, and the message arrives
//!   unquoted.
//! - There is no idempotency key: our attempt id rides in the query of the `StatusCallback` address
//!   (`?attempt=<uuid>`), and a callback that carries it proves that Twilio took the message.
//! - "Read" and "typing…" are one call (WhatsApp only, public beta): marking a message read shows the typing
//!   indicator too, for up to 25 seconds, whatever [`ReadReceipt::typing`] says.
//!
//! A prefixless WhatsApp webhook (`From=+2010…` without `whatsapp:`) is known by `WaId`, `ChannelPrefix` or
//! `ExternalUserId`. With none of them it is read as SMS: guessing would put real text messages into a
//! WhatsApp conversation and open its 24-hour window.

mod address;
mod content;
mod errors;
mod form;
mod inbound;
mod look_up;
mod media;
mod parse;
mod send;
mod settings;
mod signature;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use url::Url;
use wasel_domain::event::IdentityKind;
use wasel_domain::{ChannelId, MediaRef, OutboundContent, RoutedEvent};

use self::address::Network;
pub use self::errors::classify_status_code;
use self::settings::Settings;
use crate::{
    Accepted, Capabilities, ChannelKind, ContentError, ErrorClass, FetchFrom, FetchedMedia,
    LookedUp, OpenChannel, Outbound, ParseError, Provider, ProviderConfig, ReadReceipt, SendError,
    SettingsError, VerifyError, WebhookRequest,
};

/// Where Twilio is, unless the configuration names a stand-in.
const PUBLIC_API_BASE: &str = "https://api.twilio.com";

/// Twilio's limit for `Body`, in characters (Messages resource, "Create a Message").
const MAX_BODY_CHARS: usize = 1600;

static SMS: Capabilities = Capabilities {
    has_service_window: false,
    read_receipts: false,
    typing_indicator: false,
    addressable: &[IdentityKind::Phone],
    max_text_chars: MAX_BODY_CHARS,
    // "Accepted content types for media": 5 MB for a whole MMS.
    max_media_bytes: 5 * 1024 * 1024,
    // Long codes differ by country; what is too fast waits in Twilio's queue (error 30001 when that is full).
    messages_per_second: 10.0,
    pair_pace: None,
    answers_look_ups: true,
    threads_by_id: false,
    media_in_webhook: false,
};

static WHATSAPP: Capabilities = Capabilities {
    has_service_window: true,
    read_receipts: true,
    typing_indicator: true,
    addressable: &[IdentityKind::Phone, IdentityKind::Bsuid],
    max_text_chars: MAX_BODY_CHARS,
    // "WhatsApp media messages": 16 MB.
    max_media_bytes: 16 * 1024 * 1024,
    // docs/whatsapp/best-practices-and-faqs.
    messages_per_second: 80.0,
    pair_pace: None,
    answers_look_ups: true,
    threads_by_id: false,
    media_in_webhook: false,
};

pub struct Twilio {
    config: ProviderConfig,
}

impl Twilio {
    #[must_use]
    pub fn new(config: ProviderConfig) -> Self {
        Self { config }
    }
}

impl Provider for Twilio {
    fn secret_fields(&self) -> &'static [&'static str] {
        &["auth_token"]
    }

    fn classify(&self, code: &str) -> ErrorClass {
        errors::classify_status_code(code)
    }

    fn setting_fields(&self) -> &'static [&'static str] {
        &["account_sid", "from", "messaging_service_sid"]
    }

    fn parse(&self, request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError> {
        // Twilio's webhooks carry no time of the event (only a carrier's receipt does, without a zone), so the
        // time of receipt stands for it.
        parse::events(request, request.received_at)
    }

    fn open(
        &self,
        _id: ChannelId,
        kind: ChannelKind,
        settings: &Value,
        secrets: &Value,
    ) -> Result<Arc<dyn OpenChannel>, SettingsError> {
        let network = match kind {
            ChannelKind::TwilioSms => Network::Sms,
            ChannelKind::TwilioWhatsapp => Network::Whatsapp,
            ChannelKind::WhatsappCloud | ChannelKind::Email | ChannelKind::WhatsappWeb => {
                return Err(SettingsError {
                    field: "kind",
                    reason: "not a kind of channel at Twilio".to_owned(),
                });
            }
        };
        let base = match self.config.twilio_api_base.as_str() {
            "" => PUBLIC_API_BASE,
            base => base,
        };
        let api_base = Url::parse(base).map_err(|error| SettingsError {
            field: "twilio_api_base",
            reason: error.to_string(),
        })?;
        Ok(Arc::new(TwilioChannel {
            network,
            settings: Settings::read(
                network,
                settings,
                secrets,
                self.config.twilio_auth_token.as_deref(),
            )?,
            api_base,
        }))
    }
}

/// One Twilio sender: a number, a short code or an alphanumeric name, on one network.
struct TwilioChannel {
    network: Network,
    settings: Settings,
    api_base: Url,
}

#[async_trait]
impl OpenChannel for TwilioChannel {
    fn capabilities(&self) -> &'static Capabilities {
        match self.network {
            Network::Sms => &SMS,
            Network::Whatsapp => &WHATSAPP,
        }
    }

    fn routing_keys(&self) -> Vec<String> {
        address::routes(
            &self.settings.account_sid,
            self.network,
            Some(&self.settings.from),
            self.settings.messaging_service_sid.as_deref(),
        )
    }

    fn verify(&self, request: &WebhookRequest<'_>) -> Result<(), VerifyError> {
        signature::verify(request, &self.settings.auth_tokens)
    }

    fn challenge(&self, _query: &[(String, String)]) -> Option<String> {
        None
    }

    fn check(&self, message: &OutboundContent) -> Result<(), ContentError> {
        content::fields(self.network, message).map(drop)
    }

    async fn send(
        &self,
        http: &reqwest::Client,
        message: &Outbound<'_>,
    ) -> Result<Accepted, SendError> {
        self.send_message(http, message).await
    }

    async fn mark_read(
        &self,
        http: &reqwest::Client,
        receipt: &ReadReceipt<'_>,
    ) -> Result<(), SendError> {
        self.show_typing(http, receipt.provider_message_id).await
    }

    async fn look_up(
        &self,
        http: &reqwest::Client,
        provider_message_id: &str,
    ) -> Result<LookedUp, SendError> {
        self.read_message(http, provider_message_id).await
    }

    async fn fetch_media(
        &self,
        from: FetchFrom<'_>,
        media: &MediaRef,
        max_bytes: u64,
    ) -> Result<FetchedMedia, SendError> {
        self.download(from.http, media, max_bytes).await
    }
}
