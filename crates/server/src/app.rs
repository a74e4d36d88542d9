//! Wiring: from a configuration to a running server, and its orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::serve::ListenerExt;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasel_config::Config;
use wasel_config::secrets::Generated;
use wasel_db::cluster::{self, Cluster, ClusterError, ClusterOptions};
use wasel_db::ingest::Ingest;
use wasel_db::seal::Sealer;
use wasel_db::{Db, PoolSizes};
use wasel_providers::{ProviderConfig, Providers};
use wasel_realtime::{Hub, Limits};

use crate::auth::{ApiKeyRole, AuthContext, Jwks, Lifetimes, Mailer, Site, TokenSettings, Tokens};
use crate::history::LoggedHistory;
use crate::http;
use crate::http::limits::ApiLimiter;
use crate::http::page::DemoAccess;
use crate::http::realtime::SocketAuthorizer;
use crate::http::rest_v1::Places;
use crate::jobs::check_messages::CheckMessages;
use crate::jobs::feed_bulk_jobs::FeedBulkJobs;
use crate::jobs::fetch_media::FetchMedia;
use crate::jobs::follow_failures::FollowFailures;
use crate::jobs::housekeeping::Housekeeping;
use crate::jobs::listen_queue::ListenQueue;
use crate::jobs::process_queue::ProcessQueue;
use crate::jobs::reconcile::Reconcile;
use crate::jobs::refresh_analytics::RefreshAnalytics;
use crate::jobs::run_automations::RunAutomations;
use crate::jobs::send_mail::SendMail;
use crate::jobs::send_message::SendMessage;
use crate::jobs::send_scheduled::SendScheduled;
use crate::jobs::sweep_storage::SweepStorage;
use crate::jobs::watch_rights::WatchRights;
use crate::linked_phones::Phones;
#[cfg(feature = "linked-phones")]
use crate::linked_phones::commands::CarryOutCommands;
use crate::nodes::{FollowNodes, NodeLink, TellNodes};
use crate::registry::Registry;
use crate::state::{AppState, Signals};
use crate::storage::MediaStorage;
use crate::storage::signed_url::UrlSigner;
use crate::tail::{self, Tail};

/// The database a command works on: the given one, or the private cluster in the data directory.
pub struct Database {
    pub options: PgConnectOptions,
    /// Started by this process; stopped with it.
    cluster: Option<Cluster>,
}

impl Database {
    /// For the server: a private cluster belongs to it alone.
    pub async fn open(config: &Config) -> Result<Self> {
        match &config.database.url {
            Some(url) => Ok(Self {
                options: parse_url(url.expose())?,
                cluster: None,
            }),
            None => {
                let cluster =
                    Cluster::start(ClusterOptions::new(&config.database.data_dir)).await?;
                Ok(Self {
                    options: cluster.connect_options(),
                    cluster: Some(cluster),
                })
            }
        }
    }

    /// For a command: beside a running server it shares the server's cluster.
    pub async fn open_shared(config: &Config) -> Result<Self> {
        match Self::open(config).await {
            Err(error) if matches!(error.downcast_ref(), Some(ClusterError::Locked { .. })) => {
                let options =
                    cluster::options_of_running(&config.database.data_dir).ok_or(error)?;
                Ok(Self {
                    options,
                    cluster: None,
                })
            }
            result => result,
        }
    }

    pub async fn close(self) -> Result<()> {
        if let Some(cluster) = self.cluster {
            cluster.stop().await?;
        }
        Ok(())
    }
}

fn parse_url(url: &str) -> Result<PgConnectOptions> {
    // The parser's own words may repeat the password.
    url.parse()
        .map_err(|_| anyhow::anyhow!("DATABASE_URL is not a postgres:// URL"))
}

/// What a command or the server needs beside the database: migrated schema, pools, keys.
pub struct Foundation {
    pub config: Arc<Config>,
    pub db: Db,
    pub sealer: Arc<Sealer>,
    pub tokens: Arc<Tokens>,
    pub providers: Arc<Providers>,
    pub phones: Phones,
    pub public_url: Arc<str>,
    /// What was made at this first start, in words.
    pub news: Vec<String>,
}

