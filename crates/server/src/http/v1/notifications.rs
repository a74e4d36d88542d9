//! `/v1/notifications`: what people are told in the inbox.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::notifications::{self, Filter, Mine, NewNotification, Notification};
use wasel_db::profiles;

use super::{cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::state::AppState;

/// The longest texts, in characters.
const MAX_KIND: usize = 64;
const MAX_TITLE: usize = 200;
const MAX_BODY: usize = 4000;
/// The longest `data`, in bytes of JSON: every listener gets it.
const MAX_DATA: usize = 16 * 1024;
/// Ids in one request.
const MAX_IDS: usize = 1000;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(mark_read))
        .routes(routes!(delete))
}

/// A notification as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationView {
    pub id: Uuid,
    /// Whom it is for; `null`: the owners and admins, who share it.
    pub user_id: Option<Uuid>,
    /// `message_failed`, or the word of whoever made it.
    pub kind: String,
    /// `info`, `warning`, `error`.
    pub level: String,
    pub title: String,
    /// Why, in words for people.
    pub body: Option<String>,
    /// What to do about it.
    pub advice: Option<String>,
    pub message_id: Option<Uuid>,
    pub conversation_id: Option<Uuid>,
    pub channel_id: Option<Uuid>,
    pub error_code: Option<String>,
    #[schema(value_type = Object)]
    pub data: Value,
    pub read_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

impl From<Notification> for NotificationView {
    fn from(n: Notification) -> Self {
        Self {
            id: n.id,
            user_id: n.user_id,
            kind: n.kind,
            level: n.level,
            title: n.title,
            body: n.body,
            advice: n.advice,
            message_id: n.message_id,
            conversation_id: n.conversation_id,
            channel_id: n.channel_id,
            error_code: n.error_code,
            data: n.data,
            read_at: n.read_at,
            created_at: n.created_at,
        }
    }
}

/// The caller's own: for an owner or admin with those for all owners and admins.
fn mine(caller: &Caller) -> Mine<'_> {
    Mine {
        user_id: caller.user_id,
        is_manager: is_manager(caller),
        channels: caller.channel_limits.as_deref(),
    }
}

