//! The sockets of one tenant: groups for changes, topics for broadcast and presence.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::catch_up::{Behind, ComesBack, Place};
use super::groups::{GroupKey, Groups, Member, Requeued};
use super::interest::Interest;
use super::position::Position;
use super::presence::{Load, Owner, Presence};
use crate::auth::Scope;
use crate::binding::Asked;
use crate::catalog::Catalog;
use crate::change::Change;
use crate::codec::{BroadcastPayload, Outgoing, Vsn, broadcast_payload, encode_raw_broadcast};
use crate::limits::Limits;
use crate::outbox::Outbox;
use crate::peers::{PresenceEntry, TopicName};
use crate::socket::{Frame, messages};

/// Everything that listens in one tenant.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// Set when the last socket has left: a join must take a fresh one.
    retired: bool,
    /// Number of the last change announced here.
    announced: i64,
    /// What the channels here track.
    tracked: Load,
    pub groups: Groups,
    topics: HashMap<TopicKey, Topic>,
}

/// A topic as named on the wire, in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TopicKey {
    pub name: Arc<str>,
    pub private: bool,
}

impl TopicKey {
    pub fn to_peers(&self) -> TopicName {
        TopicName {
            name: self.name.to_string(),
            private: self.private,
        }
    }
}

impl From<&TopicName> for TopicKey {
    fn from(topic: &TopicName) -> Self {
        Self {
            name: Arc::from(topic.name.as_str()),
            private: topic.private,
        }
    }
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
    /// The group through which it hears of changes.
    group: Option<u64>,
}

/// A join whose token was found good.
pub(crate) struct Join<'a> {
    pub socket: u64,
    pub outbox: &'a Arc<Outbox>,
    pub topic: TopicKey,
    pub join_ref: &'a str,
    pub reference: Option<&'a str>,
    pub asked: Vec<Asked>,
    pub user_id: Option<Uuid>,
    pub presence_key: String,
    pub hears_presence: bool,
    /// Asked for broadcasts of the past.
    pub wants_replay: bool,
}

