//! `whatsapp_session_keys`: the sealed state of linked phones.
//!
//! Reads and writes are one statement each, so one round trip and one transaction. A write first takes hold of the
//! session's lease under the caller's fencing token; where that is not the newest any more nothing is written. The
//! hold lasts until the statement is committed, so a newer owner cannot read before it or write between.
//!
//! What is stored under which hash is the caller's matter (see [`crate::seal::RowSealer`]).

use sqlx::postgres::PgQueryResult;
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::seal::KeyId;
use crate::tx::on_a_live_connection;
use crate::{Db, Error, Result, SystemTx, sessions};

/// The right to write one session's rows: the fencing token of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub org_id: OrgId,
    pub session_id: Uuid,
    pub token: i64,
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredRow {
    pub kind: i16,
    /// A keyed hash of the row's key.
    pub key: Vec<u8>,
    pub sealed: Vec<u8>,
    /// When it was last of use (Unix seconds).
    pub touched: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the session's lease is another node's by now")]
    LeaseLost,
    #[error(transparent)]
    Database(#[from] Error),
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The rows of one kind that are stored under any of `keys`.
pub async fn find(
    db: &Db,
    org: OrgId,
    session_id: Uuid,
    kind: i16,
    keys: &[Vec<u8>],
) -> Result<Vec<StoredRow>> {
    on_a_live_connection(&db.system, || {
        sqlx::query_as(
            "SELECT kind, key, sealed, touched FROM whatsapp_session_keys
             WHERE org_id = $1 AND session_id = $2 AND kind = $3 AND key = ANY ($4)",
        )
        .bind(org.0)
        .bind(session_id)
        .bind(kind)
        .bind(keys)
        .fetch_all(&db.system)
    })
    .await
}

/// All rows of one kind.
pub async fn list(db: &Db, org: OrgId, session_id: Uuid, kind: i16) -> Result<Vec<StoredRow>> {
    on_a_live_connection(&db.system, || {
        sqlx::query_as(
            "SELECT kind, key, sealed, touched FROM whatsapp_session_keys
             WHERE org_id = $1 AND session_id = $2 AND kind = $3",
        )
        .bind(org.0)
        .bind(session_id)
        .bind(kind)
        .fetch_all(&db.system)
    })
    .await
}

/// The id (in hex) of a key that sealed some of the session's rows and is not among `known`.
pub async fn find_other_key(
    db: &Db,
    org: OrgId,
    session_id: Uuid,
    known: &[KeyId],
) -> Result<Option<String>> {
    let known: Vec<_> = known.iter().map(<[u8; 4]>::as_slice).collect();
    on_a_live_connection(&db.system, || {
        sqlx::query_scalar(
            "SELECT encode(substring(sealed FOR 4), 'hex') FROM whatsapp_session_keys
             WHERE org_id = $1 AND session_id = $2 AND substring(sealed FOR 4) <> ALL ($3) LIMIT 1",
        )
        .bind(org.0)
        .bind(session_id)
        .bind(&known)
        .fetch_optional(&db.system)
    })
    .await
}

/// Inserts or replaces `rows`, each at most once in them, and deletes the rows of `outdated` (kind and key): where the
/// same things were stored under other hashes.
pub async fn put(
    db: &Db,
    fence: Fence,
    rows: &[StoredRow],
    outdated: &[(i16, Vec<u8>)],
) -> Result<(), WriteError> {
    // In one order always, so that two writers do not wait for each other.
    let mut ordered: Vec<_> = rows.iter().collect();
    ordered.sort_unstable_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
    let kinds: Vec<_> = ordered.iter().map(|row| row.kind).collect();
    let keys: Vec<_> = ordered.iter().map(|row| row.key.as_slice()).collect();
    let sealed: Vec<_> = ordered.iter().map(|row| row.sealed.as_slice()).collect();
    let touched: Vec<_> = ordered.iter().map(|row| row.touched).collect();
    let (old_kinds, old_keys): (Vec<i16>, Vec<&[u8]>) = outdated
        .iter()
        .map(|(kind, key)| (*kind, key.as_slice()))
        .unzip();
    // `gone` is counted before the first row is inserted: sealing anew locks the old row first, too.
    fenced(db, || {
        sqlx::query_scalar(
            "WITH held AS (
                 SELECT 1 FROM whatsapp_session_leases
                 WHERE org_id = $1 AND session_id = $2 AND token = $3 FOR SHARE
             ), gone AS (
                 DELETE FROM whatsapp_session_keys k
                 USING held, unnest($8::smallint[], $9::bytea[]) AS old (kind, key)
                 WHERE k.org_id = $1 AND k.session_id = $2 AND k.kind = old.kind AND k.key = old.key
                 RETURNING 1
             ), written AS (
                 INSERT INTO whatsapp_session_keys (org_id, session_id, kind, key, sealed, touched)
                 SELECT $1, $2, row.kind, row.key, row.sealed, row.touched
                 FROM held, (SELECT count(*) FROM gone) AS first,
                      unnest($4::smallint[], $5::bytea[], $6::bytea[], $7::bigint[])
                          AS row (kind, key, sealed, touched)
                 ON CONFLICT (org_id, session_id, kind, key)
                     DO UPDATE SET sealed = excluded.sealed, touched = excluded.touched
             )
             SELECT count(*) FROM held",
        )
        .bind(fence.org_id.0)
        .bind(fence.session_id)
        .bind(fence.token)
        .bind(&kinds)
        .bind(&keys)
        .bind(&sealed)
        .bind(&touched)
        .bind(&old_kinds)
        .bind(&old_keys)
        .fetch_one(&db.system)
    })
    .await
}

/// Deletes the rows of one kind that are stored under any of `keys`.
pub async fn delete(db: &Db, fence: Fence, kind: i16, keys: &[Vec<u8>]) -> Result<(), WriteError> {
    fenced(db, || {
        sqlx::query_scalar(
            "WITH held AS (
                 SELECT 1 FROM whatsapp_session_leases
                 WHERE org_id = $1 AND session_id = $2 AND token = $3 FOR SHARE
             ), gone AS (
                 DELETE FROM whatsapp_session_keys k USING held
                 WHERE k.org_id = $1 AND k.session_id = $2 AND k.kind = $4 AND k.key = ANY ($5)
             )
             SELECT count(*) FROM held",
        )
        .bind(fence.org_id.0)
        .bind(fence.session_id)
        .bind(fence.token)
        .bind(kind)
        .bind(keys)
        .fetch_one(&db.system)
    })
    .await
}

