//! Inviting people, and their coming in.
//!
//! An invitation has up to two links. The one in the mail shows that whoever opens it reads mail at the address. The
//! other is handed to the inviter, so that it works without a mail server; it shows nothing. So only the mail's link
//! signs in somebody who has an account already: otherwise whoever may invite could take any account of any tenant.
//! An account made by a handed-out link is unconfirmed; when its address is shown to be somebody's, by a mail's link,
//! whatever was set up before (password, sessions) ends.

use std::time::Duration;

use uuid::Uuid;
use wasel_db::identity::{self, AboutUser, EndSessions, NewUser, PasswordHash, TokenHash, User};
use wasel_db::invitations::{self, Invitation, NewInvitation};
use wasel_db::one_time_tokens::{self, Kind, NewToken, OneTimeToken, Subject};
use wasel_db::organizations::{self, Organization};
use wasel_db::profiles::{self, Profile};
use wasel_db::{Error, SystemTx, rate_limits};
use wasel_domain::{OrgId, UserId};

use super::letters::{Letter, Tongue};
use super::sign_in::{hash_of, new_token};
use super::{AuthContext, Role, membership};

/// How long an invitation can be accepted.
pub const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Invitations of a tenant in an hour; each may be a mail to somebody who did not ask for it.
const PER_HOUR: u32 = 100;

const MAX_NAME_CHARS: usize = 200;
/// Channels an agent can be limited to by an invitation.
const MAX_CHANNELS: usize = 100;

/// Who shall be invited, as a request says it.
pub(crate) struct Asked<'a> {
    pub email: &'a str,
    pub role: &'a str,
    pub full_name: Option<&'a str>,
    pub channel_ids: Vec<Uuid>,
    pub redirect_to: Option<&'a str>,
    /// `None`: the operator's own server.
    pub invited_by: Option<UserId>,
}

/// Who shall be invited, checked as far as the request alone goes.
#[derive(Debug)]
pub(crate) struct Invited<'a> {
    email: String,
    role: Role,
    full_name: Option<&'a str>,
    channel_ids: Vec<Uuid>,
    redirect_to: Option<&'a str>,
    invited_by: Option<UserId>,
}

/// What is wrong with a request to invite somebody.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub field: &'static str,
    /// What the field must be, as a sentence goes on after its name.
    pub reason: String,
}

impl<'a> Invited<'a> {
    /// The rules for invitations, whichever way they are asked for.
    pub(crate) fn check(asked: Asked<'a>) -> Result<Self, Flaw> {
        let flaw = |field, reason: &str| Flaw {
            field,
            reason: reason.to_owned(),
        };
        let email =
            wasel_domain::email::parse(asked.email).map_err(|reason| flaw("email", reason))?;
        let role = Role::of_profile(asked.role)
            .filter(|role| *role != Role::SuperAdmin)
            .ok_or_else(|| flaw("role", "must be owner, admin, agent or viewer"))?;
        let full_name = asked
            .full_name
            .map(str::trim)
            .filter(|name| !name.is_empty());
        if full_name.is_some_and(|name| {
            name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control)
        }) {
            let reason = format!("may have {MAX_NAME_CHARS} characters on one line");
            return Err(flaw("full_name", &reason));
        }
        let mut channel_ids = asked.channel_ids;
        channel_ids.sort_unstable();
        channel_ids.dedup();
        if role != Role::Agent && !channel_ids.is_empty() {
            return Err(flaw("channel_ids", "limits agents only"));
        }
        if channel_ids.len() > MAX_CHANNELS {
            let reason = format!("may name {MAX_CHANNELS} channels");
            return Err(flaw("channel_ids", &reason));
        }
        Ok(Self {
            email,
            role,
            full_name,
            channel_ids,
            redirect_to: asked.redirect_to,
            invited_by: asked.invited_by,
        })
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }
}

/// An invitation that was just made or renewed.
pub(crate) struct Made {
    pub invitation: Invitation,
    /// For the inviter to hand on.
    pub link: String,
    /// Whether a mail is on its way.
    pub is_mailed: bool,
}

