//! A database per test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use ring::digest;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgPool};

use crate::server::Server;

/// Serialises making the template between test processes.
const TEMPLATE_LOCK: i64 = 0x77_61_73_65_6c;
/// A database older than this was left behind by a test that was killed.
const LEFTOVER_SECONDS: u64 = 3600;

/// A migrated, empty database that goes away with this value.
pub struct TestDb {
    name: String,
    server: Server,
}

impl TestDb {
    /// Clones the migrated template, which the first caller makes.
    pub async fn new() -> Self {
        let server = Server::get().await;
        let mut admin = server.options.connect().await.unwrap();
        let template = template(&server, &mut admin).await;
        let db = Self::create(server, &mut admin, &format!("TEMPLATE {template}")).await;
        admin.close().await.unwrap();
        db
    }

    /// A database with nothing in it, for tests of the migrations.
    pub async fn empty() -> Self {
        let server = Server::get().await;
        let mut admin = server.options.connect().await.unwrap();
        let db = Self::create(server, &mut admin, "TEMPLATE template0").await;
        admin.close().await.unwrap();
        db
    }

    async fn create(server: Server, admin: &mut PgConnection, from: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let name = format!("wasel_test_{now}_{pid}_{n}");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name} {from}")))
            .execute(admin)
            .await
            .unwrap();
        Self { name, server }
    }

    /// How to connect, as the owner of the schema.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.server.options.clone().database(&self.name)
    }

    /// The same as a URL that `psql` and the server read.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url_of(&self.name)
    }

    /// A pool of the schema's owner, who (as a superuser) passes row-level security: to look at what is stored.
    #[must_use]
    pub fn owner(&self) -> PgPool {
        PgPool::connect_lazy_with(self.options())
    }

    /// One connection of the owner.
    pub async fn connect(&self) -> PgConnection {
        self.options().connect().await.unwrap()
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (options, name) = (self.server.options.clone(), self.name.clone());
        // A runtime of its own: the test's may be ending.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut admin = options.connect().await?;
                drop_database(&mut admin, &name).await
            })
        });
        // What is left over is swept by a later run.
        drop(dropped.join());
    }
}

async fn drop_database(admin: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    sqlx::query(AssertSqlSafe(drop))
        .execute(admin)
        .await
        .map(|_| ())
}

/// The name of the template for the migrations as they are, made if missing.
async fn template(server: &Server, admin: &mut PgConnection) -> String {
    let hash = digest::digest(&digest::SHA256, wasel_db::migration_sql().as_bytes());
    let name = format!("wasel_template_{}", hex::encode(&hash.as_ref()[..8]));
    if exists(admin, &name).await {
        return name;
    }
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut *admin)
        .await
        .unwrap();
    if !exists(admin, &name).await {
        sweep(server, admin, &name).await;
        // Under another name until it is complete, so that a killed test leaves no half of it.
        let unfinished = format!("{name}_unfinished");
        drop_database(admin, &unfinished).await.unwrap();
        for statement in [
            format!("CREATE DATABASE {unfinished} TEMPLATE template0"),
            format!("ALTER DATABASE {unfinished} RENAME TO {name}"),
        ] {
            if statement.starts_with("ALTER") {
                wasel_db::migrate(&server.options.clone().database(&unfinished))
                    .await
                    .unwrap();
            }
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *admin)
                .await
                .unwrap();
        }
    }
    sqlx::query("SELECT pg_advisory_unlock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(&mut *admin)
        .await
        .unwrap();
    name
}

async fn exists(admin: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await
        .unwrap()
}

/// Drops what killed tests and earlier migrations left behind.
async fn sweep(server: &Server, admin: &mut PgConnection, keep: &str) {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT datname FROM pg_database WHERE datname ~ '^wasel_(test_\\d+_\\d+_\\d+|template_[0-9a-f]{16})$'",
    )
    .fetch_all(&mut *admin)
    .await
    .unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for name in names.iter().filter(|name| *name != keep) {
        let numbers: Vec<u64> = name
            .strip_prefix("wasel_test_")
            .unwrap_or("")
            .split('_')
            .filter_map(|part| part.parse().ok())
            .collect();
        let left_over = match numbers[..] {
            // On a given server the process may be one of another machine.
            [made, pid, _] => {
                made + LEFTOVER_SECONDS < now || server.given.is_none() && !is_alive(pid)
            }
            // A template of other migrations: another checkout makes it again if it needs it.
            _ => true,
        };
        if left_over {
            // A clone may be under way; then it is somebody's after all.
            drop(drop_database(admin, name).await);
        }
    }
}

fn is_alive(pid: u64) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None).is_ok())
}
