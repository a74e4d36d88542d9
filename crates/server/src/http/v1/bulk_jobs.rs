//! `/v1/bulk-jobs`: one message to many people.

mod export;
mod input;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::bulk::{self, BulkJob, NewBulkJob, NewRecipient, Recipient, StateCount, Step};
use wasel_db::idempotency;
use wasel_domain::{Category, MessageId, MessageStatus, OutboundContent};

use self::input::{CreateBulkJobRequest, FileFields, Input};
use super::messages::{idempotency_key, visible_channel};
use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::bulk::{Renderer, Row, Source};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{PathParam, QueryParams};
use crate::notify::{self, Medium};
use crate::registry::Channel;
use crate::state::AppState;

/// The body of a request with a list in it: 100,000 rows with a few variables each.
pub const MAX_BODY: usize = 32 * 1024 * 1024;
/// The rate of a job is what it sent in this time, in seconds.
const RATE_SECONDS: f64 = 30.0;
const DEFAULT_PRIORITY: i16 = 7;
const STATUSES: [&str; 6] = [
    "draft",
    "running",
    "paused",
    "completed",
    "cancelled",
    "failed",
];
/// Rows of a preview.
const PREVIEW: i64 = 10;
const MAX_PREVIEW: i64 = 100;
/// Errors a preview tells of.
const MAX_ERRORS: usize = 100;

pub fn router() -> OpenApiRouter<AppState> {
    let with_lists = OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(preview))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    OpenApiRouter::new()
        .merge(with_lists)
        .routes(routes!(get))
        .routes(routes!(recipients))
        .routes(routes!(preview_of))
        .routes(routes!(start))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(export::export))
}

/// A bulk job as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkJobView {
    pub id: Uuid,
    pub name: String,
    pub channel_id: Uuid,
    pub template_id: Option<Uuid>,
    pub message: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub content: Option<Value>,
    /// The variables that are the same for everybody.
    #[schema(value_type = Object)]
    pub variables: Value,
    pub category: String,
    pub priority: i16,
    /// `draft`, `running` (also while it waits for `scheduled_for`), `paused`, `completed`, `cancelled`, or `failed`: nobody
    /// on the list could be written to.
    pub status: String,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub paused_reason: Option<String>,
    /// The list as it was read.
    pub counts: Counts,
    pub progress: Progress,
    /// Messages sent per second, of the last half minute.
    pub rate: f64,
    /// While it runs.
    pub estimated_finish_at: Option<DateTime<Utc>>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// When its first message was queued.
    pub started_at: Option<DateTime<Utc>>,
    /// When nothing was left to send; deliveries may follow.
    pub finished_at: Option<DateTime<Utc>>,
}

/// What a list holds.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Counts {
    pub total: i32,
    pub valid: i32,
    /// Rows that will not do; each says why.
    pub invalid: i32,
    /// Rows whose address an earlier row has.
    pub duplicates: i32,
}

/// Where the recipients are now. Each is counted once; together they are `total`.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Progress {
    pub total: i64,
    /// Their message has not been made yet.
    pub pending: i64,
    pub queued: i64,
    pub sending: i64,
    pub sent: i64,
    pub delivered: i64,
    pub read: i64,
    pub failed: i64,
    /// The provider's answer was lost: they may have it, and it is not sent again.
    pub unknown: i64,
    pub cancelled: i64,
    /// They get nothing: their row will not do, they opted out, the job was cancelled …
    pub skipped: i64,
}

impl Progress {
    fn of(job: Uuid, counts: &[StateCount]) -> Self {
        let mut progress = Self::default();
        for count in counts.iter().filter(|count| count.job_id == job) {
            let place = match count.state.as_str() {
                "pending" => &mut progress.pending,
                "sending" => &mut progress.sending,
                "sent" => &mut progress.sent,
                "delivered" => &mut progress.delivered,
                "read" => &mut progress.read,
                "failed" => &mut progress.failed,
                "unknown" => &mut progress.unknown,
                "cancelled" => &mut progress.cancelled,
                "skipped" => &mut progress.skipped,
                _ => &mut progress.queued,
            };
            *place += count.recipients;
            progress.total += count.recipients;
        }
        progress
    }
}

