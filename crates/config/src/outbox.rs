use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How messages leave.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    #[serde(with = "crate::values::duration::positive")]
    pub retry_base: Duration,
    #[serde(with = "crate::values::duration")]
    pub reconcile_wait: Duration,
    pub max_attempts: NonZeroU32,
    pub in_flight: NonZeroU32,
    #[serde(with = "crate::values::duration::positive")]
    pub lease: Duration,
    #[serde(with = "crate::values::duration::positive")]
    pub check_after: Duration,
}
