//! `/v1/conversations/{id}/typing`: shows the customer that somebody writes, on linked phones.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::contacts::{self, ContactIdentity};
use wasel_db::{channels, conversations, session_requests};
use wasel_domain::{ConversationId, event::IdentityKind};

use super::commands::{self, Command, Recipient};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam};
use crate::state::AppState;

/// WhatsApp shows it for about that long; later it would be news of yesterday.
const WORTH: Duration = Duration::from_secs(10);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(typing))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct TypingRequest {
    /// `false`: no longer. `true` if left out.
    typing: bool,
    /// Shown as recording instead of writing.
    recording: bool,
}

impl Default for TypingRequest {
    fn default() -> Self {
        Self {
            typing: true,
            recording: false,
        }
    }
}

/// Shows "typing…" to the customer, or stops showing it. For channels on a linked phone; on others it comes with
/// `POST /v1/conversations/{id}/read`. Repeat it every ten seconds while somebody writes.
#[utoipa::path(post, path = "/v1/conversations/{id}/typing", tag = "conversations", params(("id" = Uuid, Path)),
    request_body = TypingRequest,
    responses((status = 202, description = "handed to the session"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "`not_running`"),
        (status = 422, body = ErrorBody, description = "`not_supported` or `not_addressable`")))]
async fn typing(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<TypingRequest>,
) -> Result<StatusCode, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let conversation = conversations::find(&mut tx, org, ConversationId(id)).await?;
    let conversation = conversation.ok_or_else(|| ApiError::not_found("conversation"))?;
    let channel = channels::find(&mut tx, org, conversation.channel_id.into()).await?;
    if channel.is_none_or(|channel| channel.kind != session_requests::CHANNEL_KIND) {
        return Err(ApiError::refused(
            "not_supported",
            "only channels on a linked phone show typing by itself: on others it comes with marking as read",
        ));
    }
    let session =
        session_requests::find_by_channel(&mut tx, org, conversation.channel_id.into()).await?;
    let session = session.ok_or_else(commands::not_running)?;
    let identities = contacts::list_identities(&mut tx, org, &[conversation.contact_id]).await?;
    tx.commit().await?;
    let to = match conversation.group_id {
        Some(group) => Some(Recipient::Group(group)),
        None => recipient(&identities),
    };
    let to =
        to.ok_or_else(|| ApiError::refused("not_addressable", crate::outbound::NOT_ADDRESSABLE))?;
    let command = Command::Typing {
        to,
        typing: request.typing,
        recording: request.recording,
    };
    commands::tell(&state, org, session.id, &command, WORTH).await?;
    Ok(StatusCode::ACCEPTED)
}

/// The best address of those a session can write to.
fn recipient(identities: &[ContactIdentity]) -> Option<Recipient> {
    let value = |kind: IdentityKind| {
        let found = identities.iter().find(|known| known.kind == kind.as_str());
        found.map(|known| known.value.clone())
    };
    value(IdentityKind::Phone)
        .map(Recipient::Phone)
        .or_else(|| value(IdentityKind::Jid).map(Recipient::Jid))
        .or_else(|| value(IdentityKind::Lid).map(Recipient::Lid))
}