fn view(state: &AppState, job: BulkJob, counts: &[StateCount]) -> BulkJobView {
    let progress = Progress::of(job.id, counts);
    let recent: i64 = counts
        .iter()
        .filter(|count| count.job_id == job.id)
        .map(|count| count.recent)
        .sum();
    let now = Utc::now();
    let since_start = job.started_at.map_or(0.0, |at| (now - at).as_seconds_f64());
    let rate = recent as f64 / since_start.clamp(1.0, RATE_SECONDS);
    let left = progress.pending + progress.queued;
    let estimated_finish_at = (job.status == "running" && job.finished_at.is_none()).then(|| {
        let channel = state
            .registry
            .of_org(job.org_id.into(), job.channel_id.into());
        let expected = if rate > 0.0 {
            rate
        } else {
            channel.map_or(1.0, |channel| channel.messages_per_second())
        };
        let seconds = (left as f64 / expected.max(0.001)).ceil();
        let wait = TimeDelta::try_seconds(seconds as i64).unwrap_or_default();
        job.scheduled_for.unwrap_or(now).max(now) + wait
    });
    BulkJobView {
        id: job.id,
        name: job.name,
        channel_id: job.channel_id,
        template_id: job.template_id,
        message: job.message,
        content: job.content,
        variables: job.variables,
        category: job.category,
        priority: job.priority,
        status: job.status,
        scheduled_for: job.scheduled_for,
        paused_reason: job.paused_reason,
        counts: Counts {
            total: job.total,
            valid: job.valid,
            invalid: job.invalid,
            duplicates: job.duplicates,
        },
        progress,
        rate: (rate * 10.0).round() / 10.0,
        estimated_finish_at,
        created_by: job.created_by,
        created_at: job.created_at,
        updated_at: job.updated_at,
        started_at: job.started_at,
        finished_at: job.finished_at,
    }
}

async fn viewed(
    state: &AppState,
    tx: &mut wasel_db::TenantTx,
    caller: &Caller,
    job: BulkJob,
) -> Result<BulkJobView, ApiError> {
    let counts = bulk::count_states(tx, caller.org_id, &[job.id], RATE_SECONDS).await?;
    Ok(view(state, job, &counts))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `draft`, `running`, `paused`, `completed`, `cancelled`, `failed`.
    status: Option<String>,
    /// Only of this channel.
    channel_id: Option<Uuid>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// Bulk jobs, newest first, each with how far it has come.
#[utoipa::path(get, path = "/v1/bulk-jobs", tag = "bulk", params(ListQuery),
    responses((status = 200, body = Page<BulkJobView>, description = "one page of jobs"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<BulkJobView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    if let Some(status) = &query.status
        && !STATUSES.contains(&status.as_str())
    {
        let message = format!("must be one of {}", STATUSES.join(", "));
        return Err(ApiError::invalid("status", message));
    }
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let before = before.map(|(_, id)| id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let org = caller.org_id;
    let rows = bulk::list(
        &mut tx,
        org,
        query.status.as_deref(),
        query.channel_id,
        before,
        limit + 1,
    )
    .await?;
    let ids: Vec<Uuid> = rows.iter().map(|job| job.id).collect();
    let counts = bulk::count_states(&mut tx, org, &ids, RATE_SECONDS).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |job| cursor::encode(None, job.id),
        |job| view(&state, job, &counts),
    )))
}

/// One job with how far it has come.
#[utoipa::path(get, path = "/v1/bulk-jobs/{id}", tag = "bulk", params(("id" = Uuid, Path)),
    responses((status = 200, body = BulkJobView, description = "the job"), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<BulkJobView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let job = bulk::find(&mut tx, caller.org_id, id).await?;
    let job = job.ok_or_else(|| ApiError::not_found("bulk job"))?;
    let view = viewed(&state, &mut tx, &caller, job).await?;
    tx.commit().await?;
    Ok(axum::Json(view))
}

/// A job, checked and filled in, before it is stored.
pub(crate) struct Draft {
    pub name: String,
    pub channel: Arc<Channel>,
    pub template_id: Option<Uuid>,
    pub message: Option<String>,
    pub content: Option<Value>,
    pub variables: Map<String, Value>,
    pub category: Category,
    pub priority: i16,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub start: bool,
    pub recipients: Vec<NewRecipient>,
}