/// Why somebody cannot be invited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InviteError {
    #[error("this person is a member already")]
    Member,
    #[error("there is an open invitation for this address: send it again, or delete it")]
    Open,
    #[error("names a channel that does not exist")]
    UnknownChannel,
    #[error("too many invitations in an hour")]
    TooMany(Duration),
    #[error("there is no such organisation or invitation")]
    NotFound,
    #[error(transparent)]
    Database(#[from] wasel_db::Error),
}

/// Invites somebody. What the inviter may do is for the caller of this to check.
pub(crate) async fn invite(
    auth: &AuthContext,
    org: OrgId,
    invited: &Invited<'_>,
) -> Result<Made, InviteError> {
    count(auth, org).await?;
    let mut tx = auth.db.system().await?;
    let organization = organizations::find(&mut tx, org)
        .await?
        .ok_or(InviteError::NotFound)?;
    if profiles::exists_with_email(&mut tx, org, &invited.email).await? {
        return Err(InviteError::Member);
    }
    if !invitations::channels_exist(&mut tx, org, &invited.channel_ids).await? {
        return Err(InviteError::UnknownChannel);
    }
    let new = NewInvitation {
        email: &invited.email,
        role: invited.role.as_str(),
        full_name: invited.full_name,
        channel_ids: &invited.channel_ids,
        invited_by: invited.invited_by,
        lifetime: LIFETIME,
        is_mailed: auth.mailer.is_on(),
    };
    let invitation =
        invitations::insert(&mut tx, org, &new)
            .await
            .map_err(|error| match &error {
                Error::Constraint { constraint, .. } if constraint == invitations::UNIQUE_OPEN => {
                    InviteError::Open
                }
                _ => error.into(),
            })?;
    finish(auth, tx, invitation, &organization, invited.redirect_to).await
}

/// Gives an open invitation new links and its whole time anew; the links before it end.
pub(crate) async fn renew(
    auth: &AuthContext,
    org: OrgId,
    id: Uuid,
    redirect_to: Option<&str>,
) -> Result<Made, InviteError> {
    count(auth, org).await?;
    let mut tx = auth.db.system().await?;
    let organization = organizations::find(&mut tx, org)
        .await?
        .ok_or(InviteError::NotFound)?;
    let invitation = invitations::renew(&mut tx, org, id, LIFETIME, auth.mailer.is_on())
        .await?
        .ok_or(InviteError::NotFound)?;
    finish(auth, tx, invitation, &organization, redirect_to).await
}

async fn count(auth: &AuthContext, org: OrgId) -> Result<(), InviteError> {
    let mut tx = auth.db.system().await?;
    let hour = Duration::from_secs(3600);
    let wait = rate_limits::take(&mut tx, org, "invitations", PER_HOUR, hour).await?;
    tx.commit().await?;
    wait.map_or(Ok(()), |wait| Err(InviteError::TooMany(wait)))
}

/// Commits, then mails.
async fn finish(
    auth: &AuthContext,
    mut tx: SystemTx,
    invitation: Invitation,
    organization: &Organization,
    redirect_to: Option<&str>,
) -> Result<Made, InviteError> {
    let links = insert_links(auth, &mut tx, &invitation, redirect_to).await?;
    tx.commit().await?;
    let is_mailed = match &links.by_mail {
        Some(link) => {
            let letter = Letter::Invitation {
                organization: &organization.name,
                link,
            };
            let content = letter.write(Tongue::of(&organization.locale));
            auth.mailer.post(&invitation.email, content)
        }
        None => false,
    };
    Ok(Made {
        invitation,
        link: links.by_hand,
        is_mailed,
    })
}

struct Links {
    by_hand: String,
    /// Goes into the mail and nowhere else.
    by_mail: Option<String>,
}

/// Gives an invitation new links; earlier ones end.
async fn insert_links(
    auth: &AuthContext,
    tx: &mut SystemTx,
    invitation: &Invitation,
    redirect_to: Option<&str>,
) -> wasel_db::Result<Links> {
    let org = OrgId(invitation.org_id);
    one_time_tokens::delete_of_invitation(tx, org, invitation.id).await?;
    let (by_hand, hand_hash) = new_token();
    let mail = auth.mailer.is_on().then(new_token);
    for (hash, by_mail) in
        std::iter::once((hand_hash, false)).chain(mail.as_ref().map(|(_, hash)| (*hash, true)))
    {
        let token = NewToken {
            hash,
            kind: Kind::Invite,
            subject: Subject::Invitation(org, invitation.id),
            by_mail,
            email: &invitation.email,
            code_hash: None,
            lifetime: LIFETIME,
        };
        one_time_tokens::insert(tx, &token).await?;
    }
    let link = |token: &str| auth.link(token, Kind::Invite, redirect_to);
    Ok(Links {
        by_hand: link(&by_hand),
        by_mail: mail.map(|(token, _)| link(&token)),
    })
}