impl Foundation {
    /// Migrates the schema and completes the secrets.
    pub async fn lay(mut config: Config, options: &PgConnectOptions, port: u16) -> Result<Self> {
        wasel_db::migrate(options)
            .await
            .context("the database schema could not be brought up to date")?;
        let sizes = PoolSizes {
            tenants: config.database.tenant_connections.get(),
            system: config.database.system_connections.get(),
            ingest: config.database.ingest_connections.get(),
        };
        let db = Db::new(options.clone(), sizes);
        let mut tx = db.system().await?;
        let any_sealed = wasel_db::channels::any_sealed(&mut tx).await?;
        tx.commit().await?;
        let mut news = Vec::new();
        if let Some(made) = config
            .complete_secrets(!any_sealed)?
            .filter(|made| !made.new.is_empty())
        {
            news.push(format!(
                "{} made and kept in {}",
                made.new.join(" and "),
                made.path().display()
            ));
        }
        let key = config
            .secrets
            .encryption_key
            .as_ref()
            .context("ENCRYPTION_KEY is not set")?;
        let older: Vec<String> = config
            .secrets
            .previous_encryption_keys
            .iter()
            .map(|key| key.expose().to_owned())
            .collect();
        let sealer = Arc::new(Sealer::new(key.expose(), &older)?);
        let public_url: Arc<str> = Arc::from(
            config
                .server
                .public_url_or_local(port)
                .trim_end_matches('/'),
        );
        let tokens = Arc::new(tokens(&mut config, &public_url, &mut news)?);
        let phones = Phones::default();
        let providers = Arc::new(Providers::new(provider_config(&config), phones.provider()));
        Ok(Self {
            config: Arc::new(config),
            db,
            sealer,
            tokens,
            providers,
            phones,
            public_url,
            news,
        })
    }
}

/// The token keys. Without given ones, anon and service-role keys are made once and kept.
fn tokens(config: &mut Config, public_url: &str, news: &mut Vec<String>) -> Result<Tokens> {
    let secret = config
        .auth
        .jwt_secret
        .as_ref()
        .context("JWT_SECRET is not set")?
        .expose()
        .to_owned();
    let settings = |config: &Config| -> Result<TokenSettings> {
        Ok(TokenSettings {
            jwt_secret: secret.clone(),
            jwks: match config.auth.public_keys_url() {
                Some(url) => Some(Jwks::new(
                    url.parse().context("JWKS_URL")?,
                    http_client(config, config.providers.request_timeout)?,
                )),
                None => None,
            },
            anon_key: config
                .auth
                .supabase_anon_key
                .as_ref()
                .map(|key| key.expose().to_owned()),
            service_role_key: config
                .auth
                .supabase_service_role_key
                .as_ref()
                .map(|key| key.expose().to_owned()),
            public_url: public_url.parse().context("PUBLIC_URL")?,
        })
    };
    let tokens = Tokens::new(settings(config)?);
    let directory = config.database.data_dir.clone();
    let mut complete = |name: &str, role: ApiKeyRole| -> Result<Option<wasel_config::Secret>> {
        let issued = tokens.issue_key(role)?;
        // Only kept beside a secret that is kept too: with a given JWT_SECRET anybody can mint the keys again.
        let made = Generated::keep(&directory, name, || issued.clone())?;
        if made.new.iter().any(|new| new == name) {
            news.push(format!("{name} made and kept in {}", made.path().display()));
        }
        Ok(made.get(name).cloned())
    };
    if config.auth.supabase_anon_key.is_none() {
        config.auth.supabase_anon_key = complete("SUPABASE_ANON_KEY", ApiKeyRole::Anon)?;
    }
    if config.auth.supabase_service_role_key.is_none() {
        config.auth.supabase_service_role_key =
            complete("SUPABASE_SERVICE_ROLE_KEY", ApiKeyRole::ServiceRole)?;
    }
    Ok(Tokens::new(settings(config)?))
}

fn provider_config(config: &Config) -> ProviderConfig {
    let p = &config.providers;
    let expose = |secret: &Option<wasel_config::Secret>| {
        secret.as_ref().map(|secret| secret.expose().to_owned())
    };
    ProviderConfig {
        meta_graph_base: p.meta_graph_base.as_str().to_owned(),
        meta_graph_version: p.meta_graph_version.clone(),
        meta_app_secret: expose(&p.meta_app_secret),
        meta_verify_token: expose(&p.meta_verify_token),
        twilio_api_base: p.twilio_api_base.as_str().to_owned(),
        twilio_auth_token: expose(&p.twilio_auth_token),
        smtp_url: expose(&p.smtp_url),
        email_webhook_secret: expose(&p.email_webhook_secret),
    }
}

/// The client for providers. It follows no redirect: a provider that redirects a send would have us post the body
/// elsewhere; media downloads follow theirs by themselves, checking each host.
fn http_client(config: &Config, whole_request: Duration) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(config.providers.connect_timeout)
        .timeout(whole_request)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("wasel/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("the HTTP client for providers could not be made")
}

