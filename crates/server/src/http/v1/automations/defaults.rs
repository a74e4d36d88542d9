//! The rules that come with the product: the documents' welcome (S4.9) and expiry notice (S4.10), about the table
//! `subscriptions` and with the system's Arabic templates.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use wasel_db::automations;

use super::rule::{AutomationView, CreateAutomationRequest};
use super::{MANAGERS, insert, wake};
use crate::auth::Caller;
use crate::http::error::{ApiError, ErrorBody};
use crate::http::extract::Json;
use crate::state::AppState;

/// The places of the system's templates; a template's id is its place.
const TRIAL_WELCOME: u128 = 1;
const SUBSCRIPTION_EXPIRING: u128 = 2;

const fn system_template(place: u128) -> Uuid {
    Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000 + place)
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDefaultsRequest {
    /// `false` if left out: nobody is written to before somebody has looked at the preview.
    pub enabled: Option<bool>,
    /// What the welcome links to; this server's address if left out.
    pub app_url: Option<String>,
    /// Where a subscription is renewed; this server's address if left out.
    pub renewal_url: Option<String>,
}

/// The rules that come with the product.
#[derive(Debug, Serialize, ToSchema)]
pub struct DefaultsView {
    pub data: Vec<AutomationView>,
}

/// Makes the automations that come with the product, `trial_welcome` and `subscription_expiring`, where they are
/// missing. One of that name stays as it is.
#[utoipa::path(post, path = "/v1/automations/defaults", tag = "automations", request_body = CreateDefaultsRequest,
    responses((status = 200, body = DefaultsView, description = "both, new or not"),
        (status = 400, body = ErrorBody, description = "the application's own table `subscriptions` lacks what they need"),
        (status = 403, body = ErrorBody, description = "only owners and admins may")))]
pub async fn create_defaults(
    State(state): State<AppState>,
    caller: Caller,
    Json(request): Json<CreateDefaultsRequest>,
) -> Result<axum::Json<DefaultsView>, ApiError> {
    caller.require(&MANAGERS)?;
    Ok(axum::Json(DefaultsView {
        data: make(&state, &caller, request).await?,
    }))
}

/// The same for a command.
pub async fn make(
    state: &AppState,
    caller: &Caller,
    request: CreateDefaultsRequest,
) -> Result<Vec<AutomationView>, ApiError> {
    let mut tx = state.db.tenant(&caller.claims()).await?;
    let mut rules = Vec::new();
    for rule in shipped(&request, &state.public_url)? {
        let there = automations::find_by_name(&mut tx, caller.org_id, &rule.name).await?;
        rules.push(match there {
            Some(there) => there.into(),
            None => insert(&mut tx, caller, &rule.into_fields()?).await?.into(),
        });
    }
    tx.commit().await?;
    wake(state);
    Ok(rules)
}

fn shipped(
    request: &CreateDefaultsRequest,
    public_url: &str,
) -> Result<Vec<CreateAutomationRequest>, ApiError> {
    let enabled = request.enabled.unwrap_or(false);
    let app_url = request.app_url.as_deref().unwrap_or(public_url);
    let renewal_url = request.renewal_url.as_deref().unwrap_or(public_url);
    let rules = json!([
        {
            "name": "trial_welcome",
            "description": "رسالة ترحيب عند بدء الفترة التجريبية · A welcome when a trial begins",
            "kind": "event",
            "enabled": enabled,
            "template_id": system_template(TRIAL_WELCOME),
            "source": { "table": "subscriptions", "operation": "insert" },
            "filters": [{ "column": "status", "op": "eq", "value": "trial" }],
            "mapping": {
                "recipient_phone": "customer_phone",
                "related_entity_id": "id",
                "variables": {
                    "customer_name": "customer_name",
                    "trial_days": { "days_until": "end_date" },
                    "app_url": { "value": app_url },
                },
            },
        },
        {
            "name": "subscription_expiring",
            "description": "تنبيه قبل انتهاء الاشتراك بثلاثة أيام · A notice three days before a subscription ends",
            "kind": "cron",
            "enabled": enabled,
            "template_id": system_template(SUBSCRIPTION_EXPIRING),
            "priority": 3,
            "cron_expression": "0 9 * * *",
            "source": { "table": "subscriptions" },
            "filters": [{ "column": "status", "op": "in", "value": ["trial", "active"] }],
            "window": { "column": "end_date", "within_days": 3 },
            "mapping": {
                "recipient": "row_or_owner",
                "recipient_phone": "customer_phone",
                "related_entity_id": "id",
                "variables": {
                    "customer_name": "customer_name",
                    "plan_name": "plan",
                    "expiry_date": { "column": "end_date", "format": "date" },
                    "days_remaining": { "days_until": "end_date" },
                    "renewal_url": { "value": renewal_url },
                },
            },
        },
    ]);
    serde_json::from_value(rules).map_err(|error| {
        tracing::error!(%error, "a shipped automation cannot be read");
        ApiError::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on our side",
        )
    })
}
