//! The old database: read in one snapshot, never written.

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::mpsc;

use crate::Result;

/// A connection with a read-only transaction that sees the old tables as they are when it begins.
#[derive(Debug)]
pub struct SourceDb {
    connection: PgConnection,
    schema: String,
    /// Host, port, database and schema: what tells it from other old databases. Neither user nor password.
    pub name: String,
}

/// A table with its columns in order.
#[derive(Clone, Debug)]
pub struct SourceTable {
    pub name: String,
    pub columns: Vec<String>,
}

impl SourceDb {
    /// Connects and begins the snapshot.
    pub async fn open(options: &PgConnectOptions, schema: &str) -> Result<Self> {
        let mut connection = options
            .clone()
            .application_name("wasel import")
            .connect()
            .await?;
        sqlx::raw_sql(
            // Without `synchronize_seqscans` a repetition might read a table from its middle on. Without `row_security`
            // policies would hide rows and nobody would notice; like this Postgres refuses to read such a table.
            "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = 1;
             SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronize_seqscans = off;
             SET row_security = off;
             BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        )
        .execute(&mut connection)
        .await?;
        let database: String = sqlx::query_scalar("SELECT current_database()::text")
            .fetch_one(&mut connection)
            .await?;
        Ok(Self {
            connection,
            schema: schema.to_owned(),
            name: format!("{}/{database}/{schema}", server(options)),
        })
    }

    /// Whether the schema is one of ours: its tables have the documents' names and are no old tables.
    pub async fn is_ours(&mut self) -> Result<bool> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = 'external_refs')",
        )
        .bind(&self.schema)
        .fetch_one(&mut self.connection)
        .await?)
    }

    /// The tables of the schema (no views) that this user may read, by name.
    pub async fn tables(&mut self) -> Result<Vec<SourceTable>> {
        let rows: Vec<(String, Vec<String>)> = sqlx::query_as(
            "SELECT c.relname::text, array_agg(a.attname::text ORDER BY a.attnum)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
               AND has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
             GROUP BY c.oid, c.relname ORDER BY c.relname",
        )
        .bind(&self.schema)
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(name, columns)| SourceTable { name, columns })
            .collect())
    }

    /// Sends the given columns of a table as CSV with a header, in pieces. Ends early when nobody listens any more;
    /// the connection is of no use then.
    pub async fn copy(
        &mut self,
        table: &str,
        columns: &[&str],
        into: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        self.copy_query(
            &format!("SELECT {} FROM {}", list.join(", "), self.qualified(table)),
            into,
        )
        .await
    }

    /// The distinct values of some columns, and how many rows have them in a last column `rows`.
    pub async fn survey(
        &mut self,
        table: &str,
        columns: &[&str],
        into: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let list: String = columns.iter().map(|column| quoted(column) + ", ").collect();
        let group = if columns.is_empty() {
            String::new()
        } else {
            format!(" GROUP BY {}", list.trim_end_matches(", "))
        };
        self.copy_query(
            &format!(
                "SELECT {list}count(*) AS rows FROM {}{group}",
                self.qualified(table)
            ),
            into,
        )
        .await
    }

    async fn copy_query(&mut self, query: &str, into: mpsc::Sender<Bytes>) -> Result<()> {
        let statement = format!("COPY ({query}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')");
        let mut stream = self.connection.copy_out_raw(&statement).await?;
        // Rows come one by one; a channel costs more than a row does.
        let mut piece: Vec<u8> = Vec::with_capacity(PIECE * 2);
        while let Some(row) = stream.try_next().await? {
            piece.extend_from_slice(&row);
            if piece.len() >= PIECE {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE * 2));
                if into.send(full.into()).await.is_err() {
                    return Ok(());
                }
            }
        }
        // Nobody listening is no failure.
        drop(into.send(piece.into()).await);
        Ok(())
    }

    fn qualified(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(table))
    }

    pub async fn close(self) -> Result<()> {
        Ok(self.connection.close().await?)
    }
}

/// Where a server listens.
fn server(options: &PgConnectOptions) -> String {
    let (host, port) = (options.get_host(), options.get_port());
    if let Some(socket) = options.get_socket() {
        return format!("{}:{port}", socket.display());
    }
    // Supabase's poolers serve many projects at one address; `postgres.PROJECT` as the user says which.
    // https://supabase.com/docs/guides/database/connecting-to-postgres
    let project = host
        .ends_with(".pooler.supabase.com")
        .then(|| options.get_username().split_once('.'))
        .flatten();
    match project {
        Some((_, project)) => format!("{project}.{host}:{port}"),
        None => format!("{host}:{port}"),
    }
}

const PIECE: usize = 128 * 1024;

/// An identifier as SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_old_servers_have_two_names_and_no_name_has_a_user_or_a_password() {
        for (url, name) in [
            (
                "postgres://me:secret@db.one.test/postgres",
                "db.one.test:5432",
            ),
            (
                "postgres://me:secret@db.one.test:6543/postgres",
                "db.one.test:6543",
            ),
            (
                "postgres://postgres.abc:secret@eu.pooler.supabase.com:6543/postgres",
                "abc.eu.pooler.supabase.com:6543",
            ),
        ] {
            assert_eq!(server(&url.parse().unwrap()), name);
        }
    }
}
