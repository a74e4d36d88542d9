//! Files of the bucket, by name. Their bytes are elsewhere: see [`Version`].

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::OrgId;

use crate::{Result, SystemTx};

/// The one bucket there is (S4.14).
pub const BUCKET: &str = "whatsapp-media";

/// The bytes of one upload. Never written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Version {
    pub org_id: Uuid,
    pub version: Uuid,
}

#[derive(Clone, Debug, FromRow)]
pub struct StorageObject {
    pub org_id: Uuid,
    pub id: Uuid,
    pub bucket: String,
    pub name: String,
    pub version: Uuid,
    pub size_bytes: i64,
    pub mime_type: String,
    pub etag: String,
    pub cache_control: String,
    pub user_metadata: Option<Value>,
    pub owner_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl StorageObject {
    #[must_use]
    pub fn bytes(&self) -> Version {
        Version {
            org_id: self.org_id,
            version: self.version,
        }
    }
}

/// A file whose bytes are in place.
#[derive(Clone, Debug)]
pub struct NewObject {
    pub org_id: OrgId,
    pub name: String,
    pub version: Uuid,
    pub size_bytes: i64,
    pub mime_type: String,
    pub etag: String,
    pub cache_control: String,
    pub user_metadata: Option<Value>,
    pub owner_id: Option<Uuid>,
}

/// Writes down that bytes are about to be stored, so that they go should no row come to name them within a day.
pub async fn insert_reservation(tx: &mut SystemTx, bytes: Version) -> Result<()> {
    sqlx::query(
        "INSERT INTO wasel.storage_garbage (org_id, version, due_at) VALUES ($1, $2, now() + interval '1 day')",
    )
    .bind(bytes.org_id)
    .bind(bytes.version)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Puts bytes off for another day; false if they are gone or about to go. What is being removed is due within the
/// lease of [`lock_next_garbage`], a few minutes.
pub async fn renew_reservation(tx: &mut SystemTx, bytes: Version) -> Result<bool> {
    let renewed = sqlx::query(
        "UPDATE wasel.storage_garbage SET due_at = now() + interval '1 day'
         WHERE org_id = $1 AND version = $2 AND due_at > now() + interval '1 hour'",
    )
    .bind(bytes.org_id)
    .bind(bytes.version)
    .execute(&mut **tx)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// `None` if the name is taken and not to be `replaced`.
pub async fn insert(
    connection: &mut PgConnection,
    new: &NewObject,
    replace: bool,
) -> Result<Option<StorageObject>> {
    let conflict = if replace {
        "DO UPDATE SET version = excluded.version, size_bytes = excluded.size_bytes, mime_type = excluded.mime_type,
             etag = excluded.etag, cache_control = excluded.cache_control, user_metadata = excluded.user_metadata,
             owner_id = excluded.owner_id"
    } else {
        "DO NOTHING"
    };
    let sql = format!(
        "INSERT INTO storage_objects
             (org_id, bucket, name, version, size_bytes, mime_type, etag, cache_control, user_metadata, owner_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (org_id, bucket, name) {conflict} RETURNING *"
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(new.org_id.0)
        .bind(BUCKET)
        .bind(&new.name)
        .bind(new.version)
        .bind(new.size_bytes)
        .bind(&new.mime_type)
        .bind(&new.etag)
        .bind(&new.cache_control)
        .bind(&new.user_metadata)
        .bind(new.owner_id)
        .fetch_optional(connection)
        .await?)
}

pub async fn find(
    connection: &mut PgConnection,
    org: OrgId,
    name: &str,
) -> Result<Option<StorageObject>> {
    Ok(sqlx::query_as(
        "SELECT * FROM storage_objects WHERE org_id = $1 AND bucket = $2 AND name = $3",
    )
    .bind(org.0)
    .bind(BUCKET)
    .bind(name)
    .fetch_optional(connection)
    .await?)
}

/// Those of the names that are there.
pub async fn list_names(
    connection: &mut PgConnection,
    org: OrgId,
    names: &[String],
) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT name FROM storage_objects WHERE org_id = $1 AND bucket = $2 AND name = ANY ($3)",
    )
    .bind(org.0)
    .bind(BUCKET)
    .bind(names)
    .fetch_all(connection)
    .await?)
}

/// What a list goes by. Folders come first and have nothing but a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    Name,
    CreatedAt,
    UpdatedAt,
}

#[derive(Clone, Debug)]
pub struct ListObjects {
    /// Empty, or ending in `/`.
    pub folder: String,
    /// How the names below the folder begin, in any case.
    pub search: String,
    pub sort_by: SortBy,
    pub descending: bool,
    pub limit: i64,
    pub offset: i64,
}

