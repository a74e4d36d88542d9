//! Whose turn it is.
//!
//! Every lane with ready rows is known here. Organisations take turns, and inside an organisation its lanes do, so that a
//! million messages of one delay nobody else's one; no channel is asked for more than its rate allows, and no
//! organisation takes more than half of the places that are left.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use uuid::Uuid;
use wasel_db::SystemTx;
use wasel_db::outbox::claim::{self, Lane, Leased, Want};
use wasel_db::outbox::lanes::LaneReader;
use wasel_db::pace::{self, ChannelPace};
use wasel_domain::OrgId;
use wasel_providers::ChannelKind;

use super::breaker::BLOCKED;
use super::window::Window;
use super::{POLL, TICK};
use crate::linked_phones::Phones;
use crate::registry::{Channel, Registry};

/// How long what was read of the lanes is believed.
const FRESH: Duration = Duration::from_millis(250);
/// The same for a sender with nothing to do: it looks again as soon as it is woken.
const FRESH_WHEN_IDLE: Duration = Duration::from_millis(5);
/// Places in time are reserved so far ahead: long enough to claim several at once, short enough for a pause to work.
const HORIZON: Duration = Duration::from_millis(30);
/// What is kept of a rate for the unevenness between several nodes.
const USED_OF_RATE: f64 = 0.985;
/// How long a channel that cannot be opened is not asked for again.
const MISSING_FOR: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct LaneState {
    /// The last claim found fewer rows than it asked for.
    drained: bool,
}

#[derive(Debug)]
struct ChannelState {
    /// Messages a second now.
    rate: f64,
    /// Not before then by the reservations of this process.
    next_at: Instant,
    window: Window,
    /// Closed to everything, or open for one message that shows whether it works again.
    gate: Gate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Probe,
    Closed,
}

/// An attempt that ended.
#[derive(Clone, Copy, Debug)]
pub struct Landing {
    pub org_id: Uuid,
    pub channel_id: Uuid,
    /// How long it was under way; `None` where the provider cannot have counted it.
    pub trip: Option<Duration>,
    pub at: Instant,
}

#[derive(Debug, Default)]
pub struct Lanes {
    lanes: BTreeMap<Lane, LaneState>,
    reader: LaneReader,
    channels: HashMap<Uuid, ChannelState>,
    under_way: HashMap<Uuid, usize>,
    /// Channels that could not be opened, and since when.
    missing: HashMap<Uuid, Instant>,
    read_at: Option<Instant>,
    next_due: Option<Instant>,
    turn: usize,
}