/// A server that accepts connections.
pub struct Running {
    pub state: AppState,
    pub address: SocketAddr,
    /// What was made at the first start, in words.
    pub news: Vec<String>,
    database: Database,
    serving: JoinHandle<std::io::Result<()>>,
    jobs: Vec<JoinHandle<()>>,
}

/// Starts everything and returns once the port accepts connections.
pub async fn start(config: Config, demo: Option<DemoAccess>) -> Result<Running> {
    let listener = TcpListener::bind(config.server.socket_addr())
        .await
        .with_context(|| format!("cannot listen on {}", config.server.socket_addr()))?;
    let address = listener.local_addr()?;
    let database = Database::open(&config).await?;
    let mut foundation = Foundation::lay(config, &database.options, address.port()).await?;
    let news = std::mem::take(&mut foundation.news);
    let (state, tail) = assemble(foundation, demo).await?;
    let (signals, shutdown) = (state.signals.clone(), state.shutdown.clone());
    let unprompted = || Arc::new(Notify::new());
    let (send_message, renew_leases) = SendMessage::new(state.clone());
    state.phones.start(&state)?;
    let jobs = vec![
        wasel_jobs::spawn(tail, signals.commits.changes, shutdown.clone()),
        wasel_jobs::spawn(send_message, signals.outbox, shutdown.clone()),
        wasel_jobs::spawn(renew_leases, unprompted(), shutdown.clone()),
        wasel_jobs::spawn(
            FetchMedia(state.clone()),
            signals.commits.media,
            shutdown.clone(),
        ),
        wasel_jobs::spawn(FeedBulkJobs(state.clone()), signals.bulk, shutdown.clone()),
        wasel_jobs::spawn(
            SendScheduled(state.clone()),
            signals.scheduled,
            shutdown.clone(),
        ),
        wasel_jobs::spawn(
            SweepStorage(state.clone()),
            signals.storage,
            shutdown.clone(),
        ),
        wasel_jobs::spawn(Reconcile(state.clone()), unprompted(), shutdown.clone()),
        wasel_jobs::spawn(
            FollowFailures(state.clone()),
            unprompted(),
            shutdown.clone(),
        ),
        wasel_jobs::spawn(
            ProcessQueue::new(state.clone()),
            signals.queue,
            shutdown.clone(),
        ),
        wasel_jobs::spawn(ListenQueue(state.clone()), unprompted(), shutdown.clone()),
        wasel_jobs::spawn(
            RunAutomations(state.clone()),
            signals.automations,
            shutdown.clone(),
        ),
        wasel_jobs::spawn(CheckMessages(state.clone()), unprompted(), shutdown.clone()),
        wasel_jobs::spawn(
            SendMail(state.auth.mailer.clone()),
            state.auth.mailer.wake(),
            shutdown.clone(),
        ),
        wasel_jobs::spawn(Housekeeping(state.clone()), unprompted(), shutdown.clone()),
        wasel_jobs::spawn(
            RefreshAnalytics(state.clone()),
            unprompted(),
            shutdown.clone(),
        ),
        wasel_jobs::spawn(
            WatchRights::new(state.clone()),
            unprompted(),
            shutdown.clone(),
        ),
        wasel_jobs::spawn(
            TellNodes::new(state.db.clone(), state.nodes.clone()),
            state.nodes.wake(),
            shutdown.clone(),
        ),
        wasel_jobs::spawn(
            FollowNodes::new(state.db.clone(), state.hub.clone(), state.nodes.clone()),
            unprompted(),
            shutdown.clone(),
        ),
        #[cfg(feature = "linked-phones")]
        wasel_jobs::spawn(
            CarryOutCommands(state.clone()),
            signals.sessions,
            shutdown.clone(),
        ),
    ];
    let service =
        http::router::router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for more; where it cannot be set they merely do.
        let _ = stream.set_nodelay(true);
    });
    let serving = tokio::spawn(async move {
        axum::serve(listener, service)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
    });
    Ok(Running {
        state,
        address,
        news,
        database,
        serving,
        jobs,
    })
}

