//! `/v1/reports`: messages counted, and the message log, for people and for spreadsheets.

pub(super) mod csv;
mod export;

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::{Datelike, NaiveDate};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::organizations;
use wasel_db::reports::{self, Dimension, Filter, Group, Period};
use wasel_domain::MessageStatus;

use self::csv::{Csv, number, text};
use crate::auth::Caller;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::QueryParams;
use crate::state::AppState;

/// Longest time asked for at once, in days.
const MAX_DAYS: i64 = 366;
/// Most groups in an answer.
const MAX_GROUPS: i64 = 50_000;
/// Rows of CSV in one piece of the answer.
const CHUNK: usize = 500;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(messages))
        .routes(routes!(export::export))
}

/// Which messages, shared by the reports.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RangeQuery {
    /// The first day, such as `2026-11-01`; 29 days before `to` if left out.
    from: Option<String>,
    /// The last day, which counts; today if left out. At most 366 days.
    to: Option<String>,
    /// IANA name of the time zone the days are of; the organisation's if left out.
    timezone: Option<String>,
    /// Only of this channel.
    channel_id: Option<Uuid>,
    /// `inbound` or `outbound`.
    direction: Option<String>,
    /// A message status, such as `failed`.
    status: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReportQuery {
    /// What to count by, with commas: `day`, `channel`, `status`, `error_code`, `direction`, `message_type`, `sender`,
    /// `pricing_category`. `day,channel,status` if left out.
    group_by: Option<String>,
    /// `json` (if left out) or `csv`.
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Csv,
}

/// Messages counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageReport {
    /// A row for each group that has messages: a day without any is not there.
    pub data: Vec<ReportRow>,
    pub totals: Totals,
    /// What the rows are counted by; the other fields of a row are `null`.
    pub group_by: Vec<&'static str>,
    pub from: NaiveDate,
    /// The last day, which counts.
    pub to: NaiveDate,
    /// IANA name.
    pub timezone: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Totals {
    pub messages: i64,
    pub by_status: BTreeMap<String, i64>,
}

/// The messages of one group.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReportRow {
    /// In the report's time zone.
    pub day: Option<NaiveDate>,
    pub channel_id: Option<Uuid>,
    pub channel_name: Option<String>,
    /// `whatsapp_cloud`, `twilio_sms` …
    pub channel_kind: Option<String>,
    pub status: Option<String>,
    pub error_code: Option<String>,
    /// `inbound` or `outbound`.
    pub direction: Option<String>,
    pub message_type: Option<String>,
    /// Who sent them; `null` also for what no person sent.
    pub sender_id: Option<Uuid>,
    pub sender_name: Option<String>,
    /// Meta's category: `marketing`, `utility`, `authentication`, `service` …
    pub pricing_category: Option<String>,
    pub messages: i64,
    /// SMS segments, where the provider told them.
    pub segments: Option<i64>,
    /// Messages the provider charges for; `null` where it says nothing about any of them.
    pub billable: Option<i64>,
    /// What they cost, a decimal number as text, where the provider tells; `null` also if there are several currencies.
    pub cost: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// Only if there are several currencies: each with its sum.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<CostView>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CostView {
    /// ISO 4217.
    pub currency: String,
    /// A decimal number as text.
    pub amount: String,
}

impl From<Group> for ReportRow {
    fn from(group: Group) -> Self {
        let mut costs: Vec<CostView> = group
            .costs
            .0
            .into_iter()
            .map(|cost| CostView {
                currency: cost.currency,
                amount: cost.amount,
            })
            .collect();
        let only = if costs.len() == 1 { costs.pop() } else { None };
        let (cost, currency) = only.map(|only| (only.amount, only.currency)).unzip();
        Self {
            day: group.day,
            channel_id: group.channel_id,
            channel_name: group.channel_name,
            channel_kind: group.channel_kind,
            status: group.status,
            error_code: group.error_code,
            direction: group.direction,
            message_type: group.message_type,
            sender_id: group.sender_id,
            sender_name: group.sender_name,
            pricing_category: group.pricing_category,
            messages: group.messages,
            segments: group.segments,
            billable: group.billable,
            cost,
            currency,
            costs,
        }
    }
}

