//! Channels that are behind: those that come back with `after`, and those whose socket reads too slowly for what
//! happens. While behind, a channel takes nothing from the hub; it reads the log at its own pace, as fast as its socket
//! takes frames, and goes live in the moment in which it has read all that was announced. So what waits for a slow
//! reader is bounded, nobody waits for it, and nothing is lost or told twice.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use super::groups::Requeued;
use super::tenant::{Tenant, TopicKey};
use super::{Hub, lock};
use crate::catalog::Catalog;
use crate::history::{Ask, History, HistoryError, Page};
use crate::outbox::Outbox;
use crate::socket::messages;

/// Before history is asked again after it could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a channel stands that is behind.
#[derive(Debug)]
pub(super) struct Behind {
    /// Tells it from the channel that takes its place when the client joins again.
    pub number: u64,
    /// Everything up to here was queued for it, or is not for it.
    pub read: i64,
    /// The round that must have ended before the position of the log counts.
    pub fence: u64,
    /// For a channel that comes back: what each binding has heard already. `None` begins where the log stands.
    pub heard: Option<Box<[Option<i64>]>>,
    /// Somebody reads history for it.
    pub attended: bool,
}

impl Behind {
    pub fn new(read: i64, heard: Option<Box<[Option<i64>]>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            read,
            fence: 0,
            heard,
            attended: false,
        }
    }
}

/// A channel for as long as it is behind.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub topic: TopicKey,
    pub socket: u64,
    /// That of its [`Behind`].
    pub number: u64,
}

/// What a channel asks of history when it comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ComesBack {
    /// The highest number that a binding has heard. The log must have given it out.
    pub highest: Option<i64>,
}

/// One channel's way back to the present. Runs until it is live or gone.
pub(super) struct CatchUp {
    pub hub: Arc<Hub>,
    pub history: Arc<dyn History>,
    pub org_id: Uuid,
    pub tenant: Arc<Mutex<Tenant>>,
    pub place: Place,
    pub outbox: Arc<Outbox>,
}

impl CatchUp {
    pub async fn run(self) {
        let Some(fence) = lock(&self.tenant).fence(&self.place) else {
            return;
        };
        let counters = &self.hub.counters;
        counters.catch_ups.fetch_add(1, Ordering::Relaxed);
        let mut upto = self.hub.position.after(fence, None).await;
        // Bindings that have heard nothing yet begin here.
        let begun = lock(&self.tenant).begin_from(&self.place, upto);
        let Some(comes_back) = begun else {
            return;
        };
        let mut check = comes_back.is_some();
        if let Some(highest) = comes_back.and_then(|it| it.highest)
            && self.check_given_out(highest, upto).await.is_none()
        {
            return;
        }
        loop {
            if self.read(upto, check).await.is_none() {
                return;
            }
            check = false;
            let is_live = lock(&self.tenant).go_live(&self.place, upto);
            if is_live != Some(false) {
                return;
            }
            upto = self.hub.position.after(0, Some(upto)).await;
        }
    }

