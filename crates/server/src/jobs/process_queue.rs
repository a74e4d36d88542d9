//! Works off the notification queue.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use uuid::Uuid;
use wasel_db::notification_queue;
use wasel_jobs::{Job, JobError, Next};

use crate::queue;
use crate::state::AppState;

/// A wake-up comes with the rows (`jobs::listen_queue`); this is for databases where nobody hears it.
const POLL: Duration = Duration::from_secs(5);
/// While others have the rows that are due.
const BUSY: Duration = Duration::from_millis(100);
/// How often to look for rows that another program left `processing`.
const STRAYS: Duration = Duration::from_secs(15);

pub struct ProcessQueue {
    state: AppState,
    place: Mutex<Place>,
}

/// A sweep goes from the first tenant to the last; a long one takes several rounds.
struct Place {
    /// The last tenant that had its turn in this sweep.
    after: Uuid,
    /// Nothing was free to be worked on in this sweep.
    idle: bool,
    strays_at: Option<Instant>,
}

impl ProcessQueue {
    #[must_use]
    pub fn new(state: AppState) -> Self {
        let place = Mutex::new(Place {
            after: Uuid::nil(),
            idle: true,
            strays_at: None,
        });
        Self { state, place }
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Job for ProcessQueue {
    const NAME: &'static str = "process_queue";

    async fn run(&self) -> Result<Next, JobError> {
        if self
            .place()
            .strays_at
            .is_none_or(|at| at.elapsed() >= STRAYS)
        {
            let mut tx = self.state.db.system().await?;
            notification_queue::release_strays(&mut tx).await?;
            tx.commit().await?;
            self.place().strays_at = Some(Instant::now());
        }
        let after = self.place().after;
        let round = queue::process_round(&self.state, None, after, i64::MAX).await?;
        let goes_on = {
            let mut place = self.place();
            place.idle &= round.tally.total() == 0;
            match round.next {
                Some(next) => {
                    place.after = next;
                    true
                }
                None => {
                    place.after = Uuid::nil();
                    !std::mem::replace(&mut place.idle, true)
                }
            }
        };
        if goes_on {
            return Ok(Next::Now);
        }
        let mut tx = self.state.db.system().await?;
        let due = notification_queue::next_due_in(&mut tx).await?;
        tx.commit().await?;
        Ok(Next::After(due.map_or(POLL, |due| due.clamp(BUSY, POLL))))
    }
}
