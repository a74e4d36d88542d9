//! Messages on their way: from a device to all devices they are for, and into phones.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use wacore_binary::{Jid, JidExt, Node, builder::NodeBuilder};
use waproto::whatsapp as wa;

use super::{
    Broken, Hub, content,
    keys::key_nodes,
    locked,
    login::say,
    model::{WhatsappFailure, WhatsappTick},
    phone::{Arrived, Phone, address},
    state::{Account, DeviceId, Parcel, SocketSender, attribute, attribute_jid},
};

/// A phone asks so often for a message it cannot read.
const MAX_RETRIES: usize = 4;

/// What the server says of a message it cannot route.
const MALFORMED: u16 = 479;

/// The head of a message as another device gets it.
pub(super) struct Head<'a> {
    pub(super) id: &'a str,
    pub(super) kind: &'a str,
    pub(super) edit: Option<&'a str>,
    pub(super) peer: bool,
    /// The group's JID.
    pub(super) group: Option<&'a str>,
    /// For the sender's own other devices: the chat it was written in.
    pub(super) chat: Option<&'a Account>,
}

impl Head<'_> {
    pub(super) fn stanza(&self, sender: &Account, device: u16) -> NodeBuilder {
        let mut node = NodeBuilder::new("message")
            .attr("id", self.id)
            .attr("type", self.kind)
            .attr("notify", sender.name.as_str())
            .attr("t", Utc::now().timestamp())
            .attr("addressing_mode", "lid");
        if let Some(group) = self.group {
            node = node
                .attr("from", group.parse::<Jid>().unwrap_or_default())
                .attr("participant", sender.lid_jid(device))
                .attr("participant_pn", sender.jid(0));
        } else {
            node = node
                .attr("from", sender.lid_jid(device))
                .attr("sender_pn", sender.jid(0));
        }
        if let Some(chat) = self.chat {
            node = node
                .attr("recipient", chat.lid_jid(0))
                .attr("peer_recipient_pn", chat.jid(0));
        }
        if let Some(edit) = self.edit {
            node = node.attr("edit", edit);
        }
        if self.peer {
            node = node.attr("category", "peer");
        }
        node
    }
}

