//! The hours in which people are left alone.

use chrono::{DateTime, LocalResult, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::marketing;
use crate::Category;

/// From `from` until before `to`, by the clock on the wall; across midnight where `to` is the earlier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietHours {
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub from: NaiveTime,
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub to: NaiveTime,
    #[serde(default = "marketing")]
    pub categories: Vec<Category>,
    #[serde(default)]
    pub timezone_source: TimeZoneSource,
}

/// Whose clock counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeZoneSource {
    /// The recipient's, as far as it is known; else the organisation's.
    #[default]
    Recipient,
    Organization,
}

const FORMAT: &str = "%H:%M";

/// Reads `21:00`.
#[must_use]
pub fn parse_time(text: &str) -> Option<NaiveTime> {
    (text.len() == 5)
        .then(|| NaiveTime::parse_from_str(text, FORMAT).ok())
        .flatten()
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NaiveTime, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    parse_time(&text)
        .ok_or_else(|| serde::de::Error::custom("must be a time of the day such as 21:00"))
}

fn write_time<S: Serializer>(time: &NaiveTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.format(FORMAT))
}

impl QuietHours {
    fn covers(&self, time: NaiveTime) -> bool {
        if self.from <= self.to {
            self.from <= time && time < self.to
        } else {
            self.from <= time || time < self.to
        }
    }

    /// When they end, if they cover this instant in this zone: the next instant at which the clock comes to `to`, or is
    /// put forward over it.
    #[must_use]
    pub fn end_after(&self, now: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let local = now.with_timezone(&zone);
        if !self.covers(local.time()) {
            return None;
        }
        let today = local.date_naive();
        // The day before, too: a clock that goes back over midnight shows yesterday again.
        (-1..=2)
            .filter_map(|days| today.checked_add_signed(TimeDelta::days(days)))
            .flat_map(|date| instants_of(date.and_time(self.to), zone))
            // What the clock skips may be all that was not quiet.
            .filter(|end| *end > now && !self.covers(end.with_timezone(&zone).time()))
            .min()
    }
}

/// When the organisation's next day begins.
#[must_use]
pub fn next_midnight(now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let today = now.with_timezone(&zone).date_naive();
    (1..=2)
        .filter_map(|days| today.checked_add_signed(TimeDelta::days(days)))
        .flat_map(|date| instants_of(date.and_time(NaiveTime::MIN), zone))
        .find(|midnight| *midnight > now)
        .unwrap_or(now + TimeDelta::days(1))
}

/// The instants at which the clock shows this: two where it is put back over it. Where it is put forward over it, the
/// instant after.
fn instants_of(mut time: NaiveDateTime, zone: Tz) -> Vec<DateTime<Utc>> {
    for _ in 0..=MAX_GAP_MINUTES {
        match zone.from_local_datetime(&time) {
            LocalResult::Single(one) => return vec![one.to_utc()],
            LocalResult::Ambiguous(first, second) => return vec![first.to_utc(), second.to_utc()],
            LocalResult::None => time += TimeDelta::minutes(1),
        }
    }
    Vec::new()
}