fn is_manager(caller: &Caller) -> bool {
    caller.require(&[Role::Owner, Role::Admin]).is_ok()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only unread ones.
    unread: Option<bool>,
    /// Only of this kind.
    kind: Option<String>,
    /// Everybody's, for owners and admins.
    all: Option<bool>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// One page of notifications.
#[derive(Serialize, ToSchema)]
pub struct NotificationPage {
    pub data: Vec<NotificationView>,
    /// Pass it as `cursor` to get the next page; `null` at the end.
    pub next_cursor: Option<String>,
    /// How many are unread: the caller's own, or everybody's with `all=true`; of every kind.
    pub unread: i64,
}

/// One's own notifications, newest first. Owners and admins also see those for all owners and admins.
#[utoipa::path(get, path = "/v1/notifications", tag = "notifications", params(ListQuery),
    responses((status = 200, body = NotificationPage, description = "one page of notifications"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed"),
        (status = 403, body = ErrorBody, description = "only owners and admins see everybody's")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<NotificationPage>, ApiError> {
    let limit = limit_of(query.limit)?;
    let everybody = query.all.unwrap_or(false);
    if everybody {
        caller.require(&[Role::Owner, Role::Admin])?;
    }
    let mine = (!everybody).then(|| mine(&caller));
    let filter = Filter {
        mine,
        unread: query.unread.unwrap_or(false),
        kind: query.kind.as_deref(),
    };
    let unread = Filter {
        mine,
        unread: true,
        kind: None,
    };
    let before = match query.cursor.as_deref().map(cursor::decode).transpose()? {
        Some((Some(at), id)) => Some((at, id)),
        Some((None, _)) => {
            let message = "is not one that this list returned";
            return Err(ApiError::invalid("cursor", message));
        }
        None => None,
    };
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = notifications::list(&mut tx, caller.org_id, &filter, before, limit + 1).await?;
    let unread = notifications::count(&mut tx, caller.org_id, &unread).await?;
    tx.commit().await?;
    let page = page_of(
        rows,
        limit,
        |row| cursor::encode(Some(row.created_at), row.id),
        Into::into,
    );
    Ok(axum::Json(NotificationPage {
        data: page.data,
        next_cursor: page.next_cursor,
        unread,
    }))
}

/// Something to tell people.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNotificationRequest {
    /// A member of the organisation; the owners and admins if left out.
    pub user_id: Option<Uuid>,
    /// Your own word: 1 to 64 of `a`–`z`, digits, `_`, `.`, `-`; `custom` if left out.
    pub kind: Option<String>,
    /// `info` if left out.
    pub level: Option<Level>,
    /// 1 to 200 characters.
    pub title: String,
    /// Why, in words for people.
    pub body: Option<String>,
    /// What to do about it.
    pub advice: Option<String>,
    /// Anything for your own programs, up to 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub data: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    #[default]
    Info,
    Warning,
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Tells somebody something. Whoever listens to `notifications` in realtime gets it at once.
#[utoipa::path(post, path = "/v1/notifications", tag = "notifications", request_body = CreateNotificationRequest,
    responses((status = 201, body = NotificationView, description = "the notification"),
        (status = 400, body = ErrorBody, description = "a field is missing or malformed"),
        (status = 403, body = ErrorBody, description = "only owners, admins and the service-role key may")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateNotificationRequest>,
) -> Result<(StatusCode, axum::Json<NotificationView>), ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let new = checked(request)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if let Some(user) = new.user_id
        && !profiles::exists(&mut tx, caller.org_id, user.into()).await?
    {
        return Err(ApiError::invalid(
            "user_id",
            "is not a member of this organisation",
        ));
    }
    let row = notifications::insert(&mut tx, caller.org_id, &new).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok((StatusCode::CREATED, axum::Json(row.into())))
}

fn checked(request: CreateNotificationRequest) -> Result<NewNotification, ApiError> {
    let kind = request.kind.unwrap_or_else(|| "custom".to_owned());
    let is_word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_.-".contains(&c);
    if kind.is_empty() || kind.len() > MAX_KIND || !kind.bytes().all(is_word) {
        let message = format!("must be 1 to {MAX_KIND} of a-z, 0-9, _, . and -");
        return Err(ApiError::invalid("kind", message));
    }
    if request.title.trim().is_empty() {
        return Err(ApiError::invalid("title", "is empty"));
    }
    let texts = [
        ("title", Some(&request.title), MAX_TITLE),
        ("body", request.body.as_ref(), MAX_BODY),
        ("advice", request.advice.as_ref(), MAX_BODY),
    ];
    for (field, text, max) in texts {
        if let Some(text) = text
            && (text.chars().count() > max || text.contains('\0'))
        {
            let message = format!("must be of at most {max} characters, none of them NUL");
            return Err(ApiError::invalid(field, message));
        }
    }
    let data = Value::Object(request.data.unwrap_or_default());
    // Postgres' JSON has no NUL.
    if data.to_string().len() > MAX_DATA || has_nul(&data) {
        let message = format!("must be at most {MAX_DATA} bytes of JSON, without NUL");
        return Err(ApiError::invalid("data", message));
    }
    Ok(NewNotification {
        user_id: request.user_id,
        kind,
        level: request.level.unwrap_or_default().as_str().to_owned(),
        title: request.title,
        body: request.body,
        advice: request.advice,
        data,
    })
}

/// In a name or a text, however deep. Only so deep as the request's JSON was read.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Either some, by their ids, or all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkNotificationsReadRequest {
    /// Up to 1000; those of others are left alone.
    pub ids: Option<Vec<Uuid>>,
    /// `true`: all of one's own.
    pub all: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MarkedRead {
    /// How many were unread before.
    pub updated: u64,
}

/// Marks one's own notifications as read. What the owners and admins share is read when one of them read it.
#[utoipa::path(post, path = "/v1/notifications/read", tag = "notifications",
    request_body = MarkNotificationsReadRequest,
    responses((status = 200, body = MarkedRead, description = "how many became read"),
        (status = 400, body = ErrorBody, description = "neither ids nor all, or both")))]
async fn mark_read(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<MarkNotificationsReadRequest>,
) -> Result<axum::Json<MarkedRead>, ApiError> {
    let ids = match (request.ids, request.all) {
        (Some(ids), None | Some(false)) if ids.len() <= MAX_IDS => Some(ids),
        (Some(_), None | Some(false)) => {
            let message = format!("at most {MAX_IDS} at once");
            return Err(ApiError::invalid("ids", message));
        }
        (None, Some(true)) => None,
        _ => {
            let message = "give either `ids` or `all`: true";
            return Err(ApiError::invalid("ids", message));
        }
    };
    // An agent or viewer may not write the table, but may read their own. Tenant and person are named there.
    let mut tx = state.db.system().await?;
    let updated =
        notifications::update_read(&mut tx, caller.org_id, mine(&caller), ids.as_deref()).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(axum::Json(MarkedRead { updated }))
}

/// Removes one of one's own notifications.
#[utoipa::path(delete, path = "/v1/notifications/{id}", tag = "notifications", params(("id" = Uuid, Path)),
    responses((status = 204, description = "it is gone"),
        (status = 404, body = ErrorBody, description = "there is no such notification of one's own")))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<StatusCode, ApiError> {
    // As for marking it read.
    let mut tx = state.db.system().await?;
    let gone = notifications::delete(&mut tx, caller.org_id, mine(&caller), id).await?;
    tx.commit().await?;
    if !gone {
        return Err(ApiError::not_found("notification"));
    }
    state.signals.commits.changes.notify_one();
    Ok(StatusCode::NO_CONTENT)
}
