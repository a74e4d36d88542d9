//! The sockets of one tenant: groups for changes, topics for broadcast and presence.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::interest::Interest;
use super::presence::Presence;
use crate::auth::Scope;
use crate::binding::{Asked, Binding};
use crate::catalog::{Catalog, TableInfo};
use crate::change::Change;
use crate::codec::{BroadcastPayload, Outgoing, Vsn, broadcast_payload, encode_raw_broadcast};
use crate::outbox::Outbox;
use crate::socket::{Frame, messages};

/// Everything that listens in one tenant.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// Set when the last socket has left: a join must take a fresh one.
    retired: bool,
    next_group: u64,
    groups: HashMap<u64, Group>,
    group_ids: HashMap<Arc<GroupKey>, u64>,
    by_table: HashMap<Arc<str>, BTreeSet<u64>>,
    on_all_tables: BTreeSet<u64>,
    topics: HashMap<Arc<str>, Topic>,
}

/// Sockets equal in all this get the same frames for the same changes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct GroupKey {
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

#[derive(Debug, Default)]
struct Topic {
    members: HashMap<u64, TopicMember>,
    presence: Presence,
}

#[derive(Debug)]
struct TopicMember {
    outbox: Arc<Outbox>,
    user_id: Option<Uuid>,
    presence_key: String,
    hears_presence: bool,
    join_ref: String,
}

/// A join whose token was found good.
pub(crate) struct Join<'a> {
    pub socket: u64,
    pub outbox: &'a Arc<Outbox>,
    pub topic: Arc<str>,
    pub join_ref: &'a str,
    pub reference: Option<&'a str>,
    pub asked: Vec<Asked>,
    pub user_id: Option<Uuid>,
    pub presence_key: String,
    pub hears_presence: bool,
}

/// What became of a presence call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TrackOutcome {
    Done,
    /// The channel is gone.
    NotJoined,
}

impl Tenant {
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    pub fn retire_if_empty(&mut self) -> bool {
        self.retired = self.topics.is_empty();
        self.retired
    }

    /// Enters a channel and queues, in this order: the reply, the system event, the presence state.
    pub fn join(
        &mut self,
        join: Join<'_>,
        scope: Scope,
        catalog: &Catalog,
        interest: &RwLock<Interest>,
    ) -> Option<u64> {
        let vsn = join.outbox.vsn;
        let echo: Vec<Value> = join.asked.iter().map(Asked::echo).collect();
        join.outbox.push(messages::reply_ok(
            vsn,
            &join.topic,
            Some(join.join_ref),
            join.reference,
            &json!({ "postgres_changes": echo }),
        ));
        let mut group_id = None;
        if !join.asked.is_empty() {
            let id = self.enter_group(
                GroupKey {
                    topic: join.topic.clone(),
                    vsn,
                    scope,
                    bindings: bindings_text(&join.asked),
                },
                Arc::from(join.asked),
                join.socket,
                join.outbox.clone(),
                catalog,
                interest,
            );
            let problem = self.groups.get(&id).map_or("", |group| &group.problem);
            join.outbox.push(messages::subscribed(
                vsn,
                &join.topic,
                Some(join.join_ref),
                problem,
            ));
            group_id = Some(id);
        }
        let topic = self.topics.entry(join.topic.clone()).or_default();
        if join.hears_presence {
            join.outbox.push(messages::push(
                vsn,
                &join.topic,
                Some(join.join_ref),
                "presence_state",
                &topic.presence.state(),
            ));
        }
        topic.members.insert(
            join.socket,
            TopicMember {
                outbox: join.outbox.clone(),
                user_id: join.user_id,
                presence_key: join.presence_key,
                hears_presence: join.hears_presence,
                join_ref: join.join_ref.to_owned(),
            },
        );
        group_id
    }

    /// Leaves a channel; what it tracked leaves with it.
    pub fn leave(
        &mut self,
        topic_name: &str,
        socket: u64,
        group: Option<u64>,
        interest: &RwLock<Interest>,
    ) {
        if let Some(group) = group {
            self.leave_group(group, socket, interest);
        }
        let Some(topic) = self.topics.get_mut(topic_name) else {
            return;
        };
        if let Some(member) = topic.members.remove(&socket) {
            let diffs = topic.presence.untrack(socket, &member.presence_key);
            topic.announce(topic_name, &diffs);
        }
        if topic.members.is_empty() {
            self.topics.remove(topic_name);
        }
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
        let current = self.groups.get(&group)?;
        if current.key.scope == *scope {
            return Some(group);
        }
        let key = GroupKey {
            topic: current.key.topic.clone(),
            vsn: current.key.vsn,
            scope: scope.clone(),
            bindings: current.key.bindings.clone(),
        };
        let asked = current.asked.clone();
        let outbox = current.members.get(&socket)?.clone();
        let new = self.enter_group(key, asked, socket, outbox, catalog, interest);
        self.leave_group(group, socket, interest);
        Some(new)
    }

