//! The only crate with SQL. One file per table family; closed verbs: insert, find, list, update,
//! advance_status, delete, lock_next. Look-ups return `Option`.
//!
//! # Two kinds of transaction
//! - [`TenantTx`]: for a request. Runs under role `authenticated` with the caller's claims, so row-level security
//!   applies whatever the SQL says.
//! - [`SystemTx`]: for jobs, the ingest writer and look-ups that come before the tenant is known. Runs as
//!   `service_role` and sees every tenant: name `org_id` in every statement.
//!
//! A third, [`ActorTx`], is for SQL that a caller shaped (`rest`).
//!
//! All roll back when dropped. **No network call while one lives.**
//!
//! # Adding a table
//! 1. A new numbered file in `migrations/` (never edit one that landed): primary key starting with `org_id`,
//!    composite foreign keys, `CALL wasel.protect(…)`, and `CALL wasel.stream(…)` if clients should see its changes.
//! 2. A file in `src/` with its verbs.
//! 3. The cross-tenant test picks the table up by itself.

pub mod analytics;
pub mod automations;
pub mod bulk;
pub mod changes;
pub mod channels;
pub mod checks;
pub mod cluster;
pub mod consents;
pub mod contacts;
pub mod conversations;
mod error;
pub mod failures;
pub mod governor;
pub mod holds;
pub mod idempotency;
pub mod identity;
pub mod import;
pub mod ingest;
pub mod invitations;
pub mod ledger;
pub mod media;
pub mod messages;
mod migrate;
pub mod node_messages;
pub mod notification_queue;
pub mod notifications;
pub mod one_time_tokens;
pub mod organizations;
pub mod outbox;
pub mod pace;
pub mod profiles;
pub mod provider_templates;
pub mod rate_limits;
pub mod reactions;
pub mod reports;
pub mod rest;
pub mod rights;
pub mod scheduled;
pub mod seal;
pub mod session_keys;
pub mod session_requests;
pub mod sessions;
pub mod storage;
pub mod subscriptions;
pub mod templates;
mod tx;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

pub use error::Error;
pub use migrate::{MIGRATOR, migrate, migration_sql};
pub use tx::{Actor, ActorTx, SystemTx, TenantClaims, TenantTx, savepoint};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The database: three pools, by what their connections may do.
#[derive(Clone, Debug)]
pub struct Db {
    /// As the connecting user; [`TenantTx`] lowers it to `authenticated`.
    tenants: PgPool,
    /// As `service_role`.
    system: PgPool,
    /// As `service_role`, planned for the ingest writer's small index look-ups.
    ingest: PgPool,
    options: PgConnectOptions,
}

/// How many connections to open at most.
#[derive(Clone, Copy, Debug)]
pub struct PoolSizes {
    pub tenants: u32,
    pub system: u32,
    pub ingest: u32,
}

impl Default for PoolSizes {
    fn default() -> Self {
        Self {
            tenants: 16,
            system: 10,
            ingest: 2,
        }
    }
}

impl Db {
    /// Prepares the pools. Connects lazily: a database that is away shows at the first query.
    #[must_use]
    pub fn new(options: PgConnectOptions, sizes: PoolSizes) -> Self {
        let options = options.application_name("wasel");
        let pool = |max: u32| {
            PgPoolOptions::new()
                .max_connections(max)
                .acquire_timeout(Duration::from_secs(5))
                .idle_timeout(Duration::from_secs(600))
                // A broken connection shows at its next statement; a ping before each costs a round trip.
                .test_before_acquire(false)
        };
        // Names are those of `public` whatever the user is called: a user `wasel` would otherwise find schema `wasel`
        // first.
        let tenants = pool(sizes.tenants)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql("SET search_path = public")
                        .execute(connection)
                        .await
                        .map(drop)
                })
            })
            .connect_lazy_with(options.clone());
        let system = pool(sizes.system)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql("SET search_path = public; SET ROLE service_role")
                        .execute(connection)
                        .await
                        .map(drop)
                })
            })
            .connect_lazy_with(options.clone());
        let ingest = pool(sizes.ingest)
            // Requests are waiting for the answer; better "later" soon than "stored" late.
            .acquire_timeout(Duration::from_secs(2))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Every join here is a small batch against an index. Left to itself the planner, asked while
                    // the tables are still empty, settles on sequential scans and keeps them.
                    sqlx::raw_sql(
                        "SET search_path = public; SET ROLE service_role; SET enable_seqscan = off; SET enable_hashjoin = off; \
                         SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; SET jit = off",
                    )
                    .execute(connection)
                    .await
                    .map(drop)
                })
            })
            .connect_lazy_with(options.clone());
        Self {
            tenants,
            system,
            ingest,
            options,
        }
    }

    /// A transaction under row-level security, for the tenant and person in `claims`.
    pub async fn tenant(&self, claims: &TenantClaims) -> Result<TenantTx> {
        TenantTx::begin(&self.tenants, claims).await
    }

    /// A transaction that sees every tenant.
    pub async fn system(&self) -> Result<SystemTx> {
        SystemTx::begin(&self.system).await
    }

    /// A transaction with the rights of `actor`, whose statements may take `statement_timeout` each.
    pub async fn actor(
        &self,
        actor: Actor<'_>,
        read_only: bool,
        statement_timeout: Duration,
    ) -> Result<ActorTx> {
        ActorTx::begin(&self.tenants, actor, read_only, statement_timeout).await
    }

    pub(crate) fn ingest_pool(&self) -> &PgPool {
        &self.ingest
    }

    /// How to connect as the owner of the schema.
    #[must_use]
    pub fn connect_options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// One round trip: is the database there?
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.system).await?;
        Ok(())
    }

    /// Closes the pools, waiting for transactions under way.
    pub async fn close(&self) {
        self.ingest.close().await;
        self.tenants.close().await;
        self.system.close().await;
    }
}
