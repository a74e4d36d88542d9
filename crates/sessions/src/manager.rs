//! Runs the sessions whose lease this node holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use wasel_domain::ChannelId;

use crate::command::{Command, CommandError};
use crate::host::{Claimed, Host, HostError, Lease};
use crate::http::Http;
use crate::lease::{Clock, Deadline, system_clock};
use crate::outbound::{Outgoing, SendFailure, Sent};
use crate::session::transport::Route;
use crate::session::version::Versions;
use crate::session::{Live, Orders, Shared, run};
use crate::settings::{Settings, SettingsError};

/// Claimed in one call.
const CLAIM_AT_ONCE: usize = 200;
/// Typing and presence, each of which asks the database whose it is.
const SIGNALS_AT_ONCE: usize = 16;
/// How long sessions have to disconnect when the process ends.
const STOP_WITHIN: Duration = Duration::from_secs(25);

/// The sessions of this process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    clock: Clock,
    sessions: Mutex<Sessions>,
    wake: Notify,
    /// No more claims.
    stopping: CancellationToken,
    /// No more renewals either.
    stopped: CancellationToken,
    tasks: TaskTracker,
    /// Leases whose sessions ended, and whom to tell that they are given back.
    ended: mpsc::Sender<(Lease, oneshot::Sender<()>)>,
}

#[derive(Default)]
struct Sessions {
    by_id: HashMap<Uuid, Running>,
    by_channel: HashMap<ChannelId, Uuid>,
}

#[derive(Clone)]
struct Running {
    live: Arc<Live>,
    orders: Orders,
}

/// How many sessions this node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    pub connected: usize,
}

impl Manager {
    /// Starts looking for sessions to run. Must be called within a Tokio runtime.
    pub fn start(host: Arc<dyn Host>, settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let route = Route::new(&settings.url).map_err(|_| SettingsError::Address)?;
        let shared = Shared {
            host,
            route: Arc::new(route),
            versions: Versions::new(settings.fixed_version(), settings.http.clone()),
            http: Http {
                client: settings.http.clone(),
                limits: settings.media,
            },
            starting: Arc::new(Semaphore::new(settings.starting_at_once.max(1))),
            signals: Arc::new(Semaphore::new(SIGNALS_AT_ONCE)),
            settings,
        };
        let (ended, to_release) = mpsc::channel(CLAIM_AT_ONCE);
        let inner = Arc::new(Inner {
            shared: Arc::new(shared),
            clock: system_clock(),
            sessions: Mutex::default(),
            wake: Notify::new(),
            stopping: CancellationToken::new(),
            stopped: CancellationToken::new(),
            tasks: TaskTracker::new(),
            ended,
        });
        tokio::spawn(inner.clone().look_for_sessions());
        tokio::spawn(inner.clone().keep_leases());
        tokio::spawn(inner.clone().release_ended(to_release));
        Ok(Self { inner })
    }

    /// Looks for sessions to run now instead of at the next turn.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// Whether messages of this channel can be sent from here.
    #[must_use]
    pub fn is_connected(&self, channel: ChannelId) -> bool {
        self.inner
            .of_channel(channel)
            .is_some_and(|live| live.is_connected())
    }

    /// The channels whose messages can be sent from here.
    #[must_use]
    pub fn connected_channels(&self) -> Vec<ChannelId> {
        let sessions = self.inner.sessions();
        let connected = sessions.by_id.values().filter(|it| it.live.is_connected());
        connected
            .map(|running| running.live.lease.session.channel_id)
            .collect()
    }

    /// The sessions that run here, connected or not.
    #[must_use]
    pub fn running(&self) -> Vec<Uuid> {
        self.inner.sessions().by_id.keys().copied().collect()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let sessions = self.inner.sessions();
        Counts {
            running: sessions.by_id.len(),
            connected: sessions
                .by_id
                .values()
                .filter(|running| running.live.is_connected())
                .count(),
        }
    }

