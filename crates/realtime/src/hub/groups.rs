//! Who listens to changes: groups of sockets that share every decision and every frame.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use super::interest::Interest;
use crate::auth::Scope;
use crate::binding::{Asked, Binding};
use crate::catalog::{Catalog, TableInfo};
use crate::change::Change;
use crate::codec::{Outgoing, Vsn, put_json};
use crate::outbox::Outbox;
use crate::socket::{Frame, messages};

/// The groups of one tenant, found by what they listen to.
#[derive(Debug, Default)]
pub(super) struct Groups {
    next_id: u64,
    by_id: HashMap<u64, Group>,
    ids: HashMap<Arc<GroupKey>, u64>,
    by_table: HashMap<Arc<str>, BTreeSet<u64>>,
    on_all_tables: BTreeSet<u64>,
}

/// Sockets equal in all this get the same frames for the same changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    topic: Arc<str>,
    vsn: Vsn,
    scope: Scope,
    /// The bindings as JSON, in their order.
    bindings: String,
}

#[derive(Debug)]
struct Group {
    key: Arc<GroupKey>,
    asked: Arc<[Asked]>,
    bindings: Vec<Binding>,
    /// What the system event said; empty when all bindings are live.
    problem: String,
    members: HashMap<u64, Arc<Outbox>>,
}

impl GroupKey {
    pub fn new(topic: Arc<str>, vsn: Vsn, scope: Scope, asked: &[Asked]) -> Self {
        let objects: Vec<_> = asked.iter().map(|asked| &asked.object).collect();
        Self {
            topic,
            vsn,
            scope,
            bindings: json!(objects).to_string(),
        }
    }
}

impl Groups {
    /// Why some bindings of a group are not live; empty when all are.
    pub fn problem(&self, id: u64) -> &str {
        self.by_id.get(&id).map_or("", |group| &group.problem)
    }

    /// Moves a socket to the group of its new scope.
    pub fn rescope(
        &mut self,
        group: u64,
        socket: u64,
        scope: &Scope,
        catalog: &Catalog,
        interest: &RwLock<Interest>,
    ) -> Option<u64> {
        let current = self.by_id.get(&group)?;
        if current.key.scope == *scope {
            return Some(group);
        }
        let key = GroupKey {
            scope: scope.clone(),
            ..(*current.key).clone()
        };
        let asked = current.asked.clone();
        let outbox = current.members.get(&socket)?.clone();
        let new = self.enter(key, asked, socket, outbox, catalog, interest);
        self.leave(group, socket, interest);
        Some(new)
    }

    /// Hands a change to every socket that may see it and asked for it. Answers how many got a frame.
    pub fn deliver(&self, change: &Change, table: &TableInfo) -> usize {
        let Some(row) = change.filter_row() else {
            tracing::warn!(
                change.seq,
                change.table = %change.name,
                "a change without a row was not announced"
            );
            return 0;
        };
        let mut encoded = Encoded::default();
        let mut delivered = 0;
        let none = BTreeSet::new();
        let here = self.by_table.get(&change.name).unwrap_or(&none);
        let everywhere = if table.alias {
            &none
        } else {
            &self.on_all_tables
        };
        for id in here.union(everywhere) {
            let Some(group) = self.by_id.get(id) else {
                continue;
            };
            let scope = &group.key.scope;
            if !scope.sees(change.channel_id) || !table.is_readable_by(&scope.role) {
                continue;
            }
            for frame in group.frames(change, row, table, &mut encoded) {
                for outbox in group.members.values() {
                    outbox.push(Frame::Text(frame.clone()));
                }
                delivered += group.members.len();
            }
        }
        delivered
    }

    /// Checks all bindings against a new catalog and tells channels whose bindings now work, or no longer do.
    pub fn recompile(&mut self, catalog: &Catalog, interest: &RwLock<Interest>) {
        let ids: Vec<u64> = self.by_id.keys().copied().collect();
        for id in ids {
            self.unindex(id, interest);
            if let Some(group) = self.by_id.get_mut(&id) {
                let before = std::mem::take(&mut group.problem);
                group.compile(catalog);
                if group.problem != before {
                    let Group { key, problem, .. } = &*group;
                    let frame = messages::subscribed(key.vsn, &key.topic, None, problem);
                    for outbox in group.members.values() {
                        outbox.push(frame.clone());
                    }
                }
            }
            self.index(id, interest);
        }
    }

