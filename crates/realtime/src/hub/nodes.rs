//! The hub among other nodes: what it tells them, and what it does with what they tell.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use uuid::Uuid;

use super::presence::Load;
use super::tenant::TopicKey;
use super::{Hub, lock};
use crate::codec::BroadcastPayload;
use crate::peers::{PeerMessage, PresenceEntry, TopicName};

impl Hub {
    /// Takes a message of another node. Those of one node must come in the order in which they were sent.
    pub fn receive(&self, node: Uuid, message: PeerMessage) {
        let counter = &self.counters.peer_messages_received;
        counter.fetch_add(1, Ordering::Relaxed);
        match message {
            PeerMessage::Broadcast {
                org_id,
                topic,
                event,
                payload,
            } => {
                self.broadcast_here(org_id, &TopicKey::from(&topic), &event, &payload);
            }
            PeerMessage::Presence { org_id, entry } => {
                self.take_presences(node, org_id, vec![entry]);
            }
            PeerMessage::Presences { org_id, entries } => {
                self.take_presences(node, org_id, entries);
            }
            PeerMessage::Introducing => {
                self.introductions().insert(node, HashSet::new());
            }
            PeerMessage::Introduced => {
                // Without its beginning it says nothing of what was not heard.
                let mentioned = self.introductions().remove(&node);
                if let Some(mentioned) = mentioned {
                    self.forget(node, &mentioned);
                }
            }
            PeerMessage::Recheck { org_id, user_id } => self.recheck_here(org_id, user_id),
        }
    }

    /// A node is gone: what its channels tracked leaves.
    pub fn peer_left(&self, node: Uuid) {
        self.introductions().remove(&node);
        self.forget(node, &Mentioned::new());
    }

    /// Tells a node that has just come, and with it all others, what is tracked here; what they believe beyond that they
    /// then forget, also in tenants where nobody tracks any more.
    pub fn introduce(&self) {
        self.tell(|| PeerMessage::Introducing);
        for org_id in self.org_ids() {
            if let Some(tenant) = self.tenant(org_id) {
                let tenant = lock(&tenant);
                // Under the lock, so that what changes next is told next.
                for entries in in_chunks(tenant.presences_of(None)) {
                    self.tell(|| PeerMessage::Presences { org_id, entries });
                }
            }
        }
        self.tell(|| PeerMessage::Introduced);
    }

    fn take_presences(&self, node: Uuid, org_id: Uuid, entries: Vec<PresenceEntry>) {
        if let Some(mentioned) = self.introductions().get_mut(&node) {
            let of_org = entries.iter().map(|entry| (org_id, identity(entry)));
            mentioned.extend(of_org);
        }
        let tenant = self.in_tenant(org_id, |tenant| {
            for entry in entries {
                tenant.track_elsewhere(node, entry);
            }
        });
        self.retire_if_empty(org_id, &tenant);
    }

    /// Ends all that is known of a node's presence, except this.
    fn forget(&self, node: Uuid, except: &Mentioned) {
        for org_id in self.org_ids() {
            let Some(tenant) = self.tenant(org_id) else {
                continue;
            };
            {
                let mut tenant = lock(&tenant);
                for known in tenant.presences_of(Some(node)) {
                    if !except.contains(&(org_id, identity(&known))) {
                        let gone = PresenceEntry {
                            meta: None,
                            ..known
                        };
                        tenant.track_elsewhere(node, gone);
                    }
                }
            }
            self.retire_if_empty(org_id, &tenant);
        }
    }

    fn introductions(&self) -> MutexGuard<'_, HashMap<Uuid, Mentioned>> {
        lock(&self.introductions)
    }

    fn org_ids(&self) -> Vec<Uuid> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.keys().copied().collect()
    }

    pub(super) fn broadcast_here(
        &self,
        org_id: Uuid,
        topic: &TopicKey,
        event: &str,
        payload: &BroadcastPayload,
    ) -> usize {
        let Some(tenant) = self.tenant(org_id) else {
            return 0;
        };
        let delivered = lock(&tenant).broadcast(topic, None, event, payload);
        self.count_deliveries(delivered);
        delivered
    }

    pub(super) fn tell_broadcast(
        &self,
        org_id: Uuid,
        topic: &TopicKey,
        event: &str,
        payload: &BroadcastPayload,
    ) {
        self.tell(|| PeerMessage::Broadcast {
            org_id,
            topic: topic.to_peers(),
            event: event.to_owned(),
            payload: payload.clone(),
        });
    }

    pub(super) fn tell_presence(&self, org_id: Uuid, news: Option<PresenceEntry>) {
        if let Some(entry) = news {
            self.tell(|| PeerMessage::Presence { org_id, entry });
        }
    }

    pub(super) fn tell(&self, message: impl FnOnce() -> PeerMessage) {
        let Some(peers) = self.peers.as_ref().filter(|peers| peers.any()) else {
            return;
        };
        peers.send(&message());
        let counter = &self.counters.peer_messages_sent;
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What tells the entries of a node apart.
type Identity = (TopicName, String, u64);

/// What a node has mentioned so far while it introduces itself.
pub(super) type Mentioned = HashSet<(Uuid, Identity)>;

fn identity(entry: &PresenceEntry) -> Identity {
    (entry.topic.clone(), entry.key.clone(), entry.socket)
}

/// Entries and bytes of one message.
const CHUNK: usize = 500;
const CHUNK_BYTES: usize = 64 * 1024;

/// The same entries in messages of moderate size.
fn in_chunks(entries: Vec<PresenceEntry>) -> Vec<Vec<PresenceEntry>> {
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let meta = entry.meta.as_ref();
        let size = meta.map_or(0, |meta| {
            Load::of(&entry.topic.name, &entry.key, meta).bytes
        });
        if !chunk.is_empty() && (chunk.len() >= CHUNK || bytes + size > CHUNK_BYTES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += size;
        chunk.push(entry);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}
