//! `/rest/v1`: tables and views in PostgREST's dialect, under row-level security as the caller.
//!
//! `wasel_rest` plans one statement for a request, `wasel_db::rest` runs it with the caller's rights; here is what is
//! HTTP: headers in and out, who the caller is, and waking what waits for the rows written.

mod caller;
mod exchange;
mod places;
mod schema;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_rest::{Payload, Plan, Query, RestError, RowRange, Schema, describe, plan};

use self::caller::Who;
use self::exchange::{Refused, exchange, request_of};
pub use self::places::Places;
pub use self::schema::SchemaCache;
use crate::state::AppState;

const TAG: &str = "rest";

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(root))
        .routes(routes!(read, insert, update, delete))
        .routes(routes!(call_by_query, call))
}

/// A refusal, in PostgREST's shape.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "for the document; wasel_rest::RestError is what is sent"
)]
struct RestErrorView {
    /// `PGRST…`, or an SQLSTATE.
    #[schema(example = "PGRST116")]
    code: String,
    message: String,
    /// A text; a list where there are several relations to choose from.
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
    hint: Option<String>,
}

/// The tables, views and functions, as an OpenAPI 2.0 document; for the service-role key.
#[utoipa::path(get, path = "/rest/v1/", tag = TAG, responses(
    (status = 200, description = "The document"),
    (status = 401, description = "Only the service-role key may read it", body = RestErrorView),
))]
async fn root(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, Refused> {
    let who = Who::of(&state, &headers).await?;
    if !who.is_service() {
        let status = if who.is_anonymous() { 401 } else { 403 };
        return Err(RestError::new(
            status,
            "42501",
            "Only the service-role key may read the description of the schema",
        )
        .into());
    }
    let schema = state.rest.get(&state.db).await?;
    Ok(Json(describe(&schema, "/rest/v1")).into_response())
}

/// Rows of a table or view: `select`, filters, `order`, `limit`, `offset` as PostgREST has them.
#[utoipa::path(get, path = "/rest/v1/{table}", tag = TAG,
    params(("table" = String, Path, description = "A table or view")),
    responses(
        (status = 200, description = "The rows; one object with `Accept: application/vnd.pgrst.object+json`"),
        (status = 206, description = "A part of the rows, with the total in Content-Range"),
        (status = 400, description = "The query cannot be read", body = RestErrorView),
        (status = 401, description = "No token that may read it", body = RestErrorView),
        (status = 404, description = "No such table", body = RestErrorView),
        (status = 406, description = "Not one row, or a form of answer that is not spoken", body = RestErrorView),
        (status = 416, description = "An offset beyond the last row", body = RestErrorView),
    ))]
async fn read(
    State(state): State<AppState>,
    table: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let table = name_of(table)?;
    let request = request_of(&state, &method, &headers)?;
    let mut query = Query::parse(query.as_deref().unwrap_or_default())?;
    if let Some(range) = row_range(&headers) {
        query = query.within(range);
    }
    let plan = |schema: &Schema| plan::read(schema, &table, &query, &request);
    exchange(&state, &headers, plan).await
}

/// New rows, or with `Prefer: resolution=merge-duplicates` rows that may be there already.
#[utoipa::path(post, path = "/rest/v1/{table}", tag = TAG,
    params(("table" = String, Path, description = "A table or view")),
    request_body(description = "An object, or a list of objects", content_type = "application/json", content = Object),
    responses(
        (status = 200, description = "An upsert that made no new row"),
        (status = 201, description = "Made; the rows with `Prefer: return=representation`"),
        (status = 400, description = "Not these values", body = RestErrorView),
        (status = 401, description = "No token that may write it", body = RestErrorView),
        (status = 403, description = "The caller's role may not, or it would be another tenant's row", body = RestErrorView),
        (status = 409, description = "It is there already, or refers to what is not there", body = RestErrorView),
    ))]
async fn insert(
    State(state): State<AppState>,
    table: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let table = name_of(table)?;
    let request = request_of(&state, &method, &headers)?;
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    let payload = Payload::parse(&text_of(&headers, body)?)?;
    let plan = |schema: &Schema| plan::insert(schema, &table, &query, &payload, &request);
    exchange(&state, &headers, plan).await
}

/// Changes the rows that the filters leave. Without a filter it is refused.
#[utoipa::path(patch, path = "/rest/v1/{table}", tag = TAG,
    params(("table" = String, Path, description = "A table or view")),
    request_body(description = "The columns to change", content_type = "application/json", content = Object),
    responses(
        (status = 200, description = "The changed rows, with `Prefer: return=representation`"),
        (status = 204, description = "Changed"),
        (status = 400, description = "Not these values, or no filter", body = RestErrorView),
        (status = 401, description = "No token that may write it", body = RestErrorView),
        (status = 403, description = "The caller's role may not", body = RestErrorView),
    ))]
