//! The private Postgres cluster: what the server uses when no `DATABASE_URL` is given.
//!
//! An installed Postgres runs as a supervised child process of the server, reachable only through
//! a Unix socket in a directory closed to everybody else. What lies where, below the server's data
//! directory:
//!
//! ```text
//! wasel.lock        held by the one server that uses this directory; holds its process id
//! postgres.log      what Postgres says (postgres.log.1: the part before)
//! postgres/         the cluster itself (PGDATA): mode 0700, of the account Postgres runs under
//! run/              the socket, likewise; elsewhere if that path is too long for a socket
//! ```
//!
//! If the server is killed, Postgres lives on; the next server in the same directory takes it
//! over. If Postgres is killed, the supervisor starts it again, and it recovers from its log.

mod account;
mod binaries;
mod connection;
mod error;
mod init;
mod log;
mod places;
mod postmaster;
mod supervisor;

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use binaries::PostgresVersion;
pub use error::ClusterError;

use account::Account;
use connection::Address;
use places::Places;
use postmaster::Launcher;
use supervisor::Patience;

/// How to run the cluster. [`ClusterOptions::new`] gives the values meant for production.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The server's data directory; made if missing. The cluster is its folder `postgres`.
    pub data_dir: PathBuf,
    /// How long [`Cluster::start`] may take in all, crash recovery included.
    pub startup_timeout: Duration,
    /// How long a fast shutdown may take before Postgres is stopped the hard way.
    pub stop_timeout: Duration,
    /// Folders to look for `postgres` and `initdb` in. `None`: `PATH` and the usual places.
    pub binary_dirs: Option<Vec<PathBuf>>,
    /// Postgres settings to add to ours, or to put in place of ours, such as
    /// `("shared_buffers", "1GB")`. They go on the command line, so they win over
    /// `postgresql.conf` and `ALTER SYSTEM`. Those that keep the cluster private cannot be changed.
    pub settings: Vec<(String, String)>,
}

impl ClusterOptions {
    /// Options with two minutes to start and twenty seconds to stop.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            startup_timeout: Duration::from_secs(120),
            stop_timeout: Duration::from_secs(20),
            binary_dirs: None,
            settings: Vec::new(),
        }
    }
}

/// A running private cluster.
///
/// Call [`Cluster::stop`] for an orderly end. A dropped `Cluster` is stopped too, but in the
/// background, and nobody hears whether that worked.
#[derive(Debug)]
pub struct Cluster {
    address: Address,
    version: PostgresVersion,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<Result<(), ClusterError>>,
}

impl Cluster {
    /// Makes the cluster if there is none, starts it (or takes over the one a killed server left
    /// behind), waits until it answers, and makes the database `wasel` if missing.
    ///
    /// # Errors
    /// Every [`ClusterError`] says in one line what to do about it.
    pub async fn start(options: ClusterOptions) -> Result<Cluster, ClusterError> {
        let deadline = Instant::now() + options.startup_timeout;
        let data_dir = places::open_data_dir(&options.data_dir)?;
        let lock = places::lock(&data_dir)?;

        let account = Account::for_cluster(&data_dir)?;
        let binaries = binaries::find(
            options.binary_dirs.as_deref(),
            init::existing_major(&data_dir)?,
        )
        .await?;
        let version = binaries.version.clone();
        let places = Places::prepare(data_dir, &account)?;
        account.check_can_enter(&places, &binaries).await?;

        init::create_if_missing(&places, &account, &binaries, deadline).await?;

        let address = Address::new(&places.sockets);
        let launcher = Launcher::new(places, account, binaries, options.settings).await?;
        let postmaster = launcher.bring_up(deadline).await?;

        let (stop, stopped) = oneshot::channel();
        let patience = Patience {
            start: options.startup_timeout,
            stop: options.stop_timeout,
        };
        let supervisor = tokio::spawn(supervisor::supervise(
            launcher, postmaster, stopped, patience, lock,
        ));
        let cluster = Cluster {
            address,
            version,
            stop,
            supervisor,
        };
        if let Err(error) = cluster.address.ensure_database(deadline).await {
            // The caller gets the first error; a failed stop is in the log.
            if let Err(error) = cluster.stop().await {
                tracing::error!(%error, "cannot stop Postgres after a failed start");
            }
            return Err(error);
        }
        Ok(cluster)
    }

    /// How to connect to the database `wasel`, over the Unix socket, as its superuser.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.address.options(connection::DATABASE)
    }

    /// The same as a URL that `psql` and sqlx both read. There is no secret in it.
    pub fn url(&self) -> String {
        self.address.url()
    }

    /// The version of the Postgres in use.
    pub fn version(&self) -> &PostgresVersion {
        &self.version
    }

    /// Fast shutdown: open transactions are rolled back, everything committed is on disk. Waits
    /// for the end; when `stop_timeout` has passed Postgres is stopped the hard way, which costs
    /// the next start a recovery and no data.
    ///
    /// # Errors
    /// [`ClusterError::StillRunning`] when even that does not end it.
    pub async fn stop(self) -> Result<(), ClusterError> {
        // A supervisor that has ended cannot hear this, and says why below.
        let _ = self.stop.send(());
        match self.supervisor.await {
            Ok(result) => result,
            Err(error) => Err(ClusterError::Supervisor(error)),
        }
    }
}

/// How to reach the cluster that another process runs in this data directory; `None` if none runs there.
pub fn options_of_running(data_dir: &std::path::Path) -> Option<PgConnectOptions> {
    let pid_file =
        std::fs::read_to_string(places::data_in(data_dir).join("postmaster.pid")).ok()?;
    // The fifth line of the lock file is the socket's folder (PostgreSQL, miscadmin.h).
    let sockets = pid_file.lines().nth(4).filter(|line| !line.is_empty())?;
    Some(Address::new(std::path::Path::new(sockets)).options(connection::DATABASE))
}
