//! Moving old tables in: many rows, quietly, once.
//!
//! An [`Importer`] writes batches for one tenant. A batch is one transaction, of messages two at the same time: its rows
//! and the `external_refs` that remember where they came from are there together or not at all. So an import that was
//! interrupted anywhere goes on when it is repeated, and one that is complete changes nothing.
//!
//! - The change feed stays quiet (`wasel.importing`), nothing enters the outbox: an import never sends.
//! - Batches commit without waiting for the disk (`synchronous_commit = off`); [`Importer::finish`] waits once. A crash
//!   of the database in between loses whole batches, which the repetition moves again.
//! - A dry run asks the same questions and writes nothing.
//!
//! The old data comes from [`source`] or from files, which are not this crate's.

mod dry;
mod messages;
mod people;
pub mod source;
mod tables;
mod threads;

use std::collections::{HashMap, HashSet};

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Postgres, Transaction};
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::{Db, Error, Result};
use dry::Seen;
use threads::Threads;

pub use messages::NewMessage;
pub use people::NewConversation;
pub use tables::{NewQueued, NewSession, NewTemplate};
pub use threads::Thread;

/// Repeats of a batch after another transaction got in its way.
const RETRIES: u32 = 3;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Moved,
    /// By an earlier run, or by an earlier row with the same id.
    AlreadyMoved,
    /// The channel has a message with this provider id, sent or received through us or from another table.
    InTheLog,
    /// The old conversation it belongs to was not moved.
    NoConversation,
    /// There is a template of this name that did not come from this row.
    NameTaken,
}

/// One import into one tenant.
#[derive(Debug)]
pub struct Importer {
    connection: PgConnection,
    /// Writes the other half of a batch of messages.
    second: PgConnection,
    target: Target,
    threads: Threads,
    /// Set for a dry run.
    seen: Option<Seen>,
}

/// Whose rows these become and what they are called in `external_refs`.
#[derive(Clone, Debug)]
struct Target {
    org: Uuid,
    source: String,
}

impl Importer {
    /// Connects and waits up to half a minute for another import into the same tenant to end.
    ///
    /// # Errors
    /// [`Error::Raced`] if the other one goes on.
    pub async fn begin(db: &Db, org: OrgId, source: &str, dry_run: bool) -> Result<Self> {
        let mut connection = Self::connect(db).await?;
        // Not with the tenant's id alone: the lock space is shared with the migrations.
        sqlx::query("SELECT pg_advisory_lock(hashtextextended('wasel import ' || $1::text, 0))")
            .bind(org.0)
            .execute(&mut connection)
            .await
            .map_err(
                |error| match error.as_database_error().and_then(|e| e.code()) {
                    Some(code) if code == "55P03" => Error::Raced,
                    _ => error.into(),
                },
            )?;
        Ok(Self {
            connection,
            second: Self::connect(db).await?,
            target: Target {
                org: org.0,
                source: source.to_owned(),
            },
            threads: Threads::default(),
            seen: dry_run.then(Seen::default),
        })
    }

