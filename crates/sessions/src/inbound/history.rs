//! The past of a phone, which it hands over when it is linked: bounded in days and in messages.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wa::web_message_info::Status;
use whatsapp_rust::Jid;
use whatsapp_rust::prelude::wa;
use whatsapp_rust::wacore::types::events::LazyHistorySync;
use whatsapp_rust::wacore_binary::JidExt as _;
use whatsapp_rust::waproto::codec;

use super::{Heard, Item, Receipt, Who};

/// How much of it is taken over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Unix seconds: nothing older.
    pub(crate) since: i64,
    pub(crate) messages: usize,
}

/// The messages of one chunk, each chat's in the order they were sent. Takes time: for a thread that may block.
pub(crate) fn read(chunk: &LazyHistorySync, limits: Limits) -> Vec<Item> {
    let mut items = Vec::new();
    let mut stream = chunk.stream();
    let mut conversation = wa::Conversation::default();
    // A chunk that breaks off is read as far as it goes.
    while items.len() < limits.messages
        && matches!(stream.next_conversation_into(&mut conversation), Ok(true))
    {
        let Some(chat) = Chat::of(&conversation) else {
            continue;
        };
        // The newest comes first.
        let mut messages: Vec<Item> = conversation
            .messages
            .iter()
            .filter_map(|message| chat.read(message.message.as_option()?, limits.since))
            .take(limits.messages - items.len())
            .map(Item::Message)
            .collect();
        messages.reverse();
        items.append(&mut messages);
    }
    items
}

struct Chat {
    group: Option<String>,
    who: Who,
    name: Option<String>,
}

impl Chat {
    fn of(conversation: &wa::Conversation) -> Option<Self> {
        let id: Jid = conversation.id.parse().ok()?;
        let parsed = |jid: &Option<String>| jid.as_deref().and_then(|jid| jid.parse::<Jid>().ok());
        let group = id.is_group().then(|| id.to_non_ad_string());
        let (pn, lid) = (parsed(&conversation.pn_jid), parsed(&conversation.lid_jid));
        let who = Who::named([Some(&id), pn.as_ref(), lid.as_ref()].into_iter().flatten());
        // Status posts, channels, bots.
        (!who.is_nobody()).then(|| Self {
            name: conversation.name.clone().filter(|_| group.is_none()),
            group,
            who,
        })
    }

    fn read(&self, info: &wa::WebMessageInfo, since: i64) -> Option<Heard> {
        let key = info.key.as_option()?;
        let message = info.message.as_option()?;
        let at = i64::try_from(info.message_timestamp?).ok()?;
        if at < since {
            return None;
        }
        let from_us = key.from_me == Some(true);
        let participant = info.participant.as_ref().or(key.participant.as_ref());
        let who = match participant.and_then(|jid| jid.parse::<Jid>().ok()) {
            Some(participant) if self.group.is_some() && !from_us => Who::named([&participant]),
            _ => self.who.clone(),
        };
        let past = match info.status {
            Some(Status::DELIVERY_ACK) => Some(Receipt::Delivered),
            Some(Status::READ) => Some(Receipt::Read),
            Some(Status::PLAYED) => Some(Receipt::Played),
            _ => None,
        };
        Some(Heard {
            id: key.id.clone()?,
            who,
            name: info
                .push_name
                .clone()
                .filter(|_| !from_us)
                .or_else(|| self.name.clone()),
            group: self.group.clone(),
            from_us,
            at,
            message: BASE64_STANDARD.encode(codec::message_to_vec(message)),
            from_history: true,
            past: past.filter(|_| from_us),
        })
    }
}