/// Deletes all rows of one kind.
pub async fn delete_kind(db: &Db, fence: Fence, kind: i16) -> Result<(), WriteError> {
    fenced(db, || {
        sqlx::query_scalar(
            "WITH held AS (
                 SELECT 1 FROM whatsapp_session_leases
                 WHERE org_id = $1 AND session_id = $2 AND token = $3 FOR SHARE
             ), gone AS (
                 DELETE FROM whatsapp_session_keys k USING held
                 WHERE k.org_id = $1 AND k.session_id = $2 AND k.kind = $4
             )
             SELECT count(*) FROM held",
        )
        .bind(fence.org_id.0)
        .bind(fence.session_id)
        .bind(fence.token)
        .bind(kind)
        .fetch_one(&db.system)
    })
    .await
}

/// Deletes the rows of one kind last touched before `touched` (Unix seconds); returns how many. Rows never touched
/// stay.
pub async fn delete_before(
    db: &Db,
    fence: Fence,
    kind: i16,
    touched: i64,
) -> Result<u64, WriteError> {
    let (held, gone): (i64, i64) = repeated(|| {
        on_a_live_connection(&db.system, || {
            sqlx::query_as(
                "WITH held AS (
                     SELECT 1 FROM whatsapp_session_leases
                     WHERE org_id = $1 AND session_id = $2 AND token = $3 FOR SHARE
                 ), gone AS (
                     DELETE FROM whatsapp_session_keys k USING held
                     WHERE k.org_id = $1 AND k.session_id = $2 AND k.kind = $4 AND k.touched < $5
                     RETURNING 1
                 )
                 SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM gone)",
            )
            .bind(fence.org_id.0)
            .bind(fence.session_id)
            .bind(fence.token)
            .bind(kind)
            .bind(touched)
            .fetch_one(&db.system)
        })
    })
    .await?;
    if held == 0 {
        return Err(WriteError::LeaseLost);
    }
    Ok(u64::try_from(gone).unwrap_or(0))
}

