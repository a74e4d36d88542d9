//! What a bulk job is made of, as JSON, as a file with the rest in the query, or as a form with a file.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Multipart, Request};
use axum::http::{StatusCode, header};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wasel_domain::Category;

use crate::auth::{Caller, Role};
use crate::bulk::{MAX_RECIPIENTS, Row, read_csv};
use crate::http::error::ApiError;
use crate::http::extract::{Json, QueryParams};
use crate::state::AppState;

const MAX_NAME: usize = 200;

/// A message for many people. Of `template_id`, `message` and `content` give one, of `channel_id` and `medium` one.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBulkJobRequest {
    /// For people; up to 200 characters.
    pub name: Option<String>,
    /// The channel to send from.
    pub channel_id: Option<Uuid>,
    /// `sms`, `whatsapp` or `email`: the first active channel of that kind.
    pub medium: Option<String>,
    /// A template's id, or Twilio's Content SID.
    pub template_id: Option<String>,
    /// A text, which may have `{{variables}}`.
    #[schema(example = "مرحباً {{name}}، طلبك {{order}} جاهز")]
    pub message: Option<String>,
    /// As in `POST /v1/messages`. Any text in it may have `{{variables}}`.
    #[schema(value_type = Option<Object>)]
    pub content: Option<Value>,
    /// Variables that are the same for everybody.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub variables: Option<Map<String, Value>>,
    /// Up to 100,000. A row that will not do is reported and stops nobody else.
    #[serde(default)]
    #[schema(value_type = Vec<RecipientRequest>)]
    pub recipients: Vec<Value>,
    /// `marketing` (default), `utility`, `service`, `authentication`.
    #[schema(value_type = Option<String>)]
    pub category: Option<Category>,
    /// 1 (first) to 10; 7 if left out.
    pub priority: Option<i16>,
    /// Nothing is sent before.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Start at once; else it is a draft.
    #[serde(default)]
    pub start: bool,
    /// For a preview: how many rows to show, 1 to 100; 10 if left out.
    pub limit: Option<i64>,
}

/// One recipient.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipientRequest {
    /// A phone number or an e-mail address.
    #[schema(example = "+201012345678")]
    pub to: String,
    /// For a new contact, and for a variable `name`.
    pub name: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    pub variables: Option<Map<String, Value>>,
}

/// With a file as the body, everything else is in the query; in a form, they are its fields.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FileFields {
    /// For people.
    pub name: Option<String>,
    /// The channel to send from.
    pub channel_id: Option<String>,
    /// `sms`, `whatsapp` or `email`.
    pub medium: Option<String>,
    /// A template's id, or Twilio's Content SID.
    pub template_id: Option<String>,
    /// A text, which may have `{{variables}}`.
    pub message: Option<String>,
    /// JSON.
    pub content: Option<String>,
    /// JSON: variables that are the same for everybody.
    pub variables: Option<String>,
    /// `marketing` (default), `utility`, `service`, `authentication`.
    pub category: Option<String>,
    /// 1 (first) to 10.
    pub priority: Option<String>,
    /// Nothing is sent before.
    pub scheduled_for: Option<String>,
    /// `true`: start at once.
    pub start: Option<String>,
    /// The header of the column with the numbers or addresses; `to`, `phone`, `recipient`, `رقم الهاتف` … are found.
    pub to_column: Option<String>,
    /// For a preview: how many rows to show.
    pub limit: Option<String>,
}

/// A request, whichever way it came.
pub struct Input {
    pub request: CreateBulkJobRequest,
    pub rows: Vec<Row>,
}

/// What is said to everybody, in bytes: an e-mail's HTML is the longest.
const MAX_CONTENT: usize = 256 * 1024;

impl FromRequest<AppState> for Input {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        // Large lists are read for those who may use them.
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        caller.require(&[Role::Owner, Role::Admin])?;
        let request = Request::from_parts(parts, body);
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .map(|kind| {
                kind.split(';')
                    .next()
                    .unwrap_or(kind)
                    .trim()
                    .to_ascii_lowercase()
            })
            .unwrap_or_default();
        let input = match kind.as_str() {
            "text/csv" => of_file(request, state).await?,
            "multipart/form-data" => of_form(request, state).await?,
            _ => {
                let Json(request) =
                    Json::<CreateBulkJobRequest>::from_request(request, state).await?;
                Self::of_json(request)
            }
        };
        input.checked()
    }
}

async fn of_file(request: Request, state: &AppState) -> Result<Input, ApiError> {
    let (mut parts, body) = request.into_parts();
    let QueryParams(fields) =
        QueryParams::<FileFields>::from_request_parts(&mut parts, state).await?;
    let bytes = Bytes::from_request(Request::from_parts(parts, body), state)
        .await
        .map_err(|rejection| unreadable(rejection.status()))?;
    Input::of_fields(fields, &bytes)
}

