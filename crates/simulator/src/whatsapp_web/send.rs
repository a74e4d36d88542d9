//! Phones writing: to one person or to a group, on all devices, and once more when a device could not read it.

use std::collections::HashMap;

use chrono::Utc;
use uuid::Uuid;
use wacore_binary::{Jid, JidExt, Node};
use waproto::whatsapp as wa;

use super::{
    Broken, Hub, WhatsappSend, WhatsappWeb, WhatsappWebError,
    content::{self, About},
    keys::Bundle,
    locked,
    messages::Head,
    phone::{Arrived, Phone, Sent, address},
    seal::{encrypt_again, seal_for_group, seal_for_person, sealed_node, start_sessions},
    state::{DeviceId, Parcel, attribute},
};

impl WhatsappWeb {
    /// A person writes, reacts, edits or deletes. Returns the message's id.
    ///
    /// # Errors
    /// When the receiver or the message it is about is unknown, or a file cannot be read.
    pub fn send(&self, wish: &WhatsappSend) -> Result<String, WhatsappWebError> {
        let from = match self.known(&wish.from) {
            Ok(number) => number,
            Err(WhatsappWebError::UnknownPhone) => {
                self.register(&super::NewWhatsappPhone::new(&wish.from, &wish.from))?
            }
            Err(error) => return Err(error),
        };
        let chat = self.chat(&wish.to)?;
        let hub = &self.hub;
        let group = chat.ends_with("@g.us");
        let readers = hub.readers(&from, &chat)?;
        let id = wish.id.clone().unwrap_or_else(new_id);
        let message = self.compose(wish, &from, &chat)?;
        let (kind, edit, media) = content::stanza_marks(&wish.content);
        let letter = Letter {
            from,
            chat,
            group,
            id,
            message,
            kind,
            edit,
            media,
        };
        hub.post(&letter, &readers)
            .map_err(|error| WhatsappWebError::Invalid(error.to_string()))?;
        Ok(letter.id)
    }

    fn compose(
        &self,
        wish: &WhatsappSend,
        from: &str,
        chat: &str,
    ) -> Result<wa::Message, WhatsappWebError> {
        let hub = &self.hub;
        let target = content::target(&wish.content).or(wish.quoted.as_deref());
        let Some(target) = target else {
            return content::write(hub, &wish.content, None);
        };
        let phone = hub.phone(from).ok_or(WhatsappWebError::UnknownPhone)?;
        let message = locked(&phone).records.get(target).cloned();
        let message = message.ok_or(WhatsappWebError::UnknownMessage)?;
        let lid = |number: &str| {
            let state = hub.lock();
            state.accounts.get(number).map(|a| a.lid_jid(0).to_string())
        };
        let group = chat.ends_with("@g.us");
        let chat_jid = if group {
            chat.to_owned()
        } else {
            lid(chat).ok_or(WhatsappWebError::UnknownPhone)?
        };
        // A key names the writer in groups; a quotation names him always.
        let names_writer = group || wish.quoted.is_some();
        let about = About {
            participant: if names_writer {
                lid(&message.from)
            } else {
                None
            },
            message: &message,
            chat_jid,
        };
        content::write(hub, &wish.content, Some(&about))
    }
}

/// A message about to be encrypted.
pub(super) struct Letter {
    pub(super) from: String,
    /// The other side's number, or the group's JID.
    pub(super) chat: String,
    pub(super) group: bool,
    pub(super) id: String,
    pub(super) message: wa::Message,
    pub(super) kind: &'static str,
    pub(super) edit: Option<&'static str>,
    pub(super) media: Option<&'static str>,
}

/// As phones make them.
pub(super) fn new_id() -> String {
    Uuid::new_v4().simple().to_string().to_uppercase()
}

impl Hub {
    /// All devices a message to `chat` goes to, the sending phone left out.
    fn readers(&self, from: &str, chat: &str) -> Result<Vec<DeviceId>, WhatsappWebError> {
        let mut state = self.lock();
        let numbers: Vec<String> = if chat.ends_with("@g.us") {
            let group = state.groups.get(chat);
            let group = group.ok_or(WhatsappWebError::UnknownGroup)?;
            if !group.members.iter().any(|member| member == from) {
                return Err(WhatsappWebError::Invalid("not a member".to_owned()));
            }
            group.members.clone()
        } else {
            if !state.accounts.contains_key(chat) {
                return Err(WhatsappWebError::UnknownPhone);
            }
            state.acquaint(from, chat);
            if chat == from {
                vec![from.to_owned()]
            } else {
                vec![chat.to_owned(), from.to_owned()]
            }
        };
        let mut readers = Vec::new();
        for number in &numbers {
            let Some(account) = state.accounts.get(number) else {
                continue;
            };
            if number != from {
                readers.push(account.id(0));
            }
            readers.extend(account.companions.keys().map(|device| account.id(*device)));
        }
        Ok(readers)
    }

    /// Encrypts for all readers and hands it over.
    pub(super) fn post(&self, letter: &Letter, readers: &[DeviceId]) -> Result<(), Broken> {
        let phone = self
            .phone(&letter.from)
            .ok_or(Broken::Stanza("the phone has gone"))?;
        let bundles = self.missing_bundles(&phone, readers);
        let mut ciphertexts: Vec<(DeviceId, Vec<Node>)> = Vec::with_capacity(readers.len());
        {
            let mut phone = locked(&phone);
            start_sessions(&mut phone, readers, &bundles);
            if letter.group {
                seal_for_group(&mut phone, letter, readers, &mut ciphertexts)?;
            } else {
                seal_for_person(&mut phone, letter, readers, &mut ciphertexts)?;
            }
            self.note_sent(&mut phone, letter);
        }
        let parcels = self.hand_over(letter, ciphertexts)?;
        for (number, parcel) in parcels {
            self.arrive(&number, parcel);
        }
        Ok(())
    }

