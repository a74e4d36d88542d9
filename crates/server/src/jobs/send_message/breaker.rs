//! The circuit breaker: what the failures of a channel's sends mean for the channel.
//!
//! A provider that throttles is given half the speed, one in trouble is left alone for a while, and one that refuses the
//! channel altogether is asked again rarely, by one message, so that a number under suspicion is not made worse. The
//! queue is kept throughout.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;
use wasel_db::notifications::{self, NewNotification};
use wasel_db::{SystemTx, channels, organizations, pace};
use wasel_domain::{ChannelId, OrgId};
use wasel_providers::{ErrorClass, Language};

use super::recorder::{Ending, words};
use crate::state::AppState;

/// So many failures in a row, without one success, are the provider's trouble and not these messages'.
const TROUBLE: u32 = 10;
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// After being told to slow down.
const THROTTLED_REST: Duration = Duration::from_secs(1);
/// An hourly limit of the account.
const ACCOUNT_REST: Duration = Duration::from_secs(300);
/// Until a blocked channel is tried again with one message; doubles to an hour.
const FIRST_PROBE: Duration = Duration::from_secs(300);
const LONGEST_PROBE: Duration = Duration::from_secs(3600);

/// What was sent before a channel was blocked has been answered after this.
const UNDER_WAY: Duration = Duration::from_secs(30);

/// `hold_reason` of a channel that its provider refuses.
pub const BLOCKED: &str = "channel_blocked";

#[derive(Debug, Default)]
struct Record {
    failures_in_a_row: u32,
    rests: u32,
    probes: u32,
    /// Held by us, and since when.
    held_at: Option<DateTime<Utc>>,
    blocked_at: Option<Instant>,
    /// Failures before then were under way when the rest began, and say nothing new.
    rests_until: Option<Instant>,
    throttled_at: Option<Instant>,
}

/// What this process has seen of each channel.
#[derive(Debug, Default)]
pub struct Breaker {
    channels: HashMap<Uuid, Record>,
}

/// What is to be done about a channel.
#[derive(Debug)]
pub struct Action {
    org_id: Uuid,
    channel_id: Uuid,
    what: What,
}

#[derive(Debug)]
enum What {
    SlowDown {
        wait: Duration,
    },
    Rest {
        reason: &'static str,
        strikes: u32,
        wait: Duration,
    },
    Block {
        reason: String,
        code: Option<String>,
        strikes: u32,
        wait: Duration,
    },
    /// It works.
    Open,
}

impl Breaker {
    /// Looks at ended attempts in their order.
    pub fn observe(&mut self, endings: &[&Ending]) -> Vec<Action> {
        let now = Instant::now();
        let mut actions = Vec::new();
        for ending in endings.iter().filter(|ending| ending.trip.is_some()) {
            let record = self.channels.entry(ending.claimed.channel_id).or_default();
            let what = match &ending.result {
                Ok(_) => record.worked(ending.probe, ending.claimed.claimed_at),
                Err(error) => match error.class {
                    // Whether it arrived is not known: a provider that is well says so.
                    ErrorClass::Transient | ErrorClass::Ambiguous => record.troubled(now),
                    ErrorClass::ThrottledChannel => record.throttled(now, error.retry_after),
                    ErrorClass::ThrottledAccount => {
                        record.rest(now, "throttled_account", ACCOUNT_REST)
                    }
                    ErrorClass::ChannelBlocked => {
                        record.blocked(now, words(error), error.code.clone())
                    }
                    // The provider is well, and it is about this message.
                    _ => None,
                },
            };
            actions.extend(what.map(|what| Action {
                org_id: ending.claimed.org_id,
                channel_id: ending.claimed.channel_id,
                what,
            }));
        }
        // In one order everywhere: two nodes that hold channels must not wait for each other.
        actions.sort_by_key(|action| action.channel_id);
        actions
    }
}

impl Record {
    /// `probe`: another process, or an earlier life of this one, held the channel.
    /// What was under way when the channel was held proves nothing about it.
    fn worked(&mut self, probe: bool, claimed_at: DateTime<Utc>) -> Option<What> {
        if !probe && self.held_at.is_some_and(|held| claimed_at <= held) {
            return None;
        }
        let was_held = self.held_at.is_some() || probe;
        *self = Self {
            throttled_at: self.throttled_at,
            ..Self::default()
        };
        was_held.then_some(What::Open)
    }

    fn troubled(&mut self, now: Instant) -> Option<What> {
        self.failures_in_a_row += 1;
        if self.failures_in_a_row < TROUBLE && self.held_at.is_none() {
            return None;
        }
        let wait = FIRST_REST * 2_u32.pow(self.rests.min(8));
        self.rest(now, "provider_trouble", wait.min(LONGEST_REST))
    }

    fn throttled(&mut self, now: Instant, asked: Option<Duration>) -> Option<What> {
        let wait = asked.unwrap_or(THROTTLED_REST).max(THROTTLED_REST);
        // The others that were under way say the same.
        if self
            .throttled_at
            .is_some_and(|at| now.duration_since(at) < wait)
        {
            return None;
        }
        self.throttled_at = Some(now);
        Some(What::SlowDown { wait })
    }

    fn rest(&mut self, now: Instant, reason: &'static str, wait: Duration) -> Option<What> {
        if self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        self.held_at = Some(Utc::now());
        self.rests += 1;
        self.rests_until = Some(now + wait);
        Some(What::Rest {
            reason,
            strikes: self.rests,
            wait,
        })
    }

