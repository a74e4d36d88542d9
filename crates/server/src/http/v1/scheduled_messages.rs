//! `/v1/scheduled-messages`: messages for later, once or again and again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::scheduled::{self, Filter, ScheduledFields, ScheduledMessage};
use wasel_db::{conversations, organizations};
use wasel_domain::{Category, OutboundContent};

use super::conversations::present;
use super::messages::visible_channel;
use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::jobs::send_scheduled::LATE_LIMIT;
use crate::outbound;
use crate::registry::Channel;
use crate::scheduled::{content_of, next_time, parse_zone, recurrence};
use crate::state::AppState;

const WRITERS: [Role; 3] = [Role::Owner, Role::Admin, Role::Agent];
const STATUSES: [&str; 4] = ["scheduled", "sent", "cancelled", "failed"];
/// The longest late limit: 30 days, in seconds.
const MAX_LATE: i64 = 30 * 86_400;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(cancel))
}

/// A scheduled message as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduledMessageView {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub conversation_id: Option<Uuid>,
    pub to: Option<String>,
    pub recipient_name: Option<String>,
    /// As it will go; `null` for a template, which is filled in when its time has come.
    #[schema(value_type = Option<Object>)]
    pub content: Option<Value>,
    pub template_id: Option<Uuid>,
    #[schema(value_type = Object)]
    pub variables: Value,
    pub category: String,
    pub priority: i16,
    /// When it goes, or goes next.
    pub scheduled_for: DateTime<Utc>,
    /// IANA name; the recurrence is by its clock.
    pub timezone: String,
    /// A cron expression; `null`: once.
    pub recurrence: Option<String>,
    pub ends_at: Option<DateTime<Utc>>,
    pub max_runs: Option<i32>,
    /// Later than this, in seconds, it is not sent any more.
    pub late_limit: i64,
    /// `scheduled`, `sent` (all its runs are done), `cancelled`, or `failed`: its last run made no message.
    pub status: String,
    /// The message of the last run that made one.
    pub message_id: Option<Uuid>,
    pub last_run_at: Option<DateTime<Utc>>,
    pub run_count: i32,
    /// Why the last run made no message: `missed`, `opted_out`, `window_closed` …
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl From<ScheduledMessage> for ScheduledMessageView {
    fn from(row: ScheduledMessage) -> Self {
        let fields = row.fields;
        Self {
            id: row.id,
            channel_id: fields.channel_id,
            conversation_id: fields.conversation_id,
            to: fields.address,
            recipient_name: fields.recipient_name,
            content: fields.content,
            template_id: fields.template_id,
            variables: fields.variables,
            category: fields.category,
            priority: fields.priority,
            scheduled_for: fields.scheduled_for,
            timezone: fields.timezone,
            recurrence: fields.recurrence,
            ends_at: fields.ends_at,
            max_runs: fields.max_runs,
            late_limit: fields.late_limit_seconds as i64,
            status: row.status,
            message_id: row.message_id,
            last_run_at: row.last_run_at,
            run_count: row.run_count,
            error_code: row.error_code,
            error: row.error,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `scheduled`, `sent`, `cancelled`, `failed`.
    status: Option<String>,
    /// Only of this channel.
    channel_id: Option<Uuid>,
    /// Only of this conversation.
    conversation_id: Option<Uuid>,
    /// Only recurring ones (`true`), or only the others (`false`).
    recurring: Option<bool>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// Scheduled messages, the last made first.
#[utoipa::path(get, path = "/v1/scheduled-messages", tag = "scheduled", params(ListQuery),
    responses((status = 200, body = Page<ScheduledMessageView>, description = "one page of scheduled messages"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<ScheduledMessageView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    if let Some(status) = &query.status
        && !STATUSES.contains(&status.as_str())
    {
        let message = format!("must be one of {}", STATUSES.join(", "));
        return Err(ApiError::invalid("status", message));
    }
    let filter = Filter {
        status: query.status.as_deref(),
        channel_id: query.channel_id,
        conversation_id: query.conversation_id,
        recurring: query.recurring,
    };
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let before = before.map(|(_, id)| id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = scheduled::list(&mut tx, caller.org_id, &filter, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |row| cursor::encode(None, row.id),
        Into::into,
    )))
}

/// A message for later: into a conversation, or to an address on a channel. Of `content`, `message` and `template_id` give
/// one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateScheduledMessageRequest {
    pub conversation_id: Option<Uuid>,
    /// The channel to send from, with `to`.
    pub channel_id: Option<Uuid>,
    /// A phone number, a provider's user id, or an e-mail address.
    #[schema(example = "+201012345678")]
    pub to: Option<String>,
    /// For a new contact.
    pub recipient_name: Option<String>,
    /// As in `POST /v1/messages`.
    #[schema(value_type = Option<Object>)]
    pub content: Option<OutboundContent>,
    /// A text.
    pub message: Option<String>,
    /// Filled in when its time has come, as the template is then.
    pub template_id: Option<Uuid>,
    #[schema(value_type = Option<Object>)]
    pub variables: Option<Map<String, Value>>,
    /// `service` (default), `utility`, `marketing`, `authentication`.
    #[schema(value_type = Option<String>)]
    pub category: Option<Category>,
    /// 1 (first) to 10; 5 if left out.
    pub priority: Option<i16>,
    /// When it goes. May be left out with a `recurrence`, whose next time it is then.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// IANA name; the organisation's if left out.
    #[schema(example = "Africa/Cairo")]
    pub timezone: Option<String>,
    /// A cron expression of five fields by the clock of the time zone.
    #[schema(example = "0 9 * * 1-5")]
    pub recurrence: Option<String>,
    /// It does not go after this.
    pub ends_at: Option<DateTime<Utc>>,
    /// It goes so often at most.
    pub max_runs: Option<i32>,
    /// If it could not go in time it goes late, but not later than so many seconds; a day if left out, 30 days at most.
    pub late_limit: Option<i64>,
}

/// Keeps a message for later.
#[utoipa::path(post, path = "/v1/scheduled-messages", tag = "scheduled", request_body = CreateScheduledMessageRequest,
    responses((status = 201, body = ScheduledMessageView, description = "it is scheduled"),
        (status = 400, body = ErrorBody, description = "a field is missing or malformed"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody, description = "there is no such conversation, channel or template"),
        (status = 422, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateScheduledMessageRequest>,
) -> Result<(StatusCode, axum::Json<ScheduledMessageView>), ApiError> {
    caller.require(&WRITERS)?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let organization = organizations::find(&mut tx, org).await?;
    let organization = organization.ok_or_else(|| ApiError::not_found("organisation"))?;
    let conversation = match request.conversation_id {
        Some(id) => Some(
            conversations::find(&mut tx, org, id.into())
                .await?
                .ok_or_else(|| ApiError::not_found("conversation").at("conversation_id"))?,
        ),
        None => None,
    };
    tx.commit().await?;
    let (channel, address) = match (conversation, request.channel_id, request.to) {
        (Some(conversation), None, None) => (
            visible_channel(&state, &caller, conversation.channel_id.into())
                .await?
                .0,
            None,
        ),
        (Some(_), _, _) => {
            let message = "goes without channel_id and to";
            return Err(ApiError::invalid("conversation_id", message));
        }
        (None, Some(channel), Some(to)) => {
            let channel = visible_channel(&state, &caller, channel.into()).await?.0;
            let identity = outbound::address(&channel, &to)?;
            (channel, Some(identity.value))
        }
        (None, Some(_), None) => return Err(ApiError::invalid("to", "is missing")),
        (None, None, _) => {
            let message = "is missing (or give conversation_id)";
            return Err(ApiError::invalid("channel_id", message));
        }
    };
    let timezone = request.timezone.unwrap_or(organization.timezone);
    let scheduled_for = match (request.scheduled_for, &request.recurrence) {
        (Some(at), _) => at,
        (None, Some(expression)) => next_time(&recurrence(expression, &timezone)?, Utc::now())?,
        (None, None) => return Err(ApiError::invalid("scheduled_for", "is missing")),
    };
    let fields = ScheduledFields {
        channel_id: channel.id.0,
        conversation_id: request.conversation_id,
        address,
        recipient_name: request
            .recipient_name
            .filter(|name| !name.trim().is_empty()),
        content: said(request.content, request.message, request.template_id)?,
        template_id: request.template_id,
        variables: Value::Object(request.variables.unwrap_or_default()),
        category: request.category.unwrap_or_default().as_str().to_owned(),
        priority: request.priority.unwrap_or(5),
        scheduled_for,
        timezone,
        recurrence: request.recurrence,
        ends_at: request.ends_at,
        max_runs: request.max_runs,
        late_limit_seconds: request.late_limit.unwrap_or(LATE_LIMIT.num_seconds()) as f64,
    };
    check(&state, &caller, &channel, &fields).await?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let row = scheduled::insert(&mut tx, org, &fields, caller.user_id).await?;
    tx.commit().await?;
    wake(&state);
    Ok((StatusCode::CREATED, axum::Json(row.into())))
}

fn wake(state: &AppState) {
    state.signals.scheduled.notify_one();
    state.signals.commits.changes.notify_one();
}

/// The content to keep; `None` for a template.
fn said(
    content: Option<OutboundContent>,
    message: Option<String>,
    template: Option<Uuid>,
) -> Result<Option<Value>, ApiError> {
    let content = match (content, message, template) {
        (Some(content), None, None) => content,
        (None, Some(body), None) if !body.trim().is_empty() => OutboundContent::Text {
            body,
            preview_url: true,
        },
        (None, None, Some(_)) => return Ok(None),
        (None, _, None) => {
            let message = "is missing (or give template_id or content)";
            return Err(ApiError::invalid("message", message));
        }
        _ => {
            let message = "only one of template_id, message and content";
            return Err(ApiError::invalid("message", message));
        }
    };
    serde_json::to_value(content)
        .map(Some)
        .map_err(|_| ApiError::invalid("content", "is not JSON"))
}

/// What can be known now is told now.
async fn check(
    state: &AppState,
    caller: &Caller,
    channel: &Arc<Channel>,
    fields: &ScheduledFields,
) -> Result<(), ApiError> {
    if !(1..=10).contains(&fields.priority) {
        return Err(ApiError::invalid("priority", "must be from 1 to 10"));
    }
    parse_zone(&fields.timezone)?;
    if let Some(expression) = &fields.recurrence {
        recurrence(expression, &fields.timezone)?;
    }
    if fields.max_runs.is_some_and(|runs| runs < 1) {
        return Err(ApiError::invalid("max_runs", "must be at least 1"));
    }
    if fields.ends_at.is_some_and(|end| end < fields.scheduled_for) {
        return Err(ApiError::invalid("ends_at", "is before scheduled_for"));
    }
    if !(0.0..=MAX_LATE as f64).contains(&fields.late_limit_seconds) {
        let message = format!("must be from 0 to {MAX_LATE} seconds");
        return Err(ApiError::invalid("late_limit", message));
    }
    let late = (Utc::now() - fields.scheduled_for).as_seconds_f64();
    if late > fields.late_limit_seconds {
        return Err(ApiError::invalid("scheduled_for", "is in the past"));
    }
    let variables = fields.variables.as_object();
    if fields.template_id.is_none() && variables.is_some_and(|values| !values.is_empty()) {
        return Err(ApiError::invalid("variables", "go with a template_id"));
    }
    let written = [&fields.content, &Some(fields.variables.clone())];
    let nul = written
        .into_iter()
        .flatten()
        .any(|value| value.to_string().contains("\\u0000"))
        || fields
            .recipient_name
            .as_ref()
            .is_some_and(|name| name.contains('\0'));
    if nul {
        return Err(ApiError::invalid("content", "holds a NUL character"));
    }
    let (content, template) = (fields.content.as_ref(), fields.template_id);
    content_of(
        state,
        caller,
        channel,
        None,
        content,
        template,
        &fields.variables,
    )
    .await?;
    Ok(())
}

/// One scheduled message.
#[utoipa::path(get, path = "/v1/scheduled-messages/{id}", tag = "scheduled", params(("id" = Uuid, Path)),
    responses((status = 200, body = ScheduledMessageView, description = "the scheduled message"), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<ScheduledMessageView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let row = scheduled::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    let row = row.ok_or_else(|| ApiError::not_found("scheduled message"))?;
    Ok(axum::Json(row.into()))
}

/// Fields left out stay as they are; `null` empties one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateScheduledMessageRequest {
    /// Instead of what it says now.
    #[schema(value_type = Option<Object>)]
    content: Option<OutboundContent>,
    /// Instead of what it says now.
    message: Option<String>,
    /// Instead of what it says now.
    template_id: Option<Uuid>,
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
    #[schema(value_type = Option<String>)]
    category: Option<Category>,
    priority: Option<i16>,
    scheduled_for: Option<DateTime<Utc>>,
    timezone: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    recurrence: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Option<DateTime<Utc>>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>)]
    max_runs: Option<Option<i32>>,
    late_limit: Option<i64>,
}

