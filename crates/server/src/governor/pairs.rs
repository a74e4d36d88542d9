//! How often one person may be written to by one sender, as the provider allows (`Capabilities::pair_pace`).
//!
//! In memory: another process, or this one after a restart, starts anew, and should that be too fast the provider's own
//! refusal makes the message wait.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use wasel_domain::limits::Pace;
use wasel_providers::PairPace;

use super::rules::Letter;

/// Pairs that are remembered. Each is remembered for a few seconds after its last message: this many are more than any
/// sender's rate makes.
const MAX_PAIRS: usize = 200_000;
const FIRST_PRUNING: usize = 1024;

/// When each pair's next message would be due by the pace alone.
pub struct Pairs {
    kept: HashMap<(Uuid, Uuid), DateTime<Utc>>,
    prune_at: usize,
}

impl Default for Pairs {
    fn default() -> Self {
        Self {
            kept: HashMap::new(),
            prune_at: FIRST_PRUNING,
        }
    }
}

fn pace_of(pace: PairPace) -> Pace {
    let every = TimeDelta::from_std(pace.every).unwrap_or(TimeDelta::MAX);
    Pace::new(every, pace.burst)
}

impl Pairs {
    /// What to remember if it goes, or until when it waits.
    fn next(
        &self,
        letter: &Letter<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, DateTime<Utc>> {
        let Some(pace) = letter.pair_pace else {
            return Ok(None);
        };
        let kept = self.kept.get(&key(letter)).copied();
        pace_of(pace).next(kept, now).map(Some)
    }

    pub fn may_go(&self, letter: &Letter<'_>, now: DateTime<Utc>) -> Result<(), DateTime<Utc>> {
        self.next(letter, now).map(drop)
    }

    pub fn count(&mut self, letter: &Letter<'_>, now: DateTime<Utc>) {
        if let Ok(Some(next)) = self.next(letter, now) {
            self.kept.insert(key(letter), next);
            self.prune(now);
        }
    }

    /// Forgets those who have their whole burst again. Done rarely enough that it costs each message next to nothing.
    fn prune(&mut self, now: DateTime<Utc>) {
        if self.kept.len() < self.prune_at {
            return;
        }
        self.kept.retain(|_, next| *next > now);
        if self.kept.len() >= MAX_PAIRS {
            self.kept.clear();
        }
        self.prune_at = (self.kept.len() * 2).clamp(FIRST_PRUNING, MAX_PAIRS);
    }
}

fn key(letter: &Letter<'_>) -> (Uuid, Uuid) {
    (letter.message.channel_id, letter.message.contact_id)
}
