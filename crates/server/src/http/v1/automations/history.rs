//! Running a rule by hand, looking at whom it would write to, and what it did.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wasel_db::automations::{self, PreviewRow, Run, RunAt};
use wasel_db::templates::{self, Template};
use wasel_db::{TenantTx, organizations};
use wasel_domain::phone::parse_region;
use wasel_domain::template::{RenderedTemplate, TemplateTexts};
use wasel_domain::{E164, OrgId, Region};

use super::{MANAGERS, not_found};
use crate::auth::Caller;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{PathParam, QueryParams};
use crate::http::v1::{Page, cursor, limit_of, page_of};
use crate::state::AppState;

/// How many of an audience a preview shows.
const PREVIEWED: i32 = 20;

/// What a run did.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunResultView {
    /// Messages put into the queue. Who got theirs already is not among them.
    pub queued: i32,
    /// Rows that cannot be written to.
    pub skipped: i32,
    /// Why, of the first.
    pub skipped_reason: Option<String>,
}

/// Runs a cron automation now, whether it is switched on or not. The schedule stays; so does the rule that nobody is
/// written to twice (a day, by `repeat`).
#[utoipa::path(post, path = "/v1/automations/{id}/run", tag = "automations", params(("id" = Uuid, Path)),
    responses((status = 200, body = RunResultView, description = "what the run did"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such automation"),
        (status = 422, body = ErrorBody, description = "it is an event automation, or its audience cannot be read")))]
