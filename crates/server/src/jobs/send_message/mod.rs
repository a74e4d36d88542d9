//! Takes messages from the outbox and hands them to their providers.
//!
//! - [`lanes`]: whose turn it is: fair shares and each channel's rate
//! - [`window`]: the rate, kept by what is really under way
//! - [`attempt`]: one send, from the stored message to the provider's answer
//! - [`recorder`]: the one place where an answer becomes a status, many at once
//! - [`breaker`]: what a channel's failures mean for the channel
//! - [`retry`]: when to try again
//!
//! A row is leased to this process before anything leaves, so that a crash in between leaves a trace
//! (`jobs::reconcile`). `docs/sending.md` tells the whole way of a message.

mod attempt;
mod breaker;
mod lanes;
mod recorder;
mod retry;
mod window;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use wasel_db::SystemTx;
use wasel_db::contacts::{self, ContactIdentity};
use wasel_db::outbox::claim::{self, Held, Leased};
use wasel_db::outbox::{Claimed, recover};
use wasel_db::pace::{self, Reservation};
use wasel_domain::ChannelId;
use wasel_domain::event::Identity;
use wasel_jobs::{Job, JobError, Next};
use wasel_providers::{ErrorClass, SendError};

use crate::governor::{Governor, Verdict};
use crate::outbound::addressable_of;
use crate::registry::Channel;
use crate::state::AppState;
use lanes::Lanes;
use recorder::{Ending, Recorder};

/// The most rows claimed in one statement.
const CLAIM: usize = 1000;
/// Rows that become ready are looked for this often at least: other nodes and other programs make some too.
const POLL: Duration = Duration::from_millis(500);
/// Waiting rows made ready at once.
const RIPEN: i64 = 1000;
/// The shortest pause between two looks while channels are held to their rates.
const TICK: Duration = Duration::from_millis(10);

/// The sender.
pub struct SendMessage {
    state: AppState,
    worker: Uuid,
    slots: Arc<Semaphore>,
    sends: TaskTracker,
    under_way: UnderWay,
    governor: Governor,
    lanes: tokio::sync::Mutex<Lanes>,
    recorder: Recorder,
}

/// The attempts this process has under way, and since when.
#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<HashMap<Uuid, Instant>>>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the leases of what is under way for as long as this process lives, so that a lease can be short and the
/// messages of a dead process are taken up soon. Sends that last are shown as `sending`.
pub struct RenewLeases {
    state: AppState,
    worker: Uuid,
    under_way: UnderWay,
}

/// A message about to leave: all that one send needs.
struct Departure {
    claimed: Claimed,
    /// `None` where it cannot be opened.
    channel: Option<Arc<Channel>>,
    /// `None` where the contact has no address this channel can write to.
    to: Option<Identity>,
    /// Set where the governor says that it must not leave, ever.
    refused: Option<SendError>,
    /// It shows whether its channel works again.
    probe: bool,
    /// From now until its place in the channel's rate.
    wait: Duration,
}

impl SendMessage {
    #[must_use]
    pub fn new(state: AppState) -> (Self, RenewLeases) {
        let in_flight = state.config.outbox.in_flight.get() as usize;
        let (worker, under_way) = (Uuid::now_v7(), UnderWay::default());
        let renew = RenewLeases {
            state: state.clone(),
            worker,
            under_way: under_way.clone(),
        };
        let sender = Self {
            worker,
            slots: Arc::new(Semaphore::new(in_flight)),
            sends: TaskTracker::new(),
            governor: Governor::default(),
            lanes: tokio::sync::Mutex::default(),
            recorder: Recorder::start(state.clone(), under_way.clone()),
            under_way,
            state,
        };
        (sender, renew)
    }