impl Hub {
    /// A message of a linked device.
    pub(super) fn hear_message(
        &self,
        me: &DeviceId,
        sender: &SocketSender,
        node: &Node,
    ) -> Result<(), Broken> {
        let id = attribute(node, "id").ok_or(Broken::Stanza("a message without an id"))?;
        let to = attribute_jid(node, "to").ok_or(Broken::Stanza("a message to nobody"))?;
        let nack = self.nacks();
        let mut ack = NodeBuilder::new("ack")
            .attr("class", "message")
            .attr("id", id.as_str())
            .attr("from", to.clone())
            .attr("t", Utc::now().timestamp());
        if let Some(code) = nack {
            ack = ack.attr("error", code);
        } else {
            let routed = if to.is_group() {
                self.route_to_group(me, &id, &to, node)
            } else {
                self.route(me, &id, &to, node)
            };
            match routed {
                Ok(parcels) => {
                    for (number, parcel) in parcels {
                        self.arrive(&number, parcel);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a message goes nowhere");
                    ack = ack.attr("error", MALFORMED);
                }
            }
        }
        let ack = ack.build();
        let delay = self.lock().faults.ack_delay_ms;
        if delay == 0 {
            say(sender, ack);
            return Ok(());
        }
        let sender = sender.clone();
        self.spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            say(&sender, ack);
        });
        Ok(())
    }

    /// Hands each device its ciphertext; returns what is for phones.
    fn route(
        &self,
        me: &DeviceId,
        id: &str,
        to: &Jid,
        node: &Node,
    ) -> Result<Vec<(String, Parcel)>, Broken> {
        let kind = attribute(node, "type").unwrap_or_else(|| "text".to_owned());
        let edit = attribute(node, "edit");
        let peer = attribute(node, "category").as_deref() == Some("peer");
        let mut state = self.lock();
        let chat = state.resolve(to);
        if let Some(chat) = &chat {
            state.acquaint(&me.number, &chat.number);
        }
        let mut parcels = Vec::new();
        for (jid, ciphertext) in addressed(node, to) {
            let Some(device) = state.resolve(&jid) else {
                continue;
            };
            if device == *me {
                continue;
            }
            if device.device == 0 {
                parcels.push((device.number, parcel(me, id, None, [ciphertext])));
                continue;
            }
            let stanza = {
                let (Some(own), chat) = (
                    state.accounts.get(&me.number),
                    chat.as_ref()
                        .and_then(|chat| state.accounts.get(&chat.number)),
                ) else {
                    return Err(Broken::Stanza("no account"));
                };
                let head = Head {
                    id,
                    kind: &kind,
                    edit: edit.as_deref(),
                    peer,
                    group: None,
                    chat: chat.filter(|_| device.number == me.number && !peer),
                };
                head.stanza(own, me.device)
                    .children(with_identity(node, vec![ciphertext.clone()]))
                    .build()
            };
            if let Some(account) = state.accounts.get_mut(&device.number) {
                account.deliver(device.device, "message", stanza);
            }
        }
        Ok(parcels)
    }

    /// A message reaches a phone, or waits until it is switched on.
    pub(super) fn arrive(&self, number: &str, parcel: Parcel) {
        let phone = {
            let mut state = self.lock();
            let Some(account) = state.accounts.get_mut(number) else {
                return;
            };
            if !account.online {
                account.for_phone.push_back(parcel);
                return;
            }
            Arc::clone(&account.phone)
        };
        let read_after = {
            let mut phone = locked(&phone);
            match self.open(&mut phone, number, &parcel) {
                Ok(()) => phone.settings.read_after_ms,
                Err(Broken::Duplicate) => None,
                Err(error) => {
                    let times = phone.failed(WhatsappFailure {
                        id: parcel.id.clone(),
                        from: parcel.from.number.clone(),
                        device: parcel.from.device,
                        reason: error.to_string(),
                    });
                    if times <= MAX_RETRIES {
                        self.ask_again(&mut phone, number, &parcel, times);
                    }
                    return;
                }
            }
        };
        if parcel.from.number == number {
            return;
        }
        let chat = parcel.group.as_deref();
        let ids = [parcel.id.clone()];
        self.receipt(
            number,
            &parcel.from.number,
            chat,
            &ids,
            WhatsappTick::Delivered,
        );
        if let Some(after) = read_after {
            self.read_later(number, &parcel, after);
        }
    }

    /// Decrypts what is in a parcel and notes it.
    fn open(&self, phone: &mut Phone, number: &str, parcel: &Parcel) -> Result<(), Broken> {
        let from = address(&parcel.from.number, parcel.from.device);
        let mut duplicate = None;
        for (kind, bytes) in &parcel.sealed {
            let opened = match (kind.as_str(), &parcel.group) {
                ("skmsg", Some(group)) => phone.signal.decrypt_from_group(group, &from, bytes),
                _ => phone.signal.decrypt(&from, kind, bytes),
            };
            match opened {
                Ok(message) => self.note(phone, number, parcel, &message)?,
                Err(Broken::Duplicate) => duplicate = Some(Broken::Duplicate),
                Err(error) => return Err(error),
            }
        }
        duplicate.map_or(Ok(()), Err)
    }

    fn note(
        &self,
        phone: &mut Phone,
        number: &str,
        parcel: &Parcel,
        message: &wa::Message,
    ) -> Result<(), Broken> {
        if let Some(key) = message.sender_key_distribution_message.as_option()
            && let (Some(group), Some(bytes)) =
                (&key.group_id, &key.axolotl_sender_key_distribution_message)
        {
            let from = address(&parcel.from.number, parcel.from.device);
            phone.signal.learn_distribution(group, &from, bytes)?;
        }
        let own = parcel.from.number == number;
        let mut chat = parcel.group.clone();
        let mut said = message;
        if own && let Some(copy) = message.device_sent_message.as_option() {
            said = &copy.message;
            if chat.is_none() {
                chat = copy
                    .destination_jid
                    .as_deref()
                    .and_then(|jid| self.chat_of(jid));
            }
        } else if own && parcel.group.is_none() {
            // Between an account's own devices: nothing a person sees.
            return Ok(());
        }
        let Some(summary) = content::read(self, said) else {
            return Ok(());
        };
        phone.records.note(Arrived {
            id: parcel.id.clone(),
            chat: chat.unwrap_or_else(|| parcel.from.number.clone()),
            from: parcel.from.number.clone(),
            from_me: own,
            device: parcel.from.device,
            summary,
            at: parcel.at,
        });
        Ok(())
    }

    /// How chats are named in records: the other side's number, or the group's JID.
    fn chat_of(&self, jid: &str) -> Option<String> {
        let jid: Jid = jid.parse().ok()?;
        if jid.is_group() {
            return Some(jid.to_string());
        }
        self.lock().resolve(&jid).map(|device| device.number)
    }

    /// Tells the sending device that its message could not be read, with keys to start over.
    fn ask_again(&self, phone: &mut Phone, number: &str, parcel: &Parcel, times: usize) {
        phone
            .signal
            .forget_session(&address(&parcel.from.number, parcel.from.device));
        let bundle = phone.signal.bundle();
        let mut keys = vec![
            NodeBuilder::new("type").bytes([5]).build(),
            NodeBuilder::new("identity").bytes(bundle.identity).build(),
        ];
        keys.extend(key_nodes(&bundle));
        let mut state = self.lock();
        let Some(own) = state.accounts.get(number) else {
            return;
        };
        let mut receipt = NodeBuilder::new("receipt")
            .attr("id", parcel.id.as_str())
            .attr("type", "retry")
            .attr("t", Utc::now().timestamp());
        receipt = match &parcel.group {
            Some(group) => receipt
                .attr("from", group.parse::<Jid>().unwrap_or_default())
                .attr("participant", own.lid_jid(0))
                .attr("participant_pn", own.jid(0)),
            None => receipt.attr("from", own.lid_jid(0)),
        };
        if parcel.from.number == number {
            receipt = receipt.attr("recipient", own.lid_jid(0));
        }
        let receipt = receipt
            .children([
                NodeBuilder::new("retry")
                    .attr("count", times)
                    .attr("id", parcel.id.as_str())
                    .attr("t", parcel.at.timestamp())
                    .attr("v", "1")
                    .build(),
                NodeBuilder::new("registration")
                    .bytes(bundle.registration_id.to_be_bytes())
                    .build(),
                NodeBuilder::new("keys").children(keys).build(),
            ])
            .build();
        if let Some(account) = state.accounts.get_mut(&parcel.from.number) {
            account.deliver(parcel.from.device, "receipt", receipt);
        }
    }

    fn read_later(&self, number: &str, parcel: &Parcel, after: u64) {
        let me = self.me.clone();
        let number = number.to_owned();
        let chat = parcel.group.clone();
        let chat = chat.unwrap_or_else(|| parcel.from.number.clone());
        self.spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            if let Some(hub) = me.upgrade() {
                hub.read(&number, &chat);
            }
        });
    }
}

