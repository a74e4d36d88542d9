//! What the server knows: accounts, the devices linked to them, groups, sockets.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc::UnboundedSender, oneshot};
use wacore_binary::{Jid, Node, Server, builder::NodeBuilder};
use wacore_libsignal::protocol::KeyPair;

use super::{
    Broken,
    keys::DeviceKeys,
    login::Registration,
    model::{LinkedCompanion, WhatsappFaults, WhatsappGroup},
    passkey::Ceremony,
    phone::Phone,
};

/// A device of an account: the number and 0 for the phone, more for what is linked to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DeviceId {
    pub(super) number: String,
    pub(super) device: u16,
}

/// What a socket's task is told.
pub(super) enum ToSocket {
    Stanza(Arc<Node>),
    /// Say this last and close.
    Farewell(Node),
    /// End without a word.
    Drop,
}

pub(super) type SocketSender = UnboundedSender<ToSocket>;

#[derive(Default)]
pub(super) struct State {
    pub(super) accounts: HashMap<String, Account>,
    /// LID to number.
    pub(super) lids: HashMap<String, String>,
    pub(super) groups: HashMap<String, WhatsappGroup>,
    /// Sockets waiting to be scanned, by each reference they show.
    pub(super) references: HashMap<String, Arc<Unlinked>>,
    /// Devices waiting for a code to be typed in, by the phone's number.
    pub(super) codes: HashMap<String, CodeRequest>,
    pub(super) sockets: HashMap<u64, Socket>,
    pub(super) faults: WhatsappFaults,
    next_lid: u64,
}

/// An open socket.
pub(super) struct Socket {
    pub(super) sender: SocketSender,
    /// Whose it is, once logged in.
    pub(super) owner: Option<DeviceId>,
}

/// A socket that is not linked to a phone yet.
pub(super) struct Unlinked {
    pub(super) socket: u64,
    pub(super) sender: SocketSender,
    pub(super) noise_key: [u8; 32],
    pub(super) registration: Registration,
    /// The linking under way, once a phone said yes.
    pub(super) pending: Mutex<Option<PendingLink>>,
    /// The linking that waits for a passkey.
    pub(super) ceremony: Mutex<Option<Ceremony>>,
}

/// A phone said yes and the device has yet to sign.
pub(super) struct PendingLink {
    pub(super) stanza: String,
    pub(super) number: String,
    pub(super) device: u16,
    pub(super) key_index: u32,
    pub(super) done: oneshot::Sender<Result<LinkedCompanion, Broken>>,
}

/// A device that shows an 8-letter code.
pub(super) struct CodeRequest {
    pub(super) device: Arc<Unlinked>,
    pub(super) reference: Vec<u8>,
    /// The device's ephemeral key, sealed with the code.
    pub(super) sealed_key: Vec<u8>,
    /// Set while the phone waits for the device's second step.
    pub(super) phone_key: Option<KeyPair>,
    pub(super) answer: Option<oneshot::Sender<Result<LinkedCompanion, Broken>>>,
    pub(super) code: String,
}

/// An account: a number with its phone and its linked devices.
pub(super) struct Account {
    pub(super) number: String,
    pub(super) lid: String,
    pub(super) name: String,
    pub(super) identity: KeyPair,
    pub(super) phone: Arc<Mutex<Phone>>,
    pub(super) online: bool,
    /// What waits for a phone that is switched off.
    pub(super) for_phone: VecDeque<Parcel>,
    pub(super) companions: BTreeMap<u16, Companion>,
    pub(super) next_device: u16,
    pub(super) key_index: u32,
    /// Encoded patches of each app-state collection.
    pub(super) app_state: HashMap<String, Vec<Vec<u8>>>,
    /// Numbers this one exchanged messages with: their devices know this account's.
    pub(super) contacts: HashSet<String>,
    /// While set, logins are refused with a temporary ban until then.
    pub(super) banned_until: Option<DateTime<Utc>>,
}

/// A message on its way to a phone.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) id: String,
    pub(super) from: DeviceId,
    /// The group's JID, for a group message.
    pub(super) group: Option<String>,
    /// Kind and bytes, in the order to be read.
    pub(super) sealed: Vec<(String, Vec<u8>)>,
    pub(super) at: DateTime<Utc>,
}

/// A linked device as the server has it.
pub(super) struct Companion {
    pub(super) logins: u32,
    pub(super) noise_key: [u8; 32],
    pub(super) keys: DeviceKeys,
    pub(super) key_index: u32,
    pub(super) linked_at: DateTime<Utc>,
    pub(super) socket: Option<CompanionSocket>,
    /// Stanzas not yet acknowledged, oldest first.
    pub(super) waiting: VecDeque<Waiting>,
    /// The phone has sent its keys and history.
    pub(super) welcomed: bool,
}

pub(super) struct CompanionSocket {
    pub(super) id: u64,
    pub(super) sender: SocketSender,
    /// Stored stanzas may be sent; before that only answers are.
    pub(super) active: bool,
}

/// A stanza kept until its device acknowledges it.
pub(super) struct Waiting {
    /// `message`, `receipt` or `notification`, as acknowledgements name them.
    pub(super) class: &'static str,
    pub(super) id: String,
    pub(super) stanza: Arc<Node>,
}

