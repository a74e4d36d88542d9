//! Getting back in by mail, and changing the address.

use std::time::Duration;

use rand::Rng;
use wasel_db::identity::{self, User};
use wasel_db::one_time_tokens::{self, Kind, NewToken, OneTimeToken, Subject};
use wasel_db::{Error, SystemTx, organizations};
use wasel_domain::UserId;

use super::letters::{Letter, Tongue};
use super::sign_in::new_token;
use super::{AuthContext, membership};

/// How long a link and its code can be used.
const LIFETIME: Duration = Duration::from_secs(3600);

/// A mail to send after the commit.
struct Prepared {
    to: String,
    link: String,
    code: String,
    tongue: Tongue,
}

/// Mails a link and a code to the person with this address; does nothing where there is none.
pub(crate) async fn send_recovery(
    auth: &AuthContext,
    email: &str,
    redirect_to: Option<&str>,
) -> wasel_db::Result<()> {
    let mut tx = auth.db.system().await?;
    let Some(user) = identity::find_user_by_email(&mut tx, email).await? else {
        return Ok(());
    };
    let to = user.email.clone();
    let mail = prepare(auth, &mut tx, &user, Kind::Recovery, &to, redirect_to).await?;
    tx.commit().await?;
    let letter = Letter::Recovery {
        link: &mail.link,
        code: &mail.code,
    };
    auth.mailer.post(&mail.to, letter.write(mail.tongue));
    Ok(())
}

/// Notes the address a person wants and mails a link and a code there. Where somebody has it, the mail is not sent.
pub(crate) async fn send_email_change(
    auth: &AuthContext,
    user: &User,
    new_email: &str,
    redirect_to: Option<&str>,
) -> wasel_db::Result<()> {
    let mut tx = auth.db.system().await?;
    identity::update_new_email(&mut tx, UserId(user.id), new_email).await?;
    let kind = Kind::EmailChange;
    let mail = prepare(auth, &mut tx, user, kind, new_email, redirect_to).await?;
    tx.commit().await?;
    let letter = Letter::EmailChange {
        link: &mail.link,
        code: &mail.code,
    };
    auth.mailer.post(&mail.to, letter.write(mail.tongue));
    Ok(())
}

/// The same again for whoever has this address now or wants it; does nothing where nobody does.
pub(crate) async fn resend_email_change(
    auth: &AuthContext,
    email: &str,
    redirect_to: Option<&str>,
) -> wasel_db::Result<()> {
    let mut tx = auth.db.system().await?;
    let user = identity::find_user_by_email(&mut tx, email).await?;
    tx.commit().await?;
    if let Some(user) = user
        && let Some(new_email) = user.new_email.clone()
    {
        send_email_change(auth, &user, &new_email, redirect_to).await?;
    }
    Ok(())
}

async fn prepare(
    auth: &AuthContext,
    tx: &mut SystemTx,
    user: &User,
    kind: Kind,
    to: &str,
    redirect_to: Option<&str>,
) -> wasel_db::Result<Prepared> {
    let (token, hash) = new_token();
    let code = format!("{:06}", rand::rng().random_range(0..1_000_000));
    let new = NewToken {
        hash,
        kind,
        subject: Subject::User(UserId(user.id)),
        by_mail: true,
        email: to,
        code_hash: Some(auth.tokens.code_hash(to, &code)),
        lifetime: LIFETIME,
    };
    one_time_tokens::insert(tx, &new).await?;
    Ok(Prepared {
        to: to.to_owned(),
        link: auth.link(&token, kind, redirect_to),
        code,
        tongue: tongue_of(tx, user).await?,
    })
}

/// The person's own language, else that of their first organization.
async fn tongue_of(tx: &mut SystemTx, user: &User) -> wasel_db::Result<Tongue> {
    if let Some(locale) = &user.locale {
        return Ok(Tongue::of(locale));
    }
    let memberships = membership::list(tx, UserId(user.id)).await?;
    let organization = match memberships.first() {
        Some(first) => organizations::find(tx, first.org_id).await?,
        None => None,
    };
    Ok(organization.map_or(Tongue::English, |org| Tongue::of(&org.locale)))
}

/// Why a used link changes no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EmailChangeError {
    #[error("the person no longer asks for this address")]
    Outdated,
    #[error("somebody has this address")]
    Taken,
    #[error(transparent)]
    Database(#[from] wasel_db::Error),
}

/// Gives a person the address whose mail they read. Returns who, and the address they had.
pub(crate) async fn change_email(
    tx: &mut SystemTx,
    token: &OneTimeToken,
) -> Result<(UserId, User), EmailChangeError> {
    let id = UserId(token.user_id.ok_or(EmailChangeError::Outdated)?);
    let before = identity::find_user(tx, id)
        .await?
        .ok_or(EmailChangeError::Outdated)?;
    let after = identity::update_email(tx, id, &token.email)
        .await
        .map_err(|error| match &error {
            Error::Constraint { constraint, .. } if constraint == "users_email" => {
                EmailChangeError::Taken
            }
            _ => error.into(),
        })?
        .ok_or(EmailChangeError::Outdated)?;
    wasel_db::profiles::update_email(tx, id, &after.email).await?;
    // A link that waits in the old mailbox opens nothing any more.
    one_time_tokens::delete_of_user(tx, id, Kind::Recovery).await?;
    Ok((id, before))
}

/// Tells the old address, after the commit.
pub(crate) async fn tell_old_address(auth: &AuthContext, before: &User) -> wasel_db::Result<()> {
    let mut tx = auth.db.system().await?;
    let tongue = tongue_of(&mut tx, before).await?;
    tx.commit().await?;
    auth.mailer
        .post(&before.email, Letter::EmailChanged.write(tongue));
    Ok(())
}
