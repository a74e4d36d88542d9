//! Document S4: the WhatsApp service of a fleet SaaS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::messages::{self, Message};
use wasel_db::sessions;
use wasel_domain::content::{MediaSource, OutboundMedia};
use wasel_domain::{Category, MessageId, MessageStatus, OutboundContent};
use wasel_providers::ChannelKind;

use crate::auth::{Caller, Role};
use crate::bulk::{self, Prepared, Renderer, Row, Source};
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson};
use crate::http::limits;
use crate::http::v1::bulk_jobs::{Draft, MAX_BODY};
use crate::outbound::{self, ChannelHandle, Recipient, SendRequest};
use crate::state::AppState;

/// How long the request waits for the provider's answer, which the document's shape includes.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(send))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(send_bulk))
                .layer(DefaultBodyLimit::max(MAX_BODY)),
        )
        .routes(routes!(health))
}

/// S4.7 `POST /api/messages/send`.
#[derive(Debug, Deserialize, ToSchema)]
struct SendMessageRequest {
    /// Must be the caller's organisation.
    org_id: Option<Uuid>,
    /// A phone number.
    recipient: String,
    /// The text, or the caption.
    message: Option<String>,
    /// `text` (default), `image`, `document`.
    #[serde(rename = "type")]
    kind: Option<String>,
    media_url: Option<String>,
    /// The channel to use; the first active WhatsApp channel if left out.
    channel_id: Option<Uuid>,
}

/// Sends a WhatsApp message and waits for the provider to take it.
#[utoipa::path(post, path = "/api/messages/send", tag = "documents", request_body = SendMessageRequest,
    responses((status = 200, description = "`{success, message_id, whatsapp_message_id, status}`"), (status = 400),
        (status = 401), (status = 403), (status = 422), (status = 429), (status = 502)))]
async fn send(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentJson(request): DocumentJson<SendMessageRequest>,
) -> Result<Json<Value>, DocumentError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    own_org(&caller, request.org_id)?;
    let content = content_of(&request)?;
    let channel = whatsapp_channel(&state, &caller, request.channel_id).await?;
    limits::take_org_send(&state, &caller).await?;
    let send = SendRequest::new(
        Recipient::Address {
            channel: std::sync::Arc::new(channel),
            to: request.recipient,
        },
        content,
    );
    let queued = outbound::enqueue(&state, &caller, send)
        .await
        .map_err(|error| match error.field.as_deref() {
            Some("to") => error.at("recipient"),
            _ => error,
        })?;
    let message = wait_for_provider(&state, &caller, queued.message).await?;
    if message.status == MessageStatus::Failed.as_str() {
        let reason = message
            .error_message
            .unwrap_or_else(|| "the provider refused it".to_owned());
        return Err(
            ApiError::new(axum::http::StatusCode::BAD_GATEWAY, "send_failed", reason).into(),
        );
    }
    // The document's word for "the provider has it"; delivery follows in the log.
    let status = if message.provider_message_id.is_some() {
        "sent"
    } else {
        message.status.as_str()
    };
    Ok(Json(json!({
        "success": true, "message_id": message.id, "whatsapp_message_id": message.provider_message_id, "status": status,
    })))
}

/// The body may name the caller's organisation and no other.
fn own_org(caller: &Caller, org: Option<Uuid>) -> Result<(), ApiError> {
    if org.is_some_and(|org| org != caller.org_id.0) {
        return Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "forbidden",
            "is not the caller's organisation",
        )
        .at("org_id"));
    }
    Ok(())
}

