//! A pace with a burst: the generic cell rate algorithm (ITU-T I.371), which needs one time per stream.

use chrono::{DateTime, TimeDelta, Utc};

/// `burst` at once, then one every `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    every: TimeDelta,
    /// How far ahead of the pace a stream may be, in time.
    credit: TimeDelta,
}

impl Pace {
    /// A burst of nothing would never let anything pass; it is taken for one.
    #[must_use]
    pub fn new(every: TimeDelta, burst: u32) -> Self {
        let burst = i32::try_from(burst.max(1)).unwrap_or(i32::MAX);
        Self {
            every,
            credit: every * (burst - 1),
        }
    }

    /// One more at `now`, given what was kept of the one before: what to keep if it goes, or when it may.
    ///
    /// # Errors
    /// The instant from which on it may go.
    pub fn next(
        &self,
        kept: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, DateTime<Utc>> {
        let arrival = kept.unwrap_or(now).max(now);
        let allowed_from = arrival - self.credit;
        if allowed_from > now {
            Err(allowed_from)
        } else {
            Ok(arrival + self.every)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + millis).unwrap()
    }

    proptest! {
        #[test]
        fn in_any_stretch_of_time_there_are_never_more_than_the_burst_and_the_pace_allow(
            every in 1i64..5_000, burst in 1u32..60,
            gaps in prop::collection::vec(0i64..3_000, 1..300),
        ) {
            let pace = Pace::new(TimeDelta::milliseconds(every), burst);
            let (mut kept, mut now, mut went) = (None, 0, Vec::new());
            for gap in gaps {
                now += gap;
                if let Ok(next) = pace.next(kept, at(now)) {
                    kept = Some(next);
                    went.push(now);
                }
            }
            for (i, start) in went.iter().enumerate() {
                for (j, end) in went.iter().enumerate().skip(i) {
                    let sent = (j - i + 1) as i64;
                    prop_assert!(sent <= i64::from(burst) + (end - start) / every, "{sent} from {start} to {end}");
                }
            }
        }

        #[test]
        fn who_waits_as_told_may_go_and_not_a_moment_earlier(
            every in 1i64..5_000, burst in 1u32..60, tries in 1usize..200,
        ) {
            let pace = Pace::new(TimeDelta::milliseconds(every), burst);
            let (mut kept, mut now) = (None, at(0));
            for _ in 0..tries {
                match pace.next(kept, now) {
                    Ok(next) => kept = Some(next),
                    Err(until) => {
                        prop_assert!(until > now);
                        let moment_before = until - TimeDelta::milliseconds(1);
                        prop_assert!(moment_before < now || pace.next(kept, moment_before).is_err());
                        prop_assert!(pace.next(kept, until).is_ok());
                        now = until;
                    }
                }
            }
        }
    }

    #[test]
    fn the_whole_burst_goes_at_once_and_then_one_each_interval() {
        let pace = Pace::new(TimeDelta::seconds(6), 45);
        let mut kept = None;
        for _ in 0..45 {
            kept = Some(pace.next(kept, at(0)).unwrap());
        }
        assert_eq!(pace.next(kept, at(0)), Err(at(6_000)));
        kept = Some(pace.next(kept, at(6_000)).unwrap());
        assert_eq!(pace.next(kept, at(6_000)), Err(at(12_000)));
    }
}
