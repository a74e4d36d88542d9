//! Looks whether the people with open sockets still have the rights with which they opened them.
//!
//! Memberships and channel limits are followed in the change log, which tells at once. This is for what the log does not
//! tell, such as the end of a session, and for the case that it stands still because somebody's transaction does. One
//! query asks for everybody, so that it costs the same whether ten sockets are open or ten thousand.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;
use wasel_db::rights;
use wasel_domain::UserId;
use wasel_jobs::{Job, JobError, Next};

use crate::state::AppState;

/// Between looks for sessions that have ended.
const SESSIONS: Duration = Duration::from_secs(5);
/// So far back sessions are looked for: a few rounds may fail.
const SESSIONS_WINDOW: i32 = 30;
/// Between looks at everybody's rights.
const RIGHTS: Duration = Duration::from_secs(15);

pub struct WatchRights {
    state: AppState,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    looked_at: Option<Instant>,
    marks: HashMap<(Uuid, Uuid), String>,
    /// Sessions whose end was seen to.
    ended: HashSet<Uuid>,
}

impl WatchRights {
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self {
            state,
            known: Mutex::default(),
        }
    }
}

#[async_trait]
impl Job for WatchRights {
    const NAME: &'static str = "watch_rights";

    async fn run(&self) -> Result<Next, JobError> {
        let hub = &self.state.hub;
        let users = hub.users();
        let mut known = self.known.lock().await;
        if users.is_empty() {
            known.marks.clear();
            return Ok(Next::After(SESSIONS));
        }
        let look_at_all = known.looked_at.is_none_or(|at| at.elapsed() >= RIGHTS);
        let asked: Vec<(Uuid, Uuid)> = users
            .iter()
            .filter(|who| look_at_all || !known.marks.contains_key(who))
            .copied()
            .collect();
        let (orgs, people): (Vec<_>, Vec<_>) = asked.iter().copied().unzip();
        let mut tx = self.state.db.system().await?;
        let ended = rights::list_ended_sessions(&mut tx, SESSIONS_WINDOW).await?;
        let marks = rights::marks(&mut tx, &orgs, &people).await?;
        tx.commit().await?;
        let news: HashSet<Uuid> = ended
            .iter()
            .filter(|(session, _)| !known.ended.contains(session))
            .map(|(_, user)| *user)
            .collect();
        for (org_id, user) in users.iter().filter(|(_, user)| news.contains(user)) {
            hub.recheck_here(*org_id, Some(*user));
        }
        known.ended = ended.into_iter().map(|(session, _)| session).collect();
        for (who, mark) in asked.into_iter().zip(marks) {
            let before = known.marks.insert(who, mark.clone());
            if before.is_some_and(|before| before != mark) {
                self.state.auth.forget_standing(UserId(who.1));
                hub.recheck_here(who.0, Some(who.1));
            }
        }
        if look_at_all {
            let here: HashSet<_> = users.into_iter().collect();
            known.marks.retain(|who, _| here.contains(who));
            known.looked_at = Some(Instant::now());
        }
        Ok(Next::After(SESSIONS))
    }
}
