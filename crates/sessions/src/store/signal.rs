//! Keys of the Signal protocol: peers' identities, ratchets, prekeys, sender keys of groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::SignalStore;

use super::packed::Packed;
use super::{Kind, Store};

/// A fresh session has 812 one-time prekeys of some 70 bytes, so 13 rows of 5 KB; using one up writes one row again.
pub(super) const PREKEYS_PER_ROW: u32 = 64;

#[async_trait]
impl SignalStore for Store {
    async fn put_identity(&self, address: &str, key: [u8; 32]) -> Result<()> {
        self.put(vec![Kind::Identity.row(address, key)]).await
    }

    async fn put_identities_batch(&self, identities: &[(Arc<str>, [u8; 32])]) -> Result<()> {
        self.put(
            identities
                .iter()
                .map(|(address, key)| Kind::Identity.row(address.as_bytes(), *key))
                .collect(),
        )
        .await
    }

    async fn load_identity(&self, address: &str) -> Result<Option<[u8; 32]>> {
        let key = self.get(Kind::Identity, address.as_bytes()).await?;
        key.map(|key| {
            key.try_into()
                .map_err(|_| StoreError::Validation("an identity key is not 32 bytes long".into()))
        })
        .transpose()
    }

    async fn delete_identity(&self, address: &str) -> Result<()> {
        self.delete(Kind::Identity, &[address]).await
    }

    async fn get_session(&self, address: &str) -> Result<Option<Bytes>> {
        let session = self.get(Kind::Session, address.as_bytes()).await?;
        Ok(session.map(Bytes::from))
    }

    async fn put_session(&self, address: &str, session: &[u8]) -> Result<()> {
        self.put(vec![Kind::Session.row(address, session)]).await
    }

    async fn put_sessions_batch(&self, sessions: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.put(
            sessions
                .iter()
                .map(|(address, session)| Kind::Session.row(address.as_bytes(), &session[..]))
                .collect(),
        )
        .await
    }

    async fn delete_session(&self, address: &str) -> Result<()> {
        self.delete(Kind::Session, &[address]).await
    }

    async fn store_prekey(&self, id: u32, record: &[u8], uploaded: bool) -> Result<()> {
        let record = Bytes::copy_from_slice(record);
        self.store_prekeys_batch(&[(id, record)], uploaded).await
    }

    async fn store_prekeys_batch(&self, keys: &[(u32, Bytes)], _uploaded: bool) -> Result<()> {
        let _changing = self.locks.prekeys.lock().await;
        let mut rows = self.prekey_rows(keys.iter().map(|(id, _)| *id)).await?;
        for (id, record) in keys {
            rows.entry(row_of(*id))
                .or_default()
                .0
                .insert(id.to_be_bytes().to_vec(), record.to_vec());
        }
        self.put(
            rows.into_iter()
                .map(|(row, keys)| Kind::Prekeys.row(row, keys.encode()))
                .collect(),
        )
        .await
    }

    async fn load_prekey(&self, id: u32) -> Result<Option<Bytes>> {
        let found = self.load_prekeys_batch(&[id]).await?;
        Ok(found.into_iter().next().map(|(_, record)| record))
    }

    async fn load_prekeys_batch(&self, ids: &[u32]) -> Result<Vec<(u32, Bytes)>> {
        let mut rows = self.prekey_rows(ids.iter().copied()).await?;
        Ok(ids
            .iter()
            .filter_map(|id| {
                let keys = rows.get_mut(&row_of(*id))?;
                let record = keys.0.remove(&id.to_be_bytes()[..])?;
                Some((*id, record.into()))
            })
            .collect())
    }

    /// What is uploaded the client reads from the device's watermarks alone; the flag is asked for nowhere.
    async fn mark_prekeys_uploaded(&self, _ids: &[u32]) -> Result<()> {
        Ok(())
    }

    async fn remove_prekey(&self, id: u32) -> Result<()> {
        let _changing = self.locks.prekeys.lock().await;
        let row = row_of(id);
        let mut keys = Packed::decode_or_empty(self.get(Kind::Prekeys, &row).await?.as_ref())?;
        if keys.0.remove(&id.to_be_bytes()[..]).is_none() {
            return Ok(());
        }
        if keys.0.is_empty() {
            self.delete(Kind::Prekeys, &[row]).await
        } else {
            self.put(vec![Kind::Prekeys.row(row, keys.encode())]).await
        }
    }

    async fn get_max_prekey_id(&self) -> Result<u32> {
        let mut max = 0;
        for row in self.list(Kind::Prekeys).await? {
            if let Some((id, _)) = Packed::decode(&row.value)?.0.last_key_value() {
                max = max.max(number(id)?);
            }
        }
        Ok(max)
    }

    async fn store_signed_prekey(&self, id: u32, record: &[u8]) -> Result<()> {
        self.put(vec![Kind::SignedPrekey.row(id.to_be_bytes(), record)])
            .await
    }

    async fn load_signed_prekey(&self, id: u32) -> Result<Option<Vec<u8>>> {
        self.get(Kind::SignedPrekey, &id.to_be_bytes()).await
    }

    async fn load_all_signed_prekeys(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let rows = self.list(Kind::SignedPrekey).await?;
        rows.into_iter()
            .map(|row| Ok((number(&row.key)?, row.value)))
            .collect()
    }

    async fn remove_signed_prekey(&self, id: u32) -> Result<()> {
        self.delete(Kind::SignedPrekey, &[id.to_be_bytes()]).await
    }

    async fn put_sender_key(&self, address: &str, record: &[u8]) -> Result<()> {
        self.put(vec![Kind::SenderKey.row(address, record)]).await
    }

    async fn put_sender_keys_batch(&self, sender_keys: &[(Arc<str>, Bytes)]) -> Result<()> {
        self.put(
            sender_keys
                .iter()
                .map(|(address, record)| Kind::SenderKey.row(address.as_bytes(), &record[..]))
                .collect(),
        )
        .await
    }

    async fn get_sender_key(&self, address: &str) -> Result<Option<Vec<u8>>> {
        self.get(Kind::SenderKey, address.as_bytes()).await
    }

    async fn delete_sender_key(&self, address: &str) -> Result<()> {
        self.delete(Kind::SenderKey, &[address]).await
    }
}

impl Store {
    /// The rows that hold these prekeys, as far as they exist.
    async fn prekey_rows(
        &self,
        ids: impl Iterator<Item = u32>,
    ) -> Result<BTreeMap<[u8; 4], Packed>> {
        let mut rows: Vec<_> = ids.map(row_of).collect();
        rows.sort_unstable();
        rows.dedup();
        let stored = self.get_many(Kind::Prekeys, &rows).await?;
        rows.into_iter()
            .filter_map(|row| stored.get(&row[..]).map(|value| (row, value)))
            .map(|(row, value)| Ok((row, Packed::decode(value)?)))
            .collect()
    }
}

/// The key of the row a prekey is in.
fn row_of(id: u32) -> [u8; 4] {
    (id / PREKEYS_PER_ROW).to_be_bytes()
}

fn number(key: &[u8]) -> Result<u32> {
    let bytes = key
        .try_into()
        .map_err(|_| StoreError::Validation("a prekey's id is not 4 bytes long".into()))?;
    Ok(u32::from_be_bytes(bytes))
}
