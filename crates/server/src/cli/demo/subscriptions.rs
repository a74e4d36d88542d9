//! Subscriptions in the demo: the shipped automations, switched on, and some customers for them.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{TimeDelta, Utc};
use wasel_db::subscriptions::{self, NewSubscription};
use wasel_db::{conversations, organizations};
use wasel_domain::OrgId;

use crate::auth::Caller;
use crate::http::v1::automations::defaults::{self, CreateDefaultsRequest};
use crate::state::AppState;

/// Name, number, plan, status, days until the end. They are customers who wrote to the demo.
const SEED: [(&str, &str, &str, &str, i64); 3] = [
    ("منى السيد", "+201001234567", "الأساسية", "trial", 14),
    ("خالد العتيبي", "+966512345678", "المتقدمة", "active", 2),
    ("Emma Brown", "+447700900123", "Premium", "active", 60),
];
/// How long to wait for the customers' first messages: only then may they be written to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does nothing at the second start.
pub async fn seed(state: &AppState, slug: &str) -> Result<()> {
    let mut tx = state.db.system().await?;
    let organization = organizations::find_by_slug(&mut tx, slug).await?;
    let org = OrgId(organization.context("the demo's organisation")?.id);
    let seeded = subscriptions::any(&mut tx, org).await?;
    tx.commit().await?;
    if seeded {
        return Ok(());
    }
    let caller = Caller::service(org, None);
    let request = CreateDefaultsRequest {
        enabled: Some(true),
        ..CreateDefaultsRequest::default()
    };
    defaults::make(state, &caller, request)
        .await
        .map_err(|error| anyhow::anyhow!(error.in_words()))?;
    wait_for_customers(state).await?;
    let mut tx = state.db.tenant(&caller.claims()).await?;
    for (name, phone, plan, status, days) in SEED {
        let new = NewSubscription {
            customer_name: name,
            customer_phone: Some(phone),
            plan,
            status,
            end_date: Utc::now().date_naive() + TimeDelta::days(days),
        };
        subscriptions::insert(&mut tx, org, &new).await?;
    }
    tx.commit().await?;
    state.signals.commits.changes.notify_one();
    Ok(())
}

async fn wait_for_customers(state: &AppState) -> Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let mut tx = state.db.system().await?;
        let any = conversations::any(&mut tx).await?;
        tx.commit().await?;
        if any {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