impl Draft {
    async fn of(
        state: &AppState,
        caller: &Caller,
        request: CreateBulkJobRequest,
        rows: &[Row],
    ) -> Result<Self, ApiError> {
        let channel = channel_of(state, caller, &request).await?;
        let (template_id, message, content) = (
            request.template_id.clone(),
            request.message.clone(),
            request.content.clone(),
        );
        let source =
            Source::find(state, caller, request.template_id, message, request.content).await?;
        let (template_id, content, name) = match &source {
            Source::Template(template) => (Some(template.id), None, template.fields.name.clone()),
            Source::ContentSid(_) => {
                let content = json!({ "type": "template", "content_sid": template_id });
                (None, Some(content), "Bulk job".to_owned())
            }
            Source::Message(_) | Source::Plain(_) | Source::Content(_) => {
                (None, content, "Bulk job".to_owned())
            }
        };
        let variables = request.variables.unwrap_or_default();
        let renderer = Renderer::new(
            state,
            caller,
            channel.clone(),
            Some(source),
            variables.clone(),
        )?;
        let recipients = renderer.render_all(rows).await?;
        let given = request.name.as_deref().map(str::trim);
        Ok(Self {
            name: given
                .filter(|given| !given.is_empty())
                .map_or(name, str::to_owned),
            channel,
            template_id,
            message: request.message,
            content,
            variables,
            category: request.category.unwrap_or(Category::Marketing),
            priority: request.priority.unwrap_or(DEFAULT_PRIORITY),
            scheduled_for: request.scheduled_for,
            start: request.start,
            recipients,
        })
    }

    /// Stores it. With a key, the same request makes one job within 24 hours: the second part says whether it is a repeat.
    pub async fn store(
        &self,
        state: &AppState,
        caller: &Caller,
        key: Option<(String, Vec<u8>)>,
    ) -> Result<(BulkJobView, bool), ApiError> {
        let org = caller.org_id;
        let id = Uuid::now_v7();
        let mut tx = state.db.tenant(&caller.claims()).await?;
        if let Some((key, hash)) = key {
            let who = caller
                .user_id
                .map_or_else(|| "service".to_owned(), |user| user.to_string());
            let scope = format!("bulk:{who}");
            match idempotency::insert(&mut tx, org, &scope, &key, &hash, MessageId(id)).await? {
                idempotency::Claim::New => {}
                idempotency::Claim::Repeat(first) => {
                    let job = bulk::find(&mut tx, org, first.0).await?;
                    let job = job.ok_or_else(|| ApiError::not_found("bulk job"))?;
                    return Ok((viewed(state, &mut tx, caller, job).await?, true));
                }
                idempotency::Claim::Conflict => {
                    return Err(ApiError::refused(
                        "idempotency_key_reused",
                        "this key was used for a different request",
                    )
                    .at("Idempotency-Key"));
                }
            }
        }
        let new = NewBulkJob {
            org_id: org,
            id,
            name: &self.name,
            channel_id: self.channel.id,
            template_id: self.template_id,
            message: self.message.as_deref(),
            content: self.content.as_ref(),
            variables: &Value::Object(self.variables.clone()),
            category: self.category,
            priority: self.priority,
            running: self.start,
            scheduled_for: self.scheduled_for,
            created_by: caller.user_id,
        };
        let job = bulk::insert(&mut tx, &new, &self.recipients).await?;
        let view = viewed(state, &mut tx, caller, job).await?;
        tx.commit().await?;
        wake(state);
        Ok((view, false))
    }
}

fn wake(state: &AppState) {
    state.signals.bulk.notify_one();
    state.signals.outbox.notify_one();
    state.signals.commits.changes.notify_one();
}

async fn channel_of(
    state: &AppState,
    caller: &Caller,
    request: &CreateBulkJobRequest,
) -> Result<Arc<Channel>, ApiError> {
    let id = match (request.channel_id, &request.medium) {
        (Some(id), None) => id,
        (None, Some(word)) => {
            let medium = Medium::parse(word)
                .ok_or_else(|| ApiError::invalid("medium", "must be sms, whatsapp or email"))?;
            notify::step(state, caller, medium)?.channel_id
        }
        (Some(_), Some(_)) => return Err(ApiError::invalid("medium", "goes without channel_id")),
        (None, None) => {
            return Err(ApiError::invalid(
                "channel_id",
                "is missing (or give medium)",
            ));
        }
    };
    Ok(visible_channel(state, caller, id.into()).await?.0)
}

