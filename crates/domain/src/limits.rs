//! How much may be sent, by whom and when: what an organisation sets for itself and for each of its channels.

use serde::{Deserialize, Serialize};

/// A channel's own limits (`channels.limits`). What is left out follows the kind of channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelLimits {
    /// Messages a second, as the provider allows this sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
}