/// Puts the state together; nothing runs yet but the ingest writers.
async fn assemble(foundation: Foundation, demo: Option<DemoAccess>) -> Result<(AppState, Tail)> {
    let Foundation {
        config,
        db,
        sealer,
        tokens,
        providers,
        phones,
        public_url,
        ..
    } = foundation;
    let registry = Arc::new(Registry::new(db.clone(), providers.clone(), sealer.clone()));
    registry.reload().await?;
    let http_client_of_providers = http_client(&config, config.providers.request_timeout)?;
    let mailer = match &config.providers.mail_from {
        // Without a server there is nobody to hand a mail to; the configuration's warnings say so.
        Some(from) if config.providers.smtp_url.is_some() => {
            Mailer::open(&providers, from, http_client_of_providers.clone())
                .context("MAIL_FROM and SMTP_URL")?
        }
        _ => Mailer::default(),
    };
    let site = Site::new(
        public_url.parse().context("PUBLIC_URL")?,
        &config.server.allowed_origins,
    );
    let auth = AuthContext::new(db.clone(), tokens)
        .with_lifetimes(Lifetimes {
            access_token: config.auth.access_token_ttl,
            refresh_reuse_window: config.auth.refresh_reuse_window,
        })
        .with_mailer(mailer)
        .with_site(site);
    let catalog = tail::read_catalog(&db).await?;
    let nodes = Arc::new(NodeLink::default());
    let authorizer = Arc::new(SocketAuthorizer::new(auth.clone()));
    let hub = Arc::new(
        Hub::new(authorizer, catalog, Limits::default())
            .with_history(Arc::new(LoggedHistory(db.clone())))
            .with_peers(nodes.clone()),
    );
    auth.tell(&hub);
    let signals = Signals::default();
    let (tail_job, tail) = Tail::new(auth.clone(), hub.clone(), registry.clone());
    let state = AppState {
        http: http_client_of_providers,
        media_http: http_client(&config, config.providers.media_timeout)?,
        storage: MediaStorage::open(&config.storage, &config.database.data_dir)?,
        uploads: Arc::default(),
        url_signer: UrlSigner::new(
            config
                .auth
                .jwt_secret
                .as_ref()
                .context("JWT_SECRET is not set")?
                .expose(),
        ),
        limiter: ApiLimiter::new(config.limits.api_requests, config.limits.api_window),
        rest: Arc::default(),
        rest_places: Arc::new(Places::of_pool(config.database.tenant_connections.get())),
        ingest: Ingest::start(
            &db,
            config.database.ingest_connections.get() as usize,
            &signals.commits,
        ),
        config,
        db,
        registry,
        providers,
        phones,
        sealer: sealer.clone(),
        auth,
        hub,
        nodes,
        broadcasts: Arc::default(),
        tail,
        signals,
        public_url,
        demo: demo.map(Arc::new),
        started_at: Instant::now(),
        shutdown: CancellationToken::new(),
    };
    Ok((state, tail_job))
}

/// The state without a port or jobs, for commands that do what the server does.
pub struct Tools {
    pub state: AppState,
    database: Database,
}

impl Tools {
    pub async fn open(config: Config) -> Result<Self> {
        let database = Database::open_shared(&config).await?;
        let port = config.server.port;
        let foundation = Foundation::lay(config, &database.options, port).await?;
        let (state, _) = assemble(foundation, None).await?;
        Ok(Self { state, database })
    }

    pub async fn close(self) -> Result<()> {
        self.state.db.close().await;
        drop(self.state);
        self.database.close().await
    }
}

impl Running {
    /// For what a command does beside the server, in the same process.
    #[must_use]
    pub fn foundation(&self) -> Foundation {
        let state = &self.state;
        Foundation {
            config: state.config.clone(),
            db: state.db.clone(),
            sealer: self.state.sealer.clone(),
            tokens: state.auth.tokens.clone(),
            providers: state.providers.clone(),
            phones: state.phones.clone(),
            public_url: state.public_url.clone(),
            news: Vec::new(),
        }
    }

    /// Stops in order: no new connections, open requests and sends finish (within the grace), then the database.
    pub async fn stop(self) -> Result<()> {
        let grace = self.state.config.server.shutdown_grace;
        self.state.shutdown.cancel();
        let deadline = Instant::now() + grace;
        let left = || {
            deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(100))
        };
        if tokio::time::timeout(left(), self.serving).await.is_err() {
            tracing::warn!("requests were still open when the shutdown grace ended");
        }
        for job in self.jobs {
            if tokio::time::timeout(left(), job).await.is_err() {
                tracing::warn!("a job was still running when the shutdown grace ended");
            }
        }
        // After the sender: what was under way still had its phone.
        if tokio::time::timeout(left(), self.state.phones.stop())
            .await
            .is_err()
        {
            tracing::warn!("linked phones were still connected when the shutdown grace ended");
        }
        let db = self.state.db.clone();
        drop(self.state);
        if tokio::time::timeout(left(), db.close()).await.is_err() {
            tracing::warn!("database connections were still in use when the shutdown grace ended");
        }
        self.database.close().await
    }
}
