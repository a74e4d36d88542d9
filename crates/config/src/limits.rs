use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often callers may ask and how much they may send. A count of 0 sets no limit; sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub api_requests: u32,
    #[serde(with = "crate::values::duration::positive")]
    pub api_window: Duration,
    pub org_sends_per_minute: u32,
    pub user_sends_per_minute: u32,
    #[serde(with = "crate::values::size")]
    pub body: usize,
    #[serde(with = "crate::values::size")]
    pub webhook_body: usize,
    #[serde(with = "crate::values::size")]
    pub email_body: usize,
    pub rest_max_rows: NonZeroU32,
}
