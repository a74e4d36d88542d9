//! `wasel webhooks replay`: dead letters once more, after a parser was mended or a channel added.

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};
use uuid::Uuid;
use wasel_config::Config;
use wasel_db::{ledger, organizations};
use wasel_domain::OrgId;

use super::print;
use crate::app;
use crate::http::webhooks::replay::replay;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Read dead letters again; what can be stored now is stored, the rest stays.
    Replay(ReplayArgs),
}

#[derive(clap::Args)]
pub struct ReplayArgs {
    /// Only of this organisation (slug); `system` for those that no channel claimed.
    #[arg(long)]
    org: Option<String>,
    /// Only those received since this time (RFC 3339).
    #[arg(long)]
    since: Option<DateTime<Utc>>,
}

const PAGE: i64 = 100;

pub async fn run(config: Config, command: Command) -> Result<()> {
    let Command::Replay(args) = command;
    let tools = app::Tools::open(config).await?;
    let result = replay_all(&tools.state, &args).await;
    tools.close().await?;
    let (stored, left) = result?;
    print(&format!("{stored} stored, {left} still dead letters"));
    Ok(())
}

async fn replay_all(state: &crate::state::AppState, args: &ReplayArgs) -> Result<(usize, usize)> {
    let mut tx = state.db.system().await?;
    let org = match &args.org {
        Some(slug) => {
            let org = organizations::find_by_slug(&mut tx, slug).await?;
            Some(OrgId(
                org.with_context(|| format!("there is no organisation `{slug}`"))?
                    .id,
            ))
        }
        None => None,
    };
    tx.commit().await?;
    let (mut stored, mut left, mut after) = (0, 0, Uuid::nil());
    loop {
        let mut tx = state.db.system().await?;
        let rows = ledger::list_dead(&mut tx, org, args.since, after, PAGE).await?;
        tx.commit().await?;
        let Some(last) = rows.last() else {
            return Ok((stored, left));
        };
        after = last.id;
        for row in rows {
            let id = row.id;
            let accepted = replay(state, row)
                .await
                .map_err(|error| anyhow!("{id}: {}", error.message))?;
            if accepted.dead_lettered == 0 {
                stored += 1
            } else {
                left += 1
            }
        }
    }
}
