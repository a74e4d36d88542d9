//! The other servers on the same database: broadcast and presence reach the people on them.
//!
//! Each node says every few seconds that it lives. While others live it writes what they must hear into a table and
//! reads there what they wrote; alone it does neither. Delivery is best effort and in each node's order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;
use wasel_db::{Db, node_messages};
use wasel_jobs::{Job, JobError, Next};
use wasel_realtime::{Hub, PeerMessage, Peers};

/// Between signs of life. A node is given up after [`node_messages::DEAD_AFTER`] without one.
const BEAT: Duration = Duration::from_secs(2);
/// Between looks for messages while other nodes live.
const LISTEN: Duration = Duration::from_millis(50);
/// The shortest time between batches of our own.
const PACE: Duration = Duration::from_millis(10);
/// Messages and bytes of one batch.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1024 * 1024;
/// Messages and bytes of each node read at once; one message may be larger.
const PAGE: i64 = 1000;
const PAGE_BYTES: i64 = 4 * 1024 * 1024;
/// Beyond this broadcasts are dropped, and beyond twice as much presence, too.
const MAX_QUEUED: usize = 20_000;
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// A broadcast is of no use later.
const WORTH: Duration = Duration::from_secs(10);

/// What is to be told to the other nodes.
pub struct NodeLink {
    node: Uuid,
    others_live: AtomicBool,
    queue: Mutex<Queue>,
    wake: Arc<Notify>,
    dropped: AtomicU64,
    /// Presence was dropped: it must be told anew.
    must_introduce: AtomicBool,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Default for NodeLink {
    fn default() -> Self {
        Self {
            node: Uuid::now_v7(),
            others_live: AtomicBool::new(false),
            queue: Mutex::default(),
            wake: Arc::default(),
            dropped: AtomicU64::new(0),
            must_introduce: AtomicBool::new(false),
        }
    }
}

impl NodeLink {
    /// Notified when there is something to write.
    #[must_use]
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_batch(&self) -> Vec<Vec<u8>> {
        let mut queue = self.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(message) = queue.messages.front()
            && batch.len() < BATCH
            && (batch.is_empty() || bytes + message.len() <= BATCH_BYTES)
        {
            bytes += message.len();
            batch.extend(queue.messages.pop_front());
        }
        queue.bytes -= bytes;
        batch
    }
}

impl Peers for NodeLink {
    fn any(&self) -> bool {
        self.others_live.load(Ordering::Relaxed)
    }

