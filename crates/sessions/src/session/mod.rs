//! One linked phone: its task, and what others ask of it.

mod build;
mod commands;
mod ears;
mod ends;
mod history;
mod live;
mod outbox;
mod run;
mod send;
mod tell;
pub(crate) mod transport;
pub(crate) mod version;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use live::Live;
pub(crate) use run::run;

use crate::host::Host;
use crate::http::Http;
use crate::settings::Settings;
use transport::Route;
use version::Versions;

/// What all sessions of a process share.
pub(crate) struct Shared {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) settings: Settings,
    pub(crate) route: Arc<Route>,
    pub(crate) versions: Versions,
    pub(crate) http: Http,
    /// Bounds how many connect at a time.
    pub(crate) starting: Arc<Semaphore>,
    /// Bounds how many signals are being handed on.
    pub(crate) signals: Arc<Semaphore>,
}

/// How the manager ends a session.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    /// Disconnect in order.
    pub(crate) stop: CancellationToken,
    /// The lease is gone: cut everything, write nothing.
    pub(crate) lost: CancellationToken,
}