    async fn connect(db: &Db) -> Result<PgConnection> {
        let mut connection = db.connect_options().connect().await?;
        sqlx::raw_sql(
            "SET search_path = public; SET ROLE service_role; SET wasel.importing = 'on';
             SET synchronous_commit = off; SET work_mem = '64MB'; SET jit = off; SET client_min_messages = warning;
             -- Every join is a batch against an index. For a tenant that is new to its statistics the planner takes any
             -- index that begins with org_id for as good as another and reads all of the tenant's rows for each row of a
             -- batch. So the look-ups ask for an order that only the right index has, and sorting is out of the question.
             SET enable_sort = off;
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET lock_timeout = '30s'",
        )
        .execute(&mut connection)
        .await?;
        sqlx::raw_sql(messages::STAGING)
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    /// The rows of the table `kind` from here on belong to this source.
    pub fn set_source(&mut self, source: &str) {
        source.clone_into(&mut self.target.source);
    }

    /// Brings the conversations' last lines up to date and waits until everything is on disk.
    pub async fn finish(mut self) -> Result<()> {
        if self.seen.is_none() {
            people::summarize(&mut self.connection, self.target.org).await?;
            sqlx::raw_sql("SET synchronous_commit = on")
                .execute(&mut self.connection)
                .await?;
            // A commit waits only if it wrote something; what it waits for includes all earlier commits.
            sqlx::query("SELECT pg_logical_emit_message(true, 'wasel', 'import finished')")
                .execute(&mut self.connection)
                .await?;
        }
        self.second.close().await?;
        self.connection.close().await?;
        Ok(())
    }

    async fn transaction(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>> {
        Ok(connection.begin().await?)
    }

    /// Whether a batch that failed like this is worth another try. What the cache says may be why.
    fn may_retry(&mut self, error: &Error, attempt: u32) -> bool {
        self.threads.clear();
        is_passing(error) && attempt < RETRIES
    }
}

/// Whether another transaction got in the way.
fn is_passing(error: &Error) -> bool {
    error.is_conflict() || matches!(error, Error::Constraint { .. })
}

/// A row's old name and the id it shall have here.
#[derive(Clone, Copy, Debug)]
struct Claim<'a> {
    external_id: &'a str,
    id: Uuid,
}

/// Writes the references of a batch. `true` for each row that had none: it is ours to move.
async fn claim(
    tx: &mut PgConnection,
    target: &Target,
    kind: &str,
    rows: &[Claim<'_>],
) -> Result<Vec<bool>> {
    let names: Vec<&str> = rows.iter().map(|row| row.external_id).collect();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let fresh: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO external_refs (org_id, source, kind, external_id, row_id)
         SELECT $1, $2, $3, n.external_id, n.id FROM unnest($4::text[], $5::uuid[]) AS n(external_id, id)
         ON CONFLICT DO NOTHING RETURNING row_id",
    )
    .bind(target.org)
    .bind(&target.source)
    .bind(kind)
    .bind(&names)
    .bind(&ids)
    .fetch_all(tx)
    .await?;
    let mut left: HashMap<Uuid, usize> = HashMap::with_capacity(fresh.len());
    for id in fresh {
        *left.entry(id).or_default() += 1;
    }
    Ok(ids
        .iter()
        .map(|id| match left.get_mut(id) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        })
        .collect())
}

/// Which of these rows have a reference already, by their place.
async fn already_claimed(
    connection: &mut PgConnection,
    target: &Target,
    kind: &str,
    names: &[&str],
) -> Result<HashSet<usize>> {
    let rows: Vec<i64> = sqlx::query_scalar(
        "SELECT n.ord FROM unnest($4::text[]) WITH ORDINALITY AS n(external_id, ord)
         CROSS JOIN LATERAL (SELECT FROM external_refs r WHERE r.org_id = $1 AND r.source = $2 AND r.kind = $3
             AND r.external_id BETWEEN n.external_id AND n.external_id ORDER BY r.external_id LIMIT 1) r",
    )
    .bind(target.org)
    .bind(&target.source)
    .bind(kind)
    .bind(names)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|ord| ord as usize - 1).collect())
}

/// The rows live under other ids than those they were claimed with.
async fn point_to(
    tx: &mut PgConnection,
    target: &Target,
    kind: &str,
    external_ids: &[&str],
    ids: &[Uuid],
) -> Result<()> {
    if external_ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE external_refs r SET row_id = n.id FROM unnest($4::text[], $5::uuid[]) AS n(external_id, id)
         WHERE r.org_id = $1 AND r.source = $2 AND r.kind = $3 AND r.external_id = n.external_id",
    )
    .bind(target.org)
    .bind(&target.source)
    .bind(kind)
    .bind(external_ids)
    .bind(ids)
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes references back: those rows were not moved after all.
async fn disclaim(
    tx: &mut PgConnection,
    target: &Target,
    kind: &str,
    external_ids: &[&str],
) -> Result<()> {
    if external_ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM external_refs WHERE org_id = $1 AND source = $2 AND kind = $3 AND external_id = ANY ($4)",
    )
    .bind(target.org)
    .bind(&target.source)
    .bind(kind)
    .bind(external_ids)
    .execute(tx)
    .await?;
    Ok(())
}
