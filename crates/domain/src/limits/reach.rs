//! How many people may be written to outside their 24-hour window in a moving 24 hours. Meta sets such a limit for each
//! business portfolio (250, 2,000, 10,000, 100,000 or none), and bans new numbers that write to many at once; a warm-up
//! begins with few. Source: Meta, "Messaging limits".

use chrono::{NaiveDate, TimeDelta};
use serde::{Deserialize, Serialize};

use super::ChannelLimits;

/// A reach that grows from day to day until the channel's own limit is less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmUp {
    /// Its first day, in the organisation's time zone.
    pub started_on: NaiveDate,
    /// People on that day.
    pub first_day: u32,
    /// Each day has so many times the day before: 1.5 is half as many again.
    pub growth: f64,
}

/// The time in which people are counted.
pub const REACH_WINDOW: TimeDelta = TimeDelta::hours(24);

impl WarmUp {
    /// The people of one day. Before it starts, those of the first day.
    #[must_use]
    pub fn people_on(&self, day: NaiveDate) -> u32 {
        let days = (day - self.started_on).num_days().clamp(0, 3650);
        let people = f64::from(self.first_day) * self.growth.max(1.0).powi(days as i32);
        // Saturates.
        people.floor() as u32
    }
}

impl ChannelLimits {
    /// The warm-up's own limit on a day; `None` once the channel's reach is no more than that, or there is no warm-up.
    #[must_use]
    pub fn warm_up_on(&self, day: NaiveDate) -> Option<u32> {
        let people = self.warm_up.as_ref()?.people_on(day);
        (people < self.daily_reach.unwrap_or(u32::MAX)).then_some(people)
    }

    /// The people of a day by whichever limit is less; `None`: any number.
    #[must_use]
    pub fn reach_on(&self, day: NaiveDate) -> Option<u32> {
        self.warm_up_on(day).or(self.daily_reach)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(n: i64) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, 1).unwrap() + TimeDelta::days(n)
    }

    fn limits(daily_reach: Option<u32>, first_day: u32, growth: f64) -> ChannelLimits {
        ChannelLimits {
            daily_reach,
            warm_up: Some(WarmUp {
                started_on: day(0),
                first_day,
                growth,
            }),
            ..ChannelLimits::default()
        }
    }

    #[test]
    fn a_new_number_grows_into_its_limit() {
        let limits = limits(Some(1000), 50, 2.0);
        let reach: Vec<_> = (-1..7).map(|n| limits.reach_on(day(n)).unwrap()).collect();
        assert_eq!(reach, [50, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(limits.warm_up_on(day(4)), Some(800));
        assert_eq!(limits.warm_up_on(day(5)), None);
    }

    #[test]
    fn without_limits_anybody_may_be_reached() {
        assert_eq!(ChannelLimits::default().reach_on(day(0)), None);
        // It ends by itself where there is no limit to grow into.
        assert_eq!(limits(None, 50, 2.0).reach_on(day(400)), None);
    }

    proptest! {
        #[test]
        fn reach_never_shrinks_and_never_passes_the_limit(
            limit in prop::option::of(1u32..200_000), first in 1u32..5_000, growth in 1.0f64..4.0, n in 0i64..400,
        ) {
            let limits = limits(limit, first, growth);
            let (today, tomorrow) = (limits.reach_on(day(n)), limits.reach_on(day(n + 1)));
            prop_assert!(today.unwrap_or(u32::MAX) <= tomorrow.unwrap_or(u32::MAX));
            prop_assert!(today.unwrap_or(u32::MAX) <= limit.unwrap_or(u32::MAX));
        }
    }
}
