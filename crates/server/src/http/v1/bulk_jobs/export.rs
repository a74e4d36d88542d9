//! What became of every recipient, as a file.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::{Stream, stream};
use uuid::Uuid;
use wasel_db::bulk::{self, Recipient};

use super::super::reports::csv::{Csv, number, text};
use crate::auth::Caller;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::PathParam;
use crate::state::AppState;

/// Recipients held at once.
const PAGE: i64 = 1000;

const COLUMNS: [&str; 12] = [
    "position",
    "to",
    "name",
    "state",
    "message_id",
    "queued_at",
    "sent_at",
    "delivered_at",
    "read_at",
    "failed_at",
    "error_code",
    "error",
];

/// Every recipient as CSV, in the order of the list. Times are UTC.
#[utoipa::path(get, path = "/v1/bulk-jobs/{id}/export", tag = "bulk", params(("id" = Uuid, Path)),
    responses((status = 200, content_type = "text/csv", body = String, description = "the file; it breaks off if reading on fails"),
        (status = 404, body = ErrorBody)))]
pub(super) async fn export(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<Response, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    bulk::find(&mut tx, caller.org_id, id)
        .await?
        .ok_or_else(|| ApiError::not_found("bulk job"))?;
    tx.commit().await?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"bulk_job_{id}.csv\""),
        ),
    ];
    let pages = pages(Rest {
        state,
        caller,
        id,
        after: Some(0),
    });
    Ok((headers, Body::from_stream(pages)).into_response())
}

/// What is left to write. Each page is a transaction of its own: none lives while a slow client takes what it was given.
struct Rest {
    state: AppState,
    caller: Caller,
    id: Uuid,
    /// `None`: nothing is.
    after: Option<i32>,
}

impl Rest {
    async fn next_page(&mut self) -> Result<Vec<Recipient>, wasel_db::Error> {
        let Some(after) = self.after else {
            return Ok(Vec::new());
        };
        let mut tx = self.state.db.tenant(&self.caller.claims()).await?;
        let org = self.caller.org_id;
        let rows = bulk::list_recipients(&mut tx, org, self.id, None, after, PAGE).await?;
        tx.commit().await?;
        self.after = rows.last().map(|row| row.position);
        Ok(rows)
    }
}

fn pages(rest: Rest) -> impl Stream<Item = Result<Bytes, wasel_db::Error>> {
    let mut header = Csv::with_mark();
    header.row(COLUMNS.map(|name| text(Some(name))));
    stream::try_unfold((rest, Some(header)), async |(mut rest, ready)| {
        let csv = match ready {
            Some(ready) => ready,
            None => {
                let rows = rest.next_page().await.inspect_err(|error| {
                    tracing::warn!(%error, "an export broke off");
                })?;
                let mut csv = Csv::default();
                rows.iter().for_each(|row| csv.row(cells(row)));
                csv
            }
        };
        Ok((!csv.is_empty()).then(|| (csv.into_bytes(), (rest, None))))
    })
}

fn cells(row: &Recipient) -> [String; 12] {
    let time = |at: Option<DateTime<Utc>>| {
        number(at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)))
    };
    [
        number(Some(row.position)),
        text(Some(&row.address)),
        text(row.name.as_deref()),
        text(Some(&row.state)),
        number(row.message_id),
        time(row.queued_at),
        time(row.sent_at),
        time(row.delivered_at),
        time(row.read_at),
        time(row.failed_at),
        text(row.error_code.as_deref()),
        text(row.error.as_deref()),
    ]
}
