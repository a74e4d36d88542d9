//! Times that come again: a cron expression in a time zone.
//!
//! The expression speaks of the clock on the wall, whatever daylight saving does to it: 09:00 stays 09:00. A time that
//! the clock skips is due at the first moment after the gap, several of them together once; a time that the clock
//! shows twice is due the first time only. An expression for every hour (`*` as its hour) goes by elapsed time: it has
//! a tick in each hour that really passes.

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// A whole day was skipped at most (Samoa, 2011).
const LONGEST_GAP_MINUTES: usize = 26 * 60;
/// The wall's times between the two showings of a doubled hour, at one a minute, and some.
const MOST_REPEATED: usize = 200;

/// When something is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
    every_hour: bool,
}

/// Why a schedule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Five fields (minute, hour, day of month, month, day of week), or `@daily` and the like.
    #[error("is no cron expression of five fields: {0}")]
    Expression(String),
    #[error("is never due")]
    Never,
    #[error("is not the IANA name of a time zone, such as Africa/Cairo")]
    Zone,
}

/// # Errors
/// [`ScheduleError::Zone`].
pub fn parse_zone(name: &str) -> Result<Tz, ScheduleError> {
    name.parse().map_err(|_| ScheduleError::Zone)
}

impl Schedule {
    /// Reads a cron expression of five fields.
    ///
    /// # Errors
    /// [`ScheduleError::Expression`].
    pub fn parse(expression: &str, zone: Tz) -> Result<Self, ScheduleError> {
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(expression)
            .map_err(|error| ScheduleError::Expression(error.to_string()))?;
        let hour = expression.split_whitespace().nth(1);
        let every_hour =
            matches!(hour, Some("*" | "*/1")) || expression.trim().eq_ignore_ascii_case("@hourly");
        Ok(Self {
            cron,
            zone,
            every_hour,
        })
    }

