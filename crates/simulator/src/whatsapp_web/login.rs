//! Who a connection is: a device about to be linked, a linked one, or nobody.

use std::sync::{Arc, Mutex};

use chrono::Utc;
use uuid::Uuid;
use wacore_binary::{Node, builder::NodeBuilder};
use waproto::{
    buffa::Message,
    whatsapp::{ClientPayload, client_payload::DevicePairingRegistrationData},
};

use super::{
    Broken, Hub, iq,
    keys::{SignedKey, big_endian, public_key},
    state::{CompanionSocket, DeviceId, SocketSender, ToSocket, Unlinked, attribute},
};

/// References a device shows one after another as QR codes.
const REFERENCES: usize = 6;

/// The keys a device brings when it wants to be linked.
#[derive(Clone)]
pub(super) struct Registration {
    pub(super) registration_id: u32,
    pub(super) identity: [u8; 32],
    pub(super) signed: SignedKey,
}

/// What a connection may do.
pub(super) enum Session {
    Unlinked(Arc<Unlinked>),
    Linked(DeviceId),
    /// Its farewell is on the way.
    Refused,
}

impl Hub {
    pub(super) fn log_in(
        &self,
        socket: u64,
        sender: &SocketSender,
        noise_key: [u8; 32],
        payload: &[u8],
    ) -> Result<Session, Broken> {
        let payload = ClientPayload::decode_from_slice(payload).map_err(Broken::crypto)?;
        if let Some(data) = payload.device_pairing_data.as_option() {
            let registration = registration(data)?;
            return Ok(self.offer_link(socket, sender, noise_key, registration));
        }
        let device = payload
            .device
            .and_then(|device| u16::try_from(device).ok())
            .filter(|device| *device != 0);
        let (Some(number), Some(device)) = (payload.username, device) else {
            return Ok(refuse(sender, failure(401)));
        };
        let me = DeviceId {
            number: number.to_string(),
            device,
        };
        Ok(self.admit(socket, sender, noise_key, me))
    }

