//! The governor: may this message leave now, and if not, why and until when?
//!
//! Asked for every batch the sender claims, right before it leaves, because much may have changed since the message was
//! queued. What is certain already when a message is asked for is refused there (`outbound`), so that the caller hears
//! it at once. How fast a channel may send as a whole is not asked here: the sender's lanes hold to it.
//!
//! A batch of any size and of any number of tenants costs the same few statements. Messages are judged in their order, and
//! those before count for those after.

mod counts;
mod pairs;
mod rules;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use wasel_db::SystemTx;
use wasel_db::outbox::Claimed;
use wasel_domain::{Category, window};
use wasel_providers::{ErrorClass, SendError};

use crate::registry::Channel;
use counts::{Caps, Promises, Reaches};
use pairs::Pairs;
use rules::{Letter, Rules};

pub use rules::reach_groups;

/// Why the governor lets a message wait; with the queue's own reasons, the `hold_reason` column of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// This person has been written to too often in a short time (the provider's pair rate).
    PairPace,
    /// The recipient is to be left alone at this hour.
    QuietHours,
    /// The recipient got as many messages of this kind as the organisation allows.
    FrequencyCap,
    /// As many people have been written to in 24 hours as the provider allows.
    DailyReach,
    /// A new number writes to few people at first.
    WarmUp,
}

impl HoldReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PairPace => "pair_pace",
            Self::QuietHours => "quiet_hours",
            Self::FrequencyCap => "frequency_cap",
            Self::DailyReach => "daily_reach",
            Self::WarmUp => "warm_up",
        }
    }
}

/// What the governor says of one message.
#[derive(Clone, Debug)]
pub enum Verdict {
    Go,
    Hold {
        reason: HoldReason,
        until: DateTime<Utc>,
    },
    Refuse(SendError),
}

/// The governor of one process.
#[derive(Default)]
pub struct Governor {
    pairs: Mutex<Pairs>,
    promises: Mutex<Promises>,
}

impl Governor {
    /// One verdict for each message, in order. `channels` holds every channel that can be opened.
    ///
    /// Whoever may go is counted in the transaction, so it must be committed before anything is sent.
    pub async fn review(
        &self,
        tx: &mut SystemTx,
        claimed: &[Claimed],
        channels: &HashMap<uuid::Uuid, Arc<Channel>>,
    ) -> wasel_db::Result<Vec<Verdict>> {
        self.review_at(tx, claimed, channels, Utc::now()).await
    }

    /// As [`Self::review`], at a given time.
    pub async fn review_at(
        &self,
        tx: &mut SystemTx,
        claimed: &[Claimed],
        channels: &HashMap<uuid::Uuid, Arc<Channel>>,
        now: DateTime<Utc>,
    ) -> wasel_db::Result<Vec<Verdict>> {
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let rules = Rules::load(tx, claimed, channels, now).await?;
        // What concerns the message alone; the rest is counted.
        let letters: Vec<Result<Letter<'_>, Verdict>> = claimed
            .iter()
            .map(|message| {
                let letter = rules.letter(message).ok_or_else(gone)?;
                stand_alone(&letter, now).map_or(Ok(letter), Err)
            })
            .collect();
        let open: Vec<&Letter<'_>> = letters.iter().flatten().collect();
        counts::lock(tx, &open).await?;
        let mut caps = Caps::load(tx, &open, now).await?;
        let mut reaches = Reaches::load(tx, &open, &self.promises, now).await?;
        let verdicts = {
            let mut pairs = lock(&self.pairs);
            let mut promises = lock(&self.promises);
            letters
                .iter()
                .map(|letter| match letter {
                    Err(verdict) => verdict.clone(),
                    Ok(letter) => {
                        if let Some(until) = caps.wait(letter, now) {
                            return hold(HoldReason::FrequencyCap, until, now);
                        }
                        if let Err(until) = pairs.may_go(letter, now) {
                            return Verdict::Hold {
                                reason: HoldReason::PairPace,
                                until,
                            };
                        }
                        if let Some((reason, until)) = reaches.wait(letter, &mut promises, now) {
                            return hold(reason, until, now);
                        }
                        caps.count(letter, now);
                        pairs.count(letter, now);
                        reaches.count(letter);
                        Verdict::Go
                    }
                })
                .collect()
        };
        reaches.save(tx, now).await?;
        Ok(verdicts)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rules for which no other message matters.
fn stand_alone(letter: &Letter<'_>, now: DateTime<Utc>) -> Option<Verdict> {
    if letter.facts.opted_out {
        return Some(refuse(
            ErrorClass::OptedOut,
            "opted_out",
            "this person asked not to be written to".to_owned(),
        ));
    }
    if letter.facts.opted_out_of_category {
        let (class, what) = match letter.category {
            Category::Marketing => (ErrorClass::OptedOutOfMarketing, "marketing"),
            other => (ErrorClass::OptedOut, other.as_str()),
        };
        let detail = format!("this person asked not to get {what} messages");
        return Some(refuse(class, "opted_out", detail));
    }
    if letter.needs_open_window && !letter.window_is_open(now) {
        let detail = match window::closes_at(letter.facts.last_inbound_at) {
            Some(closed) => format!(
                "the 24-hour window closed at {} while the message waited",
                closed.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            ),
            None => "this person has not written yet".to_owned(),
        };
        return Some(refuse(ErrorClass::NeedsTemplate, "window_closed", detail));
    }
    let quiet = letter.policy.quiet_hours_of(letter.category)?;
    let end = quiet.end_after(now, letter.time_zone(quiet.timezone_source))?;
    Some(hold(HoldReason::QuietHours, end, now))
}

fn refuse(class: ErrorClass, code: &str, detail: String) -> Verdict {
    Verdict::Refuse(SendError {
        class,
        code: Some(code.to_owned()),
        detail,
        retry_after: None,
    })
}

/// Deleted since it was claimed.
fn gone() -> Verdict {
    refuse(
        ErrorClass::Recipient,
        "gone",
        "the message or its contact is no more".to_owned(),
    )
}

fn hold(reason: HoldReason, until: DateTime<Utc>, now: DateTime<Utc>) -> Verdict {
    Verdict::Hold {
        reason,
        until: scatter(until, now),
    }
}

/// The longest that a hold lasts beyond what its rule asks.
const MAX_SCATTER: TimeDelta = TimeDelta::seconds(30);

/// A little later, by chance: thousands that wait for one morning shall not wake in one second. Never earlier.
fn scatter(until: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    let most = ((until - now) / 10).clamp(TimeDelta::zero(), MAX_SCATTER);
    let millis = rand::rng().random_range(0..=most.num_milliseconds());
    until + TimeDelta::milliseconds(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_never_shorter_than_its_rule_and_hardly_longer() {
        let now = Utc::now();
        let mut ends = std::collections::HashSet::new();
        for seconds in [0, 1, 5, 60, 3600, 86_400] {
            let until = now + TimeDelta::seconds(seconds);
            for _ in 0..200 {
                let end = scatter(until, now);
                assert!(end >= until && end <= until + MAX_SCATTER, "{seconds}");
                ends.insert(end);
            }
        }
        assert!(ends.len() > 200, "they wake at different times");
    }
}
