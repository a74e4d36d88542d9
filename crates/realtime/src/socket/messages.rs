//! The messages that the server sends besides changes and broadcasts.

use bytes::BytesMut;
use serde_json::{Value, json};

use crate::auth::TokenError;
use crate::codec::{Outgoing, Vsn, put_json};
use crate::hub::TOPIC_PREFIX;
use crate::socket::Frame;

/// A message of the server's own accord.
pub(crate) fn push(
    vsn: Vsn,
    topic: &str,
    join_ref: Option<&str>,
    event: &str,
    payload: &Value,
) -> Frame {
    text(vsn, topic, join_ref, None, event, payload)
}

/// `phx_reply` with status ok.
pub(crate) fn reply_ok(
    vsn: Vsn,
    topic: &str,
    join_ref: Option<&str>,
    reference: Option<&str>,
    response: &Value,
) -> Frame {
    let payload = json!({ "status": "ok", "response": response });
    text(vsn, topic, join_ref, reference, "phx_reply", &payload)
}

/// `phx_reply` with status error.
pub(crate) fn reply_error(
    vsn: Vsn,
    topic: &str,
    join_ref: Option<&str>,
    reference: Option<&str>,
    response: &Value,
) -> Frame {
    let payload = json!({ "status": "error", "response": response });
    text(vsn, topic, join_ref, reference, "phx_reply", &payload)
}

/// The system event that says whether changes flow; an empty `problem` means that they do. `after` tells from which number
/// on, to clients that will come back with one.
pub(crate) fn subscribed(
    vsn: Vsn,
    topic: &str,
    join_ref: Option<&str>,
    problem: &str,
    after: Option<i64>,
) -> Frame {
    let (status, message) = if problem.is_empty() {
        ("ok", "Subscribed to PostgreSQL".to_owned())
    } else {
        let message = format!("Unable to subscribe to changes with given parameters: {problem}");
        ("error", message)
    };
    let mut payload = json!({
        "extension": "postgres_changes",
        "status": status,
        "message": message,
        "channel": user_topic(topic),
    });
    if let Some(after) = after {
        payload["after"] = Value::from(after);
    }
    push(vsn, topic, join_ref, "system", &payload)
}

/// The system event that says what is the matter with the changes of a channel that is live otherwise.
pub(crate) fn changes_problem(vsn: Vsn, topic: &str, message: &str) -> Frame {
    system_error(vsn, topic, "postgres_changes", message)
}

/// The system event that says that a part of what was asked for is not to be had.
pub(crate) fn system_error(vsn: Vsn, topic: &str, extension: &str, message: &str) -> Frame {
    let payload = json!({
        "extension": extension,
        "status": "error",
        "message": message,
        "channel": user_topic(topic),
    });
    push(vsn, topic, None, "system", &payload)
}

/// The system event that announces the end of a channel whose token is no longer good.
pub(crate) fn token_refused(vsn: Vsn, topic: &str, join_ref: &str, error: &TokenError) -> Frame {
    let payload = json!({
        "extension": "system",
        "status": "error",
        "message": error.message,
        "channel": user_topic(topic),
    });
    push(vsn, topic, Some(join_ref), "system", &payload)
}

/// `phx_error`, upon which the client joins again with the newest token it has. (After `phx_close` it never would.) The
/// client takes it for its channel only when the reference is the join's.
pub(crate) fn channel_error(vsn: Vsn, topic: &str, join_ref: &str) -> Frame {
    text(
        vsn,
        topic,
        Some(join_ref),
        Some(join_ref),
        "phx_error",
        &json!({}),
    )
}

fn user_topic(topic: &str) -> &str {
    topic.strip_prefix(TOPIC_PREFIX).unwrap_or(topic)
}

fn text(
    vsn: Vsn,
    topic: &str,
    join_ref: Option<&str>,
    reference: Option<&str>,
    event: &str,
    payload: &Value,
) -> Frame {
    let mut json = BytesMut::new();
    put_json(&mut json, payload);
    Frame::Text(
        Outgoing {
            join_ref,
            reference,
            topic,
            event,
            payload: &json,
        }
        .encode(vsn),
    )
}