/// S4.7 `POST /api/messages/send-bulk`.
#[derive(Debug, Deserialize, ToSchema)]
struct SendBulkRequest {
    /// Must be the caller's organisation.
    org_id: Option<Uuid>,
    /// `{recipient, message, template_id?, variables?}` each; of `message` and `template_id` one counts, the template first.
    #[schema(value_type = Vec<BulkMessage>)]
    messages: Vec<Value>,
    /// The channel to use; the first active WhatsApp channel if left out.
    channel_id: Option<Uuid>,
    /// `utility` (default), `marketing`, `service`, `authentication`.
    #[schema(value_type = Option<String>)]
    category: Option<Category>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct BulkMessage {
    /// A phone number.
    recipient: String,
    /// The text.
    message: Option<String>,
    template_id: Option<String>,
    /// For the template.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
}

/// Sends many WhatsApp messages in the background, each to one recipient. `errors` names the rows that will not go.
#[utoipa::path(post, path = "/api/messages/send-bulk", tag = "documents", request_body = SendBulkRequest,
    responses((status = 200, description = "`{success, queued, job_id, errors?: [{index, error}]}`"), (status = 400),
        (status = 401), (status = 403), (status = 404), (status = 422), (status = 429)))]
async fn send_bulk(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentJson(request): DocumentJson<SendBulkRequest>,
) -> Result<Response, DocumentError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    own_org(&caller, request.org_id)?;
    if request.messages.is_empty() {
        return Err(ApiError::invalid("messages", "is missing").into());
    }
    if request.messages.len() > bulk::MAX_RECIPIENTS {
        let message = format!("must be at most {}", bulk::MAX_RECIPIENTS);
        return Err(ApiError::invalid("messages", message).into());
    }
    let channel = whatsapp_channel(&state, &caller, request.channel_id).await?;
    limits::take_org_send(&state, &caller).await?;
    let rows = bulk_rows(&state, &caller, request.messages).await?;
    let renderer = Renderer::new(&state, &caller, channel.0.clone(), None, Map::new())?;
    let recipients = renderer.render_all(&rows).await?;
    let errors: Vec<Value> = recipients
        .iter()
        .enumerate()
        .filter_map(|(index, recipient)| {
            let refusal = recipient.outcome.as_ref().err()?;
            Some(json!({ "index": index, "error": refusal.words, "code": refusal.code }))
        })
        .collect();
    let queued = recipients.len() - errors.len();
    if queued == 0 {
        let error = "none of the messages can be sent";
        let body = json!({ "success": false, "error": error, "code": "invalid_request", "errors": errors });
        return Ok((axum::http::StatusCode::BAD_REQUEST, Json(body)).into_response());
    }
    let draft = Draft {
        name: "/api/messages/send-bulk".to_owned(),
        channel: channel.0,
        template_id: None,
        message: None,
        content: None,
        variables: Map::new(),
        category: request.category.unwrap_or(Category::Utility),
        priority: 7,
        scheduled_for: None,
        start: true,
        recipients,
    };
    let (job, _) = draft.store(&state, &caller, None).await?;
    let mut body = json!({ "success": true, "queued": queued, "job_id": job.id });
    if !errors.is_empty() {
        body["errors"] = json!(errors);
    }
    Ok(Json(body).into_response())
}

/// Each template is looked up once; one that is not there is the fault of its rows.
async fn bulk_rows(
    state: &AppState,
    caller: &Caller,
    messages: Vec<Value>,
) -> Result<Vec<Row>, ApiError> {
    let mut templates: HashMap<String, Result<Arc<Prepared>, String>> = HashMap::new();
    let mut rows = Vec::with_capacity(messages.len());
    for message in messages {
        let message: BulkMessage = match serde_json::from_value(message) {
            Ok(message) => message,
            Err(error) => {
                rows.push(Row {
                    problem: Some(error.to_string()),
                    ..Row::default()
                });
                continue;
            }
        };
        let source = match message.template_id.filter(|id| !id.trim().is_empty()) {
            Some(id) => match templates.get(&id) {
                Some(known) => known.clone(),
                None => {
                    let found = Source::find(state, caller, Some(id.clone()), None, None).await;
                    let found = match found {
                        Ok(found) => Ok(Arc::new(Prepared::new(found))),
                        Err(error) if error.status.is_server_error() => return Err(error),
                        Err(error) => Err(error.in_words()),
                    };
                    templates.insert(id, found.clone());
                    found
                }
            },
            // A plain text: its braces are its own.
            None => match message.message.filter(|text| !text.trim().is_empty()) {
                Some(body) => Ok(Arc::new(Prepared::new(Source::Plain(body)))),
                None => Err("message: is missing".to_owned()),
            },
        };
        let (source, problem) = match source {
            Ok(source) => (Some(source), None),
            Err(problem) => (None, Some(problem)),
        };
        rows.push(Row {
            to: message.recipient,
            variables: message.variables.unwrap_or_default(),
            source,
            problem,
            ..Row::default()
        });
    }
    Ok(rows)
}

