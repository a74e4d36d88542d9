//! `/v1/conversations`: the inbox and its threads.

use std::collections::HashMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::conversations::{self, Changes, Conversation, Filter};
use wasel_db::{messages, profiles, reactions};
use wasel_domain::{ConversationId, window};
use wasel_providers::ReadReceipt;

use super::messages::MessageView;
use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::holds;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, update))
        .routes(routes!(list_messages))
        .routes(routes!(mark_read))
}

/// A conversation as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConversationView {
    pub id: Uuid,
    pub channel_id: Uuid,
    pub contact_id: Uuid,
    pub phone_number: Option<String>,
    pub customer_name: Option<String>,
    /// `active`, `archived`, `blocked`.
    pub status: String,
    pub assigned_to: Option<Uuid>,
    pub notes: Option<String>,
    pub tags: Vec<String>,
    pub patient_id: Option<String>,
    pub unread_count: i32,
    pub last_message: Option<String>,
    pub last_message_at: Option<DateTime<Utc>>,
    /// `inbound` or `outbound`.
    pub last_direction: Option<String>,
    /// On channels with a 24-hour window: until when free-form messages may be sent; `null` if it is closed.
    pub window_closes_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

fn view(state: &AppState, caller: &Caller, c: Conversation) -> ConversationView {
    let has_window = state
        .registry
        .of_org(caller.org_id, c.channel_id.into())
        .is_some_and(|channel| channel.open.capabilities().has_service_window);
    let closes_at =
        window::closes_at(c.last_inbound_at).filter(|closes| has_window && *closes > Utc::now());
    ConversationView {
        id: c.id,
        channel_id: c.channel_id,
        contact_id: c.contact_id,
        phone_number: c.phone_number,
        customer_name: c.customer_name,
        status: c.status,
        assigned_to: c.assigned_to,
        notes: c.notes,
        tags: c.tags,
        patient_id: c.patient_id,
        unread_count: c.unread_count,
        last_message: c.last_message,
        last_message_at: c.last_message_at,
        last_direction: c.last_direction,
        window_closes_at: closes_at,
        created_at: c.created_at,
        updated_at: c.updated_at,
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only of this channel.
    channel_id: Option<Uuid>,
    /// `active`, `archived` or `blocked`.
    status: Option<String>,
    /// A user id, `me`, or `none` for nobody's.
    assigned_to: Option<String>,
    /// Only with unread messages.
    unread: Option<bool>,
    tag: Option<String>,
    contact_id: Option<Uuid>,
    /// In the customer's name, number, or the last message.
    search: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

const STATUSES: [&str; 3] = ["active", "archived", "blocked"];

/// The inbox, newest first.
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations", params(ListQuery),
    responses((status = 200, body = Page<ConversationView>), (status = 400, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<ConversationView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    if let Some(status) = &query.status {
        check_status(status)?;
    }
    let assigned_to = match query.assigned_to.as_deref() {
        None => None,
        Some("none") => Some(None),
        Some("me") => Some(caller.user_id.map(|id| id.0)),
        Some(id) => Some(Some(id.parse().map_err(|_| {
            ApiError::invalid("assigned_to", "must be a user id, `me` or `none`")
        })?)),
    };
    let filter = Filter {
        channel_id: query.channel_id.map(Into::into),
        status: query.status.as_deref(),
        assigned_to,
        unread: query.unread.unwrap_or(false),
        tag: query.tag.as_deref(),
        search: query
            .search
            .as_deref()
            .map(str::trim)
            .filter(|search| !search.is_empty()),
        contact_id: query.contact_id.map(Into::into),
    };
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = conversations::list(&mut tx, caller.org_id, &filter, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |c| cursor::encode(c.last_message_at, c.id),
        |c| view(&state, &caller, c),
    )))
}

fn check_status(status: &str) -> Result<(), ApiError> {
    if STATUSES.contains(&status) {
        Ok(())
    } else {
        Err(ApiError::invalid(
            "status",
            format!("must be one of {}", STATUSES.join(", ")),
        ))
    }
}

/// One conversation.
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "conversations", params(("id" = Uuid, Path)),
    responses((status = 200, body = ConversationView), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<ConversationView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let conversation = conversations::find(&mut tx, caller.org_id, ConversationId(id)).await?;
    tx.commit().await?;
    let conversation = conversation.ok_or_else(|| ApiError::not_found("conversation"))?;
    Ok(axum::Json(view(&state, &caller, conversation)))
}

/// Fields left out stay as they are; `null` empties one.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateConversationRequest {
    /// `active`, `archived`, `blocked`.
    status: Option<String>,
    /// A member of the organisation.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Uuid>)]
    assigned_to: Option<Option<Uuid>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    notes: Option<Option<String>>,
    tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    patient_id: Option<Option<String>>,
}