/// Zones have skipped a whole day.
const MAX_GAP_MINUTES: u32 = 25 * 60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quiet(from: &str, to: &str) -> QuietHours {
        QuietHours {
            from: parse_time(from).unwrap(),
            to: parse_time(to).unwrap(),
            categories: marketing(),
            timezone_source: TimeZoneSource::Recipient,
        }
    }

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_night_across_midnight_ends_in_the_morning() {
        let night = quiet("21:00", "09:00");
        let cairo = chrono_tz::Africa::Cairo;
        // Cairo is two hours ahead in winter.
        for (now, end) in [
            ("2026-11-21T18:59:59Z", None),
            ("2026-11-21T19:00:00Z", Some("2026-11-22T07:00:00Z")),
            ("2026-11-22T06:59:59Z", Some("2026-11-22T07:00:00Z")),
            ("2026-11-22T07:00:00Z", None),
        ] {
            assert_eq!(night.end_after(utc(now), cairo), end.map(utc), "{now}");
        }
        let midday = quiet("12:00", "14:00");
        assert_eq!(
            midday.end_after(utc("2026-11-21T11:00:00Z"), cairo),
            Some(utc("2026-11-21T12:00:00Z"))
        );
        assert_eq!(midday.end_after(utc("2026-11-21T12:00:00Z"), cairo), None);
    }

    #[test]
    fn an_end_that_the_clock_skips_is_the_moment_after_the_skip() {
        // Berlin skips 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
        let berlin = chrono_tz::Europe::Berlin;
        let end = quiet("21:00", "02:30").end_after(utc("2026-03-29T00:30:00Z"), berlin);
        assert_eq!(end, Some(utc("2026-03-29T01:00:00Z")));
    }

    #[test]
    fn an_end_that_the_clock_shows_twice_is_the_next_one() {
        // Berlin has 02:00 to 03:00 twice on 25 October 2026; the second time from 01:00 UTC.
        let berlin = chrono_tz::Europe::Berlin;
        let night = quiet("21:00", "02:30");
        for (now, end) in [
            ("2026-10-25T00:10:00Z", Some("2026-10-25T00:30:00Z")),
            ("2026-10-25T00:40:00Z", None),
            ("2026-10-25T01:10:00Z", Some("2026-10-25T01:30:00Z")),
        ] {
            assert_eq!(night.end_after(utc(now), berlin), end.map(utc), "{now}");
        }
    }

    #[test]
    fn a_day_begins_at_a_real_instant() {
        // Cairo's Thursday of 2026-04-23 ends with 24:00 becoming 01:00.
        let cairo = chrono_tz::Africa::Cairo;
        assert_eq!(
            next_midnight(utc("2026-04-23T21:59:00Z"), cairo),
            utc("2026-04-23T22:00:00Z")
        );
        assert_eq!(
            next_midnight(utc("2026-11-21T12:00:00Z"), cairo),
            utc("2026-11-21T22:00:00Z")
        );
    }

    #[test]
    fn times_are_written_as_hours_and_minutes() {
        let night = quiet("21:00", "09:05");
        let json = serde_json::to_value(&night).unwrap();
        assert_eq!(
            json,
            serde_json::json!({ "from": "21:00", "to": "09:05", "categories": ["marketing"], "timezone_source": "recipient" })
        );
        assert_eq!(serde_json::from_value::<QuietHours>(json).unwrap(), night);
        for bad in ["9:00", "24:00", "21:60", "21:00:00", "", "nine"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    const ZONES: [Tz; 7] = [
        chrono_tz::UTC,
        chrono_tz::Africa::Cairo,
        chrono_tz::Europe::Berlin,
        chrono_tz::America::New_York,
        chrono_tz::Australia::Lord_Howe,
        chrono_tz::Asia::Kathmandu,
        chrono_tz::Africa::Casablanca,
    ];

    proptest! {
        #[test]
        fn the_end_is_the_first_instant_that_is_not_quiet_or_later_in_an_hour_shown_twice(
            minute in 0i64..(2 * 366 * 24 * 60), zone in 0..ZONES.len(), from in 0u32..1440, to in 0u32..1440,
        ) {
            prop_assume!(from != to);
            let clock = |minute: u32| NaiveTime::from_hms_opt(minute / 60, minute % 60, 0).unwrap();
            let hours = QuietHours { from: clock(from), to: clock(to), ..quiet("00:00", "00:01") };
            let now = utc("2026-01-01T00:00:00Z") + TimeDelta::minutes(minute);
            let is_quiet = |at: DateTime<Utc>| hours.covers(at.with_timezone(&ZONES[zone]).time());
            match hours.end_after(now, ZONES[zone]) {
                None => prop_assert!(!is_quiet(now)),
                Some(end) => {
                    prop_assert!(end > now && end - now <= TimeDelta::hours(49));
                    prop_assert!(!is_quiet(end), "still quiet at {end}");
                    let mut at = now;
                    while at < end {
                        let local = at.with_timezone(&ZONES[zone]).naive_local();
                        let twice = ZONES[zone].from_local_datetime(&local).single().is_none();
                        prop_assert!(is_quiet(at) || twice, "not quiet at {at}, before {end}");
                        at += TimeDelta::minutes(1);
                    }
                }
            }
        }
    }
}