/// Makes a job: from JSON, from a CSV file as the body (`text/csv`, the rest in the query), or from a form with a `file`.
///
/// Every text is filled in now and stays so, whatever becomes of the template. A row that will not do is kept as `skipped`
/// with the reason; the others go on. With an `Idempotency-Key` header the same request makes one job within 24 hours; the
/// repeat is answered with 200.
#[utoipa::path(post, path = "/v1/bulk-jobs", tag = "bulk",
    params(FileFields, ("Idempotency-Key" = Option<String>, Header, description = "Any text up to 255 bytes")),
    request_body(content((CreateBulkJobRequest = "application/json"), (String = "text/csv"), (String = "multipart/form-data"))),
    responses((status = 201, body = BulkJobView, description = "the job, with the counts of its list"),
        (status = 200, body = BulkJobView, description = "a repeat"),
        (status = 400, body = ErrorBody, description = "something other than a row is malformed"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 404, body = ErrorBody, description = "there is no such channel or template"),
        (status = 413, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    input: Input,
) -> Result<(StatusCode, axum::Json<BulkJobView>), ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let key = idempotency_key(&headers)?.map(|key| (key, hash_of(&input)));
    let draft = Draft::of(&state, &caller, input.request, &input.rows).await?;
    let (view, repeated) = draft.store(&state, &caller, key).await?;
    let status = if repeated {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, axum::Json(view)))
}

/// What must be equal for two requests with one key to be the same request.
fn hash_of(input: &Input) -> Vec<u8> {
    let rows: Vec<Value> = input
        .rows
        .iter()
        .map(|row| json!([row.to, row.name, row.variables, row.problem]))
        .collect();
    let canonical = json!([input.request, rows]);
    digest::digest(&digest::SHA256, canonical.to_string().as_bytes())
        .as_ref()
        .to_vec()
}

/// What a job would send.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkPreview {
    pub counts: Counts,
    /// The first rows that will do.
    pub data: Vec<PreviewRow>,
    /// The first hundred rows that will not.
    pub errors: Vec<RowError>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewRow {
    /// The place in the list, from 1.
    pub position: i32,
    pub to: String,
    pub name: Option<String>,
    /// As a list of messages would show it.
    pub text: Option<String>,
    #[schema(value_type = Object)]
    pub content: Value,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RowError {
    /// The place in the list, from 1.
    pub position: i32,
    pub to: String,
    /// `duplicate`, `invalid_recipient`, `template_variables` …
    pub code: String,
    pub message: String,
}

fn text_of(content: &Value) -> Option<String> {
    let content: OutboundContent = serde_json::from_value(content.clone()).ok()?;
    content.text().map(str::to_owned)
}

fn preview_limit(limit: Option<i64>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(PREVIEW);
    if (1..=MAX_PREVIEW).contains(&limit) {
        return Ok(limit as usize);
    }
    let message = format!("must be from 1 to {MAX_PREVIEW}");
    Err(ApiError::invalid("limit", message))
}

/// Reads a whole list and shows the first texts and what is wrong with which row. Nothing is kept or sent.
#[utoipa::path(post, path = "/v1/bulk-jobs/preview", tag = "bulk", params(FileFields),
    request_body(content((CreateBulkJobRequest = "application/json"), (String = "text/csv"), (String = "multipart/form-data"))),
    responses((status = 200, body = BulkPreview, description = "what would be sent"),
        (status = 400, body = ErrorBody, description = "something other than a row is malformed"),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody)))]