/// A file, or a folder if all but the name is missing.
#[derive(Clone, Debug, FromRow)]
pub struct Entry {
    /// Below the folder that was asked for.
    pub name: String,
    pub id: Option<Uuid>,
    pub size_bytes: Option<i64>,
    pub mime_type: Option<String>,
    pub etag: Option<String>,
    pub cache_control: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
}

/// The files and folders directly in a folder.
pub async fn list(
    connection: &mut PgConnection,
    org: OrgId,
    wanted: &ListObjects,
) -> Result<Vec<Entry>> {
    let direction = if wanted.descending { "DESC" } else { "ASC" };
    let first = match wanted.sort_by {
        SortBy::Name => "name",
        SortBy::CreatedAt => "created_at",
        SortBy::UpdatedAt => "updated_at",
    };
    let sql = format!(
        r"WITH below AS (
             SELECT *, substr(name, char_length($3) + 1) AS rest FROM storage_objects
             WHERE org_id = $1 AND bucket = $2 AND starts_with(name, $3)
         ), listed AS (
             SELECT 0 AS kind, split_part(rest, '/', 1) AS name, NULL::uuid AS id, NULL::bigint AS size_bytes,
                 NULL AS mime_type, NULL AS etag, NULL AS cache_control, NULL::timestamptz AS created_at,
                 NULL::timestamptz AS updated_at
             FROM below WHERE position('/' IN rest) > 0 GROUP BY split_part(rest, '/', 1)
             UNION ALL
             SELECT 1, rest, id, size_bytes, mime_type, etag, cache_control, created_at, updated_at
             FROM below WHERE position('/' IN rest) = 0
         )
         SELECT name, id, size_bytes, mime_type, etag, cache_control, created_at, updated_at FROM listed
         WHERE name ILIKE $4 || '%' ORDER BY kind, {first} {direction}, name {direction} LIMIT $5 OFFSET $6"
    );
    let search = wanted
        .search
        .replace('\\', r"\\")
        .replace('%', r"\%")
        .replace('_', r"\_");
    Ok(sqlx::query_as(AssertSqlSafe(sql))
        .bind(org.0)
        .bind(BUCKET)
        .bind(&wanted.folder)
        .bind(search)
        .bind(wanted.limit)
        .bind(wanted.offset)
        .fetch_all(connection)
        .await?)
}

/// Takes files away; returns what they were. Their bytes go after the commit.
pub async fn delete(
    connection: &mut PgConnection,
    org: OrgId,
    names: &[String],
) -> Result<Vec<StorageObject>> {
    Ok(sqlx::query_as(
        "DELETE FROM storage_objects WHERE org_id = $1 AND bucket = $2 AND name = ANY ($3) RETURNING *",
    )
    .bind(org.0)
    .bind(BUCKET)
    .bind(names)
    .fetch_all(connection)
    .await?)
}

/// Gives a file another name. `None` if there is none; a constraint error if the new name is taken.
pub async fn update_name(
    connection: &mut PgConnection,
    org: OrgId,
    from: &str,
    to: &str,
) -> Result<Option<StorageObject>> {
    Ok(sqlx::query_as(
        "UPDATE storage_objects SET name = $4 WHERE org_id = $1 AND bucket = $2 AND name = $3 RETURNING *",
    )
    .bind(org.0)
    .bind(BUCKET)
    .bind(from)
    .bind(to)
    .fetch_optional(connection)
    .await?)
}

/// Takes bytes that are to go and puts them off, so that no other node tries meanwhile and a crash only delays them.
pub async fn lock_next_garbage(
    tx: &mut SystemTx,
    limit: i64,
    lease_seconds: i32,
) -> Result<Vec<Version>> {
    Ok(sqlx::query_as(
        "UPDATE wasel.storage_garbage SET due_at = now() + make_interval(secs => $2)
         WHERE (org_id, version) IN (
             SELECT g.org_id, g.version FROM wasel.storage_garbage g WHERE g.due_at <= now()
             AND NOT EXISTS (SELECT FROM storage_objects o WHERE o.org_id = g.org_id AND o.version = g.version)
             ORDER BY g.due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING org_id, version",
    )
    .bind(limit)
    .bind(f64::from(lease_seconds))
    .fetch_all(&mut **tx)
    .await?)
}

/// Forgets bytes that are gone.
pub async fn delete_garbage(tx: &mut SystemTx, gone: &[Version]) -> Result<()> {
    let (orgs, versions): (Vec<Uuid>, Vec<Uuid>) = gone
        .iter()
        .map(|bytes| (bytes.org_id, bytes.version))
        .unzip();
    sqlx::query(
        "DELETE FROM wasel.storage_garbage g USING unnest($1::uuid[], $2::uuid[]) AS n (org_id, version)
         WHERE g.org_id = n.org_id AND g.version = n.version",
    )
    .bind(orgs)
    .bind(versions)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
