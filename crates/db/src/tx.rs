//! The kinds of transaction.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

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

/// Whose rights SQL that a caller shaped runs with.
#[derive(Clone, Copy, Debug)]
pub enum Actor<'a> {
    /// Role `anon`.
    Anonymous,
    /// Role `authenticated` with these claims.
    Tenant(&'a TenantClaims),
    /// Role `service_role`: every tenant.
    Operator,
}

/// A transaction for SQL that a caller shaped: under their role, and no statement of it runs for long.
#[derive(Debug)]
pub struct ActorTx(Transaction<'static, Postgres>);

impl TenantTx {
    pub(crate) async fn begin(pool: &PgPool, claims: &TenantClaims) -> Result<Self> {
        // One round trip for all three.
        let begin = format!("BEGIN; {}", become_tenant(claims));
        Ok(Self(
            on_a_live_connection(pool, || pool.begin_with(AssertSqlSafe(begin.clone()))).await?,
        ))
    }

    pub async fn commit(self) -> Result<()> {
        Ok(self.0.commit().await?)
    }
}

/// SET takes no parameters; the JSON is quoted as an SQL literal.
fn become_tenant(claims: &TenantClaims) -> String {
    let claims = json!({
        "role": "authenticated",
        "sub": claims.user_id.map(|id| id.0).unwrap_or(Uuid::nil()),
        "wasel_org_id": claims.org_id,
        "wasel_role": claims.role,
        "app_metadata": { "org_id": claims.org_id },
    });
    let quoted = claims.to_string().replace('\'', "''");
    format!("SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{quoted}'")
}

impl ActorTx {
    pub(crate) async fn begin(
        pool: &PgPool,
        actor: Actor<'_>,
        read_only: bool,
        statement_timeout: Duration,
    ) -> Result<Self> {
        let role = match actor {
            Actor::Tenant(claims) => become_tenant(claims),
            Actor::Anonymous => {
                r#"SET LOCAL ROLE anon; SET LOCAL request.jwt.claims = '{"role":"anon"}'"#.to_owned()
            }
            Actor::Operator => {
                r#"SET LOCAL ROLE service_role; SET LOCAL request.jwt.claims = '{"role":"service_role"}'"#.to_owned()
            }
        };
        let begin = format!(
            "BEGIN{}; SET LOCAL statement_timeout = {}; {role}",
            if read_only { " READ ONLY" } else { "" },
            statement_timeout.as_millis()
        );
        Ok(Self(
            on_a_live_connection(pool, || pool.begin_with(AssertSqlSafe(begin.clone()))).await?,
        ))
    }

    /// What Postgres checks only now is the caller's to know of, so the error is as it came.
    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        self.0.commit().await
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
connection!(ActorTx);
connection!(SystemTx);
