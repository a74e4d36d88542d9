//! `/v1/invitations`: letting people into the organisation. How they come in: `/auth/v1`, and docs/auth.md.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::invitations::{self, Invitation};

use super::{Page, cursor, limit_of, page_of};
use crate::auth::invitations::{Asked, InviteError, Invited, Made, invite, renew};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(delete))
        .routes(routes!(resend))
}

/// An invitation as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InvitationView {
    pub id: Uuid,
    pub email: String,
    /// `owner`, `admin`, `agent`, `viewer`.
    pub role: String,
    pub full_name: Option<String>,
    /// The channels the agent will be limited to; empty: all.
    pub channel_ids: Vec<Uuid>,
    /// `pending`, `accepted`, `expired`.
    pub status: &'static str,
    /// `null`: the operator's own server.
    pub invited_by: Option<Uuid>,
    pub expires_at: DateTime<Utc>,
    /// When a mail was last asked for; `null`: the link was only handed out.
    pub mailed_at: Option<DateTime<Utc>>,
    pub accepted_at: Option<DateTime<Utc>>,
    pub accepted_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
}

impl From<Invitation> for InvitationView {
    fn from(invitation: Invitation) -> Self {
        let status = if invitation.accepted_at.is_some() {
            "accepted"
        } else if invitation.expires_at <= Utc::now() {
            "expired"
        } else {
            "pending"
        };
        Self {
            id: invitation.id,
            email: invitation.email,
            role: invitation.role,
            full_name: invitation.full_name,
            channel_ids: invitation.channel_ids,
            status,
            invited_by: invitation.invited_by,
            expires_at: invitation.expires_at,
            mailed_at: invitation.mailed_at,
            accepted_at: invitation.accepted_at,
            accepted_by: invitation.accepted_by,
            created_at: invitation.created_at,
        }
    }
}

/// An invitation with its link, which is shown this once: the server keeps only a hash.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeInvitationView {
    #[serde(flatten)]
    pub invitation: InvitationView,
    /// To hand on where no mail goes out. It makes an account; somebody who has one joins with its password.
    pub link: String,
    /// `queued`, or `off` where this server sends no mails.
    pub mail: &'static str,
}

