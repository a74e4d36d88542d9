//! Database errors, by what the caller can do about them.

/// A failed database operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached or is going down: try again later.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// A unique or foreign key refused the row.
    #[error("constraint {constraint} refused the row")]
    Constraint {
        constraint: String,
        #[source]
        source: sqlx::Error,
    },
    /// Row-level security refused the statement.
    #[error("not allowed")]
    Forbidden(#[source] sqlx::Error),
    /// A row holds what the code does not understand. Names the table, column and row.
    #[error("{table}.{column} of row {row} holds an unexpected value")]
    Inconsistent {
        table: &'static str,
        column: &'static str,
        row: String,
    },
    /// Another transaction made the same row a moment ago: start over and find it.
    #[error("another transaction made the same row")]
    Raced,
    #[error("the database is older than this program needs: {0}")]
    TooOld(String),
    #[error("migrating failed: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("database error: {0}")]
    Other(#[source] sqlx::Error),
}

impl Error {
    /// Whether the same statement can succeed later without anybody changing anything.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether another transaction got in the way (deadlock, serialisation) and a repeat helps.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Raced)
            || matches!(self, Self::Other(error) if code(error).is_some_and(|c| c == "40P01" || c == "40001"))
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|e| e.code())
        .map(|c| c.into_owned())
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed => Self::Unavailable(error),
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                match (code.as_ref(), database.constraint()) {
                    // Connection trouble, out of resources, shutting down or starting up.
                    (c, _)
                        if c.starts_with("08") || c.starts_with("53") || c.starts_with("57P") =>
                    {
                        Self::Unavailable(error)
                    }
                    (c, Some(constraint)) if c.starts_with("23") => Self::Constraint {
                        constraint: constraint.to_owned(),
                        source: error,
                    },
                    ("42501", _) => Self::Forbidden(error),
                    _ => Self::Other(error),
                }
            }
            _ => Self::Other(error),
        }
    }
}