impl Lanes {
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.read_at.is_none_or(|at| at.elapsed() >= FRESH)
    }

    #[must_use]
    pub fn is_stale_when_idle(&self) -> bool {
        self.read_at
            .is_none_or(|at| at.elapsed() >= FRESH_WHEN_IDLE)
    }

    /// What was read is not believed any more: rows came to lie before the places reached.
    pub fn expire(&mut self) {
        self.read_at = None;
        self.reader.look_behind();
    }

    /// Whether a waiting row has become due.
    #[must_use]
    pub fn has_due(&self) -> bool {
        self.next_due.is_some_and(|due| due <= Instant::now())
    }

    /// Reads the lanes and the state of their channels anew.
    pub async fn refresh(
        &mut self,
        tx: &mut SystemTx,
        registry: &Registry,
        phones: &Phones,
    ) -> wasel_db::Result<()> {
        let now = Instant::now();
        let found = self.reader.read(tx).await?;
        let mut ids: Vec<Uuid> = found.iter().map(|lane| lane.channel_id).collect();
        ids.dedup();
        let paces: HashMap<Uuid, ChannelPace> = pace::list(tx, &ids)
            .await?
            .into_iter()
            .map(|pace| (pace.channel_id, pace))
            .collect();
        let paused = claim::list_resting(tx, &found).await?;
        for lane in &found {
            let channel = self.find_channel(registry, lane, now).await?;
            // One that cannot be opened is claimed all the same, until it is held: its messages must learn why.
            let rate = channel
                .as_ref()
                .map_or(1.0, |channel| channel.messages_per_second());
            let status = channel.as_ref().map(|channel| channel.status.as_str());
            let pace = paces.get(&lane.channel_id);
            let state = self
                .channels
                .entry(lane.channel_id)
                .or_insert_with(|| ChannelState::new(rate, pace, now));
            state.rate = rate * f64::from(pace.map_or(1.0, |pace| pace.factor(Utc::now())));
            state.gate = gate(status, pace);
            // A linked phone's messages leave from the node that runs its session, once it is connected.
            if channel
                .as_ref()
                .is_some_and(|channel| channel.kind == ChannelKind::WhatsappWeb)
                && !phones.is_connected(lane.channel_id.into())
            {
                state.gate = Gate::Closed;
            }
            // Other nodes reserve places, too.
            if let Some(pace) = pace {
                let ahead = (pace.next_at - Utc::now()).to_std().unwrap_or_default();
                state.next_at = state.next_at.max(now + ahead);
            }
        }
        self.missing
            .retain(|_, since| since.elapsed() < MISSING_FOR);
        self.lanes = found
            .into_iter()
            .filter(|lane| !paused.contains(lane))
            .map(|lane| (lane, LaneState { drained: false }))
            .collect();
        self.channels
            .retain(|id, state| ids.contains(id) || !state.window.is_idle(now));
        self.next_due = claim::next_due_in(tx).await?.map(|wait| now + wait);
        self.read_at = Some(now);
        Ok(())
    }

    /// A channel of the registry; one that is not there is asked for in the database, but not each time.
    async fn find_channel(
        &mut self,
        registry: &Registry,
        lane: &Lane,
        now: Instant,
    ) -> wasel_db::Result<Option<Arc<Channel>>> {
        let (org, id) = (OrgId(lane.org_id), lane.channel_id.into());
        if let Some(channel) = registry.of_org(org, id) {
            return Ok(Some(channel));
        }
        if self
            .missing
            .get(&lane.channel_id)
            .is_some_and(|since| now.duration_since(*since) < MISSING_FOR)
        {
            return Ok(None);
        }
        let found = registry.find(org, id).await?;
        if found.is_none() {
            self.missing.insert(lane.channel_id, now);
        }
        Ok(found)
    }

    /// Shares out up to `free` places among the lanes.
    pub fn choose(&mut self, free: usize) -> Vec<Want> {
        let now = Instant::now();
        let mut budgets: HashMap<Uuid, usize> = self
            .channels
            .iter_mut()
            .map(|(id, channel)| (*id, channel.budget(now)))
            .collect();
        let mut orgs: Vec<(Uuid, Vec<(Lane, i32)>)> = Vec::new();
        for (lane, state) in &self.lanes {
            if state.drained
                || budgets
                    .get(&lane.channel_id)
                    .is_none_or(|budget| *budget == 0)
            {
                continue;
            }
            match orgs.last_mut() {
                Some((org, lanes)) if *org == lane.org_id => lanes.push((*lane, 0)),
                _ => orgs.push((lane.org_id, vec![(*lane, 0)])),
            }
        }
        if orgs.is_empty() {
            return Vec::new();
        }
        // Another one begins each time, of the organisations and of each one's lanes.
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % orgs.len();
        orgs.rotate_left(first);
        let all_free = free;
        let mut free = free;
        let mut round = self.turn;
        loop {
            let before = free;
            for (org, lanes) in &mut orgs {
                let under_way = self.under_way.get(org).copied().unwrap_or(0);
                let taken: usize = lanes.iter().map(|(_, count)| *count as usize).sum();
                // Whoever's provider hangs keeps half of what the others have left, and never all.
                let most = (all_free + under_way).div_ceil(2);
                if free == 0 || under_way + taken >= most {
                    continue;
                }
                let count = lanes.len();
                let turn = (0..count)
                    .map(|offset| (round + offset) % count)
                    .find(|index| {
                        budgets
                            .get(&lanes[*index].0.channel_id)
                            .is_some_and(|budget| *budget > 0)
                    });
                if let Some(index) = turn {
                    lanes[index].1 += 1;
                    if let Some(budget) = budgets.get_mut(&lanes[index].0.channel_id) {
                        *budget -= 1;
                    }
                    free -= 1;
                }
            }
            round = round.wrapping_add(1);
            if free == 0 || free == before {
                break;
            }
        }
        orgs.into_iter()
            .flat_map(|(_, lanes)| lanes)
            .filter(|(_, count)| *count > 0)
            .map(|(lane, count)| Want {
                lane,
                count,
                after: self.reader.cursor(lane),
            })
            .collect()
    }

    /// What a claim found: where to read on, and which lanes are empty.
    pub fn took(&mut self, wants: &[Want], rows: &[Leased]) {
        let mut counts: HashMap<Lane, i32> = HashMap::new();
        for row in rows {
            let lane = Lane {
                org_id: row.org_id,
                channel_id: row.channel_id,
                lane: row.lane,
            };
            *counts.entry(lane).or_default() += 1;
        }
        self.reader.took(rows);
        for want in wants {
            if counts.get(&want.lane).copied().unwrap_or(0) < want.count
                && let Some(state) = self.lanes.get_mut(&want.lane)
            {
                state.drained = true;
            }
        }
    }

    /// A message leaves by a channel, at that time.
    pub fn left(&mut self, org: Uuid, channel: Uuid, at: Instant) {
        *self.under_way.entry(org).or_default() += 1;
        if let Some(state) = self.channels.get_mut(&channel) {
            state.window.start();
            state.next_at = state.next_at.max(at + state.interval());
        }
    }

    pub fn landed(&mut self, landing: &Landing) {
        if let Some(count) = self.under_way.get_mut(&landing.org_id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.under_way.remove(&landing.org_id);
            }
        }
        if let Some(channel) = self.channels.get_mut(&landing.channel_id) {
            channel.window.end(landing.trip, landing.at);
        }
    }

    /// Whether this channel's next message shows if it works again.
    #[must_use]
    pub fn is_probed(&self, channel: Uuid) -> bool {
        self.channels
            .get(&channel)
            .is_some_and(|channel| channel.gate == Gate::Probe)
    }

    /// The time between two messages of a channel.
    #[must_use]
    pub fn interval(&self, channel: Uuid) -> Duration {
        self.channels
            .get(&channel)
            .map_or(Duration::ZERO, ChannelState::interval)
    }

    /// How long nothing can leave, as far as is known.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let now = Instant::now();
        let waiting = self
            .lanes
            .iter()
            .filter(|(_, state)| !state.drained)
            .filter_map(|(lane, _)| self.channels.get(&lane.channel_id))
            .filter_map(|channel| channel.next_turn());
        waiting
            .chain(self.next_due)
            .map(|at| at.saturating_duration_since(now))
            .min()
            .unwrap_or(POLL)
            .clamp(TICK, POLL)
    }
}

