//! What every handler and job can reach.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRef;
use tokio::sync::Notify;
use wasel_config::Config;
use wasel_db::Db;
use wasel_db::ingest::{CommitSignals, Ingest};
use wasel_db::seal::Sealer;
use wasel_providers::Providers;
use wasel_realtime::Hub;

use crate::auth::AuthContext;
use crate::http::limits::ApiLimiter;
use crate::http::page::DemoAccess;
use crate::http::realtime_broadcast::BroadcastLimiter;
use crate::http::rest_v1::{Places, SchemaCache};
use crate::linked_phones::Phones;
use crate::nodes::NodeLink;
use crate::registry::Registry;
use crate::storage::MediaStorage;
use crate::storage::places::UploadPlaces;
use crate::storage::signed_url::UrlSigner;
use crate::tail::TailPosition;

/// Shared by all requests and jobs. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub config: Arc<Config>,
    pub db: Db,
    pub ingest: Ingest,
    pub registry: Arc<Registry>,
    pub providers: Arc<Providers>,
    pub sealer: Arc<Sealer>,
    pub auth: AuthContext,
    pub hub: Arc<Hub>,
    pub tail: TailPosition,
    pub http: reqwest::Client,
    /// The same with the time a large file may take.
    pub media_http: reqwest::Client,
    pub storage: MediaStorage,
    pub uploads: Arc<UploadPlaces>,
    /// Signs the addresses of files.
    pub url_signer: UrlSigner,
    pub limiter: ApiLimiter,
    /// What `/rest/v1` knows of the database.
    pub rest: Arc<SchemaCache>,
    pub rest_places: Arc<Places>,
    pub broadcasts: Arc<BroadcastLimiter>,
    pub nodes: Arc<NodeLink>,
    pub signals: Signals,
    pub phones: Phones,
    /// Where browsers and providers reach us, without a trailing slash.
    pub public_url: Arc<str>,
    /// Set by `wasel demo`.
    pub demo: Option<Arc<DemoAccess>>,
    pub started_at: Instant,
    pub shutdown: tokio_util::sync::CancellationToken,
}

/// Wake-ups after our own commits, so that nobody waits for a poll.
#[derive(Clone, Default)]
pub struct Signals {
    pub commits: CommitSignals,
    pub outbox: Arc<Notify>,
    /// The notification queue.
    pub queue: Arc<Notify>,
    pub bulk: Arc<Notify>,
    pub scheduled: Arc<Notify>,
    pub automations: Arc<Notify>,
    /// Files were removed or replaced.
    pub storage: Arc<Notify>,
    /// Something is asked of a linked phone.
    pub sessions: Arc<Notify>,
}

impl FromRef<AppState> for AuthContext {
    fn from_ref(state: &AppState) -> Self {
        state.auth.clone()
    }
}
