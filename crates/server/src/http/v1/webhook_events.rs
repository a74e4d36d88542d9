//! `/v1/webhook-events`: the inbound ledger, for owners and admins: what came, what became of it, replay.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::ledger;

use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{PathParam, QueryParams};
use crate::http::webhooks;
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(replay))
}

/// A webhook request as the ledger has it. Its body is not shown: it holds customers' messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookEventView {
    pub id: Uuid,
    pub channel_id: Option<Uuid>,
    pub kind: String,
    /// `stored`, `duplicate`, `dead_letter`.
    pub outcome: String,
    /// Why it is a dead letter.
    pub reason: Option<String>,
    pub received_at: DateTime<Utc>,
    pub replayed_at: Option<DateTime<Utc>>,
}

impl From<ledger::WebhookEventSummary> for WebhookEventView {
    fn from(e: ledger::WebhookEventSummary) -> Self {
        Self {
            id: e.id,
            channel_id: e.channel_id,
            kind: e.kind,
            outcome: e.outcome,
            reason: e.reason,
            received_at: e.received_at,
            replayed_at: e.replayed_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `stored`, `duplicate` or `dead_letter`.
    outcome: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

/// The ledger, newest first.
#[utoipa::path(get, path = "/v1/webhook-events", tag = "webhooks", params(ListQuery),
    responses((status = 200, body = Page<WebhookEventView>), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<WebhookEventView>>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let limit = limit_of(query.limit)?;
    if let Some(outcome) = &query.outcome
        && !["stored", "duplicate", "dead_letter"].contains(&outcome.as_str())
    {
        return Err(ApiError::invalid(
            "outcome",
            "must be stored, duplicate or dead_letter",
        ));
    }
    let before = query
        .cursor
        .as_deref()
        .map(cursor::decode)
        .transpose()?
        .map(|(_, id)| id);
    // The ledger holds raw bodies, so no tenant role may read the table; the tenant is named here.
    let mut tx = state.db.system().await?;
    let rows = ledger::list(
        &mut tx,
        caller.org_id,
        query.outcome.as_deref(),
        before,
        limit + 1,
    )
    .await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |row| cursor::encode(None, row.id),
        Into::into,
    )))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayResult {
    /// What became of it now.
    pub outcome: String,
    pub reason: Option<String>,
}

/// Reads one webhook again, after its channel was added or a defect was mended.
#[utoipa::path(post, path = "/v1/webhook-events/{id}/replay", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, body = ReplayResult), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn replay(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<ReplayResult>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let mut tx = state.db.system().await?;
    let row = ledger::find(&mut tx, caller.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found("webhook event"))?;
    tx.commit().await?;
    webhooks::replay::replay(&state, row).await?;
    let mut tx = state.db.system().await?;
    let row = ledger::find(&mut tx, caller.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found("webhook event"))?;
    tx.commit().await?;
    Ok(axum::Json(ReplayResult {
        outcome: row.outcome,
        reason: row.reason,
    }))
}
