//! Ticks, typing and presence, both ways, and requests to send a message again.

use std::sync::Arc;

use chrono::Utc;
use wacore_binary::{Jid, JidExt, Node, builder::NodeBuilder};

use super::{
    Broken, Hub, WhatsappWeb, WhatsappWebError, digits, locked,
    login::say,
    model::WhatsappTick,
    state::{DeviceId, SocketSender, attribute, attribute_jid},
};

impl WhatsappWeb {
    /// The person opens a chat: everything unread in it is read. Returns how much that was.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn read(&self, number: &str, chat: &str) -> Result<usize, WhatsappWebError> {
        let number = self.known(number)?;
        let chat = self.chat(chat)?;
        Ok(self.hub.read(&number, &chat))
    }

    /// The person types in a chat (`composing`), speaks (`recording`) or stops (`paused`).
    ///
    /// # Errors
    /// When either side is unknown, or the mood is another word.
    pub fn typing(&self, from: &str, to: &str, mood: &str) -> Result<(), WhatsappWebError> {
        let from = self.known(from)?;
        let to = self.known(to)?;
        let node = match mood {
            "composing" => NodeBuilder::new("composing"),
            "recording" => NodeBuilder::new("composing").attr("media", "audio"),
            "paused" => NodeBuilder::new("paused"),
            _ => {
                return Err(WhatsappWebError::Invalid(
                    "composing, recording or paused".to_owned(),
                ));
            }
        }
        .build();
        let state = self.hub.lock();
        let lid = state.accounts.get(&from).map(|account| account.lid_jid(0));
        if let (Some(lid), Some(account)) = (lid, state.accounts.get(&to)) {
            for device in account.companions.keys() {
                let stanza = NodeBuilder::new("chatstate")
                    .attr("from", lid.clone())
                    .children([node.clone()])
                    .build();
                account.mention(*device, stanza);
            }
        }
        Ok(())
    }

    /// The phone comes online for others to see, or goes.
    ///
    /// # Errors
    /// When there is no such phone.
    pub fn presence(&self, number: &str, available: bool) -> Result<(), WhatsappWebError> {
        let number = self.known(number)?;
        let state = self.hub.lock();
        let Some(account) = state.accounts.get(&number) else {
            return Err(WhatsappWebError::UnknownPhone);
        };
        for contact in &account.contacts {
            let Some(other) = state.accounts.get(contact) else {
                continue;
            };
            for device in other.companions.keys() {
                let mut stanza = NodeBuilder::new("presence").attr("from", account.lid_jid(0));
                if !available {
                    stanza = stanza
                        .attr("type", "unavailable")
                        .attr("last", Utc::now().timestamp());
                }
                other.mention(*device, stanza.build());
            }
        }
        Ok(())
    }

    /// A registered number.
    pub(super) fn known(&self, number: &str) -> Result<String, WhatsappWebError> {
        let number = digits(number)?;
        if self.hub.lock().accounts.contains_key(&number) {
            Ok(number)
        } else {
            Err(WhatsappWebError::UnknownPhone)
        }
    }

    /// A chat as records name it.
    pub(super) fn chat(&self, chat: &str) -> Result<String, WhatsappWebError> {
        if chat.ends_with("@g.us") {
            Ok(chat.to_owned())
        } else {
            digits(chat)
        }
    }
}

impl Hub {
    pub(super) fn read(&self, number: &str, chat: &str) -> usize {
        let Some(phone) = self.phone(number) else {
            return 0;
        };
        let read = locked(&phone).records.read(chat);
        let group = chat.ends_with("@g.us").then_some(chat);
        for (id, writer) in &read {
            let ids = std::slice::from_ref(id);
            self.receipt(number, writer, group, ids, WhatsappTick::Read);
        }
        read.len()
    }

    pub(super) fn phone(&self, number: &str) -> Option<Arc<std::sync::Mutex<super::phone::Phone>>> {
        let state = self.lock();
        let account = state.accounts.get(number)?;
        Some(Arc::clone(&account.phone))
    }

    /// A phone tells the writer of messages, on all the writer's devices, how far they came.
    pub(super) fn receipt(
        &self,
        reader: &str,
        writer: &str,
        group: Option<&str>,
        ids: &[String],
        tick: WhatsappTick,
    ) {
        let kind = if tick == WhatsappTick::Read {
            "read"
        } else {
            ""
        };
        let phone = {
            let mut state = self.lock();
            let Some(own) = state.accounts.get(reader) else {
                return;
            };
            let (lid, number) = (own.lid_jid(0), own.jid(0));
            let Some(account) = state.accounts.get_mut(writer) else {
                return;
            };
            let devices: Vec<u16> = account.companions.keys().copied().collect();
            for device in devices {
                for id in ids {
                    let receipt = receipt_node(id, group, &lid, &number, kind);
                    account.deliver(device, "receipt", receipt);
                }
            }
            Arc::clone(&account.phone)
        };
        let mut phone = locked(&phone);
        for id in ids {
            phone.records.tick(id, tick);
        }
    }

