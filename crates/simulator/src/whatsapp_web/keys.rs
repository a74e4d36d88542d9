//! Keys devices leave on the server so that others can write to them: upload, count, digest, hand-out.

use std::collections::BTreeMap;

use wacore::prekeys::compute_key_bundle_digest;
use wacore_binary::{Jid, Node, builder::NodeBuilder};

use super::{
    Broken, Hub,
    iq::{error, result, result_with},
    login::Registration,
    state::{DeviceId, attribute_jid, child_content, content},
};

/// More one-time keys than any client uploads.
const MAX_ONE_TIME_KEYS: usize = 5_000;

/// What is needed to write to a device for the first time.
#[derive(Clone)]
pub(super) struct Bundle {
    pub(super) registration_id: u32,
    pub(super) identity: [u8; 32],
    pub(super) signed: SignedKey,
    pub(super) one_time: Option<(u32, [u8; 32])>,
    /// For linked devices: the account's signature over the device.
    pub(super) device_identity: Option<Vec<u8>>,
}

#[derive(Clone)]
pub(super) struct SignedKey {
    pub(super) id: u32,
    pub(super) key: [u8; 32],
    pub(super) signature: Vec<u8>,
}

/// The keys of a linked device.
pub(super) struct DeviceKeys {
    registration_id: u32,
    pub(super) identity: [u8; 32],
    signed: SignedKey,
    pub(super) one_time: BTreeMap<u32, [u8; 32]>,
    device_identity: Vec<u8>,
}

impl DeviceKeys {
    pub(super) fn new(registration: &Registration, device_identity: Vec<u8>) -> Self {
        Self {
            registration_id: registration.registration_id,
            identity: registration.identity,
            signed: registration.signed.clone(),
            one_time: BTreeMap::new(),
            device_identity,
        }
    }

    /// Hands the keys out; a one-time key goes to one asker only.
    pub(super) fn take_bundle(&mut self) -> Bundle {
        Bundle {
            registration_id: self.registration_id,
            identity: self.identity,
            signed: self.signed.clone(),
            one_time: self.one_time.pop_first(),
            device_identity: Some(self.device_identity.clone()),
        }
    }

    /// Returns how many one-time keys came.
    fn upload(&mut self, iq: &Node) -> Result<usize, Broken> {
        if let Some(id) = child_content(iq, "registration").and_then(big_endian) {
            self.registration_id = id;
        }
        if let Some(signed) = iq.get_optional_child("skey") {
            self.signed = signed_key(signed)?;
        }
        let mut taken = 0;
        let list = iq.get_optional_child("list");
        for key in list.into_iter().flat_map(|l| l.get_children_by_tag("key")) {
            let id = child_content(key, "id").and_then(big_endian);
            let value = child_content(key, "value").and_then(public_key);
            let (Some(id), Some(value)) = (id, value) else {
                return Err(Broken::Stanza("a one-time key is malformed"));
            };
            self.one_time.insert(id, value);
            taken += 1;
        }
        while self.one_time.len() > MAX_ONE_TIME_KEYS {
            self.one_time.pop_first();
        }
        Ok(taken)
    }

    fn digest(&self) -> Node {
        let public: Vec<&[u8]> = self.one_time.values().map(|key| &key[..]).collect();
        let hash = compute_key_bundle_digest(
            &self.identity,
            &self.signed.key,
            &self.signed.signature,
            &public,
        );
        let ids = self
            .one_time
            .keys()
            .map(|id| NodeBuilder::new("id").bytes(three_bytes(*id)).build());
        NodeBuilder::new("digest")
            .children([
                NodeBuilder::new("registration")
                    .bytes(self.registration_id.to_be_bytes())
                    .build(),
                NodeBuilder::new("type").bytes([5]).build(),
                NodeBuilder::new("identity").bytes(self.identity).build(),
                signed_node(&self.signed),
                NodeBuilder::new("list").children(ids).build(),
                NodeBuilder::new("hash").bytes(hash).build(),
            ])
            .build()
    }
}

/// `xmlns="encrypt"`.
pub(super) fn answer(hub: &Hub, from: &DeviceId, iq: &Node) -> Result<Node, Broken> {
    if let Some(asked) = iq.get_optional_child("key") {
        return Ok(hand_out(hub, iq, asked));
    }
    let mut state = hub.lock();
    let account = state.accounts.get_mut(&from.number);
    let Some(own) = account.and_then(|a| a.companions.get_mut(&from.device)) else {
        return Ok(error(iq, 401, "not-authorized"));
    };
    if iq.get_optional_child("count").is_some() {
        let count = NodeBuilder::new("count")
            .attr("value", own.keys.one_time.len())
            .build();
        return Ok(result_with(iq, [count]));
    }
    if iq.get_optional_child("digest").is_some() {
        return Ok(result_with(iq, [own.keys.digest()]));
    }
    if let Some(rotate) = iq.get_optional_child("rotate") {
        let signed = rotate
            .get_optional_child("skey")
            .ok_or(Broken::Stanza("a rotation without a key"))?;
        own.keys.signed = signed_key(signed)?;
        return Ok(result(iq));
    }
    let taken = own.keys.upload(iq)?;
    let welcome = taken > 0 && !own.welcomed;
    own.welcomed |= welcome;
    drop(state);
    if welcome {
        hub.welcome(from);
    }
    Ok(result(iq))
}

