//! `/realtime/v1/websocket`: Supabase's Realtime protocol; the work is in crate `realtime`.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use axum::Json;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Sink, Stream};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::{conversations, rights};
use wasel_domain::{ConversationId, OrgId};
use wasel_realtime::{
    Authorizer, Claims, ConnectParams, ErrorCode, Frame, TokenError, TopicRights, Vsn,
};

use crate::auth::{self, AuthContext, AuthError, Caller, Role, Verified};
use crate::state::AppState;

/// An idle connection costs about this much; axum's default buffers cost 131 KB.
const BUFFER: usize = 1024;
/// A little above the largest frame the protocol crate takes, which answers larger ones itself.
const MAX_FRAME: usize = 1024 * 1024 + 64 * 1024;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(connect))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ConnectQuery {
    /// The anon key or a token.
    apikey: Option<String>,
    /// Protocol version: 1.0.0 (default) or 2.0.0.
    vsn: Option<String>,
    /// The organisation, for people in several and for the service-role key (`realtime.params` of the client).
    org_id: Option<Uuid>,
}

/// Opens a Realtime socket. A channel is joined with a user's token; rows of its organisation only.
#[utoipa::path(get, path = "/realtime/v1/websocket", tag = "changes", params(ConnectQuery), security(()),
    responses((status = 101), (status = 400), (status = 401)))]
async fn connect(
    State(state): State<AppState>,
    Query(query): Query<ConnectQuery>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let refuse = |status: StatusCode, reason: &str| {
        (status, Json(json!({ "error": reason }))).into_response()
    };
    let Some(vsn) = Vsn::from_param(query.vsn.as_deref()) else {
        return refuse(StatusCode::BAD_REQUEST, "vsn must be 1.0.0 or 2.0.0");
    };
    let Some(apikey) = query.apikey.filter(|key| !key.is_empty()) else {
        return refuse(StatusCode::UNAUTHORIZED, "apikey is missing");
    };
    let org_id = query.org_id;
    let proves = match proves_somebody(&state.auth, &apikey, org_id).await {
        Ok(proves) => proves,
        Err(error) => return refuse(error.status, &error.message),
    };
    let (hub, shutdown) = (state.hub.clone(), state.shutdown.clone());
    upgrade
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(4 * MAX_FRAME)
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .on_upgrade(move |socket| async move {
            let params = ConnectParams {
                vsn,
                apikey: proves.then(|| Arc::from(apikey)),
                org_id,
            };
            wasel_realtime::run(hub, Frames(socket), params, shutdown).await;
        })
}

/// Whether an apikey signs somebody in. Not so the anon key, which alone opens nothing, and a service-role key without a
/// tenant. What it opens is asked at each join, as of any token.
async fn proves_somebody(
    auth: &AuthContext,
    apikey: &str,
    org_id: Option<Uuid>,
) -> Result<bool, AuthError> {
    let verified = auth.tokens.verify(apikey).await?;
    if matches!(verified, Verified::Anonymous) {
        return Ok(false);
    }
    match auth::resolve_token(auth, apikey, org_id.map(OrgId)).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(verified, Verified::Service) && error.code == "org_required" => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn claims_of(caller: &Caller) -> Claims {
    Claims {
        org_id: Some(caller.org_id.0),
        role: caller.role.as_str().to_owned(),
        user_id: caller.user_id.map(|id| id.0),
        expires_at: caller.token_expires_at,
        channels: caller
            .channel_limits
            .as_ref()
            .map(|limits| Arc::from(limits.as_slice())),
    }
}

/// Conversations remembered with their channels.
const MAX_REMEMBERED: usize = 50_000;

/// Verifies the tokens of channel joins, by the same rules as every HTTP request, and says who may join what.
pub struct SocketAuthorizer {
    auth: AuthContext,
    /// The channel of each conversation asked for; it never changes.
    channels: Mutex<HashMap<(Uuid, Uuid), Uuid>>,
}

impl SocketAuthorizer {
    #[must_use]
    pub fn new(auth: AuthContext) -> Self {
        Self {
            auth,
            channels: Mutex::default(),
        }
    }

    async fn channel_of(&self, org: Uuid, conversation: Uuid) -> wasel_db::Result<Option<Uuid>> {
        let lock = || self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&(org, conversation)).copied();
        if known.is_some() {
            return Ok(known);
        }
        let mut tx = self.auth.db.system().await?;
        let found = conversations::find(&mut tx, OrgId(org), ConversationId(conversation)).await?;
        tx.commit().await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let mut channels = lock();
        if channels.len() >= MAX_REMEMBERED {
            channels.clear();
        }
        channels.insert((org, conversation), found.channel_id);
        Ok(Some(found.channel_id))
    }
}

