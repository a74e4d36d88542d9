//! The Postgres server all tests share.
//!
//! `WASEL_TEST_DATABASE_URL` names one, with a user that may create databases and roles. Otherwise the first test
//! process starts a private cluster in the temporary directory and the others find it there: the runner gives every
//! test a process of its own, and a cluster each would cost more than the tests. It is left running when the process
//! ends, as after a `kill -9`, and the next run uses it again; `pg_ctl stop`, a restart of the machine, or removing
//! the directory ends it. It is quick and careless (`fsync=off`): nothing in it is worth keeping.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use wasel_db::cluster::{Cluster, ClusterOptions};

use crate::PATIENCE;

/// How to reach the server, by an existing database of it.
#[derive(Clone)]
pub(crate) struct Server {
    pub options: PgConnectOptions,
    /// The given address; `None` for the private cluster.
    pub given: Option<url::Url>,
}

impl Server {
    pub async fn get() -> Self {
        if let Ok(given) = std::env::var("WASEL_TEST_DATABASE_URL") {
            let options = given
                .parse()
                .expect("WASEL_TEST_DATABASE_URL is a postgres:// URL");
            return Self {
                options,
                given: Some(given.parse().unwrap()),
            };
        }
        let directory = directory();
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("start.lock"))
            .unwrap();
        // Held while looking and starting, so that only one process starts it.
        let _held = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
            .await
            .unwrap()
            .unwrap();
        let options = match running(&directory).await {
            Some(options) => options,
            None => start(directory).await,
        };
        Self {
            options,
            given: None,
        }
    }

    /// The address of another database of this server.
    pub fn url_of(&self, database: &str) -> String {
        if let Some(given) = &self.given {
            let mut url = given.clone();
            url.set_path(database);
            return url.to_string();
        }
        let socket = self
            .options
            .get_socket()
            .expect("the private cluster listens on a socket");
        let host: String =
            form_urlencoded::byte_serialize(socket.as_os_str().as_encoded_bytes()).collect();
        format!(
            "postgres://{}@localhost/{database}?host={host}",
            self.options.get_username()
        )
    }
}

/// In the temporary directory: the account Postgres runs under must get there, and a checkout may lie in a closed
/// home.
fn directory() -> PathBuf {
    let path = std::env::temp_dir().join(format!("wasel-test-postgres-{}", nix::unistd::geteuid()));
    fs::create_dir_all(&path).unwrap();
    path
}

async fn running(directory: &Path) -> Option<PgConnectOptions> {
    let options = wasel_db::cluster::options_of_running(&directory.join("data"))?;
    // A file left behind by a machine that was switched off names no server.
    let connection = tokio::time::timeout(PATIENCE, options.connect())
        .await
        .ok()?
        .ok()?;
    connection.close().await.ok()?;
    Some(options)
}

/// Starts the cluster on a thread that never ends, so that nothing stops it when a test's runtime does.
async fn start(directory: PathBuf) -> PgConnectOptions {
    let (tell, told) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let settings = [
                ("fsync", "off"),
                ("synchronous_commit", "off"),
                ("full_page_writes", "off"),
                ("autovacuum", "off"),
                ("max_connections", "400"),
                ("shared_buffers", "64MB"),
            ];
            let options = ClusterOptions {
                settings: settings
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec(),
                ..ClusterOptions::new(directory.join("data"))
            };
            let cluster = Cluster::start(options).await;
            let _ = tell.send(
                cluster
                    .as_ref()
                    .map(Cluster::connect_options)
                    .map_err(ToString::to_string),
            );
            if cluster.is_ok() {
                std::future::pending::<()>().await;
            }
        });
    });
    told.await.unwrap().unwrap_or_else(|error| {
        panic!("no Postgres for tests (or set WASEL_TEST_DATABASE_URL): {error}")
    })
}