fn content_of(request: &SendMessageRequest) -> Result<OutboundContent, ApiError> {
    let text = request
        .message
        .clone()
        .filter(|text| !text.trim().is_empty());
    let media = || -> Result<OutboundMedia, ApiError> {
        let url = request
            .media_url
            .clone()
            .ok_or_else(|| ApiError::invalid("media_url", "is missing"))?;
        Ok(OutboundMedia {
            source: MediaSource::Link(url),
            caption: text.clone(),
            filename: None,
            voice: false,
        })
    };
    match request.kind.as_deref().unwrap_or("text") {
        "text" => {
            let body = text
                .clone()
                .ok_or_else(|| ApiError::invalid("message", "is missing"))?;
            Ok(OutboundContent::Text {
                body,
                preview_url: true,
            })
        }
        "image" => Ok(OutboundContent::Image(media()?)),
        "document" => Ok(OutboundContent::Document(media()?)),
        _ => Err(ApiError::invalid("type", "must be text, image or document")),
    }
}

async fn whatsapp_channel(
    state: &AppState,
    caller: &Caller,
    wanted: Option<Uuid>,
) -> Result<ChannelHandle, ApiError> {
    if let Some(id) = wanted {
        return crate::http::v1::messages::visible_channel(state, caller, id.into()).await;
    }
    state
        .registry
        .list_active(caller.org_id)
        .into_iter()
        .find(|channel| {
            matches!(
                channel.kind,
                ChannelKind::WhatsappCloud | ChannelKind::TwilioWhatsapp | ChannelKind::WhatsappWeb
            )
        })
        .map(ChannelHandle)
        .ok_or_else(|| {
            ApiError::refused(
                "no_channel",
                "this organisation has no active WhatsApp channel",
            )
        })
}

/// Watches the message until the provider has answered, or the time is up: it is queued all the same.
async fn wait_for_provider(
    state: &AppState,
    caller: &Caller,
    mut message: Message,
) -> Result<Message, ApiError> {
    let deadline = tokio::time::Instant::now() + ANSWER_WAIT;
    let mut tail = state.tail.clone();
    let mut seen = tail.get();
    while message.provider_message_id.is_none() && message.status != MessageStatus::Failed.as_str()
    {
        tokio::select! {
            () = tail.wait_beyond(seen) => {}
            () = tokio::time::sleep_until(deadline) => break,
        }
        seen = tail.get();
        let mut tx = state.db.tenant(&caller.claims()).await?;
        if let Some(now) = messages::find(&mut tx, caller.org_id, MessageId(message.id)).await? {
            message = now;
        }
        tx.commit().await?;
    }
    Ok(message)
}

/// S4.7 `GET /api/health`.
#[utoipa::path(get, path = "/api/health", tag = "operators", security(()),
    responses((status = 200, description = "`{success, status, active_sessions, uptime}`"), (status = 503)))]
async fn health(State(state): State<AppState>) -> Result<Json<Value>, DocumentError> {
    let mut tx = state.db.system().await?;
    let connected = sessions::count_connected(&mut tx).await?;
    tx.commit().await?;
    Ok(Json(json!({
        "success": true,
        "status": "healthy",
        // Linked phones; WhatsApp Cloud and Twilio need no session.
        "active_sessions": connected,
        "uptime": state.started_at.elapsed().as_secs(),
    })))
}