/// Messages counted by day, channel, status and more.
#[utoipa::path(get, path = "/v1/reports/messages", tag = "reports", params(RangeQuery, ReportQuery),
    responses(
        (status = 200, description = "the figures; with `format=csv` as a file for spreadsheets",
            content((MessageReport = "application/json"), (String = "text/csv"))),
        (status = 400, body = ErrorBody, description = "a parameter is malformed, or the time is too long"),
        (status = 422, body = ErrorBody, description = "more than 50,000 groups")))]
async fn messages(
    State(state): State<AppState>,
    caller: Caller,
    QueryParams(range): QueryParams<RangeQuery>,
    QueryParams(query): QueryParams<ReportQuery>,
) -> Result<Response, ApiError> {
    let by = dimensions(query.group_by.as_deref())?;
    let range = Range::parse(range)?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    // The rows and their totals are of one moment.
    reports::freeze(&mut tx).await?;
    let period = range.period(&mut tx, &caller).await?;
    let (org, filter) = (caller.org_id, &range.filter);
    let groups = reports::list_groups(&mut tx, org, &period, filter, &by, MAX_GROUPS + 1).await?;
    if groups.len() as i64 > MAX_GROUPS {
        let message = format!(
            "more than {MAX_GROUPS} groups: ask for fewer days, for one channel, or count by less"
        );
        return Err(ApiError::refused("too_many_groups", message).at("group_by"));
    }
    let rows: Vec<ReportRow> = groups.into_iter().map(Into::into).collect();
    if query.format == Some(Format::Csv) {
        tx.commit().await?;
        return Ok(file("messages", &period, table(rows, by)));
    }
    let by_status = reports::list_totals(&mut tx, org, &period, filter).await?;
    tx.commit().await?;
    let totals = Totals {
        messages: by_status.iter().map(|(_, count)| count).sum(),
        by_status: by_status.into_iter().collect(),
    };
    Ok(axum::Json(MessageReport {
        data: rows,
        totals,
        group_by: by.iter().map(|dimension| dimension.as_str()).collect(),
        from: period.from_day,
        to: period.to_day,
        timezone: period.timezone,
    })
    .into_response())
}

fn dimensions(group_by: Option<&str>) -> Result<Vec<Dimension>, ApiError> {
    let Some(words) = group_by else {
        return Ok(vec![Dimension::Day, Dimension::Channel, Dimension::Status]);
    };
    let mut by = Vec::new();
    for word in words.split(',').map(str::trim) {
        let dimension = Dimension::ALL
            .into_iter()
            .find(|dimension| dimension.as_str() == word);
        let dimension = dimension.ok_or_else(|| {
            let all = Dimension::ALL.map(Dimension::as_str).join(", ");
            ApiError::invalid("group_by", format!("must be of {all}, with commas between"))
        })?;
        if !by.contains(&dimension) {
            by.push(dimension);
        }
    }
    Ok(by)
}

/// What a [`RangeQuery`] asks for, checked as far as the database is not needed.
struct Range {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
    timezone: Option<String>,
    filter: Filter,
}

impl Range {
    fn parse(query: RangeQuery) -> Result<Self, ApiError> {
        if let Some(direction) = &query.direction
            && !["inbound", "outbound"].contains(&direction.as_str())
        {
            let message = "must be inbound or outbound";
            return Err(ApiError::invalid("direction", message));
        }
        if let Some(status) = &query.status
            && !MessageStatus::ALL
                .iter()
                .any(|known| known.as_str() == status)
        {
            let all = MessageStatus::ALL.map(|status| status.as_str()).join(", ");
            return Err(ApiError::invalid("status", format!("must be one of {all}")));
        }
        let range = Self {
            from: day("from", query.from.as_deref())?,
            to: day("to", query.to.as_deref())?,
            timezone: query.timezone,
            filter: Filter {
                channel_id: query.channel_id,
                direction: query.direction,
                status: query.status,
            },
        };
        Ok(range)
    }

