//! Document S1: live chat over WABA, with its exact JSON.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::conversations::{self, Filter};
use wasel_db::messages::{self, Message};
use wasel_domain::content::{MediaSource, OutboundMedia};
use wasel_domain::{ConversationId, OutboundContent};
use wasel_providers::ChannelKind;

use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson, DocumentQuery};
use crate::outbound::{self, Recipient, SendRequest};
use crate::registry::Channel;
use crate::state::AppState;

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 500;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_conversations))
        .routes(routes!(list_messages))
        .routes(routes!(send_message))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ConversationsQuery {
    /// Only conversations assigned to this user.
    user_id: Option<Uuid>,
    /// Only conversations of this WhatsApp number.
    phone_number_id: Option<String>,
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct LiveChatConversation {
    id: Uuid,
    customer_phone: Option<String>,
    customer_name: Option<String>,
    last_message: Option<String>,
    last_message_time: Option<DateTime<Utc>>,
    unread_count: i32,
    status: String,
}

#[derive(Serialize, ToSchema)]
struct LiveChatConversations {
    success: bool,
    conversations: Vec<LiveChatConversation>,
}

/// Conversations, newest first (S1.2).
#[utoipa::path(get, path = "/api/live-chat/conversations", tag = "documents", params(ConversationsQuery),
    responses((status = 200, body = LiveChatConversations), (status = 401), (status = 403)))]
async fn list_conversations(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentQuery(query): DocumentQuery<ConversationsQuery>,
) -> Result<Json<LiveChatConversations>, DocumentError> {
    let channel = match query.phone_number_id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => match whatsapp_number(&state, &caller, id) {
            Some(channel) => Some(channel.id),
            None => {
                return Ok(Json(LiveChatConversations {
                    success: true,
                    conversations: Vec::new(),
                }));
            }
        },
        None => None,
    };
    // The documents pass their own id, meaning "mine"; a conversation nobody took is everybody's.
    let mine = query
        .user_id
        .filter(|user| caller.user_id.is_none_or(|own| own.0 != *user));
    let filter = Filter {
        channel_id: channel,
        assigned_to: mine.map(Some),
        ..Filter::default()
    };
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let limit = checked_limit(query.limit)?;
    let rows = conversations::list(&mut tx, caller.org_id, &filter, None, limit).await?;
    tx.commit().await?;
    let conversations = rows
        .into_iter()
        .map(|c| LiveChatConversation {
            id: c.id,
            customer_phone: c.phone_number,
            customer_name: c.customer_name,
            last_message: c.last_message,
            last_message_time: c.last_message_at,
            unread_count: c.unread_count,
            status: c.status,
        })
        .collect();
    Ok(Json(LiveChatConversations {
        success: true,
        conversations,
    }))
}

fn checked_limit(limit: Option<i64>) -> Result<i64, ApiError> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Some(_) => Err(ApiError::invalid(
            "limit",
            format!("must be from 1 to {MAX_LIMIT}"),
        )),
    }
}