    /// One look at the lanes, and one claim from all whose turn it is.
    async fn round(
        &self,
        lanes: &mut Lanes,
        free: &mut Vec<OwnedSemaphorePermit>,
    ) -> Result<Next, JobError> {
        let mut tx = self.state.db.system().await?;
        if lanes.has_due() {
            claim::ripen(&mut tx, RIPEN).await?;
            lanes.expire();
        }
        if lanes.is_stale() {
            lanes
                .refresh(&mut tx, &self.state.registry, &self.state.phones)
                .await?;
        }
        let places = free.len().min(CLAIM);
        let mut wants = lanes.choose(places);
        if wants.is_empty() && lanes.is_stale_when_idle() {
            lanes.expire();
            lanes
                .refresh(&mut tx, &self.state.registry, &self.state.phones)
                .await?;
            wants = lanes.choose(places);
        }
        if wants.is_empty() {
            tx.commit().await?;
            return Ok(Next::After(lanes.pause()));
        }
        let lease = self.state.config.outbox.lease;
        let rows = claim::lock_next(&mut tx, self.worker, lease, &wants).await?;
        let leased: Vec<Leased> = rows.iter().copied().filter(|row| !row.blocked).collect();
        let departures = if leased.is_empty() {
            Vec::new()
        } else {
            self.prepare(&mut tx, lanes, &leased).await?
        };
        tx.commit().await?;
        lanes.took(&wants, &rows);
        for departure in departures {
            let Some(permit) = free.pop() else { break };
            let claimed = &departure.claimed;
            lanes.left(
                claimed.org_id,
                claimed.channel_id,
                Instant::now() + departure.wait,
            );
            self.under_way
                .lock()
                .insert(claimed.attempt_id, Instant::now());
            self.depart(departure, permit);
        }
        Ok(Next::Now)
    }

    /// Loads what was leased, asks the governor, gives back what must wait, and reserves a place in time for each of the
    /// rest.
    async fn prepare(
        &self,
        tx: &mut SystemTx,
        lanes: &Lanes,
        leased: &[Leased],
    ) -> wasel_db::Result<Vec<Departure>> {
        let claimed = claim::load(tx, leased).await?;
        let channels: HashMap<Uuid, Arc<Channel>> = claimed
            .iter()
            .map(|message| message.channel_id)
            .collect::<HashSet<_>>()
            .into_iter()
            .filter_map(|id| Some((id, self.state.registry.by_id(ChannelId(id))?)))
            .collect();
        let identities = identities_of(tx, &claimed).await?;
        let verdicts = self.governor.review(tx, &claimed, &channels).await?;
        let leases: HashMap<Uuid, &Leased> =
            leased.iter().map(|row| (row.message_id, row)).collect();
        let mut held = Vec::new();
        let mut departures = Vec::with_capacity(claimed.len());
        for (claimed, verdict) in claimed.into_iter().zip(verdicts) {
            let refused = match verdict {
                Verdict::Go => None,
                Verdict::Refuse(error) => Some(error),
                Verdict::Hold { reason, until } => {
                    let reason = reason.as_str();
                    let lease = *leases[&claimed.message_id];
                    held.push((claimed, lease, Held { reason, until }));
                    continue;
                }
            };
            let channel = channels.get(&claimed.channel_id).cloned();
            let to = channel
                .as_ref()
                .zip(identities.get(&claimed.contact_id))
                .and_then(|(channel, identities)| addressable_of(channel, identities));
            departures.push(Departure {
                probe: lanes.is_probed(claimed.channel_id),
                claimed,
                channel,
                to,
                refused,
                wait: Duration::ZERO,
            });
        }
        claim::hold(tx, &held).await?;
        reserve_places(tx, lanes, &mut departures).await?;
        Ok(departures)
    }

    fn depart(&self, departure: Departure, permit: OwnedSemaphorePermit) {
        let (state, recorder, under_way) = (
            self.state.clone(),
            self.recorder.clone(),
            self.under_way.clone(),
        );
        self.sends.spawn(async move {
            let Departure {
                claimed,
                channel,
                to,
                refused,
                probe,
                wait,
            } = departure;
            let mut left_at = None;
            let result = match refused {
                Some(error) => Some(Err(error)),
                None => {
                    tokio::time::sleep(wait).await;
                    left_at = Some(Instant::now());
                    let send = attempt::send(&state, &claimed, channel.as_deref(), to.as_ref());
                    AssertUnwindSafe(send)
                        .catch_unwind()
                        .await
                        .unwrap_or_else(|_| Some(Err(broken_down(&claimed))))
                }
            };
            match result {
                Some(result) => {
                    let ending = Ending {
                        claimed,
                        to,
                        result,
                        trip: left_at.map(|at| at.elapsed()),
                        probe,
                        _permit: permit,
                    };
                    recorder.record(ending).await;
                }
                None => {
                    recorder.abandon(&claimed);
                    under_way.lock().remove(&claimed.attempt_id);
                }
            }
        });
    }
}

