//! Follows the change log and feeds the realtime hub, the change feed and the channel registry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use uuid::Uuid;
use wasel_db::Db;
use wasel_db::changes::{self, Change, DOCUMENT_NAMES, Horizon};
use wasel_domain::UserId;
use wasel_jobs::{Job, JobError, Next};
use wasel_realtime::{Catalog, Column, Hub, TableInfo};

use crate::auth::AuthContext;
use crate::history;
use crate::registry::Registry;

/// Rows per round.
const BATCH: i64 = 1000;
/// While a transaction holds rows back: it ends within milliseconds.
const WAITING: Duration = Duration::from_millis(2);
/// After a change: another one is likely.
const BUSY: Duration = Duration::from_millis(25);
/// The longest pause. Our own commits wake the tail at once; this is for other nodes' and outside programs' writes.
const IDLE: Duration = Duration::from_millis(250);
/// The same while somebody listens.
const HEARD_IDLE: Duration = Duration::from_millis(100);

/// The shortest time between rounds.
const PACE: Duration = Duration::from_millis(5);
/// The same while no socket is open.
const UNHEARD_PACE: Duration = Duration::from_millis(20);
/// Tables whose changes the server itself acts on.
const OWN_TABLES: [&str; 4] = ["channels", "organizations", "profiles", "channel_members"];

/// How far the log has been read: up to here nothing is missing. Readers wait on it.
#[derive(Clone, Debug)]
pub struct TailPosition(watch::Receiver<i64>);

impl TailPosition {
    /// The last sequence number that was handed out.
    #[must_use]
    pub fn get(&self) -> i64 {
        *self.0.borrow()
    }

    /// Waits until the log goes beyond `seq`.
    pub async fn wait_beyond(&mut self, seq: i64) {
        // The sender lives as long as the server; when it is gone nothing more will come.
        if self.0.wait_for(|position| *position > seq).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The job that follows the log.
pub struct Tail {
    db: Db,
    auth: AuthContext,
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    position: watch::Sender<i64>,
    progress: Mutex<Progress>,
}

struct Progress {
    horizon: Horizon,
    /// `None` until the first look: history is not replayed to the hub.
    read: Option<i64>,
    pause: Duration,
    last_round: Instant,
}

impl Tail {
    #[must_use]
    pub fn new(auth: AuthContext, hub: Arc<Hub>, registry: Arc<Registry>) -> (Self, TailPosition) {
        let (position, receiver) = watch::channel(0);
        let progress = Mutex::new(Progress {
            horizon: Horizon::default(),
            read: None,
            pause: BUSY,
            last_round: Instant::now(),
        });
        (
            Self {
                db: auth.db.clone(),
                auth,
                hub,
                registry,
                position,
                progress,
            },
            TailPosition(receiver),
        )
    }

    /// Who lost a membership or a channel must stop hearing of it at once.
    fn recheck_members(&self, rows: &[Change]) {
        for row in rows {
            let column = match row.table_name.as_str() {
                "profiles" => "id",
                "channel_members" => "user_id",
                _ => continue,
            };
            let fields = row.record.as_ref().or(row.old_record.as_ref());
            let user = fields.and_then(|fields| fields.get(column)?.as_str()?.parse().ok());
            if let Some(user) = user {
                self.auth.forget_standing(UserId(user));
            }
            // Every node follows the log: nobody needs to tell the others.
            self.hub.recheck_here(row.org_id, user);
        }
    }
}

#[async_trait]
impl Job for Tail {
    const NAME: &'static str = "tail_changes";

    async fn run(&self) -> Result<Next, JobError> {
        let mut progress = self.progress.lock().await;
        // Every commit wakes us; under load one round serves many.
        let (pace, idle) = if self.hub.stats().sockets == 0 {
            (UNHEARD_PACE, IDLE)
        } else {
            (PACE, HEARD_IDLE)
        };
        tokio::time::sleep_until(progress.last_round + pace).await;
        progress.last_round = Instant::now();
        let mut tx = self.db.system().await?;
        progress.horizon.observe(&mut tx).await?;
        let settled = progress.horizon.settled();
        let Some(read) = progress.read else {
            if progress.horizon.is_waiting() && settled == 0 {
                return Ok(Next::After(WAITING));
            }
            progress.read = Some(settled);
            self.hub.settle(settled);
            self.position.send_replace(settled);
            return Ok(Next::Now);
        };
        let mut wanted = Vec::new();
        let rows = if settled > read {
            // Chosen after the look at the log: whoever joins from here on is told what commits from here on.
            wanted = self.hub.begin_round();
            let mut tables = history::tables_of(&wanted);
            tables.extend(OWN_TABLES);
            changes::list_all(&mut tx, &tables, read, settled, BATCH).await?
        } else {
            Vec::new()
        };
        tx.commit().await?;
        let full = rows.len() as i64 == BATCH;
        if !rows.is_empty() {
            if rows
                .iter()
                .any(|row| row.table_name == "channels" || row.table_name == "organizations")
            {
                self.registry.reload().await?;
            }
            self.recheck_members(&rows);
            let told = history::tell(&self.db, &rows, &wanted).await?;
            self.hub.publish(&told);
        }
        // Numbers without a row are rolled back ones: they are settled too.
        let now_read = if full {
            rows.last().map_or(settled, |row| row.seq)
        } else {
            settled.max(read)
        };
        progress.read = Some(now_read);
        if now_read > read {
            self.hub.settle(now_read);
            self.position.send_replace(now_read);
            progress.pause = BUSY;
        } else {
            progress.pause = (progress.pause * 2).min(idle);
        }
        Ok(if full {
            Next::Now
        } else if progress.horizon.is_waiting() {
            Next::After(WAITING)
        } else {
            Next::After(progress.pause)
        })
    }
}

/// The messaging channel a row belongs to: an agent may be limited to some.
#[must_use]
pub fn channel_of(row: &Change) -> Option<Uuid> {
    let fields = row.record.as_ref().or(row.old_record.as_ref())?;
    let column = if row.table_name == "channels" {
        "id"
    } else {
        "channel_id"
    };
    fields.get(column)?.as_str()?.parse().ok()
}

/// What can be listened to, from the database's own catalogue.
pub async fn read_catalog(db: &Db) -> Result<Catalog, wasel_db::Error> {
    let mut tx = db.system().await?;
    let columns = changes::list_columns(&mut tx).await?;
    tx.commit().await?;
    let mut tables: HashMap<String, TableInfo> = HashMap::new();
    for column in columns {
        let table = tables
            .entry(column.table_name.clone())
            .or_insert_with(|| TableInfo {
                alias: DOCUMENT_NAMES
                    .iter()
                    .any(|name| name.name == column.table_name),
                ..TableInfo::default()
            });
        if column.is_key {
            table.primary_key.push(column.column_name.clone());
        }
        table.columns.push(Column {
            name: column.column_name,
            type_: column.udt_name,
        });
    }
    Ok(Catalog(tables))
}