/// The caller's channel with this phone number id, if they may see it.
fn whatsapp_number(
    state: &AppState,
    caller: &Caller,
    phone_number_id: &str,
) -> Option<std::sync::Arc<Channel>> {
    let routes = [format!("meta:phone:{phone_number_id}")];
    state
        .registry
        .by_routes(&routes)
        .into_iter()
        .find(|channel| {
            channel.org_id == caller.org_id
                && channel.kind == ChannelKind::WhatsappCloud
                && caller
                    .channel_limits
                    .as_ref()
                    .is_none_or(|limits| limits.contains(&channel.id.0))
        })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MessagesQuery {
    conversation_id: Uuid,
    /// 50 if left out.
    limit: Option<i64>,
    /// How many of the newest to skip.
    offset: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct LiveChatMessage {
    id: Uuid,
    content: Option<String>,
    message_type: String,
    /// `user` (us) or `customer`.
    sender: &'static str,
    timestamp: DateTime<Utc>,
    /// `sent`, `delivered`, `read`, `failed` …
    status: String,
    media_url: Option<String>,
    media_caption: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct LiveChatMessages {
    success: bool,
    messages: Vec<LiveChatMessage>,
}

impl From<Message> for LiveChatMessage {
    fn from(m: Message) -> Self {
        let media_url = m
            .media
            .as_ref()
            .and_then(|media| media.pointer("/0/url"))
            .and_then(Value::as_str);
        Self {
            id: m.id,
            media_url: media_url.map(str::to_owned),
            media_caption: m.media.is_some().then(|| m.body.clone()).flatten(),
            content: m.body,
            message_type: m.message_type,
            sender: if m.direction == "inbound" {
                "customer"
            } else {
                "user"
            },
            timestamp: m.created_at,
            // As wasel.document_status() in the views.
            status: match m.status.as_str() {
                "received" => "delivered".to_owned(),
                "unknown" => "sending".to_owned(),
                _ => m.status,
            },
        }
    }
}

/// A page of a thread: the newest `limit` after `offset`, oldest of them first, as a chat window shows them (S1.3).
#[utoipa::path(get, path = "/api/live-chat/messages", tag = "documents", params(MessagesQuery),
    responses((status = 200, body = LiveChatMessages), (status = 400), (status = 401), (status = 404)))]
async fn list_messages(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentQuery(query): DocumentQuery<MessagesQuery>,
) -> Result<Json<LiveChatMessages>, DocumentError> {
    let limit = checked_limit(query.limit)?;
    let offset = query.offset.unwrap_or(0);
    if offset < 0 {
        return Err(ApiError::invalid("offset", "must not be negative").into());
    }
    let id = ConversationId(query.conversation_id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    conversations::find(&mut tx, caller.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found("conversation"))?;
    let mut rows = messages::list_newest(&mut tx, caller.org_id, id, limit, offset).await?;
    tx.commit().await?;
    rows.reverse();
    Ok(Json(LiveChatMessages {
        success: true,
        messages: rows.into_iter().map(Into::into).collect(),
    }))
}

/// S1.4: a message into a conversation, or to a number from a WhatsApp number.
#[derive(Debug, Deserialize, ToSchema)]
struct SendMessageRequest {
    conversation_id: Option<Uuid>,
    phone_number_id: Option<String>,
    to: Option<String>,
    /// The text, or the caption of a file.
    message: Option<String>,
    /// `text` (default), `image`, `video`, `document`, `audio`.
    message_type: Option<String>,
    /// Where the file is, for anything but text.
    media_url: Option<String>,
}

/// Sends a message (S1.4).
#[utoipa::path(post, path = "/api/live-chat/send-message", tag = "documents", request_body = SendMessageRequest,
    responses((status = 200, description = "`{success, message_id, status, message}`"), (status = 400), (status = 401),
        (status = 403), (status = 404), (status = 422), (status = 429)))]
async fn send_message(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentJson(request): DocumentJson<SendMessageRequest>,
) -> Result<Json<Value>, DocumentError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let content = content_of(&request)?;
    let recipient = match (
        request.conversation_id,
        &request.phone_number_id,
        &request.to,
    ) {
        (Some(id), _, _) => Recipient::Conversation(ConversationId(id)),
        (None, Some(number), Some(to)) => {
            let channel = whatsapp_number(&state, &caller, number)
                .ok_or_else(|| ApiError::not_found("WhatsApp number").at("phone_number_id"))?;
            Recipient::Address {
                channel: std::sync::Arc::new(outbound::ChannelHandle(channel)),
                to: to.clone(),
            }
        }
        _ => {
            return Err(ApiError::invalid(
                "conversation_id",
                "is missing (or give phone_number_id and to)",
            )
            .into());
        }
    };
    let send = SendRequest::new(recipient, content);
    let message = outbound::enqueue(&state, &caller, send).await?.message;
    let (message_id, status) = (message.id, message.status.clone());
    Ok(Json(json!({
        "success": true, "message_id": message_id, "status": status, "message": LiveChatMessage::from(message),
    })))
}

fn content_of(request: &SendMessageRequest) -> Result<OutboundContent, ApiError> {
    let text = request
        .message
        .clone()
        .filter(|text| !text.trim().is_empty());
    let kind = request.message_type.as_deref().unwrap_or("text");
    if kind == "text" {
        let body = text.ok_or_else(|| ApiError::invalid("message", "is missing"))?;
        return Ok(OutboundContent::Text {
            body,
            preview_url: true,
        });
    }
    let url = request
        .media_url
        .clone()
        .ok_or_else(|| ApiError::invalid("media_url", "is missing"))?;
    let filename = (kind == "document").then(|| url.rsplit('/').next().unwrap_or(&url).to_owned());
    let media = OutboundMedia {
        source: MediaSource::Link(url),
        caption: text,
        filename,
        voice: false,
    };
    match kind {
        "image" => Ok(OutboundContent::Image(media)),
        "video" => Ok(OutboundContent::Video(media)),
        "document" => Ok(OutboundContent::Document(media)),
        "audio" => Ok(OutboundContent::Audio(OutboundMedia {
            caption: None,
            ..media
        })),
        _ => Err(ApiError::invalid(
            "message_type",
            "must be text, image, video, document or audio",
        )),
    }
}
