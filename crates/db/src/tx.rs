//! The two kinds of transaction.

use std::ops::{Deref, DerefMut};

use serde_json::json;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection, Postgres, Transaction};
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

use crate::Result;

/// Who acts, in which tenant. Resolved by the server; the database's policies trust it.
#[derive(Clone, Debug)]
pub struct TenantClaims {
    pub org_id: OrgId,
    /// `None` for an API key or the service-role key.
    pub user_id: Option<UserId>,
    /// `owner`, `admin`, `agent`, `viewer` …
    pub role: String,
}

/// A transaction under role `authenticated` with the caller's claims.
#[derive(Debug)]
pub struct TenantTx(Transaction<'static, Postgres>);

/// A transaction as `service_role`.
#[derive(Debug)]
pub struct SystemTx(Transaction<'static, Postgres>);

impl TenantTx {
    pub(crate) async fn begin(pool: &PgPool, claims: &TenantClaims) -> Result<Self> {
        let claims = json!({
            "role": "authenticated",
            "sub": claims.user_id.map(|id| id.0).unwrap_or(Uuid::nil()),
            "wasel_org_id": claims.org_id,
            "wasel_role": claims.role,
            "app_metadata": { "org_id": claims.org_id },
        });
        // One round trip for all three. SET takes no parameters; the JSON is quoted as an SQL literal.
        let quoted = claims.to_string().replace('\'', "''");
        let begin = format!(
            "BEGIN; SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{quoted}'"
        );
        Ok(Self(
            on_a_live_connection(pool, || pool.begin_with(AssertSqlSafe(begin.clone()))).await?,
        ))
    }

    pub async fn commit(self) -> Result<()> {
        Ok(self.0.commit().await?)
    }
}

impl SystemTx {
    pub(crate) async fn begin(pool: &PgPool) -> Result<Self> {
        Ok(Self(on_a_live_connection(pool, || pool.begin()).await?))
    }

    pub async fn commit(self) -> Result<()> {
        Ok(self.0.commit().await?)
    }
}

/// A part of a transaction that can be undone by itself: rolled back when dropped, else kept by `commit`.
pub async fn savepoint(connection: &mut PgConnection) -> Result<sqlx::Transaction<'_, Postgres>> {
    Ok(Connection::begin(connection).await?)
}

/// Begins a transaction, or does in one statement what may be done twice. A connection that died while it lay in the
/// pool shows here, where nothing is lost by taking the next one; after a restart of the database that may be true of
/// all the pool has now. A database that is away is another matter: then the first new connection fails, and with it
/// this.
pub(crate) async fn on_a_live_connection<T, F>(pool: &PgPool, begin: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = sqlx::Result<T>>,
{
    for _ in 0..pool.size() {
        match begin().await {
            Err(error) if is_dead(&error) => {}
            result => return Ok(result?),
        }
    }
    Ok(begin().await?)
}

fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // The last words of a connection whose server was stopped: 57P01 to 57P03.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

macro_rules! connection {
    ($tx:ident) => {
        impl Deref for $tx {
            type Target = PgConnection;

            fn deref(&self) -> &PgConnection {
                &self.0
            }
        }

        impl DerefMut for $tx {
            fn deref_mut(&mut self) -> &mut PgConnection {
                &mut self.0
            }
        }
    };
}

connection!(TenantTx);
connection!(SystemTx);
