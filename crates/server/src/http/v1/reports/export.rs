//! The message log as a file of any length, in bounded memory.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{Stream, stream};
use uuid::Uuid;
use wasel_db::reports::{self, Filter, LogRow, Period, Stretch};

use super::csv::{Csv, number, text};
use super::{Range, RangeQuery, file};
use crate::auth::Caller;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::QueryParams;
use crate::state::AppState;

/// Messages held at once.
const PAGE: usize = 1000;
/// How far one query looks, at least and at most.
const SHORTEST: TimeDelta = TimeDelta::minutes(1);
const LONGEST: TimeDelta = TimeDelta::days(32);

const COLUMNS: [&str; 21] = [
    "id",
    "created_at",
    "channel",
    "channel_kind",
    "direction",
    "message_type",
    "address",
    "status",
    "error_code",
    "error_message",
    "sent_at",
    "delivered_at",
    "read_at",
    "failed_at",
    "sender",
    "request_id",
    "billable",
    "pricing_category",
    "segments",
    "price",
    "currency",
];

/// The message log as CSV, a row for each message, oldest first. Times are of the time zone.
#[utoipa::path(get, path = "/v1/reports/messages/export", tag = "reports", params(RangeQuery),
    responses(
        (status = 200, content_type = "text/csv", body = String, description = "the file; it breaks off if reading on fails"),
        (status = 400, body = ErrorBody, description = "a parameter is malformed, or the time is too long")))]
pub(super) async fn export(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(query): QueryParams<RangeQuery>,
) -> Result<Response, ApiError> {
    let range = Range::parse(query)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let period = range.period(&mut tx, &caller).await?;
    tx.commit().await?;
    let mut log = Log::new(state, caller, &period, range.filter);
    // The first page before the answer begins, so that what fails at once is told as an error.
    let first = log.next_page().await?;
    Ok(file("message_log", &period, log.pages(first)))
}

/// The rest of a log. Each page is a transaction of its own: none lives while a slow client takes what it was given.
struct Log {
    state: AppState,
    caller: Caller,
    timezone: String,
    filter: Filter,
    after: (DateTime<Utc>, Uuid),
    ends_at: DateTime<Utc>,
    /// How far the next query looks. The index knows only stretches of the table, and a query sorts all that it finds:
    /// it should find about a page.
    reach: TimeDelta,
}

impl Log {
    fn new(state: AppState, caller: Caller, period: &Period, filter: Filter) -> Self {
        Self {
            state,
            caller,
            timezone: period.timezone.clone(),
            filter,
            after: (period.starts_at, Uuid::nil()),
            ends_at: period.ends_at,
            reach: TimeDelta::days(1),
        }
    }

    /// The next rows; none at the end.
    async fn next_page(&mut self) -> Result<Vec<LogRow>, wasel_db::Error> {
        while self.after.0 < self.ends_at {
            let until = (self.after.0 + self.reach).min(self.ends_at);
            let stretch = Stretch {
                after: self.after,
                until,
                limit: PAGE as i64,
            };
            let mut tx = self.state.db.tenant(&self.caller.claims()).await?;
            let org = self.caller.org_id;
            let rows =
                reports::list_log(&mut tx, org, &self.timezone, &self.filter, stretch).await?;
            tx.commit().await?;
            match rows.last() {
                Some(last) if rows.len() == PAGE => {
                    self.after = (last.at, last.id);
                    self.reach = (self.reach / 2).max(SHORTEST);
                }
                _ => {
                    self.after = (until, Uuid::nil());
                    self.reach = (self.reach * 2).min(LONGEST);
                }
            }
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    /// The file: header, first page, and every page after it when it is wanted.
    fn pages(self, first: Vec<LogRow>) -> impl Stream<Item = Result<Bytes, wasel_db::Error>> {
        let mut beginning = Csv::with_mark();
        beginning.row(COLUMNS.map(|name| text(Some(name))));
        first.iter().for_each(|row| beginning.row(cells(row)));
        stream::try_unfold((self, Some(beginning)), async |(mut log, ready)| {
            let csv = match ready {
                Some(ready) => ready,
                None => {
                    let rows = log.next_page().await.inspect_err(|error| {
                        tracing::warn!(%error, "an export broke off");
                    })?;
                    let mut csv = Csv::default();
                    rows.iter().for_each(|row| csv.row(cells(row)));
                    csv
                }
            };
            Ok((!csv.is_empty()).then(|| (csv.into_bytes(), (log, None))))
        })
    }
}

fn cells(row: &LogRow) -> [String; 21] {
    [
        number(Some(row.id)),
        number(Some(&row.created_at)),
        text(row.channel.as_deref()),
        text(row.channel_kind.as_deref()),
        text(Some(&row.direction)),
        text(Some(&row.message_type)),
        text(row.address.as_deref()),
        text(Some(&row.status)),
        text(row.error_code.as_deref()),
        text(row.error_message.as_deref()),
        number(row.sent_at.as_deref()),
        number(row.delivered_at.as_deref()),
        number(row.read_at.as_deref()),
        number(row.failed_at.as_deref()),
        text(row.sender.as_deref()),
        text(row.request_id.as_deref()),
        number(row.billable),
        text(row.pricing_category.as_deref()),
        number(row.segments),
        number(row.price.as_deref()),
        number(row.currency.as_deref()),
    ]
}
