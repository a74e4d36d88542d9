//! Removes the bytes of files that are gone, and of uploads that never came to be one.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use wasel_db::storage::{self, Version};
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

const BATCH: i64 = 100;
const PARALLEL: usize = 8;
const POLL: Duration = Duration::from_secs(60);
/// After a failure; longer than a batch takes.
const LEASE_SECONDS: i32 = 300;

pub struct SweepStorage(pub AppState);

#[async_trait]
impl Job for SweepStorage {
    const NAME: &'static str = "sweep_storage";

    async fn run(&self) -> Result<Next, JobError> {
        let mut tx = self.0.db.system().await?;
        let garbage = storage::lock_next_garbage(&mut tx, BATCH, LEASE_SECONDS).await?;
        tx.commit().await?;
        let is_full = garbage.len() as i64 == BATCH;
        let gone: Vec<Version> = stream::iter(garbage)
            .map(|bytes| async move {
                match self.0.storage.delete(bytes).await {
                    Ok(()) => Some(bytes),
                    Err(error) => {
                        tracing::warn!(storage.version = %bytes.version, %error, "bytes could not be removed");
                        None
                    }
                }
            })
            .buffer_unordered(PARALLEL)
            .filter_map(async |bytes| bytes)
            .collect()
            .await;
        let mut tx = self.0.db.system().await?;
        storage::delete_garbage(&mut tx, &gone).await?;
        tx.commit().await?;
        Ok(if is_full {
            Next::Now
        } else {
            Next::After(POLL)
        })
    }
}
