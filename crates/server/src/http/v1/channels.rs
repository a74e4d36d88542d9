//! `/v1/channels`: connected accounts. Secrets are never shown.

use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wasel_db::channels::{self, Channel};
use wasel_db::governor::{self, Held};
use wasel_db::{holds, session_requests};
use wasel_domain::limits::{ChannelLimits, REACH_WINDOW, WarmUp};

use super::Page;
use crate::auth::{Caller, Role};
use crate::governor::{HoldReason, reach_groups};
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::{Json, PathParam};
use crate::state::AppState;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, update))
        .routes(routes!(pace))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChannelView {
    pub id: Uuid,
    /// `whatsapp_cloud`, `twilio_sms`, `twilio_whatsapp`, `email`, `whatsapp_web` (a linked phone).
    pub kind: String,
    pub name: String,
    /// `active`, `paused` (by a person), `blocked` (by the provider; `status_reason` says why).
    pub status: String,
    pub status_reason: Option<String>,
    /// Ids and numbers, by kind.
    #[schema(value_type = Object)]
    pub settings: Value,
    /// How much it may send, as far as somebody said: see `PATCH /v1/channels/{id}`.
    #[schema(value_type = LimitsView)]
    pub limits: Value,
    /// Where the provider has to send its webhooks; `null` for a linked phone, which needs none.
    pub webhook_url: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Where a channel's provider calls us; `None` for a linked phone, where we call.
#[must_use]
pub fn webhook_url(public_url: &str, kind: &str, id: Uuid) -> Option<String> {
    let provider = match kind {
        session_requests::CHANNEL_KIND => return None,
        "email" => "email",
        twilio if twilio.starts_with("twilio") => "twilio",
        _ => "whatsapp",
    };
    Some(format!("{public_url}/api/webhooks/{provider}/{id}"))
}

fn view(state: &AppState, channel: Channel) -> ChannelView {
    ChannelView {
        webhook_url: webhook_url(&state.public_url, &channel.kind, channel.id),
        id: channel.id,
        kind: channel.kind,
        name: channel.name,
        status: channel.status,
        status_reason: channel.status_reason,
        settings: channel.settings,
        limits: channel.limits,
        created_at: channel.created_at,
        updated_at: channel.updated_at,
    }
}

/// The organisation's channels, by name; an agent sees their own.
#[utoipa::path(get, path = "/v1/channels", tag = "channels", responses((status = 200, body = Page<ChannelView>)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<axum::Json<Page<ChannelView>>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let channels = channels::list(&mut tx).await?;
    tx.commit().await?;
    let data = channels
        .into_iter()
        .map(|channel| view(&state, channel))
        .collect();
    Ok(axum::Json(Page {
        data,
        next_cursor: None,
    }))
}

/// One channel.
#[utoipa::path(get, path = "/v1/channels/{id}", tag = "channels", params(("id" = Uuid, Path)),
    responses((status = 200, body = ChannelView), (status = 404, body = ErrorBody)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<ChannelView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let channel = channels::find(&mut tx, caller.org_id, id.into()).await?;
    tx.commit().await?;
    channel
        .map(|channel| axum::Json(view(&state, channel)))
        .ok_or_else(|| ApiError::not_found("channel"))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateChannelRequest {
    /// `active` sends, and takes up what waited; `paused` keeps messages waiting.
    status: Option<ChannelStatus>,
    /// All limits anew; what is left out or `null` follows the kind of channel.
    limits: Option<LimitsView>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ChannelStatus {
    Active,
    Paused,
}

/// How much a channel may send.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LimitsView {
    /// 0.01 to 1000.
    messages_per_second: Option<f64>,
    /// People written to outside their 24-hour window in any 24 hours, as the provider allows (Meta: 250, 2000, 10000,
    /// 100000 or no limit). The numbers of one WhatsApp Business account share it: the least of theirs counts.
    daily_reach: Option<u32>,
    /// For a new number.
    warm_up: Option<WarmUpView>,
}

/// People per day that grow until the channel's own limit is less.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WarmUpView {
    /// The first day, in the organisation's time zone.
    #[schema(value_type = String, format = Date)]
    started_on: NaiveDate,
    /// People on the first day, 1 to 100000.
    first_day: u32,
    /// Each day has so many times the day before, 1 to 10.
    growth: f64,
}

impl TryFrom<LimitsView> for ChannelLimits {
    type Error = ApiError;

    fn try_from(limits: LimitsView) -> Result<Self, ApiError> {
        let within = |field: &str, value: Option<f64>, least: f64, most: f64| match value {
            Some(value) if !(least..=most).contains(&value) => Err(ApiError::invalid(
                field,
                format!("must be from {least} to {most}"),
            )),
            _ => Ok(()),
        };
        let warm_up = limits.warm_up.as_ref();
        let rate = limits.messages_per_second;
        within("limits.messages_per_second", rate, 0.01, 1000.0)?;
        let reach = limits.daily_reach.map(f64::from);
        within("limits.daily_reach", reach, 1.0, f64::from(u32::MAX))?;
        let first = warm_up.map(|w| f64::from(w.first_day));
        within("limits.warm_up.first_day", first, 1.0, 100_000.0)?;
        let growth = warm_up.map(|w| w.growth);
        within("limits.warm_up.growth", growth, 1.0, 10.0)?;
        Ok(Self {
            messages_per_second: limits.messages_per_second,
            daily_reach: limits.daily_reach,
            warm_up: limits.warm_up.map(|warm_up| WarmUp {
                started_on: warm_up.started_on,
                first_day: warm_up.first_day,
                growth: warm_up.growth,
            }),
        })
    }
}

