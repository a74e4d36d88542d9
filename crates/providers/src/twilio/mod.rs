//! Twilio Programmable Messaging: SMS and WhatsApp.

use std::sync::Arc;

use serde_json::Value;
use wasel_domain::RoutedEvent;

use crate::{
    ChannelKind, OpenChannel, ParseError, Provider, ProviderConfig, SettingsError, WebhookRequest,
};

pub struct Twilio;

impl Twilio {
    pub fn new(_config: ProviderConfig) -> Self {
        Self
    }
}

impl Provider for Twilio {
    fn parse(&self, _request: &WebhookRequest<'_>) -> Result<Vec<RoutedEvent>, ParseError> {
        Err(ParseError("not built yet".to_owned()))
    }

    fn open(
        &self,
        _: ChannelKind,
        _: &Value,
        _: &Value,
    ) -> Result<Arc<dyn OpenChannel>, SettingsError> {
        Err(SettingsError {
            field: "kind",
            reason: "not built yet".to_owned(),
        })
    }
}
