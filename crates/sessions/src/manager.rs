//! Runs the sessions whose lease this node holds.

use std::sync::Arc;

use uuid::Uuid;
use wasel_domain::ChannelId;

use crate::command::{Command, CommandError};
use crate::host::Host;
use crate::outbound::{Outgoing, SendFailure, Sent};
use crate::settings::{Settings, SettingsError};

/// The sessions of this process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    _host: Arc<dyn Host>,
}

/// How many sessions this node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub connected: usize,
}

impl Manager {
    /// Starts looking for sessions to run. Must be called within a Tokio runtime.
    pub fn start(host: Arc<dyn Host>, settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self {
            inner: Arc::new(Inner { _host: host }),
        })
    }

    /// Looks for sessions to run now instead of at the next turn.
    pub fn wake(&self) {}

    /// Whether messages of this channel can be sent from here.
    #[must_use]
    pub fn is_connected(&self, channel: ChannelId) -> bool {
        self.connected_channels().contains(&channel)
    }

    /// The channels whose messages can be sent from here.
    #[must_use]
    pub fn connected_channels(&self) -> Vec<ChannelId> {
        let _ = &self.inner;
        Vec::new()
    }

    /// The sessions that run here.
    #[must_use]
    pub fn running(&self) -> Vec<Uuid> {
        Vec::new()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Sends a message and waits for the answer of WhatsApp's server.
    pub async fn send(&self, _channel: ChannelId, _message: Outgoing) -> Result<Sent, SendFailure> {
        Err(SendFailure::NotConnected)
    }

    /// Carries out a command of a session that runs here.
    pub async fn command(
        &self,
        _session: Uuid,
        _command: Command,
    ) -> Result<serde_json::Value, CommandError> {
        Err(CommandError::NotHere)
    }

    /// Disconnects all sessions in order, writes what is not written yet and gives the leases back.
    pub async fn stop(self) {}
}