impl ChannelState {
    fn new(rate: f64, pace: Option<&ChannelPace>, now: Instant) -> Self {
        let mut window = Window::default();
        // Whoever sent for this channel until a moment ago, this second is used up.
        let just_used =
            pace.is_some_and(|pace| pace.next_at + chrono::TimeDelta::seconds(1) > Utc::now());
        if just_used {
            window.fill(places(rate), now);
        }
        Self {
            rate,
            next_at: now,
            window,
            gate: Gate::Open,
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / (self.rate * USED_OF_RATE).max(0.001))
    }

    /// How many may leave now and within the horizon.
    fn budget(&mut self, now: Instant) -> usize {
        let places = match self.gate {
            Gate::Closed => return 0,
            Gate::Probe => 1,
            Gate::Open => places(self.rate),
        };
        let horizon = now + HORIZON;
        if self.next_at > horizon {
            return 0;
        }
        let span = horizon.duration_since(self.next_at.max(now)).as_secs_f64();
        let by_time = 1 + (span / self.interval().as_secs_f64()) as usize;
        by_time.min(self.window.free(places, now))
    }

    /// When it is worth asking again; `None` while only an answer can free a place (the recorder wakes the sender then),
    /// or it is closed.
    fn next_turn(&self) -> Option<Instant> {
        if self.gate == Gate::Closed {
            return None;
        }
        let by_time = self.next_at.checked_sub(HORIZON).unwrap_or(self.next_at);
        let places = if self.gate == Gate::Probe {
            1
        } else {
            places(self.rate)
        };
        if self.window.len() < places {
            return Some(by_time);
        }
        self.window.next_free().map(|free| free.max(by_time))
    }
}

/// The places of a window of one second.
fn places(rate: f64) -> usize {
    (rate.floor() as usize).max(1)
}

