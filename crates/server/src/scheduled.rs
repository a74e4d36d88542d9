//! Messages for later: when they go again, and what they say when they do.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use uuid::Uuid;
use wasel_db::scheduled::ScheduledFields;
use wasel_domain::OutboundContent;
use wasel_domain::schedule::{self, Schedule};

use crate::auth::Caller;
use crate::http::error::ApiError;
use crate::notify::{self, Note};
use crate::outbound;
use crate::registry::Channel;
use crate::state::AppState;

/// The times of a cron expression of five fields by the clock of an IANA time zone.
///
/// # Errors
/// Names the field: `recurrence` or `timezone`.
pub fn recurrence(expression: &str, timezone: &str) -> Result<Schedule, ApiError> {
    let zone = parse_zone(timezone)?;
    Schedule::parse(expression, zone)
        .map_err(|error| ApiError::invalid("recurrence", error.to_string()))
}

/// An IANA time zone.
pub fn parse_zone(name: &str) -> Result<Tz, ApiError> {
    schedule::parse_zone(name).map_err(|error| ApiError::invalid("timezone", error.to_string()))
}

/// The next time after `now`.
///
/// # Errors
/// There is none (30 February).
pub fn next_time(schedule: &Schedule, now: DateTime<Utc>) -> Result<DateTime<Utc>, ApiError> {
    schedule
        .next_after(now)
        .map_err(|error| ApiError::invalid("recurrence", error.to_string()))
}

/// When it goes after a run at `now`; `None`: never again. Times that were missed meanwhile are not made up for one by
/// one: the run was for all of them.
pub fn next_run(
    fields: &ScheduledFields,
    runs: i32,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(expression) = &fields.recurrence else {
        return Ok(None);
    };
    if fields.max_runs.is_some_and(|most| runs >= most) {
        return Ok(None);
    }
    let next = next_time(&recurrence(expression, &fields.timezone)?, now)?;
    Ok(Some(next).filter(|next| fields.ends_at.is_none_or(|end| *next <= end)))
}

/// What it says now: its frozen content, or its template filled in, for this person if given.
pub async fn content_of(
    state: &AppState,
    caller: &Caller,
    channel: &Arc<Channel>,
    to: Option<&str>,
    content: Option<&Value>,
    template_id: Option<Uuid>,
    variables: &Value,
) -> Result<OutboundContent, ApiError> {
    let content = match content {
        Some(content) => serde_json::from_value(content.clone())
            .map_err(|error| ApiError::invalid("content", error.to_string()))?,
        None => {
            let note = Note {
                template: template_id.map(|id| id.to_string()),
                variables: Some(variables.as_object().cloned().unwrap_or_default()),
                ..Note::default()
            };
            let template = notify::find_template(state, caller, &note).await?;
            let (content, _) =
                notify::content_of(state, caller, channel, to, &note, template.as_ref()).await?;
            content
        }
    };
    outbound::check(channel, &content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let recurrence = recurrence(expression, zone).unwrap();
        let mut at: DateTime<Utc> = from.parse().unwrap();
        (0..count)
            .map(|_| {
                at = recurrence.next_after(at).unwrap();
                at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            })
            .collect()
    }

    #[test]
    fn nine_in_the_morning_stays_nine_in_the_morning_when_the_clocks_change() {
        // Egypt: forward on 24 April 2026, back at the end of 29 October 2026.
        assert_eq!(
            times("0 9 * * *", "Africa/Cairo", "2026-04-22T12:00:00Z", 3),
            [
                "2026-04-23T07:00:00Z",
                "2026-04-24T06:00:00Z",
                "2026-04-25T06:00:00Z"
            ]
        );
        assert_eq!(
            times("0 9 * * *", "Africa/Cairo", "2026-10-28T12:00:00Z", 3),
            [
                "2026-10-29T06:00:00Z",
                "2026-10-30T07:00:00Z",
                "2026-10-31T07:00:00Z"
            ]
        );
    }

    #[test]
    fn a_time_that_the_clock_leaps_over_is_not_lost_and_one_that_comes_twice_counts_once() {
        // New York: 02:30 does not exist on 8 March 2026; 01:30 comes twice on 1 November.
        let spring = times("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2);
        assert_eq!(spring, ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
        let autumn = times("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
    }

    #[test]
    fn what_is_no_recurrence_names_its_field() {
        let field = |expression, zone| recurrence(expression, zone).unwrap_err().field.unwrap();
        for expression in ["", "x", "* * * *", "0 0 9 * * *", "61 9 * * *"] {
            assert_eq!(field(expression, "UTC"), "recurrence", "{expression}");
        }
        assert_eq!(field("0 9 * * *", "Cairo"), "timezone");
        let never = recurrence("0 0 30 2 *", "UTC");
        assert!(never.is_err() || next_time(&never.unwrap(), Utc::now()).is_err());
    }
}
