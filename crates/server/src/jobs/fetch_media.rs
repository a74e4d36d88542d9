//! Fetches the files customers sent from their providers into our storage, before the provider's copy expires
//! (Meta: URLs live 5 minutes, media ids 7 days).

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use ring::digest;
use wasel_db::ledger;
use wasel_db::media::{self, Fetched, Media};
use wasel_domain::{MediaRef, OrgId};
use wasel_jobs::{Job, JobError, Next};
use wasel_providers::{ErrorClass, FetchFrom};

use crate::state::AppState;

const BATCH: i64 = 16;
const PARALLEL: usize = 4;
const POLL: Duration = Duration::from_secs(5);
/// Longer than one download may take.
const LEASE_SECONDS: i32 = 300;
const MAX_ATTEMPTS: i32 = 8;

pub struct FetchMedia(pub AppState);

#[async_trait]
impl Job for FetchMedia {
    const NAME: &'static str = "fetch_media";

    async fn run(&self) -> Result<Next, JobError> {
        let mut tx = self.0.db.system().await?;
        let files = media::lock_next(&mut tx, BATCH, LEASE_SECONDS).await?;
        tx.commit().await?;
        let full = files.len() as i64 == BATCH;
        let results: Vec<Result<(), JobError>> = stream::iter(files)
            .map(|file| fetch(&self.0, file))
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        self.0.signals.commits.changes.notify_one();
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(if full { Next::Now } else { Next::After(POLL) })
    }
}

async fn fetch(state: &AppState, file: Media) -> Result<(), JobError> {
    let outcome = download(state, &file).await;
    let mut tx = state.db.system().await?;
    let fetched = match &outcome {
        Ok(stored) => Fetched::Stored {
            mime_type: &stored.mime_type,
            size_bytes: stored.size,
            sha256: &stored.sha256,
            storage_key: &stored.key,
        },
        Err(failed) if failed.again && file.attempts < MAX_ATTEMPTS => Fetched::Later {
            seconds: 2f64.powi(file.attempts.min(12)),
            error: &failed.reason,
        },
        Err(failed) => {
            tracing::warn!(media.id = %file.id, reason = %failed.reason, "a file could not be fetched");
            Fetched::Failed {
                error: &failed.reason,
            }
        }
    };
    media::update_fetched(&mut tx, file.org_id, file.id, &fetched).await?;
    tx.commit().await?;
    Ok(())
}

struct Stored {
    mime_type: String,
    size: i64,
    sha256: String,
    key: String,
}

struct Failed {
    again: bool,
    reason: String,
}

/// The request that brought the file; `None` once the ledger has dropped it.
async fn read_webhook_body(state: &AppState, file: &Media) -> wasel_db::Result<Option<Vec<u8>>> {
    let Some(event) = file.webhook_event_id else {
        return Ok(None);
    };
    let mut tx = state.db.system().await?;
    let body = ledger::find_body(&mut tx, OrgId(file.org_id), event).await?;
    tx.commit().await?;
    Ok(body)
}

async fn download(state: &AppState, file: &Media) -> Result<Stored, Failed> {
    let failed = |again, reason: String| Failed { again, reason };
    let source: MediaRef = serde_json::from_value(file.source.clone())
        .map_err(|error| failed(false, format!("its reference: {error}")))?;
    let channel = state
        .registry
        .of_org(OrgId(file.org_id), file.channel_id.into())
        .ok_or_else(|| failed(true, "the channel cannot be opened".to_owned()))?;
    let capabilities = channel.open.capabilities();
    let webhook_body = if capabilities.media_in_webhook {
        read_webhook_body(state, file)
            .await
            .map_err(|error| failed(true, error.to_string()))?
    } else {
        None
    };
    let from = FetchFrom {
        http: &state.media_http,
        webhook_body: webhook_body.as_deref(),
    };
    let fetched = channel
        .open
        .fetch_media(from, &source, capabilities.max_media_bytes)
        .await
        .map_err(|error| {
            let gone = matches!(error.class, ErrorClass::Content | ErrorClass::Recipient);
            failed(!gone, error.to_string())
        })?;
    let sha256 = hex::encode(digest::digest(&digest::SHA256, &fetched.bytes));
    let size = i64::try_from(fetched.bytes.len()).unwrap_or(i64::MAX);
    let key = state
        .storage
        .put(file.org_id, file.id, fetched.bytes)
        .await
        .map_err(|error| failed(true, format!("storing it: {error}")))?;
    Ok(Stored {
        mime_type: fetched.mime_type,
        size,
        sha256,
        key,
    })
}
