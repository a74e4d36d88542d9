//! The hub among other nodes: what it tells them, and what it does with what they tell.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use uuid::Uuid;

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
                let tenant = self.in_tenant(org_id, |tenant| tenant.track_elsewhere(node, entry));
                self.retire_if_empty(org_id, &tenant);
            }
            PeerMessage::Presences { org_id, entries } => self.replace(node, org_id, entries),
            PeerMessage::Forget => self.peer_left(node),
            PeerMessage::Recheck { org_id, user_id } => self.recheck_here(org_id, user_id),
        }
    }

    /// A node is gone: what its channels tracked leaves.
    pub fn peer_left(&self, node: Uuid) {
        for org_id in self.org_ids() {
            self.replace(node, org_id, Vec::new());
        }
    }

    /// Tells a node that has just come, and with it all others, what is tracked here.
    pub fn introduce(&self) {
        for org_id in self.org_ids() {
            if let Some(tenant) = self.tenant(org_id) {
                let tenant = lock(&tenant);
                let entries = tenant.presences_of(None);
                if !entries.is_empty() {
                    // Under the lock, so that what changes next is told next.
                    self.tell(|| PeerMessage::Presences { org_id, entries });
                }
            }
        }
    }

    fn replace(&self, node: Uuid, org_id: Uuid, entries: Vec<PresenceEntry>) {
        if entries.is_empty() && self.tenant(org_id).is_none() {
            return;
        }
        let tenant = self.in_tenant(org_id, |tenant| {
            let stay: HashSet<_> = entries.iter().map(identity).collect();
            for known in tenant.presences_of(Some(node)) {
                if !stay.contains(&identity(&known)) {
                    tenant.track_elsewhere(
                        node,
                        PresenceEntry {
                            meta: None,
                            ..known
                        },
                    );
                }
            }
            drop(stay);
            for entry in entries {
                tenant.track_elsewhere(node, entry);
            }
        });
        self.retire_if_empty(org_id, &tenant);
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

fn identity(entry: &PresenceEntry) -> (&TopicName, &str, u64) {
    (&entry.topic, &entry.key, entry.socket)
}