/// A fault of ours in the middle of a send: whether it left is not known.
fn broken_down(claimed: &Claimed) -> SendError {
    tracing::error!(message.id = %claimed.message_id, channel.id = %claimed.channel_id, "a send panicked");
    SendError {
        class: ErrorClass::Ambiguous,
        code: Some("internal".to_owned()),
        detail: "the sender broke down".to_owned(),
        retry_after: None,
    }
}

async fn identities_of(
    tx: &mut SystemTx,
    claimed: &[Claimed],
) -> wasel_db::Result<HashMap<Uuid, Vec<ContactIdentity>>> {
    let orgs: Vec<Uuid> = claimed.iter().map(|message| message.org_id).collect();
    let contacts: Vec<Uuid> = claimed.iter().map(|message| message.contact_id).collect();
    let mut identities: HashMap<Uuid, Vec<ContactIdentity>> = HashMap::new();
    for identity in contacts::list_identities_of(tx, &orgs, &contacts).await? {
        identities
            .entry(identity.contact_id)
            .or_default()
            .push(identity);
    }
    Ok(identities)
}

/// Only what really leaves uses up a channel's rate.
async fn reserve_places(
    tx: &mut SystemTx,
    lanes: &Lanes,
    departures: &mut [Departure],
) -> wasel_db::Result<()> {
    // By channel: two nodes that reserve for the same ones must not wait for each other.
    let mut wanted: BTreeMap<Uuid, Reservation> = BTreeMap::new();
    for departure in departures
        .iter()
        .filter(|departure| departure.refused.is_none())
    {
        let (org_id, channel_id) = (departure.claimed.org_id, departure.claimed.channel_id);
        let reservation = wanted.entry(channel_id).or_insert_with(|| Reservation {
            org_id,
            channel_id,
            count: 0,
            interval: lanes.interval(channel_id),
        });
        reservation.count += 1;
    }
    let wanted: Vec<Reservation> = wanted.into_values().collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let starts = pace::reserve(tx, &wanted).await?;
    let mut next: HashMap<Uuid, (Duration, Duration)> = wanted
        .iter()
        .zip(starts)
        .map(|(want, start)| (want.channel_id, (start, want.interval)))
        .collect();
    for departure in departures
        .iter_mut()
        .filter(|departure| departure.refused.is_none())
    {
        if let Some((at, interval)) = next.get_mut(&departure.claimed.channel_id) {
            departure.wait = *at;
            *at += *interval;
        }
    }
    Ok(())
}

#[async_trait]
impl Job for SendMessage {
    const NAME: &'static str = "send_message";

    async fn run(&self) -> Result<Next, JobError> {
        // Wait for a free slot, then take all that are free.
        let first = self.slots.clone().acquire_owned().await?;
        let mut free = vec![first];
        while free.len() < CLAIM {
            match self.slots.clone().try_acquire_owned() {
                Ok(permit) => free.push(permit),
                Err(_) => break,
            }
        }
        let mut lanes = self.lanes.lock().await;
        self.recorder.tell(&mut lanes);
        self.round(&mut lanes, &mut free).await
    }

    async fn finish(&self) {
        self.sends.close();
        self.sends.wait().await;
        self.recorder.finish().await;
    }
}

#[async_trait]
impl Job for RenewLeases {
    const NAME: &'static str = "renew_leases";

    async fn run(&self) -> Result<Next, JobError> {
        let lease = self.state.config.outbox.lease;
        let pause = lease / 4;
        let (attempts, slow): (Vec<Uuid>, Vec<Option<Uuid>>) = self
            .under_way
            .lock()
            .iter()
            .map(|(attempt, since)| (*attempt, (since.elapsed() >= pause).then_some(*attempt)))
            .unzip();
        if !attempts.is_empty() {
            let mut tx = self.state.db.system().await?;
            claim::update_leases(&mut tx, self.worker, &attempts, lease).await?;
            tx.commit().await?;
        }
        let slow: Vec<Uuid> = slow.into_iter().flatten().collect();
        if !slow.is_empty() {
            let mut tx = self.state.db.system().await?;
            recover::mark_sending(&mut tx, self.worker, &slow).await?;
            tx.commit().await?;
            self.state.signals.commits.changes.notify_one();
        }
        Ok(Next::After(pause))
    }
}
