//! `/v1/automations`: rules that write to people when a row comes or when it is time.

mod checked;
pub mod defaults;
mod history;
mod rule;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::automations::{self, Automation, AutomationFields, UNIQUE_NAME};
use wasel_db::{TenantTx, organizations};
use wasel_domain::OrgId;
use wasel_domain::schedule::{Schedule, ScheduleError, parse_zone};

use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::state::AppState;

pub use rule::{
    AutomationView, CreateAutomationRequest, RuleFilter, RuleMapping, RuleSource, RuleVariable,
    RuleWindow, UpdateAutomationRequest, VariableSpec,
};

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(defaults::create_defaults))
        .routes(routes!(history::run))
        .routes(routes!(history::preview))
        .routes(routes!(history::runs))
}

/// Who may make, change and run rules.
const MANAGERS: [Role; 2] = [Role::Owner, Role::Admin];

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only `event` or `cron`.
    kind: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// The organisation's automations, newest first.
#[utoipa::path(get, path = "/v1/automations", tag = "automations", params(ListQuery),
    responses((status = 200, body = Page<AutomationView>, description = "one page of automations"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<AutomationView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    if let Some(kind) = query.kind.as_deref() {
        checked::one_of("kind", kind, &checked::KINDS)?;
    }
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let before = before.map(|(_, id)| id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let kind = query.kind.as_deref();
    let rows = automations::list(&mut tx, caller.org_id, kind, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |rule| cursor::encode(None, rule.id),
        Into::into,
    )))
}

/// Makes an automation. Everything it names is looked up first: template and variables, table and columns, schedule.
#[utoipa::path(post, path = "/v1/automations", tag = "automations", request_body = CreateAutomationRequest,
    responses((status = 201, body = AutomationView, description = "the automation"),
        (status = 400, body = ErrorBody, description = "a field is missing or malformed, or names what is not there"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 409, body = ErrorBody, description = "the name is taken")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateAutomationRequest>,
) -> Result<(StatusCode, axum::Json<AutomationView>), ApiError> {
    caller.require(&MANAGERS)?;
    let fields = request.into_fields()?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rule = insert(&mut tx, &caller, &fields).await?;
    tx.commit().await?;
    wake(&state);
    Ok((StatusCode::CREATED, axum::Json(rule.into())))
}

/// One automation.
#[utoipa::path(get, path = "/v1/automations/{id}", tag = "automations", params(("id" = Uuid, Path)),
    responses((status = 200, body = AutomationView, description = "the automation"),
        (status = 404, body = ErrorBody, description = "there is no such automation")))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<AutomationView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rule = automations::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    Ok(axum::Json(rule.ok_or_else(not_found)?.into()))
}

/// Changes an automation, or switches it on or off.
#[utoipa::path(patch, path = "/v1/automations/{id}", tag = "automations", params(("id" = Uuid, Path)),
    request_body = UpdateAutomationRequest,
    responses((status = 200, body = AutomationView, description = "the automation as it is now"),
        (status = 400, body = ErrorBody, description = "a field is malformed, or names what is not there"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such automation"),
        (status = 409, body = ErrorBody, description = "the name is taken")))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<UpdateAutomationRequest>,
) -> Result<axum::Json<AutomationView>, ApiError> {
    caller.require(&MANAGERS)?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let old = automations::find_for_update(&mut tx, org, id)
        .await?
        .ok_or_else(not_found)?;
    let schedule = |fields: &AutomationFields| {
        let words = [&fields.cron_expression, &fields.timezone];
        (fields.enabled, words.map(Clone::clone))
    };
    let (was, planned) = (schedule(&old.fields), old.next_run_at);
    let switched_off = AutomationFields {
        enabled: false,
        ..old.fields.clone()
    };
    let fields = request.over(old.fields)?;
    // That must work also where the table or the template is gone.
    let only_switches_off = fields == switched_off;
    let next = if schedule(&fields) == was {
        planned
    } else if only_switches_off {
        None
    } else {
        next_run(&mut tx, org, &fields).await?
    };
    if !only_switches_off {
        checked::check_template(&mut tx, org, &fields).await?;
    }
    let rule = automations::update(&mut tx, org, id, &fields, next)
        .await
        .map_err(name_taken)?
        .ok_or_else(not_found)?;
    if !only_switches_off {
        check_names(&mut tx, org, id).await?;
    }
    tx.commit().await?;
    wake(&state);
    Ok(axum::Json(rule.into()))
}

/// Removes an automation with its history. What it queued stays.
#[utoipa::path(delete, path = "/v1/automations/{id}", tag = "automations", params(("id" = Uuid, Path)),
    responses((status = 204, description = "it is gone"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such automation")))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<StatusCode, ApiError> {
    caller.require(&MANAGERS)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if !automations::delete(&mut tx, caller.org_id, id).await? {
        return Err(not_found());
    }
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Stores a rule after every check. On an error the transaction must be dropped: the row is in it.
async fn insert(
    tx: &mut TenantTx,
    caller: &Caller,
    fields: &AutomationFields,
) -> Result<Automation, ApiError> {
    let org = caller.org_id;
    checked::check_template(tx, org, fields).await?;
    let next = next_run(tx, org, fields).await?;
    let rule = automations::insert(tx, org, fields, next, caller.user_id)
        .await
        .map_err(name_taken)?;
    check_names(tx, org, rule.id).await?;
    Ok(rule)
}

/// Whether the tables and columns that a rule names are there and allowed. The database looks, as the tenant.
async fn check_names(tx: &mut TenantTx, org: OrgId, id: Uuid) -> Result<(), ApiError> {
    let problems = automations::list_problems(tx, org, id).await?;
    match problems.into_iter().next() {
        Some(first) => Err(ApiError::invalid(first.field, first.problem)),
        None => Ok(()),
    }
}

/// The first run from now; `None` for an event or a rule that is switched off. A schedule that cannot be read is
/// refused either way.
async fn next_run(
    tx: &mut TenantTx,
    org: OrgId,
    fields: &AutomationFields,
) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(expression) = &fields.cron_expression else {
        return Ok(None);
    };
    let zone = match &fields.timezone {
        Some(zone) => {
            // Both that reckon with it must know it.
            if !organizations::is_time_zone(tx, zone).await? {
                return Err(ApiError::invalid(
                    "timezone",
                    ScheduleError::Zone.to_string(),
                ));
            }
            zone.clone()
        }
        None => organizations::find(tx, org)
            .await?
            .map_or_else(|| "UTC".to_owned(), |organization| organization.timezone),
    };
    let wrong = |error: ScheduleError| match error {
        ScheduleError::Zone => ApiError::invalid("timezone", error.to_string()),
        _ => ApiError::invalid("cron_expression", error.to_string()),
    };
    let schedule = Schedule::parse(expression, parse_zone(&zone).map_err(wrong)?).map_err(wrong)?;
    let next = schedule.next_after(Utc::now()).map_err(wrong)?;
    Ok(fields.enabled.then_some(next))
}

fn wake(state: &AppState) {
    state.signals.automations.notify_one();
    state.signals.commits.changes.notify_one();
}

fn not_found() -> ApiError {
    ApiError::not_found("automation")
}

fn name_taken(error: wasel_db::Error) -> ApiError {
    match error {
        wasel_db::Error::Constraint { constraint, .. } if constraint == UNIQUE_NAME => {
            let message = "there is an automation of this name already";
            ApiError::new(StatusCode::CONFLICT, "conflict", message).at("name")
        }
        other => other.into(),
    }
}
