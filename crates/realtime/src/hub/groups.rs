//! Who listens to changes: groups of sockets that share every decision and every frame.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use super::catch_up::Behind;
use super::interest::Interest;
use crate::auth::Scope;
use crate::binding::{Asked, Binding, read_keys};
use crate::catalog::{Catalog, TableInfo};
use crate::change::Change;
use crate::codec::{Outgoing, Vsn, put_json};
use crate::outbox::Outbox;

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
    bindings: Vec<Binding>,
    /// What the system event said; empty when all bindings are live.
    problem: String,
    members: HashMap<u64, Member>,
}

/// One channel in its group.
#[derive(Debug)]
pub(super) struct Member {
    pub outbox: Arc<Outbox>,
    /// Changes up to here it has had.
    pub after: i64,
    /// Set while it reads history and takes nothing from here.
    pub behind: Option<Box<Behind>>,
}

/// What became of a row of history.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Requeued {
    Frames(usize),
    NoRoom,
}

impl GroupKey {
    pub fn new(topic: Arc<str>, vsn: Vsn, scope: Scope, asked: &[Asked]) -> Self {
        let objects: Vec<_> = asked.iter().map(Asked::key).collect();
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
        let current = self.by_id.get_mut(&group)?;
        if current.key.scope == *scope {
            return Some(group);
        }
        let key = GroupKey {
            scope: scope.clone(),
            ..(*current.key).clone()
        };
        let member = current.members.remove(&socket)?;
        let new = self.enter(key, socket, member, catalog, interest);
        self.leave(group, socket, interest);
        Some(new)
    }

    /// Hands a row that changed, under all names it has, to every socket that may see it and asked for it. Answers how
    /// many frames were queued. A socket without room gets none of them: it falls behind, if it can read history.
    pub fn deliver(&mut self, row: &[Change], catalog: &Catalog, has_history: bool) -> usize {
        let Some(seq) = row.first().map(|change| change.seq) else {
            return 0;
        };
        let mut told: Vec<Told<'_>> = row
            .iter()
            .filter_map(|change| Told::new(change, catalog))
            .collect();
        let mut ids: Vec<u64> = Vec::new();
        for told in &told {
            let here = self.by_table.get(&told.change.name);
            let everywhere = (!told.table.alias).then_some(&self.on_all_tables);
            ids.extend(here.into_iter().chain(everywhere).flatten());
        }
        if told.len() > 1 || !self.on_all_tables.is_empty() {
            ids.sort_unstable();
            ids.dedup();
        }
        let mut delivered = 0;
        for id in ids {
            let Some(group) = self.by_id.get_mut(&id) else {
                continue;
            };
            let mut frames = Vec::new();
            for told in &mut told {
                group.frames(told, None, &mut frames);
            }
            if frames.is_empty() {
                continue;
            }
            for member in group.members.values_mut() {
                if member.behind.is_some() || seq <= member.after {
                    continue;
                }
                if member.outbox.offer(&frames) {
                    delivered += frames.len();
                } else if has_history {
                    member.behind = Some(Box::new(Behind::new(seq - 1, None)));
                    member.outbox.ask_catch_up();
                } else {
                    member.outbox.overflow();
                }
            }
        }
        delivered
    }

    /// Queues a row of history for one member that is behind. `None` when it is not there.
    pub fn requeue(
        &mut self,
        group: u64,
        socket: u64,
        row: &[Change],
        catalog: &Catalog,
    ) -> Option<Requeued> {
        let group = self.by_id.get(&group)?;
        let member = group.members.get(&socket)?;
        let behind = member.behind.as_ref()?;
        let mut frames = Vec::new();
        for change in row {
            if change.seq > behind.read
                && let Some(mut told) = Told::new(change, catalog)
            {
                group.frames(&mut told, behind.heard.as_deref(), &mut frames);
            }
        }
        if frames.is_empty() || member.outbox.offer(&frames) {
            Some(Requeued::Frames(frames.len()))
        } else {
            Some(Requeued::NoRoom)
        }
    }

    pub fn member(&mut self, group: u64, socket: u64) -> Option<&mut Member> {
        self.by_id.get_mut(&group)?.members.get_mut(&socket)
    }