    /// Puts a socket into the group of that key, made if it is the first.
    pub fn enter(
        &mut self,
        key: GroupKey,
        asked: Arc<[Asked]>,
        socket: u64,
        outbox: Arc<Outbox>,
        catalog: &Catalog,
        interest: &RwLock<Interest>,
    ) -> u64 {
        if let Some(id) = self.ids.get(&key)
            && let Some(group) = self.by_id.get_mut(id)
        {
            group.members.insert(socket, outbox);
            return *id;
        }
        let id = self.next_id;
        self.next_id += 1;
        let key = Arc::new(key);
        let mut group = Group {
            key: key.clone(),
            asked,
            bindings: Vec::new(),
            problem: String::new(),
            members: HashMap::from([(socket, outbox)]),
        };
        group.compile(catalog);
        self.by_id.insert(id, group);
        self.ids.insert(key, id);
        self.index(id, interest);
        id
    }

    /// Takes a socket out of its group; the last one ends the group.
    pub fn leave(&mut self, id: u64, socket: u64, interest: &RwLock<Interest>) {
        let Some(group) = self.by_id.get_mut(&id) else {
            return;
        };
        group.members.remove(&socket);
        if group.members.is_empty() {
            self.unindex(id, interest);
            if let Some(group) = self.by_id.remove(&id) {
                self.ids.remove(&group.key);
            }
        }
    }

    fn index(&mut self, id: u64, interest: &RwLock<Interest>) {
        let Some(group) = self.by_id.get(&id) else {
            return;
        };
        for binding in &group.bindings {
            match &binding.table {
                Some(table) => {
                    self.by_table.entry(table.clone()).or_default().insert(id);
                }
                None => {
                    self.on_all_tables.insert(id);
                }
            }
        }
        let mut interest = interest.write().unwrap_or_else(PoisonError::into_inner);
        interest.add(&group.bindings);
    }

    fn unindex(&mut self, id: u64, interest: &RwLock<Interest>) {
        let Some(group) = self.by_id.get(&id) else {
            return;
        };
        self.on_all_tables.remove(&id);
        for table in group
            .bindings
            .iter()
            .filter_map(|binding| binding.table.as_ref())
        {
            if let Some(ids) = self.by_table.get_mut(table) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_table.remove(table);
                }
            }
        }
        let mut interest = interest.write().unwrap_or_else(PoisonError::into_inner);
        interest.remove(&group.bindings);
    }
}

impl Group {
    fn compile(&mut self, catalog: &Catalog) {
        let mut problems = Vec::new();
        self.bindings.clear();
        for asked in self.asked.iter() {
            match Binding::compile(asked, catalog, &self.key.scope.role) {
                Ok(binding) => self.bindings.push(binding),
                Err(problem) => problems.push(problem),
            }
        }
        self.problem = problems.join("; ");
    }

    /// The frames of a change: one with all identifiers that match, or one for each selection of columns.
    fn frames(
        &self,
        change: &Change,
        row: &Map<String, Value>,
        table: &TableInfo,
        encoded: &mut Encoded,
    ) -> Vec<Bytes> {
        let mut matched: Vec<(Option<&[String]>, Vec<u32>)> = Vec::new();
        for binding in &self.bindings {
            if !binding.matches(change, row, table.alias) {
                continue;
            }
            let select = binding.select.as_deref();
            match matched.iter_mut().find(|(other, _)| *other == select) {
                Some((_, ids)) if ids.contains(&binding.id) => {}
                Some((_, ids)) => ids.push(binding.id),
                None => matched.push((select, vec![binding.id])),
            }
        }
        matched
            .into_iter()
            .map(|(select, ids)| {
                let data = encoded.data(change, table, select);
                let mut payload = BytesMut::with_capacity(data.len() + 32 + 12 * ids.len());
                payload.put_slice(b"{\"ids\":");
                put_json(&mut payload, &ids);
                payload.put_slice(b",\"data\":");
                payload.put_slice(&data);
                payload.put_u8(b'}');
                Outgoing {
                    join_ref: None,
                    reference: None,
                    topic: &self.key.topic,
                    event: "postgres_changes",
                    payload: &payload,
                }
                .encode(self.key.vsn)
            })
            .collect()
    }
}

/// The encoded rows of one change, by selection of columns.
#[derive(Default)]
struct Encoded {
    data: Vec<(Option<Vec<String>>, Bytes)>,
}

impl Encoded {
    fn data(&mut self, change: &Change, table: &TableInfo, select: Option<&[String]>) -> Bytes {
        if let Some((_, data)) = self
            .data
            .iter()
            .find(|(other, _)| other.as_deref() == select)
        {
            return data.clone();
        }
        let data = change.encode_data(table, select);
        self.data
            .push((select.map(<[String]>::to_vec), data.clone()));
        data
    }
}
