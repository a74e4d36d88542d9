//! What a message is for.

use serde::{Deserialize, Serialize};

/// The `category` column of messages; Meta's template categories and `service` for everything inside a conversation.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Part of a conversation: an answer, a one-off by a person or a program.
    #[default]
    Service,
    /// About something the recipient has with the sender: a booking, a subscription.
    Utility,
    /// Everything that wants to sell. Quiet hours, the frequency cap and a marketing opt-out are about these.
    Marketing,
    /// One-time passwords.
    Authentication,
}

impl Category {
    pub const ALL: [Self; 4] = [
        Self::Service,
        Self::Utility,
        Self::Marketing,
        Self::Authentication,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Utility => "utility",
            Self::Marketing => "marketing",
            Self::Authentication => "authentication",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|category| category.as_str() == text)
    }
}
