//! The sockets of one tenant: groups for changes, topics for broadcast and presence.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::groups::{GroupKey, Groups};
use super::interest::Interest;
use super::presence::Presence;
use crate::auth::Scope;
use crate::binding::Asked;
use crate::catalog::Catalog;
use crate::codec::{BroadcastPayload, Outgoing, Vsn, broadcast_payload, encode_raw_broadcast};
use crate::outbox::Outbox;
use crate::socket::{Frame, messages};

/// Everything that listens in one tenant.
#[derive(Debug, Default)]
pub(super) struct Tenant {
    /// Set when the last socket has left: a join must take a fresh one.
    retired: bool,
    pub groups: Groups,
    topics: HashMap<Arc<str>, Topic>,
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
            let key = GroupKey::new(join.topic.clone(), vsn, scope, &join.asked);
            let id = self.groups.enter(
                key,
                Arc::from(join.asked),
                join.socket,
                join.outbox.clone(),
                catalog,
                interest,
            );
            let problem = self.groups.problem(id);
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
            self.groups.leave(group, socket, interest);
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

    /// Remembers who a channel now speaks for.
    pub fn set_user(&mut self, topic: &str, socket: u64, user_id: Option<Uuid>) {
        if let Some(topic) = self.topics.get_mut(topic)
            && let Some(member) = topic.members.get_mut(&socket)
        {
            member.user_id = user_id;
        }
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
