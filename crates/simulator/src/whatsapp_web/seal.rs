//! Encrypting a phone's message: for each device of a person, or once for a whole group.

use std::collections::HashMap;

use wacore_binary::{Jid, Node, builder::NodeBuilder};
use waproto::{
    buffa::MessageField,
    whatsapp::{self as wa, message::DeviceSentMessage},
};

use super::{
    Broken,
    keys::Bundle,
    phone::{Phone, Sealed, address},
    send::Letter,
    state::DeviceId,
};

pub(super) fn start_sessions(
    phone: &mut Phone,
    readers: &[DeviceId],
    bundles: &HashMap<DeviceId, Bundle>,
) {
    for device in readers {
        let with = address(&device.number, device.device);
        if phone.signal.has_session(&with) {
            continue;
        }
        let Some(bundle) = bundles.get(device) else {
            continue;
        };
        if let Err(error) = phone.signal.start_session(&with, bundle) {
            tracing::warn!(%error, "a device's keys are of no use");
        }
    }
}

pub(super) fn seal_for_person(
    phone: &mut Phone,
    letter: &Letter,
    readers: &[DeviceId],
    out: &mut Vec<(DeviceId, Vec<Node>)>,
) -> Result<(), Broken> {
    let copy = own_copy(&letter.chat, &letter.message);
    for device in readers {
        let with = address(&device.number, device.device);
        if !phone.signal.has_session(&with) {
            continue;
        }
        let message = if device.number == letter.from {
            &copy
        } else {
            &letter.message
        };
        let sealed = phone.signal.encrypt(&with, message)?;
        let node = sealed_node(&sealed, letter.media, None);
        out.push((device.clone(), vec![node]));
    }
    Ok(())
}

pub(super) fn seal_for_group(
    phone: &mut Phone,
    letter: &Letter,
    readers: &[DeviceId],
    out: &mut Vec<(DeviceId, Vec<Node>)>,
) -> Result<(), Broken> {
    let key = wa::Message {
        sender_key_distribution_message: MessageField::some(
            wa::message::SenderKeyDistributionMessage {
                group_id: Some(letter.chat.clone()),
                axolotl_sender_key_distribution_message: Some(
                    phone.signal.distribution(&letter.chat)?,
                ),
            },
        ),
        ..Default::default()
    };
    let sealed = phone
        .signal
        .encrypt_for_group(&letter.chat, &letter.message)?;
    let mut node = NodeBuilder::new("enc").attr("v", "2").attr("type", "skmsg");
    if let Some(media) = letter.media {
        node = node.attr("mediatype", media);
    }
    let node = node.bytes(sealed).build();
    for device in readers {
        let with = address(&device.number, device.device);
        let mut nodes = Vec::new();
        let has_key = phone
            .distributed
            .get(&letter.chat)
            .is_some_and(|devices| devices.contains(device));
        if !has_key && phone.signal.has_session(&with) {
            let sealed = phone.signal.encrypt(&with, &key)?;
            nodes.push(sealed_node(&sealed, None, None));
            let devices = phone.distributed.entry(letter.chat.clone());
            devices.or_default().insert(device.clone());
        }
        nodes.push(node.clone());
        out.push((device.clone(), nodes));
    }
    Ok(())
}

/// A message once more, for one device, in a session started anew.
pub(super) fn encrypt_again(
    phone: &mut Phone,
    me: &DeviceId,
    asker: &DeviceId,
    id: &str,
    bundle: &Bundle,
) -> Result<Option<(Sealed, &'static str, String)>, Broken> {
    let Some(sent) = phone.sent(id) else {
        return Ok(None);
    };
    let (chat, kind, mut message) = (sent.chat.clone(), sent.kind, sent.message.clone());
    let with = address(&asker.number, asker.device);
    phone.signal.forget_session(&with);
    phone.signal.start_session(&with, bundle)?;
    if chat.ends_with("@g.us") {
        // The group's key goes along, so that the next message can be read.
        message.sender_key_distribution_message =
            MessageField::some(wa::message::SenderKeyDistributionMessage {
                group_id: Some(chat.clone()),
                axolotl_sender_key_distribution_message: Some(phone.signal.distribution(&chat)?),
            });
    } else if asker.number == me.number {
        message = own_copy(&chat, &message);
    }
    let sealed = phone.signal.encrypt(&with, &message)?;
    Ok(Some((sealed, kind, chat)))
}

/// What the sender's other devices get: the message and where it went.
fn own_copy(chat: &str, message: &wa::Message) -> wa::Message {
    wa::Message {
        device_sent_message: MessageField::some(DeviceSentMessage {
            destination_jid: Some(Jid::pn(chat).to_string()),
            message: MessageField::some(message.clone()),
            phash: None,
        }),
        ..Default::default()
    }
}

pub(super) fn sealed_node(sealed: &Sealed, media: Option<&'static str>, count: Option<u8>) -> Node {
    let mut node = NodeBuilder::new("enc")
        .attr("v", "2")
        .attr("type", sealed.kind);
    if let Some(media) = media {
        node = node.attr("mediatype", media);
    }
    if let Some(count) = count {
        node = node.attr("count", count);
    }
    node.bytes(sealed.bytes.clone()).build()
}
