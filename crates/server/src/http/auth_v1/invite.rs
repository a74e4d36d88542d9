//! `POST /auth/v1/invite`: `auth.admin.inviteUserByEmail`, for the operator's own servers.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use wasel_db::{identity, organizations};
use wasel_domain::OrgId;

use super::views::{ErrorView, GoTrueError};
use super::{RedirectQuery, TAG, parse};
use crate::auth::invitations::{self, Asked, Flaw, Invited};
use crate::auth::{AuthContext, TokenError, Verified, bearer, requested_org};

#[derive(Deserialize, ToSchema)]
pub(super) struct InviteRequest {
    email: Option<String>,
    #[serde(default)]
    data: InviteData,
}

#[derive(Default, Deserialize, ToSchema)]
pub(super) struct InviteData {
    /// The organization; needed unless there is only one.
    org_id: Option<Uuid>,
    /// The same by its short name.
    org_slug: Option<String>,
    /// `owner`, `admin`, `agent` (if left out) or `viewer`.
    role: Option<String>,
    full_name: Option<String>,
    /// The channels an agent is limited to; all if left out.
    #[serde(default)]
    channel_ids: Vec<Uuid>,
}

/// Somebody who was invited. A newcomer will have this `id`.
#[derive(Serialize, ToSchema)]
pub(super) struct InvitedView {
    id: Uuid,
    aud: &'static str,
    role: &'static str,
    email: String,
    invited_at: DateTime<Utc>,
    app_metadata: Value,
    user_metadata: Value,
    /// The invitation, as in `/v1/invitations`.
    invitation_id: Uuid,
    /// For handing on; the mail has one of its own.
    invitation_link: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Invite somebody, with the service-role key
#[utoipa::path(
    post, path = "/auth/v1/invite", tag = TAG, operation_id = "auth_invite",
    params(("redirect_to" = Option<String>, Query, description = "Where the link leads, with a session")),
    request_body = InviteRequest,
    responses(
        (status = 200, body = InvitedView),
        (status = 400, body = ErrorView, description = "`validation_failed`, `bad_json`"),
        (status = 401, body = ErrorView, description = "`no_authorization`"),
        (status = 403, body = ErrorView, description = "`bad_jwt`, `not_admin`"),
        (status = 422, body = ErrorView, description = "`email_exists`: a member already, or invited already"),
        (status = 429, body = ErrorView, description = "`over_email_send_rate_limit`"),
        (status = 503, body = ErrorView),
    ),
)]
pub(super) async fn invite(
    State(auth): State<AuthContext>,
    query: Result<Query<RedirectQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<InvitedView>, GoTrueError> {
    require_service(&auth, &headers).await?;
    let request: InviteRequest = parse(body)?;
    let email = super::address(request.email.as_deref().unwrap_or_default())?;
    let data = request.data;
    let redirect_to = query.ok().and_then(|Query(query)| query.redirect_to);
    let invited = Invited::check(Asked {
        email: &email,
        role: data.role.as_deref().unwrap_or("agent"),
        full_name: data.full_name.as_deref(),
        channel_ids: data.channel_ids,
        redirect_to: redirect_to.as_deref(),
        invited_by: None,
    })
    .map_err(|Flaw { field, reason }| GoTrueError::invalid(format!("data.{field} {reason}")))?;
    let named = data.org_id.map(OrgId).or(requested_org(&headers)?);
    let org = find_org(&auth, named, data.org_slug.as_deref()).await?;
    let made = invitations::invite(&auth, org, &invited).await?;
    let mut tx = auth.db.system().await?;
    let known = identity::find_user_by_email(&mut tx, &email).await?;
    tx.commit().await?;
    let invitation = made.invitation;
    Ok(Json(InvitedView {
        id: known.map_or(invitation.id, |user| user.id),
        aud: "authenticated",
        role: "authenticated",
        email,
        invited_at: invitation.created_at,
        app_metadata: crate::auth::app_metadata(Some(org)),
        user_metadata: json!({ "full_name": invitation.full_name }),
        invitation_id: invitation.id,
        invitation_link: made.link,
        created_at: invitation.created_at,
        updated_at: invitation.created_at,
    }))
}

async fn require_service(auth: &AuthContext, headers: &HeaderMap) -> Result<(), GoTrueError> {
    let token = bearer(headers).ok_or_else(GoTrueError::no_authorization)?;
    match auth.tokens.verify(token).await {
        Ok(Verified::Service) => Ok(()),
        Ok(Verified::User(_) | Verified::Anonymous) => Err(GoTrueError::new(
            StatusCode::FORBIDDEN,
            "not_admin",
            "This needs the service-role key",
        )),
        Err(TokenError::KeysUnavailable) => Err(GoTrueError::try_again()),
        Err(error) => Err(GoTrueError::bad_jwt(format!("invalid JWT: {error}"))),
    }
}

async fn find_org(
    auth: &AuthContext,
    id: Option<OrgId>,
    slug: Option<&str>,
) -> Result<OrgId, GoTrueError> {
    let mut tx = auth.db.system().await?;
    let found = match (id, slug) {
        (Some(id), _) => organizations::find(&mut tx, id)
            .await?
            .map(|org| OrgId(org.id)),
        (None, Some(slug)) if !slug.contains('\0') => organizations::find_by_slug(&mut tx, slug)
            .await?
            .map(|org| OrgId(org.id)),
        (None, Some(_)) => None,
        (None, None) => organizations::find_only(&mut tx).await?,
    };
    tx.commit().await?;
    found.filter(|org| *org != OrgId::SYSTEM).ok_or_else(|| {
        GoTrueError::invalid("data.org_id or data.org_slug must name an organization")
    })
}
