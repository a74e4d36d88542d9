//! `wasel keys rotate`: seals everything anew with the current `ENCRYPTION_KEY`.

use anyhow::{Context, Result};
use wasel_config::Config;
use wasel_db::channels;
use wasel_domain::{ChannelId, OrgId};

use super::{print, with_foundation};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Seal every secret with ENCRYPTION_KEY; set the old key in PREVIOUS_ENCRYPTION_KEYS while this runs.
    Rotate,
}

pub async fn run(config: Config, command: Command) -> Result<()> {
    let Command::Rotate = command;
    with_foundation(config, async |foundation| {
        let mut tx = foundation.db.system().await?;
        let mut count = 0;
        for row in channels::list_sealed(&mut tx).await? {
            let Some(sealed) = row.sealed else { continue };
            let (org, id) = (row.channel.org_id, row.channel.id);
            let plain = foundation
                .sealer
                .open(org, id, &sealed)
                .with_context(|| format!("channel {id}"))?;
            let sealed = foundation.sealer.seal(org, id, &plain)?;
            channels::update_secrets(&mut tx, OrgId(org), ChannelId(id), &sealed).await?;
            count += 1;
        }
        tx.commit().await?;
        print(&format!(
            "{count} secrets sealed anew; the previous keys can be removed"
        ));
        Ok(())
    })
    .await
}
