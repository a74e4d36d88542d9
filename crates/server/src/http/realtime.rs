//! `/realtime/v1/websocket`: Supabase's Realtime protocol; the work is in crate `realtime`.

use std::pin::Pin;
use std::sync::Arc;
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
use wasel_realtime::{Authorizer, Claims, ConnectParams, ErrorCode, Frame, TokenError, Vsn};

use crate::auth::{self, AuthContext, AuthError, Caller, Verified};
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
    let apikey_claims = match identify(&state.auth, &apikey).await {
        Ok(claims) => claims,
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
            let params = ConnectParams { vsn, apikey_claims };
            wasel_realtime::run(hub, Frames(socket), params, shutdown).await;
        })
}

/// The claims of an apikey that signs somebody in; `None` for the anon key, which alone opens nothing.
async fn identify(auth: &AuthContext, apikey: &str) -> Result<Option<Claims>, AuthError> {
    match auth.tokens.verify(apikey).await? {
        Verified::User(_) => Ok(Some(claims_of(
            &auth::resolve_token(auth, apikey, None).await?,
        ))),
        Verified::Anonymous | Verified::Service => Ok(None),
    }
}

fn claims_of(caller: &Caller) -> Claims {
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

/// Verifies the tokens of channel joins, by the same rules as every HTTP request.
pub struct SocketAuthorizer(pub AuthContext);

#[async_trait]
impl Authorizer for SocketAuthorizer {
    async fn authorize(&self, token: &str) -> Result<Claims, TokenError> {
        let caller = auth::resolve_token(&self.0, token, None)
            .await
            .map_err(|error| {
                let code = match (error.status, error.code) {
                    (StatusCode::SERVICE_UNAVAILABLE | StatusCode::INTERNAL_SERVER_ERROR, _) => {
                        ErrorCode::UnknownErrorOnChannel
                    }
                    (_, "token_expired" | "token_invalid") => ErrorCode::InvalidJwtToken,
                    _ => ErrorCode::Unauthorized,
                };
                TokenError::new(code, error.message)
            })?;
        Ok(claims_of(&caller))
    }
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