impl From<Made> for MadeInvitationView {
    fn from(made: Made) -> Self {
        Self {
            invitation: made.invitation.into(),
            link: made.link,
            mail: if made.is_mailed { "queued" } else { "off" },
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// The organisation's invitations, newest first.
#[utoipa::path(get, path = "/v1/invitations", tag = "invitations", params(ListQuery),
    responses((status = 200, body = Page<InvitationView>, description = "one page of invitations"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed"),
        (status = 403, body = ErrorBody, description = "only owners and admins may")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<InvitationView>>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let limit = limit_of(query.limit)?;
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let before = before.map(|(_, id)| id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = invitations::list(&mut tx, caller.org_id, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |invitation| cursor::encode(None, invitation.id),
        Into::into,
    )))
}

/// Somebody to invite.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInvitationRequest {
    #[schema(example = "sara@example.com")]
    pub email: String,
    /// `owner`, `admin`, `agent`, `viewer`; never more than the caller is.
    pub role: String,
    pub full_name: Option<String>,
    /// Limits an agent to these channels; all if left out.
    #[serde(default)]
    pub channel_ids: Vec<Uuid>,
    /// Where the link leads in the end, with a session: a page of this server or of `ALLOWED_ORIGINS`.
    pub redirect_to: Option<String>,
}

/// Invites somebody. The mail goes out where the server has one; the link works without.
#[utoipa::path(post, path = "/v1/invitations", tag = "invitations", request_body = CreateInvitationRequest,
    responses((status = 201, body = MadeInvitationView, description = "the invitation with its link"),
        (status = 400, body = ErrorBody, description = "a field is missing or malformed"),
        (status = 403, body = ErrorBody, description = "only owners and admins may, and admins invite no owners"),
        (status = 409, body = ErrorBody, description = "`already_member` or `already_invited`"),
        (status = 429, body = ErrorBody, description = "a hundred in an hour")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateInvitationRequest>,
) -> Result<(StatusCode, axum::Json<MadeInvitationView>), ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let invited = Invited::check(Asked {
        email: &request.email,
        role: &request.role,
        full_name: request.full_name.as_deref(),
        channel_ids: request.channel_ids,
        redirect_to: request.redirect_to.as_deref(),
        invited_by: caller.user_id,
    })
    .map_err(|flaw| ApiError::invalid(flaw.field, flaw.reason))?;
    require_may_give(&caller, invited.role())?;
    check_redirect(&state, request.redirect_to.as_deref())?;
    let made = invite(&state.auth, caller.org_id, &invited).await?;
    Ok((StatusCode::CREATED, axum::Json(made.into())))
}

/// Takes an invitation back; its links end.
#[utoipa::path(delete, path = "/v1/invitations/{id}", tag = "invitations", params(("id" = Uuid, Path)),
    responses((status = 204, description = "it is gone"),
        (status = 403, body = ErrorBody, description = "only owners and admins may, and admins none of an owner"),
        (status = 404, body = ErrorBody, description = "there is no such invitation"),
        (status = 409, body = ErrorBody, description = "`already_accepted`")))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<StatusCode, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    open(&state, &caller, id).await?;
    let mut tx = state.db.system().await?;
    let is_gone = invitations::delete_open(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    if is_gone {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("invitation"))
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ResendQuery {
    /// As in the request that made it.
    redirect_to: Option<String>,
}

/// New links and another seven days; the links before it end.
#[utoipa::path(post, path = "/v1/invitations/{id}/resend", tag = "invitations", params(("id" = Uuid, Path), ResendQuery),
    responses((status = 200, body = MadeInvitationView, description = "the invitation with its new link"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed"),
        (status = 403, body = ErrorBody, description = "only owners and admins may, and admins none of an owner"),
        (status = 404, body = ErrorBody, description = "there is no such invitation"),
        (status = 409, body = ErrorBody, description = "`already_accepted`"),
        (status = 429, body = ErrorBody, description = "a hundred in an hour")))]
async fn resend(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    QueryParams(query): QueryParams<ResendQuery>,
) -> Result<axum::Json<MadeInvitationView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    check_redirect(&state, query.redirect_to.as_deref())?;
    open(&state, &caller, id).await?;
    let made = renew(&state.auth, caller.org_id, id, query.redirect_to.as_deref()).await?;
    Ok(axum::Json(made.into()))
}

/// An invitation of the tenant that was not accepted, and that the caller might have made. Whoever renews one gets its
/// link, so an admin must not renew an owner's.
async fn open(state: &AppState, caller: &Caller, id: Uuid) -> Result<Invitation, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let invitation = invitations::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    let invitation = invitation.ok_or_else(|| ApiError::not_found("invitation"))?;
    if invitation.accepted_at.is_some() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "already_accepted",
            "this invitation was accepted",
        ));
    }
    let role = Role::of_profile(&invitation.role).unwrap_or(Role::Owner);
    require_may_give(caller, role)?;
    Ok(invitation)
}

fn require_may_give(caller: &Caller, role: Role) -> Result<(), ApiError> {
    if caller.role.may_give(role) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!("{} cannot make somebody {role}", caller.role),
    )
    .at("role"))
}

fn check_redirect(state: &AppState, redirect_to: Option<&str>) -> Result<(), ApiError> {
    match redirect_to {
        Some(page) if state.auth.site.allowed(page).is_none() => Err(ApiError::invalid(
            "redirect_to",
            "must be a page of PUBLIC_URL or of one of ALLOWED_ORIGINS",
        )),
        _ => Ok(()),
    }
}

impl From<InviteError> for ApiError {
    fn from(error: InviteError) -> Self {
        let words = error.to_string();
        match error {
            InviteError::Member => Self::new(StatusCode::CONFLICT, "already_member", words),
            InviteError::Open => Self::new(StatusCode::CONFLICT, "already_invited", words),
            InviteError::UnknownChannel => Self::invalid("channel_ids", words),
            InviteError::TooMany(wait) => Self::too_many(words, wait),
            InviteError::NotFound => Self::not_found("invitation"),
            InviteError::Database(error) => error.into(),
        }
    }
}
