//! From a decrypted stanza to what is recorded of it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use whatsapp_rust::Client;
use whatsapp_rust::prelude::{InboundMessage, MessageInfo};
use whatsapp_rust::wacore::types::message::MessageCategory;
use whatsapp_rust::wacore_binary::{JidExt as _, Server};
use whatsapp_rust::waproto::codec;

use super::{Heard, Who};

/// `None` for what is in no conversation of ours: status posts, channels, bots, notes to oneself, and what a phone
/// tells its linked devices.
pub(crate) async fn heard(client: &Client, inbound: &InboundMessage) -> Option<Heard> {
    let info = &*inbound.info;
    let who = Place::of(info)?.who.completed(client).await;
    Some(record(info, who, &inbound.message))
}

fn record(info: &MessageInfo, who: Who, message: &whatsapp_rust::prelude::wa::Message) -> Heard {
    let from_us = info.source.is_from_me;
    Heard {
        id: info.id.clone(),
        who,
        name: Some(info.push_name.clone()).filter(|name| !name.is_empty() && !from_us),
        group: info
            .source
            .chat
            .is_group()
            .then(|| info.source.chat.to_non_ad_string()),
        from_us,
        at: info.timestamp.timestamp(),
        message: BASE64_STANDARD.encode(codec::message_to_vec(message)),
        from_history: false,
        past: None,
    }
}

struct Place {
    who: Who,
}

impl Place {
    fn of(info: &MessageInfo) -> Option<Self> {
        let source = &info.source;
        let chat = &source.chat;
        if chat.is_status_broadcast()
            || chat.is_newsletter()
            || chat.server == Server::Bot
            || info.category == MessageCategory::Peer
        {
            return None;
        }
        let who = match (source.is_from_me, chat.is_group()) {
            // To a group: there is no one customer.
            (true, true) => Who::named([chat]),
            (true, false) => {
                // Notes to oneself, and lists of recipients.
                source.recipient.as_ref()?;
                let names = [
                    Some(chat),
                    source.recipient_alt.as_ref(),
                    info.peer_recipient_pn.as_ref(),
                ];
                Who::named(names.into_iter().flatten())
            }
            (false, _) => {
                let names = [Some(&source.sender), source.sender_alt.as_ref()];
                Who::named(names.into_iter().flatten())
            }
        };
        (!who.is_nobody()).then_some(Self { who })
    }
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::Jid;
    use whatsapp_rust::wacore::types::message::MessageSource;

    use super::*;

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    fn who(source: MessageSource) -> Option<Who> {
        let info = MessageInfo {
            source,
            ..MessageInfo::default()
        };
        Place::of(&info).map(|place| place.who)
    }

    #[test]
    fn the_customer_is_whoever_is_not_us() {
        let from_customer = MessageSource {
            chat: jid("111@lid"),
            sender: jid("111:3@lid"),
            sender_alt: Some(jid("201012345678@s.whatsapp.net")),
            ..MessageSource::default()
        };
        let names = |who: Option<Who>| {
            let who = who.unwrap();
            (who.number, who.lid, who.group)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            names(who(from_customer)),
            (some("201012345678"), some("111"), None)
        );

        let from_our_phone = MessageSource {
            chat: jid("111@lid"),
            sender: jid("999@lid"),
            sender_alt: Some(jid("201099999999@s.whatsapp.net")),
            recipient: Some(jid("111@lid")),
            is_from_me: true,
            ..MessageSource::default()
        };
        assert_eq!(names(who(from_our_phone)), (None, some("111"), None));

        let in_a_group = MessageSource {
            chat: jid("120363@g.us"),
            sender: jid("201012345678:1@s.whatsapp.net"),
            is_group: true,
            ..MessageSource::default()
        };
        assert_eq!(names(who(in_a_group)), (some("201012345678"), None, None));

        let ours_in_a_group = MessageSource {
            chat: jid("120363@g.us"),
            sender: jid("999@lid"),
            is_group: true,
            is_from_me: true,
            ..MessageSource::default()
        };
        assert_eq!(
            names(who(ours_in_a_group)),
            (None, None, some("120363@g.us"))
        );
    }

    #[test]
    fn what_is_in_no_conversation_is_left_alone() {
        let note_to_oneself = MessageSource {
            chat: jid("999@lid"),
            sender: jid("999@lid"),
            is_from_me: true,
            ..MessageSource::default()
        };
        assert_eq!(who(note_to_oneself), None);
        for chat in ["status@broadcast", "120363@newsletter", "867@bot"] {
            let source = MessageSource {
                chat: jid(chat),
                sender: jid("111@lid"),
                ..MessageSource::default()
            };
            assert_eq!(who(source), None, "{chat}");
        }
    }
}