    /// The first time after `now`.
    ///
    /// # Errors
    /// [`ScheduleError::Never`] for the 31st of February.
    pub fn next_after(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, ScheduleError> {
        let here = now.with_timezone(&self.zone);
        if self.every_hour {
            let next = self.cron.find_next_occurrence(&here, false);
            return next
                .map(|next| next.with_timezone(&Utc))
                .map_err(|_| ScheduleError::Never);
        }
        let mut wall = here.naive_local();
        for _ in 0..MOST_REPEATED {
            wall = self
                .cron
                .find_next_occurrence(&wall, false)
                .map_err(|_| ScheduleError::Never)?;
            match instant_of(self.zone, wall) {
                // In the second showing of an hour, its times have been.
                Some(at) if at <= now => {}
                Some(at) => return Ok(at),
                None => return Err(ScheduleError::Never),
            }
        }
        Err(ScheduleError::Never)
    }
}

/// When the wall shows this for the first time, or the end of the gap that swallowed it.
fn instant_of(zone: Tz, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
    let mut shown = wall;
    for _ in 0..=LONGEST_GAP_MINUTES {
        match zone.from_local_datetime(&shown) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => {
                return Some(at.with_timezone(&Utc));
            }
            LocalResult::None => shown = shown.checked_add_signed(TimeDelta::minutes(1))?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use chrono_tz::Africa::Cairo;
    use chrono_tz::Europe::Berlin;
    use proptest::prelude::*;

    use super::*;

    /// The first `n` times after `from`, in UTC, as `MM-DD HH:MM`.
    fn times(expression: &str, zone: Tz, from: &str, n: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, zone).unwrap();
        let mut at: DateTime<Utc> = from.parse().unwrap();
        (0..n)
            .map(|_| {
                at = schedule.next_after(at).unwrap();
                at.format("%m-%d %H:%M").to_string()
            })
            .collect()
    }

    #[test]
    fn nine_oclock_stays_nine_oclock_across_both_changes() {
        // Berlin: +1 until 29 March 2026 02:00, +2 until 25 October 03:00.
        assert_eq!(
            times("0 9 * * *", Berlin, "2026-03-27T12:00:00Z", 3),
            ["03-28 08:00", "03-29 07:00", "03-30 07:00"]
        );
        assert_eq!(
            times("0 9 * * *", Berlin, "2026-10-23T12:00:00Z", 3),
            ["10-24 07:00", "10-25 08:00", "10-26 08:00"]
        );
        // Cairo: +2 until Friday 24 April 2026 00:00, +3 until Thursday 29 October 24:00.
        assert_eq!(
            times("0 9 * * *", Cairo, "2026-04-22T12:00:00Z", 3),
            ["04-23 07:00", "04-24 06:00", "04-25 06:00"]
        );
        assert_eq!(
            times("0 9 * * *", Cairo, "2026-10-28T12:00:00Z", 3),
            ["10-29 06:00", "10-30 07:00", "10-31 07:00"]
        );
    }

    #[test]
    fn a_skipped_time_is_due_once_right_after_the_gap() {
        // 02:00 to 03:00 is not there on 29 March in Berlin; 03:00 is 01:00 UTC.
        assert_eq!(
            times("30 2 * * *", Berlin, "2026-03-28T00:00:00Z", 3),
            ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
        );
        assert_eq!(
            times("15,45 2 * * *", Berlin, "2026-03-28T12:00:00Z", 3),
            ["03-29 01:00", "03-30 00:15", "03-30 00:45"]
        );
        // With the time itself in the list it is still one moment.
        assert_eq!(
            times("0 2,3 * * *", Berlin, "2026-03-28T12:00:00Z", 2),
            ["03-29 01:00", "03-30 00:00"]
        );
        // Midnight is not there on 24 April in Cairo; 01:00 is 22:00 UTC of the day before.
        assert_eq!(
            times("0 0 * * *", Cairo, "2026-04-22T12:00:00Z", 3),
            ["04-22 22:00", "04-23 22:00", "04-24 21:00"]
        );
    }

    #[test]
    fn a_doubled_time_is_due_the_first_time_only() {
        // 02:00 to 03:00 is there twice on 25 October in Berlin.
        assert_eq!(
            times("30 2 * * *", Berlin, "2026-10-24T12:00:00Z", 2),
            ["10-25 00:30", "10-26 01:30"]
        );
        assert_eq!(
            times("*/20 2 * * *", Berlin, "2026-10-24T12:00:00Z", 4),
            ["10-25 00:00", "10-25 00:20", "10-25 00:40", "10-26 01:00"]
        );
        // Asked between the two showings, and in the second.
        assert_eq!(
            times("30 2 * * *", Berlin, "2026-10-25T00:45:00Z", 1),
            ["10-26 01:30"]
        );
        assert_eq!(
            times("30 2 * * *", Berlin, "2026-10-25T01:10:00Z", 1),
            ["10-26 01:30"]
        );
        // 23:00 to 24:00 is there twice on 29 October in Cairo.
        assert_eq!(
            times("30 23 * * *", Cairo, "2026-10-29T12:00:00Z", 2),
            ["10-29 20:30", "10-30 21:30"]
        );
    }

    #[test]
    fn every_hour_means_every_hour_that_passes() {
        assert_eq!(
            times("0 * * * *", Berlin, "2026-10-24T23:30:00Z", 4),
            ["10-25 00:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"]
        );
        assert_eq!(
            times("@hourly", Berlin, "2026-03-29T00:30:00Z", 2),
            ["03-29 01:00", "03-29 02:00"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for wrong in [
            "",
            "0 9 * *",
            "0 9 * * * *",
            "60 9 * * *",
            "0 25 * * *",
            "nine",
            "0 9 32 * *",
            "@sometimes",
        ] {
            assert!(
                matches!(
                    Schedule::parse(wrong, Berlin),
                    Err(ScheduleError::Expression(_))
                ),
                "{wrong}"
            );
        }
        let never = Schedule::parse("0 9 31 2 *", Berlin).unwrap();
        assert_eq!(never.next_after(Utc::now()), Err(ScheduleError::Never));
        assert_eq!(parse_zone("Mars/Olympus"), Err(ScheduleError::Zone));
        assert_eq!(parse_zone("Africa/Cairo"), Ok(Cairo));
    }

    proptest! {
        #[test]
        fn a_daily_time_is_due_once_on_every_day_of_the_year(hour in 0u32..24, minute in 0u32..60, cairo: bool) {
            let zone = if cairo { Cairo } else { Berlin };
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), zone).unwrap();
            let mut at: DateTime<Utc> = zone
                .with_ymd_and_hms(2026, 1, 1, hour, minute, 0).unwrap().with_timezone(&Utc);
            let mut day = at.with_timezone(&zone).date_naive();
            for _ in 0..365 {
                let next = schedule.next_after(at).unwrap();
                prop_assert!(next > at);
                day = day.succ_opt().unwrap();
                prop_assert_eq!(next.with_timezone(&zone).date_naive(), day);
                at = next;
            }
        }
    }
}
