//! Who is on WhatsApp, by which devices, under which LID.

use wacore_binary::{Jid, Node, Server, builder::NodeBuilder};
use waproto::{
    buffa::Message,
    whatsapp::{ADVKeyIndexList, ADVSignedKeyIndexList},
};

use super::{
    Broken, Hub,
    iq::{notification, result_with, text},
    state::{Account, State, attribute, attribute_jid},
};

/// The phone's signature over a list of its linked devices.
const KEY_INDEX_PREFIX: [u8; 2] = [6, 2];

pub(super) fn answer(hub: &Hub, iq: &Node) -> Result<Node, Broken> {
    let usync = iq
        .get_optional_child("usync")
        .ok_or(Broken::Stanza("no usync"))?;
    let query = usync
        .get_optional_child("query")
        .ok_or(Broken::Stanza("no query"))?;
    let wanted: Vec<&str> = query
        .children()
        .unwrap_or_default()
        .iter()
        .map(|protocol| &*protocol.tag)
        .collect();
    let asked = usync
        .get_optional_child("list")
        .ok_or(Broken::Stanza("no list"))?;
    let state = hub.lock();
    let users = asked
        .get_children_by_tag("user")
        .map(|user| user_node(&state, user, &wanted))
        .collect::<Result<Vec<_>, _>>()?;
    let results = wanted
        .iter()
        .map(|protocol| NodeBuilder::new_dynamic((*protocol).to_owned()).build());
    let mut head = NodeBuilder::new("usync");
    for (name, key) in [("sid", "sid"), ("mode", "mode"), ("context", "context")] {
        if let Some(value) = attribute(usync, key) {
            head = head.attr(name, value);
        }
    }
    let usync = head
        .attr("index", "0")
        .attr("last", "true")
        .children([
            NodeBuilder::new("result").children(results).build(),
            NodeBuilder::new("list").children(users).build(),
        ])
        .build();
    Ok(result_with(iq, [usync]))
}

fn user_node(state: &State, user: &Node, wanted: &[&str]) -> Result<Node, Broken> {
    let typed = user.get_optional_child("contact").and_then(text);
    let jid = attribute_jid(user, "jid").or_else(|| attribute_jid(user, "pn_jid"));
    let jid = match (jid, &typed) {
        (Some(jid), _) => jid.into_non_ad(),
        (None, Some(typed)) => Jid::pn(typed.trim_start_matches('+')),
        (None, None) => return Err(Broken::Stanza("a user without a name")),
    };
    let account = state
        .resolve(&jid)
        .and_then(|device| state.accounts.get(&device.number));
    let mut children = Vec::new();
    for protocol in wanted {
        match (*protocol, account) {
            ("contact", found) => {
                let mut contact = NodeBuilder::new("contact")
                    .attr("type", if found.is_some() { "in" } else { "out" });
                if let Some(typed) = &typed {
                    contact = contact.bytes(typed.as_bytes());
                }
                children.push(contact.build());
            }
            ("devices", Some(account)) => children.push(devices(account)?),
            ("lid", Some(account)) => children.push(
                NodeBuilder::new("lid")
                    .attr("val", account.lid_jid(0))
                    .build(),
            ),
            ("status", Some(_)) => children.push(NodeBuilder::new("status").build()),
            ("disappearing_mode", Some(_)) => children.push(
                NodeBuilder::new("disappearing_mode")
                    .attr("duration", "0")
                    .attr("t", "0")
                    .build(),
            ),
            _ => {}
        }
    }
    let mut node = NodeBuilder::new("user").attr("jid", jid.clone());
    if let Some(account) = account.filter(|_| jid.server == Server::Lid) {
        node = node.attr("pn_jid", account.jid(0));
    }
    Ok(node.children(children).build())
}

fn devices(account: &Account) -> Result<Node, Broken> {
    let phone = NodeBuilder::new("device").attr("id", "0").build();
    let linked = account.companions.iter().map(|(device, companion)| {
        NodeBuilder::new("device")
            .attr("id", *device)
            .attr("key-index", companion.key_index)
            .build()
    });
    let mut children = vec![
        NodeBuilder::new("device-list")
            .attr("hash", format!("2:{}:{}", account.lid, account.next_device))
            .children(std::iter::once(phone).chain(linked))
            .build(),
    ];
    if !account.companions.is_empty() {
        let made = chrono::Utc::now().timestamp();
        children.push(
            NodeBuilder::new("key-index-list")
                .attr("ts", made)
                .bytes(signed_key_indexes(account, made)?)
                .build(),
        );
    }
    Ok(NodeBuilder::new("devices").children(children).build())
}

/// Without it a client does not believe in the linked devices.
pub(super) fn signed_key_indexes(account: &Account, made: i64) -> Result<Vec<u8>, Broken> {
    let list = ADVKeyIndexList {
        raw_id: Some(raw_id(account)),
        timestamp: u64::try_from(made).ok(),
        current_index: Some(account.key_index),
        valid_indexes: account.companions.values().map(|c| c.key_index).collect(),
        ..Default::default()
    };
    let details = list.encode_to_vec();
    let signed = [&KEY_INDEX_PREFIX[..], &details].concat();
    let signature = account
        .identity
        .calculate_signature(&signed, &mut rand_for_signal::rng())
        .map_err(Broken::crypto)?;
    Ok(ADVSignedKeyIndexList {
        details: Some(details),
        account_signature: Some(signature.to_vec()),
        ..Default::default()
    }
    .encode_to_vec())
}

/// Names one installation of the phone; the same for all its lists.
pub(super) fn raw_id(account: &Account) -> u32 {
    let key = account.identity.public_key.public_key_bytes();
    key.first_chunk()
        .map_or(1, |bytes| u32::from_be_bytes(*bytes) >> 1)
}

impl State {
    /// Tells the devices that may have a list of an account's devices that one came, with its key index, or went.
    pub(super) fn announce_device(
        &mut self,
        number: &str,
        device: u16,
        added: Option<u32>,
    ) -> Result<(), Broken> {
        let Some(account) = self.accounts.get(number) else {
            return Ok(());
        };
        let made = chrono::Utc::now().timestamp();
        let mut entry = NodeBuilder::new("device").attr("jid", account.jid(device));
        if let Some(key_index) = added {
            entry = entry.attr("key-index", key_index);
        }
        let mut list = NodeBuilder::new("key-index-list").attr("ts", made);
        if added.is_some() {
            list = list.bytes(signed_key_indexes(account, made)?);
        }
        let change = NodeBuilder::new(if added.is_some() { "add" } else { "remove" })
            .attr("device_hash", "2:sim")
            .children([entry.build(), list.build()])
            .build();
        let (from, lid) = (account.jid(0), account.lid_jid(0));
        let mut told: Vec<String> = account.contacts.iter().cloned().collect();
        told.push(number.to_owned());
        for other in told {
            let Some(other_account) = self.accounts.get_mut(&other) else {
                continue;
            };
            let devices: Vec<u16> = other_account.companions.keys().copied().collect();
            for other_device in devices {
                if other == number && other_device == device {
                    continue;
                }
                let news = notification(from.clone(), "devices")
                    .attr("lid", lid.clone())
                    .children([change.clone()])
                    .build();
                other_account.deliver(other_device, "notification", news);
            }
        }
        Ok(())
    }
}