    fn send(&self, message: &PeerMessage) {
        let is_broadcast = matches!(message, PeerMessage::Broadcast { .. });
        let bytes = message.encode();
        let mut queue = self.lock();
        let share = if is_broadcast { 1 } else { 2 };
        let is_full = queue.messages.len() >= share * MAX_QUEUED
            || queue.bytes + bytes.len() > share * MAX_QUEUED_BYTES;
        if is_full {
            drop(queue);
            let before = self.dropped.fetch_add(1, Ordering::Relaxed);
            if before.is_multiple_of(1000) {
                tracing::warn!(
                    dropped = before + 1,
                    "messages for other nodes are dropped: they come faster than the database takes them"
                );
            }
            if !is_broadcast {
                self.must_introduce.store(true, Ordering::Relaxed);
            }
            return;
        }
        queue.bytes += bytes.len();
        queue.messages.push_back(bytes);
        drop(queue);
        self.wake.notify_one();
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Writes what the others must hear.
pub struct TellNodes {
    db: Db,
    link: Arc<NodeLink>,
    /// Number of the first message of the batch under way.
    next: AtomicI64,
    batch: tokio::sync::Mutex<(Vec<Vec<u8>>, Instant)>,
}

impl TellNodes {
    #[must_use]
    pub fn new(db: Db, link: Arc<NodeLink>) -> Self {
        Self {
            db,
            link,
            next: AtomicI64::new(1),
            batch: tokio::sync::Mutex::new((Vec::new(), Instant::now())),
        }
    }
}

#[async_trait]
impl Job for TellNodes {
    const NAME: &'static str = "tell_nodes";

    async fn run(&self) -> Result<Next, JobError> {
        let mut batch = self.batch.lock().await;
        tokio::time::sleep_until(batch.1 + PACE).await;
        batch.1 = Instant::now();
        if batch.0.is_empty() {
            batch.0 = self.link.take_batch();
        }
        if batch.0.is_empty() {
            return Ok(Next::After(BEAT));
        }
        // A batch that could not be written is tried again under the same numbers.
        let first = self.next.load(Ordering::Relaxed);
        let mut tx = self.db.system().await?;
        node_messages::insert(&mut tx, self.link.node, first, &batch.0).await?;
        tx.commit().await?;
        let written = i64::try_from(batch.0.len()).unwrap_or(i64::MAX);
        self.next.store(first + written, Ordering::Relaxed);
        batch.0.clear();
        Ok(Next::Now)
    }
}

/// Says that this node lives, notices which others do, and reads what they tell.
pub struct FollowNodes {
    db: Db,
    hub: Arc<Hub>,
    link: Arc<NodeLink>,
    heard: tokio::sync::Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    beat_at: Option<Instant>,
    others: HashSet<Uuid>,
    /// The last number read of each node, also of those that are gone: they may only have been slow.
    read: HashMap<Uuid, i64>,
}

impl FollowNodes {
    #[must_use]
    pub fn new(db: Db, hub: Arc<Hub>, link: Arc<NodeLink>) -> Self {
        Self {
            db,
            hub,
            link,
            heard: tokio::sync::Mutex::default(),
        }
    }

    async fn beat(&self, heard: &mut Heard) -> Result<(), wasel_db::Error> {
        let mut tx = self.db.system().await?;
        let is_new_here = node_messages::beat(&mut tx, self.link.node).await?;
        let others: HashSet<Uuid> = node_messages::list_others(&mut tx, self.link.node)
            .await?
            .into_iter()
            .collect();
        tx.commit().await?;
        heard.beat_at = Some(Instant::now());
        self.link
            .others_live
            .store(!others.is_empty(), Ordering::Relaxed);
        for gone in heard.others.difference(&others) {
            tracing::info!(node.id = %gone, "another node is gone");
            self.hub.peer_left(*gone);
        }
        let mut has_come = false;
        for come in others.difference(&heard.others) {
            tracing::info!(node.id = %come, "another node is here");
            has_come = true;
        }
        heard.others = others;
        let dropped = self.link.must_introduce.swap(false, Ordering::Relaxed);
        if (has_come || is_new_here || dropped) && self.link.any() {
            self.hub.introduce();
        }
        Ok(())
    }

    /// Reads one page of every node; `true` when there may be more.
    async fn listen(&self, heard: &mut Heard) -> Result<bool, wasel_db::Error> {
        let nodes: Vec<Uuid> = heard.others.iter().copied().collect();
        let after: Vec<i64> = nodes
            .iter()
            .map(|node| heard.read.get(node).copied().unwrap_or(0))
            .collect();
        let mut tx = self.db.system().await?;
        let page = node_messages::PageSize {
            messages: PAGE,
            bytes: PAGE_BYTES,
        };
        let is_stale_broadcast = (PeerMessage::BROADCAST_PREFIX, WORTH);
        let messages =
            node_messages::list_after(&mut tx, &nodes, &after, page, is_stale_broadcast).await?;
        tx.commit().await?;
        let is_full = messages
            .iter()
            .any(|message| message.number >= PAGE || message.bytes >= PAGE_BYTES);
        for message in messages {
            heard.read.insert(message.node_id, message.seq);
            let Some(body) = message.body else {
                continue;
            };
            match PeerMessage::decode(&body) {
                Some(told) => self.hub.receive(message.node_id, told),
                None => {
                    tracing::debug!(node.id = %message.node_id, "a message of another node was not understood");
                }
            }
        }
        Ok(is_full)
    }
}

#[async_trait]
impl Job for FollowNodes {
    const NAME: &'static str = "follow_nodes";

    async fn run(&self) -> Result<Next, JobError> {
        let mut heard = self.heard.lock().await;
        if heard.beat_at.is_none_or(|at| at.elapsed() >= BEAT) {
            self.beat(&mut heard).await?;
        }
        if heard.others.is_empty() {
            return Ok(Next::After(BEAT));
        }
        let more = self.listen(&mut heard).await?;
        Ok(if more { Next::Now } else { Next::After(LISTEN) })
    }

    /// The others need not wait to notice.
    async fn finish(&self) {
        let leave = async {
            let mut tx = self.db.system().await?;
            node_messages::delete(&mut tx, self.link.node).await?;
            tx.commit().await
        };
        if let Err(error) = leave.await {
            tracing::debug!(%error, "this node could not take its leave");
        }
    }
}
