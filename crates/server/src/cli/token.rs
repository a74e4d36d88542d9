//! `wasel token`: a user's access token, for scripts and tests.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use wasel_config::Config;
use wasel_db::{identity, organizations, profiles};
use wasel_domain::{OrgId, UserId};

use super::{print, with_foundation};
use crate::auth::{SignInMethod, TokenSubject};

#[derive(clap::Args)]
pub struct Args {
    /// The organisation's slug.
    #[arg(long)]
    org: String,
    /// The user's e-mail address.
    #[arg(long)]
    email: String,
    /// How long it is valid: `30m`, `1h`, `7d`.
    #[arg(long, default_value = "1h", value_parser = wasel_config::parse_duration)]
    ttl: Duration,
}

pub async fn run(config: Config, args: Args) -> Result<()> {
    with_foundation(config, async |foundation| {
        let mut tx = foundation.db.system().await?;
        let org = organizations::find_by_slug(&mut tx, &args.org)
            .await?
            .with_context(|| format!("there is no organisation `{}`", args.org))?;
        let user = identity::find_user_by_email(&mut tx, &args.email)
            .await?
            .with_context(|| format!("there is no user {}", args.email))?;
        if !profiles::exists(&mut tx, OrgId(org.id), UserId(user.id)).await? {
            bail!("{} does not belong to `{}`", args.email, args.org);
        }
        tx.commit().await?;
        let subject = TokenSubject {
            user: &user,
            org_id: Some(OrgId(org.id)),
            session_id: None,
            method: SignInMethod::Password,
            authenticated_at: chrono::Utc::now(),
        };
        print(&foundation.tokens.issue(&subject, args.ttl)?.token);
        Ok(())
    })
    .await
}
