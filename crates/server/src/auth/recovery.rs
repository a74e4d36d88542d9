//! Getting back in by mail, and changing the address.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use rand::Rng;
use wasel_db::identity::{self, EndSessions, User};
use wasel_db::one_time_tokens::{self, Kind, NewToken, OneTimeToken, Subject};
use wasel_db::{Error, SystemTx, organizations};
use wasel_domain::UserId;

use super::letters::{Letter, Tongue};
use super::sign_in::new_token;
use super::{AuthContext, membership};

/// How long a link and its code can be used.
const LIFETIME: Duration = Duration::from_secs(3600);

/// How long a change of address that was asked for is mailed again.
const MAX_REQUEST_AGE: TimeDelta = TimeDelta::days(1);

/// A mail with a link and a code, to send after the commit.
struct Prepared {
    to: String,
    link: String,
    code: String,
    tongue: Tongue,
}

/// Mails about a change of address, to send after the commit.
#[must_use]
pub(crate) struct ChangeMails {
    to_new: Option<Prepared>,
    to_old: Option<(String, Letter<'static>, Tongue)>,
}

impl ChangeMails {
    /// Hands them to the sending job. What is not taken is logged there.
    pub(crate) fn post(&self, auth: &AuthContext) {
        if let Some(mail) = &self.to_new {
            let letter = Letter::EmailChange {
                link: &mail.link,
                code: &mail.code,
            };
            auth.mailer.post(&mail.to, letter.write(mail.tongue));
        }
        if let Some((to, letter, tongue)) = &self.to_old {
            auth.mailer.post(to, letter.write(*tongue));
        }
    }
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

/// Notes the address a person wants; a link and a code go there, and word of it to the address they have.
pub(crate) async fn ask_email_change(
    auth: &AuthContext,
    tx: &mut SystemTx,
    user: &User,
    new_email: &str,
    redirect_to: Option<&str>,
) -> wasel_db::Result<ChangeMails> {
    identity::update_new_email(tx, UserId(user.id), new_email).await?;
    let to_new = prepare(auth, tx, user, Kind::EmailChange, new_email, redirect_to).await?;
    let tongue = to_new.tongue;
    Ok(ChangeMails {
        to_new: Some(to_new),
        to_old: Some((user.email.clone(), Letter::EmailChangeAsked, tongue)),
    })
}

/// The link and the code again, for whoever has this address now and asked for another within a day; else does nothing.
/// Nobody is signed in for this, so it must not keep an old request alive.
pub(crate) async fn resend_email_change(
    auth: &AuthContext,
    email: &str,
    redirect_to: Option<&str>,
) -> wasel_db::Result<()> {
    let mut tx = auth.db.system().await?;
    let Some(user) = identity::find_user_by_email(&mut tx, email).await? else {
        return Ok(());
    };
    // As it is while nobody takes it back.
    let Some(user) = identity::lock_user(&mut tx, UserId(user.id)).await? else {
        return Ok(());
    };
    let is_recent = user
        .email_change_sent_at
        .is_some_and(|at| Utc::now() - at < MAX_REQUEST_AGE);
    let Some(new_email) = user
        .new_email
        .as_deref()
        .filter(|_| is_recent && user.email_confirmed_at.is_some())
    else {
        return Ok(());
    };
    let to_new = prepare(
        auth,
        &mut tx,
        &user,
        Kind::EmailChange,
        new_email,
        redirect_to,
    )
    .await?;
    tx.commit().await?;
    let mails = ChangeMails {
        to_new: Some(to_new),
        to_old: None,
    };
    mails.post(auth);
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

/// Gives a person the address whose mail they read, and ends their sessions: they may be somebody's who asked for this
/// address on their behalf, or who knows the old one. Returns who, and the mail to the address they had.
pub(crate) async fn change_email(
    tx: &mut SystemTx,
    token: &OneTimeToken,
) -> Result<(UserId, ChangeMails), EmailChangeError> {
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
    identity::end_sessions(tx, id, EndSessions::All).await?;
    // A link that waits in the old mailbox opens nothing any more.
    one_time_tokens::delete_of_user(tx, id, Kind::Recovery).await?;
    let tongue = tongue_of(tx, &after).await?;
    let mails = ChangeMails {
        to_new: None,
        to_old: Some((before.email, Letter::EmailChanged, tongue)),
    };
    Ok((id, mails))
}
