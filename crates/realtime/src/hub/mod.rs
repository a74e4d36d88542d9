//! The hub: one per process. It holds who listens to what and brings changes, broadcasts and presence to sockets.
//!
//! Everything is kept per tenant, so topics of different tenants never meet. Sockets that ask for the same thing with the
//! same rights form a group: a change is judged, filtered and encoded once per group.

mod groups;
mod interest;
mod presence;
mod tenant;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use uuid::Uuid;

use crate::auth::{Authorizer, Scope};
use crate::catalog::Catalog;
use crate::change::Change;
use crate::codec::BroadcastPayload;
use crate::limits::Limits;
use interest::Interest;
use tenant::Tenant;
pub(crate) use tenant::{Join, TrackOutcome};

/// Brings changes, broadcasts and presence to the sockets of this process.
pub struct Hub {
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    catalog: RwLock<Arc<Catalog>>,
    interest: RwLock<Interest>,
    tenants: RwLock<HashMap<Uuid, Arc<Mutex<Tenant>>>>,
    next_socket: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub sockets: AtomicU64,
    pub channels: AtomicU64,
    pub deliveries: AtomicU64,
    pub slow_readers_cut: AtomicU64,
    pub frames_dropped: AtomicU64,
    pub messages_limited: AtomicU64,
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
}

impl Hub {
    /// A hub without sockets.
    pub fn new(authorizer: Arc<dyn Authorizer>, catalog: Catalog, limits: Limits) -> Self {
        Self {
            authorizer,
            limits,
            counters: Counters::default(),
            catalog: RwLock::new(Arc::new(catalog)),
            interest: RwLock::default(),
            tenants: RwLock::default(),
            next_socket: AtomicU64::new(1),
        }
    }

    /// Announces committed changes, in the order given. Changes of tables outside the catalog reach nobody.
    pub fn publish(&self, changes: &[Change]) {
        for of_one_tenant in changes.chunk_by(|a, b| a.org_id == b.org_id) {
            let Some(tenant) = of_one_tenant
                .first()
                .and_then(|change| self.tenant(change.org_id))
            else {
                continue;
            };
            let mut delivered = 0;
            for change in of_one_tenant {
                // One change at a time, so that joins of a busy tenant get their turn.
                let tenant = lock(&tenant);
                let catalog = self.catalog();
                if let Some(table) = catalog.table(&change.name) {
                    delivered += tenant.groups.deliver(change, table);
                }
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

    /// All published names that somebody listens to.
    pub fn wanted_names(&self) -> Vec<Arc<str>> {
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

    /// Sends a broadcast to the channels of a tenant that joined the topic, named as users name it (without `realtime:`).
    /// Answers how many sockets it was handed to.
    pub fn broadcast(
        &self,
        org_id: Uuid,
        topic: &str,
        event: &str,
        payload: &BroadcastPayload,
    ) -> usize {
        let Some(tenant) = self.tenant(org_id) else {
            return 0;
        };
        let full_topic = format!("{TOPIC_PREFIX}{topic}");
        let delivered = lock(&tenant).broadcast(&full_topic, None, event, payload);
        self.count_deliveries(delivered);
        delivered
    }

    /// Verifies anew the tokens of a person's channels (of all channels of the tenant without one), at once. To be called
    /// when memberships or roles change; otherwise lost rights end at the next regular check.
    pub fn recheck(&self, org_id: Uuid, user_id: Option<Uuid>) {
        if let Some(tenant) = self.tenant(org_id) {
            lock(&tenant).recheck(user_id);
        }
    }

    /// Replaces the published tables. Bindings that could not be met before are tried again.
    pub fn replace_catalog(&self, catalog: Catalog) {
        let catalog = Arc::new(catalog);
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = catalog.clone();
        let tenants: Vec<_> = {
            let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
            tenants.values().cloned().collect()
        };
        for tenant in tenants {
            lock(&tenant).groups.recompile(&catalog, &self.interest);
        }
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
        }
    }

    pub(crate) fn next_socket(&self) -> u64 {
        self.next_socket.fetch_add(1, Ordering::Relaxed)
    }

    /// Joins a channel and queues the answer, so that no change can come before it.
    pub(crate) fn join(self: &Arc<Self>, org_id: Uuid, scope: Scope, join: Join<'_>) -> Membership {
        let topic = join.topic.clone();
        let socket = join.socket;
        loop {
            let tenant = self.tenant_or_new(org_id);
            let mut guard = lock(&tenant);
            if guard.is_retired() {
                // Its last socket has just left, and whoever saw that is about to remove it.
                drop(guard);
                std::thread::yield_now();
                continue;
            }
            let group = guard.join(join, scope, &self.catalog(), &self.interest);
            drop(guard);
            self.counters.channels.fetch_add(1, Ordering::Relaxed);
            return Membership {
                hub: self.clone(),
                org_id,
                tenant,
                topic,
                socket,
                group,
            };
        }
    }

    fn catalog(&self) -> Arc<Catalog> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.clone()
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
    topic: Arc<str>,
    socket: u64,
    group: Option<u64>,
}

impl Membership {
    pub fn org_id(&self) -> Uuid {
        self.org_id
    }

    /// Sends a broadcast of this channel to the others, and to itself with `echo`.
    pub fn broadcast(&self, event: &str, payload: &BroadcastPayload, echo: bool) {
        let except = (!echo).then_some(self.socket);
        let delivered = lock(&self.tenant).broadcast(&self.topic, except, event, payload);
        self.hub.count_deliveries(delivered);
    }

    /// Sets what this channel tracks; `None` tracks nothing any more.
    pub fn track(
        &self,
        payload: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> TrackOutcome {
        lock(&self.tenant).track(&self.topic, self.socket, payload)
    }

    /// Changes what the channel may see from now on.
    pub fn rescope(&mut self, scope: &Scope, user_id: Option<Uuid>) {
        let mut tenant = lock(&self.tenant);
        // Read under the lock: a catalog that comes later finds the new group.
        let catalog = self.hub.catalog();
        tenant.set_user(&self.topic, self.socket, user_id);
        if let Some(group) = self.group {
            self.group =
                tenant
                    .groups
                    .rescope(group, self.socket, scope, &catalog, &self.hub.interest);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut tenant = lock(&self.tenant);
        tenant.leave(&self.topic, self.socket, self.group, &self.hub.interest);
        let retired = tenant.retire_if_empty();
        drop(tenant);
        if retired {
            let mut tenants = self
                .hub
                .tenants
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if tenants
                .get(&self.org_id)
                .is_some_and(|current| Arc::ptr_eq(current, &self.tenant))
            {
                tenants.remove(&self.org_id);
            }
        }
        self.hub.counters.channels.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