/// Stanzas kept for a device that never comes back; the oldest go first.
const MAX_WAITING: usize = 50_000;

impl Account {
    pub(super) fn jid(&self, device: u16) -> Jid {
        Jid::pn_device(self.number.as_str(), device)
    }

    pub(super) fn lid_jid(&self, device: u16) -> Jid {
        Jid::lid_device(self.lid.as_str(), device)
    }

    pub(super) fn id(&self, device: u16) -> DeviceId {
        DeviceId {
            number: self.number.clone(),
            device,
        }
    }

    /// Gives a linked device a stanza that must arrive, now or when it comes.
    pub(super) fn deliver(&mut self, device: u16, class: &'static str, stanza: Node) {
        let Some(companion) = self.companions.get_mut(&device) else {
            return;
        };
        let stanza = Arc::new(stanza);
        if let Some(socket) = companion.socket.as_ref().filter(|socket| socket.active) {
            // A closed channel is a socket about to be noticed gone; the stanza waits.
            drop(socket.sender.send(ToSocket::Stanza(Arc::clone(&stanza))));
        }
        let id = attribute(&stanza, "id").unwrap_or_default();
        companion.waiting.push_back(Waiting { class, id, stanza });
        if companion.waiting.len() > MAX_WAITING {
            companion.waiting.pop_front();
        }
    }

    /// Gives a connected device something that is worth nothing later.
    pub(super) fn mention(&self, device: u16, stanza: Node) {
        let socket = self.companions.get(&device).and_then(|c| c.socket.as_ref());
        if let Some(socket) = socket.filter(|socket| socket.active) {
            // A socket just closed needs no hint.
            drop(socket.sender.send(ToSocket::Stanza(Arc::new(stanza))));
        }
    }

    pub(super) fn shown_companions(&self) -> Vec<LinkedCompanion> {
        let shown = |(device, companion): (&u16, &Companion)| LinkedCompanion {
            logins: companion.logins,
            device: *device,
            jid: self.jid(*device).to_string(),
            lid: self.lid_jid(*device).to_string(),
            connected: companion.socket.as_ref().is_some_and(|s| s.active),
            waiting: companion.waiting.len(),
            prekeys: companion.keys.one_time.len(),
            linked_at: companion.linked_at,
        };
        self.companions.iter().map(shown).collect()
    }
}

impl Companion {
    /// Forgets a stanza the device acknowledged.
    pub(super) fn acknowledged(&mut self, class: &str, id: &str) {
        let found = |waiting: &Waiting| waiting.class == class && waiting.id == id;
        if let Some(at) = self.waiting.iter().position(found) {
            self.waiting.remove(at);
        }
    }

    /// Sends what waits, marked as late, and says how much it was.
    pub(super) fn activate(&mut self) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        if socket.active {
            return;
        }
        socket.active = true;
        for waiting in &self.waiting {
            let mut late = (*waiting.stanza).clone();
            late.attrs.insert("offline", "0");
            drop(socket.sender.send(ToSocket::Stanza(Arc::new(late))));
        }
        let count = NodeBuilder::new("offline")
            .attr("count", self.waiting.len())
            .build();
        let done = NodeBuilder::new("ib")
            .attr("from", "s.whatsapp.net")
            .children([count])
            .build();
        drop(socket.sender.send(ToSocket::Stanza(Arc::new(done))));
    }
}

impl State {
    /// The device a JID means, by number or by LID. The device need not exist.
    pub(super) fn resolve(&self, jid: &Jid) -> Option<DeviceId> {
        let number = match jid.server {
            Server::Pn | Server::Legacy => jid.user.as_str(),
            Server::Lid => self.lids.get(jid.user.as_str())?.as_str(),
            _ => return None,
        };
        let account = self.accounts.get(number)?;
        Some(account.id(jid.device))
    }

    pub(super) fn acquaint(&mut self, one: &str, other: &str) {
        for (own, theirs) in [(one, other), (other, one)] {
            if let Some(account) = self.accounts.get_mut(own)
                && !account.contacts.contains(theirs)
            {
                account.contacts.insert(theirs.to_owned());
            }
        }
    }

    /// A LID no account has: 15 digits, as the real ones have.
    pub(super) fn new_lid(&mut self) -> String {
        self.next_lid += 1;
        format!("{}", 100_000_000_000_000 + self.next_lid * 7_919)
    }
}

/// An attribute as text.
pub(super) fn attribute(node: &Node, name: &str) -> Option<String> {
    node.attrs
        .get(name)
        .map(|value| value.as_str().into_owned())
}

pub(super) fn attribute_jid(node: &Node, name: &str) -> Option<Jid> {
    node.attrs.get(name).and_then(|value| value.to_jid())
}

/// The bytes a node holds, whichever way they were encoded.
pub(super) fn content(node: &Node) -> Option<&[u8]> {
    match node.content.as_ref()? {
        wacore_binary::NodeContent::Bytes(bytes) => Some(bytes),
        wacore_binary::NodeContent::String(text) => Some(text.as_bytes()),
        wacore_binary::NodeContent::Nodes(_) => None,
    }
}

pub(super) fn child_content<'a>(node: &'a Node, tag: &str) -> Option<&'a [u8]> {
    content(node.get_optional_child(tag)?)
}
