//! `GET /v1/changes?after=`: the change feed as JSON or, with `Accept: text/event-stream`, as server-sent events.
//! Resumable: whoever comes back with the last `seq` they saw misses nothing within the retention.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::changes::{self, Change};

use crate::auth::{self, Caller};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::QueryParams;
use crate::state::AppState;
use crate::tail::channel_of;

const MAX_LIMIT: i64 = 1000;
/// The longest a JSON request may wait for something to come.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// After so long a stream asks again what its caller may see.
const RECHECK: Duration = Duration::from_secs(20);

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One committed change of a row.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeView {
    /// Position in the feed.
    pub seq: i64,
    pub table: String,
    /// `INSERT`, `UPDATE`, `DELETE`.
    pub op: String,
    /// The row after the change.
    #[schema(value_type = Option<Object>)]
    pub record: Option<Value>,
    /// The row that went away.
    #[schema(value_type = Option<Object>)]
    pub old_record: Option<Value>,
    pub committed_at: DateTime<Utc>,
}

impl From<Change> for ChangeView {
    fn from(change: Change) -> Self {
        Self {
            seq: change.seq,
            table: change.table_name,
            op: change.op,
            record: change.record,
            old_record: change.old_record,
            committed_at: change.committed_at,
        }
    }
}

/// A stretch of the feed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangePage {
    pub data: Vec<ChangeView>,
    /// Pass it as `after` to go on; it moves even past changes that are not yours.
    pub next_cursor: i64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// The last `seq` seen; left out, the feed begins now.
    after: Option<i64>,
    /// Only these tables, separated by commas.
    tables: Option<String>,
    /// 1 to 1000; 200 if left out (JSON only).
    limit: Option<i64>,
    /// Seconds to wait for something to come, up to 60 (JSON only).
    wait: Option<u64>,
}

