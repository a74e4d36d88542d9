//! `/realtime/v1/api/broadcast`: broadcasts without a socket, as supabase-js sends them before a channel is joined and
//! with `httpSend`.

use std::num::NonZeroU32;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_realtime::{Authorizer, BroadcastPayload, Claims, ErrorCode, TokenError};

use super::realtime::{SocketAuthorizer, claims_of};
use crate::auth::{self, AuthError};
use crate::state::AppState;

/// As much as a frame of a socket may hold.
const MAX_BODY: usize = 1024 * 1024;
/// Broadcasts of one request.
const MAX_MESSAGES: usize = 1000;
/// Longest topic and event.
const MAX_NAME: usize = 1000;
/// Broadcasts a second of one organisation over HTTP, and how many may come at once.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(500).unwrap();
const BURST: NonZeroU32 = NonZeroU32::new(2000).unwrap();

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(broadcast))
        .routes(routes!(broadcast_event))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

/// How fast each organisation may broadcast over HTTP, on this node.
pub struct BroadcastLimiter(DefaultKeyedRateLimiter<Uuid>);

impl Default for BroadcastLimiter {
    fn default() -> Self {
        Self(RateLimiter::keyed(
            Quota::per_second(PER_SECOND).allow_burst(BURST),
        ))
    }
}

impl BroadcastLimiter {
    fn allows(&self, org_id: Uuid, messages: usize) -> bool {
        let Some(messages) = u32::try_from(messages).ok().and_then(NonZeroU32::new) else {
            return messages == 0;
        };
        matches!(self.0.check_key_n(&org_id, messages), Ok(Ok(())))
    }
}

/// Broadcasts to send.
#[derive(Deserialize, ToSchema)]
struct Broadcasts {
    messages: Vec<Message>,
}

#[derive(Deserialize, ToSchema)]
struct Message {
    /// The channel's name, without `realtime:`.
    topic: String,
    event: String,
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
    /// To the private channel of that name.
    #[serde(default)]
    private: bool,
}

/// Sends broadcasts to the channels of the caller's organisation. A person's token or the service-role key with
/// `X-Org-Id`; the anon key may not.
#[utoipa::path(post, path = "/realtime/v1/api/broadcast", tag = "changes", request_body = Broadcasts,
    responses((status = 202, description = "sent"), (status = 401), (status = 403), (status = 413), (status = 422),
        (status = 429)))]
async fn broadcast(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refusal> {
    let claims = caller(&state, &headers).await?;
    let body = body?;
    let broadcasts: Broadcasts = serde_json::from_slice(&body)
        .map_err(|error| Refusal::unprocessable(&format!("messages: {error}")))?;
    if broadcasts.messages.len() > MAX_MESSAGES {
        let text = format!("messages: at most {MAX_MESSAGES} at once");
        return Err(Refusal::unprocessable(&text));
    }
    let messages = broadcasts.messages.into_iter();
    let messages: Vec<_> = messages
        .map(|message| Outgoing {
            topic: message.topic,
            event: message.event,
            payload: BroadcastPayload::Json(message.payload),
            private: message.private,
        })
        .collect();
    send(&state, &claims, &messages).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// To the private channel of that name.
    #[serde(default)]
    private: bool,
}

/// Sends one broadcast; the body is its payload, JSON or, as `application/octet-stream`, plain bytes.
#[utoipa::path(post, path = "/realtime/v1/api/broadcast/{topic}/events/{event}", tag = "changes",
    params(("topic" = String, Path, description = "the channel's name, without `realtime:`"),
        ("event" = String, Path), EventQuery),
    request_body(content = serde_json::Value, content_type = "application/json"),
    responses((status = 202, description = "sent"), (status = 401), (status = 403), (status = 413), (status = 422),
        (status = 429)))]
async fn broadcast_event(
    State(state): State<AppState>,
    headers: HeaderMap,
    Path((topic, event)): Path<(String, String)>,
    query: Result<Query<EventQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refusal> {
    let claims = caller(&state, &headers).await?;
    let Query(query) = query.map_err(|error| Refusal::unprocessable(&error.body_text()))?;
    let body = body?;
    let is_raw = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
    let payload = if is_raw {
        BroadcastPayload::Raw(body)
    } else {
        let json = serde_json::from_slice(&body)
            .map_err(|error| Refusal::unprocessable(&format!("the body is not JSON: {error}")))?;
        BroadcastPayload::Json(json)
    };
    let message = Outgoing {
        topic,
        event,
        payload,
        private: query.private,
    };
    send(&state, &claims, &[message]).await
}

struct Outgoing {
    topic: String,
    event: String,
    payload: BroadcastPayload,
    private: bool,
}

/// All or none.
async fn send(
    state: &AppState,
    claims: &Claims,
    messages: &[Outgoing],
) -> Result<StatusCode, Refusal> {
    let Some(org_id) = claims.org_id else {
        return Err(Refusal::unauthorized());
    };
    let authorizer = SocketAuthorizer::new(state.auth.clone());
    for message in messages {
        let is_named = |name: &str| (1..=MAX_NAME).contains(&name.len());
        if !is_named(&message.topic) || !is_named(&message.event) {
            let text = format!("topic and event must have 1 to {MAX_NAME} bytes");
            return Err(Refusal::unprocessable(&text));
        }
        if message.private {
            let rights = authorizer.open_private(claims, &message.topic).await?;
            if !rights.send {
                let text = "your role may only listen on this topic";
                return Err(Refusal(StatusCode::FORBIDDEN, text.to_owned()));
            }
        }
    }
    if !state.broadcasts.allows(org_id, messages.len()) {
        return Err(Refusal(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many messages per second".to_owned(),
        ));
    }
    for message in messages {
        let hub = &state.hub;
        hub.broadcast(
            org_id,
            &message.topic,
            message.private,
            &message.event,
            &message.payload,
        );
    }
    Ok(StatusCode::ACCEPTED)
}

async fn caller(state: &AppState, headers: &HeaderMap) -> Result<Claims, Refusal> {
    Ok(claims_of(&auth::resolve(&state.auth, headers).await?))
}

/// A refusal in the words and the shape that the client knows.
struct Refusal(StatusCode, String);

impl Refusal {
    fn unauthorized() -> Self {
        Self(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned())
    }

    fn unprocessable(message: &str) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, message.to_owned())
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error.status {
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            status => Self(status, error.message),
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        let status = match error.code {
            ErrorCode::UnknownErrorOnChannel => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::FORBIDDEN,
        };
        Self(status, error.message)
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "message": self.1 }))).into_response()
    }
}