    /// Keys of the readers this phone has no session with.
    fn missing_bundles(
        &self,
        phone: &std::sync::Mutex<Phone>,
        readers: &[DeviceId],
    ) -> HashMap<DeviceId, Bundle> {
        let strangers: Vec<DeviceId> = {
            let phone = locked(phone);
            let known = |d: &&DeviceId| phone.signal.has_session(&address(&d.number, d.device));
            readers.iter().filter(|d| !known(d)).cloned().collect()
        };
        strangers
            .into_iter()
            .filter_map(|device| {
                let bundle = self.bundle(&device)?;
                Some((device, bundle))
            })
            .collect()
    }

    fn note_sent(&self, phone: &mut Phone, letter: &Letter) {
        if let Some(summary) = content::read(self, &letter.message) {
            phone.records.note(Arrived {
                id: letter.id.clone(),
                chat: letter.chat.clone(),
                from: letter.from.clone(),
                from_me: true,
                device: 0,
                summary,
                at: Utc::now(),
            });
        }
        phone.remember_sent(Sent {
            id: letter.id.clone(),
            chat: letter.chat.clone(),
            message: letter.message.clone(),
            kind: letter.kind,
        });
    }

    fn hand_over(
        &self,
        letter: &Letter,
        ciphertexts: Vec<(DeviceId, Vec<Node>)>,
    ) -> Result<Vec<(String, Parcel)>, Broken> {
        let me = DeviceId {
            number: letter.from.clone(),
            device: 0,
        };
        let group = letter.group.then(|| letter.chat.clone());
        let mut state = self.lock();
        let mut parcels = Vec::new();
        for (device, mut nodes) in ciphertexts {
            if device.device == 0 {
                let parcel = super::messages::parcel(&me, &letter.id, group.clone(), &nodes);
                parcels.push((device.number, parcel));
                continue;
            }
            super::faults::damage(&mut state.faults, &mut nodes);
            let own = state
                .accounts
                .get(&letter.from)
                .ok_or(Broken::Stanza("the phone has gone"))?;
            let head = Head {
                id: &letter.id,
                kind: letter.kind,
                edit: letter.edit,
                peer: false,
                group: group.as_deref(),
                chat: (device.number == letter.from && !letter.group)
                    .then(|| state.accounts.get(&letter.chat))
                    .flatten(),
            };
            let stanza = head.stanza(own, 0).children(nodes).build();
            let twice = state.faults.duplicate;
            if let Some(account) = state.accounts.get_mut(&device.number) {
                if twice {
                    account.mention(device.device, stanza.clone());
                }
                account.deliver(device.device, "message", stanza);
            }
        }
        Ok(parcels)
    }

    /// A device could not read a message and asks for it again, bringing keys to start over with.
    pub(super) fn resend(&self, asker: &DeviceId, writer: &DeviceId, to: &Jid, receipt: &Node) {
        if writer.device != 0 {
            self.pass_retry(asker, writer, to, receipt);
            return;
        }
        let id = receipt
            .get_optional_child("retry")
            .and_then(|retry| attribute(retry, "id"));
        let count = receipt
            .get_optional_child("retry")
            .and_then(|retry| attribute(retry, "count"))
            .and_then(|count| count.parse().ok())
            .unwrap_or(1_u8);
        let (Some(id), Some(phone)) = (id, self.phone(&writer.number)) else {
            return;
        };
        let Some(bundle) = self.bundle(asker) else {
            return;
        };
        let outcome = {
            let mut phone = locked(&phone);
            encrypt_again(&mut phone, writer, asker, &id, &bundle)
        };
        match outcome {
            Ok(Some((sealed, kind, chat))) => {
                let node = sealed_node(&sealed, None, Some(count));
                let mut state = self.lock();
                let group = chat.ends_with("@g.us").then_some(chat.as_str());
                let Some(own) = state.accounts.get(&writer.number) else {
                    return;
                };
                let head = Head {
                    id: &id,
                    kind,
                    edit: None,
                    peer: false,
                    group,
                    chat: (asker.number == writer.number && group.is_none())
                        .then(|| state.accounts.get(&chat))
                        .flatten(),
                };
                let stanza = head.stanza(own, 0).children([node]).build();
                if let Some(account) = state.accounts.get_mut(&asker.number) {
                    account.deliver(asker.device, "message", stanza);
                }
            }
            // Asked for something this phone no longer has.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a message could not be encrypted again"),
        }
    }

    fn pass_retry(&self, asker: &DeviceId, writer: &DeviceId, to: &Jid, receipt: &Node) {
        let mut state = self.lock();
        let Some(own) = state.accounts.get(&asker.number) else {
            return;
        };
        let mut passed = receipt.clone();
        let lid = own.lid_jid(asker.device);
        if to.is_group() {
            passed.attrs.insert("from", to.clone());
            passed.attrs.insert("participant", lid);
        } else {
            passed.attrs.insert("from", lid);
        }
        passed.attrs.0.retain(|(name, _)| name != "to");
        passed.attrs.insert("t", Utc::now().timestamp());
        if let Some(account) = state.accounts.get_mut(&writer.number) {
            account.deliver(writer.device, "receipt", passed);
        }
    }
}
