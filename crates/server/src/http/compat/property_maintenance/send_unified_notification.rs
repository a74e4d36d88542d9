//! S2.4 `send-unified-notification`: one call, any set of channels.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use wasel_db::{contacts, profiles};
use wasel_domain::{ContactId, UserId};

use crate::auth::{Caller, CallerKind, Role};
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson};
use crate::http::limits;
use crate::http::v1::messages::idempotency_key;
use crate::notify::{self, Medium, Note, Outcome, Step};
use crate::state::AppState;

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct UnifiedNotificationRequest {
    /// Any of `sms`, `whatsapp`, `email`; with `fallback`, in order of preference.
    #[schema(example = json!(["whatsapp", "sms"]))]
    channels: Vec<String>,
    recipient_phone: Option<String>,
    recipient_email: Option<String>,
    /// A contact or a member of the organisation, whose number and address fill in what is not given.
    recipient_id: Option<Uuid>,
    message: Option<String>,
    /// A template of ours by its id (`/v1/templates`).
    template_id: Option<String>,
    /// The template's variables.
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
    /// `true`: only the first of `channels` that works, the next one if its message fails within a day. A list: the
    /// same for these channels, in this order, beside the others.
    #[schema(value_type = Option<Object>, example = json!(["whatsapp", "sms"]))]
    fallback: Option<FallbackOrder>,
    request_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FallbackOrder {
    Switch(bool),
    Order(Vec<String>),
}

/// Tells one person by SMS, WhatsApp and e-mail, or by the first of them that works. Each channel's outcome is listed;
/// `success` is whether any took it.
#[utoipa::path(post, path = "/functions/v1/send-unified-notification", tag = "documents",
    request_body = UnifiedNotificationRequest,
    responses((status = 200, description = "`{success, results: [{channel, success, message_id?, error?}]}`"),
        (status = 400), (status = 401), (status = 403), (status = 404),
        (status = 422, description = "no channel took it; the same shape"), (status = 429)))]
pub(super) async fn send_unified_notification(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    headers: HeaderMap,
    DocumentJson(request): DocumentJson<UnifiedNotificationRequest>,
) -> Result<Response, DocumentError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let plan = Plan::of(&request)?;
    let key = idempotency_key(&headers)?;
    if request.message.is_none() && request.template_id.is_none() {
        return Err(ApiError::invalid("message", "is missing (or give template_id)").into());
    }
    if caller.kind == CallerKind::User {
        limits::take_user_send(&state, &caller).await?;
    }
    let mut note = Note {
        phone: request.recipient_phone,
        email: request.recipient_email,
        text: request.message,
        template: request.template_id,
        variables: request.variables,
        request_id: request.request_id,
        ..Note::default()
    };
    if let Some(id) = request.recipient_id {
        fill_in(&state, &caller, id, &mut note).await?;
    }
    let mut outcomes = Vec::new();
    for medium in plan.each {
        outcomes.extend(send(&state, &caller, &[medium], &note, key.as_deref()).await);
    }
    outcomes.extend(send(&state, &caller, &plan.first_of, &note, key.as_deref()).await);
    if outcomes.iter().all(|outcome| outcome.result.is_err()) {
        let trouble = |outcome: &Outcome| {
            let error = outcome.result.as_ref().err()?;
            error.status.is_server_error().then(|| error.clone())
        };
        if let Some(error) = outcomes.iter().find_map(trouble) {
            return Err(error.into());
        }
    }
    Ok(answer(outcomes))
}

/// Which channels are all used, and which in turn.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    each: Vec<Medium>,
    first_of: Vec<Medium>,
}

impl Plan {
    fn of(request: &UnifiedNotificationRequest) -> Result<Self, ApiError> {
        let channels = media("channels", &request.channels)?;
        if channels.is_empty() {
            return Err(ApiError::invalid(
                "channels",
                "must name at least one of sms, whatsapp, email",
            ));
        }
        match &request.fallback {
            None | Some(FallbackOrder::Switch(false)) => Ok(Self {
                each: channels,
                first_of: Vec::new(),
            }),
            Some(FallbackOrder::Switch(true)) => Ok(Self {
                each: Vec::new(),
                first_of: channels,
            }),
            Some(FallbackOrder::Order(order)) => {
                let order = media("fallback", order)?;
                if let Some(index) = order.iter().position(|medium| !channels.contains(medium)) {
                    return Err(ApiError::invalid(
                        format!("fallback[{index}]"),
                        "is not among the channels",
                    ));
                }
                Ok(Self {
                    each: channels
                        .into_iter()
                        .filter(|medium| !order.contains(medium))
                        .collect(),
                    first_of: order,
                })
            }
        }
    }
}