/// Deletes the state of a session, whoever runs it: it was unlinked, or is deleted.
pub async fn wipe(tx: &mut SystemTx, org: OrgId, session_id: Uuid) -> Result<u64> {
    let done: PgQueryResult =
        sqlx::query("DELETE FROM whatsapp_session_keys WHERE org_id = $1 AND session_id = $2")
            .bind(org.0)
            .bind(session_id)
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected())
}

/// The sessions that have state.
pub async fn list_sessions(tx: &mut SystemTx) -> Result<Vec<(OrgId, Uuid)>> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT s.org_id, s.id FROM whatsapp_sessions s
         WHERE EXISTS (SELECT FROM whatsapp_session_keys k WHERE k.org_id = s.org_id AND k.session_id = s.id)
         ORDER BY s.org_id, s.id",
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|(org, id)| (OrgId(org), id)).collect())
}

/// Locks up to `limit` rows after `after` (kind and key) that were not sealed under the key `current`, for
/// [`replace`]. Whoever runs the session waits with writing until the transaction ends.
pub async fn lock_not_sealed_by(
    tx: &mut SystemTx,
    org: OrgId,
    session_id: Uuid,
    current: KeyId,
    after: &(i16, Vec<u8>),
    limit: i64,
) -> Result<Vec<StoredRow>> {
    sessions::lock_lease(tx, org.0, session_id).await?;
    Ok(sqlx::query_as(
        "SELECT kind, key, sealed, touched FROM whatsapp_session_keys
         WHERE org_id = $1 AND session_id = $2 AND (kind, key) > ($3, $4) AND substring(sealed FOR 4) <> $5
         ORDER BY kind, key LIMIT $6 FOR UPDATE",
    )
    .bind(org.0)
    .bind(session_id)
    .bind(after.0)
    .bind(&after.1)
    .bind(&current[..])
    .bind(limit)
    .fetch_all(&mut **tx)
    .await?)
}

/// A row as it was, and as it is sealed now.
#[derive(Clone, Debug)]
pub struct Resealed {
    pub old: StoredRow,
    pub key: Vec<u8>,
    pub sealed: Vec<u8>,
}

/// Stores rows locked by [`lock_not_sealed_by`] as they are sealed now. What has been stored under the new hash already
/// is newer, and stays; of several with one new hash the first counts.
pub async fn replace(
    tx: &mut SystemTx,
    org: OrgId,
    session_id: Uuid,
    rows: &[Resealed],
) -> Result<()> {
    let kinds: Vec<_> = rows.iter().map(|row| row.old.kind).collect();
    let old: Vec<_> = rows.iter().map(|row| row.old.key.as_slice()).collect();
    let new: Vec<_> = rows.iter().map(|row| row.key.as_slice()).collect();
    let sealed: Vec<_> = rows.iter().map(|row| row.sealed.as_slice()).collect();
    let touched: Vec<_> = rows.iter().map(|row| row.old.touched).collect();
    sqlx::query(
        "WITH gone AS (
             DELETE FROM whatsapp_session_keys k
             USING unnest($3::smallint[], $4::bytea[]) AS row (kind, key)
             WHERE k.org_id = $1 AND k.session_id = $2 AND k.kind = row.kind AND k.key = row.key
             RETURNING 1
         )
         INSERT INTO whatsapp_session_keys (org_id, session_id, kind, key, sealed, touched)
         SELECT $1, $2, row.kind, row.key, row.sealed, row.touched
         FROM (SELECT count(*) FROM gone) AS first,
              unnest($3::smallint[], $5::bytea[], $6::bytea[], $7::bigint[]) AS row (kind, key, sealed, touched)
         ON CONFLICT (org_id, session_id, kind, key) DO NOTHING",
    )
    .bind(org.0)
    .bind(session_id)
    .bind(&kinds)
    .bind(&old)
    .bind(&new)
    .bind(&sealed)
    .bind(&touched)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Carries out a write that says how many leases it held.
async fn fenced<F>(db: &Db, write: impl Fn() -> F) -> Result<(), WriteError>
where
    F: Future<Output = sqlx::Result<i64>>,
{
    let held = repeated(|| on_a_live_connection(&db.system, &write)).await?;
    if held == 0 {
        return Err(WriteError::LeaseLost);
    }
    Ok(())
}

/// Once more where another transaction got in the way: these writes may be repeated.
async fn repeated<T, F>(write: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match write().await {
        Err(error) if error.is_conflict() => write().await,
        result => result,
    }
}
