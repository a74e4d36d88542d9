//! `/v1/notification-queue`: the rows of `notification_queue`, which any SQL may write, too.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::notification_queue::{self, Filter, Notification};

use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::queue::{self, Wanted};
use crate::state::AppState;

const STATUSES: [&str; 5] = ["pending", "processing", "completed", "failed", "cancelled"];
const TYPES: [&str; 3] = ["whatsapp", "sms", "email"];

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get))
        .routes(routes!(cancel))
}

/// A row of the queue as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueuedNotificationView {
    pub id: Uuid,
    /// `whatsapp`, `sms`, `email`.
    pub notification_type: String,
    /// A contact or a member, whose number or address counts where none is given.
    pub recipient_id: Option<Uuid>,
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    pub template_id: Option<Uuid>,
    #[schema(value_type = Object)]
    pub message_data: Value,
    /// 1 (first) to 10.
    pub priority: i16,
    pub scheduled_for: DateTime<Utc>,
    /// `pending`, `processing` (its message is on its way), `completed`, `failed`, `cancelled`.
    pub status: String,
    pub attempts: i32,
    pub max_attempts: i32,
    pub last_attempt_at: Option<DateTime<Utc>>,
    pub error_message: Option<String>,
    /// Our id of its newest message, whatever its type.
    pub whatsapp_message_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub completed_at: Option<DateTime<Utc>>,
}

impl From<Notification> for QueuedNotificationView {
    fn from(n: Notification) -> Self {
        Self {
            id: n.id,
            notification_type: n.notification_type,
            recipient_id: n.recipient_id,
            recipient_phone: n.recipient_phone,
            recipient_email: n.recipient_email,
            template_id: n.template_id,
            message_data: n.message_data,
            priority: n.priority,
            scheduled_for: n.scheduled_for,
            status: n.status,
            attempts: n.attempts,
            max_attempts: n.max_attempts,
            last_attempt_at: n.last_attempt_at,
            error_message: n.error_message,
            whatsapp_message_id: n.whatsapp_message_id,
            created_at: n.created_at,
            updated_at: n.updated_at,
            completed_at: n.completed_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only rows of this status.
    status: Option<String>,
    /// Only `whatsapp`, `sms` or `email`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// The queue, newest first.
#[utoipa::path(get, path = "/v1/notification-queue", tag = "notification queue", params(ListQuery),
    responses((status = 200, body = Page<QueuedNotificationView>), (status = 400, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<QueuedNotificationView>>, ApiError> {
    one_of("status", query.status.as_deref(), &STATUSES)?;
    one_of("type", query.kind.as_deref(), &TYPES)?;
    let limit = limit_of(query.limit)?;
    let before = match query.cursor.as_deref().map(cursor::decode).transpose()? {
        None => None,
        Some((Some(at), id)) => Some((at, id)),
        Some((None, _)) => {
            return Err(ApiError::invalid(
                "cursor",
                "is not one that a list returned",
            ));
        }
    };
    let filter = Filter {
        status: query.status.as_deref(),
        notification_type: query.kind.as_deref(),
    };
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = notification_queue::list(&mut tx, caller.org_id, filter, before, limit + 1).await?;
    tx.commit().await?;
    let place = |row: &Notification| cursor::encode(Some(row.created_at), row.id);
    Ok(axum::Json(page_of(rows, limit, place, Into::into)))
}

fn one_of(field: &str, given: Option<&str>, known: &[&str]) -> Result<(), ApiError> {
    match given {
        Some(given) if !known.contains(&given) => {
            let message = format!("must be one of {}", known.join(", "));
            Err(ApiError::invalid(field, message))
        }
        _ => Ok(()),
    }
}

/// One row.
#[utoipa::path(get, path = "/v1/notification-queue/{id}", tag = "notification queue", params(("id" = Uuid, Path)),
    responses((status = 200, body = QueuedNotificationView), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<QueuedNotificationView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let row = notification_queue::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    let row = row.ok_or_else(|| ApiError::not_found("queued notification"))?;
    Ok(axum::Json(row.into()))
}

/// A message to be queued: to whom, and a template or a text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateQueuedNotificationRequest {
    /// `whatsapp` (if left out), `sms`, `email`.
    pub notification_type: Option<String>,
    /// A contact or a member, whose number or address counts where none is given.
    pub recipient_id: Option<Uuid>,
    #[schema(example = "+201012345678")]
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    /// A template of ours by its id (`/v1/templates`).
    pub template_id: Option<Uuid>,
    /// The template's variables, here or under `variables`; without a template `message`. Further `media_url`, `subject`,
    /// `request_id`, `related_entity_id`.
    #[schema(value_type = Option<Object>, example = json!({"customer_name": "سارة"}))]
    pub message_data: Option<Map<String, Value>>,
    /// 1 (first) to 10; 5 if left out.
    pub priority: Option<i16>,
    /// Now if left out.
    pub scheduled_for: Option<DateTime<Utc>>,
}

/// Queues a message. What the processor would refuse is refused at once, by the name of the field.
#[utoipa::path(post, path = "/v1/notification-queue", tag = "notification queue",
    request_body = CreateQueuedNotificationRequest,
    responses((status = 201, body = QueuedNotificationView), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody, description = "only owners, admins and the service-role key may"),
        (status = 404, body = ErrorBody, description = "there is no such template or recipient"),
        (status = 422, body = ErrorBody, description = "template_variables, window_closed, opted_out, no_channel …")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateQueuedNotificationRequest>,
) -> Result<(StatusCode, axum::Json<QueuedNotificationView>), ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let wanted = Wanted {
        notification_type: request.notification_type,
        recipient_id: request.recipient_id,
        recipient_phone: request.recipient_phone,
        recipient_email: request.recipient_email,
        template_id: request.template_id,
        message_data: request.message_data,
        priority: request.priority,
        scheduled_for: request.scheduled_for,
        ..Wanted::default()
    };
    let row = queue::insert(&state, &caller, &wanted.into_row()?).await?;
    Ok((StatusCode::CREATED, axum::Json(row.into())))
}

/// Cancels a row that waits, or whose message has not left yet.
#[utoipa::path(post, path = "/v1/notification-queue/{id}/cancel", tag = "notification queue",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = QueuedNotificationView, description = "it is `cancelled`, now or before"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "too_late: its message has left, or it has ended")))]
async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<QueuedNotificationView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let row = notification_queue::cancel(&mut tx, caller.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found("queued notification"))?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    if row.status != "cancelled" {
        let message = match row.status.as_str() {
            "processing" => "it is too late: its message is being sent".to_owned(),
            other => format!("it is too late: the notification is {other}"),
        };
        return Err(ApiError::new(StatusCode::CONFLICT, "too_late", message));
    }
    Ok(axum::Json(row.into()))
}
