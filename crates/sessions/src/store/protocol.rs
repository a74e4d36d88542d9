//! What WhatsApp adds to the Signal protocol: who is who, which devices they have, what is under way.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{
    DeviceListRecord, LidPnMappingEntry, PendingInboundKey, PendingInboundRow, ProtocolStore,
    TcTokenEntry,
};

use super::packed::{Packed, compound};
use super::{Kind, Store, from_json, now};
use crate::host::KeyRow;

#[async_trait]
impl ProtocolStore for Store {
    async fn get_sender_key_devices(&self, group_jid: &str) -> Result<Vec<(String, bool)>> {
        let row = self
            .get(Kind::SenderKeyDevices, group_jid.as_bytes())
            .await?;
        let devices = Packed::decode_or_empty(row.as_ref())?;
        devices
            .0
            .into_iter()
            .map(|(device, has_key)| Ok((text(device)?, has_key == [1])))
            .collect()
    }

    async fn set_sender_key_status(&self, group_jid: &str, entries: &[(&str, bool)]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let _changing = self.locks.sender_key_devices.lock().await;
        let row = self
            .get(Kind::SenderKeyDevices, group_jid.as_bytes())
            .await?;
        let mut devices = Packed::decode_or_empty(row.as_ref())?;
        for (device, has_key) in entries {
            devices
                .0
                .insert(device.as_bytes().to_vec(), vec![u8::from(*has_key)]);
        }
        self.put(vec![
            Kind::SenderKeyDevices.row(group_jid, devices.encode()),
        ])
        .await
    }

    async fn clear_sender_key_devices(&self, group_jid: &str) -> Result<()> {
        let _changing = self.locks.sender_key_devices.lock().await;
        self.delete(Kind::SenderKeyDevices, &[group_jid]).await
    }

    async fn delete_sender_key_device_rows(&self, device_jids: &[&str]) -> Result<()> {
        if device_jids.is_empty() {
            return Ok(());
        }
        let _changing = self.locks.sender_key_devices.lock().await;
        let mut changed = Vec::new();
        for row in self.list(Kind::SenderKeyDevices).await? {
            let mut devices = Packed::decode(&row.value)?;
            let before = devices.0.len();
            for device in device_jids {
                devices.0.remove(device.as_bytes());
            }
            if devices.0.len() != before {
                changed.push(Kind::SenderKeyDevices.row(row.key, devices.encode()));
            }
        }
        self.put(changed).await
    }

    async fn clear_all_sender_key_devices(&self) -> Result<()> {
        let _changing = self.locks.sender_key_devices.lock().await;
        self.delete_kind(Kind::SenderKeyDevices).await
    }

    async fn get_lid_mapping(&self, lid: &str) -> Result<Option<LidPnMappingEntry>> {
        self.get_json(Kind::Lid, lid.as_bytes()).await
    }

    async fn get_pn_mapping(&self, phone: &str) -> Result<Option<LidPnMappingEntry>> {
        let lids: Option<Vec<LidPnMappingEntry>> =
            self.get_json(Kind::LidsOfPhone, phone.as_bytes()).await?;
        Ok(lids
            .unwrap_or_default()
            .into_iter()
            .max_by(|a, b| (a.updated_at, &a.lid).cmp(&(b.updated_at, &b.lid))))
    }

    async fn put_lid_mapping(&self, entry: &LidPnMappingEntry) -> Result<()> {
        self.put_lid_mappings(std::slice::from_ref(entry)).await
    }

    async fn put_lid_mappings(&self, entries: &[LidPnMappingEntry]) -> Result<()> {
        let _changing = self.locks.lids.lock().await;
        // Of several for one hidden number the last counts.
        let new: BTreeMap<_, _> = entries.iter().map(|entry| (&entry.lid, entry)).collect();
        let lids: Vec<_> = new.keys().collect();
        let before = self
            .get_many(Kind::Lid, &lids)
            .await?
            .values()
            .map(|value| from_json::<LidPnMappingEntry>(value))
            .collect::<Result<Vec<_>>>()?;

        let phones: BTreeSet<_> = before
            .iter()
            .chain(new.values().copied())
            .map(|entry| entry.phone_number.as_str())
            .collect();
        let phones: Vec<_> = phones.into_iter().collect();
        let stored = self.get_many(Kind::LidsOfPhone, &phones).await?;
        let mut rows = Vec::with_capacity(new.len() + phones.len());
        for phone in phones {
            let lids = stored.get(phone.as_bytes()).map(|value| from_json(value));
            let mut lids: Vec<LidPnMappingEntry> = lids.transpose()?.unwrap_or_default();
            lids.retain(|entry| !new.contains_key(&entry.lid));
            lids.extend(
                new.values()
                    .filter(|entry| entry.phone_number == phone)
                    .map(|entry| (*entry).clone()),
            );
            rows.push(Kind::LidsOfPhone.json(phone, &lids)?);
        }
        for (lid, entry) in new {
            rows.push(Kind::Lid.json(lid.as_bytes(), entry)?);
        }
        self.put(rows).await
    }

