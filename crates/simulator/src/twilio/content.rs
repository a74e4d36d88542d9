//! Content API: templates, and filling them in.

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
};
use serde_json::{Map, Value, json};

use super::{TwilioError, authenticate};
use crate::{
    meta,
    world::{TwilioAccount, TwilioContent, World},
};

pub(super) struct Filled {
    pub(super) body: String,
    /// What the channel will say later.
    pub(super) failure: Option<u32>,
}

/// Fills in a template. A variable left out or an unapproved template fails after the answer.
pub(super) fn fill(
    account: &TwilioAccount,
    sid: &str,
    variables: Option<&str>,
) -> Result<Filled, TwilioError> {
    let content = account
        .contents
        .iter()
        .find(|content| content.sid == sid)
        .ok_or_else(|| TwilioError::bad(21_655, "The ContentSid is Invalid"))?;
    let invalid = || TwilioError::bad(21_656, "The ContentVariables Parameter is invalid");
    let values: Map<String, Value> = match variables {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|_| invalid())?,
    };
    if !values.values().all(Value::is_string) {
        return Err(invalid());
    }
    let mut body = content.body.clone();
    let mut failure = (!content.approved).then_some(63_016);
    for name in meta::placeholders(&content.body) {
        match values.get(&name).and_then(Value::as_str) {
            Some(value) => body = body.replace(&format!("{{{{{name}}}}}"), value),
            None => failure = Some(63_028),
        }
    }
    Ok(Filled { body, failure })
}

fn describe(account: &TwilioAccount, content: &TwilioContent) -> Value {
    let status = if content.approved {
        "approved"
    } else {
        "unsubmitted"
    };
    let variables: Map<String, Value> = meta::placeholders(&content.body)
        .into_iter()
        .map(|name| (name.clone(), json!(name)))
        .collect();
    json!({
        "sid": content.sid,
        "account_sid": account.account_sid,
        "friendly_name": content.friendly_name,
        "language": content.language,
        "variables": variables,
        "types": {"twilio/text": {"body": content.body}},
        "approval_requests": {"name": content.friendly_name, "status": status, "category": "UTILITY", "rejection_reason": ""},
    })
}

pub(super) async fn list(
    State(world): State<World>,
    headers: HeaderMap,
) -> Result<Json<Value>, TwilioError> {
    let account = authenticate(&world, &headers)?;
    let contents: Vec<Value> = account
        .contents
        .iter()
        .map(|content| describe(&account, content))
        .collect();
    Ok(Json(json!({
        "contents": contents,
        "meta": {"page": 0, "page_size": 50, "key": "contents", "next_page_url": null, "previous_page_url": null},
    })))
}

pub(super) async fn fetch(
    State(world): State<World>,
    Path(sid): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, TwilioError> {
    let account = authenticate(&world, &headers)?;
    account
        .contents
        .iter()
        .find(|content| content.sid == sid)
        .map(|content| Json(describe(&account, content)))
        .ok_or_else(|| TwilioError::not_found(&format!("/v1/Content/{sid}")))
}