    /// Reads and queues everything up to `upto`; `None` when the channel has ended. With `check`, history is asked at
    /// least once: it knows whether it reaches back that far.
    async fn read(&self, upto: i64, mut check: bool) -> Option<()> {
        loop {
            poll_fn(|cx| self.outbox.poll_room(cx)).await;
            // Held until the page is queued: so many pages are in memory at most.
            let permit = self.hub.history_reads.acquire().await.ok()?;
            let catalog = self.hub.catalog();
            let unread = lock(&self.tenant).unread(&self.place, &catalog);
            let (after, names) = unread?;
            if (after >= upto || names.is_empty()) && !check {
                return Some(());
            }
            let ask = Ask {
                org_id: self.org_id,
                names: &names,
                after,
                upto,
                limit: self.hub.limits.history_rows,
            };
            match self.history.page(ask).await {
                Ok(page) => {
                    check = false;
                    self.queue(&page, &catalog)?;
                }
                Err(HistoryError::Expired) => {
                    return self.start_over(after, upto);
                }
                Err(HistoryError::Unavailable(error)) => {
                    tracing::warn!(%error, "history could not be read and will be tried again");
                    drop(permit);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Makes sure that the log has given out the highest number that a binding names. It may be beyond what was
    /// announced here, told by another node; a lower one beside it would hide that it is beyond the log. `None` when the
    /// channel has ended.
    async fn check_given_out(&self, highest: i64, upto: i64) -> Option<()> {
        loop {
            let permit = self.hub.history_reads.acquire().await.ok()?;
            let catalog = self.hub.catalog();
            let (_, names) = lock(&self.tenant).unread(&self.place, &catalog)?;
            let ask = Ask {
                org_id: self.org_id,
                names: &names,
                after: highest,
                upto: highest,
                limit: 1,
            };
            match self.history.page(ask).await {
                Ok(_) => return Some(()),
                Err(HistoryError::Expired) => return self.start_over(highest, upto),
                Err(HistoryError::Unavailable(error)) => {
                    tracing::warn!(%error, "history could not be read and will be tried again");
                    drop(permit);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Says that history is of no use and lets the channel go on from `upto`. `None` when it has ended.
    fn start_over(&self, after: i64, upto: i64) -> Option<()> {
        let mut tenant = lock(&self.tenant);
        tenant.start_over(&self.place, upto)?;
        let text = format!(
            "changes after {after} are no longer kept: load the rows anew, then go on from {upto}"
        );
        let vsn = self.outbox.vsn;
        let frame = messages::changes_problem(vsn, &self.place.topic.name, &text);
        self.outbox.push(frame);
        Some(())
    }

    /// Queues what fits of a page; the rest is read again. `None` when the channel has ended.
    fn queue(&self, page: &Page, catalog: &Catalog) -> Option<()> {
        let mut tenant = lock(&self.tenant);
        let mut delivered = 0;
        let mut read = page.upto;
        for row in page.changes.chunk_by(|a, b| a.seq == b.seq) {
            match tenant.requeue(&self.place, row, catalog)? {
                Requeued::Frames(frames) => delivered += frames,
                Requeued::NoRoom => {
                    read = row.first().map_or(read, |change| change.seq - 1);
                    break;
                }
            }
        }
        tenant.has_read(&self.place, read);
        drop(tenant);
        self.hub.count_deliveries(delivered);
        let read_again = &self.hub.counters.changes_read_again;
        read_again.fetch_add(
            u64::try_from(delivered).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use serde_json::json;

    use super::super::position::Position;
    use super::super::tenant::{Around, Join};
    use super::*;
    use crate::auth::Scope;
    use crate::binding;
    use crate::codec::Vsn;
    use crate::limits::Limits;

    #[test]
    fn a_way_back_that_was_given_up_does_nothing_to_the_channel_in_its_place() {
        let (catalog, interest, position) =
            (Catalog::default(), RwLock::default(), Position::default());
        position.settle(10);
        let around = Around {
            catalog: &catalog,
            interest: &interest,
            position: &position,
            has_history: true,
        };
        let outbox = Arc::new(Outbox::new(Vsn::V2, &Limits::default()));
        let topic = TopicKey {
            name: Arc::from("realtime:x"),
            private: false,
        };
        let mut tenant = Tenant::default();
        let join = |tenant: &mut Tenant| {
            let list = json!([{"event": "*", "schema": "public", "table": "messages", "after": 5}]);
            let join = Join {
                socket: 1,
                outbox: &outbox,
                topic: topic.clone(),
                join_ref: "1",
                reference: None,
                asked: binding::read(Some(&list)).expect("bindings"),
                user_id: None,
                presence_key: "k".to_owned(),
                hears_presence: false,
                wants_replay: false,
            };
            let scope = Scope {
                role: Arc::from("authenticated"),
                channels: None,
            };
            tenant.join(join, scope, &around);
            tenant.attend(&topic, 1).expect("it is behind")
        };
        let old = join(&mut tenant);
        tenant.leave(&topic, 1, &interest);
        let new = join(&mut tenant);
        assert_ne!(old.number, new.number);
        tenant.has_read(&old, 9);
        assert_eq!(tenant.start_over(&old, 9), None);
        assert_eq!(tenant.begin_from(&old, 9), None);
        assert_eq!(tenant.go_live(&old, 10), None);
        assert_eq!(tenant.unread(&old, &catalog), None);
        assert_eq!(tenant.unread(&new, &catalog).map(|(read, _)| read), Some(5));
        assert_eq!(tenant.go_live(&new, 10), Some(true));
    }
}