/// What of the hub a tenant needs when somebody joins.
pub(super) struct Around<'a> {
    pub catalog: &'a Catalog,
    pub interest: &'a RwLock<Interest>,
    pub position: &'a Position,
    pub has_history: bool,
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
    pub fn join(&mut self, join: Join<'_>, scope: Scope, around: &Around<'_>) {
        let vsn = join.outbox.vsn;
        let name = &join.topic.name;
        let echo: Vec<Value> = join.asked.iter().map(Asked::echo).collect();
        join.outbox.push(messages::reply_ok(
            vsn,
            name,
            Some(join.join_ref),
            join.reference,
            &json!({ "postgres_changes": echo }),
        ));
        let mut group = None;
        if !join.asked.is_empty() {
            let key = GroupKey::new(name.clone(), vsn, scope, &join.asked);
            // A round may be under way that has come further in this tenant than the last that ended.
            let now = around.position.get().map(|seq| seq.max(self.announced));
            let behind = Some(&join.asked)
                .filter(|_| around.has_history)
                .and_then(|asked| comes_back(asked, now));
            // Told to those that have no number yet: until they hear a row they come back with this one.
            let asks_for_number = join.asked.iter().any(|asked| asked.after.is_some());
            let begins_at = now.filter(|now| asks_for_number && behind.is_none() && *now > 0);
            let member = Member {
                outbox: join.outbox.clone(),
                after: 0,
                behind,
            };
            let (catalog, interest) = (around.catalog, around.interest);
            let id = self
                .groups
                .enter(key, join.socket, member, catalog, interest);
            if let Some(member) = self.groups.member(id, join.socket)
                && let Some(behind) = &mut member.behind
            {
                // Taken after the tables were registered: rounds that begin later read them.
                behind.fence = around.position.fence();
            }
            let problem = self.groups.problem(id);
            join.outbox.push(messages::subscribed(
                vsn,
                name,
                Some(join.join_ref),
                problem,
                begins_at,
            ));
            group = Some(id);
        }
        if join.wants_replay {
            let text = "broadcasts are not kept: there is nothing to replay";
            join.outbox
                .push(messages::system_error(vsn, name, "broadcast", text));
        }
        let topic = self.topics.entry(join.topic.clone()).or_default();
        if join.hears_presence {
            join.outbox.push(messages::push(
                vsn,
                name,
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
                group,
            },
        );
    }

    /// Leaves a channel; what it tracked leaves with it. Answers what other nodes must hear of that.
    pub fn leave(
        &mut self,
        key: &TopicKey,
        socket: u64,
        interest: &RwLock<Interest>,
    ) -> Option<PresenceEntry> {
        let topic = self.topics.get_mut(key)?;
        let member = topic.members.remove(&socket)?;
        if let Some(group) = member.group {
            self.groups.leave(group, socket, interest);
        }
        let presence_key = &member.presence_key;
        let load = topic.load_of(&key.name, socket, presence_key);
        self.tracked.sub(load);
        let diffs = topic.presence.untrack(Owner::here(socket), presence_key);
        topic.announce(&key.name, &diffs);
        self.drop_if_unused(key);
        (!diffs.is_empty()).then(|| PresenceEntry {
            topic: key.to_peers(),
            key: member.presence_key,
            socket,
            meta: None,
        })
    }

    fn drop_if_unused(&mut self, key: &TopicKey) {
        let unused = |topic: &Topic| topic.members.is_empty() && topic.presence.is_empty();
        if self.topics.get(key).is_some_and(unused) {
            self.topics.remove(key);
        }
    }

    /// Announces a row that changed, under all its names. Answers how many frames were queued.
    pub fn deliver(&mut self, row: &[Change], catalog: &Catalog, has_history: bool) -> usize {
        if let Some(change) = row.first() {
            self.announced = self.announced.max(change.seq);
        }
        self.groups.deliver(row, catalog, has_history)
    }

    /// Changes what a channel may see from now on.
    pub fn rescope(
        &mut self,
        topic: &TopicKey,
        socket: u64,
        scope: &Scope,
        user_id: Option<Uuid>,
        around: &Around<'_>,
    ) {
        let Some(topic) = self.topics.get_mut(topic) else {
            return;
        };
        let Some(member) = topic.members.get_mut(&socket) else {
            return;
        };
        member.user_id = user_id;
        if let Some(group) = member.group {
            let (catalog, interest) = (around.catalog, around.interest);
            member.group = self.groups.rescope(group, socket, scope, catalog, interest);
        }
    }

    fn group_of(&self, topic: &TopicKey, socket: u64) -> Option<u64> {
        self.topics.get(topic)?.members.get(&socket)?.group
    }

    fn changes_member(&mut self, topic: &TopicKey, socket: u64) -> Option<&mut Member> {
        let group = self.group_of(topic, socket)?;
        self.groups.member(group, socket)
    }

    /// Whether a channel is behind and nobody reads history for it; whoever asks does from now on.
    pub fn attend(&mut self, topic: &TopicKey, socket: u64) -> Option<Place> {
        let behind = self.changes_member(topic, socket)?.behind.as_mut()?;
        let attended = std::mem::replace(&mut behind.attended, true);
        (!attended).then(|| Place {
            topic: topic.clone(),
            socket,
            number: behind.number,
        })
    }

    /// A channel that is behind still, and not another in its place.
    fn member_behind(&mut self, place: &Place) -> Option<&mut Member> {
        let member = self.changes_member(&place.topic, place.socket)?;
        let behind = member.behind.as_ref()?;
        (behind.number == place.number).then_some(member)
    }

    fn behind(&mut self, place: &Place) -> Option<&mut Behind> {
        self.member_behind(place)?.behind.as_deref_mut()
    }

    /// The round that must have ended before a channel that is behind may trust the log's position.
    pub fn fence(&mut self, place: &Place) -> Option<u64> {
        Some(self.behind(place)?.fence)
    }

    /// Bindings whose beginning is not known yet begin at `seq`. Answers whether the channel comes back with a number of
    /// its own.
    pub fn begin_from(&mut self, place: &Place, seq: i64) -> Option<Option<ComesBack>> {
        let behind = self.behind(place)?;
        for heard in behind.heard.iter_mut().flatten() {
            heard.get_or_insert(seq);
        }
        Some(behind.heard.as_ref().map(|heard| ComesBack {
            highest: heard.iter().flatten().copied().max(),
        }))
    }

    /// Where a channel that is behind has read to, and the names it listens to.
    pub fn unread(&mut self, place: &Place, catalog: &Catalog) -> Option<(i64, Vec<Arc<str>>)> {
        let read = self.behind(place)?.read;
        let group = self.group_of(&place.topic, place.socket)?;
        Some((read, self.groups.names(group, catalog)?))
    }

    /// Queues a row of history for a channel that is behind; `None` when it has ended.
    pub fn requeue(
        &mut self,
        place: &Place,
        row: &[Change],
        catalog: &Catalog,
    ) -> Option<Requeued> {
        self.behind(place)?;
        let group = self.group_of(&place.topic, place.socket)?;
        self.groups.requeue(group, place.socket, row, catalog)
    }

    /// A channel that is behind has been given everything up to `seq`.
    pub fn has_read(&mut self, place: &Place, seq: i64) {
        if let Some(behind) = self.behind(place) {
            behind.read = behind.read.max(seq);
        }
    }

    /// A channel goes on from `seq`, whatever it had heard. `None` when it has ended.
    pub fn start_over(&mut self, place: &Place, seq: i64) -> Option<()> {
        let behind = self.behind(place)?;
        behind.read = seq;
        behind.heard = None;
        Some(())
    }

    /// Makes a channel live that has read up to `upto`, unless more was announced since. `None` when it has ended.
    pub fn go_live(&mut self, place: &Place, upto: i64) -> Option<bool> {
        let announced = self.announced;
        let member = self.member_behind(place)?;
        let behind = member.behind.as_ref()?;
        // A binding may have heard more than this node has announced; it would hear it twice.
        let heard = behind.heard.iter().flatten().flatten().copied().max();
        let is_live = announced <= upto && behind.read <= upto && heard <= Some(upto);
        if is_live {
            member.after = upto;
            member.behind = None;
        }
        Some(is_live)
    }

    /// Sends a broadcast to the members of a topic.
    pub fn broadcast(
        &self,
        key: &TopicKey,
        except: Option<u64>,
        event: &str,
        payload: &BroadcastPayload,
    ) -> usize {
        let Some(topic) = self.topics.get(key) else {
            return 0;
        };
        let topic_name = &*key.name;
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

    /// Sets or, with `None`, ends what a channel tracks, and tells everyone on the topic. Answers what other nodes must
    /// hear of it, too.
    pub fn track(
        &mut self,
        key: &TopicKey,
        socket: u64,
        payload: Option<Map<String, Value>>,
    ) -> (TrackOutcome, Option<PresenceEntry>) {
        let gone = (TrackOutcome::NotJoined, None);
        let Some(topic) = self.topics.get_mut(key) else {
            return gone;
        };
        let Some(member) = topic.members.get(&socket) else {
            return gone;
        };
        let owner = Owner::here(socket);
        let presence_key = member.presence_key.clone();
        let before = topic.load_of(&key.name, socket, &presence_key);
        let Some(member) = topic.members.get_mut(&socket) else {
            return gone;
        };
        let diffs = match payload {
            Some(payload) => {
                if !member.hears_presence {
                    // Who tracks takes part: without the state the client would keep back all that follows.
                    member.hears_presence = true;
                    member.outbox.push(messages::push(
                        member.outbox.vsn,
                        &key.name,
                        Some(&member.join_ref),
                        "presence_state",
                        &topic.presence.state(),
                    ));
                }
                topic.presence.track(owner, &presence_key, payload)
            }
            None => topic.presence.untrack(owner, &presence_key),
        };
        topic.announce(&key.name, &diffs);
        self.tracked.sub(before);
        let now = topic.load_of(&key.name, socket, &presence_key);
        self.tracked.add(now);
        let news = (!diffs.is_empty()).then(|| PresenceEntry {
            topic: key.to_peers(),
            meta: topic.presence.meta(owner, &presence_key).cloned(),
            key: presence_key,
            socket,
        });
        (TrackOutcome::Done, news)
    }

    /// Whether what all channels here track would stay within the bounds if this one tracked that.
    pub fn has_room_for(
        &self,
        key: &TopicKey,
        socket: u64,
        payload: &Map<String, Value>,
        limits: &Limits,
    ) -> bool {
        let Some((topic, member)) = self
            .topics
            .get(key)
            .and_then(|topic| Some((topic, topic.members.get(&socket)?)))
        else {
            return true;
        };
        let mut load = self.tracked;
        load.sub(topic.load_of(&key.name, socket, &member.presence_key));
        load.add(Load::of(&key.name, &member.presence_key, payload));
        load.entries <= limits.tenant_presences && load.bytes <= limits.tenant_presence_bytes
    }

    /// Sets or ends what a channel on another node tracks.
    pub fn track_elsewhere(&mut self, node: Uuid, entry: PresenceEntry) {
        let key = TopicKey::from(&entry.topic);
        let owner = Owner {
            node: Some(node),
            socket: entry.socket,
        };
        let topic = self.topics.entry(key.clone()).or_default();
        let diffs = match entry.meta {
            Some(meta) => topic.presence.set(owner, &entry.key, meta),
            None => topic.presence.untrack(owner, &entry.key),
        };
        topic.announce(&key.name, &diffs);
        self.drop_if_unused(&key);
    }

    /// All that is tracked by the channels of a node; `None` for this one.
    pub fn presences_of(&self, node: Option<Uuid>) -> Vec<PresenceEntry> {
        let all = self.topics.iter();
        all.flat_map(|(topic, at)| {
            at.presence
                .of_node(node)
                .into_iter()
                .map(move |it| (topic, it))
        })
        .map(|(topic, (key, socket, meta))| PresenceEntry {
            topic: topic.to_peers(),
            key,
            socket,
            meta: Some(meta),
        })
        .collect()
    }

    /// The people whose channels are joined here.
    pub fn users(&self) -> impl Iterator<Item = Uuid> {
        let members = self
            .topics
            .values()
            .flat_map(|topic| topic.members.values());
        members.filter_map(|member| member.user_id)
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
}

/// Where a channel begins whose bindings name numbers of their own; `None` for one that begins now. A channel is told
/// everything in one order: a binding that waited beside others and heard nothing has missed nothing up to the highest
/// number among them. One that does not speak of numbers begins at `now`, what was announced when it joined.
fn comes_back(asked: &[Asked], now: Option<i64>) -> Option<Box<Behind>> {
    let numbers = asked.iter().filter_map(|asked| asked.after);
    let highest = numbers.filter(|after| *after > 0).max()?;
    let heard = asked.iter().map(|asked| match asked.after {
        Some(0) => Some(highest),
        None => now,
        after => after,
    });
    let heard: Box<[_]> = heard.collect();
    let read = heard.iter().flatten().copied().min()?;
    Some(Box::new(Behind::new(read, Some(heard))))
}

impl Topic {
    /// How much a channel here tracks under its key.
    fn load_of(&self, name: &str, socket: u64, presence_key: &str) -> Load {
        let meta = self.presence.meta(Owner::here(socket), presence_key);
        meta.map_or_else(Load::default, |meta| Load::of(name, presence_key, meta))
    }

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
