//! `wasel keys rotate`: seals everything anew with the current `ENCRYPTION_KEY`.

use anyhow::{Context, Result};
use uuid::Uuid;
use wasel_config::Config;
use wasel_db::seal::Sealer;
use wasel_db::session_keys::Resealed;
use wasel_db::{Db, SystemTx, channels, session_keys};
use wasel_domain::{ChannelId, OrgId};

use super::{print, with_foundation};

/// How many rows of a session are sealed anew in one transaction, in which the session waits with its writes.
const BATCH: i64 = 500;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Seal every secret with ENCRYPTION_KEY; set the old key in PREVIOUS_ENCRYPTION_KEYS while this runs. Safe beside
    /// running servers that have the same two settings, and safe to repeat.
    Rotate,
}

pub async fn run(config: Config, command: Command) -> Result<()> {
    let Command::Rotate = command;
    with_foundation(config, async |foundation| {
        let (db, sealer) = (&foundation.db, &*foundation.sealer);
        let secrets = rotate_channels(db, sealer).await?;
        let (rows, sessions) = rotate_sessions(db, sealer).await?;
        print(&format!(
            "{secrets} secrets of channels and {rows} rows of {sessions} linked phones sealed anew; \
             the previous keys can be removed"
        ));
        Ok(())
    })
    .await
}

async fn rotate_channels(db: &Db, sealer: &Sealer) -> Result<u64> {
    let mut tx = db.system().await?;
    let mut count = 0;
    for row in channels::list_sealed(&mut tx).await? {
        let Some(sealed) = row.sealed else { continue };
        let (org, id) = (row.channel.org_id, row.channel.id);
        let plain = sealer
            .open(org, id, &sealed)
            .with_context(|| format!("channel {id}"))?;
        let sealed = sealer.seal(org, id, &plain)?;
        channels::update_secrets(&mut tx, OrgId(org), ChannelId(id), &sealed).await?;
        count += 1;
    }
    tx.commit().await?;
    Ok(count)
}

/// Returns how many rows of how many sessions were sealed with another key than the current one.
async fn rotate_sessions(db: &Db, sealer: &Sealer) -> Result<(u64, u64)> {
    let mut tx = db.system().await?;
    let sessions = session_keys::list_sessions(&mut tx).await?;
    tx.commit().await?;
    let (mut rows, mut changed) = (0, 0);
    for (org, session) in sessions {
        let count = rotate_session(db, sealer, org, session)
            .await
            .with_context(|| format!("linked phone {session}"))?;
        rows += count;
        changed += u64::from(count > 0);
    }
    Ok((rows, changed))
}

async fn rotate_session(db: &Db, sealer: &Sealer, org: OrgId, session: Uuid) -> Result<u64> {
    let mut count = 0;
    let mut after = (i16::MIN, Vec::new());
    loop {
        let done = match rotate_batch(db, sealer, org, session, &after).await {
            // The session wrote the same rows at the same moment.
            Err(error) if is_conflict(&error) => {
                rotate_batch(db, sealer, org, session, &after).await?
            }
            done => done?,
        };
        let Some((rows, last)) = done else {
            return Ok(count);
        };
        count += rows;
        after = last;
    }
}

/// Seals the next rows after `after` anew; `None` when there are none. Their places change with their hashes, but
/// what is done is never looked at again, for it is sealed with the current key.
async fn rotate_batch(
    db: &Db,
    sealer: &Sealer,
    org: OrgId,
    session: Uuid,
    after: &(i16, Vec<u8>),
) -> Result<Option<(u64, (i16, Vec<u8>))>> {
    let rows = sealer.rows(org.0, session)?;
    let mut tx: SystemTx = db.system().await?;
    let current = sealer.current_key();
    let old =
        session_keys::lock_not_sealed_by(&mut tx, org, session, current, after, BATCH).await?;
    let Some(last) = old.last().map(|row| (row.kind, row.key.clone())) else {
        return Ok(None);
    };
    let mut new = Vec::with_capacity(old.len());
    for row in old {
        let open = rows.open(row.kind, &row.key, &row.sealed)?;
        let sealed = rows.seal(row.kind, &open.key, &open.value)?;
        new.push(Resealed {
            old: row,
            key: sealed.hash.to_vec(),
            sealed: sealed.sealed,
        });
    }
    session_keys::replace(&mut tx, org, session, &new).await?;
    tx.commit().await?;
    Ok(Some((u64::try_from(new.len())?, last)))
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<wasel_db::Error>()
        .is_some_and(wasel_db::Error::is_conflict)
}