    fn blocked(&mut self, now: Instant, reason: String, code: Option<String>) -> Option<What> {
        // The others that were under way say the same.
        if self
            .blocked_at
            .is_some_and(|at| now.duration_since(at) < UNDER_WAY)
        {
            return None;
        }
        self.blocked_at = Some(now);
        self.held_at = Some(Utc::now());
        let wait = FIRST_PROBE * 2_u32.pow(self.probes.min(8));
        self.probes += 1;
        Some(What::Block {
            reason,
            code,
            strikes: self.probes,
            wait: wait.min(LONGEST_PROBE),
        })
    }
}

impl Action {
    pub async fn carry_out(&self, tx: &mut SystemTx, state: &AppState) -> wasel_db::Result<()> {
        let (org, channel) = (OrgId(self.org_id), ChannelId(self.channel_id));
        match &self.what {
            What::SlowDown { wait } => {
                tracing::warn!(channel.id = %channel, "a provider throttles a channel; it goes on at half the speed");
                pace::slow_down(tx, org.0, channel.0, *wait, "throttled").await
            }
            What::Rest {
                reason,
                strikes,
                wait,
            } => {
                tracing::warn!(channel.id = %channel, reason, "a channel rests");
                pace::hold(tx, org.0, channel.0, *strikes as i32, *wait, reason).await
            }
            What::Block {
                reason,
                code,
                strikes,
                wait,
            } => {
                pace::hold(
                    tx,
                    org.0,
                    channel.0,
                    *strikes as i32,
                    *wait,
                    "channel_blocked",
                )
                .await?;
                if channels::block(tx, org, channel, reason).await? {
                    tracing::error!(
                        channel.id = %channel, send.error_code = code.as_deref(),
                        "a channel is blocked by its provider; its queue is kept"
                    );
                    alert(tx, state, org, channel, reason, code.as_deref()).await?;
                }
                Ok(())
            }
            What::Open => {
                pace::release(tx, org.0, channel.0).await?;
                if channels::unblock(tx, org, channel).await? {
                    tracing::info!(channel.id = %channel, "a blocked channel works again");
                }
                Ok(())
            }
        }
    }
}

/// Tells the owners and admins, in the organisation's language.
async fn alert(
    tx: &mut SystemTx,
    state: &AppState,
    org: OrgId,
    channel: ChannelId,
    reason: &str,
    code: Option<&str>,
) -> wasel_db::Result<()> {
    let locale = organizations::find(tx, org)
        .await?
        .map(|organization| organization.locale)
        .unwrap_or_default();
    let name = state
        .registry
        .of_org(org, channel)
        .map(|channel| channel.name.clone())
        .unwrap_or_default();
    let language = Language::of_locale(&locale);
    let title = match language {
        Language::Arabic => format!("توقّف الإرسال عبر القناة {name}"),
        Language::English => format!("Sending by the channel {name} has stopped"),
    };
    let notice = NewNotification {
        user_id: None,
        kind: "channel_blocked".to_owned(),
        level: "error".to_owned(),
        title,
        body: Some(reason.to_owned()),
        advice: Some(
            ErrorClass::ChannelBlocked
                .explain(language)
                .advice
                .to_owned(),
        ),
        data: json!({ "channel_id": channel, "error_code": code }),
    };
    notifications::insert(tx, org, &notice).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_ten_failures_in_a_row_and_each_failed_probe_doubles_the_rest() {
        let start = Instant::now();
        let mut record = Record::default();
        for _ in 1..TROUBLE {
            assert!(record.troubled(start).is_none());
        }
        let waits = |what: Option<What>| match what {
            Some(What::Rest { wait, .. }) => Some(wait),
            _ => None,
        };
        assert_eq!(waits(record.troubled(start)), Some(FIRST_REST));
        // The others that were under way.
        assert_eq!(waits(record.troubled(start + FIRST_REST / 2)), None);
        let probe = start + FIRST_REST;
        assert_eq!(waits(record.troubled(probe)), Some(FIRST_REST * 2));
        let old = Utc::now() - chrono::TimeDelta::seconds(9);
        assert!(record.worked(false, old).is_none(), "it was under way");
        let new = Utc::now() + chrono::TimeDelta::seconds(1);
        assert!(matches!(record.worked(false, new), Some(What::Open)));
        assert!(record.worked(false, new).is_none());
        assert!(
            record.troubled(probe).is_none(),
            "it counts from the beginning"
        );
    }

    #[test]
    fn one_success_in_between_is_no_trouble() {
        let now = Instant::now();
        let mut record = Record::default();
        for _ in 0..5 {
            for _ in 1..TROUBLE {
                assert!(record.troubled(now).is_none());
            }
            assert!(record.worked(false, Utc::now()).is_none());
        }
    }

    #[test]
    fn many_are_throttled_at_once_and_the_channel_slows_down_once() {
        let now = Instant::now();
        let mut record = Record::default();
        assert!(record.throttled(now, None).is_some());
        assert!(record.throttled(now, None).is_none());
        assert!(record.throttled(now + THROTTLED_REST, None).is_some());
    }

    #[test]
    fn a_blocked_channel_is_probed_ever_more_rarely() {
        let mut record = Record::default();
        let start = Instant::now();
        let mut block = |at: Duration| match record.blocked(start + at, String::new(), None) {
            Some(What::Block { wait, .. }) => wait.as_secs() / 60,
            _ => 0,
        };
        let waits: Vec<u64> = (0..6).map(|n| block(UNDER_WAY * n)).collect();
        assert_eq!(block(UNDER_WAY * 5), 0, "under way with the last one");
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    }
}