/// Pauses a channel, lets it send again after what blocked it was mended, or says how much it may send.
#[utoipa::path(patch, path = "/v1/channels/{id}", tag = "channels", params(("id" = Uuid, Path)),
    request_body = UpdateChannelRequest,
    responses((status = 200, body = ChannelView), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
    Json(request): Json<UpdateChannelRequest>,
) -> Result<axum::Json<ChannelView>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    if request.status.is_none() && request.limits.is_none() {
        return Err(ApiError::invalid("status", "is missing (or give limits)"));
    }
    let limits = request.limits.map(ChannelLimits::try_from).transpose()?;
    // Tenants may not write the table: it also holds how webhooks find the channel. The tenant is named here.
    let mut tx = state.db.system().await?;
    if let Some(status) = request.status {
        let (status, reason) = match status {
            ChannelStatus::Active => ("active", None),
            ChannelStatus::Paused => ("paused", Some("paused by a person")),
        };
        channels::update_status(&mut tx, caller.org_id, id.into(), status, reason).await?;
    }
    if let Some(limits) = limits {
        let limits = serde_json::to_value(&limits)
            .map_err(|_| ApiError::invalid("limits", "is not JSON"))?;
        channels::update_limits(&mut tx, caller.org_id, id.into(), &limits).await?;
        // Every number of the account shares the reach: whoever waits for it is looked at again.
        let reasons = [HoldReason::DailyReach, HoldReason::WarmUp].map(HoldReason::as_str);
        governor::release_held(&mut tx, caller.org_id.0, Held::Organization, &reasons).await?;
    }
    let channel = channels::find(&mut tx, caller.org_id, id.into()).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    state.signals.outbox.notify_one();
    channel
        .map(|channel| axum::Json(view(&state, channel)))
        .ok_or_else(|| ApiError::not_found("channel"))
}

/// The backlog is counted up to here.
const MAX_BACKLOG: i64 = 10_000;

/// How fast and how far a channel sends at the moment.
#[derive(Debug, Serialize, ToSchema)]
struct PaceView {
    /// Messages a second that it may hand over.
    messages_per_second: f64,
    /// Of that rate, 1 or less: a provider that throttles the channel slows it down for a while.
    rate_factor: f32,
    /// Limits on the people written to outside their 24-hour window.
    reach: Vec<ReachView>,
    /// Set while nothing leaves because the provider refused too much.
    circuit_breaker: Option<BreakerView>,
    /// Messages in the outbox; counted up to 10,000.
    backlog: i64,
    /// There are more than were counted.
    backlog_is_more: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReachView {
    /// `daily_reach` (shared by the numbers of an account) or `warm_up`.
    limit: String,
    /// People allowed in any 24 hours.
    people: u32,
    /// People reached in the last 24 hours.
    used: i64,
    /// When the limit is a larger one.
    grows_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BreakerView {
    /// Then one message is tried.
    until: DateTime<Utc>,
    reason: Option<String>,
    /// How often in a row it opened.
    strikes: i32,
}

/// A channel's limits, how far they are used, and what waits.
#[utoipa::path(get, path = "/v1/channels/{id}/pace", tag = "channels", params(("id" = Uuid, Path)),
    responses((status = 200, body = PaceView), (status = 404, body = ErrorBody)))]
async fn pace(
    State(state): State<AppState>,
    caller: Caller,
    PathParam(id): PathParam<Uuid>,
) -> Result<axum::Json<PaceView>, ApiError> {
    let not_found = || ApiError::not_found("channel");
    let org = caller.org_id;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let channel = channels::find(&mut tx, org, id.into()).await?;
    let channel = channel.ok_or_else(not_found)?;
    let pace = holds::find_pace(&mut tx, org, id, MAX_BACKLOG + 1).await?;
    let pace = pace.ok_or_else(not_found)?;
    tx.commit().await?;
    // The account's other numbers may be out of an agent's sight, and count all the same.
    let mut tx = state.db.system().await?;
    let rules = governor::list_channels(&mut tx, &[(org.0, id)]).await?;
    let now = Utc::now();
    let mut reach = Vec::new();
    for group in rules
        .iter()
        .flat_map(|channel| reach_groups(channel, &pace.timezone, now))
    {
        reach.push(ReachView {
            limit: group.reason.as_str().to_owned(),
            people: group.limit,
            used: governor::count_reached(&mut tx, org.0, &group.group, now - REACH_WINDOW).await?,
            grows_at: group.grows_at,
        });
    }
    tx.commit().await?;
    let limits: ChannelLimits = serde_json::from_value(channel.limits).unwrap_or_default();
    let of_kind = || {
        let open = state.registry.of_org(org, id.into());
        open.map_or(0.0, |open| open.open.capabilities().messages_per_second)
    };
    Ok(axum::Json(PaceView {
        messages_per_second: limits.messages_per_second.unwrap_or_else(of_kind),
        rate_factor: pace.rate_factor.unwrap_or(1.0),
        reach,
        circuit_breaker: pace
            .hold_until
            .filter(|until| *until > now)
            .map(|until| BreakerView {
                until,
                reason: pace.hold_reason,
                strikes: pace.strikes.unwrap_or(0),
            }),
        backlog: pace.backlog.min(MAX_BACKLOG),
        backlog_is_more: pace.backlog > MAX_BACKLOG,
    }))
}
