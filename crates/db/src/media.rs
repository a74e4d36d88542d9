//! Files customers sent, from the provider's reference to our storage.

use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;
use wasel_domain::{MediaRef, OrgId};

use crate::ingest::{clean, clean_json};
use crate::{Result, SystemTx};

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct NewMedia {
    pub org_id: Uuid,
    pub id: Uuid,
    pub message_id: Uuid,
    pub channel_id: Uuid,
    /// The ledger row that brought it.
    webhook_event_id: Uuid,
    source: String,
    mime_type: Option<String>,
    filename: Option<String>,
    voice: bool,
}

#[derive(Clone, Debug, FromRow)]
pub struct Media {
    pub org_id: Uuid,
    pub id: Uuid,
    pub message_id: Uuid,
    pub channel_id: Uuid,
    pub source: Value,
    pub status: String,
    pub mime_type: Option<String>,
    pub filename: Option<String>,
    pub size_bytes: Option<i64>,
    pub storage_key: Option<String>,
    pub error: Option<String>,
    pub attempts: i32,
    /// The ledger row whose body may hold it; `None` for files from before that was kept.
    pub webhook_event_id: Option<Uuid>,
}

impl NewMedia {
    pub(crate) fn new(
        org_id: Uuid,
        message_id: Uuid,
        channel_id: Uuid,
        webhook_event_id: Uuid,
        source: &MediaRef,
    ) -> Self {
        let json = serde_json::to_value(source).unwrap_or(Value::Null);
        Self {
            org_id,
            id: Uuid::now_v7(),
            message_id,
            channel_id,
            webhook_event_id,
            source: clean_json(&json).unwrap_or_else(|| "{}".to_owned()),
            mime_type: source
                .mime_type
                .as_deref()
                .map(|text| clean(text).into_owned()),
            filename: source
                .filename
                .as_deref()
                .map(|text| clean(text).into_owned()),
            voice: source.voice,
        }
    }
}

/// What a message shows of its files: our own address for each, which works once the file is fetched.
pub(crate) fn listing(files: &[NewMedia]) -> String {
    let files: Vec<Value> = files
        .iter()
        .map(|file| {
            json!({
                "media_id": file.id,
                "url": format!("/v1/media/{}", file.id),
                "mime_type": file.mime_type,
                "filename": file.filename,
                "voice": file.voice,
            })
        })
        .collect();
    Value::Array(files).to_string()
}

pub(crate) async fn insert(connection: &mut PgConnection, files: &[NewMedia]) -> Result<()> {
    macro_rules! column {
        ($field:ident) => {
            files
                .iter()
                .map(|file| file.$field.clone())
                .collect::<Vec<_>>()
        };
    }
    sqlx::query(
        "INSERT INTO media (org_id, id, message_id, channel_id, source, mime_type, filename, webhook_event_id)
         SELECT n.org_id, n.id, n.message_id, n.channel_id, n.source::jsonb, n.mime_type, n.filename, n.webhook_event_id
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::uuid[])
             AS n(org_id, id, message_id, channel_id, source, mime_type, filename, webhook_event_id)",
    )
    .bind(column!(org_id))
    .bind(column!(id))
    .bind(column!(message_id))
    .bind(column!(channel_id))
    .bind(column!(source))
    .bind(column!(mime_type))
    .bind(column!(filename))
    .bind(column!(webhook_event_id))
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn find(connection: &mut PgConnection, org: OrgId, id: Uuid) -> Result<Option<Media>> {
    Ok(
        sqlx::query_as("SELECT * FROM media WHERE org_id = $1 AND id = $2")
            .bind(org.0)
            .bind(id)
            .fetch_optional(connection)
            .await?,
    )
}

/// Takes files that are due and puts them off by `lease_seconds`, so that no other node fetches them meanwhile and
/// a crash only delays them.
pub async fn lock_next(tx: &mut SystemTx, limit: i64, lease_seconds: i32) -> Result<Vec<Media>> {
    Ok(sqlx::query_as(
        "UPDATE media SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
         WHERE (org_id, id) IN (
             SELECT org_id, id FROM media WHERE status = 'pending' AND due_at <= now()
             ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING *",
    )
    .bind(limit)
    .bind(f64::from(lease_seconds))
    .fetch_all(&mut **tx)
    .await?)
}

/// What a fetch ended in.
#[derive(Clone, Debug)]
pub enum Fetched<'a> {
    Stored {
        mime_type: &'a str,
        size_bytes: i64,
        sha256: &'a str,
        storage_key: &'a str,
    },
    /// Try again after these seconds.
    Later {
        seconds: f64,
        error: &'a str,
    },
    Failed {
        error: &'a str,
    },
}

pub async fn update_fetched(
    tx: &mut SystemTx,
    org: Uuid,
    id: Uuid,
    fetched: &Fetched<'_>,
) -> Result<()> {
    match fetched {
        Fetched::Stored {
            mime_type,
            size_bytes,
            sha256,
            storage_key,
        } => {
            sqlx::query(
                "UPDATE media SET status = 'stored', mime_type = $3, size_bytes = $4, sha256 = $5, storage_key = $6,
                     error = NULL WHERE org_id = $1 AND id = $2",
            )
            .bind(org)
            .bind(id)
            .bind(clean(mime_type))
            .bind(size_bytes)
            .bind(sha256)
            .bind(storage_key)
            .execute(&mut **tx)
            .await?;
        }
        Fetched::Later { seconds, error } => {
            sqlx::query(
                "UPDATE media SET due_at = now() + make_interval(secs => $3), error = $4 WHERE org_id = $1 AND id = $2",
            )
            .bind(org)
            .bind(id)
            .bind(seconds)
            .bind(error)
            .execute(&mut **tx)
            .await?;
        }
        Fetched::Failed { error } => {
            sqlx::query(
                "UPDATE media SET status = 'failed', error = $3 WHERE org_id = $1 AND id = $2",
            )
            .bind(org)
            .bind(id)
            .bind(error)
            .execute(&mut **tx)
            .await?;
        }
    }
    Ok(())
}
