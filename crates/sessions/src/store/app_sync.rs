//! App state: what the phone shares of its settings and contacts, in versioned collections.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use whatsapp_rust::wacore::appstate::hash::HashState;
use whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use whatsapp_rust::wacore::store::error::Result;
use whatsapp_rust::wacore::store::traits::{AppStateSyncKey, AppSyncStore};

use super::packed::{Packed, compound};
use super::{Kind, ONLY, Store};

/// A collection's MACs are spread over so many rows by the first bits of the index MAC, which is as good as random. An
/// account with 10,000 contacts has 150 MACs in each (10 KB), and a collection is cleared without listing it.
const ROWS_PER_COLLECTION: u8 = 64;

#[async_trait]
impl AppSyncStore for Store {
    async fn get_sync_key(&self, key_id: &[u8]) -> Result<Option<AppStateSyncKey>> {
        self.get_json(Kind::SyncKey, key_id).await
    }

    async fn set_sync_key(&self, key_id: &[u8], key: AppStateSyncKey) -> Result<()> {
        self.put(vec![
            Kind::SyncKey.json(key_id, &key)?,
            Kind::LatestSyncKey.row(ONLY, key_id),
        ])
        .await
    }

    async fn get_version(&self, name: &str) -> Result<HashState> {
        let state = self.get_json(Kind::SyncVersion, name.as_bytes()).await?;
        Ok(state.unwrap_or_default())
    }

    async fn set_version(&self, name: &str, state: HashState) -> Result<()> {
        self.put(vec![Kind::SyncVersion.json(name, &state)?]).await
    }

    async fn put_mutation_macs(
        &self,
        name: &str,
        _version: u64,
        mutations: &[AppStateMutationMAC],
    ) -> Result<()> {
        let _changing = self.locks.mutation_macs.lock().await;
        let indexes = mutations.iter().map(|mac| mac.index_mac.as_slice());
        let mut rows = self.mac_rows(name, indexes).await?;
        for mac in mutations {
            rows.entry(row_of(name, &mac.index_mac))
                .or_default()
                .0
                .insert(mac.index_mac.clone(), mac.value_mac.clone());
        }
        self.put(
            rows.into_iter()
                .map(|(row, macs)| Kind::MutationMacs.row(row, macs.encode()))
                .collect(),
        )
        .await
    }

    async fn get_mutation_mac(&self, name: &str, index_mac: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut rows = self.mac_rows(name, std::iter::once(index_mac)).await?;
        Ok(rows
            .get_mut(&row_of(name, index_mac))
            .and_then(|macs| macs.0.remove(index_mac)))
    }

    async fn get_mutation_macs(
        &self,
        name: &str,
        index_macs: &[[u8; 32]],
    ) -> Result<HashMap<[u8; 32], Vec<u8>>> {
        let rows = self
            .mac_rows(name, index_macs.iter().map(<[u8; 32]>::as_slice))
            .await?;
        Ok(index_macs
            .iter()
            .filter_map(|index| {
                let mac = rows.get(&row_of(name, index))?.0.get(&index[..])?;
                Some((*index, mac.clone()))
            })
            .collect())
    }

    async fn delete_mutation_macs(&self, name: &str, index_macs: &[Vec<u8>]) -> Result<()> {
        let _changing = self.locks.mutation_macs.lock().await;
        let mut rows = self
            .mac_rows(name, index_macs.iter().map(Vec::as_slice))
            .await?;
        for index in index_macs {
            if let Some(macs) = rows.get_mut(&row_of(name, index)) {
                macs.0.remove(index);
            }
        }
        // Rows left empty stay: they are few, and this way all changes or nothing does.
        self.put(
            rows.into_iter()
                .map(|(row, macs)| Kind::MutationMacs.row(row, macs.encode()))
                .collect(),
        )
        .await
    }

    async fn clear_mutation_macs(&self, name: &str) -> Result<()> {
        let _changing = self.locks.mutation_macs.lock().await;
        let rows: Vec<_> = (0..ROWS_PER_COLLECTION)
            .map(|row| compound(&[name.as_bytes(), &[row]]))
            .collect();
        self.delete(Kind::MutationMacs, &rows).await
    }

    async fn get_latest_sync_key_id(&self) -> Result<Option<Vec<u8>>> {
        self.get(Kind::LatestSyncKey, ONLY).await
    }
}

impl Store {
    /// The rows that hold the MACs of these indexes, as far as they exist.
    async fn mac_rows<'a>(
        &self,
        name: &str,
        indexes: impl Iterator<Item = &'a [u8]> + Send,
    ) -> Result<BTreeMap<Vec<u8>, Packed>> {
        let mut rows: Vec<_> = indexes.map(|index| row_of(name, index)).collect();
        rows.sort_unstable();
        rows.dedup();
        let stored = self.get_many(Kind::MutationMacs, &rows).await?;
        stored
            .into_iter()
            .map(|(row, macs)| Ok((row, Packed::decode(&macs)?)))
            .collect()
    }
}

/// The key of the row the MAC of an index is in.
fn row_of(name: &str, index_mac: &[u8]) -> Vec<u8> {
    let row = index_mac.first().copied().unwrap_or(0) % ROWS_PER_COLLECTION;
    compound(&[name.as_bytes(), &[row]])
}
