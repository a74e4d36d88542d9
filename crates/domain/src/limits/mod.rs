//! How much may be sent, by whom and when: what an organisation sets for itself and for each of its channels, and what
//! follows from it for a message now.

mod pace;
mod quiet;
mod reach;
mod zone;

use serde::{Deserialize, Serialize};

use crate::Category;

pub use pace::Pace;
pub use quiet::{QuietHours, TimeZoneSource, next_midnight, parse_time};
pub use reach::{REACH_WINDOW, WarmUp};
pub use zone::{time_zone_of_number, time_zone_of_recipient};

/// What quiet hours and the cap hold where the organisation does not say.
pub(crate) fn marketing() -> Vec<Category> {
    vec![Category::Marketing]
}

/// A channel's own limits (`channels.limits`). What is left out follows the kind of channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelLimits {
    /// Messages a second, as the provider allows this sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
    /// How many people may be written to outside their 24-hour window in any 24 hours, as the provider allows; no limit
    /// where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_reach: Option<u32>,
    /// A new number begins with few people and grows from day to day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUp>,
}

/// What an organisation asks of its own messages (`organizations.sending_policy`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendingPolicy {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_cap: Option<FrequencyCap>,
}

/// Nobody gets more than this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrequencyCap {
    pub messages: u32,
    /// In any so many hours.
    pub per_hours: u32,
    #[serde(default = "marketing")]
    pub categories: Vec<Category>,
}

/// Whether an organisation's own rules may hold messages of this category: never an answer in a conversation or a
/// one-time password.
#[must_use]
pub const fn may_be_held(category: Category) -> bool {
    matches!(category, Category::Marketing | Category::Utility)
}

impl SendingPolicy {
    /// The quiet hours, if messages of this category keep them.
    #[must_use]
    pub fn quiet_hours_of(&self, category: Category) -> Option<&QuietHours> {
        self.quiet_hours
            .as_ref()
            .filter(|quiet| may_be_held(category) && quiet.categories.contains(&category))
    }

    /// The cap, if messages of this category count.
    #[must_use]
    pub fn frequency_cap_of(&self, category: Category) -> Option<&FrequencyCap> {
        self.frequency_cap
            .as_ref()
            .filter(|cap| may_be_held(category) && cap.categories.contains(&category))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_about_marketing_unless_it_says_otherwise() {
        let policy: SendingPolicy = serde_json::from_str(
            r#"{"quiet_hours": {"from": "21:00", "to": "09:00"}, "frequency_cap": {"messages": 2, "per_hours": 24}}"#,
        )
        .unwrap();
        for category in Category::ALL {
            let held = category == Category::Marketing;
            assert_eq!(policy.quiet_hours_of(category).is_some(), held);
            assert_eq!(policy.frequency_cap_of(category).is_some(), held);
        }
    }

    #[test]
    fn answers_and_one_time_passwords_are_never_held_whatever_is_written() {
        let categories = Category::ALL.to_vec();
        let policy = SendingPolicy {
            quiet_hours: None,
            frequency_cap: Some(FrequencyCap {
                messages: 1,
                per_hours: 1,
                categories,
            }),
        };
        assert!(policy.frequency_cap_of(Category::Utility).is_some());
        for category in [Category::Service, Category::Authentication] {
            assert!(policy.frequency_cap_of(category).is_none());
        }
    }
}
