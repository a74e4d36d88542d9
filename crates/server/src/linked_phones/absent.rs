//! A build without linked phones.

use std::sync::Arc;

use wasel_domain::ChannelId;
use wasel_providers::LinkedPhones;

use crate::state::AppState;

/// None.
#[derive(Clone, Default)]
pub struct Phones(());

/// There are no such libraries.
#[must_use]
pub fn is_protocol_log(_target: &str) -> bool {
    false
}

impl Phones {
    /// Nothing to open their channels with.
    #[must_use]
    pub fn provider(&self) -> Option<Arc<dyn LinkedPhones>> {
        None
    }

    /// Nothing starts.
    pub fn start(&self, _state: &AppState) -> anyhow::Result<()> {
        Ok(())
    }

    /// Nothing to stop.
    pub async fn stop(&self) {}

    /// Nothing to look for.
    pub fn wake(&self) {}

    #[must_use]
    pub fn is_connected(&self, _channel: ChannelId) -> bool {
        false
    }
}
