//! Reaching the cluster over its socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use tokio::time::{Instant, sleep};

use super::ClusterError;
use super::places::PORT;

/// The superuser. Dumps made elsewhere, Supabase's among them, expect this name.
pub(super) const USER: &str = "postgres";
/// The database the server uses.
pub(super) const DATABASE: &str = "wasel";

/// Made by initdb, to connect to while there is no other.
const MAINTENANCE_DATABASE: &str = "postgres";

/// SQLSTATE cannot_connect_now: starting up, recovering or shutting down.
const NOT_NOW: &str = "57P03";

#[derive(Debug, Clone)]
pub(super) struct Address {
    sockets: PathBuf,
}

impl Address {
    pub fn new(sockets: &Path) -> Self {
        Self {
            sockets: sockets.to_owned(),
        }
    }

    /// Everything is set, so that no `PG*` variable of our environment leads elsewhere.
    pub fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.sockets)
            .port(PORT)
            .username(USER)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("wasel")
    }

    pub fn url(&self) -> String {
        let sockets = percent_encode(&self.sockets.to_string_lossy());
        format!("postgresql:///{DATABASE}?host={sockets}&port={PORT}&user={USER}")
    }

    /// Connects, waiting while Postgres is not ready yet, and makes the database if missing.
    pub async fn ensure_database(&self, deadline: Instant) -> Result<(), ClusterError> {
        loop {
            match self.create_database_if_missing().await {
                Err(error) if is_not_ready(&error) && Instant::now() < deadline => {
                    sleep(Duration::from_millis(5)).await;
                }
                result => return result.map_err(ClusterError::Database),
            }
        }
    }

    async fn create_database_if_missing(&self) -> sqlx::Result<()> {
        let mut connection = self.options(MAINTENANCE_DATABASE).connect().await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(DATABASE)
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            sqlx::query("CREATE DATABASE wasel")
                .execute(&mut connection)
                .await?;
        }
        connection.close().await
    }
}

fn is_not_ready(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(error, sqlx::Error::Io(_)) || code.as_deref() == Some(NOT_NOW)
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_means_the_same_to_sqlx_whatever_the_folder_is_called() {
        let folder = Path::new("/srv/my data/ä&b=c#d?e+f%20g/run");
        let address = Address::new(folder);
        let parsed: PgConnectOptions = address.url().parse().unwrap();
        assert_eq!(parsed.get_socket(), Some(&folder.to_owned()));
        assert_eq!(parsed.get_port(), PORT);
        assert_eq!(parsed.get_username(), USER);
        assert_eq!(parsed.get_database(), Some(DATABASE));
    }
}
