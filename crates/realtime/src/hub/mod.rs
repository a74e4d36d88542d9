//! The hub: one per process. It holds who listens to what and brings changes, broadcasts and presence to sockets.
//!
//! Everything is kept per tenant, so topics of different tenants never meet. Sockets that ask for the same thing with the
//! same rights form a group: a change is judged, filtered and encoded once per group.

mod catch_up;
mod groups;
mod interest;
mod nodes;
mod position;
mod presence;
mod tenant;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::auth::{Authorizer, Scope};
use crate::binding::{Asked, Binding};
use crate::catalog::Catalog;
use crate::change::Change;
use crate::codec::BroadcastPayload;
use crate::history::History;
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::peers::{PeerMessage, Peers};
use catch_up::CatchUp;
use interest::Interest;
use position::Position;
use tenant::{Around, Tenant};
pub(crate) use tenant::{Join, TopicKey, TrackOutcome};

/// Pages of history read at the same time: so much of it is in memory at most.
const HISTORY_READS: usize = 4;

/// Brings changes, broadcasts and presence to the sockets of this process.
pub struct Hub {
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    catalog: Arc<Catalog>,
    interest: RwLock<Interest>,
    tenants: RwLock<HashMap<Uuid, Arc<Mutex<Tenant>>>>,
    next_socket: AtomicU64,
    history: Option<Arc<dyn History>>,
    history_reads: Semaphore,
    peers: Option<Arc<dyn Peers>>,
    /// Nodes that introduce themselves at the moment.
    introductions: Mutex<HashMap<Uuid, nodes::Mentioned>>,
    position: Position,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub sockets: AtomicU64,
    pub channels: AtomicU64,
    pub deliveries: AtomicU64,
    pub slow_readers_cut: AtomicU64,
    pub frames_dropped: AtomicU64,
    pub messages_limited: AtomicU64,
    pub catch_ups: AtomicU64,
    pub changes_read_again: AtomicU64,
    pub unauthorized_closed: AtomicU64,
    pub peer_messages_sent: AtomicU64,
    pub peer_messages_received: AtomicU64,
}

/// What the hub has done and holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sockets open now.
    pub sockets: u64,
    /// Channels joined now, over all sockets.
    pub channels: u64,
    /// Changes and broadcasts handed to sockets since the start.
    pub deliveries: u64,
    /// Sockets closed because they read too slowly, since the start.
    pub slow_readers_cut: u64,
    /// Frames from clients that were malformed or too large, since the start.
    pub frames_dropped: u64,
    /// Messages from clients refused for their rate, since the start.
    pub messages_limited: u64,
    /// Channels that came back with a number or fell behind, and read history, since the start.
    pub catch_ups: u64,
    /// Changes handed to sockets from history, since the start; they count as deliveries, too.
    pub changes_read_again: u64,
    /// Sockets closed because none of their channels was allowed any more, since the start.
    pub unauthorized_closed: u64,
    /// Messages handed over for other nodes, since the start.
    pub peer_messages_sent: u64,
    /// Messages of other nodes, since the start.
    pub peer_messages_received: u64,
    /// Messages for other nodes that could not be carried, since the start.
    pub peer_messages_dropped: u64,
}

impl Hub {
    /// A hub without sockets.
    pub fn new(authorizer: Arc<dyn Authorizer>, catalog: Catalog, limits: Limits) -> Self {
        Self {
            authorizer,
            limits,
            counters: Counters::default(),
            catalog: Arc::new(catalog),
            interest: RwLock::default(),
            tenants: RwLock::default(),
            next_socket: AtomicU64::new(1),
            history: None,
            history_reads: Semaphore::new(HISTORY_READS),
            peers: None,
            introductions: Mutex::default(),
            position: Position::default(),
        }
    }

    /// The same with a history. Without one, channels cannot come back with a number, and readers too slow for the
    /// changes are cut. It needs [`Self::begin_round`] and [`Self::settle`] to be called.
    #[must_use]
    pub fn with_history(mut self, history: Arc<dyn History>) -> Self {
        self.history = Some(history);
        self
    }