    /// Remembers who a channel now speaks for.
    pub fn set_user(&mut self, topic: &str, socket: u64, user_id: Option<Uuid>) {
        if let Some(topic) = self.topics.get_mut(topic)
            && let Some(member) = topic.members.get_mut(&socket)
        {
            member.user_id = user_id;
        }
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
            let Some(group) = self.groups.get(id) else {
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

    /// Sends a broadcast to the members of a topic.
    pub fn broadcast(
        &self,
        topic_name: &str,
        except: Option<u64>,
        event: &str,
        payload: &BroadcastPayload,
    ) -> usize {
        let Some(topic) = self.topics.get(topic_name) else {
            return 0;
        };
        let mut frames = PerVersion::new(|vsn| match payload {
            BroadcastPayload::Json(json) => Some(Frame::Text(
                Outgoing {
                    join_ref: None,
                    reference: None,
                    topic: topic_name,
                    event: "broadcast",
                    payload: &broadcast_payload(event, json),
                }
                .encode(vsn),
            )),
            BroadcastPayload::Raw(_) if vsn == Vsn::V1 => None,
            BroadcastPayload::Raw(bytes) => {
                encode_raw_broadcast(topic_name, event, bytes).map(Frame::Binary)
            }
        });
        let mut delivered = 0;
        for (socket, member) in &topic.members {
            if except == Some(*socket) {
                continue;
            }
            if let Some(frame) = frames.get(member.outbox.vsn) {
                member.outbox.push(frame);
                delivered += 1;
            }
        }
        delivered
    }

    /// Sets or, with `None`, ends what a channel tracks, and tells everyone on the topic.
    pub fn track(
        &mut self,
        topic_name: &str,
        socket: u64,
        payload: Option<Map<String, Value>>,
    ) -> TrackOutcome {
        let Some(topic) = self.topics.get_mut(topic_name) else {
            return TrackOutcome::NotJoined;
        };
        let Some(member) = topic.members.get_mut(&socket) else {
            return TrackOutcome::NotJoined;
        };
        let diffs = match payload {
            Some(payload) => {
                if !member.hears_presence {
                    // Who tracks takes part: without the state the client would keep back all that follows.
                    member.hears_presence = true;
                    member.outbox.push(messages::push(
                        member.outbox.vsn,
                        topic_name,
                        Some(&member.join_ref),
                        "presence_state",
                        &topic.presence.state(),
                    ));
                }
                topic.presence.track(socket, &member.presence_key, payload)
            }
            None => topic.presence.untrack(socket, &member.presence_key),
        };
        topic.announce(topic_name, &diffs);
        TrackOutcome::Done
    }

    /// Asks the sockets of a person, or all, to verify their tokens.
    pub fn recheck(&self, user_id: Option<Uuid>) {
        for member in self
            .topics
            .values()
            .flat_map(|topic| topic.members.values())
        {
            if user_id.is_none() || member.user_id == user_id {
                member.outbox.ask_recheck();
            }
        }
    }

    /// Checks all bindings against a new catalog and tells channels whose bindings now work, or no longer do.
    pub fn recompile(&mut self, catalog: &Catalog, interest: &RwLock<Interest>) {
        let ids: Vec<u64> = self.groups.keys().copied().collect();
        for id in ids {
            self.unindex(id, interest);
            if let Some(group) = self.groups.get_mut(&id) {
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

    fn enter_group(
        &mut self,
        key: GroupKey,
        asked: Arc<[Asked]>,
        socket: u64,
        outbox: Arc<Outbox>,
        catalog: &Catalog,
        interest: &RwLock<Interest>,
    ) -> u64 {
        if let Some(id) = self.group_ids.get(&key)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.members.insert(socket, outbox);
            return *id;
        }
        let id = self.next_group;
        self.next_group += 1;
        let key = Arc::new(key);
        let mut group = Group {
            key: key.clone(),
            asked,
            bindings: Vec::new(),
            problem: String::new(),
            members: HashMap::from([(socket, outbox)]),
        };
        group.compile(catalog);
        self.groups.insert(id, group);
        self.group_ids.insert(key, id);
        self.index(id, interest);
        id
    }

    fn leave_group(&mut self, id: u64, socket: u64, interest: &RwLock<Interest>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.members.remove(&socket);
        if group.members.is_empty() {
            self.unindex(id, interest);
            if let Some(group) = self.groups.remove(&id) {
                self.group_ids.remove(&group.key);
            }
        }
    }

    fn index(&mut self, id: u64, interest: &RwLock<Interest>) {
        let Some(group) = self.groups.get(&id) else {
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
        let Some(group) = self.groups.get(&id) else {
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
                crate::codec::put_json(&mut payload, &ids);
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

impl Topic {
    fn announce(&self, topic: &str, diffs: &[Value]) {
        for diff in diffs {
            let mut frames = PerVersion::new(|vsn| {
                Some(messages::push(vsn, topic, None, "presence_diff", diff))
            });
            for member in self.members.values().filter(|it| it.hears_presence) {
                if let Some(frame) = frames.get(member.outbox.vsn) {
                    member.outbox.push(frame);
                }
            }
        }
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

/// A frame encoded when the first socket of a version needs it.
struct PerVersion<F> {
    encode: F,
    frames: [Option<Option<Frame>>; 2],
}

impl<F: Fn(Vsn) -> Option<Frame>> PerVersion<F> {
    fn new(encode: F) -> Self {
        Self {
            encode,
            frames: [None, None],
        }
    }

    fn get(&mut self, vsn: Vsn) -> Option<Frame> {
        let slot = match vsn {
            Vsn::V1 => &mut self.frames[0],
            Vsn::V2 => &mut self.frames[1],
        };
        slot.get_or_insert_with(|| (self.encode)(vsn)).clone()
    }
}

/// The bindings as one text, equal for equal lists.
fn bindings_text(asked: &[Asked]) -> String {
    let objects: Vec<_> = asked.iter().map(|asked| &asked.object).collect();
    json!(objects).to_string()
}
