//! `wasel user`: people of the built-in identity.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use uuid::Uuid;
use wasel_config::Config;
use wasel_db::identity::{self, EndSessions, NewUser};
use wasel_db::{SystemTx, organizations, profiles};
use wasel_domain::UserId;

use super::{print, with_foundation};
use crate::auth::{invitations, password};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Add a person to an organisation, or change their role.
    Add(AddArgs),
    /// Set a new password; all sign-ins end.
    Password(PasswordArgs),
    /// The people of an organisation.
    List {
        #[arg(long)]
        org: String,
    },
}

#[derive(clap::Args)]
pub struct AddArgs {
    /// The organisation's slug.
    #[arg(long)]
    org: String,
    #[arg(long)]
    email: String,
    #[arg(long)]
    role: RoleArg,
    /// For a new person; WASEL_PASSWORD keeps it out of the shell's history.
    #[arg(long, env = "WASEL_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    #[arg(long)]
    full_name: Option<String>,
}

#[derive(clap::Args)]
pub struct PasswordArgs {
    #[arg(long)]
    email: String,
    /// The new password; WASEL_PASSWORD keeps it out of the shell's history.
    #[arg(long, env = "WASEL_PASSWORD", hide_env_values = true)]
    password: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    Owner,
    Admin,
    Agent,
    Viewer,
    #[value(name = "super_admin")]
    SuperAdmin,
}

impl RoleArg {
    fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Agent => "agent",
            Self::Viewer => "viewer",
            Self::SuperAdmin => "super_admin",
        }
    }
}

pub async fn run(config: Config, command: Command) -> Result<()> {
    match command {
        Command::Add(args) => add(config, args).await,
        Command::Password(args) => set_password(config, args).await,
        Command::List { org } => list(config, &org).await,
    }
}

async fn add(config: Config, args: AddArgs) -> Result<()> {
    with_foundation(config, async |foundation| {
        let mut tx = foundation.db.system().await?;
        let org = organizations::find_by_slug(&mut tx, &args.org)
            .await?
            .with_context(|| format!("there is no organisation `{}`", args.org))?;
        let user = match identity::find_user_by_email(&mut tx, &args.email).await? {
            Some(user) => {
                vouch(&mut tx, org.id, &user, args.password.as_deref()).await?;
                user
            }
            None => {
                let Some(password) = &args.password else {
                    bail!("{} is new: give --password", args.email)
                };
                check_password(password)?;
                let user = NewUser {
                    id: UserId::generate(),
                    email: args.email.clone(),
                    password_hash: password::hash(password).await?,
                    full_name: args.full_name.clone(),
                    phone: None,
                };
                identity::insert_user(&mut tx, &user).await?
            }
        };
        let profile = profiles::Profile {
            org_id: org.id,
            id: user.id,
            email: Some(user.email.clone()),
            full_name: args.full_name.clone().or(user.full_name),
            phone: user.phone,
            role: args.role.word().to_owned(),
        };
        profiles::upsert(&mut tx, &profile).await?;
        tx.commit().await?;
        print(&user.id.to_string());
        Ok(())
    })
    .await
}

async fn set_password(config: Config, args: PasswordArgs) -> Result<()> {
    check_password(&args.password)?;
    with_foundation(config, async |foundation| {
        let mut tx = foundation.db.system().await?;
        let user = identity::find_user_by_email(&mut tx, &args.email)
            .await?
            .with_context(|| format!("there is no user {}", args.email))?;
        let hash = password::hash(&args.password).await?;
        identity::update_password(&mut tx, UserId(user.id), &hash).await?;
        identity::end_sessions(&mut tx, UserId(user.id), EndSessions::All).await?;
        tx.commit().await?;
        print("The password is changed; the person has to sign in again.");
        Ok(())
    })
    .await
}

async fn list(config: Config, slug: &str) -> Result<()> {
    with_foundation(config, async |foundation| {
        let mut tx = foundation.db.system().await?;
        let org = organizations::find_by_slug(&mut tx, slug)
            .await?
            .with_context(|| format!("there is no organisation `{slug}`"))?;
        for profile in profiles::list(&mut tx, org.id.into()).await? {
            print(&format!(
                "{}\t{}\t{}",
                profile.id,
                profile.role,
                profile.email.unwrap_or_default()
            ));
        }
        Ok(())
    })
    .await
}

/// Passwords shorter than this are refused (NIST SP 800-63B, 5.1.1.2).
const MIN_PASSWORD: usize = 8;

/// The operator lets an account in. If nobody has shown that they read mail at its address, somebody else may have made
/// it by an invitation of another organisation: what they know of it ends.
pub(super) async fn vouch(
    tx: &mut SystemTx,
    org: Uuid,
    user: &identity::User,
    new_password: Option<&str>,
) -> Result<()> {
    let id = UserId(user.id);
    if user.email_confirmed_at.is_some() || profiles::exists(tx, org.into(), id).await? {
        return Ok(());
    }
    let Some(new_password) = new_password else {
        bail!(
            "password: is missing, and {} has an account whose address nobody has confirmed",
            user.email
        )
    };
    check_password(new_password)?;
    invitations::claim(tx, user, &password::hash(new_password).await?).await?;
    Ok(())
}

pub(super) fn check_password(password: &str) -> Result<()> {
    if password.chars().count() < MIN_PASSWORD {
        bail!("password: must have at least {MIN_PASSWORD} characters");
    }
    Ok(())
}
