//! Switches that break things: which fault, where, how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::Provider;

/// One thing that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The request is handled as usual, `delay_ms` later. A caller that gives up first was not heard.
    Delay,
    /// The request is taken at once and answered `delay_ms` later: a caller that gives up first cannot know.
    DelayAnswer,
    /// The connection is reset and the request was never taken.
    ResetBeforeAccept,
    /// The request is taken, then the connection is reset: the caller cannot know.
    ResetAfterAccept,
    /// HTTP 429: Meta 130429, Twilio 20429 with `Retry-After: 1`.
    RateLimited,
    /// HTTP 500: Meta 131000, Twilio 20500.
    ServerError,
    /// HTTP 401: Meta 190, Twilio 20003.
    ExpiredToken,
    /// A webhook is lost for good: it is never attempted.
    DropWebhook,
    /// A webhook arrives twice.
    DuplicateWebhook,
    /// A webhook waits until the next one of the same line was attempted (at most `delay_ms`, default 2 s).
    ReorderWebhook,
    /// A webhook is sent `delay_ms` later; those behind it may overtake.
    DelayWebhook,
}

impl FaultKind {
    fn strikes_webhooks(self) -> bool {
        matches!(
            self,
            Self::DropWebhook | Self::DuplicateWebhook | Self::ReorderWebhook | Self::DelayWebhook
        )
    }
}

/// Which requests of the server a request fault may strike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultScope {
    /// Only requests that create a message.
    #[default]
    Sends,
    /// Every request: media, templates, listings too.
    Any,
}

/// A rule. It fires with `probability`, and at most `next` times when that is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    /// Only this provider; both when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// Only this line: a Meta phone number id, a Twilio account SID, or a Twilio address
    /// (`+1…` or `whatsapp:+1…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// 0 to 1; 1 when absent.
    #[serde(default = "always")]
    pub probability: f64,
    /// Fires this many times, then never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
    /// Milliseconds, for the kinds that wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    #[serde(default)]
    pub scope: FaultScope,
}

fn always() -> f64 {
    1.0
}

impl Fault {
    /// A fault that always fires, everywhere.
    pub fn always(kind: FaultKind) -> Self {
        Self {
            kind,
            provider: None,
            line: None,
            probability: 1.0,
            next: None,
            delay_ms: None,
            scope: FaultScope::default(),
        }
    }

    /// A fault that fires the next `count` times.
    pub fn next(kind: FaultKind, count: u32) -> Self {
        Self {
            next: Some(count),
            ..Self::always(kind)
        }
    }

    /// The same fault, for one line only.
    pub fn on_line(mut self, line: impl Into<String>) -> Self {
        self.line = Some(line.into());
        self
    }

    /// The same fault, for one provider only.
    pub fn on_provider(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self
    }

    /// The same fault, firing with this probability.
    pub fn with_probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// The same fault with this waiting time.
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.delay_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The same fault, striking every request rather than sends only.
    pub fn on_any_request(mut self) -> Self {
        self.scope = FaultScope::Any;
        self
    }
}

/// What `PUT /sim/faults` takes and `GET /sim/faults` answers: the whole set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// Seed of the dice; the same plan over the same sequence of requests fails the same ones.
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// What struck a request.
#[derive(Default)]
pub(crate) struct RequestVerdict {
    pub(crate) delay: Duration,
    pub(crate) answer_delay: Duration,
    pub(crate) outcome: Option<FaultKind>,
}

/// What struck a webhook.
#[derive(Default)]
pub(crate) struct WebhookVerdict {
    pub(crate) drop: bool,
    pub(crate) duplicate: bool,
    pub(crate) delay: Option<Duration>,
    pub(crate) reorder: Option<Duration>,
}

/// The plan at work. Each rule has dice of its own, so that switching one on does not change what
/// another would have done.
#[derive(Default)]
pub(crate) struct Faults {
    seed: u64,
    rules: Vec<(Fault, Dice)>,
}

impl Faults {
    pub(crate) fn set(&mut self, plan: FaultPlan) {
        self.seed = plan.seed;
        self.rules = (1u64..)
            .zip(plan.faults)
            .map(|(n, fault)| {
                let dice = Dice(
                    plan.seed
                        .wrapping_add(n.wrapping_mul(0xA076_1D64_78BD_642F)),
                );
                (fault, dice)
            })
            .collect();
    }

