//! `/v1/sessions/{id}/groups`: the groups a linked phone is in.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::commands::{self, ANSWER_WAIT, Command, Recipient};
use super::{MANAGERS, linking, visible};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam};
use crate::http::v1::Page;
use crate::state::AppState;

/// WhatsApp's limits: the length of a group's name, and the people in it beside its creator.
const MAX_SUBJECT: usize = 100;
const MAX_PARTICIPANTS: usize = 1023;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create))
}

/// A group, as the session answers it.
#[derive(Debug, Serialize, ToSchema)]
struct GroupView {
    /// `…@g.us`.
    jid: String,
    /// Its name.
    subject: String,
    participants: Vec<ParticipantView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ParticipantView {
    jid: String,
    /// E.164; `null` where WhatsApp hides the number.
    phone_number: Option<String>,
    is_admin: bool,
}

/// The groups the phone is in, all in one page; asked of WhatsApp each time.
#[utoipa::path(get, path = "/v1/sessions/{id}/groups", tag = "sessions", params(("id" = Uuid, Path)),
    responses((status = 200, body = Page<GroupView>), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "`not_running`"),
        (status = 422, body = ErrorBody, description = "`session_refused`; `details.code` says how"),
        (status = 504, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<Page<Value>>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    visible(&state, &caller, id).await?;
    let mut answer =
        commands::ask(&state, caller.org_id, id, &Command::Groups, ANSWER_WAIT).await?;
    let Value::Array(data) = answer["groups"].take() else {
        tracing::error!(session.id = %id, "a session answered a list of groups with something else");
        return Err(ApiError::new(
            StatusCode::BAD_GATEWAY,
            "bad_answer",
            "the session's answer is no list of groups",
        ));
    };
    Ok(axum::Json(Page {
        data,
        next_cursor: None,
    }))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateGroupRequest {
    /// The group's name.
    #[schema(max_length = 100)]
    subject: String,
    /// Phone numbers or JIDs, without oneself.
    #[schema(max_items = 1023)]
    participants: Vec<String>,
}

/// Makes a group.
#[utoipa::path(post, path = "/v1/sessions/{id}/groups", tag = "sessions", params(("id" = Uuid, Path)),
    request_body = CreateGroupRequest,
    responses((status = 201, body = GroupView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "`not_running`"),
        (status = 422, body = ErrorBody, description = "`session_refused`; `details.code` says how"),
        (status = 504, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<CreateGroupRequest>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    caller.require(&MANAGERS)?;
    visible(&state, &caller, id).await?;
    let subject = request.subject.trim();
    if subject.is_empty() || subject.chars().count() > MAX_SUBJECT {
        let message = format!("must have 1 to {MAX_SUBJECT} characters");
        return Err(ApiError::invalid("subject", message));
    }
    if request.participants.is_empty() || request.participants.len() > MAX_PARTICIPANTS {
        let message = format!("must be 1 to {MAX_PARTICIPANTS}");
        return Err(ApiError::invalid("participants", message));
    }
    let region = linking::region_of(&state, caller.org_id).await?;
    let participants = request
        .participants
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let text = text.trim();
            if let Some(known) = person(text) {
                return Ok(known);
            }
            wasel_domain::E164::parse(text, region)
                .map(|number| Recipient::Phone(number.as_str().to_owned()))
                .map_err(|error| {
                    ApiError::invalid(format!("participants[{index}]"), error.to_string())
                })
        })
        .collect::<Result<_, _>>()?;
    let command = Command::CreateGroup {
        subject: subject.to_owned(),
        participants,
    };
    let group = commands::ask(&state, caller.org_id, id, &command, ANSWER_WAIT).await?;
    Ok((StatusCode::CREATED, axum::Json(group)))
}

/// A person's address on WhatsApp Web.
fn person(text: &str) -> Option<Recipient> {
    let (user, server) = text.split_once('@')?;
    if user.is_empty() || !user.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match server {
        "s.whatsapp.net" => Some(Recipient::Jid(text.to_owned())),
        "lid" => Some(Recipient::Lid(text.to_owned())),
        _ => None,
    }
}
