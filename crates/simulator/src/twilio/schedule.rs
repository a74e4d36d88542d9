//! Scheduled messages: what Twilio refuses, and sending them when their time comes.

use chrono::{DateTime, Utc};

use super::{TwilioError, callback, value};
use crate::world::{Tick, World};

/// When the message is to go out; nothing for at once.
pub(super) fn check(
    now: DateTime<Utc>,
    form: &[(String, String)],
    has_service: bool,
) -> Result<Option<DateTime<Utc>>, TwilioError> {
    let get = |key| value(form, key).filter(|value| !value.is_empty());
    let Some(kind) = get("ScheduleType") else {
        return Ok(None);
    };
    if kind != "fixed" {
        return Err(TwilioError::bad(20_001, "ScheduleType must be 'fixed'"));
    }
    if !has_service {
        return Err(TwilioError::bad(
            35_118,
            "MessagingServiceSid is required to schedule a message",
        ));
    }
    let at = get("SendAt")
        .ok_or_else(|| TwilioError::bad(35_111, "SendAt parameter is missing"))?
        .parse::<DateTime<Utc>>()
        .map_err(|_| TwilioError::bad(35_114, "SendAt must be an ISO 8601 time"))?;
    let wait = at - now;
    if wait < chrono::Duration::minutes(15) || wait > chrono::Duration::days(35) {
        return Err(TwilioError::bad(
            35_114,
            "SendAt must be between 15 minutes and 35 days in the future",
        ));
    }
    Ok(Some(at))
}

/// Sends the scheduled messages whose time has come.
pub(crate) fn release_scheduled(world: &World) {
    let due: Vec<(String, Option<u32>)> = {
        let mut state = world.lock();
        let now = state.now();
        let ids: Vec<String> = state
            .messages_newest_first()
            .filter(|message| message.tick == Tick::Scheduled)
            .filter(|message| {
                let at = message.twilio.as_ref().and_then(|extra| extra.send_at);
                at.is_some_and(|at| at <= now)
            })
            .map(|message| message.id.clone())
            .collect();
        ids.into_iter()
            .filter_map(|id| {
                let message = state.message(&id)?;
                let whatsapp = message.line.starts_with("whatsapp:");
                let closed = !state.window_is_open(&message.line, &message.customer);
                let failure = if whatsapp && closed && message.kind != "template" {
                    Some(63_016)
                } else {
                    message.twilio.as_ref().and_then(|extra| extra.failure)
                };
                state.move_tick(&id, Tick::Accepted, None)?;
                Some((id, failure))
            })
            .collect()
    };
    for (id, failure) in due {
        callback::tell_word(world, &id, "queued");
        callback::start_course(world, id, failure);
    }
}
