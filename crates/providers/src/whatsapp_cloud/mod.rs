//! WhatsApp Cloud API (Meta Graph).

use std::sync::Arc;

use serde_json::Value;
use wasel_domain::RoutedEvent;

use crate::{
    ChannelKind, OpenChannel, ParseError, Provider, ProviderConfig, SettingsError, WebhookRequest,
};

pub struct WhatsappCloud;

impl WhatsappCloud {
    pub fn new(_config: ProviderConfig) -> Self {
        Self
    }
}

impl Provider for WhatsappCloud {
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
