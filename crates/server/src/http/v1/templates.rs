//! `/v1/templates`: texts with `{{variables}}`, the tenant's own and the system's.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::templates::{self, Filter, Template, TemplateFields, UNIQUE_NAME};
use wasel_domain::email::MAX_SUBJECT_CHARS;
use wasel_domain::template::{
    MAX_NAME as MAX_VARIABLE, TemplateError, TemplateTexts, is_line_break,
};

use super::conversations::present;
use super::{Page, cursor, limit_of, page_of};
use crate::auth::{Caller, Role};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam, QueryParams};
use crate::state::AppState;

/// What a template is for.
const CATEGORIES: [&str; 5] = [
    "trial_welcome",
    "subscription_expiring",
    "subscription_activated",
    "payment_reminder",
    "custom",
];
/// The longest texts, in characters: a WhatsApp text message has 4096. A subject is bounded as in a message.
const MAX_NAME: usize = 100;
const MAX_TEXT: usize = 4096;
const MAX_DESCRIPTION: usize = 1000;
const MAX_HTML: usize = 200_000;
const MAX_URL: usize = 2048;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(preview))
}

/// A template as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateView {
    pub id: Uuid,
    pub name: String,
    pub description: Option<String>,
    /// `trial_welcome`, `subscription_expiring`, `subscription_activated`, `payment_reminder`, `custom`.
    pub category: String,
    /// The text, with `{{variables}}`.
    pub message_template: String,
    /// The names of the variables in the text, the subject and the HTML.
    pub variables: Vec<String>,
    /// `image` or `document`.
    pub media_type: Option<String>,
    pub media_url: Option<String>,
    /// By e-mail: the subject line.
    pub email_subject: Option<String>,
    /// By e-mail: the HTML part beside the text.
    pub email_html: Option<String>,
    /// At Twilio: the approved content that says the same.
    pub twilio_content_sid: Option<String>,
    /// Which variable of ours fills which of that content's; `null`: they have the same names.
    pub twilio_variables: Option<BTreeMap<String, String>>,
    pub is_active: bool,
    /// Everybody's to use and nobody's to change.
    pub is_system: bool,
    /// How often it was used; system templates are not counted.
    pub usage_count: i64,
    pub last_used_at: Option<DateTime<Utc>>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl From<Template> for TemplateView {
    fn from(template: Template) -> Self {
        let fields = template.fields;
        Self {
            id: template.id,
            name: fields.name,
            description: fields.description,
            category: fields.category,
            message_template: fields.message_template,
            variables: fields.variables.0,
            media_type: fields.media_type,
            media_url: fields.media_url,
            email_subject: fields.email_subject,
            email_html: fields.email_html,
            twilio_content_sid: fields.twilio_content_sid,
            twilio_variables: fields.twilio_variables.map(|json| json.0),
            is_active: fields.is_active,
            is_system: template.is_system,
            usage_count: template.usage_count,
            last_used_at: template.last_used_at,
            created_by: template.created_by,
            created_at: template.created_at,
            updated_at: template.updated_at,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only of this category.
    category: Option<String>,
    /// In the name, the description or the text.
    q: Option<String>,
    /// Only those in use (`true`), or only those put aside (`false`).
    is_active: Option<bool>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<i64>,
}

/// The organisation's templates, newest first, then the system's.
#[utoipa::path(get, path = "/v1/templates", tag = "templates", params(ListQuery),
    responses((status = 200, body = Page<TemplateView>, description = "one page of templates"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed")))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<axum::Json<Page<TemplateView>>, ApiError> {
    let limit = limit_of(query.limit)?;
    if let Some(category) = &query.category {
        check_category(category)?;
    }
    let filter = Filter {
        category: query.category.as_deref(),
        search: query
            .q
            .as_deref()
            .map(str::trim)
            .filter(|search| !search.is_empty()),
        is_active: query.is_active,
    };
    let before = query.cursor.as_deref().map(cursor::decode).transpose()?;
    let before = before.map(|(_, id)| id);
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let rows = templates::list(&mut tx, caller.org_id, &filter, before, limit + 1).await?;
    tx.commit().await?;
    Ok(axum::Json(page_of(
        rows,
        limit,
        |template| cursor::encode(None, template.id),
        Into::into,
    )))
}

/// A template to keep.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTemplateRequest {
    /// 1 to 100 characters; no two templates of an organisation share one.
    pub name: String,
    pub description: Option<String>,
    /// `trial_welcome`, `subscription_expiring`, `subscription_activated`, `payment_reminder`; `custom` if left out.
    pub category: Option<String>,
    /// The text, 1 to 4096 characters. `{{name}}` is a variable.
    #[schema(example = "مرحباً {{customer_name}}")]
    pub message_template: String,
    /// The variables in the text, the subject and the HTML, all of them; found there if left out.
    pub variables: Option<Vec<String>>,
    /// `image` or `document`, with `media_url`.
    pub media_type: Option<String>,
    /// `https` or `http`.
    pub media_url: Option<String>,
    /// One line, up to 998 characters.
    pub email_subject: Option<String>,
    /// Values are escaped when it is filled in.
    pub email_html: Option<String>,
    /// `HX` and 32 hexadecimal digits.
    pub twilio_content_sid: Option<String>,
    /// Which variable of ours fills which of that content's; the same names if left out.
    #[schema(example = json!({"1": "customer_name"}))]
    pub twilio_variables: Option<BTreeMap<String, String>>,
    /// `true` if left out.
    pub is_active: Option<bool>,
}

/// Makes a template.
#[utoipa::path(post, path = "/v1/templates", tag = "templates", request_body = CreateTemplateRequest,
    responses((status = 201, body = TemplateView, description = "the template"),
        (status = 400, body = ErrorBody, description = "a field is missing or malformed"),
        (status = 403, body = ErrorBody, description = "only owners and admins may"),
        (status = 409, body = ErrorBody, description = "the name is taken")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateTemplateRequest>,
) -> Result<(StatusCode, axum::Json<TemplateView>), ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let given = request.variables;
    let fields = checked(
        TemplateFields {
            name: request.name,
            description: request.description,
            category: request.category.unwrap_or_else(|| "custom".to_owned()),
            message_template: request.message_template,
            variables: Vec::new().into(),
            media_type: request.media_type,
            media_url: request.media_url,
            email_subject: request.email_subject,
            email_html: request.email_html,
            twilio_content_sid: request.twilio_content_sid,
            twilio_variables: request.twilio_variables.map(Into::into),
            is_active: request.is_active.unwrap_or(true),
        },
        given,
    )?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let template = templates::insert(&mut tx, caller.org_id, &fields, caller.user_id)
        .await
        .map_err(name_taken)?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok((StatusCode::CREATED, axum::Json(template.into())))
}

/// One template.
#[utoipa::path(get, path = "/v1/templates/{id}", tag = "templates", params(("id" = Uuid, Path)),
    responses((status = 200, body = TemplateView, description = "the template"),
        (status = 404, body = ErrorBody, description = "there is no such template")))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<TemplateView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let template = templates::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    let template = template.ok_or_else(|| ApiError::not_found("template"))?;
    Ok(axum::Json(template.into()))
}