fn hand_out(hub: &Hub, iq: &Node, asked: &Node) -> Node {
    let users = asked.get_children_by_tag("user").filter_map(|user| {
        let jid = attribute_jid(user, "jid")?;
        let found = hub.lock().resolve(&jid);
        Some(match found.and_then(|device| hub.bundle(&device)) {
            Some(bundle) => bundle_node(jid, &bundle),
            None => NodeBuilder::new("user")
                .attr("jid", jid)
                .children([NodeBuilder::new("error")
                    .attr("code", "406")
                    .attr("text", "not-acceptable")
                    .build()])
                .build(),
        })
    });
    let list = NodeBuilder::new("list").children(users).build();
    result_with(iq, [list])
}

impl Hub {
    /// A device's keys, to start a session with it; `None` when there is no such device.
    pub(super) fn bundle(&self, device: &DeviceId) -> Option<Bundle> {
        let phone = {
            let mut state = self.lock();
            let account = state.accounts.get_mut(&device.number)?;
            if device.device != 0 {
                let companion = account.companions.get_mut(&device.device)?;
                return Some(companion.keys.take_bundle());
            }
            std::sync::Arc::clone(&account.phone)
        };
        let bundle = super::locked(&phone).signal.bundle();
        Some(bundle)
    }
}

fn bundle_node(jid: Jid, bundle: &Bundle) -> Node {
    let mut children = vec![
        NodeBuilder::new("registration")
            .bytes(bundle.registration_id.to_be_bytes())
            .build(),
        NodeBuilder::new("type").bytes([5]).build(),
        NodeBuilder::new("identity").bytes(bundle.identity).build(),
    ];
    children.extend(key_nodes(bundle));
    NodeBuilder::new("user")
        .attr("jid", jid)
        .children(children)
        .build()
}

/// The signed key, the one-time key and the account's signature, as bundles and retries carry them.
pub(super) fn key_nodes(bundle: &Bundle) -> Vec<Node> {
    let mut nodes = vec![signed_node(&bundle.signed)];
    if let Some((id, key)) = &bundle.one_time {
        nodes.push(
            NodeBuilder::new("key")
                .children([
                    NodeBuilder::new("id").bytes(three_bytes(*id)).build(),
                    NodeBuilder::new("value").bytes(*key).build(),
                ])
                .build(),
        );
    }
    if let Some(identity) = &bundle.device_identity {
        nodes.push(
            NodeBuilder::new("device-identity")
                .bytes(identity.clone())
                .build(),
        );
    }
    nodes
}

fn signed_node(signed: &SignedKey) -> Node {
    NodeBuilder::new("skey")
        .children([
            NodeBuilder::new("id").bytes(three_bytes(signed.id)).build(),
            NodeBuilder::new("value").bytes(signed.key).build(),
            NodeBuilder::new("signature")
                .bytes(signed.signature.clone())
                .build(),
        ])
        .build()
}

fn signed_key(node: &Node) -> Result<SignedKey, Broken> {
    let id = child_content(node, "id").and_then(big_endian);
    let key = child_content(node, "value").and_then(public_key);
    let signature = node.get_optional_child("signature").and_then(content);
    let (Some(id), Some(key), Some(signature)) = (id, key, signature) else {
        return Err(Broken::Stanza("a signed key is malformed"));
    };
    Ok(SignedKey {
        id,
        key,
        signature: signature.to_vec(),
    })
}

/// An unsigned number of up to four bytes.
pub(super) fn big_endian(bytes: &[u8]) -> Option<u32> {
    if bytes.is_empty() || bytes.len() > 4 {
        return None;
    }
    Some(bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte)))
}

/// A curve key, with or without the byte that says so.
pub(super) fn public_key(bytes: &[u8]) -> Option<[u8; 32]> {
    match bytes {
        [5, key @ ..] if key.len() == 32 => key.try_into().ok(),
        key => key.try_into().ok(),
    }
}

fn three_bytes(id: u32) -> Vec<u8> {
    id.to_be_bytes()[1..].to_vec()
}