    async fn get_all_lid_mappings(&self) -> Result<Vec<LidPnMappingEntry>> {
        let rows = self.list(Kind::Lid).await?;
        rows.iter().map(|row| from_json(&row.value)).collect()
    }

    async fn save_base_key(&self, address: &str, message_id: &str, base_key: &[u8]) -> Result<()> {
        let key = compound(&[address.as_bytes(), message_id.as_bytes()]);
        self.put(vec![Kind::BaseKey.row(key, base_key)]).await
    }

    async fn has_same_base_key(
        &self,
        address: &str,
        message_id: &str,
        current_base_key: &[u8],
    ) -> Result<bool> {
        let key = compound(&[address.as_bytes(), message_id.as_bytes()]);
        let stored = self.get(Kind::BaseKey, &key).await?;
        Ok(stored.is_some_and(|stored| stored == current_base_key))
    }

    async fn delete_base_key(&self, address: &str, message_id: &str) -> Result<()> {
        let key = compound(&[address.as_bytes(), message_id.as_bytes()]);
        self.delete(Kind::BaseKey, &[key]).await
    }

    async fn update_device_list(&self, record: DeviceListRecord) -> Result<()> {
        self.update_device_lists(vec![record]).await
    }

    async fn update_device_lists(&self, records: Vec<DeviceListRecord>) -> Result<()> {
        let rows = records
            .iter()
            .map(|record| Kind::DeviceList.json(record.user.as_bytes(), record))
            .collect::<Result<_>>()?;
        self.put(rows).await
    }

    async fn get_devices(&self, user: &str) -> Result<Option<DeviceListRecord>> {
        self.get_json(Kind::DeviceList, user.as_bytes()).await
    }

    async fn delete_devices(&self, user: &str) -> Result<()> {
        self.delete(Kind::DeviceList, &[user]).await
    }

    async fn get_group_metadata(&self, group_jid: &str) -> Result<Option<Vec<u8>>> {
        self.get(Kind::GroupMetadata, group_jid.as_bytes()).await
    }

    async fn put_group_metadata(&self, group_jid: &str, blob: &[u8]) -> Result<()> {
        self.put(vec![Kind::GroupMetadata.row(group_jid, blob)])
            .await
    }

    async fn delete_group_metadata(&self, group_jid: &str) -> Result<()> {
        self.delete(Kind::GroupMetadata, &[group_jid]).await
    }

    async fn get_tc_token(&self, jid: &str) -> Result<Option<TcTokenEntry>> {
        self.get_json(Kind::TcToken, jid.as_bytes()).await
    }

    async fn put_tc_token(&self, jid: &str, entry: &TcTokenEntry) -> Result<()> {
        let _changing = self.locks.tc_tokens.lock().await;
        self.put(vec![Kind::TcToken.json(jid, entry)?]).await
    }

    async fn delete_tc_token(&self, jid: &str) -> Result<()> {
        let _changing = self.locks.tc_tokens.lock().await;
        self.delete(Kind::TcToken, &[jid]).await
    }

    async fn get_all_tc_token_jids(&self) -> Result<Vec<String>> {
        let rows = self.list(Kind::TcToken).await?;
        rows.into_iter().map(|row| text(row.key)).collect()
    }

    async fn delete_expired_tc_tokens(&self, token_cutoff: i64, sender_cutoff: i64) -> Result<u32> {
        let _changing = self.locks.tc_tokens.lock().await;
        let mut expired = Vec::new();
        for row in self.list(Kind::TcToken).await? {
            let entry: TcTokenEntry = from_json(&row.value)?;
            let token_lives = !entry.token.is_empty() && entry.token_timestamp >= token_cutoff;
            let sender_lives = entry.sender_timestamp.is_some_and(|at| at >= sender_cutoff);
            if !token_lives && !sender_lives {
                expired.push(row.key);
            }
        }
        self.delete(Kind::TcToken, &expired).await?;
        Ok(u32::try_from(expired.len()).unwrap_or(u32::MAX))
    }