pub async fn run(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<RunResultView>, ApiError> {
    caller.require(&MANAGERS)?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    // Locked: a tick at this moment waits its turn on another node.
    let rule = automations::find_for_update(&mut tx, org, id)
        .await?
        .ok_or_else(not_found)?;
    if rule.fields.kind != "cron" {
        return Err(ApiError::refused(
            "event_automation",
            "an event automation runs when a row comes",
        ));
    }
    let now = Utc::now();
    let at = RunAt {
        cause: "manual",
        tick: now,
        now,
    };
    let outcome = automations::run(&mut tx, org, id, at).await?;
    // A failure is part of the history, too.
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    let done = outcome.map_err(|reason| ApiError::refused("automation_failed", reason))?;
    Ok(axum::Json(RunResultView {
        queued: done.queued,
        skipped: done.skipped,
        skipped_reason: done.skipped_reason,
    }))
}

/// Whom a run now would write to.
#[derive(Debug, Serialize, ToSchema)]
pub struct AutomationPreviewView {
    /// The whole audience; for an event: the rows that match its filters now.
    pub total: i64,
    /// The first 20 of it.
    pub data: Vec<PreviewRowView>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewRowView {
    pub related_entity_id: Option<String>,
    pub recipient_id: Option<Uuid>,
    pub recipient_phone: Option<String>,
    pub recipient_email: Option<String>,
    #[schema(value_type = Object)]
    pub variables: Value,
    /// What they would read.
    pub text: Option<String>,
    /// By e-mail, if the template has one.
    pub subject: Option<String>,
    /// Why they cannot be written to.
    pub error: Option<String>,
    /// They got theirs; the rule does not repeat yet.
    pub already_sent: bool,
}

/// Whom a run now would write to, and what. Nothing is sent.
#[utoipa::path(post, path = "/v1/automations/{id}/preview", tag = "automations", params(("id" = Uuid, Path)),
    responses((status = 200, body = AutomationPreviewView, description = "the first of the audience"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such automation"),
        (status = 422, body = ErrorBody, description = "its audience cannot be read")))]
pub async fn preview(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<AutomationPreviewView>, ApiError> {
    caller.require(&MANAGERS)?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rule = automations::find(&mut tx, org, id)
        .await?
        .ok_or_else(not_found)?;
    let template = templates::find(&mut tx, org, rule.fields.template_id).await?;
    let region = region_of(&mut tx, org).await?;
    let rows = automations::preview(&mut tx, org, id, Utc::now(), PREVIEWED).await?;
    tx.commit().await?;
    let rows = rows.map_err(|reason| ApiError::refused("automation_failed", reason))?;
    let by_email = rule.fields.notification_type == "email";
    Ok(axum::Json(AutomationPreviewView {
        total: rows.first().map_or(0, |row| row.total),
        data: rows
            .into_iter()
            .map(|row| view_of(row, template.as_ref(), region, by_email))
            .collect(),
    }))
}

async fn region_of(tx: &mut TenantTx, org: OrgId) -> Result<Option<Region>, ApiError> {
    let organization = organizations::find(tx, org).await?;
    Ok(organization
        .and_then(|organization| organization.region)
        .and_then(|region| parse_region(&region).ok()))
}

fn view_of(
    row: PreviewRow,
    template: Option<&Template>,
    region: Option<Region>,
    by_email: bool,
) -> PreviewRowView {
    let variables = row
        .message_data
        .unwrap_or_else(|| Value::Object(Map::new()));
    let mut error = row.problem;
    if let (None, false, Some(phone)) = (&error, by_email, &row.recipient_phone)
        && let Err(wrong) = E164::parse(phone, region)
    {
        error = Some(format!("recipient_phone: {wrong}"));
    }
    let rendered = match &error {
        Some(_) => None,
        None => match render(template, &variables) {
            Ok(rendered) => Some(rendered),
            Err(wrong) => {
                error = Some(wrong);
                None
            }
        },
    };
    let (text, subject) = rendered.map_or((None, None), |rendered| {
        (Some(rendered.text), rendered.subject.filter(|_| by_email))
    });
    PreviewRowView {
        related_entity_id: row.entity,
        recipient_id: row.recipient_id,
        recipient_phone: row.recipient_phone,
        recipient_email: row.recipient_email,
        variables,
        text,
        subject,
        error,
        already_sent: row.already_sent,
    }
}

fn render(template: Option<&Template>, variables: &Value) -> Result<RenderedTemplate, String> {
    let fields = match template {
        Some(template) if template.fields.is_active => &template.fields,
        Some(_) => return Err("template_id: is switched off".to_owned()),
        None => return Err("template_id: there is no such template".to_owned()),
    };
    let texts = TemplateTexts {
        text: &fields.message_template,
        subject: fields.email_subject.as_deref(),
        html: fields.email_html.as_deref(),
    };
    let none = Map::new();
    texts
        .render(variables.as_object().unwrap_or(&none))
        .map_err(|error| error.to_string())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// One run.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunView {
    pub id: Uuid,
    /// `tick`, `manual`, `event`.
    pub cause: String,
    /// For a tick: when it was due.
    pub tick: Option<DateTime<Utc>>,
    pub started_at: DateTime<Utc>,
    /// Messages put into the queue.
    pub count: i32,
    /// Rows that could not be written to.
    pub skipped: i32,
    /// Why, of the first.
    pub skipped_reason: Option<String>,
    /// Why the whole run failed.
    pub error: Option<String>,
}

impl From<Run> for RunView {
    fn from(run: Run) -> Self {
        Self {
            id: run.id,
            cause: run.cause,
            tick: run.tick,
            started_at: run.started_at,
            count: run.queued_count,
            skipped: run.skipped_count,
            skipped_reason: run.skipped_reason,
            error: run.error,
        }
    }
}

/// What an automation did, newest first; the last 90 days of it.
#[utoipa::path(get, path = "/v1/automations/{id}/runs", tag = "automations", params(("id" = Uuid, Path), RunsQuery),
    responses((status = 200, body = Page<RunView>, description = "one page of runs"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed"),
        (status = 404, body = ErrorBody, description = "there is no such automation")))]
pub async fn runs(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    QueryParams(query): QueryParams<RunsQuery>,
) -> Result<axum::Json<Page<RunView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let before = before.map(|(_, id)| id);
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    automations::find(&mut tx, org, id)
        .await?
        .ok_or_else(not_found)?;
    let rows = automations::list_runs(&mut tx, org, id, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |run| cursor::encode(None, run.id),
        Into::into,
    )))
}
