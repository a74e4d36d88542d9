//! A session's state in the rows its lease gives: everything WhatsApp's protocol keeps between two connections.
//!
//! [`Store`] is the [`Backend`](whatsapp_rust::wacore::store::traits::Backend) of the client. It holds no data of its
//! own, so a thousand sessions cost no memory here: the client has caches, and what it writes is written through.
//!
//! What several keys share a row for (one-time prekeys, app state MACs, a group's devices) is read, changed and put
//! back under a lock per family. One session therefore needs one `Store` at a time, which its lease guarantees between
//! nodes; within the node the session's task makes the only one.

mod app_sync;
mod device;
mod msg_secrets;
mod packed;
mod protocol;
mod signal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use whatsapp_rust::wacore::store::error::{Result, StoreError};

use crate::host::{HostError, KeyRow, KeyRows};

/// The families of rows. The numbers are stored: never renumber one, nor use the number of one that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
enum Kind {
    /// One row: our keys, registration and push name, as JSON.
    Device = 1,
    /// By Signal address: the peer's identity key, 32 bytes.
    Identity = 2,
    /// By Signal address: the ratchet.
    Session = 3,
    /// One-time prekeys, [`signal::PREKEYS_PER_ROW`] to a row: [`packed::Packed`] by id.
    Prekeys = 4,
    /// By id.
    SignedPrekey = 5,
    /// By group and Signal address.
    SenderKey = 6,
    /// By group: which devices have our sender key; [`packed::Packed`] by device.
    SenderKeyDevices = 7,
    /// By id: an app state key, as JSON.
    SyncKey = 8,
    /// One row: the id of the app state key stored last.
    LatestSyncKey = 9,
    /// By collection: version and hash, as JSON.
    SyncVersion = 10,
    /// App state MACs, by collection and the first bits of the index MAC: [`packed::Packed`] by index MAC.
    MutationMacs = 11,
    /// By hidden-number user: the mapping to a phone number, as JSON.
    Lid = 12,
    /// By phone number: the mappings that name it, as JSON.
    LidsOfPhone = 13,
    /// By Signal address and message.
    BaseKey = 14,
    /// By user: the devices, as JSON.
    DeviceList = 15,
    /// By group: the client's own snapshot.
    GroupMetadata = 16,
    /// By JID: the trusted contact token, as JSON.
    TcToken = 17,
    /// By chat and message: what we sent, for those who could not decrypt it. Touched when sent.
    SentMessage = 18,
    /// By chat, sender and message: decrypted and not yet committed by the host. Touched when stored.
    PendingInbound = 19,
    /// By chat, sender and message. Touched at the end of its life; untouched where it has none.
    MsgSecret = 20,
}

impl Kind {
    fn row(self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> KeyRow {
        KeyRow {
            kind: self as i16,
            key: key.into(),
            value: value.into(),
            touched: None,
        }
    }

    fn json(self, key: impl Into<Vec<u8>>, value: &impl Serialize) -> Result<KeyRow> {
        Ok(self.row(key, serde_json::to_vec(value).map_err(unreadable)?))
    }
}

/// The key of a family with one row.
const ONLY: &[u8] = b"";

/// One session's state. See the module.
pub struct Store {
    rows: Arc<dyn KeyRows>,
    lost: CancellationToken,
    locks: Locks,
}

/// One for each family whose changes read before they write.
#[derive(Default)]
struct Locks {
    prekeys: Mutex<()>,
    sender_key_devices: Mutex<()>,
    mutation_macs: Mutex<()>,
    lids: Mutex<()>,
    tc_tokens: Mutex<()>,
    sent_messages: Mutex<()>,
    msg_secrets: Mutex<()>,
}

impl Store {
    /// The state in `rows`; nothing is read yet.
    #[must_use]
    pub fn new(rows: Arc<dyn KeyRows>) -> Self {
        Self {
            rows,
            lost: CancellationToken::new(),
            locks: Locks::default(),
        }
    }

    /// Cancelled once a write was refused because the lease is another node's: the session must stop at once. The
    /// client only logs some of the errors it gets, so they alone would not tell. From then on every call fails.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    async fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check()?;
        let rows = self.done(self.rows.get(kind as i16, &[key]).await)?;
        Ok(rows.into_iter().next().map(|row| row.value))
    }

    /// Those that exist, by key.
    async fn get_many(
        &self,
        kind: Kind,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<HashMap<Vec<u8>, Vec<u8>>> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        self.check()?;
        let keys: Vec<_> = keys.iter().map(AsRef::as_ref).collect();
        let rows = self.done(self.rows.get(kind as i16, &keys).await)?;
        Ok(rows.into_iter().map(|row| (row.key, row.value)).collect())
    }

    async fn get_json<T: DeserializeOwned>(&self, kind: Kind, key: &[u8]) -> Result<Option<T>> {
        self.get(kind, key)
            .await?
            .map(|value| from_json(&value))
            .transpose()
    }

    async fn list(&self, kind: Kind) -> Result<Vec<KeyRow>> {
        self.check()?;
        self.done(self.rows.list(kind as i16).await)
    }

    async fn put(&self, rows: Vec<KeyRow>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.check()?;
        self.done(self.rows.put(rows).await)
    }

    async fn delete(&self, kind: Kind, keys: &[impl AsRef<[u8]>]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.check()?;
        let keys: Vec<_> = keys.iter().map(AsRef::as_ref).collect();
        self.done(self.rows.delete(kind as i16, &keys).await)
    }

    async fn delete_kind(&self, kind: Kind) -> Result<()> {
        self.check()?;
        self.done(self.rows.delete_kind(kind as i16).await)
    }

    async fn delete_before(&self, kind: Kind, touched: i64) -> Result<u32> {
        self.check()?;
        let deleted = self.done(self.rows.delete_before(kind as i16, touched).await)?;
        Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
    }

    fn check(&self) -> Result<()> {
        if self.lost.is_cancelled() {
            return Err(store_error(HostError::LeaseLost));
        }
        Ok(())
    }

    fn done<T>(&self, result: std::result::Result<T, HostError>) -> Result<T> {
        result.map_err(|error| {
            if matches!(error, HostError::LeaseLost) {
                self.lost.cancel();
            }
            store_error(error)
        })
    }
}

/// Whether an error of the client says that the lease is another node's.
#[must_use]
pub fn is_lease_lost(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(HostError::LeaseLost)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn store_error(error: HostError) -> StoreError {
    match error {
        HostError::Unavailable => StoreError::Connection(Box::new(error)),
        HostError::LeaseLost | HostError::Broken(_) => StoreError::Database(Box::new(error)),
    }
}

fn unreadable(error: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Serialization(Box::new(error))
}

fn from_json<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(unreadable)
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}
