//! Document S2: Twilio functions of a property-maintenance company. So far the front-end one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_domain::OutboundContent;
use wasel_domain::content::{MediaSource, OutboundMedia, OutboundTemplate};
use wasel_providers::ChannelKind;

use crate::auth::{Caller, CallerKind, Role};
use crate::http::error::{ApiError, DocumentError};
use crate::http::extract::{DocumentCaller, DocumentJson};
use crate::http::limits;
use crate::outbound::{self, ChannelHandle, Recipient, SendRequest};
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(send_whatsapp))
}

/// S2.2 `send-whatsapp`.
#[derive(Debug, Deserialize, ToSchema)]
struct SendWhatsappRequest {
    /// A phone number, as people of the organisation's country write it.
    to: String,
    /// The text, or the caption.
    message: Option<String>,
    media_url: Option<String>,
    /// An approved Twilio template (`HX…`), needed outside the 24-hour window.
    content_sid: Option<String>,
    /// Its variables.
    #[schema(value_type = Option<Object>)]
    variables: Option<Map<String, Value>>,
    request_id: Option<String>,
}

/// A signed-in person sends a WhatsApp message: 5 a minute each, logged, with a status callback.
#[utoipa::path(post, path = "/functions/v1/send-whatsapp", tag = "documents", request_body = SendWhatsappRequest,
    responses((status = 200, description = "`{success, message_id, status}`"), (status = 400), (status = 401),
        (status = 403), (status = 422), (status = 429)))]
async fn send_whatsapp(
    State(state): State<AppState>,
    DocumentCaller(caller): DocumentCaller,
    DocumentJson(request): DocumentJson<SendWhatsappRequest>,
) -> Result<Json<Value>, DocumentError> {
    if caller.kind != CallerKind::User {
        let message = "this function is for signed-in people; servers use send-twilio-message";
        return Err(ApiError::new(axum::http::StatusCode::FORBIDDEN, "forbidden", message).into());
    }
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let content = content_of(&request)?;
    let channel = channel_of(&state, &caller)?;
    limits::take_user_send(&state, &caller).await?;
    let send = SendRequest {
        recipient: Recipient::Address {
            channel: Arc::new(channel),
            to: request.to,
        },
        content,
        reply_to: None,
        idempotency_key: None,
        request_id: request.request_id,
        metadata: json!({}),
        priority: 5,
        at_most_once: false,
    };
    let message = outbound::enqueue(&state, &caller, send).await?.message;
    Ok(Json(
        json!({ "success": true, "message_id": message.id, "status": message.status }),
    ))
}

fn content_of(request: &SendWhatsappRequest) -> Result<OutboundContent, ApiError> {
    let text = request
        .message
        .clone()
        .filter(|text| !text.trim().is_empty());
    match (&request.content_sid, &request.media_url, text) {
        (Some(sid), None, text) => Ok(OutboundContent::Template(OutboundTemplate {
            content_sid: Some(sid.clone()),
            variables: request.variables.clone(),
            text,
            ..OutboundTemplate::default()
        })),
        (Some(_), Some(_), _) => Err(ApiError::invalid("media_url", "goes without content_sid")),
        (None, Some(url), caption) => {
            let source = MediaSource::Link(url.clone());
            let media = OutboundMedia {
                source,
                caption,
                filename: None,
                voice: false,
            };
            Ok(media_kind(url, media))
        }
        (None, None, Some(body)) => Ok(OutboundContent::Text {
            body,
            preview_url: true,
        }),
        (None, None, None) => Err(ApiError::invalid(
            "message",
            "is missing (or give media_url or content_sid)",
        )),
    }
}

/// By the address's ending; Twilio itself goes by the file's Content-Type.
fn media_kind(url: &str, media: OutboundMedia) -> OutboundContent {
    let path = url
        .split(['?', '#'])
        .next()
        .unwrap_or(url)
        .to_ascii_lowercase();
    match path.rsplit('.').next() {
        Some("jpg" | "jpeg" | "png" | "webp") => OutboundContent::Image(media),
        Some("mp4" | "3gp") => OutboundContent::Video(media),
        Some("mp3" | "ogg" | "aac" | "amr" | "m4a") => OutboundContent::Audio(OutboundMedia {
            caption: None,
            ..media
        }),
        _ => OutboundContent::Document(media),
    }
}

/// Twilio's WhatsApp sender, else a number of the Cloud API.
fn channel_of(state: &AppState, caller: &Caller) -> Result<ChannelHandle, ApiError> {
    let visible = |channel: &uuid::Uuid| {
        caller
            .channel_limits
            .as_ref()
            .is_none_or(|limits| limits.contains(channel))
    };
    let channels = state.registry.list_active(caller.org_id);
    [ChannelKind::TwilioWhatsapp, ChannelKind::WhatsappCloud]
        .into_iter()
        .find_map(|kind| {
            channels
                .iter()
                .find(|channel| channel.kind == kind && visible(&channel.id.0))
        })
        .map(|channel| ChannelHandle(channel.clone()))
        .ok_or_else(|| {
            ApiError::refused(
                "no_channel",
                "this organisation has no active WhatsApp channel",
            )
        })
}