    async fn period(
        &self,
        tx: &mut wasel_db::TenantTx,
        caller: &Caller,
    ) -> Result<Period, ApiError> {
        let timezone = self.timezone.as_deref();
        if let Some(name) = timezone
            && (name.contains('\0') || !organizations::is_time_zone(tx, name).await?)
        {
            let message = "must be the IANA name of a time zone, such as Africa/Cairo";
            return Err(ApiError::invalid("timezone", message));
        }
        let period = reports::find_period(tx, caller.org_id, self.from, self.to, timezone).await?;
        let period = period.ok_or_else(|| ApiError::not_found("organisation"))?;
        match (period.to_day - period.from_day).num_days() + 1 {
            ..1 => Err(ApiError::invalid("from", "must not be after `to`")),
            1..=MAX_DAYS => Ok(period),
            _ => {
                let message = format!("must be at most {MAX_DAYS} days before the last day");
                Err(ApiError::invalid("from", message))
            }
        }
    }
}

fn day(field: &str, given: Option<&str>) -> Result<Option<NaiveDate>, ApiError> {
    given
        .map(|given| {
            NaiveDate::parse_from_str(given, "%Y-%m-%d")
                .ok()
                .filter(|day| (1970..=9999).contains(&day.year()))
                .ok_or_else(|| ApiError::invalid(field, "must be a day such as 2026-11-01"))
        })
        .transpose()
}

/// The figures as CSV, in pieces: the columns that are counted by, then the figures.
fn table(
    rows: Vec<ReportRow>,
    by: Vec<Dimension>,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let mut header = Csv::with_mark();
    let names = by.iter().flat_map(|dimension| match dimension {
        Dimension::Channel => vec!["channel_id", "channel_name", "channel_kind"],
        Dimension::Sender => vec!["sender_id", "sender_name"],
        other => vec![other.as_str()],
    });
    header.row(
        names
            .chain(["messages", "segments", "billable", "cost", "currency"])
            .map(|name| text(Some(name))),
    );
    let mut rows = rows.into_iter();
    let chunks = std::iter::from_fn(move || {
        let mut csv = Csv::default();
        for row in rows.by_ref().take(CHUNK) {
            csv.row(cells(&row, &by));
        }
        (!csv.is_empty()).then(|| csv.into_bytes())
    });
    stream::iter(std::iter::once(header.into_bytes()).chain(chunks).map(Ok))
}

fn cells(row: &ReportRow, by: &[Dimension]) -> Vec<String> {
    let mut cells = Vec::new();
    for dimension in by {
        match dimension {
            Dimension::Day => cells.push(number(row.day)),
            Dimension::Channel => cells.extend([
                number(row.channel_id),
                text(row.channel_name.as_deref()),
                text(row.channel_kind.as_deref()),
            ]),
            Dimension::Status => cells.push(text(row.status.as_deref())),
            Dimension::ErrorCode => cells.push(text(row.error_code.as_deref())),
            Dimension::Direction => cells.push(text(row.direction.as_deref())),
            Dimension::MessageType => cells.push(text(row.message_type.as_deref())),
            Dimension::Sender => {
                cells.extend([number(row.sender_id), text(row.sender_name.as_deref())]);
            }
            Dimension::PricingCategory => cells.push(text(row.pricing_category.as_deref())),
        }
    }
    // Several currencies share a cell, in the same order in both columns.
    let joined = |part: fn(&CostView) -> &str| {
        let parts: Vec<&str> = row.costs.iter().map(part).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    };
    let cost = row.cost.clone().or_else(|| joined(|cost| &cost.amount));
    let currency = row
        .currency
        .clone()
        .or_else(|| joined(|cost| &cost.currency));
    cells.extend([
        number(Some(row.messages)),
        number(row.segments),
        number(row.billable),
        number(cost),
        number(currency),
    ]);
    cells
}

/// An answer that a browser keeps as `name_from_to.csv`.
fn file<S, E>(name: &str, period: &Period, pieces: S) -> Response
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<axum::BoxError> + 'static,
{
    let disposition = format!(
        "attachment; filename=\"{name}_{}_{}.csv\"",
        period.from_day, period.to_day
    );
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}