/// Tells `null` from a field that is not there.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Assigns, tags, notes, archives or blocks.
#[utoipa::path(patch, path = "/v1/conversations/{id}", tag = "conversations", params(("id" = Uuid, Path)),
    request_body = UpdateConversationRequest,
    responses((status = 200, body = ConversationView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<UpdateConversationRequest>,
) -> Result<axum::Json<ConversationView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    if let Some(status) = &request.status {
        check_status(status)?;
    }
    if let Some(tags) = &request.tags
        && (tags.len() > 50
            || tags
                .iter()
                .any(|tag| tag.trim().is_empty() || tag.chars().count() > 64))
    {
        return Err(ApiError::invalid(
            "tags",
            "at most 50, each of 1 to 64 characters",
        ));
    }
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if let Some(Some(user)) = request.assigned_to
        && !profiles::exists(&mut tx, caller.org_id, user.into()).await?
    {
        return Err(ApiError::invalid(
            "assigned_to",
            "is not a member of this organisation",
        ));
    }
    let changes = Changes {
        status: request.status,
        assigned_to: request.assigned_to,
        notes: request.notes,
        tags: request.tags,
        patient_id: request.patient_id,
    };
    let conversation =
        conversations::update(&mut tx, caller.org_id, ConversationId(id), &changes).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    let conversation = conversation.ok_or_else(|| ApiError::not_found("conversation"))?;
    Ok(axum::Json(view(&state, &caller, conversation)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ThreadQuery {
    cursor: Option<String>,
    limit: Option<i64>,
}

/// A message in its thread, with the reactions to it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThreadMessage {
    #[serde(flatten)]
    pub message: MessageView,
    pub reactions: Vec<ReactionView>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReactionView {
    /// `us`, or the customer's address.
    pub actor: String,
    pub emoji: String,
    pub at: DateTime<Utc>,
}

/// The thread, newest first.
#[utoipa::path(get, path = "/v1/conversations/{id}/messages", tag = "conversations",
    params(("id" = Uuid, Path), ThreadQuery),
    responses((status = 200, body = Page<ThreadMessage>), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn list_messages(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    QueryParams(query): QueryParams<ThreadQuery>,
) -> Result<axum::Json<Page<ThreadMessage>>, ApiError> {
    let limit = limit_of(query.limit)?;
    let before = match query.cursor.as_deref().map(cursor::decode).transpose()? {
        Some((Some(at), id)) => Some((at, id)),
        Some((None, _)) => {
            return Err(ApiError::invalid(
                "cursor",
                "is not one that this list returned",
            ));
        }
        None => None,
    };
    let id = ConversationId(id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let conversation = conversations::find(&mut tx, caller.org_id, id).await?;
    let conversation = conversation.ok_or_else(|| ApiError::not_found("conversation"))?;
    let page = messages::Page {
        before,
        limit: limit + 1,
    };
    let rows = messages::list_of_conversation(&mut tx, caller.org_id, id, page).await?;
    let mut holds = holds::of_messages(&mut tx, caller.org_id, &rows).await?;
    let provider_ids: Vec<String> = rows
        .iter()
        .filter_map(|row| row.provider_message_id.clone())
        .collect();
    let reactions = reactions::list(
        &mut tx,
        caller.org_id.0,
        conversation.channel_id,
        &provider_ids,
    )
    .await?;
    tx.commit().await?;
    let mut by_message: HashMap<String, Vec<ReactionView>> = HashMap::new();
    for reaction in reactions {
        let shown = ReactionView {
            actor: reaction.actor,
            emoji: reaction.emoji,
            at: reaction.at,
        };
        by_message
            .entry(reaction.target_provider_message_id)
            .or_default()
            .push(shown);
    }
    Ok(axum::Json(page_of(
        rows,
        limit,
        |m| cursor::encode(Some(m.created_at), m.id),
        |m| ThreadMessage {
            reactions: m
                .provider_message_id
                .as_ref()
                .and_then(|id| by_message.remove(id))
                .unwrap_or_default(),
            message: MessageView {
                hold: holds.remove(&m.id),
                ..m.into()
            },
        },
    )))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct MarkReadRequest {
    /// Tell the customer too, where the channel can (blue ticks). `true` if left out.
    receipt: Option<bool>,
    /// Show "typing…" to the customer, where the channel can.
    typing: bool,
}

/// Nothing is unread any more; the customer sees blue ticks where the channel can.
#[utoipa::path(post, path = "/v1/conversations/{id}/read", tag = "conversations", params(("id" = Uuid, Path)),
    request_body = MarkReadRequest,
    responses((status = 200, body = ConversationView), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn mark_read(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<MarkReadRequest>,
) -> Result<axum::Json<ConversationView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let id = ConversationId(id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let (conversation, was_unread) = conversations::update_read(&mut tx, caller.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found("conversation"))?;
    let last = messages::list_recent_providers_of(&mut tx, caller.org_id, id, 1)
        .await?
        .pop();
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    let tell = request.receipt.unwrap_or(true) && was_unread || request.typing;
    if let (true, Some(last)) = (tell, last) {
        send_receipt(&state, &caller, &conversation, last, request.typing);
    }
    Ok(axum::Json(view(&state, &caller, conversation)))
}

/// Best effort and off the request's path: a receipt that is lost costs a colour, not a message.
fn send_receipt(
    state: &AppState,
    caller: &Caller,
    conversation: &Conversation,
    provider_message_id: String,
    typing: bool,
) {
    let Some(channel) = state
        .registry
        .of_org(caller.org_id, conversation.channel_id.into())
    else {
        return;
    };
    let capabilities = channel.open.capabilities();
    if !capabilities.read_receipts {
        return;
    }
    let typing = typing && capabilities.typing_indicator;
    let http = state.http.clone();
    tokio::spawn(async move {
        let receipt = ReadReceipt {
            provider_message_id: &provider_message_id,
            typing,
        };
        if let Err(error) = channel.open.mark_read(&http, &receipt).await {
            tracing::info!(channel.id = %channel.id, %error, "a read receipt was not delivered");
        }
    });
}