/// Without a status the channel cannot be opened.
fn gate(status: Option<&str>, pace: Option<&ChannelPace>) -> Gate {
    let held = pace.and_then(|pace| pace.hold_until);
    let over = held.is_none_or(|until| until <= Utc::now());
    let blocked = pace.is_some_and(|pace| pace.hold_reason.as_deref() == Some(BLOCKED));
    match status.unwrap_or("active") {
        // Somebody put a blocked channel right before its next probe.
        "active" if !over && blocked && status.is_some() => Gate::Probe,
        "active" if !over => Gate::Closed,
        "active" if pace.is_some_and(|pace| pace.strikes > 0) => Gate::Probe,
        "active" => Gate::Open,
        // Blocked by the provider: one message now and then shows whether somebody has put it right.
        "blocked" if blocked && over => Gate::Probe,
        _ => Gate::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(org: u128, channel: u128, job: u128) -> Lane {
        Lane {
            org_id: Uuid::from_u128(org),
            channel_id: Uuid::from_u128(channel),
            lane: Uuid::from_u128(job),
        }
    }

    fn lanes(of: &[Lane], rate: f64) -> Lanes {
        let now = Instant::now();
        let mut lanes = Lanes::default();
        for lane in of {
            lanes.lanes.insert(*lane, LaneState { drained: false });
            lanes
                .channels
                .entry(lane.channel_id)
                .or_insert_with(|| ChannelState::new(rate, None, now));
        }
        lanes
    }

    fn shares(wants: &[Want]) -> HashMap<Uuid, i32> {
        let mut shares = HashMap::new();
        for want in wants {
            *shares.entry(want.lane.org_id).or_default() += want.count;
        }
        shares
    }

    #[test]
    fn organisations_share_equally_however_many_lanes_they_have() {
        let mut all: Vec<Lane> = (0..50).map(|job| lane(1, 100 + job, job)).collect();
        all.extend((2..6).map(|org| lane(org, org, 0)));
        let wants = lanes(&all, 100_000.0).choose(100);
        for (org, share) in shares(&wants) {
            assert_eq!(share, 20, "{org}");
        }
    }

    #[test]
    fn what_one_cannot_use_goes_to_the_others() {
        let mut lanes = lanes(&[lane(1, 1, 0), lane(2, 2, 0)], 100_000.0);
        if let Some(channel) = lanes.channels.get_mut(&Uuid::from_u128(1)) {
            channel.rate = 1.0;
        }
        let shares = shares(&lanes.choose(100));
        assert_eq!(shares[&Uuid::from_u128(1)], 1);
        assert_eq!(shares[&Uuid::from_u128(2)], 50, "half of what is free");
    }

    #[test]
    fn jobs_of_one_channel_take_turns_within_its_rate() {
        let all: Vec<Lane> = (0..4).map(|job| lane(1, 1, job)).collect();
        let mut lanes = lanes(&all, 1000.0);
        let mut counts: HashMap<Uuid, i32> = HashMap::new();
        for _ in 0..20 {
            for want in lanes.choose(8) {
                *counts.entry(want.lane.lane).or_default() += want.count;
            }
        }
        assert!(counts.values().all(|count| *count == 20), "{counts:?}");
    }

    #[test]
    fn organisations_whose_providers_hang_leave_places_for_the_next_one() {
        let mut free = 64;
        for org in 1..6 {
            let mut lanes = lanes(&[lane(org, org, 0)], 100_000.0);
            let taken = shares(&lanes.choose(free))[&Uuid::from_u128(org)];
            assert_eq!(taken, free as i32 / 2);
            for _ in 0..taken {
                lanes.left(Uuid::from_u128(org), Uuid::from_u128(org), Instant::now());
            }
            free -= taken as usize;
            assert!(lanes.choose(free).is_empty(), "it has its half");
            lanes.landed(&Landing {
                org_id: Uuid::from_u128(org),
                channel_id: Uuid::from_u128(org),
                trip: Some(Duration::ZERO),
                at: Instant::now(),
            });
            assert_eq!(shares(&lanes.choose(free + 1))[&Uuid::from_u128(org)], 1);
        }
    }

    #[test]
    fn a_channel_gets_no_more_than_its_rate_and_an_empty_lane_nothing() {
        let one = lane(1, 1, 0);
        let mut lanes = lanes(&[one], 80.0);
        let wants = lanes.choose(1000);
        // 30 ms of 80 a second.
        assert_eq!(wants[0].count, 3);
        for _ in 0..3 {
            lanes.left(
                one.org_id,
                one.channel_id,
                Instant::now() + Duration::from_millis(40),
            );
        }
        assert!(lanes.choose(1000).is_empty());
        assert!(
            lanes.pause() <= Duration::from_millis(40),
            "{:?}",
            lanes.pause()
        );
        lanes.took(&wants, &[]);
        assert!(lanes.choose(1000).is_empty());
        assert_eq!(lanes.pause(), POLL);
    }
}