#[async_trait]
impl Authorizer for SocketAuthorizer {
    async fn authorize(&self, token: &str, org_id: Option<Uuid>) -> Result<Claims, TokenError> {
        let caller = auth::resolve_token(&self.auth, token, org_id.map(OrgId))
            .await
            .map_err(refusal)?;
        // Verified again for the session's name alone; the keys are at hand.
        let verified = self.auth.tokens.verify(token).await;
        if let Ok(Verified::User(claims)) = verified
            && let Some(session) = claims.session_id
        {
            let ask = async {
                let mut tx = self.auth.db.system().await?;
                let ended = rights::has_ended(&mut tx, session).await?;
                tx.commit().await?;
                Ok(ended)
            };
            let ended = ask
                .await
                .map_err(|error: wasel_db::Error| not_now(&error))?;
            if ended {
                return Err(unauthorized("The session of this token has ended"));
            }
        }
        Ok(claims_of(&caller))
    }

    /// A conversation's topic is for those who may see the conversation, of whom viewers may only listen; a person's
    /// topic is that person's; any other is everybody's in the tenant.
    async fn open_private(&self, claims: &Claims, topic: &str) -> Result<TopicRights, TokenError> {
        let is_service = claims.role == Role::Service.as_str();
        if let Some(conversation) = topic.strip_prefix("conversation:") {
            let refused =
                || unauthorized("There is no such conversation, or it is not yours to see");
            let conversation = conversation.parse().map_err(|_| refused())?;
            let org = claims.org_id.ok_or_else(refused)?;
            let channel = self.channel_of(org, conversation).await;
            let channel = channel
                .map_err(|error| not_now(&error))?
                .ok_or_else(refused)?;
            let is_open = claims
                .channels
                .as_ref()
                .is_none_or(|channels| channels.contains(&channel));
            if !is_open {
                return Err(refused());
            }
            return Ok(TopicRights {
                send: claims.role != Role::Viewer.as_str(),
            });
        }
        if let Some(person) = topic.strip_prefix("user:") {
            let person: Option<Uuid> = person.parse().ok();
            let is_theirs = person.is_some() && person == claims.user_id;
            let may_act_for = is_theirs || (is_service && person.is_some());
            if !may_act_for {
                return Err(unauthorized("This topic is somebody else's"));
            }
        }
        Ok(TopicRights { send: true })
    }
}

fn refusal(error: AuthError) -> TokenError {
    let code = match (error.status, error.code) {
        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::INTERNAL_SERVER_ERROR, _) => {
            ErrorCode::UnknownErrorOnChannel
        }
        (_, "token_expired" | "token_invalid") => ErrorCode::InvalidJwtToken,
        _ => ErrorCode::Unauthorized,
    };
    TokenError::new(code, error.message)
}

fn unauthorized(message: &str) -> TokenError {
    TokenError::new(ErrorCode::Unauthorized, message)
}

fn not_now(error: &wasel_db::Error) -> TokenError {
    tracing::warn!(%error, "a channel's rights could not be looked up");
    TokenError::new(
        ErrorCode::UnknownErrorOnChannel,
        "The database is not available",
    )
}

/// axum's socket in the protocol crate's terms.
struct Frames(WebSocket);

impl Stream for Frames {
    type Item = Result<Frame, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let message = match std::task::ready!(Pin::new(&mut self.0).poll_next(context)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            return Poll::Ready(Some(Ok(match message {
                Message::Text(text) => Frame::Text(Bytes::from(text)),
                Message::Binary(bytes) => Frame::Binary(bytes),
                Message::Close(_) => Frame::Close,
                // axum answers pings by itself.
                Message::Ping(_) | Message::Pong(_) => continue,
            })));
        }
    }
}

impl Sink<Frame> for Frames {
    type Error = axum::Error;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.0).poll_ready(context)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), axum::Error> {
        let message = match frame {
            Frame::Text(bytes) => Message::Text(bytes.try_into().map_err(axum::Error::new)?),
            Frame::Binary(bytes) => Message::Binary(bytes),
            Frame::Close => Message::Close(None),
        };
        Pin::new(&mut self.0).start_send(message)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.0).poll_close(context)
    }
}
