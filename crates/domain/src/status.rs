//! The status machine: forward only, any order, duplicates harmless.
//!
//! Providers promise no order between status callbacks and repeat them freely, so a status is never *set*:
//! it is the maximum, by rank, of everything seen. Proof of delivery outranks `failed` (Meta sends crossed
//! ones), and `failed` outranks `sent`, so that a late `sent` cannot revive a failure.

use serde::{Deserialize, Serialize};

/// Where a message stands. The documents' words, plus `cancelled`, `unknown` and `received`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// Written, not yet due or not yet allowed to go.
    Pending,
    /// In the outbox, waiting for a sender.
    Queued,
    /// A sender has it, or the provider accepted it and has not yet said more.
    Sending,
    /// The request was made and its answer was lost; a callback or the grace time decides.
    Unknown,
    /// Withdrawn before it was sent.
    Cancelled,
    /// The provider passed it on to the network.
    Sent,
    /// It did not arrive, and `error_code` says why.
    Failed,
    /// On the recipient's device.
    Delivered,
    /// Seen (or, for a voice note, played).
    Read,
    /// An inbound message: stored by us. It has no further states.
    Received,
}

impl MessageStatus {
    pub const ALL: [MessageStatus; 10] = [
        Self::Pending,
        Self::Queued,
        Self::Sending,
        Self::Unknown,
        Self::Cancelled,
        Self::Sent,
        Self::Failed,
        Self::Delivered,
        Self::Read,
        Self::Received,
    ];

    /// The order of progress. The database has the same numbers in `status_rank()`; a test compares them.
    #[must_use]
    pub const fn rank(self) -> i16 {
        match self {
            Self::Pending => 0,
            Self::Queued => 10,
            Self::Sending => 20,
            Self::Unknown => 30,
            Self::Cancelled => 40,
            Self::Sent => 50,
            Self::Failed => 60,
            Self::Delivered => 70,
            Self::Read => 80,
            Self::Received => 90,
        }
    }

    /// The status after `event` has been seen: the higher of the two.
    #[must_use]
    pub const fn advance(self, event: MessageStatus) -> MessageStatus {
        if event.rank() > self.rank() {
            event
        } else {
            self
        }
    }

    /// Nothing but proof of delivery can follow.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        self.rank() >= Self::Failed.rank() || matches!(self, Self::Cancelled)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Unknown => "unknown",
            Self::Cancelled => "cancelled",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Received => "received",
        }
    }
}

impl std::fmt::Display for MessageStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no status.
#[derive(Debug, thiserror::Error)]
#[error("unknown message status `{0}`")]
pub struct UnknownStatus(pub String);

impl std::str::FromStr for MessageStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::MessageStatus::{self, *};

    fn outbound_status() -> impl Strategy<Value = MessageStatus> {
        prop::sample::select(vec![
            Sending, Unknown, Cancelled, Sent, Failed, Delivered, Read,
        ])
    }

    proptest! {
        #[test]
        fn any_order_and_any_repetition_end_in_the_same_status(
            events in prop::collection::vec(outbound_status(), 1..12),
            seed in any::<u64>(),
        ) {
            let in_order = events.iter().fold(Queued, |status, event| status.advance(*event));
            let mut shuffled: Vec<_> = events.iter().chain(&events).copied().collect();
            let len = shuffled.len();
            let mut state = seed;
            for i in (1..len).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut status = Queued;
            for event in shuffled {
                let next = status.advance(event);
                prop_assert!(next.rank() >= status.rank(), "a status went backwards");
                status = next;
            }
            prop_assert_eq!(status, in_order);
        }
    }

    #[test]
    fn a_late_sent_does_not_revive_a_failure_and_delivery_beats_a_crossed_failed() {
        assert_eq!(Failed.advance(Sent), Failed);
        assert_eq!(Failed.advance(Delivered), Delivered);
        assert_eq!(Read.advance(Failed), Read);
    }
}