    fn offer_link(
        &self,
        socket: u64,
        sender: &SocketSender,
        noise_key: [u8; 32],
        registration: Registration,
    ) -> Session {
        let unlinked = Arc::new(Unlinked {
            socket,
            sender: sender.clone(),
            noise_key,
            registration,
            pending: Mutex::default(),
            ceremony: Mutex::default(),
        });
        let references: Vec<String> = (0..REFERENCES)
            .map(|_| format!("2@{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
            .collect();
        let nodes = references
            .iter()
            .map(|reference| NodeBuilder::new("ref").bytes(reference.as_bytes()).build());
        let offer = NodeBuilder::new("iq")
            .attr("from", "s.whatsapp.net")
            .attr("type", "set")
            .attr("id", stanza_id())
            .attr("xmlns", "md")
            .children([NodeBuilder::new("pair-device").children(nodes).build()])
            .build();
        let mut state = self.lock();
        for reference in references {
            state.references.insert(reference, Arc::clone(&unlinked));
        }
        drop(state);
        say(sender, offer);
        Session::Unlinked(unlinked)
    }

    fn admit(
        &self,
        socket: u64,
        sender: &SocketSender,
        noise_key: [u8; 32],
        me: DeviceId,
    ) -> Session {
        let mut state = self.lock();
        let Some(account) = state.accounts.get_mut(&me.number) else {
            return refuse(sender, failure(401));
        };
        let now = Utc::now();
        if let Some(until) = account.banned_until.filter(|until| *until > now) {
            return refuse(sender, banned((until - now).num_seconds()));
        }
        let lid = account.lid_jid(me.device);
        let name = account.name.clone();
        let Some(own) = account.companions.get_mut(&me.device) else {
            return refuse(sender, failure(401));
        };
        if own.noise_key != noise_key {
            return refuse(sender, failure(401));
        }
        own.logins += 1;
        let before = own.socket.replace(CompanionSocket {
            id: socket,
            sender: sender.clone(),
            active: false,
        });
        if let Some(before) = before {
            // It may be gone already.
            drop(before.sender.send(ToSocket::Farewell(replaced())));
        }
        let linked_at = own.linked_at.timestamp();
        if let Some(entry) = state.sockets.get_mut(&socket) {
            entry.owner = Some(me.clone());
        }
        let success = NodeBuilder::new("success")
            .attr("t", now.timestamp())
            .attr("props", "27")
            .attr("companion_enc_static", "")
            .attr("lid", lid)
            .attr("display_name", name)
            .attr("creation", linked_at)
            .build();
        say(sender, success);
        Session::Linked(me)
    }

    /// One stanza of a client.
    pub(super) fn hear(&self, session: &mut Session, sender: &SocketSender, node: &Node) {
        match session {
            Session::Refused => {}
            Session::Unlinked(unlinked) => {
                if node.tag == "iq"
                    && let Some(answer) = self.hear_unlinked(unlinked, node)
                {
                    say(sender, answer);
                }
            }
            Session::Linked(me) => {
                let outcome = match &*node.tag {
                    "iq" => iq::hear(self, me, node).map(|answer| answer.map(|a| say(sender, a))),
                    "message" => self.hear_message(me, sender, node).map(Some),
                    "receipt" => self.hear_receipt(me, sender, node).map(Some),
                    "presence" | "chatstate" => self.hear_mood(me, node).map(Some),
                    "ack" => {
                        self.hear_ack(me, node);
                        Ok(None)
                    }
                    _ => Ok(None),
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, tag = %node.tag, "a stanza was not understood");
                    if node.tag == "iq" {
                        say(sender, iq::error(node, 400, "bad-request"));
                    }
                }
            }
        }
    }

    fn hear_ack(&self, me: &DeviceId, node: &Node) {
        let (Some(class), Some(id)) = (attribute(node, "class"), attribute(node, "id")) else {
            return;
        };
        let mut state = self.lock();
        let account = state.accounts.get_mut(&me.number);
        if let Some(own) = account.and_then(|a| a.companions.get_mut(&me.device)) {
            own.acknowledged(&class, &id);
        }
    }

    /// A socket ended.
    pub(super) fn left(&self, socket: u64) {
        let mut state = self.lock();
        let Some(owner) = state.sockets.remove(&socket).map(|socket| socket.owner) else {
            return;
        };
        let Some(owner) = owner else {
            state.references.retain(|_, device| device.socket != socket);
            state.codes.retain(|_, code| code.device.socket != socket);
            return;
        };
        let account = state.accounts.get_mut(&owner.number);
        if let Some(own) = account.and_then(|a| a.companions.get_mut(&owner.device))
            && own.socket.as_ref().is_some_and(|s| s.id == socket)
        {
            own.socket = None;
        }
    }
}

/// A closed channel is a socket that ended meanwhile; nobody is left to hear.
pub(super) fn say(sender: &SocketSender, node: Node) {
    drop(sender.send(ToSocket::Stanza(Arc::new(node))));
}

fn refuse(sender: &SocketSender, farewell: Node) -> Session {
    drop(sender.send(ToSocket::Farewell(farewell)));
    Session::Refused
}

pub(super) fn stanza_id() -> String {
    let id = Uuid::new_v4().simple().to_string();
    id[..20].to_owned()
}

fn failure(reason: u32) -> Node {
    NodeBuilder::new("failure")
        .attr("reason", reason)
        .attr("location", "sim")
        .build()
}

/// 101: sent to too many people who had not stored the number.
fn banned(seconds: i64) -> Node {
    NodeBuilder::new("failure")
        .attr("reason", 402)
        .attr("code", 101)
        .attr("expire", seconds.max(1))
        .build()
}

pub(super) fn replaced() -> Node {
    NodeBuilder::new("stream:error")
        .children([NodeBuilder::new("conflict")
            .attr("type", "replaced")
            .build()])
        .build()
}

fn registration(data: &DevicePairingRegistrationData) -> Result<Registration, Broken> {
    let number = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(big_endian);
    let key = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(public_key);
    let parts = (
        number(&data.e_regid),
        key(&data.e_ident),
        number(&data.e_skey_id),
        key(&data.e_skey_val),
        data.e_skey_sig.clone(),
    );
    let (Some(registration_id), Some(identity), Some(id), Some(key), Some(signature)) = parts
    else {
        return Err(Broken::Handshake("incomplete registration"));
    };
    Ok(Registration {
        registration_id,
        identity,
        signed: SignedKey { id, key, signature },
    })
}