    /// The same as one of several nodes.
    #[must_use]
    pub fn with_peers(mut self, peers: Arc<dyn Peers>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// A round of reading the change log begins. Answers all published names that somebody listens to; whoever comes
    /// later is told what commits later.
    pub fn begin_round(&self) -> Vec<Arc<str>> {
        self.position.begin();
        self.wanted_names()
    }

    /// The round has ended: everything up to this number has been handed to [`Self::publish`].
    pub fn settle(&self, seq: i64) {
        self.position.settle(seq);
    }

    /// Announces committed changes, in the order of their numbers; the names of one row follow each other. Changes of
    /// tables outside the catalog reach nobody.
    pub fn publish(&self, changes: &[Change]) {
        for of_one_tenant in changes.chunk_by(|a, b| a.org_id == b.org_id) {
            let Some(tenant) = of_one_tenant
                .first()
                .and_then(|change| self.tenant(change.org_id))
            else {
                continue;
            };
            let mut delivered = 0;
            for row in of_one_tenant.chunk_by(|a, b| a.seq == b.seq) {
                // One row at a time, so that joins of a busy tenant get their turn.
                let mut tenant = lock(&tenant);
                let catalog = self.catalog();
                delivered += tenant.deliver(row, &catalog, self.history.is_some());
            }
            self.count_deliveries(delivered);
        }
    }

    /// Whether any socket listens to that published name. The tail need not shape other changes.
    pub fn wants(&self, name: &str) -> bool {
        let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
        interest.in_table(name)
            || (interest.in_all_tables()
                && self.catalog().table(name).is_some_and(|info| !info.alias))
    }

    fn wanted_names(&self) -> Vec<Arc<str>> {
        let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<Arc<str>> = interest.tables().collect();
        if interest.in_all_tables() {
            let catalog = self.catalog();
            let all = catalog.0.iter().filter(|(_, info)| !info.alias);
            names.extend(all.map(|(name, _)| Arc::from(name.as_str())));
            names.sort_unstable();
            names.dedup();
        }
        names
    }

    /// Sends a broadcast to the channels of a tenant that joined the topic, named as users name it (without `realtime:`),
    /// on all nodes. Answers how many sockets it was handed to here.
    pub fn broadcast(
        &self,
        org_id: Uuid,
        topic: &str,
        private: bool,
        event: &str,
        payload: &BroadcastPayload,
    ) -> usize {
        let topic = TopicKey {
            name: Arc::from(format!("{TOPIC_PREFIX}{topic}")),
            private,
        };
        self.tell_broadcast(org_id, &topic, event, payload);
        self.broadcast_here(org_id, &topic, event, payload)
    }

    /// Verifies anew the tokens of a person's channels (of all channels of the tenant without one), at once and on all
    /// nodes. To be called when memberships, roles or sessions end; otherwise lost rights end at the next regular check.
    pub fn recheck(&self, org_id: Uuid, user_id: Option<Uuid>) {
        self.tell(|| PeerMessage::Recheck { org_id, user_id });
        self.recheck_here(org_id, user_id);
    }

    /// The same on this node alone, for what every node learns by itself.
    pub fn recheck_here(&self, org_id: Uuid, user_id: Option<Uuid>) {
        if let Some(tenant) = self.tenant(org_id) {
            lock(&tenant).recheck(user_id);
        }
    }

    /// The people whose sockets are open here, with their tenants.
    pub fn users(&self) -> Vec<(Uuid, Uuid)> {
        let tenants: Vec<_> = {
            let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
            tenants
                .iter()
                .map(|(id, tenant)| (*id, tenant.clone()))
                .collect()
        };
        let mut users = Vec::new();
        for (org_id, tenant) in tenants {
            let tenant = lock(&tenant);
            users.extend(tenant.users().map(|user| (org_id, user)));
        }
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Counts for metrics.
    pub fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            sockets: read(&self.counters.sockets),
            channels: read(&self.counters.channels),
            deliveries: read(&self.counters.deliveries),
            slow_readers_cut: read(&self.counters.slow_readers_cut),
            frames_dropped: read(&self.counters.frames_dropped),
            messages_limited: read(&self.counters.messages_limited),
            catch_ups: read(&self.counters.catch_ups),
            changes_read_again: read(&self.counters.changes_read_again),
            unauthorized_closed: read(&self.counters.unauthorized_closed),
            peer_messages_sent: read(&self.counters.peer_messages_sent),
            peer_messages_received: read(&self.counters.peer_messages_received),
            peer_messages_dropped: self.peers.as_ref().map_or(0, |peers| peers.dropped()),
        }
    }

    pub(crate) fn next_socket(&self) -> u64 {
        self.next_socket.fetch_add(1, Ordering::Relaxed)
    }

    /// Why bindings could not be met for a role; empty when all can.
    pub(crate) fn problem_of(&self, asked: &[Asked], role: &str) -> String {
        let catalog = self.catalog();
        let problems = asked
            .iter()
            .enumerate()
            .filter_map(|(index, asked)| Binding::compile(index, asked, &catalog, role).err());
        problems.collect::<Vec<_>>().join("; ")
    }

    /// Joins a channel and queues the answer, so that no change can come before it.
    pub(crate) fn join(self: &Arc<Self>, org_id: Uuid, scope: Scope, join: Join<'_>) -> Membership {
        let topic = join.topic.clone();
        let (socket, outbox) = (join.socket, join.outbox.clone());
        let tenant = self.in_tenant(org_id, |tenant| {
            tenant.join(join, scope, &self.around(&self.catalog()));
        });
        self.counters.channels.fetch_add(1, Ordering::Relaxed);
        let mut membership = Membership {
            hub: self.clone(),
            org_id,
            tenant,
            topic,
            socket,
            outbox,
            catch_up: None,
        };
        membership.catch_up();
        membership
    }

