use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long the server keeps what it does not need for ever.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    #[serde(with = "crate::values::duration::positive")]
    pub change_log: Duration,
    #[serde(with = "crate::values::duration::positive")]
    pub ledger: Duration,
    #[serde(with = "crate::values::duration::positive")]
    pub dead_letters: Duration,
    #[serde(with = "crate::values::duration::positive")]
    pub idempotency_keys: Duration,
}