impl UpdateScheduledMessageRequest {
    fn over(self, mut old: ScheduledFields) -> Result<ScheduledFields, ApiError> {
        if self.content.is_some() || self.message.is_some() || self.template_id.is_some() {
            old.content = said(self.content, self.message, self.template_id)?;
            old.template_id = self.template_id;
            if self.template_id.is_none() {
                old.variables = Value::Object(Map::new());
            }
        }
        if let Some(variables) = self.variables {
            old.variables = Value::Object(variables);
        }
        if let Some(category) = self.category {
            old.category = category.as_str().to_owned();
        }
        old.priority = self.priority.unwrap_or(old.priority);
        old.scheduled_for = self.scheduled_for.unwrap_or(old.scheduled_for);
        old.timezone = self.timezone.unwrap_or(old.timezone);
        old.recurrence = self.recurrence.unwrap_or(old.recurrence);
        old.ends_at = self.ends_at.unwrap_or(old.ends_at);
        old.max_runs = self.max_runs.unwrap_or(old.max_runs);
        if let Some(seconds) = self.late_limit {
            old.late_limit_seconds = seconds as f64;
        }
        Ok(old)
    }
}

/// Changes one that has not gone out. A new recurrence alone moves it to the next time of that.
#[utoipa::path(patch, path = "/v1/scheduled-messages/{id}", tag = "scheduled", params(("id" = Uuid, Path)),
    request_body = UpdateScheduledMessageRequest,
    responses((status = 200, body = ScheduledMessageView, description = "as it is now"),
        (status = 400, body = ErrorBody, description = "a field is malformed"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "it has gone out or was cancelled"),
        (status = 422, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<UpdateScheduledMessageRequest>,
) -> Result<axum::Json<ScheduledMessageView>, ApiError> {
    caller.require(&WRITERS)?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let old = scheduled::find(&mut tx, org, id).await?;
    tx.commit().await?;
    let old = old.ok_or_else(|| ApiError::not_found("scheduled message"))?;
    let channel = visible_channel(&state, &caller, old.fields.channel_id.into()).await?;
    let moves = request.scheduled_for.is_none()
        && (request.recurrence.as_ref().is_some_and(Option::is_some) || request.timezone.is_some());
    let mut fields = request.over(old.fields)?;
    if let (true, Some(expression)) = (moves, &fields.recurrence) {
        fields.scheduled_for = next_time(&recurrence(expression, &fields.timezone)?, Utc::now())?;
    }
    check(&state, &caller, &channel.0, &fields).await?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    // It may have gone out while the request was checked.
    let now = scheduled::find_for_update(&mut tx, org, id).await?;
    let unchanged = now.is_some_and(|now| now.updated_at == old.updated_at);
    let row = if unchanged {
        scheduled::update(&mut tx, org, id, &fields).await?
    } else {
        None
    };
    let row = row.ok_or_else(gone)?;
    tx.commit().await?;
    wake(&state);
    Ok(axum::Json(row.into()))
}

fn gone() -> ApiError {
    let message = "it has gone out, was cancelled, or was changed a moment ago";
    ApiError::new(StatusCode::CONFLICT, "wrong_state", message)
}

/// Calls one off. Messages it has made stay.
#[utoipa::path(post, path = "/v1/scheduled-messages/{id}/cancel", tag = "scheduled", params(("id" = Uuid, Path)),
    responses((status = 200, body = ScheduledMessageView, description = "it is cancelled"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "it has gone out or was cancelled")))]
async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<ScheduledMessageView>, ApiError> {
    caller.require(&WRITERS)?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let Some(row) = scheduled::cancel(&mut tx, org, id).await? else {
        return Err(match scheduled::find(&mut tx, org, id).await? {
            Some(_) => gone(),
            None => ApiError::not_found("scheduled message"),
        });
    };
    tx.commit().await?;
    wake(&state);
    Ok(axum::Json(row.into()))
}

/// Removes one; if it has not gone out it never will. Messages it has made stay.
#[utoipa::path(delete, path = "/v1/scheduled-messages/{id}", tag = "scheduled", params(("id" = Uuid, Path)),
    responses((status = 204, description = "it is gone"), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<StatusCode, ApiError> {
    caller.require(&WRITERS)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if !scheduled::delete(&mut tx, caller.org_id, id).await? {
        return Err(ApiError::not_found("scheduled message"));
    }
    tx.commit().await?;
    wake(&state);
    Ok(StatusCode::NO_CONTENT)
}