    /// Does something with a tenant, which is made if need be.
    fn in_tenant(&self, org_id: Uuid, act: impl FnOnce(&mut Tenant)) -> Arc<Mutex<Tenant>> {
        loop {
            let tenant = self.tenant_or_new(org_id);
            let mut guard = lock(&tenant);
            if guard.is_retired() {
                // Its last socket has just left, and whoever saw that is about to remove it.
                drop(guard);
                std::thread::yield_now();
                continue;
            }
            act(&mut guard);
            drop(guard);
            return tenant;
        }
    }

    /// Removes a tenant in which nobody is left.
    fn retire_if_empty(&self, org_id: Uuid, tenant: &Arc<Mutex<Tenant>>) {
        if !lock(tenant).retire_if_empty() {
            return;
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if tenants
            .get(&org_id)
            .is_some_and(|current| Arc::ptr_eq(current, tenant))
        {
            tenants.remove(&org_id);
        }
    }

    fn around<'a>(&'a self, catalog: &'a Catalog) -> Around<'a> {
        Around {
            catalog,
            interest: &self.interest,
            position: &self.position,
            has_history: self.history.is_some(),
        }
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.clone()
    }

    fn tenant(&self, org_id: Uuid) -> Option<Arc<Mutex<Tenant>>> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(&org_id).cloned()
    }

    fn tenant_or_new(&self, org_id: Uuid) -> Arc<Mutex<Tenant>> {
        if let Some(tenant) = self.tenant(org_id) {
            return tenant;
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.entry(org_id).or_default().clone()
    }

    fn count_deliveries(&self, delivered: usize) {
        let delivered = u64::try_from(delivered).unwrap_or(u64::MAX);
        self.counters
            .deliveries
            .fetch_add(delivered, Ordering::Relaxed);
    }
}

/// What all channel topics begin with on the wire.
pub(crate) const TOPIC_PREFIX: &str = "realtime:";

/// A joined channel of one socket. Dropping it leaves the channel.
pub(crate) struct Membership {
    hub: Arc<Hub>,
    org_id: Uuid,
    tenant: Arc<Mutex<Tenant>>,
    topic: TopicKey,
    socket: u64,
    outbox: Arc<Outbox>,
    /// Reads history while the channel is behind.
    catch_up: Option<JoinHandle<()>>,
}

impl Membership {
    pub fn org_id(&self) -> Uuid {
        self.org_id
    }

    pub fn is_private(&self) -> bool {
        self.topic.private
    }

    /// Sends a broadcast of this channel to the others, and to itself with `echo`.
    pub fn broadcast(&self, event: &str, payload: &BroadcastPayload, echo: bool) {
        let except = (!echo).then_some(self.socket);
        self.hub
            .tell_broadcast(self.org_id, &self.topic, event, payload);
        let delivered = lock(&self.tenant).broadcast(&self.topic, except, event, payload);
        self.hub.count_deliveries(delivered);
    }

    /// Sets what this channel tracks; `None` tracks nothing any more.
    pub fn track(
        &self,
        payload: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> TrackOutcome {
        let mut tenant = lock(&self.tenant);
        let (outcome, news) = tenant.track(&self.topic, self.socket, payload);
        // Under the lock, so that nodes hear of it in the order in which it happened.
        self.hub.tell_presence(self.org_id, news);
        outcome
    }

    /// Changes what the channel may see from now on.
    pub fn rescope(&mut self, scope: &Scope, user_id: Option<Uuid>) {
        let mut tenant = lock(&self.tenant);
        let catalog = self.hub.catalog();
        let around = self.hub.around(&catalog);
        tenant.rescope(&self.topic, self.socket, scope, user_id, &around);
    }

    /// Whether the tenant's presence leaves room for this beside the rest. Two that ask at the same time may both be told
    /// so: the bound is exceeded by what is under way at most.
    pub fn has_room_for(&self, payload: &serde_json::Map<String, serde_json::Value>) -> bool {
        let tenant = lock(&self.tenant);
        tenant.has_room_for(&self.topic, self.socket, payload, &self.hub.limits)
    }

    /// Begins to read history if the channel is behind.
    pub fn catch_up(&mut self) {
        let Some(history) = &self.hub.history else {
            return;
        };
        let attended = lock(&self.tenant).attend(&self.topic, self.socket);
        let Some(place) = attended else {
            return;
        };
        let catch_up = CatchUp {
            hub: self.hub.clone(),
            history: history.clone(),
            org_id: self.org_id,
            tenant: self.tenant.clone(),
            place,
            outbox: self.outbox.clone(),
        };
        self.catch_up = Some(tokio::spawn(catch_up.run()));
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(catch_up) = self.catch_up.take() {
            catch_up.abort();
        }
        let mut tenant = lock(&self.tenant);
        let news = tenant.leave(&self.topic, self.socket, &self.hub.interest);
        self.hub.tell_presence(self.org_id, news);
        drop(tenant);
        self.hub.retire_if_empty(self.org_id, &self.tenant);
        self.hub.counters.channels.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
