//! What a phone sends to a device it has just been linked to: the keys of shared settings, and its history.

use chrono::Utc;
use wacore_binary::Jid;
use waproto::{
    buffa::{Message, MessageField},
    whatsapp::{
        self as wa, Conversation, HistorySync, HistorySyncMsg, Pushname, WebMessageInfo,
        history_sync,
        message::{
            AppStateSyncKey, AppStateSyncKeyData, AppStateSyncKeyFingerprint, AppStateSyncKeyId,
            AppStateSyncKeyShare, HistorySyncNotification, HistorySyncType, ProtocolMessage,
            protocol_message::Type,
        },
    },
};

use super::{
    Broken, Hub, keys::Bundle, locked, messages::Head, model::OldWhatsappMessage, phone::address,
    seal::sealed_node, send::new_id, state::DeviceId,
};

impl Hub {
    /// The device has left keys for the first time, so the phone can write to it.
    pub(super) fn welcome(&self, device: &DeviceId) {
        if let Err(error) = self.send_welcome(device) {
            tracing::warn!(%error, "a linked device was not welcomed");
        }
    }

    fn send_welcome(&self, device: &DeviceId) -> Result<(), Broken> {
        let phone = self
            .phone(&device.number)
            .ok_or(Broken::Stanza("the phone has gone"))?;
        let history = locked(&phone).settings.history.clone();
        let bundle = self
            .bundle(device)
            .ok_or(Broken::Stanza("the device has gone"))?;
        self.tell_peer(device, &bundle, &key_share())?;
        if !history.is_empty() {
            let history = self.history(&device.number, &history)?;
            self.tell_peer(device, &bundle, &history)?;
        }
        Ok(())
    }

    /// A message between an account's own devices.
    fn tell_peer(
        &self,
        device: &DeviceId,
        bundle: &Bundle,
        message: &wa::Message,
    ) -> Result<(), Broken> {
        let phone = self
            .phone(&device.number)
            .ok_or(Broken::Stanza("the phone has gone"))?;
        let sealed = {
            let mut phone = locked(&phone);
            let with = address(&device.number, device.device);
            if !phone.signal.has_session(&with) {
                phone.signal.start_session(&with, bundle)?;
            }
            phone.signal.encrypt(&with, message)?
        };
        let mut state = self.lock();
        let account = state
            .accounts
            .get_mut(&device.number)
            .ok_or(Broken::Stanza("the phone has gone"))?;
        let id = new_id();
        let head = Head {
            id: &id,
            kind: "text",
            edit: None,
            peer: true,
            group: None,
            chat: None,
        };
        let stanza = head
            .stanza(account, 0)
            .children([sealed_node(&sealed, None, None)])
            .build();
        account.deliver(device.device, "message", stanza);
        Ok(())
    }

    fn history(&self, number: &str, old: &[OldWhatsappMessage]) -> Result<wa::Message, Broken> {
        let mut conversations: Vec<Conversation> = Vec::new();
        let mut names = Vec::new();
        for message in old {
            let chat = super::digits(&message.chat).map_err(Broken::crypto)?;
            let jid = Jid::pn(chat.as_str()).to_string();
            let at = u64::try_from(message.at.timestamp()).unwrap_or_default();
            let known = conversations.iter_mut().find(|c| c.id == jid);
            let conversation = match known {
                Some(known) => known,
                None => {
                    let state = self.lock();
                    let account = state.accounts.get(&chat);
                    names.extend(account.map(|account| Pushname {
                        id: Some(jid.clone()),
                        pushname: Some(account.name.clone()),
                    }));
                    conversations.push(Conversation {
                        id: jid.clone(),
                        lid_jid: account.map(|account| account.lid_jid(0).to_string()),
                        pn_jid: Some(jid.clone()),
                        ..Default::default()
                    });
                    let Some(new) = conversations.last_mut() else {
                        continue;
                    };
                    new
                }
            };
            conversation.conversation_timestamp = Some(at);
            conversation.last_msg_timestamp = Some(at);
            // Newest first, as the phone sends them.
            conversation
                .messages
                .insert(0, old_message(message, jid, at));
        }
        let sync = HistorySync {
            sync_type: history_sync::HistorySyncType::INITIAL_BOOTSTRAP,
            conversations,
            pushnames: names,
            chunk_order: Some(1),
            progress: Some(100),
            ..Default::default()
        };
        let plain = sync.encode_to_vec();
        tracing::debug!(%number, bytes = plain.len(), "history goes out");
        let length = u64::try_from(plain.len()).ok();
        let notification = HistorySyncNotification {
            sync_type: Some(HistorySyncType::INITIAL_BOOTSTRAP),
            chunk_order: Some(1),
            progress: Some(100),
            file_length: length,
            initial_hist_bootstrap_inline_payload: Some(zlib_stored(&plain)),
            ..Default::default()
        };
        Ok(protocol(ProtocolMessage {
            r#type: Some(Type::HISTORY_SYNC_NOTIFICATION),
            history_sync_notification: MessageField::some(notification),
            ..Default::default()
        }))
    }
}

fn old_message(message: &OldWhatsappMessage, jid: String, at: u64) -> HistorySyncMsg {
    let said = wa::Message {
        conversation: Some(message.text.clone()),
        ..Default::default()
    };
    HistorySyncMsg {
        message: MessageField::some(WebMessageInfo {
            key: MessageField::some(wa::MessageKey {
                remote_jid: Some(jid),
                from_me: Some(message.from_me),
                id: Some(message.id.clone()),
                participant: None,
            }),
            message: MessageField::some(said),
            message_timestamp: Some(at),
            ..Default::default()
        }),
        msg_order_id: None,
    }
}

fn key_share() -> wa::Message {
    let key = AppStateSyncKey {
        key_id: MessageField::some(AppStateSyncKeyId {
            key_id: Some(vec![0, 0, 0, 0, 0, 1]),
        }),
        key_data: MessageField::some(AppStateSyncKeyData {
            key_data: Some(rand_for_signal::random::<[u8; 32]>().to_vec()),
            fingerprint: MessageField::some(AppStateSyncKeyFingerprint {
                raw_id: Some(1),
                current_index: Some(1),
                device_indexes: vec![0, 1],
            }),
            timestamp: Some(Utc::now().timestamp_millis()),
        }),
    };
    protocol(ProtocolMessage {
        r#type: Some(Type::APP_STATE_SYNC_KEY_SHARE),
        app_state_sync_key_share: MessageField::some(AppStateSyncKeyShare { keys: vec![key] }),
        ..Default::default()
    })
}

fn protocol(message: ProtocolMessage) -> wa::Message {
    wa::Message {
        protocol_message: MessageField::some(message),
        ..Default::default()
    }
}

/// zlib (RFC 1950) without compressing: blocks stored as they are, and the checksum.
fn zlib_stored(plain: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 0xffff;
    let mut out = vec![0x78, 0x01];
    let mut blocks = plain.chunks(BLOCK).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        out.push(u8::from(blocks.peek().is_none()));
        // A block is at most 0xffff long.
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in plain {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_zlib_is_read_by_a_real_reader() {
        for length in [0, 1, 0xffff, 0x1_0000, 200_000] {
            let plain: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
            let packed = zlib_stored(&plain);
            let read = wacore_binary::zlib_pool::decompress_zlib_pooled(&packed, 1 << 20);
            assert_eq!(read.expect("sound"), plain);
        }
    }
}
