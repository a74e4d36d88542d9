use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::PostgresVersion;
use super::binaries::OLDEST_MAJOR;

/// Why the private cluster cannot be had. Each message is one line and names the cure.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "no PostgreSQL server programs found ({searched}): install them (`apt-get install \
         postgresql`, `dnf install postgresql-server`, `brew install postgresql`) or set DATABASE_URL"
    )]
    NoBinaries { searched: String },

    #[error(
        "PostgreSQL {version} in {} is too old: install version {OLDEST_MAJOR} or newer, or set DATABASE_URL",
        directory.display()
    )]
    TooOld {
        version: PostgresVersion,
        directory: PathBuf,
    },

    #[error(
        "the cluster in {} was made by PostgreSQL {cluster}, but only {found} is installed: \
         install PostgreSQL {cluster}, or carry the cluster over with pg_upgrade",
        data.display()
    )]
    WrongMajor {
        data: PathBuf,
        cluster: u32,
        found: String,
    },

    #[error(
        "the data directory {} is in use by another server{}: stop that one, or choose another \
         directory with WASEL_DATA_DIR",
        data_dir.display(),
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        data_dir: PathBuf,
        /// Process id of the server that holds the lock, if it could be read.
        holder: Option<u32>,
    },

    #[error(
        "Postgres runs as the user {user}, who may not enter {}: choose a data directory \
         elsewhere with WASEL_DATA_DIR (such as /var/lib/wasel), or let others pass with `chmod o+x {}`",
        blocked.display(), blocked.display()
    )]
    CannotEnter { user: String, blocked: PathBuf },

    #[error(
        "the user {user} may not run {}: make the program and its folders readable for everybody, \
         or install PostgreSQL system-wide", program.display()
    )]
    CannotRun { user: String, program: PathBuf },

    #[error(
        "{} belongs to user id {owner}, but Postgres would run as {user}: give it back with \
         `chown -R {user} {}`",
        path.display(), path.display()
    )]
    WrongOwner {
        path: PathBuf,
        owner: u32,
        user: String,
    },

    #[error(
        "started as root, and the system has neither a user `postgres` nor `nobody` to run \
         Postgres under: add one with `useradd --system postgres`, or start as an ordinary user"
    )]
    NoAccount,

    #[error(
        "{} is not a Postgres cluster (no PG_VERSION in it): move it away, or choose another data \
         directory with WASEL_DATA_DIR", path.display()
    )]
    NotACluster { path: PathBuf },

    #[error(
        "{} is not a private directory of ours (it must be a directory of user id {owner} with \
         mode 0700): remove it, or choose a shorter data directory with WASEL_DATA_DIR",
        path.display()
    )]
    SocketDirectory { path: PathBuf, owner: u32 },

    #[error("initdb could not make the cluster in {}: {said}", path.display())]
    Init { path: PathBuf, said: String },

    #[error("Postgres did not start; its log {} ends: {said}", log.display())]
    NotStarted { log: PathBuf, said: String },

    #[error(
        "Postgres was not ready within {} s; a long recovery needs a longer start-up timeout; its \
         log {} ends: {said}", waited.as_secs_f32(), log.display()
    )]
    StartTimeout {
        waited: Duration,
        log: PathBuf,
        said: String,
    },

    #[error("Postgres runs, but its database cannot be used: {0}")]
    Database(#[from] sqlx::Error),

    #[error(
        "Postgres (process {pid}) does not end: look at what holds it (often a hanging disk), then `kill -9 {pid}`"
    )]
    StillRunning { pid: i32 },

    #[error("the supervisor of Postgres ended by itself: {0}")]
    Supervisor(tokio::task::JoinError),

    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl ClusterError {
    /// For `map_err`: an I/O error with what was being done to which path.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
        move |source| ClusterError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