/// The changes of the organisation's rows, in order, none missing.
///
/// 410 when `after` is older than what is kept: read the tables anew and begin from now.
#[utoipa::path(get, path = "/v1/changes", tag = "changes", params(ListQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "as `after`, sent by EventSource on reconnect")),
    responses((status = 200, body = ChangePage), (status = 400, body = ErrorBody), (status = 410, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Response, ApiError> {
    let limit = match query.limit {
        None => 200,
        Some(limit @ 1..=MAX_LIMIT) => limit,
        Some(_) => {
            return Err(ApiError::invalid(
                "limit",
                format!("must be from 1 to {MAX_LIMIT}"),
            ));
        }
    };
    let resumed = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(|id| id.parse().ok());
    let after = resumed.or(query.after);
    if after.is_some_and(|after| after < 0) {
        return Err(ApiError::invalid("after", "must not be negative"));
    }
    check_retained(&state, after).await?;
    let mut feed = Feed {
        after: after.unwrap_or_else(|| state.tail.get()),
        resumes: after.is_some(),
        tables: query.tables.map(|tables| {
            tables
                .split(',')
                .map(|table| table.trim().to_owned())
                .collect()
        }),
        state,
        caller,
        token: headers.clone(),
        checked_at: Instant::now(),
    };
    let wants_events = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if wants_events {
        let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
        return Ok(Sse::new(events(feed))
            .keep_alive(keep_alive)
            .into_response());
    }
    let mut data = feed.next(limit).await?;
    let wait = Duration::from_secs(query.wait.unwrap_or(0)).min(MAX_WAIT);
    let deadline = tokio::time::Instant::now() + wait;
    while data.is_empty() && !wait.is_zero() {
        let mut tail = feed.state.tail.clone();
        let shutdown = feed.state.shutdown.clone();
        tokio::select! {
            () = tail.wait_beyond(feed.after) => data = feed.next(limit).await?,
            () = tokio::time::sleep_until(deadline) => break,
            () = shutdown.cancelled() => break,
        }
    }
    Ok(axum::Json(ChangePage {
        data,
        next_cursor: feed.after,
    })
    .into_response())
}

async fn check_retained(state: &AppState, after: Option<i64>) -> Result<(), ApiError> {
    let Some(after) = after.filter(|after| *after > 0) else {
        return Ok(());
    };
    let mut tx = state.db.system().await?;
    let is_kept = changes::reaches_back_to(&mut tx, after).await?;
    tx.commit().await?;
    if !is_kept {
        let message =
            "changes that far back are no longer kept: read the tables anew and go on from now";
        return Err(ApiError::new(StatusCode::GONE, "feed_expired", message).at("after"));
    }
    Ok(())
}

struct Feed {
    state: AppState,
    caller: Caller,
    after: i64,
    /// The caller gave a number.
    resumes: bool,
    tables: Option<Vec<String>>,
    /// The headers that say who calls.
    token: HeaderMap,
    checked_at: Instant,
}

impl Feed {
    /// Asks again, now and then, what the caller may see: a stream lives longer than rights may.
    async fn is_allowed(&mut self) -> bool {
        if self.checked_at.elapsed() < RECHECK {
            return true;
        }
        match auth::resolve(&self.state.auth, &self.token).await {
            Ok(caller) => {
                self.caller = caller;
                self.checked_at = Instant::now();
                true
            }
            // Nothing was learnt: it was good before.
            Err(error) => error.status.is_server_error(),
        }
    }

    /// The caller's changes after the position, which moves on. Reads only what the tail has found settled.
    async fn next(&mut self, limit: i64) -> Result<Vec<ChangeView>, ApiError> {
        let upto = self.state.tail.get();
        if upto <= self.after {
            return Ok(Vec::new());
        }
        let mut tx = self.state.db.system().await?;
        let rows = changes::list(&mut tx, self.caller.org_id, self.after, upto, limit).await?;
        tx.commit().await?;
        let full = rows.len() as i64 == limit;
        self.after = if full {
            rows.last().map_or(upto, |row| row.seq)
        } else {
            upto
        };
        Ok(rows
            .into_iter()
            .filter(|row| self.shows(row))
            .map(Into::into)
            .collect())
    }

    fn shows(&self, row: &Change) -> bool {
        let table = self
            .tables
            .as_ref()
            .is_none_or(|tables| tables.contains(&row.table_name));
        let channel = match (&self.caller.channel_limits, channel_of(row)) {
            (Some(limits), Some(channel)) => limits.contains(&channel),
            _ => true,
        };
        table && channel
    }
}

fn events(feed: Feed) -> impl Stream<Item = Result<Event, Infallible>> {
    let pending: std::collections::VecDeque<ChangeView> = std::collections::VecDeque::new();
    // An id without data: who is cut off before anything happened comes back with it.
    let begin = (!feed.resumes).then(|| Ok(Event::default().id(feed.after.to_string())));
    let changes = stream::unfold((feed, pending), |(mut feed, mut pending)| async move {
        loop {
            if let Some(change) = pending.pop_front() {
                let event = Event::default()
                    .id(change.seq.to_string())
                    .event("change")
                    .json_data(&change)
                    .ok()?;
                return Some((Ok(event), (feed, pending)));
            }
            // The token is checked at the start; a stream ends with it, and the client comes back with a new one.
            let expired = feed
                .caller
                .token_expires_at
                .is_some_and(|at| at <= Utc::now());
            if expired || feed.state.shutdown.is_cancelled() || !feed.is_allowed().await {
                return None;
            }
            match feed.next(MAX_LIMIT).await {
                Ok(changes) if changes.is_empty() => {
                    let (mut tail, shutdown) =
                        (feed.state.tail.clone(), feed.state.shutdown.clone());
                    tokio::select! {
                        () = tail.wait_beyond(feed.after) => {}
                        () = tokio::time::sleep(RECHECK) => {}
                        () = shutdown.cancelled() => {}
                    }
                }
                Ok(changes) => pending.extend(changes),
                // The client reconnects with the last id it saw.
                Err(_) => return None,
            }
        }
    });
    stream::iter(begin).chain(changes)
}
