//! `/v1/settings/sending`: what an organisation asks of its own messages.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wasel_db::governor::{self, Held};
use wasel_db::organizations;
use wasel_domain::Category;
use wasel_domain::limits::{
    FrequencyCap, QuietHours, SendingPolicy, TimeZoneSource, may_be_held, parse_time,
};

use crate::auth::{Caller, Role};
use crate::governor::HoldReason;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::Json;
use crate::state::AppState;

/// A cap may count this far back.
const MAX_CAP_HOURS: u32 = 720;
const MAX_CAP_MESSAGES: u32 = 1000;

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get, update))
}

/// When and how often people may be written to. What is `null` or left out does not apply.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SendingSettings {
    quiet_hours: Option<QuietHoursSettings>,
    frequency_cap: Option<FrequencyCapSettings>,
}

/// Messages wait until these hours end.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QuietHoursSettings {
    /// Hours and minutes.
    #[schema(example = "21:00")]
    from: String,
    /// The first minute at which they are over; of the next day where it is earlier than `from`.
    #[schema(example = "09:00")]
    to: String,
    /// `marketing`, `utility`; `["marketing"]` if left out. Answers and one-time passwords are never held.
    categories: Option<Vec<String>>,
    /// Whose clock counts: `recipient` (the default: the contact's `timezone`, else that of the number's country, else the
    /// organisation's) or `organization`.
    timezone_source: Option<ZoneSource>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ZoneSource {
    Recipient,
    Organization,
}

/// Nobody gets more messages than this; the next one waits.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FrequencyCapSettings {
    /// 1 to 1000, to one person, on all channels together.
    messages: u32,
    /// In any so many hours, 1 to 720.
    per_hours: u32,
    /// As for the quiet hours.
    categories: Option<Vec<String>>,
}

fn categories(field: &str, names: Option<Vec<String>>) -> Result<Vec<Category>, ApiError> {
    let Some(names) = names else {
        return Ok(vec![Category::Marketing]);
    };
    let mut categories = names
        .iter()
        .map(|name| Category::parse(name).filter(|category| may_be_held(*category)))
        .collect::<Option<Vec<_>>>()
        .filter(|categories| !categories.is_empty())
        .ok_or_else(|| ApiError::invalid(field, "may name `marketing` and `utility`"))?;
    categories.sort_unstable();
    categories.dedup();
    Ok(categories)
}

impl TryFrom<SendingSettings> for SendingPolicy {
    type Error = ApiError;

    fn try_from(settings: SendingSettings) -> Result<Self, ApiError> {
        let quiet_hours = settings.quiet_hours.map(|quiet| {
            let time = |field: &str, text: &str| {
                parse_time(text).ok_or_else(|| {
                    ApiError::invalid(field, "must be a time of the day such as 21:00")
                })
            };
            let from = time("quiet_hours.from", &quiet.from)?;
            let to = time("quiet_hours.to", &quiet.to)?;
            if from == to {
                return Err(ApiError::invalid(
                    "quiet_hours.to",
                    "must not be the same time as `from`",
                ));
            }
            Ok(QuietHours {
                from,
                to,
                categories: categories("quiet_hours.categories", quiet.categories)?,
                timezone_source: match quiet.timezone_source {
                    Some(ZoneSource::Organization) => TimeZoneSource::Organization,
                    _ => TimeZoneSource::Recipient,
                },
            })
        });
        let frequency_cap = settings.frequency_cap.map(|cap| {
            for (field, value, most) in [
                ("frequency_cap.messages", cap.messages, MAX_CAP_MESSAGES),
                ("frequency_cap.per_hours", cap.per_hours, MAX_CAP_HOURS),
            ] {
                if !(1..=most).contains(&value) {
                    return Err(ApiError::invalid(
                        field,
                        format!("must be from 1 to {most}"),
                    ));
                }
            }
            Ok(FrequencyCap {
                messages: cap.messages,
                per_hours: cap.per_hours,
                categories: categories("frequency_cap.categories", cap.categories)?,
            })
        });
        Ok(Self {
            quiet_hours: quiet_hours.transpose()?,
            frequency_cap: frequency_cap.transpose()?,
        })
    }
}

impl From<SendingPolicy> for SendingSettings {
    fn from(policy: SendingPolicy) -> Self {
        let names = |categories: Vec<Category>| {
            let names = categories
                .iter()
                .map(|category| category.as_str().to_owned());
            Some(names.collect())
        };
        Self {
            quiet_hours: policy.quiet_hours.map(|quiet| QuietHoursSettings {
                from: quiet.from.format("%H:%M").to_string(),
                to: quiet.to.format("%H:%M").to_string(),
                categories: names(quiet.categories),
                timezone_source: Some(match quiet.timezone_source {
                    TimeZoneSource::Recipient => ZoneSource::Recipient,
                    TimeZoneSource::Organization => ZoneSource::Organization,
                }),
            }),
            frequency_cap: policy.frequency_cap.map(|cap| FrequencyCapSettings {
                messages: cap.messages,
                per_hours: cap.per_hours,
                categories: names(cap.categories),
            }),
        }
    }
}

/// The organisation's rules for its own messages.
#[utoipa::path(get, path = "/v1/settings/sending", tag = "settings", responses((status = 200, body = SendingSettings)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<axum::Json<SendingSettings>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let policy = organizations::find_sending_policy(&mut tx, caller.org_id).await?;
    tx.commit().await?;
    let policy = policy.ok_or_else(|| ApiError::not_found("organisation"))?;
    // As the governor reads it: what it cannot read does not apply.
    let policy: SendingPolicy = serde_json::from_value(policy).unwrap_or_default();
    Ok(axum::Json(policy.into()))
}

/// Sets all of the rules. Messages that wait for a rule that is no more leave at once.
#[utoipa::path(put, path = "/v1/settings/sending", tag = "settings", request_body = SendingSettings,
    responses((status = 200, body = SendingSettings), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn update(
    State(state): State<AppState>,
    caller: Caller,
    Json(settings): Json<SendingSettings>,
) -> Result<axum::Json<SendingSettings>, ApiError> {
    caller.require(&[Role::Owner, Role::Admin])?;
    let policy = SendingPolicy::try_from(settings)?;
    let stored = serde_json::to_value(&policy)
        .map_err(|_| ApiError::invalid("quiet_hours", "is not JSON"))?;
    // Tenants may not write the table. The tenant is named here.
    let mut tx = state.db.system().await?;
    organizations::update_sending_policy(&mut tx, caller.org_id, &stored).await?;
    let reasons = [HoldReason::QuietHours, HoldReason::FrequencyCap].map(HoldReason::as_str);
    governor::release_held(&mut tx, caller.org_id.0, Held::Organization, &reasons).await?;
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    state.signals.outbox.notify_one();
    Ok(axum::Json(policy.into()))
}
