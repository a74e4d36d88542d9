//! S4.13 `send-notification` and `process-queue`: the notification queue of a fleet SaaS by its functions.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::{self, CallerKind, Role, Verified};
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson};
use crate::http::limits;
use crate::queue::{self, Tally, Wanted};
use crate::state::AppState;

/// Rows one call of `process-queue` works off if it names no limit, and at most.
const USUAL_LIMIT: u64 = 100;
const MAX_LIMIT: u64 = 1000;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(send_notification))
        .routes(routes!(process_queue))
}

#[derive(Debug, Deserialize, ToSchema)]
struct SendNotificationRequest {
    /// `whatsapp` (if left out), `sms`, `email`.
    #[serde(alias = "type")]
    notification_type: Option<String>,
    /// A contact or a member, whose number or address counts where none is given.
    recipient_id: Option<Uuid>,
    recipient_phone: Option<String>,
    recipient_email: Option<String>,
    /// A template of ours by its id.
    template_id: Option<Uuid>,
    /// The text, without a template.
    message: Option<String>,
    /// As in the table: the template's variables, and more.
    #[schema(value_type = Option<Object>)]
    message_data: Option<Map<String, Value>>,
    /// The template's variables.
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
    /// 1 (first) to 10; 5 if left out.
    priority: Option<i16>,
    scheduled_for: Option<DateTime<Utc>>,
}

/// Puts a notification into the queue; what could not be sent is refused at once.
#[utoipa::path(post, path = "/functions/v1/send-notification", tag = "documents",
    request_body = SendNotificationRequest,
    responses((status = 200, description = "`{success, notification_id, status: \"pending\"}`"), (status = 400),
        (status = 401), (status = 403, description = "neither owner nor admin nor the service-role key"), (status = 404),
        (status = 422), (status = 429)))]
async fn send_notification(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentJson(request): DocumentJson<SendNotificationRequest>,
) -> Result<Json<Value>, DocumentError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let wanted = Wanted {
        notification_type: request.notification_type,
        recipient_id: request.recipient_id,
        recipient_phone: request.recipient_phone,
        recipient_email: request.recipient_email,
        template_id: request.template_id,
        message: request.message,
        message_data: request.message_data,
        variables: request.variables,
        priority: request.priority,
        scheduled_for: request.scheduled_for,
    };
    let new = wanted.into_row()?;
    if caller.kind == CallerKind::User {
        limits::take_org_send(&state, &caller).await?;
    }
    let row = queue::insert(&state, &caller, &new).await?;
    Ok(Json(
        json!({ "success": true, "notification_id": row.id, "status": row.status }),
    ))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct ProcessQueueRequest {
    /// Rows to work off at most: 1 to 1000, 100 if left out.
    limit: Option<u64>,
}

/// Works off what is due now. Nobody needs to call it, because rows are seen as they come; a scheduler that does so may
/// go on. Every tenant's rows, or those of `X-Org-Id`.
#[utoipa::path(post, path = "/functions/v1/process-queue", tag = "documents",
    request_body(content = Option<ProcessQueueRequest>),
    responses((status = 200, description = "`{success, processed, failed, put_off}`: what this call did itself"),
        (status = 400), (status = 401), (status = 403, description = "not the service-role key")))]
async fn process_queue(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, DocumentError> {
    match auth::identify(&state.auth, &headers).await? {
        Verified::Service => {}
        Verified::Anonymous | Verified::User(_) => {
            let message = "this function is for servers, with the service-role key";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into());
        }
    }
    let only = auth::requested_org(&headers)?;
    let request = if body.is_empty() {
        ProcessQueueRequest::default()
    } else {
        serde_json::from_slice::<Option<ProcessQueueRequest>>(&body)
            .map_err(|_| ApiError::invalid("limit", "must be in a JSON object, as a number"))?
            .unwrap_or_default()
    };
    let limit = request.limit.unwrap_or(USUAL_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("must be from 1 to {MAX_LIMIT}");
        return Err(ApiError::invalid("limit", message).into());
    }
    let mut tally = Tally::default();
    // From the first tenant to the last, again and again until a whole sweep finds nothing that is free.
    let (mut after, mut idle) = (Uuid::nil(), true);
    while tally.total() < limit {
        let left = i64::try_from(limit - tally.total()).unwrap_or(i64::MAX);
        let round = queue::process_round(&state, only, after, left).await?;
        tally.add(round.tally);
        idle &= round.tally.total() == 0;
        match round.next {
            Some(next) if only.is_none() => after = next,
            _ if idle => break,
            _ => (after, idle) = (Uuid::nil(), true),
        }
    }
    Ok(Json(json!({
        "success": true, "processed": tally.processed, "failed": tally.failed, "put_off": tally.put_off,
    })))
}