    /// Sends a message and waits for the answer of WhatsApp's server.
    pub async fn send(&self, channel: ChannelId, message: Outgoing) -> Result<Sent, SendFailure> {
        let live = self.inner.of_channel(channel);
        live.ok_or(SendFailure::NotConnected)?.send(message).await
    }

    /// Carries out a command of a session that runs here.
    pub async fn command(
        &self,
        session: Uuid,
        command: Command,
    ) -> Result<serde_json::Value, CommandError> {
        let running = self.inner.sessions().by_id.get(&session).cloned();
        let running = running.ok_or(CommandError::NotHere)?;
        let relink = command == Command::Relink;
        let answer = running.live.command(command).await?;
        if relink {
            running.orders.stop.cancel();
        }
        Ok(answer)
    }

    /// Disconnects all sessions in order, writes what is not written yet and gives the leases back.
    pub async fn stop(self) {
        let inner = &self.inner;
        {
            // Under the lock: no session starts in between.
            let sessions = inner.sessions();
            inner.stopping.cancel();
            for running in sessions.by_id.values() {
                running.orders.stop.cancel();
            }
        }
        inner.tasks.close();
        if tokio::time::timeout(STOP_WITHIN, inner.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "not every session disconnected in time; their leases run out by themselves"
            );
        }
        inner.stopped.cancel();
    }
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_channel(&self, channel: ChannelId) -> Option<Arc<Live>> {
        let sessions = self.sessions();
        let id = sessions.by_channel.get(&channel)?;
        sessions.by_id.get(id).map(|running| running.live.clone())
    }

    /// At once and then now and again; several nodes do not look in step.
    async fn look_for_sessions(self: Arc<Self>) {
        let every = self.shared.settings.look_every;
        loop {
            let more = self.claim().await;
            let pause = if more {
                Duration::ZERO
            } else {
                every.mul_f64(0.75 + f64::from(rand::random::<u8>()) / 512.0)
            };
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Returns whether there may be more.
    async fn claim(self: &Arc<Self>) -> bool {
        let settings = &self.shared.settings;
        let room = settings
            .max_sessions
            .saturating_sub(self.sessions().by_id.len())
            .min(CLAIM_AT_ONCE);
        if room == 0 || self.stopping.is_cancelled() {
            return false;
        }
        let asked = (self.clock)();
        let claim = self.shared.host.claim(room, settings.lease);
        let claimed = match tokio::time::timeout(settings.lease, claim).await {
            Ok(Ok(claimed)) => claimed,
            Ok(Err(error)) => {
                tracing::warn!(%error, "sessions to run cannot be asked for");
                return false;
            }
            // Whatever was claimed runs out unused.
            Err(_) => return false,
        };
        let more = claimed.len() == room;
        let mut unwanted = Vec::new();
        for claimed in claimed {
            let lease = claimed.lease;
            if !self.start_session(claimed, asked) {
                unwanted.push(lease);
            }
        }
        if !unwanted.is_empty() {
            self.release(&unwanted).await;
            // Its old task is about to end; not in a tight circle.
            return false;
        }
        more
    }

    /// False if an earlier task of the session has not ended yet, or the process is stopping.
    fn start_session(self: &Arc<Self>, claimed: Claimed, asked: u64) -> bool {
        let lease = claimed.lease;
        let ttl = self.shared.settings.lease;
        let deadline = Arc::new(Deadline::new(self.clock.clone(), asked, ttl));
        let orders = Orders::default();
        let live = Live::new(self.shared.clone(), lease, claimed.options, deadline);
        {
            let mut sessions = self.sessions();
            if self.stopping.is_cancelled() || sessions.by_id.contains_key(&lease.session.id) {
                return false;
            }
            sessions
                .by_channel
                .insert(lease.session.channel_id, lease.session.id);
            let running = Running {
                live: live.clone(),
                orders: orders.clone(),
            };
            sessions.by_id.insert(lease.session.id, running);
        }
        let inner = self.clone();
        self.tasks.spawn(async move {
            // In a task of its own: a panic of one session is that session's.
            if let Err(error) = tokio::spawn(run(live, orders)).await {
                tracing::error!(session = %lease.session.id, %error, "a session's task died");
            }
            inner.forget(&lease);
            let (done, released) = oneshot::channel();
            if inner.ended.send((lease, done)).await.is_ok() {
                // An error means the same: nobody will give it back.
                let _ = released.await;
            }
        });
        true
    }

    fn forget(&self, lease: &Lease) {
        let mut sessions = self.sessions();
        if let Some(running) = sessions.by_id.remove(&lease.session.id) {
            running.live.deadline.cut();
        }
        let channel = lease.session.channel_id;
        if sessions.by_channel.get(&channel) == Some(&lease.session.id) {
            sessions.by_channel.remove(&channel);
        }
    }

    /// Many sessions that end together make few requests. A lease that went to another node is given back in vain.
    async fn release_ended(
        self: Arc<Self>,
        mut ended: mpsc::Receiver<(Lease, oneshot::Sender<()>)>,
    ) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = ended.recv_many(&mut batch, CLAIM_AT_ONCE) => {}
                () = self.stopped.cancelled() => return,
            }
            let (leases, done): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            self.release(&leases).await;
            // One of them may be wanted again.
            self.wake.notify_one();
            for done in done {
                // Its session's task may have been given up.
                let _ = done.send(());
            }
        }
    }

    async fn release(&self, leases: &[Lease]) {
        let release = self.shared.host.release(leases);
        match tokio::time::timeout(self.shared.settings.lease, release).await {
            Ok(Ok(()) | Err(HostError::LeaseLost)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "leases are not given back; they run out by themselves");
            }
            Err(_) => tracing::warn!("leases are not given back; they run out by themselves"),
        }
    }

    async fn keep_leases(self: Arc<Self>) {
        let settings = &self.shared.settings;
        let mut turn = tokio::time::interval(settings.renew_every);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stopped.cancelled() => return,
                _ = turn.tick() => {}
            }
            self.cut_overdue();
            let leases: Vec<Lease> = self
                .sessions()
                .by_id
                .values()
                .filter(|running| running.live.deadline.holds())
                .map(|running| running.live.lease)
                .collect();
            if leases.is_empty() {
                continue;
            }
            let asked = (self.clock)();
            let renew = self.shared.host.renew(&leases, settings.lease);
            match tokio::time::timeout(settings.renew_every, renew).await {
                Ok(Ok(renewed)) => self.renewed(&leases, &renewed, asked),
                Ok(Err(error)) => tracing::warn!(%error, "leases are not renewed"),
                Err(_) => tracing::warn!("leases are not renewed: the database does not answer"),
            }
            self.cut_overdue();
        }
    }

    fn renewed(&self, asked_for: &[Lease], renewed: &[Lease], asked: u64) {
        let renewed: std::collections::HashSet<&Lease> = renewed.iter().collect();
        let sessions = self.sessions();
        for lease in asked_for {
            let Some(running) = sessions.by_id.get(&lease.session.id) else {
                continue;
            };
            // A younger lease of the same session was not asked for.
            if running.live.lease != *lease {
                continue;
            }
            let kept = renewed.contains(lease)
                && running
                    .live
                    .deadline
                    .extend(asked, self.shared.settings.lease);
            if !kept {
                running.live.deadline.cut();
                running.orders.lost.cancel();
            }
        }
    }

    fn cut_overdue(&self) {
        for running in self.sessions().by_id.values() {
            if !running.live.deadline.holds() && !running.orders.lost.is_cancelled() {
                tracing::warn!(session = %running.live.lease.session.id, "a session's lease ran out");
                running.orders.lost.cancel();
            }
        }
    }
}
