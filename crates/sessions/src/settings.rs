//! What the sessions of this process are run with, and which addresses they may connect to.

use std::time::Duration;

use url::{Host, Url};

use crate::media::MediaLimits;
use crate::session::version::{ANY, Version};

/// WhatsApp Web's endpoint.
pub const DEFAULT_URL: &str = "wss://web.whatsapp.com/ws/chat";

#[derive(Clone, Debug)]
pub struct Settings {
    /// `WHATSAPP_WEB_URL`, or [`DEFAULT_URL`].
    pub url: Url,
    /// The version of WhatsApp Web to claim; looked up at WhatsApp once per process where `None`.
    pub version: Option<(u32, u32, u32)>,
    /// How long a lease lasts without being renewed.
    pub lease: Duration,
    /// How often all leases are renewed, in one call.
    pub renew_every: Duration,
    /// How often to look for sessions that nobody runs.
    pub look_every: Duration,
    /// How many sessions connect at a time after a start or a takeover.
    pub starting_at_once: usize,
    /// How many sessions this process runs at most.
    pub max_sessions: usize,
    /// How long the answer to a message we sent is waited for.
    pub ack_wait: Duration,
    /// How long a session may stay without a proven connection before it is built anew.
    pub rebuild_after: Duration,
    /// Shared by all sessions for uploads, downloads and the version.
    pub http: reqwest::Client,
    pub media: MediaLimits,
    /// How the list of linked devices on the phone names us.
    pub device_name: String,
}

impl Settings {
    /// Everything but the address and the HTTP client as usual.
    #[must_use]
    pub fn new(url: Url, http: reqwest::Client) -> Self {
        let loopback = is_loopback(&url);
        Self {
            version: None,
            lease: Duration::from_secs(15),
            renew_every: Duration::from_secs(5),
            look_every: Duration::from_secs(3),
            starting_at_once: 32,
            max_sessions: 2_000,
            ack_wait: Duration::from_secs(15),
            rebuild_after: Duration::from_secs(120),
            http,
            media: MediaLimits {
                max_bytes: 100 * 1024 * 1024,
                loopback: loopback && TRUSTS_SIMULATOR,
            },
            device_name: "Wasel".to_owned(),
            url,
        }
    }

    /// The version to claim without asking WhatsApp for it.
    pub(crate) fn fixed_version(&self) -> Option<Version> {
        self.version.or(is_loopback(&self.url).then_some(ANY))
    }

    /// Refuses what must not run: the simulator's certificates against anything but this machine, and messages to
    /// WhatsApp without TLS.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        self.check_for(TRUSTS_SIMULATOR)
    }

    fn check_for(&self, trusts_simulator: bool) -> Result<(), SettingsError> {
        let loopback = is_loopback(&self.url);
        match self.url.scheme() {
            _ if trusts_simulator && !loopback => Err(SettingsError::SimulatorBuild),
            "wss" => Ok(()),
            "ws" if loopback => Ok(()),
            "ws" => Err(SettingsError::Plain),
            other => Err(SettingsError::Scheme(other.to_owned())),
        }?;
        if self.lease < self.renew_every * 2 {
            return Err(SettingsError::Lease);
        }
        Ok(())
    }
}

/// Whether this build accepts the simulator's certificates.
pub const TRUSTS_SIMULATOR: bool = cfg!(feature = "trust-simulator");

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "this build trusts the simulated WhatsApp and connects to this machine only: set WHATSAPP_WEB_URL to a loopback address"
    )]
    SimulatorBuild,
    #[error("WHATSAPP_WEB_URL must be wss:// unless it is on this machine")]
    Plain,
    #[error("WHATSAPP_WEB_URL must be wss:// or ws://, not {0}://")]
    Scheme(String),
    #[error("WHATSAPP_WEB_URL is not the address of a server")]
    Address,
    #[error("the lease must last at least twice as long as the time between renewals")]
    Lease,
}

/// `localhost` counts only as the name itself: a name that somebody's DNS resolves does not.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, trusts_simulator: bool) -> Result<(), SettingsError> {
        Settings::new(url.parse().unwrap(), crate::http::client_for_tests())
            .check_for(trusts_simulator)
    }

    #[test]
    fn this_machine_is_always_allowed() {
        for url in [
            "ws://127.0.0.1:4000/ws/chat",
            "ws://localhost:4000/ws/chat",
            "ws://[::1]:4000/ws/chat",
            "wss://127.0.0.1:4000/ws/chat",
        ] {
            assert_eq!(check(url, true), Ok(()), "{url}");
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
    }

    #[test]
    fn a_build_that_trusts_the_simulator_connects_to_this_machine_only() {
        for url in [
            DEFAULT_URL,
            "ws://10.0.0.7/ws/chat",
            "wss://localhost.example.com/ws/chat",
            "wss://127.0.0.1.example.com/ws/chat",
        ] {
            assert_eq!(
                check(url, true),
                Err(SettingsError::SimulatorBuild),
                "{url}"
            );
        }
    }

    #[test]
    fn any_other_build_reaches_another_machine_with_tls_only() {
        assert_eq!(check(DEFAULT_URL, false), Ok(()));
        for url in ["ws://web.whatsapp.com/ws/chat", "ws://10.0.0.7/ws/chat"] {
            assert_eq!(check(url, false), Err(SettingsError::Plain), "{url}");
        }
        assert_eq!(
            check("https://web.whatsapp.com/", false),
            Err(SettingsError::Scheme("https".to_owned()))
        );
    }

    #[test]
    fn a_lease_shorter_than_two_renewals_is_refused() {
        let mut settings = Settings::new(
            "ws://127.0.0.1:1/".parse().unwrap(),
            crate::http::client_for_tests(),
        );
        settings.lease = settings.renew_every;
        assert_eq!(settings.check(), Err(SettingsError::Lease));
    }
}