/// Each device a message names, with its ciphertext.
fn addressed<'a>(node: &'a Node, to: &Jid) -> Vec<(Jid, &'a Node)> {
    let participants = node.get_optional_child("participants");
    let named = participants
        .into_iter()
        .flat_map(|list| list.get_children_by_tag("to"))
        .filter_map(|to| Some((attribute_jid(to, "jid")?, to.get_optional_child("enc")?)));
    let direct = node
        .get_optional_child("enc")
        .map(|ciphertext| (to.clone(), ciphertext));
    named.chain(direct).collect()
}

pub(super) fn parcel<'a>(
    from: &DeviceId,
    id: &str,
    group: Option<String>,
    ciphertexts: impl IntoIterator<Item = &'a Node>,
) -> Parcel {
    let sealed = ciphertexts
        .into_iter()
        .filter_map(|node| {
            let kind = attribute(node, "type")?;
            Some((kind, super::state::content(node)?.to_vec()))
        })
        .collect();
    Parcel {
        id: id.to_owned(),
        from: from.clone(),
        group,
        sealed,
        at: Utc::now(),
    }
}

/// The ciphertexts with what else a message carries for its reader.
pub(super) fn with_identity(node: &Node, mut ciphertexts: Vec<Node>) -> Vec<Node> {
    for tag in ["device-identity", "meta", "reporting"] {
        ciphertexts.extend(node.get_optional_child(tag).cloned());
    }
    ciphertexts
}
