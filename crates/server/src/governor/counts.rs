//! Rules that count: messages to one person, people reached in a day.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use wasel_db::SystemTx;
use wasel_db::governor::{self, CapQuestion, ReachQuestion, Reached};
use wasel_domain::limits::{FrequencyCap, REACH_WINDOW};

use super::HoldReason;
use super::rules::{Letter, ReachGroup};

/// Two senders must not count at once: what one is about to send the other does not see. Held until the transaction ends.
pub async fn lock(tx: &mut SystemTx, letters: &[&Letter<'_>]) -> wasel_db::Result<()> {
    let mut names = BTreeSet::new();
    for letter in letters {
        let org = letter.message.org_id;
        if cap_of(letter).is_some() {
            names.insert(format!("cap {org}"));
        }
        for group in letter.reaches {
            names.insert(format!("reach {org} {}", group.group));
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = names.into_iter().collect();
    governor::lock_counts(tx, &names).await
}

type Person = (Uuid, Uuid);

fn person(letter: &Letter<'_>) -> Person {
    (letter.message.org_id, letter.message.contact_id)
}

fn cap_of<'l>(letter: &'l Letter<'_>) -> Option<&'l FrequencyCap> {
    letter.policy.frequency_cap_of(letter.category)
}

fn span(cap: &FrequencyCap) -> TimeDelta {
    TimeDelta::hours(i64::from(cap.per_hours))
}

/// What the people of a batch got lately, of what a cap counts.
pub struct Caps {
    got: HashMap<Person, Vec<DateTime<Utc>>>,
}

impl Caps {
    pub async fn load(
        tx: &mut SystemTx,
        letters: &[&Letter<'_>],
        now: DateTime<Utc>,
    ) -> wasel_db::Result<Self> {
        let mut questions = HashMap::new();
        for letter in letters {
            if let Some(cap) = cap_of(letter) {
                let (org_id, contact_id) = person(letter);
                questions
                    .entry((org_id, contact_id))
                    .or_insert_with(|| CapQuestion {
                        org_id,
                        contact_id,
                        categories: cap.categories.iter().map(|c| c.as_str().into()).collect(),
                        since: now - span(cap),
                    });
            }
        }
        let mut got: HashMap<Person, Vec<DateTime<Utc>>> = HashMap::new();
        if questions.is_empty() {
            return Ok(Self { got });
        }
        let questions: Vec<_> = questions.into_values().collect();
        let ours: Vec<Uuid> = letters.iter().map(|l| l.message.message_id).collect();
        for capped in governor::list_capped(tx, &questions, &ours).await? {
            let times = got.entry((capped.org_id, capped.contact_id)).or_default();
            times.push(capped.at);
        }
        for times in got.values_mut() {
            times.sort_unstable();
        }
        Ok(Self { got })
    }

    /// Until when it waits, if this person has got enough.
    pub fn wait(&self, letter: &Letter<'_>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let cap = cap_of(letter)?;
        let times = self.got.get(&person(letter))?;
        // With the cap lowered meanwhile, several must be past before one may follow.
        let place = times.len().checked_sub(cap.messages.max(1) as usize)?;
        Some(times[place] + span(cap)).filter(|until| *until > now)
    }

    pub fn count(&mut self, letter: &Letter<'_>, now: DateTime<Utc>) {
        if cap_of(letter).is_some() {
            let times = self.got.entry(person(letter)).or_default();
            let place = times.partition_point(|at| *at <= now);
            times.insert(place, now);
        }
    }
}

/// Who shares a limit: the organisation and the group's name.
type GroupKey = (Uuid, String);

/// The room that has been promised to messages that wait, by the time at which whoever makes room was reached. So that not
/// all wake for the same one.
#[derive(Default)]
pub struct Promises(HashMap<GroupKey, DateTime<Utc>>);

struct Room {
    limit: u32,
    people: i64,
    /// When those were reached who make room next.
    leaving: VecDeque<DateTime<Utc>>,
}

impl Room {
    /// One more person, or one again who was reached at `before`.
    fn count(&mut self, before: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        match before {
            None => self.people += 1,
            Some(before) => match self.leaving.iter().position(|at| *at == before) {
                Some(place) => drop(self.leaving.remove(place)),
                // One of those who had to leave before anybody may come: now the next has to.
                None if self.leaving.front().is_some_and(|first| before < *first) => {
                    self.leaving.pop_front();
                }
                None => {}
            },
        }
        self.leaving.push_back(now);
    }
}

/// How many people the groups of a batch have reached.
pub struct Reaches {
    rooms: HashMap<GroupKey, Room>,
    /// And when they were reached last.
    counted: HashMap<Reached, DateTime<Utc>>,
    /// To be written.
    fresh: HashSet<Reached>,
    now: DateTime<Utc>,
}

fn reached(letter: &Letter<'_>, group: &ReachGroup) -> Reached {
    let (org, contact) = person(letter);
    (org, group.group.clone(), contact)
}

impl Reaches {
    pub async fn load(
        tx: &mut SystemTx,
        letters: &[&Letter<'_>],
        promises: &Mutex<Promises>,
        now: DateTime<Utc>,
    ) -> wasel_db::Result<Self> {
        let since = now - REACH_WINDOW;
        let mut limits: HashMap<GroupKey, u32> = HashMap::new();
        let mut people = Vec::new();
        for letter in letters.iter().filter(|letter| !letter.window_is_open(now)) {
            for group in letter.reaches {
                limits.insert((letter.message.org_id, group.group.clone()), group.limit);
                people.push(reached(letter, group));
            }
        }
        let mut this = Self {
            rooms: HashMap::new(),
            counted: HashMap::new(),
            fresh: HashSet::new(),
            now,
        };
        if people.is_empty() {
            return Ok(this);
        }
        let questions: Vec<ReachQuestion> = {
            let mut promises = super::lock(promises);
            promises.0.retain(|_, reached_at| *reached_at > since);
            let question = |((org_id, group), limit): (&GroupKey, &u32)| ReachQuestion {
                org_id: *org_id,
                group: group.clone(),
                limit: *limit,
                since,
                promised: promises.0.get(&(*org_id, group.clone())).copied(),
            };
            limits.iter().map(question).collect()
        };
        let slots = i64::try_from(letters.len()).unwrap_or(i64::MAX);
        for state in governor::list_reach(tx, &questions, slots).await? {
            let key = (state.org_id, state.reach_group);
            let room = Room {
                limit: limits.get(&key).copied().unwrap_or(u32::MAX),
                people: state.people,
                leaving: state.leaving.into(),
            };
            this.rooms.insert(key, room);
        }
        this.counted = governor::list_reached(tx, &people, since)
            .await?
            .into_iter()
            .collect();
        Ok(this)
    }

    /// Until when it waits, and for which limit, if it is one person too many.
    pub fn wait(
        &mut self,
        letter: &Letter<'_>,
        promises: &mut Promises,
        now: DateTime<Utc>,
    ) -> Option<(HoldReason, DateTime<Utc>)> {
        if letter.window_is_open(now) {
            return None;
        }
        letter
            .reaches
            .iter()
            .filter_map(|group| {
                if self.counted.contains_key(&reached(letter, group)) {
                    return None;
                }
                let key = (letter.message.org_id, group.group.clone());
                let room = self.rooms.get_mut(&key)?;
                if room.people < i64::from(room.limit) {
                    return None;
                }
                if let Some(next) = room.leaving.pop_front() {
                    promises.0.insert(key.clone(), next);
                }
                // Everybody's turn promised: behind the last of them.
                let makes_room = promises.0.get(&key).copied().unwrap_or(now);
                let until = makes_room + REACH_WINDOW;
                let until = group.grows_at.map_or(until, |grows| grows.min(until));
                Some((group.reason, until))
            })
            .max_by_key(|(_, until)| *until)
    }

    pub fn count(&mut self, letter: &Letter<'_>) {
        if letter.window_is_open(self.now) {
            return;
        }
        for group in letter.reaches {
            let who = reached(letter, group);
            let before = self.counted.insert(who.clone(), self.now);
            if let Some(room) = self.rooms.get_mut(&(who.0, who.1.clone())) {
                room.count(before, self.now);
            }
            self.fresh.insert(who);
        }
    }

    /// Writes down whom this batch reaches.
    pub async fn save(self, tx: &mut SystemTx, now: DateTime<Utc>) -> wasel_db::Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let fresh: Vec<Reached> = self.fresh.into_iter().collect();
        governor::upsert_reached(tx, &fresh, now).await
    }
}