/// Why an invitation cannot be accepted this way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    /// Unknown, used, taken back, expired, or its inviter may no longer invite.
    #[error("the invitation is invalid or has expired")]
    Invalid,
    /// The link does not show that the account is theirs.
    #[error("there is an account with this address already")]
    HasAccount,
    #[error(transparent)]
    Database(#[from] wasel_db::Error),
}

/// What becomes the account of somebody who has none.
pub(crate) struct NewAccount {
    pub password_hash: PasswordHash,
    pub about: AboutUser,
}

/// How somebody shows that an existing account is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By the link alone, if at all.
    Link,
    /// They gave the account's password.
    Password(UserId),
}

/// An invitation's token that is still good, without using it, and whether its address has an account.
pub(crate) async fn look_up(
    auth: &AuthContext,
    token: &str,
) -> Result<(OneTimeToken, Option<User>), AcceptError> {
    let mut tx = auth.db.system().await?;
    let token = one_time_tokens::find(&mut tx, Kind::Invite, &hash_of(token))
        .await?
        .ok_or(AcceptError::Invalid)?;
    let user = identity::find_user_by_email(&mut tx, &token.email).await?;
    tx.commit().await?;
    Ok((token, user))
}

/// Uses an invitation: the person is a member when this is committed. Returns who, and of which tenant.
pub(crate) async fn accept(
    tx: &mut SystemTx,
    token: &TokenHash,
    proof: Proof,
    new: NewAccount,
) -> Result<(UserId, OrgId), AcceptError> {
    let found = one_time_tokens::find(tx, Kind::Invite, token)
        .await?
        .ok_or(AcceptError::Invalid)?;
    let (Some(org), Some(invitation)) = (found.org_id, found.invitation_id) else {
        return Err(AcceptError::Invalid);
    };
    let org = OrgId(org);
    // First of all: whoever comes at the same time, by this link or the invitation's other one, waits here and then
    // finds the link gone.
    let invitation = invitations::lock(tx, org, invitation)
        .await?
        .ok_or(AcceptError::Invalid)?;
    let token = one_time_tokens::take(tx, Kind::Invite, token)
        .await?
        .ok_or(AcceptError::Invalid)?;
    let existing = identity::find_user_by_email(tx, &token.email).await?;
    let user = match existing {
        None => insert_account(tx, &invitation, &token, &new).await?,
        Some(user) => {
            let id = UserId(user.id);
            match proof {
                Proof::Password(proved) if proved == id => {}
                Proof::Link if token.by_mail => claim(tx, &user, &new.password_hash).await?,
                _ => return Err(AcceptError::HasAccount),
            }
            id
        }
    };
    let invitation = invitations::accept(tx, org, invitation.id, user)
        .await?
        .ok_or(AcceptError::Invalid)?;
    if !may_still_invite(tx, &invitation).await? {
        return Err(AcceptError::Invalid);
    }
    join(tx, &invitation, user).await?;
    one_time_tokens::delete_of_invitation(tx, org, invitation.id).await?;
    Ok((user, org))
}

async fn insert_account(
    tx: &mut SystemTx,
    invitation: &Invitation,
    token: &OneTimeToken,
    new: &NewAccount,
) -> Result<UserId, AcceptError> {
    // The invitation's own id, which is how `inviteUserByEmail` has called them already; unless that person has come
    // and gone under another address.
    let id = UserId(invitation.id);
    let id = match identity::find_user(tx, id).await? {
        None => id,
        Some(_) => UserId::generate(),
    };
    let mut about = new.about.clone();
    about.full_name = about.full_name.or_else(|| invitation.full_name.clone());
    let user = NewUser {
        id,
        email: token.email.clone(),
        password_hash: new.password_hash.clone(),
        full_name: about.full_name.clone(),
        phone: None,
    };
    identity::insert_user(tx, &user)
        .await
        .map_err(|error| match &error {
            Error::Constraint { constraint, .. } if constraint == "users_email" => {
                AcceptError::HasAccount
            }
            _ => error.into(),
        })?;
    identity::update_about(tx, id, &about).await?;
    identity::update_email_confirmed(tx, id, token.by_mail).await?;
    Ok(id)
}