/// Fields left out stay as they are; `null` empties one. When a text changes, the variables are found anew.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTemplateRequest {
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    category: Option<String>,
    message_template: Option<String>,
    variables: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    media_type: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    media_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    email_subject: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    email_html: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    twilio_content_sid: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    twilio_variables: Option<Option<BTreeMap<String, String>>>,
    is_active: Option<bool>,
}

impl UpdateTemplateRequest {
    fn over(self, old: TemplateFields) -> TemplateFields {
        TemplateFields {
            name: self.name.unwrap_or(old.name),
            description: self.description.unwrap_or(old.description),
            category: self.category.unwrap_or(old.category),
            message_template: self.message_template.unwrap_or(old.message_template),
            variables: old.variables,
            media_type: self.media_type.unwrap_or(old.media_type),
            media_url: self.media_url.unwrap_or(old.media_url),
            email_subject: self.email_subject.unwrap_or(old.email_subject),
            email_html: self.email_html.unwrap_or(old.email_html),
            twilio_content_sid: self.twilio_content_sid.unwrap_or(old.twilio_content_sid),
            twilio_variables: match self.twilio_variables {
                Some(given) => given.map(Into::into),
                None => old.twilio_variables,
            },
            is_active: self.is_active.unwrap_or(old.is_active),
        }
    }
}

