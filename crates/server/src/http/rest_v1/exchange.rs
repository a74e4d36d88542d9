//! One request: the headers it brings, its transaction, the response.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use wasel_db::rest::{self, Refusal};
use wasel_rest::{Answer, MediaType, Plan, Preferences, Request, RestError, Schema};

use super::caller::Who;
use super::places::{self, Place};
use crate::state::AppState;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A refused request; as a response it has PostgREST's shape.
#[derive(Debug)]
pub(super) struct Refused(RestError);

impl From<RestError> for Refused {
    fn from(error: RestError) -> Self {
        Self(error)
    }
}

impl From<wasel_db::Error> for Refused {
    fn from(error: wasel_db::Error) -> Self {
        if let wasel_db::Error::Unavailable(source) = &error {
            tracing::warn!(%error, "a REST request had to do without the database");
            // The client asks again after a 503; more requests do not help a pool that is full.
            return if matches!(source, sqlx::Error::PoolTimedOut) {
                RestError::new(
                    504,
                    "PGRST003",
                    "Timed out acquiring connection from connection pool.",
                )
            } else {
                RestError::new(503, "PGRST001", "The database is not available")
            }
            .into();
        }
        tracing::error!(%error, "a REST request failed inside");
        RestError::new(500, "PGRSTX00", "Something went wrong on the server").into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let error = self.0;
        let status =
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&error)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What the headers say. A schema other than `public` is refused.
pub(super) fn request_of(
    state: &AppState,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Request, RestError> {
    let reads = method == Method::GET || method == Method::HEAD;
    let profile = if reads {
        "accept-profile"
    } else {
        "content-profile"
    };
    if let Some(profile) = headers.get(profile)
        && profile != "public"
    {
        let name = profile.to_str().unwrap_or_default();
        return Err(RestError::unknown_schema(name));
    }
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let prefer: Vec<_> = headers.get_all("prefer").iter().filter_map(text).collect();
    Ok(Request {
        preferences: Preferences::parse(prefer.iter().map(String::as_str))?,
        media: MediaType::parse(headers.get(ACCEPT).and_then(text).as_deref())?,
        head: method == Method::HEAD,
        max_rows: u64::from(state.config.limits.rest_max_rows.get()),
    })
}

/// Plans the request, runs it with the caller's rights, answers.
pub(super) async fn exchange(
    state: &AppState,
    headers: &HeaderMap,
    plan: impl Fn(&Schema) -> Result<Plan, RestError>,
) -> Result<Response, Refused> {
    let who = Who::of(state, headers).await?;
    let schema = state.rest.get(&state.db).await?;
    let plan = match plan(&schema) {
        Err(error) if error.may_be_outdated() => plan(&*state.rest.newer(&state.db).await?)?,
        // As where Postgres itself says no to a stranger.
        Err(error) if error.code == "42501" && who.is_anonymous() => {
            return Err(RestError {
                status: 401,
                ..error
            }
            .into());
        }
        planned => planned?,
    };
    let Some(statement) = &plan.statement else {
        return Ok(respond(plan.judge(None)?, None));
    };
    let place = state.rest_places.enter(who.holder()).await?;
    let mut tx = state
        .db
        .actor(who.actor(), statement.read_only, who.time())
        .await?;
    let outcome = match rest::run(&mut tx, statement).await {
        Ok(outcome) => outcome,
        Err(refusal) => return Err(refused(state, &who, refusal).await),
    };
    // A refusal undoes what was written: the transaction ends without a commit.
    let answer = plan.judge(Some(outcome))?;
    if plan.rollback {
        drop(tx);
    } else {
        if let Err(refusal) = rest::commit(tx).await {
            return Err(refused(state, &who, refusal).await);
        }
        if let Some(table) = &plan.writes {
            wake(state, table);
        }
    }
    Ok(respond(answer, Some(place)))
}

async fn refused(state: &AppState, who: &Who, refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Failed(error) => error.into(),
        Refusal::Database {
            sqlstate,
            message,
            details,
            hint,
        } => {
            let error = RestError::of_database(
                &sqlstate,
                &message,
                details.as_deref(),
                hint.as_deref(),
                !who.is_anonymous(),
            );
            // Something is not as it was when the schema was read; the next request shall know.
            if error.may_be_outdated()
                && let Err(error) = state.rest.newer(&state.db).await
            {
                tracing::warn!(%error, "reading the schema again failed");
            }
            error.into()
        }
    }
}

/// After a commit: nobody waits for a poll. A function may have written anywhere.
fn wake(state: &AppState, table: &str) {
    let signals = &state.signals;
    let anywhere = table.is_empty();
    signals.commits.changes.notify_one();
    if anywhere || table == "notification_queue" {
        signals.queue.notify_one();
    }
    if anywhere || ["scheduled_messages", "whatsapp_scheduled_messages"].contains(&table) {
        signals.scheduled.notify_one();
    }
    if anywhere || ["bulk_jobs", "bulk_recipients"].contains(&table) {
        signals.bulk.notify_one();
    }
    if anywhere || table == "automations" {
        signals.automations.notify_one();
    }
    // What was held back by consent, by a channel's state or by a session may go now.
    if anywhere || ["contacts", "consents", "channels", "whatsapp_sessions"].contains(&table) {
        signals.outbox.notify_one();
    }
    if anywhere || table == "whatsapp_sessions" {
        signals.sessions.notify_one();
    }
}

/// With the place that made the answer, if it took one.
fn respond(answer: Answer, place: Option<Place>) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    if let Some(kind) = answer.content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    if let Some(range) = &answer.content_range {
        set(CONTENT_RANGE, range);
    }
    if !answer.preference_applied.is_empty() {
        set(PREFERENCE_APPLIED, &answer.preference_applied);
    }
    let Some(place) = place else {
        return (status, headers, answer.body).into_response();
    };
    // A long body comes in pieces, which do not tell.
    if !answer.body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.body.len()));
    }
    (status, headers, places::body(answer.body, place)).into_response()
}