/// Whoever reads this address's mail has shown it. If that was open until now, the account may have been made by
/// somebody else: what they know of it ends.
pub(crate) async fn claim(
    tx: &mut SystemTx,
    user: &User,
    new_password: &PasswordHash,
) -> wasel_db::Result<()> {
    if user.email_confirmed_at.is_some() {
        return Ok(());
    }
    let id = UserId(user.id);
    identity::update_password(tx, id, new_password).await?;
    identity::end_sessions(tx, id, EndSessions::All).await?;
    identity::update_email_confirmed(tx, id, true).await
}

/// Somebody who has left, or may do less now, no longer lets people in.
async fn may_still_invite(tx: &mut SystemTx, invitation: &Invitation) -> Result<bool, AcceptError> {
    let Some(inviter) = invitation.invited_by else {
        return Ok(true);
    };
    let Some(role) = Role::of_profile(&invitation.role) else {
        return Ok(false);
    };
    let memberships = membership::list(tx, UserId(inviter)).await?;
    Ok(memberships.iter().any(|membership| {
        membership.role == Role::SuperAdmin
            || membership.org_id.0 == invitation.org_id && membership.role.may_give(role)
    }))
}

/// Adds the profile and the limits. A member already keeps what they are.
async fn join(
    tx: &mut SystemTx,
    invitation: &Invitation,
    user_id: UserId,
) -> Result<(), AcceptError> {
    let user = identity::find_user(tx, user_id)
        .await?
        .ok_or(AcceptError::Invalid)?;
    let profile = Profile {
        org_id: invitation.org_id,
        id: user.id,
        email: Some(user.email),
        full_name: user.full_name.or_else(|| invitation.full_name.clone()),
        phone: user.phone,
        role: invitation.role.clone(),
    };
    let is_new = profiles::insert(tx, &profile).await?;
    if is_new && !invitation.channel_ids.is_empty() {
        let org = OrgId(invitation.org_id);
        let limits =
            profiles::insert_channel_limits(tx, org, user_id, &invitation.channel_ids).await?;
        if limits == 0 {
            // The channels are gone; without a limit the agent would see all the others.
            return Err(AcceptError::Invalid);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        role: &'static str,
        full_name: &'static str,
        channel_ids: Vec<Uuid>,
    ) -> Asked<'static> {
        Asked {
            email: " Sara@Example.test ",
            role,
            full_name: Some(full_name),
            channel_ids,
            redirect_to: None,
            invited_by: None,
        }
    }

    fn channels(count: u128) -> Vec<Uuid> {
        (0..count).map(Uuid::from_u128).collect()
    }

    #[test]
    fn an_invitation_is_brought_into_one_form() {
        let twice = [channels(100), channels(100)].concat();
        let invited = Invited::check(asked("agent", "  Sara ", twice)).unwrap();
        assert_eq!(invited.email, "sara@example.test");
        assert_eq!(invited.full_name, Some("Sara"));
        assert_eq!(invited.channel_ids, channels(100), "each once");
        let nameless = Invited::check(asked("viewer", "  ", Vec::new())).unwrap();
        assert_eq!(nameless.full_name, None);
    }

    #[test]
    fn what_no_invitation_may_say_is_refused_by_the_name_of_its_field() {
        for (asked, field) in [
            (asked("super_admin", "Sara", Vec::new()), "role"),
            (asked("nobody", "Sara", Vec::new()), "role"),
            (asked("agent", "Sa\nra", Vec::new()), "full_name"),
            (asked("agent", "Sa\0ra", Vec::new()), "full_name"),
            (asked("admin", "Sara", channels(1)), "channel_ids"),
            (asked("agent", "Sara", channels(101)), "channel_ids"),
            (
                Asked {
                    email: "nonsense",
                    ..asked("agent", "Sara", Vec::new())
                },
                "email",
            ),
        ] {
            assert_eq!(Invited::check(asked).unwrap_err().field, field);
        }
    }
}