/// Changes a template of the organisation's own.
#[utoipa::path(patch, path = "/v1/templates/{id}", tag = "templates", params(("id" = Uuid, Path)),
    request_body = UpdateTemplateRequest,
    responses((status = 200, body = TemplateView, description = "the template as it is now"),
        (status = 400, body = ErrorBody, description = "a field is malformed"),
        (status = 403, body = ErrorBody, description = "only owners and admins may, and nobody a system template"),
        (status = 404, body = ErrorBody, description = "there is no such template"),
        (status = 409, body = ErrorBody, description = "the name is taken")))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(mut request): Json<UpdateTemplateRequest>,
) -> Result<axum::Json<TemplateView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let Some(old) = templates::find_for_update(&mut tx, caller.org_id, id).await? else {
        return Err(not_own(templates::find(&mut tx, caller.org_id, id).await?));
    };
    let given = request.variables.take();
    let fields = checked(request.over(old.fields), given)?;
    let template = templates::update(&mut tx, caller.org_id, id, &fields)
        .await
        .map_err(name_taken)?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    let template = template.ok_or_else(|| ApiError::not_found("template"))?;
    Ok(axum::Json(template.into()))
}

/// Removes a template of the organisation's own. Messages made from it stay.
#[utoipa::path(delete, path = "/v1/templates/{id}", tag = "templates", params(("id" = Uuid, Path)),
    responses((status = 204, description = "it is gone"),
        (status = 403, body = ErrorBody, description = "only owners and admins may, and nobody a system template"),
        (status = 404, body = ErrorBody, description = "there is no such template")))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<StatusCode, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    if !templates::delete(&mut tx, caller.org_id, id).await? {
        return Err(not_own(templates::find(&mut tx, caller.org_id, id).await?));
    }
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// A value for each variable: text, a number, `true` or `false`.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"customer_name": "منى"}))]
    pub variables: Map<String, Value>,
}

/// A template filled in.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewView {
    pub text: String,
    /// If the template has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// If the template has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
}

/// Fills a template in without sending anything.
#[utoipa::path(post, path = "/v1/templates/{id}/preview", tag = "templates", params(("id" = Uuid, Path)),
    request_body = PreviewRequest,
    responses((status = 200, body = PreviewView, description = "what would be sent"),
        (status = 400, body = ErrorBody, description = "a variable is missing, unknown or no simple value"),
        (status = 404, body = ErrorBody, description = "there is no such template")))]
async fn preview(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<PreviewRequest>,
) -> Result<axum::Json<PreviewView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let template = templates::find(&mut tx, caller.org_id, id).await?;
    tx.commit().await?;
    let fields = template
        .ok_or_else(|| ApiError::not_found("template"))?
        .fields;
    let rendered = texts(&fields).render(&request.variables)?;
    Ok(axum::Json(PreviewView {
        text: rendered.text,
        subject: rendered.subject,
        html: rendered.html,
    }))
}

fn texts(fields: &TemplateFields) -> TemplateTexts<'_> {
    TemplateTexts {
        text: &fields.message_template,
        subject: fields.email_subject.as_deref(),
        html: fields.email_html.as_deref(),
    }
}

/// The field is the first variable at fault; the message names the others too.
impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        let mut problems = error.problems.iter();
        let Some(first) = problems.next() else {
            return Self::invalid("variables", "do not fit the template");
        };
        let mut message = first.reason.to_owned();
        for problem in problems {
            message.push_str(&format!("; {problem}"));
        }
        Self::invalid(format!("variables.{}", first.variable), message)
    }
}

fn name_taken(error: wasel_db::Error) -> ApiError {
    match error {
        wasel_db::Error::Constraint { constraint, .. } if constraint == UNIQUE_NAME => {
            let message = "there is a template of this name already";
            ApiError::new(StatusCode::CONFLICT, "conflict", message).at("name")
        }
        other => other.into(),
    }
}

/// Why a template that is not the tenant's own cannot be changed.
fn not_own(found: Option<Template>) -> ApiError {
    match found {
        Some(template) if template.is_system => ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "system templates cannot be changed",
        ),
        _ => ApiError::not_found("template"),
    }
}

fn check_category(category: &str) -> Result<(), ApiError> {
    if CATEGORIES.contains(&category) {
        return Ok(());
    }
    let message = format!("must be one of {}", CATEGORIES.join(", "));
    Err(ApiError::invalid("category", message))
}

