//! What a kind of channel can do, as a value.

use std::time::Duration;

use wasel_domain::event::IdentityKind;

/// The abilities and limits of one kind of channel.
#[derive(Debug)]
pub struct Capabilities {
    /// Free-form messages only within 24 hours of the customer's last one.
    pub has_service_window: bool,
    /// `mark_read` does something.
    pub read_receipts: bool,
    pub typing_indicator: bool,
    /// Which identities of a contact this channel can write to, the preferred one first.
    pub addressable: &'static [IdentityKind],
    /// Characters (Unicode scalar values) in a text message.
    pub max_text_chars: usize,
    /// The largest file a customer may send, in bytes.
    pub max_media_bytes: u64,
    /// How many messages a second one sender may hand over, where the channel's own limits do not say otherwise.
    pub messages_per_second: f64,
    /// One person may be written to so often.
    pub pair_pace: Option<PairPace>,
    /// `look_up` does something.
    pub answers_look_ups: bool,
    /// A message names those before it: [`crate::Outbound::thread`] is filled in.
    pub threads_by_id: bool,
    /// Files come inside the webhook request itself: fetching one needs its body.
    pub media_in_webhook: bool,
}

/// How often one person may be written to: `burst` at once, then one every `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairPace {
    pub every: Duration,
    pub burst: u32,
}
