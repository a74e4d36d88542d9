//! Applying the schema. The files are plain SQL, safe to run twice, and also apply with `psql -f`.

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::Result;
use crate::error::Error;

/// All migrations, embedded.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// An advisory lock of ours; any number nobody else uses.
const LOCK: i64 = 0x5741_5345_4c00_0001;

/// Brings the database up to date, under a lock so that several nodes may start at once.
pub async fn migrate(options: &PgConnectOptions) -> Result<()> {
    // Notices of `IF NOT EXISTS` are no news.
    let mut connection = options
        .clone()
        .options([("client_min_messages", "warning")])
        .connect()
        .await?;
    check_version(&mut connection).await?;
    // Held until the connection closes. The migrator's own lock comes too late for the schema its table is in.
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut connection)
        .await?;
    connection
        .execute("CREATE SCHEMA IF NOT EXISTS wasel")
        .await?;
    let mut migrator = Migrator {
        ..Migrator::DEFAULT
    };
    migrator.migrations = std::borrow::Cow::Borrowed(&MIGRATOR.migrations);
    // Not in `public`, which a Supabase project serves to the world.
    migrator.dangerous_set_table_name("wasel.schema_migrations");
    // A newer node may have migrated already while this one is still being replaced.
    migrator.set_ignore_missing(true);
    migrator.run(&mut connection).await?;
    connection
        .execute("SELECT wasel.maintain_change_log(2, interval '100 years')")
        .await?;
    sqlx::raw_sql(AssertSqlSafe(crate::templates::system_sql()))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(())
}

/// The whole schema as one SQL script, for people who apply it themselves; at its end the system's templates.
#[must_use]
pub fn migration_sql() -> String {
    let schema: String = MIGRATOR
        .iter()
        .map(|migration| {
            format!(
                "-- {:04} {}\n{}\n",
                migration.version,
                migration.description,
                migration.sql.as_str()
            )
        })
        .collect();
    format!(
        "{schema}-- System templates\n{}",
        crate::templates::system_sql()
    )
}

async fn check_version(connection: &mut PgConnection) -> Result<()> {
    let (number, text): (i32, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
    )
    .fetch_one(connection)
    .await?;
    if number < 150_000 {
        return Err(Error::TooOld(format!(
            "PostgreSQL 15 or newer is needed, this server is {text}"
        )));
    }
    Ok(())
}
