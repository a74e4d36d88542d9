//! The secret of each message, by which later edits, reactions and votes on it are read.

use std::collections::HashMap;

use async_trait::async_trait;
use whatsapp_rust::wacore::store::error::{Result, StoreError};
use whatsapp_rust::wacore::store::traits::{
    MessageSecret, MsgSecretEntry, MsgSecretStore, merge_msg_secret_expiry,
    merge_msg_secret_message_ts,
};

use super::packed::compound;
use super::{Kind, Store};
use crate::host::KeyRow;

/// Written at once: a history sync brings tens of thousands.
const BATCH: usize = 1000;

/// `expires_at` and `message_ts` (8 bytes each, big endian) and the secret.
struct Secret {
    expires_at: i64,
    message_ts: i64,
    secret: MessageSecret,
}

impl Secret {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = || StoreError::Validation("a message secret of the wrong length".into());
        let (expires_at, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (message_ts, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        Ok(Self {
            expires_at: i64::from_be_bytes(*expires_at),
            message_ts: i64::from_be_bytes(*message_ts),
            secret: rest.try_into().map_err(|_| damaged())?,
        })
    }

    fn into_row(self, key: Vec<u8>) -> KeyRow {
        let mut value = Vec::with_capacity(16 + self.secret.len());
        value.extend_from_slice(&self.expires_at.to_be_bytes());
        value.extend_from_slice(&self.message_ts.to_be_bytes());
        value.extend_from_slice(&self.secret);
        KeyRow {
            touched: (self.expires_at != 0).then_some(self.expires_at),
            ..Kind::MsgSecret.row(key, value)
        }
    }
}

#[async_trait]
impl MsgSecretStore for Store {
    async fn put_msg_secrets(&self, entries: Vec<MsgSecretEntry>) -> Result<usize> {
        let _changing = self.locks.msg_secrets.lock().await;
        for entries in entries.chunks(BATCH) {
            let keys: Vec<_> = entries
                .iter()
                .map(|entry| key(&entry.chat, &entry.sender, &entry.msg_id))
                .collect();
            let stored = self.get_many(Kind::MsgSecret, &keys).await?;
            let mut secrets = stored
                .into_iter()
                .map(|(key, value)| Ok((key, Secret::decode(&value)?)))
                .collect::<Result<HashMap<_, _>>>()?;
            for (key, entry) in keys.into_iter().zip(entries) {
                let (mut expires_at, mut message_ts) = (entry.expires_at, entry.message_ts);
                if let Some(known) = secrets.get(&key) {
                    expires_at = merge_msg_secret_expiry(known.expires_at, expires_at);
                    message_ts = merge_msg_secret_message_ts(known.message_ts, message_ts);
                }
                secrets.insert(
                    key,
                    Secret {
                        expires_at,
                        message_ts,
                        secret: entry.secret,
                    },
                );
            }
            self.put(
                secrets
                    .into_iter()
                    .map(|(key, secret)| secret.into_row(key))
                    .collect(),
            )
            .await?;
        }
        Ok(entries.len())
    }

    async fn get_msg_secret(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
    ) -> Result<Option<Vec<u8>>> {
        let found = self.get_msg_secret_with_ts(chat, sender, msg_id).await?;
        Ok(found.map(|(secret, _)| secret))
    }

    async fn get_msg_secret_with_ts(
        &self,
        chat: &str,
        sender: &str,
        msg_id: &str,
    ) -> Result<Option<(Vec<u8>, i64)>> {
        let value = self
            .get(Kind::MsgSecret, &key(chat, sender, msg_id))
            .await?;
        value
            .map(|value| {
                let secret = Secret::decode(&value)?;
                Ok((secret.secret.to_vec(), secret.message_ts))
            })
            .transpose()
    }

    async fn delete_expired_msg_secrets(&self, cutoff_timestamp: i64) -> Result<u32> {
        // Those that end at the cutoff go, too.
        self.delete_before(Kind::MsgSecret, cutoff_timestamp.saturating_add(1))
            .await
    }
}

fn key(chat: &str, sender: &str, msg_id: &str) -> Vec<u8> {
    compound(&[chat.as_bytes(), sender.as_bytes(), msg_id.as_bytes()])
}