/// The channels named, each once.
fn media(field: &str, names: &[String]) -> Result<Vec<Medium>, ApiError> {
    let mut media = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let medium = Medium::parse(name).ok_or_else(|| {
            ApiError::invalid(
                format!("{field}[{index}]"),
                "must be sms, whatsapp or email",
            )
        })?;
        if !media.contains(&medium) {
            media.push(medium);
        }
    }
    Ok(media)
}

/// The recipient's number and address, where the caller left them out.
async fn fill_in(
    state: &AppState,
    caller: &Caller,
    id: Uuid,
    note: &mut Note,
) -> Result<(), ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let known = match contacts::find(&mut tx, caller.org_id, ContactId(id)).await? {
        Some(contact) => Some((contact.phone_number, contact.email)),
        None => profiles::find(&mut tx, caller.org_id, UserId(id))
            .await?
            .map(|profile| (profile.phone, profile.email)),
    };
    tx.commit().await?;
    let (phone, email) =
        known.ok_or_else(|| ApiError::not_found("contact or member").at("recipient_id"))?;
    note.phone = note.phone.take().or(phone);
    note.email = note.email.take().or(email);
    Ok(())
}

/// Sends by the first of `media` that works. One the organisation does not have counts as refused.
async fn send(
    state: &AppState,
    caller: &Caller,
    media: &[Medium],
    note: &Note,
    key: Option<&str>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    for medium in media {
        match notify::step(state, caller, *medium) {
            Ok(step) => steps.push(step),
            Err(error) => outcomes.push(Outcome {
                medium: *medium,
                result: Err(error),
            }),
        }
    }
    outcomes.extend(notify::send_by_first(state, caller, &steps, note, key).await);
    outcomes
}

fn answer(outcomes: Vec<Outcome>) -> Response {
    let success = outcomes.iter().any(|outcome| outcome.result.is_ok());
    let results: Vec<Value> = outcomes
        .into_iter()
        .map(|outcome| {
            let channel = outcome.medium.as_str();
            match outcome.result {
                Ok(message) => {
                    json!({ "channel": channel, "success": true, "message_id": message.id })
                }
                Err(error) => json!({
                    "channel": channel, "success": false, "error": error.in_words(), "code": error.code,
                }),
            }
        })
        .collect();
    if success {
        return Json(json!({ "success": true, "results": results })).into_response();
    }
    let body =
        json!({ "success": false, "error": "no channel took the message", "results": results });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(request: Value) -> Result<Plan, String> {
        let request: UnifiedNotificationRequest = serde_json::from_value(request).unwrap();
        Plan::of(&request).map_err(|error| error.in_words())
    }

    #[test]
    fn channels_are_used_all_or_in_turn() {
        use Medium::{Email, Sms, Whatsapp};
        let all = plan(json!({"channels": ["sms", "email", "sms"]})).unwrap();
        assert_eq!((all.each, all.first_of), (vec![Sms, Email], vec![]));
        let turn = plan(json!({"channels": ["whatsapp", "sms"], "fallback": true})).unwrap();
        assert_eq!((turn.each, turn.first_of), (vec![], vec![Whatsapp, Sms]));
        let both =
            json!({"channels": ["sms", "whatsapp", "email"], "fallback": ["whatsapp", "sms"]});
        let both = plan(both).unwrap();
        assert_eq!(
            (both.each, both.first_of),
            (vec![Email], vec![Whatsapp, Sms])
        );
    }

    #[test]
    fn a_channel_that_is_none_is_named_by_its_place() {
        assert!(
            plan(json!({"channels": []}))
                .unwrap_err()
                .starts_with("channels: ")
        );
        let unknown = plan(json!({"channels": ["sms", "fax"]})).unwrap_err();
        assert!(unknown.starts_with("channels[1]: "), "{unknown}");
        let stray = plan(json!({"channels": ["sms"], "fallback": ["sms", "email"]})).unwrap_err();
        assert!(stray.starts_with("fallback[1]: "), "{stray}");
    }
}
