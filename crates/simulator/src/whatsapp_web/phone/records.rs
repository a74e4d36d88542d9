//! What a phone has seen, by id and by chat.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, Utc};

use super::super::{
    content::Summary,
    model::{WhatsappChat, WhatsappMessage, WhatsappTick},
};

/// The oldest messages go first.
const KEPT: usize = 50_000;

/// A message as it comes to be noted.
pub(in super::super) struct Arrived {
    pub(in super::super) id: String,
    pub(in super::super) chat: String,
    pub(in super::super) from: String,
    pub(in super::super) from_me: bool,
    pub(in super::super) device: u16,
    pub(in super::super) summary: Summary,
    pub(in super::super) at: DateTime<Utc>,
}

#[derive(Default)]
pub(in super::super) struct Records {
    messages: VecDeque<WhatsappMessage>,
    /// Where a message is, counted from the first ever.
    index: HashMap<String, usize>,
    dropped: usize,
}

impl Records {
    pub(in super::super) fn all(&self) -> impl Iterator<Item = &WhatsappMessage> {
        self.messages.iter()
    }

    pub(in super::super) fn get(&self, id: &str) -> Option<&WhatsappMessage> {
        let at = self.index.get(id)?.checked_sub(self.dropped)?;
        self.messages.get(at)
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut WhatsappMessage> {
        let at = self.index.get(id)?.checked_sub(self.dropped)?;
        self.messages.get_mut(at)
    }

    /// Notes a message; one with a known id only counts up. Returns whether it is new.
    pub(in super::super) fn note(&mut self, arrived: Arrived) -> bool {
        if let Some(known) = self.get_mut(&arrived.id) {
            known.copies += 1;
            return false;
        }
        self.apply(&arrived);
        let Arrived {
            id,
            chat,
            from,
            from_me,
            device,
            summary,
            at,
        } = arrived;
        self.index
            .insert(id.clone(), self.dropped + self.messages.len());
        self.messages.push_back(WhatsappMessage {
            id,
            chat,
            from,
            from_me,
            device,
            kind: summary.kind.to_owned(),
            text: summary.text,
            mime: summary.mime,
            file_name: summary.file_name,
            file_bytes: summary.file.as_ref().map(bytes::Bytes::len),
            location: summary.location,
            contact: summary.contact,
            target: summary.target,
            quoted: summary.quoted,
            reactions: Vec::new(),
            edited: false,
            deleted: false,
            tick: if from_me {
                WhatsappTick::Sent
            } else {
                WhatsappTick::Delivered
            },
            copies: 1,
            at,
            file: summary.file,
        });
        if self.messages.len() > KEPT
            && let Some(oldest) = self.messages.pop_front()
        {
            self.dropped += 1;
            self.index.remove(&oldest.id);
        }
        true
    }

    /// What a reaction, edit or deletion does to the message it is about.
    fn apply(&mut self, arrived: &Arrived) {
        let Some(target) = arrived.summary.target.as_deref() else {
            return;
        };
        let Some(message) = self.get_mut(target) else {
            return;
        };
        match arrived.summary.kind {
            "reaction" => {
                message.reactions.retain(|(from, _)| *from != arrived.from);
                let emoji = arrived.summary.text.clone().unwrap_or_default();
                if !emoji.is_empty() {
                    message.reactions.push((arrived.from.clone(), emoji));
                }
            }
            "edit" => {
                message.edited = true;
                message.text.clone_from(&arrived.summary.text);
            }
            "delete" => message.deleted = true,
            _ => {}
        }
    }

    /// Moves a message forward; a step back is nothing. Returns whether it moved.
    pub(in super::super) fn tick(&mut self, id: &str, tick: WhatsappTick) -> bool {
        let Some(message) = self.get_mut(id).filter(|message| message.tick < tick) else {
            return false;
        };
        message.tick = tick;
        true
    }

    /// Marks what a chat has received as read; returns ids with their writers and devices, oldest first.
    pub(in super::super) fn read(&mut self, chat: &str) -> Vec<(String, String)> {
        let unread =
            |m: &&mut WhatsappMessage| m.chat == chat && !m.from_me && m.tick < WhatsappTick::Read;
        self.messages
            .iter_mut()
            .filter(unread)
            .map(|message| {
                message.tick = WhatsappTick::Read;
                (message.id.clone(), message.from.clone())
            })
            .collect()
    }

    pub(in super::super) fn chats(&self, moods: &HashMap<String, String>) -> Vec<WhatsappChat> {
        let mut chats: HashMap<&str, WhatsappChat> = HashMap::new();
        let mut order: Vec<&str> = Vec::new();
        for message in &self.messages {
            let chat = chats.entry(&message.chat).or_insert_with(|| {
                order.push(&message.chat);
                WhatsappChat {
                    chat: message.chat.clone(),
                    messages: 0,
                    unread: 0,
                    typing: moods.get(&message.chat).cloned(),
                }
            });
            chat.messages += 1;
            chat.unread += usize::from(!message.from_me && message.tick < WhatsappTick::Read);
        }
        order
            .into_iter()
            .filter_map(|chat| chats.remove(chat))
            .collect()
    }
}
