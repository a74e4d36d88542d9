//! Limits that hold across server processes: an exact sliding window per key.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use wasel_domain::OrgId;

use crate::{Result, SystemTx};

/// Counts one call. `None`: within `allowed` calls per `span`. `Some`: refused, and how long to wait.
pub async fn take(
    tx: &mut SystemTx,
    org: OrgId,
    key: &str,
    allowed: u32,
    span: Duration,
) -> Result<Option<Duration>> {
    let wait: Option<PgInterval> =
        sqlx::query_scalar("SELECT wasel.take_rate($1, $2, $3, make_interval(secs => $4))")
            .bind(org.0)
            .bind(key)
            .bind(i32::try_from(allowed).unwrap_or(i32::MAX))
            .bind(span.as_secs_f64())
            .fetch_one(&mut **tx)
            .await?;
    Ok(wait.map(|interval| {
        let days = i64::from(interval.days) + i64::from(interval.months) * 30;
        let micros = interval.microseconds.saturating_add(days * 86_400_000_000);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }))
}