/// The fields as they are stored: with their variables, which must be those given if any are.
fn checked(
    mut fields: TemplateFields,
    given: Option<Vec<String>>,
) -> Result<TemplateFields, ApiError> {
    fields.name = fields.name.trim().to_owned();
    check_length("name", &fields.name, 1, MAX_NAME)?;
    if fields.name.contains(is_line_break) {
        return Err(ApiError::invalid("name", "must be one line"));
    }
    check_length("message_template", &fields.message_template, 1, MAX_TEXT)?;
    if fields.message_template.trim().is_empty() {
        return Err(ApiError::invalid("message_template", "is empty"));
    }
    check_category(&fields.category)?;
    let optional = [
        ("description", &fields.description, MAX_DESCRIPTION),
        ("media_url", &fields.media_url, MAX_URL),
        ("email_subject", &fields.email_subject, MAX_SUBJECT_CHARS),
        ("email_html", &fields.email_html, MAX_HTML),
    ];
    for (name, text, max) in optional {
        if let Some(text) = text {
            check_length(name, text, 1, max)?;
        }
    }
    check_media(&fields)?;
    if let Some(subject) = &fields.email_subject
        && subject.contains(is_line_break)
    {
        return Err(ApiError::invalid("email_subject", "must be one line"));
    }
    if let Some(sid) = &fields.twilio_content_sid
        && !is_content_sid(sid)
    {
        let message = "must be HX and 32 hexadecimal digits";
        return Err(ApiError::invalid("twilio_content_sid", message));
    }
    let used = texts(&fields).variables();
    if let Some(given) = given {
        let mut sorted = [given, used.clone()];
        sorted.iter_mut().for_each(|names| names.sort());
        if sorted[0] != sorted[1] {
            let message = if used.is_empty() {
                "must be empty: the template has no variables".to_owned()
            } else {
                format!("must be those in the template: {}", used.join(", "))
            };
            return Err(ApiError::invalid("variables", message));
        }
    }
    fields.variables = used.into();
    check_twilio_variables(&fields)?;
    Ok(fields)
}

/// Twilio fills what the content calls `1`, `2` … or by names: each by a variable of the text, no number left out.
fn check_twilio_variables(fields: &TemplateFields) -> Result<(), ApiError> {
    const FIELD: &str = "twilio_variables";
    let Some(map) = fields.twilio_variables.as_ref().map(|json| &json.0) else {
        return Ok(());
    };
    if fields.twilio_content_sid.is_none() {
        return Err(ApiError::invalid(FIELD, "goes with twilio_content_sid"));
    }
    for (name, variable) in map {
        let field = format!("{FIELD}.{name}");
        if name.trim().is_empty() || name.chars().count() > MAX_VARIABLE || name.contains('\0') {
            let message = format!("must have names of 1 to {MAX_VARIABLE} characters");
            return Err(ApiError::invalid(FIELD, message));
        }
        if !fields.variables.contains(variable) {
            let message = format!("`{variable}` is not a variable of the template");
            return Err(ApiError::invalid(field, message));
        }
    }
    let numbers: BTreeSet<usize> = map.keys().filter_map(|name| name.parse().ok()).collect();
    let left_out = (1..=numbers.len()).find(|number| !numbers.contains(number));
    if let Some(number) = left_out {
        return Err(ApiError::invalid(format!("{FIELD}.{number}"), "is missing"));
    }
    Ok(())
}

fn check_length(field: &str, text: &str, min: usize, max: usize) -> Result<(), ApiError> {
    if (min..=max).contains(&text.chars().count()) && !text.contains('\0') {
        return Ok(());
    }
    let message = format!("must be of {min} to {max} characters, none of them NUL");
    Err(ApiError::invalid(field, message))
}

fn check_media(fields: &TemplateFields) -> Result<(), ApiError> {
    let (kind, url) = match (&fields.media_type, &fields.media_url) {
        (None, None) => return Ok(()),
        (Some(_), None) => return Err(ApiError::invalid("media_url", "is missing")),
        (None, Some(_)) => return Err(ApiError::invalid("media_type", "is missing")),
        (Some(kind), Some(url)) => (kind, url),
    };
    if !["image", "document"].contains(&kind.as_str()) {
        return Err(ApiError::invalid("media_type", "must be image or document"));
    }
    let is_web = url::Url::parse(url)
        .is_ok_and(|url| ["https", "http"].contains(&url.scheme()) && url.has_host());
    if is_web {
        Ok(())
    } else {
        Err(ApiError::invalid(
            "media_url",
            "must be an https or http address",
        ))
    }
}

/// Twilio's id of approved content: <https://www.twilio.com/docs/content>.
fn is_content_sid(sid: &str) -> bool {
    sid.strip_prefix("HX")
        .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