async fn of_form(request: Request, state: &AppState) -> Result<Input, ApiError> {
    let mut form = Multipart::from_request(request, state)
        .await
        .map_err(|rejection| ApiError::invalid("file", rejection.body_text()))?;
    let (mut fields, mut file) = (Map::new(), None);
    while let Some(field) = form
        .next_field()
        .await
        .map_err(|error| unreadable(error.status()))?
    {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field
            .bytes()
            .await
            .map_err(|error| unreadable(error.status()))?;
        if name == "file" {
            file = Some(bytes);
            continue;
        }
        let text = String::from_utf8(bytes.to_vec())
            .ok()
            .filter(|text| !text.contains('\0'))
            .ok_or_else(|| ApiError::invalid(&name, "must be text"))?;
        fields.insert(name, Value::String(text));
    }
    let fields: FileFields = serde_json::from_value(Value::Object(fields))
        .map_err(|error| ApiError::invalid("file", error.to_string()))?;
    let file = file.ok_or_else(|| ApiError::invalid("file", "is missing"))?;
    Input::of_fields(fields, &file)
}

fn unreadable(status: StatusCode) -> ApiError {
    let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
        "is too large"
    } else {
        "cannot be read"
    };
    ApiError::new(status, "invalid_request", message).at("file")
}

impl Input {
    fn of_json(mut request: CreateBulkJobRequest) -> Self {
        let rows = std::mem::take(&mut request.recipients)
            .into_iter()
            .take(MAX_RECIPIENTS + 1)
            .map(
                |value| match serde_json::from_value::<RecipientRequest>(value) {
                    Ok(row) => Row {
                        to: row.to,
                        name: row.name.filter(|name| !name.trim().is_empty()),
                        variables: row.variables.unwrap_or_default(),
                        ..Row::default()
                    },
                    Err(error) => Row {
                        problem: Some(error.to_string()),
                        ..Row::default()
                    },
                },
            )
            .collect();
        Self { request, rows }
    }

    fn of_fields(fields: FileFields, file: &[u8]) -> Result<Self, ApiError> {
        let rows = read_csv(file, filled(fields.to_column).as_deref())?;
        let request = CreateBulkJobRequest {
            name: fields.name,
            channel_id: parsed("channel_id", fields.channel_id)?,
            medium: filled(fields.medium),
            template_id: filled(fields.template_id),
            message: filled(fields.message),
            content: json("content", fields.content)?,
            variables: json("variables", fields.variables)?,
            recipients: Vec::new(),
            category: filled(fields.category)
                .map(|word| {
                    Category::parse(&word).ok_or_else(|| {
                        let message = "must be marketing, utility, service or authentication";
                        ApiError::invalid("category", message)
                    })
                })
                .transpose()?,
            priority: parsed("priority", fields.priority)?,
            scheduled_for: parsed("scheduled_for", fields.scheduled_for)?,
            start: parsed("start", fields.start)?.unwrap_or(false),
            limit: parsed("limit", fields.limit)?,
        };
        Ok(Self { request, rows })
    }

    fn checked(self) -> Result<Self, ApiError> {
        let request = &self.request;
        if self.rows.is_empty() {
            return Err(ApiError::invalid("recipients", "is missing"));
        }
        if self.rows.len() > MAX_RECIPIENTS {
            let message = format!("must be at most {MAX_RECIPIENTS}");
            return Err(ApiError::invalid("recipients", message));
        }
        let words = request.message.as_ref().map_or(0, String::len);
        let content = request
            .content
            .as_ref()
            .map_or(0, |content| content.to_string().len());
        for (field, length) in [("message", words), ("content", content)] {
            if length > MAX_CONTENT {
                let message = format!("must be at most {MAX_CONTENT} bytes");
                return Err(ApiError::invalid(field, message));
            }
        }
        if request
            .priority
            .is_some_and(|priority| !(1..=10).contains(&priority))
        {
            return Err(ApiError::invalid("priority", "must be from 1 to 10"));
        }
        if let Some(name) = &request.name
            && (name.chars().count() > MAX_NAME || name.contains('\0'))
        {
            let message = format!("must be at most {MAX_NAME} characters");
            return Err(ApiError::invalid("name", message));
        }
        if let Some(text) = &request.message
            && text.contains('\0')
        {
            return Err(ApiError::invalid("message", "holds a NUL character"));
        }
        Ok(self)
    }
}

/// An empty field of a form is none.
fn filled(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.trim().is_empty())
}

fn parsed<T: std::str::FromStr>(field: &str, value: Option<String>) -> Result<Option<T>, ApiError> {
    filled(value)
        .map(|value| {
            value
                .trim()
                .parse()
                .map_err(|_| ApiError::invalid(field, "is malformed"))
        })
        .transpose()
}

fn json<T: serde::de::DeserializeOwned>(
    field: &str,
    value: Option<String>,
) -> Result<Option<T>, ApiError> {
    filled(value)
        .map(|value| {
            serde_json::from_str(&value)
                .map_err(|error| ApiError::invalid(field, format!("must be JSON: {error}")))
        })
        .transpose()
}
