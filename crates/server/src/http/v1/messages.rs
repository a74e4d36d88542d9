//! `/v1/messages`: send, look at one with its timeline, take one back.

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::messages::{self, Message, MessageEvent};
use wasel_db::organizations;
use wasel_domain::{
    Category, ChannelId, ConversationId, MessageId, MessageStatus, OutboundContent,
};
use wasel_providers::Language;

use crate::auth::{Caller, Role};
use crate::holds::{self, HoldView};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam};
use crate::outbound::{self, ChannelHandle, Recipient, SendRequest, wake_sender};
use crate::state::AppState;

/// Longest Idempotency-Key, in bytes.
const MAX_KEY: usize = 255;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(get))
        .routes(routes!(cancel))
}

/// A message to send: into a conversation, or to an address on a channel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateMessageRequest {
    /// The conversation to answer in.
    pub conversation_id: Option<Uuid>,
    /// The channel to send from, with `to`.
    pub channel_id: Option<Uuid>,
    /// A phone number (with country code, or as written in the organisation's country), a provider's user id, or an
    /// e-mail address.
    #[schema(example = "+201012345678")]
    pub to: Option<String>,
    /// What to send: `{"type": "text", "body": "…"}`, `email` with `subject` and `text` or `html`, `image`/`video`/`audio`/`document`/`sticker` with `link` or
    /// `provider_id`, `location`, `contacts`, `interactive`, `template`, `reaction`.
    #[schema(value_type = Object, example = json!({"type": "text", "body": "مرحباً"}))]
    pub content: OutboundContent,
    /// Our id of a message in the same conversation to quote.
    pub reply_to: Option<Uuid>,
    /// Your own id for it; kept with the message.
    pub request_id: Option<String>,
    /// Anything you want kept with the message.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, Value>>,
    /// 1 (first) to 10; 5 if left out.
    pub priority: Option<i16>,
    /// What to do if it stays unknown whether the provider took it: `at_least_once` (default) sends again,
    /// `at_most_once` never does.
    pub delivery_policy: Option<DeliveryPolicy>,
    /// What it is for: `service` (if left out), `utility`, `marketing` or `authentication`. Quiet hours, the frequency cap
    /// and a marketing opt-out are about `marketing`.
    pub category: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryPolicy {
    AtLeastOnce,
    AtMostOnce,
}

/// A message as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageView {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub channel_id: Uuid,
    pub contact_id: Uuid,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// `text`, `image`, `location` …
    pub message_type: String,
    /// `service`, `utility`, `marketing`, `authentication`.
    pub category: String,
    /// `queued`, `sending`, `sent`, `delivered`, `read`, `failed`, `cancelled`, `unknown`; `received` for inbound.
    pub status: String,
    pub body: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub content: Option<Value>,
    /// Files: `{media_id?, url?, mime_type?, filename?}`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub media: Option<Value>,
    /// The customer's address.
    pub address: Option<String>,
    pub customer_name: Option<String>,
    pub provider_message_id: Option<String>,
    /// The provider's id of the quoted message.
    pub quoted_message_id: Option<String>,
    /// Who sent it, if a person did.
    pub sender_id: Option<Uuid>,
    pub request_id: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// The ad that brought the customer, as the provider tells it.
    #[schema(value_type = Option<Object>)]
    pub referral: Option<Value>,
    #[schema(value_type = Object)]
    pub metadata: Value,
    pub retry_count: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
    pub edited_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// Why it has not left yet, if something holds it.
    pub hold: Option<HoldView>,
}

impl From<Message> for MessageView {
    fn from(m: Message) -> Self {
        Self {
            id: m.id,
            conversation_id: m.conversation_id,
            channel_id: m.channel_id,
            contact_id: m.contact_id,
            direction: m.direction,
            message_type: m.message_type,
            category: m.category,
            status: m.status,
            body: m.body,
            content: m.content,
            media: m.media,
            address: m.address,
            customer_name: m.customer_name,
            provider_message_id: m.provider_message_id,
            quoted_message_id: m.quoted_message_id,
            sender_id: m.sender_id,
            request_id: m.request_id,
            error_code: m.error_code,
            error_message: m.error_message,
            referral: m.referral,
            metadata: m.metadata,
            retry_count: m.retry_count,
            created_at: m.created_at,
            updated_at: m.updated_at,
            sent_at: m.sent_at,
            delivered_at: m.delivered_at,
            read_at: m.read_at,
            failed_at: m.failed_at,
            edited_at: m.edited_at,
            revoked_at: m.revoked_at,
            hold: None,
        }
    }
}

/// One step of a message's way.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageEventView {
    /// A status, or `accepted`, `attempt_failed`, `held`.
    pub event: String,
    /// When it happened, by the provider's clock where it tells.
    pub at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
    /// Which try it belongs to.
    pub attempt_id: Option<Uuid>,
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Value>,
    /// What held it, if this is a `held`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldView>,
}

impl MessageEventView {
    fn new(e: MessageEvent, language: Language) -> Self {
        let hold = e.detail.as_ref().filter(|_| e.event == "held");
        let hold = hold.and_then(|detail| {
            let until = detail["until"]
                .as_str()
                .and_then(|until| until.parse().ok());
            Some(HoldView::new(detail["reason"].as_str()?, until, language))
        });
        Self {
            hold,
            event: e.event,
            at: e.at,
            recorded_at: e.recorded_at,
            attempt_id: e.attempt_id,
            detail: e.detail,
        }
    }
}