    /// A receipt of a linked device.
    pub(super) fn hear_receipt(
        &self,
        me: &DeviceId,
        sender: &SocketSender,
        node: &Node,
    ) -> Result<(), Broken> {
        let id = attribute(node, "id").ok_or(Broken::Stanza("a receipt without an id"))?;
        let to = attribute_jid(node, "to").ok_or(Broken::Stanza("a receipt to nobody"))?;
        let kind = attribute(node, "type").unwrap_or_default();
        let mut ack = NodeBuilder::new("ack")
            .attr("class", "receipt")
            .attr("id", id.as_str())
            .attr("from", to.clone())
            .attr("t", Utc::now().timestamp());
        if !kind.is_empty() {
            ack = ack.attr("type", kind.as_str());
        }
        say(sender, ack.build());

        let mut ids = vec![id];
        let items = node.get_optional_child("list");
        let items = items
            .into_iter()
            .flat_map(|l| l.get_children_by_tag("item"));
        ids.extend(items.filter_map(|item| attribute(item, "id")));
        self.received(me, &ids);

        let participant = attribute_jid(node, "participant");
        let writer = if to.is_group() {
            participant
        } else {
            Some(to.clone())
        };
        let writer = writer.and_then(|jid| self.lock().resolve(&jid));
        let Some(writer) = writer else {
            return Ok(());
        };
        match kind.as_str() {
            "retry" => self.resend(me, &writer, &to, node),
            "read" | "played" | "" | "inactive" => {
                let group = to.is_group().then(|| to.to_string());
                self.pass_receipt(me, &writer.number, group.as_deref(), &ids, &kind);
            }
            _ => {}
        }
        Ok(())
    }

    /// A receipt of any kind says that the device has the message: some clients send nothing else. What it asks for
    /// again comes anew.
    fn received(&self, me: &DeviceId, ids: &[String]) {
        let mut state = self.lock();
        let account = state.accounts.get_mut(&me.number);
        if let Some(own) = account.and_then(|a| a.companions.get_mut(&me.device)) {
            for id in ids {
                own.acknowledged("message", id);
            }
        }
    }

    /// Hands a device's receipt to all devices of the writer, and what was read to the reader's own.
    fn pass_receipt(
        &self,
        me: &DeviceId,
        writer: &str,
        group: Option<&str>,
        ids: &[String],
        kind: &str,
    ) {
        let tick = match kind {
            "read" => WhatsappTick::Read,
            "played" => WhatsappTick::Played,
            _ => WhatsappTick::Delivered,
        };
        let (phone, own_phone) = {
            let mut state = self.lock();
            let Some(own) = state.accounts.get(&me.number) else {
                return;
            };
            let (lid, number) = (own.lid_jid(me.device), own.jid(0));
            let own_phone = Arc::clone(&own.phone);
            let Some(account) = state
                .accounts
                .get_mut(writer)
                .filter(|a| a.number != me.number)
            else {
                return;
            };
            let devices: Vec<u16> = account.companions.keys().copied().collect();
            for device in devices {
                for id in ids {
                    let receipt = receipt_node(id, group, &lid, &number, kind);
                    account.deliver(device, "receipt", receipt);
                }
            }
            (Arc::clone(&account.phone), own_phone)
        };
        for id in ids {
            locked(&phone).records.tick(id, tick);
        }
        if tick >= WhatsappTick::Read {
            for id in ids {
                locked(&own_phone).records.tick(id, WhatsappTick::Read);
            }
        }
    }

    /// Presence and typing of a linked device.
    pub(super) fn hear_mood(&self, me: &DeviceId, node: &Node) -> Result<(), Broken> {
        let Some(to) = attribute_jid(node, "to") else {
            return Ok(());
        };
        if node.tag == "presence" {
            if attribute(node, "type").as_deref() == Some("subscribe") {
                self.answer_subscription(me, &to);
            }
            return Ok(());
        }
        let mood = node
            .children()
            .and_then(<[Node]>::first)
            .ok_or(Broken::Stanza("an empty chat state"))?;
        let name = match (&*mood.tag, attribute(mood, "media").as_deref()) {
            ("composing", Some("audio")) => "recording",
            ("composing", _) => "composing",
            _ => "paused",
        };
        let phone = {
            let state = self.lock();
            let found = state.resolve(&to);
            let account = found.and_then(|device| state.accounts.get(&device.number));
            let own = state.accounts.get(&me.number);
            let (Some(account), Some(own)) = (account, own) else {
                return Ok(());
            };
            for device in account.companions.keys() {
                let stanza = NodeBuilder::new("chatstate")
                    .attr("from", own.lid_jid(me.device))
                    .children([mood.clone()])
                    .build();
                account.mention(*device, stanza);
            }
            Arc::clone(&account.phone)
        };
        let mut phone = locked(&phone);
        phone.moods.insert(me.number.clone(), name.to_owned());
        Ok(())
    }

    fn answer_subscription(&self, me: &DeviceId, to: &Jid) {
        let mut state = self.lock();
        let Some(other) = state.resolve(to) else {
            return;
        };
        state.acquaint(&me.number, &other.number);
        let online = state.accounts.get(&other.number).is_some_and(|a| a.online);
        let mut stanza = NodeBuilder::new("presence").attr("from", to.to_non_ad());
        if !online {
            stanza = stanza.attr("type", "unavailable").attr("last", "deny");
        }
        if let Some(own) = state.accounts.get(&me.number) {
            own.mention(me.device, stanza.build());
        }
    }
}

/// What a reader says of one message: a delivery where `kind` is empty.
fn receipt_node(id: &str, group: Option<&str>, lid: &Jid, number: &Jid, kind: &str) -> Node {
    let mut receipt = NodeBuilder::new("receipt")
        .attr("id", id)
        .attr("t", Utc::now().timestamp());
    receipt = match group {
        Some(group) => receipt
            .attr("from", group.parse::<Jid>().unwrap_or_default())
            .attr("participant", lid.clone())
            .attr("participant_pn", number.clone()),
        None => receipt
            .attr("from", lid.clone())
            .attr("sender_pn", number.clone()),
    };
    if !kind.is_empty() {
        receipt = receipt.attr("type", kind);
    }
    receipt.build()
}