    /// The plan with what is left of each `next`.
    pub(crate) fn plan(&self) -> FaultPlan {
        FaultPlan {
            seed: self.seed,
            faults: self.rules.iter().map(|(fault, _)| fault.clone()).collect(),
        }
    }

    pub(crate) fn judge_request(
        &mut self,
        provider: Provider,
        lines: &[String],
        is_send: bool,
    ) -> RequestVerdict {
        let mut verdict = RequestVerdict::default();
        for (fault, dice) in &mut self.rules {
            let waits = matches!(fault.kind, FaultKind::Delay | FaultKind::DelayAnswer);
            if fault.kind.strikes_webhooks()
                || (fault.scope == FaultScope::Sends && !is_send)
                || (verdict.outcome.is_some() && !waits)
                || !strikes(fault, dice, provider, lines)
            {
                continue;
            }
            let delay = Duration::from_millis(fault.delay_ms.unwrap_or(1_000));
            match fault.kind {
                FaultKind::Delay => verdict.delay += delay,
                FaultKind::DelayAnswer => verdict.answer_delay += delay,
                kind => verdict.outcome = Some(kind),
            }
        }
        verdict
    }

    pub(crate) fn judge_webhook(&mut self, provider: Provider, lines: &[String]) -> WebhookVerdict {
        let mut verdict = WebhookVerdict::default();
        for (fault, dice) in &mut self.rules {
            if !fault.kind.strikes_webhooks() || !strikes(fault, dice, provider, lines) {
                continue;
            }
            match fault.kind {
                FaultKind::DropWebhook => verdict.drop = true,
                FaultKind::DuplicateWebhook => verdict.duplicate = true,
                FaultKind::DelayWebhook => {
                    verdict.delay = Some(Duration::from_millis(fault.delay_ms.unwrap_or(1_000)));
                }
                FaultKind::ReorderWebhook => {
                    verdict.reorder = Some(Duration::from_millis(fault.delay_ms.unwrap_or(2_000)));
                }
                _ => {}
            }
        }
        verdict
    }
}

fn strikes(fault: &mut Fault, dice: &mut Dice, provider: Provider, lines: &[String]) -> bool {
    if fault.provider.is_some_and(|wanted| wanted != provider)
        || fault
            .line
            .as_ref()
            .is_some_and(|wanted| !lines.contains(wanted))
        || fault.next == Some(0)
        || dice.roll() >= fault.probability
    {
        return false;
    }
    if let Some(left) = &mut fault.next {
        *left -= 1;
    }
    true
}

/// SplitMix64: small, seedable, good enough to decide which request fails.
struct Dice(u64);

impl Dice {
    /// A number in `[0, 1)`.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        // 53 bits are what an f64 holds exactly.
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64) -> Vec<bool> {
        let mut faults = Faults::default();
        faults.set(FaultPlan {
            seed,
            faults: vec![Fault::always(FaultKind::ServerError).with_probability(0.3)],
        });
        (0..1_000)
            .map(|_| {
                faults
                    .judge_request(Provider::Meta, &[], true)
                    .outcome
                    .is_some()
            })
            .collect()
    }

    #[test]
    fn the_same_seed_fails_the_same_requests_at_about_the_asked_rate() {
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let hits = run(7).iter().filter(|hit| **hit).count();
        assert!((230..370).contains(&hits), "{hits}");
    }

    #[test]
    fn a_fault_for_one_line_leaves_the_others_alone_and_ends_after_its_count() {
        let mut faults = Faults::default();
        faults.set(FaultPlan {
            seed: 0,
            faults: vec![Fault::next(FaultKind::RateLimited, 2).on_line("A")],
        });
        let mut hit = |line: &str| {
            faults
                .judge_request(Provider::Twilio, &[line.to_owned()], true)
                .outcome
                .is_some()
        };
        assert_eq!(
            [hit("B"), hit("A"), hit("A"), hit("A")],
            [false, true, true, false]
        );
    }
}