async fn update(
    State(state): State<AppState>,
    table: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let table = name_of(table)?;
    let request = request_of(&state, &method, &headers)?;
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    let payload = Payload::parse(&text_of(&headers, body)?)?;
    let plan = |schema: &Schema| plan::update(schema, &table, &query, &payload, &request);
    exchange(&state, &headers, plan).await
}

/// Deletes the rows that the filters leave. Without a filter it is refused.
#[utoipa::path(delete, path = "/rest/v1/{table}", tag = TAG,
    params(("table" = String, Path, description = "A table or view")),
    responses(
        (status = 200, description = "The deleted rows, with `Prefer: return=representation`"),
        (status = 204, description = "Deleted"),
        (status = 400, description = "No filter", body = RestErrorView),
        (status = 401, description = "No token that may write it", body = RestErrorView),
        (status = 403, description = "The caller's role may not", body = RestErrorView),
    ))]
async fn delete(
    State(state): State<AppState>,
    table: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let table = name_of(table)?;
    let request = request_of(&state, &method, &headers)?;
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    let plan = |schema: &Schema| plan::delete(schema, &table, &query, &request);
    exchange(&state, &headers, plan).await
}

/// Calls a function of schema `public` with the object's keys as its arguments.
#[utoipa::path(post, path = "/rest/v1/rpc/{function}", tag = TAG,
    params(("function" = String, Path, description = "A function")),
    request_body(description = "The arguments", content_type = "application/json", content = Object),
    responses(
        (status = 200, description = "What it returns"),
        (status = 204, description = "It returns nothing"),
        (status = 401, description = "No token that may call it", body = RestErrorView),
        (status = 404, description = "No such function with these arguments", body = RestErrorView),
    ))]
async fn call(
    State(state): State<AppState>,
    function: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let arguments = Payload::arguments(&text_of(&headers, body)?)?;
    let plan = planned_call(&state, function, query, &method, &headers, Some(arguments))?;
    exchange(&state, &headers, plan).await
}

/// The same with the arguments in the query string; it may not write.
#[utoipa::path(get, path = "/rest/v1/rpc/{function}", tag = TAG,
    params(("function" = String, Path, description = "A function")),
    responses(
        (status = 200, description = "What it returns"),
        (status = 401, description = "No token that may call it", body = RestErrorView),
        (status = 404, description = "No such function with these arguments", body = RestErrorView),
        (status = 405, description = "It writes: use POST", body = RestErrorView),
    ))]
async fn call_by_query(
    State(state): State<AppState>,
    function: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let plan = planned_call(&state, function, query, &method, &headers, None)?;
    exchange(&state, &headers, plan).await
}

fn planned_call(
    state: &AppState,
    function: Result<Path<String>, PathRejection>,
    query: Option<String>,
    method: &Method,
    headers: &HeaderMap,
    arguments: Option<Payload>,
) -> Result<impl Fn(&Schema) -> Result<Plan, RestError>, RestError> {
    let function = name_of(function)?;
    let request = request_of(state, method, headers)?;
    let query = query.unwrap_or_default();
    Ok(move |schema: &Schema| plan::call(schema, &function, &query, arguments.as_ref(), &request))
}

/// For paths and methods that are not served.
pub fn refusal(status: StatusCode) -> Response {
    let error = if status == StatusCode::METHOD_NOT_ALLOWED {
        RestError::new(405, "PGRST117", "Unsupported HTTP method")
    } else {
        RestError::new(404, "PGRST125", "Invalid path specified in request URL")
    };
    Refused::from(error).into_response()
}

fn name_of(path: Result<Path<String>, PathRejection>) -> Result<String, RestError> {
    match path {
        Ok(Path(name)) => Ok(name),
        Err(_) => Err(RestError::new(
            404,
            "PGRST125",
            "Invalid path specified in request URL",
        )),
    }
}

fn row_range(headers: &HeaderMap) -> Option<RowRange> {
    let unit = headers.get("range-unit");
    if unit.is_some_and(|unit| unit != "items") {
        return None;
    }
    RowRange::parse(headers.get(http::header::RANGE)?.to_str().ok()?)
}

/// The body as text; JSON is the only kind that is taken.
fn text_of(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<String, RestError> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let name = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    let is_json = name.is_none_or(|name| {
        ["application/json", "application/vnd.pgrst.object+json"]
            .iter()
            .any(|json| name.eq_ignore_ascii_case(json))
    });
    if !is_json {
        return Err(RestError::new(
            415,
            "PGRST102",
            "Content-Type not acceptable: send application/json",
        ));
    }
    let body = body.map_err(|rejection| {
        RestError::new(
            rejection.status().as_u16(),
            "PGRST102",
            "The body is too large or did not arrive whole",
        )
    })?;
    String::from_utf8(body.into())
        .map_err(|_| RestError::new(400, "PGRST102", "Empty or invalid json"))
}