async fn preview(
    State(state): State<AppState>,
    caller: Caller,
    input: Input,
) -> Result<axum::Json<BulkPreview>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin, Role::Agent])?;
    let limit = preview_limit(input.request.limit)?;
    let draft = Draft::of(&state, &caller, input.request, &input.rows).await?;
    let (mut data, mut errors) = (Vec::new(), Vec::new());
    let mut counts = Counts {
        total: 0,
        valid: 0,
        invalid: 0,
        duplicates: 0,
    };
    for recipient in draft.recipients {
        counts.total += 1;
        match recipient.outcome {
            Ok(content) => {
                counts.valid += 1;
                if data.len() < limit {
                    data.push(PreviewRow {
                        position: counts.total,
                        to: recipient.address,
                        name: recipient.name,
                        text: text_of(&content),
                        content,
                    });
                }
            }
            Err(refusal) => {
                if refusal.code == bulk::Refusal::DUPLICATE {
                    counts.duplicates += 1;
                } else {
                    counts.invalid += 1;
                }
                if errors.len() < MAX_ERRORS {
                    errors.push(RowError {
                        position: counts.total,
                        to: recipient.address,
                        code: refusal.code,
                        message: refusal.words,
                    });
                }
            }
        }
    }
    Ok(axum::Json(BulkPreview {
        counts,
        data,
        errors,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PreviewQuery {
    /// 1 to 100; 10 if left out.
    limit: Option<i64>,
}

/// The first texts of a stored job, as they will go out, and the first rows that get nothing.
#[utoipa::path(get, path = "/v1/bulk-jobs/{id}/preview", tag = "bulk", params(("id" = Uuid, Path), PreviewQuery),
    responses((status = 200, body = BulkPreview, description = "what is sent"), (status = 404, body = ErrorBody)))]
async fn preview_of(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    QueryParams(query): QueryParams<PreviewQuery>,
) -> Result<axum::Json<BulkPreview>, ApiError> {
    let limit = preview_limit(query.limit)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let org = caller.org_id;
    let job = bulk::find(&mut tx, org, id).await?;
    let job = job.ok_or_else(|| ApiError::not_found("bulk job"))?;
    let data = bulk::list_contents(&mut tx, org, id, limit as i64).await?;
    let skipped =
        bulk::list_recipients(&mut tx, org, id, Some("skipped"), 0, MAX_ERRORS as i64).await?;
    tx.commit().await?;
    Ok(axum::Json(BulkPreview {
        counts: Counts {
            total: job.total,
            valid: job.valid,
            invalid: job.invalid,
            duplicates: job.duplicates,
        },
        data: data
            .into_iter()
            .map(|row| PreviewRow {
                position: row.position,
                to: row.address,
                name: row.name,
                text: text_of(&row.content),
                content: row.content,
            })
            .collect(),
        errors: skipped
            .into_iter()
            .map(|row| RowError {
                position: row.position,
                to: row.address,
                code: row.error_code.unwrap_or_default(),
                message: row.error.unwrap_or_default(),
            })
            .collect(),
    }))
}

/// A recipient of a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkRecipientView {
    /// The place in the list, from 1.
    pub position: i32,
    pub to: String,
    pub name: Option<String>,
    #[schema(value_type = Object)]
    pub variables: Value,
    /// What they get.
    pub text: Option<String>,
    /// `pending`, `skipped`, or the status of their message: `queued`, `sending`, `sent`, `delivered`, `read`, `failed`,
    /// `unknown`, `cancelled`.
    pub state: String,
    pub message_id: Option<Uuid>,
    /// Why they got nothing: `duplicate`, `invalid_recipient`, `opted_out` …, or the provider's code.
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub queued_at: Option<DateTime<Utc>>,
    pub sent_at: Option<DateTime<Utc>>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
    pub failed_at: Option<DateTime<Utc>>,
}

