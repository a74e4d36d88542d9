//! The governor: may this message leave now, and if not, why and until when?
//!
//! Asked for every batch the sender claims, right before it leaves, because much may have changed since the message was
//! queued. What is certain already when a message is asked for is refused there (`outbound`), so that the caller hears
//! it at once. How fast a channel may send as a whole is not asked here: the sender's lanes hold to it.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use wasel_db::outbox::Claimed;
use wasel_db::{SystemTx, consents};
use wasel_providers::{ErrorClass, SendError};

use crate::registry::Channel;

/// Why a message waits; the `hold_reason` column of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// An earlier message of its conversation goes first.
    Order,
    /// This person has been written to too often in a short time (the provider's pair rate).
    PairPace,
}

impl HoldReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::PairPace => "pair_pace",
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
pub struct Governor {}

impl Governor {
    /// One verdict for each message, in order. `channels` holds every channel that can be opened.
    pub async fn review(
        &self,
        tx: &mut SystemTx,
        claimed: &[Claimed],
        _channels: &HashMap<uuid::Uuid, Arc<Channel>>,
    ) -> wasel_db::Result<Vec<Verdict>> {
        let mut verdicts = Vec::with_capacity(claimed.len());
        for message in claimed {
            let opted_out =
                consents::is_opted_out(tx, message.org_id, message.contact_id, message.channel_id)
                    .await?;
            verdicts.push(if opted_out {
                Verdict::Refuse(SendError {
                    class: ErrorClass::OptedOut,
                    code: Some("opted_out".to_owned()),
                    detail: "this person asked not to be written to".to_owned(),
                    retry_after: None,
                })
            } else {
                Verdict::Go
            });
        }
        Ok(verdicts)
    }
}
