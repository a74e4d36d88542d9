//! The rows of a session's state as the database holds them: sealed, found by a keyed hash, written under the lease.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{OnceCell, Semaphore};
use wasel_db::Db;
use wasel_db::seal::{RowSealer, SealError, Sealer};
use wasel_db::session_keys::{self, Fence, StoredRow, WriteError};
use wasel_sessions::{HostError, KeyRow, KeyRows, Lease};

use super::host::host_error;

/// How many statements all sessions together have under way: of the system's connections the other jobs keep some, and
/// a thousand sessions that start at once wait here in turn instead of failing on the pool's patience.
const AT_ONCE: usize = 6;

/// Where every session's rows are.
#[derive(Clone)]
pub struct KeyVault {
    db: Db,
    sealer: Arc<Sealer>,
    turns: Arc<Semaphore>,
}

impl KeyVault {
    #[must_use]
    pub fn new(db: Db, sealer: Arc<Sealer>) -> Self {
        Self {
            db,
            sealer,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The rows of the session the lease is for. Nothing is read yet.
    #[must_use]
    pub fn rows(&self, lease: &Lease) -> SealedRows {
        SealedRows {
            vault: self.clone(),
            fence: Fence {
                org_id: lease.session.org_id,
                session_id: lease.session.id,
                token: lease.token,
            },
            sealer: OnceCell::new(),
        }
    }
}

/// One session's rows under one lease.
pub struct SealedRows {
    vault: KeyVault,
    fence: Fence,
    /// Made at the first use, once the stored rows are known to be readable.
    sealer: OnceCell<RowSealer>,
}

impl SealedRows {
    /// The session's keys. Fails where a row is sealed with a key that is not configured: its hash would not be found,
    /// and what is not found looks like a phone that was never linked.
    async fn sealer(&self) -> Result<&RowSealer, HostError> {
        self.sealer
            .get_or_try_init(|| async {
                let (org, session) = (self.fence.org_id, self.fence.session_id);
                let known = self.vault.sealer.key_ids();
                if let Some(unknown) =
                    session_keys::find_other_key(&self.vault.db, org, session, &known)
                        .await
                        .map_err(host_error)?
                {
                    return Err(sealed_wrong(SealError::UnknownKey(unknown)));
                }
                self.vault.sealer.rows(org.0, session).map_err(sealed_wrong)
            })
            .await
    }

    /// Rows as the store knows them. Where one thing is stored twice, by an older hash and a newer one, the newer
    /// counts.
    fn open(sealer: &RowSealer, stored: Vec<StoredRow>) -> Result<Vec<KeyRow>, HostError> {
        let mut rows = HashMap::with_capacity(stored.len());
        for row in stored {
            let open = sealer
                .open(row.kind, &row.key, &row.sealed)
                .map_err(sealed_wrong)?;
            let value = (open.age, open.value, row.touched);
            match rows.entry((row.kind, open.key)) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    if value.0 < entry.get().0 {
                        entry.insert(value);
                    }
                }
            }
        }
        Ok(rows
            .into_iter()
            .map(|((kind, key), (_, value, touched))| KeyRow {
                kind,
                key,
                value,
                touched,
            })
            .collect())
    }

    /// One's turn to talk to the database. The semaphore is never closed.
    async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.vault.turns.acquire().await.ok()
    }
}

#[async_trait]
impl KeyRows for SealedRows {
    async fn get(&self, kind: i16, keys: &[&[u8]]) -> Result<Vec<KeyRow>, HostError> {
        let _turn = self.turn().await;
        let sealer = self.sealer().await?;
        let hashes = all_hashes(sealer, kind, keys);
        let (org, session) = (self.fence.org_id, self.fence.session_id);
        let stored = session_keys::find(&self.vault.db, org, session, kind, &hashes)
            .await
            .map_err(host_error)?;
        Self::open(sealer, stored)
    }

    async fn list(&self, kind: i16) -> Result<Vec<KeyRow>, HostError> {
        let _turn = self.turn().await;
        let sealer = self.sealer().await?;
        let (org, session) = (self.fence.org_id, self.fence.session_id);
        let stored = session_keys::list(&self.vault.db, org, session, kind)
            .await
            .map_err(host_error)?;
        Self::open(sealer, stored)
    }

    async fn put(&self, rows: Vec<KeyRow>) -> Result<(), HostError> {
        let _turn = self.turn().await;
        let sealer = self.sealer().await?;
        let mut stored = HashMap::with_capacity(rows.len());
        let mut outdated = Vec::new();
        for row in rows {
            let sealed = sealer
                .seal(row.kind, &row.key, &row.value)
                .map_err(sealed_wrong)?;
            outdated.extend(
                sealer
                    .hashes(row.kind, &row.key)
                    .skip(1)
                    .map(|hash| (row.kind, hash.to_vec())),
            );
            // Of two rows with one key the later counts.
            stored.insert(
                (row.kind, sealed.hash),
                StoredRow {
                    kind: row.kind,
                    key: sealed.hash.to_vec(),
                    sealed: sealed.sealed,
                    touched: row.touched,
                },
            );
        }
        let stored: Vec<_> = stored.into_values().collect();
        session_keys::put(&self.vault.db, self.fence, &stored, &outdated)
            .await
            .map_err(refused)
    }

    async fn delete(&self, kind: i16, keys: &[&[u8]]) -> Result<(), HostError> {
        let _turn = self.turn().await;
        let hashes = all_hashes(self.sealer().await?, kind, keys);
        session_keys::delete(&self.vault.db, self.fence, kind, &hashes)
            .await
            .map_err(refused)
    }

    async fn delete_kind(&self, kind: i16) -> Result<(), HostError> {
        let _turn = self.turn().await;
        session_keys::delete_kind(&self.vault.db, self.fence, kind)
            .await
            .map_err(refused)
    }

    async fn delete_before(&self, kind: i16, touched: i64) -> Result<u64, HostError> {
        let _turn = self.turn().await;
        session_keys::delete_before(&self.vault.db, self.fence, kind, touched)
            .await
            .map_err(refused)
    }
}

fn all_hashes(sealer: &RowSealer, kind: i16, keys: &[&[u8]]) -> Vec<Vec<u8>> {
    keys.iter()
        .flat_map(|key| sealer.hashes(kind, key))
        .map(|hash| hash.to_vec())
        .collect()
}

fn refused(error: WriteError) -> HostError {
    match error {
        WriteError::LeaseLost => HostError::LeaseLost,
        WriteError::Database(error) => host_error(error),
    }
}

fn sealed_wrong(error: SealError) -> HostError {
    HostError::Broken(format!("the session's state: {error}"))
}
