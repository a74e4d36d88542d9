//! How long one message of a tenant waits while another tenant has a long queue.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use uuid::Uuid;

use super::provider::{self, Arrival};
use super::rows::{self, Batch, Tenant};
use super::stage::Stage;
use crate::print;
use crate::report::Figures;

/// How long one message may take before the run is given up.
const LIMIT: Duration = Duration::from_secs(60);
/// The long queue runs for so long before the first message is asked for.
const LEAD: Duration = Duration::from_secs(3);
const TRIES: i64 = 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(700);
/// How many messages each customer of the long queue has waiting.
const EACH: u64 = 10;

/// Gives `campaigner` `pending` messages.
pub async fn fill(stage: &mut Stage, campaigner: Tenant, pending: u64) -> Result<()> {
    let begun = Instant::now();
    let batch = Batch {
        first: stage.numbers(pending),
        count: pending,
        each: EACH,
    };
    let made = rows::make(&stage.pool, &[campaigner], batch).await?;
    made.commit().await?;
    print(&format!(
        "{pending} messages of one tenant were made in {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// `other` asks for single messages through the API, in a conversation with an open window.
pub async fn run(
    stage: &mut Stage,
    campaigner: Tenant,
    other: Tenant,
    figures: &mut Figures,
) -> Result<()> {
    let conversations: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM conversations WHERE org_id = $1 LIMIT $2")
            .bind(other.org_id)
            .bind(TRIES)
            .fetch_all(&stage.pool)
            .await?;
    stage.provider.take_arrivals();
    tokio::time::sleep(LEAD).await;
    let mut caller = stage.connect().await?;
    let mut waits = Vec::new();
    for conversation in conversations {
        let number = stage.numbers(1);
        let begun = Instant::now();
        stage.ask(&mut caller, other, conversation, number).await?;
        let came = stage.provider.wait_for(number, LIMIT).await?;
        waits.push(came.duration_since(begun).as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    waits.sort_by(f64::total_cmp);
    let longest = waits
        .last()
        .copied()
        .context("the tenant has no conversations yet")?;
    figures.note("one_off_p50".to_owned(), waits[waits.len() / 2], "ms");
    figures.note("one_off_max".to_owned(), longest, "ms");
    let arrivals = stage.provider.take_arrivals();
    let of_campaigner = |arrival: &&Arrival| arrival.phone_number_id == campaigner.phone_number_id;
    figures.note(
        "campaign_most_in_a_second".to_owned(),
        provider::most_in_a_second(arrivals.iter().filter(of_campaigner)) as f64,
        "messages",
    );
    if let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) {
        figures.note(
            "campaign_rate".to_owned(),
            arrivals.iter().filter(of_campaigner).count() as f64
                / last.at.duration_since(first.at).as_secs_f64(),
            "sends/s",
        );
    }
    figures.note(
        "wrong".to_owned(),
        provider::doubles(&arrivals) as f64,
        "messages",
    );
    Ok(())
}