/// A message with its timeline.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageDetail {
    #[serde(flatten)]
    pub message: MessageView,
    pub timeline: Vec<MessageEventView>,
}

/// Queues a message. 202 means that it will be sent; its way is in the timeline, the change feed and realtime.
///
/// With an `Idempotency-Key` header the same request can be repeated for 24 hours and makes one message; the repeat is
/// answered with 200.
#[utoipa::path(post, path = "/v1/messages", tag = "messages", request_body = CreateMessageRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Any text up to 255 bytes")),
    responses((status = 202, body = MessageView), (status = 200, body = MessageView, description = "a repeat"),
        (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody, description = "window_closed, opted_out …")))]
async fn create(
    axum::extract::State(state): axum::extract::State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<CreateMessageRequest>,
) -> Result<Response, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let recipient = match (request.conversation_id, request.channel_id, request.to) {
        (Some(id), None, None) => Recipient::Conversation(ConversationId(id)),
        (None, Some(channel), Some(to)) => {
            let channel = visible_channel(&state, &caller, ChannelId(channel)).await?;
            Recipient::Address {
                channel: Arc::new(channel),
                to,
            }
        }
        (Some(_), _, _) => {
            return Err(ApiError::invalid(
                "conversation_id",
                "goes without channel_id and to",
            ));
        }
        (None, None, _) => {
            return Err(ApiError::invalid(
                "channel_id",
                "is missing (or give conversation_id)",
            ));
        }
        (None, Some(_), None) => return Err(ApiError::invalid("to", "is missing")),
    };
    let priority = request.priority.unwrap_or(5);
    if !(1..=10).contains(&priority) {
        return Err(ApiError::invalid("priority", "must be from 1 to 10"));
    }
    let category = match &request.category {
        None => Category::default(),
        Some(name) => Category::parse(name).ok_or_else(|| {
            ApiError::invalid(
                "category",
                "must be `service`, `utility`, `marketing` or `authentication`",
            )
        })?,
    };
    let enqueued = outbound::enqueue(
        &state,
        &caller,
        SendRequest {
            reply_to: request.reply_to.map(MessageId),
            idempotency_key: idempotency_key(&headers)?,
            request_id: request.request_id,
            metadata: Value::Object(request.metadata.unwrap_or_default()),
            priority,
            category,
            at_most_once: request.delivery_policy == Some(DeliveryPolicy::AtMostOnce),
            ..SendRequest::new(recipient, request.content)
        },
    )
    .await?;
    let status = if enqueued.repeated {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, axum::Json(MessageView::from(enqueued.message))).into_response())
}

/// The channel, if it is the caller's tenant's and the caller may use it.
pub(crate) async fn visible_channel(
    state: &AppState,
    caller: &Caller,
    id: ChannelId,
) -> Result<ChannelHandle, ApiError> {
    let channel = state.registry.find(caller.org_id, id).await?;
    channel
        .filter(|channel| caller.may_use(channel.id))
        .map(ChannelHandle)
        .ok_or_else(|| ApiError::not_found("channel").at("channel_id"))
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.trim().is_empty() && key.len() <= MAX_KEY => {
            Ok(Some(key.trim().to_owned()))
        }
        _ => Err(ApiError::invalid(
            "Idempotency-Key",
            format!("must be printable text of up to {MAX_KEY} bytes"),
        )),
    }
}

/// One message with its timeline.
#[utoipa::path(get, path = "/v1/messages/{id}", tag = "messages", params(("id" = Uuid, Path)),
    responses((status = 200, body = MessageDetail), (status = 404, body = ErrorBody)))]
async fn get(
    axum::extract::State(state): axum::extract::State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<MessageDetail>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let message = messages::find(&mut tx, caller.org_id, MessageId(id)).await?;
    let message = message.ok_or_else(|| ApiError::not_found("message"))?;
    let timeline = messages::list_events(&mut tx, caller.org_id, MessageId(id)).await?;
    let messages = [message];
    let hold = holds::of_messages(&mut tx, caller.org_id, &messages).await?;
    let organization = organizations::find(&mut tx, caller.org_id).await?;
    tx.commit().await?;
    let language = Language::of_locale(organization.as_ref().map_or("", |o| o.locale.as_str()));
    let [message] = messages;
    Ok(axum::Json(MessageDetail {
        message: MessageView {
            hold: hold.into_values().next(),
            ..message.into()
        },
        timeline: timeline
            .into_iter()
            .map(|event| MessageEventView::new(event, language))
            .collect(),
    }))
}

/// Takes back a message that has not left: one that waits for its turn, its time or a retry.
#[utoipa::path(post, path = "/v1/messages/{id}/cancel", tag = "messages", params(("id" = Uuid, Path)),
    responses((status = 200, body = MessageView, description = "it is `cancelled`, now or before"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "too_late: it is being sent, was sent, or has failed")))]
async fn cancel(
    axum::extract::State(state): axum::extract::State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<MessageView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let cancelled = messages::cancel(&mut tx, caller.org_id, MessageId(id)).await?;
    let message = messages::find(&mut tx, caller.org_id, MessageId(id))
        .await?
        .ok_or_else(|| ApiError::not_found("message"))?;
    if !cancelled && message.status != MessageStatus::Cancelled.as_str() {
        let said = match message.status.as_str() {
            "queued" | "pending" => "sending".to_owned(),
            other => other.to_owned(),
        };
        let message = format!("it is too late: the message is {said}");
        return Err(ApiError::new(StatusCode::CONFLICT, "too_late", message));
    }
    tx.commit().await?;
    wake_sender(&state);
    Ok(axum::Json(message.into()))
}