    async fn touch_tc_token_sender_timestamp(
        &self,
        jid: &str,
        sender_timestamp: i64,
    ) -> Result<()> {
        let _changing = self.locks.tc_tokens.lock().await;
        let mut entry = self.get_tc_token(jid).await?.unwrap_or(TcTokenEntry {
            token: Vec::new(),
            token_timestamp: sender_timestamp,
            sender_timestamp: None,
        });
        // Only forward; `None` is before every time.
        entry.sender_timestamp = entry.sender_timestamp.max(Some(sender_timestamp));
        self.put(vec![Kind::TcToken.json(jid, &entry)?]).await
    }

    async fn store_received_tc_token(
        &self,
        jid: &str,
        token: &[u8],
        token_timestamp: i64,
    ) -> Result<()> {
        let _changing = self.locks.tc_tokens.lock().await;
        let known = self.get_tc_token(jid).await?;
        if let Some(known) = &known
            && !known.token.is_empty()
            && known.token_timestamp > token_timestamp
        {
            return Ok(());
        }
        let entry = TcTokenEntry {
            token: token.to_vec(),
            token_timestamp,
            sender_timestamp: known.and_then(|known| known.sender_timestamp),
        };
        self.put(vec![Kind::TcToken.json(jid, &entry)?]).await
    }

    async fn store_sent_message(
        &self,
        chat_jid: &str,
        message_id: &str,
        payload: &[u8],
    ) -> Result<()> {
        let key = compound(&[chat_jid.as_bytes(), message_id.as_bytes()]);
        self.put(vec![KeyRow {
            touched: Some(now()),
            ..Kind::SentMessage.row(key, payload)
        }])
        .await
    }

    async fn take_sent_message(&self, chat_jid: &str, message_id: &str) -> Result<Option<Vec<u8>>> {
        let key = compound(&[chat_jid.as_bytes(), message_id.as_bytes()]);
        // Of two who ask at once one gets it.
        let _changing = self.locks.sent_messages.lock().await;
        let payload = self.get(Kind::SentMessage, &key).await?;
        if payload.is_some() {
            self.delete(Kind::SentMessage, &[key]).await?;
        }
        Ok(payload)
    }

    async fn delete_expired_sent_messages(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.delete_before(Kind::SentMessage, cutoff_timestamp)
            .await
    }

    async fn store_pending_inbound(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
        message: &[u8],
    ) -> Result<()> {
        self.store_pending_inbound_batch(&[PendingInboundRow {
            chat,
            sender,
            id,
            message,
        }])
        .await
    }

    async fn get_pending_inbound(
        &self,
        chat: &str,
        sender: &str,
        id: &str,
    ) -> Result<Option<Vec<u8>>> {
        self.get(Kind::PendingInbound, &pending_key(chat, sender, id))
            .await
    }

    async fn delete_pending_inbound(&self, chat: &str, sender: &str, id: &str) -> Result<()> {
        self.delete_pending_inbound_batch(&[PendingInboundKey { chat, sender, id }])
            .await
    }

    async fn delete_expired_pending_inbound(&self, cutoff_timestamp: i64) -> Result<u32> {
        self.delete_before(Kind::PendingInbound, cutoff_timestamp)
            .await
    }

    async fn store_pending_inbound_batch(&self, rows: &[PendingInboundRow<'_>]) -> Result<()> {
        let now = now();
        self.put(
            rows.iter()
                .map(|row| KeyRow {
                    touched: Some(now),
                    ..Kind::PendingInbound
                        .row(pending_key(row.chat, row.sender, row.id), row.message)
                })
                .collect(),
        )
        .await
    }

    async fn delete_pending_inbound_batch(&self, keys: &[PendingInboundKey<'_>]) -> Result<()> {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| pending_key(key.chat, key.sender, key.id))
            .collect();
        self.delete(Kind::PendingInbound, &keys).await
    }
}

fn pending_key(chat: &str, sender: &str, id: &str) -> Vec<u8> {
    compound(&[chat.as_bytes(), sender.as_bytes(), id.as_bytes()])
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| StoreError::Serialization(Box::new(error)))
}
