//! Linked phones in this server: where the sessions' leases, state and traffic go, and how messages reach them.
//!
//! - [`host`]: what the sessions need of the server
//! - [`news`]: what became of a session, as its row and the people see it
//! - [`key_rows`]: a session's sealed state
//! - [`send`]: from an outbound message to the session that sends it
//! - [`files`]: the files messages name by a link
//! - [`commands`]: what people ask of a session, on whichever node it runs
//! - [`qr`]: QR codes as pictures

pub mod commands;
mod files;
mod host;
pub mod key_rows;
mod news;
pub mod qr;
mod send;

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use wasel_domain::ChannelId;
use wasel_sessions::{Manager, Settings};

use crate::state::AppState;
pub use host::ServerHost;

/// The linked phones of this process. Made before the rest of the server, because channels are opened with it; nothing
/// runs until [`Phones::start`].
#[derive(Clone, Default)]
pub struct Phones(Arc<OnceLock<Started>>);

struct Started {
    manager: Manager,
    state: AppState,
    files: files::Files,
}

impl Phones {
    /// Starts to run sessions: those that are to run and that no other node has.
    pub fn start(&self, state: &AppState) -> Result<()> {
        let settings = settings(state)?;
        let host = Arc::new(ServerHost::new(state.clone()));
        let manager = Manager::start(host, settings).context("WHATSAPP_WEB_URL")?;
        let files = files::Files::new(&state.config)?;
        let started = Started {
            manager,
            state: state.clone(),
            files,
        };
        anyhow::ensure!(self.0.set(started).is_ok(), "the sessions run already");
        Ok(())
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
}

fn settings(state: &AppState) -> Result<Settings> {
    let config = &state.config;
    let mut settings = Settings::new(state.media_http.clone());
    if let Some(url) = &config.providers.whatsapp_web_url {
        settings.url = url.as_str().parse().context("WHATSAPP_WEB_URL")?;
    }
    Ok(settings)
}