impl From<Recipient> for BulkRecipientView {
    fn from(recipient: Recipient) -> Self {
        Self {
            position: recipient.position,
            to: recipient.address,
            name: recipient.name,
            variables: recipient.variables,
            text: recipient.content.as_ref().and_then(text_of),
            state: recipient.state,
            message_id: recipient.message_id,
            error_code: recipient.error_code,
            error: recipient.error,
            queued_at: recipient.queued_at,
            sent_at: recipient.sent_at,
            delivered_at: recipient.delivered_at,
            read_at: recipient.read_at,
            failed_at: recipient.failed_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RecipientsQuery {
    /// Only in this state: `pending`, `skipped`, `queued`, `sending`, `sent`, `delivered`, `read`, `failed`, `unknown`,
    /// `cancelled`.
    state: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// The recipients of a job in the order of the list, each with the state and, where something went wrong, the reason.
#[utoipa::path(get, path = "/v1/bulk-jobs/{id}/recipients", tag = "bulk", params(("id" = Uuid, Path), RecipientsQuery),
    responses((status = 200, body = Page<BulkRecipientView>, description = "one page of recipients"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed"), (status = 404, body = ErrorBody)))]
async fn recipients(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    QueryParams(query): QueryParams<RecipientsQuery>,
) -> Result<axum::Json<Page<BulkRecipientView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    if let Some(word) = &query.state {
        let known = word == "skipped"
            || MessageStatus::ALL
                .iter()
                .any(|status| status.as_str() == word);
        if !known {
            let message = "must be pending, skipped, or the status of a message";
            return Err(ApiError::invalid("state", message));
        }
    }
    let after = match query.cursor.as_deref() {
        None => 0,
        Some(cursor) => cursor
            .parse()
            .map_err(|_| ApiError::invalid("cursor", "is not one that a list returned"))?,
    };
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let org = caller.org_id;
    bulk::find(&mut tx, org, id)
        .await?
        .ok_or_else(|| ApiError::not_found("bulk job"))?;
    let rows =
        bulk::list_recipients(&mut tx, org, id, query.state.as_deref(), after, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |row| row.position.to_string(),
        Into::into,
    )))
}

/// Takes a step, or says why it cannot be taken.
async fn take(
    state: &AppState,
    caller: &Caller,
    id: Uuid,
    step: Step,
) -> Result<axum::Json<BulkJobView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let reason = (step == Step::Pause).then_some("by hand");
    let Some(mut job) = bulk::advance(&mut tx, org, id, step, reason).await? else {
        let job = bulk::find(&mut tx, org, id).await?;
        let job = job.ok_or_else(|| ApiError::not_found("bulk job"))?;
        let message = format!(
            "a job that is {} cannot take the step {}",
            job.status,
            step.as_str()
        );
        return Err(ApiError::new(StatusCode::CONFLICT, "wrong_state", message));
    };
    // By itself, so that from here on nothing more is sent.
    tx.commit().await?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if step == Step::Cancel {
        // The feeder would do it, too; this way the answer shows it.
        bulk::sweep_cancelled(&mut tx, org, id).await?;
        job = bulk::find(&mut tx, org, id).await?.unwrap_or(job);
    }
    let view = viewed(state, &mut tx, caller, job).await?;
    tx.commit().await?;
    wake(state);
    Ok(axum::Json(view))
}

/// Starts a draft. Where it has a `scheduled_for` in the future, nothing is sent before.
#[utoipa::path(post, path = "/v1/bulk-jobs/{id}/start", tag = "bulk", params(("id" = Uuid, Path)),
    responses((status = 200, body = BulkJobView, description = "it runs"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "it is no draft")))]
async fn start(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<BulkJobView>, ApiError> {
    take(&state, &caller, id, Step::Start).await
}

/// Pauses a running job at once: only what is being handed over this moment still goes out.
#[utoipa::path(post, path = "/v1/bulk-jobs/{id}/pause", tag = "bulk", params(("id" = Uuid, Path)),
    responses((status = 200, body = BulkJobView, description = "it is paused"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "it is not running")))]
async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<BulkJobView>, ApiError> {
    take(&state, &caller, id, Step::Pause).await
}

/// Goes on with a paused job, with the same texts.
#[utoipa::path(post, path = "/v1/bulk-jobs/{id}/resume", tag = "bulk", params(("id" = Uuid, Path)),
    responses((status = 200, body = BulkJobView, description = "it runs"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "it is not paused")))]
async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<BulkJobView>, ApiError> {
    take(&state, &caller, id, Step::Resume).await
}

/// Calls a job off for good. What has not left becomes `cancelled`, whoever was not queued yet is `skipped`.
#[utoipa::path(post, path = "/v1/bulk-jobs/{id}/cancel", tag = "bulk", params(("id" = Uuid, Path)),
    responses((status = 200, body = BulkJobView, description = "it is cancelled"), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody, description = "it has ended")))]
async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<BulkJobView>, ApiError> {
    take(&state, &caller, id, Step::Cancel).await
}