    /// All published names that a group listens to.
    pub fn names(&self, group: u64, catalog: &Catalog) -> Option<Vec<Arc<str>>> {
        let group = self.by_id.get(&group)?;
        let bindings = &group.bindings;
        let named = bindings.iter().filter_map(|binding| binding.table.clone());
        let mut names: Vec<_> = named.collect();
        if bindings.iter().any(|binding| binding.table.is_none()) {
            let all = catalog.0.iter().filter(|(_, table)| !table.alias);
            names.extend(all.map(|(name, _)| Arc::from(name.as_str())));
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// Puts a socket into the group of that key, made if it is the first.
    pub fn enter(
        &mut self,
        key: GroupKey,
        socket: u64,
        member: Member,
        catalog: &Catalog,
        interest: &RwLock<Interest>,
    ) -> u64 {
        if let Some(id) = self.ids.get(&key)
            && let Some(group) = self.by_id.get_mut(id)
        {
            group.members.insert(socket, member);
            return *id;
        }
        let id = self.next_id;
        self.next_id += 1;
        let key = Arc::new(key);
        let mut group = Group {
            key: key.clone(),
            bindings: Vec::new(),
            problem: String::new(),
            members: HashMap::from([(socket, member)]),
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
        for (index, asked) in read_keys(&self.key.bindings).iter().enumerate() {
            match Binding::compile(index, asked, catalog, &self.key.scope.role) {
                Ok(binding) => self.bindings.push(binding),
                Err(problem) => problems.push(problem),
            }
        }
        self.bindings.shrink_to_fit();
        self.problem = problems.join("; ");
    }

    /// Adds the frames of a change: one with all identifiers that match, or one for each form in which the row is asked
    /// for. `heard` says what bindings know already.
    fn frames(&self, told: &mut Told<'_>, heard: Option<&[Option<i64>]>, frames: &mut Vec<Bytes>) {
        let (change, table) = (told.change, told.table);
        let scope = &self.key.scope;
        if !scope.sees(change.channel_id) || !table.is_readable_by(&scope.role) {
            return;
        }
        let mut matched: Vec<(Form<'_>, Vec<u32>)> = Vec::new();
        for binding in &self.bindings {
            let known = heard.and_then(|heard| *heard.get(binding.index)?);
            if known.is_some_and(|seq| change.seq <= seq)
                || !binding.matches(change, told.row, table.alias)
            {
                continue;
            }
            let form = (binding.select.as_deref(), binding.tells_seq);
            match matched.iter_mut().find(|(other, _)| *other == form) {
                Some((_, ids)) if ids.contains(&binding.id) => {}
                Some((_, ids)) => ids.push(binding.id),
                None => matched.push((form, vec![binding.id])),
            }
        }
        for (form, ids) in matched {
            let data = told.data(form);
            let mut payload = BytesMut::with_capacity(data.len() + 32 + 12 * ids.len());
            payload.put_slice(b"{\"ids\":");
            put_json(&mut payload, &ids);
            payload.put_slice(b",\"data\":");
            payload.put_slice(&data);
            payload.put_u8(b'}');
            let frame = Outgoing {
                join_ref: None,
                reference: None,
                topic: &self.key.topic,
                event: "postgres_changes",
                payload: &payload,
            };
            frames.push(frame.encode(self.key.vsn));
        }
    }
}

/// Columns to keep, and whether the row tells its number.
type Form<'a> = (Option<&'a [String]>, bool);

/// One change under one name, with its encoded rows by form.
struct Told<'a> {
    change: &'a Change,
    row: &'a Map<String, Value>,
    table: &'a TableInfo,
    encoded: Vec<(Option<Vec<String>>, bool, Bytes)>,
}

impl<'a> Told<'a> {
    /// `None` for a table that is not published.
    fn new(change: &'a Change, catalog: &'a Catalog) -> Option<Self> {
        let table = catalog.table(&change.name)?;
        let Some(row) = change.filter_row() else {
            tracing::warn!(
                change.seq,
                change.table = %change.name,
                "a change without a row was not announced"
            );
            return None;
        };
        Some(Self {
            change,
            row,
            table,
            encoded: Vec::new(),
        })
    }

    fn data(&mut self, (select, tells_seq): Form<'_>) -> Bytes {
        if let Some((_, _, data)) = self
            .encoded
            .iter()
            .find(|(other, tells, _)| other.as_deref() == select && *tells == tells_seq)
        {
            return data.clone();
        }
        let data = self.change.encode_data(self.table, select, tells_seq);
        self.encoded
            .push((select.map(<[String]>::to_vec), tells_seq, data.clone()));
        data
    }
}
