//! The sessions of this process.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use serde_json::Value;
use uuid::Uuid;
use wasel_domain::ChannelId;
use wasel_providers::LinkedPhones;
use wasel_sessions::{
    Command, CommandError, DEFAULT_URL, Manager, MediaLimits, Settings, TRUSTS_SIMULATOR,
};

use super::files::Files;
use super::host::ServerHost;
use crate::state::AppState;

/// The linked phones of this process. Made before the rest of the server, because channels are opened with it; nothing
/// runs until [`Phones::start`].
#[derive(Clone, Default)]
pub struct Phones(Arc<OnceLock<Started>>);

/// Whether a log record of this target comes from the protocol's libraries.
#[must_use]
pub fn is_protocol_log(target: &str) -> bool {
    wasel_sessions::is_protocol_log(target)
}

pub(super) struct Started {
    pub manager: Manager,
    pub state: AppState,
    pub files: Files,
    pub media: MediaLimits,
}

impl Phones {
    /// What channels of linked phones are opened with.
    #[must_use]
    pub fn provider(&self) -> Option<Arc<dyn LinkedPhones>> {
        Some(Arc::new(self.clone()))
    }

    /// Starts to run sessions: those that are to run and that no other node has.
    pub fn start(&self, state: &AppState) -> Result<()> {
        let config = &state.config.providers;
        let url = match &config.whatsapp_web_url {
            Some(url) => url.as_str(),
            None if TRUSTS_SIMULATOR => {
                tracing::info!(
                    "this build links simulated phones only, and WHATSAPP_WEB_URL names no simulator"
                );
                return Ok(());
            }
            None => DEFAULT_URL,
        };
        let url = url.parse().context("WHATSAPP_WEB_URL")?;
        let settings = Settings::new(url, state.media_http.clone());
        let media = settings.media;
        let host = Arc::new(ServerHost::new(state.clone()));
        let started = Started {
            manager: Manager::start(host, settings)?,
            state: state.clone(),
            files: Files::new(&state.config)?,
            media,
        };
        anyhow::ensure!(self.0.set(started).is_ok(), "the sessions run already");
        Ok(())
    }

    pub(super) fn get(&self) -> Option<&Started> {
        self.0.get()
    }

    /// Disconnects every session and gives its lease back.
    pub async fn stop(&self) {
        if let Some(started) = self.0.get() {
            started.manager.clone().stop().await;
        }
    }

    /// Looks for sessions to run now.
    pub fn wake(&self) {
        if let Some(started) = self.0.get() {
            started.manager.wake();
        }
    }

    /// Whether this node can send for the channel now.
    #[must_use]
    pub fn is_connected(&self, channel: ChannelId) -> bool {
        self.0
            .get()
            .is_some_and(|started| started.manager.is_connected(channel))
    }

    /// The sessions that run here.
    #[must_use]
    pub fn running(&self) -> Vec<Uuid> {
        self.0
            .get()
            .map(|started| started.manager.running())
            .unwrap_or_default()
    }

    /// Carries out a command of a session that runs here.
    pub async fn command(&self, session: Uuid, command: Command) -> Result<Value, CommandError> {
        match self.0.get() {
            Some(started) => started.manager.command(session, command).await,
            None => Err(CommandError::NotHere),
        }
    }
}
