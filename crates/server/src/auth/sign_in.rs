//! The built-in identity: e-mail and password, then refresh tokens that are used once.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use wasel_db::SystemTx;
use wasel_db::identity::{self, Rotation, Session, SignInMethod, TokenHash, User};
use wasel_domain::{OrgId, UserId};

use super::membership::{self, Membership, choose_org};
use super::password::{self, PasswordError};
use super::throttle::{ClientIp, Key};
use super::tokens::IssueError;
use super::{AccessToken, AuthContext, AuthError, TokenSubject};

/// A person signed in.
#[derive(Clone, Debug)]
pub struct Grant {
    pub access: AccessToken,
    pub expires_in: Duration,
    pub refresh_token: String,
    pub user: User,
    /// The tenant in the token.
    pub org_id: Option<OrgId>,
}

#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// No such user or another password: the same to the outside.
    #[error("unknown address or wrong password")]
    InvalidCredentials,
    #[error("too many failed attempts; try again later")]
    TooManyAttempts,
    #[error("unknown refresh token, or its session has ended")]
    RefreshTokenNotFound,
    #[error("the refresh token was used before; its session is ended")]
    RefreshTokenAlreadyUsed,
    /// The person may not have the tenant they asked for.
    #[error(transparent)]
    Org(AuthError),
    #[error(transparent)]
    Database(#[from] wasel_db::Error),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Signs in with e-mail and password. The token names `requested`, else the person's only tenant, else none.
pub async fn with_password(
    auth: &AuthContext,
    email: &str,
    password: &str,
    requested: Option<OrgId>,
    ip: ClientIp,
) -> Result<Grant, SignInError> {
    let email = email.trim();
    let user = prove_password(auth, email, password, ip).await?;
    let mut tx = auth.db.system().await?;
    let method = SignInMethod::Password;
    let grant = open_session(auth, &mut tx, UserId(user.id), requested, method).await?;
    tx.commit().await?;
    Ok(grant)
}

/// Signs somebody in who has proved who they are. The token names `requested`, else the person's only tenant, else
/// none.
pub(crate) async fn open_session(
    auth: &AuthContext,
    tx: &mut SystemTx,
    user: UserId,
    requested: Option<OrgId>,
    method: SignInMethod,
) -> Result<Grant, SignInError> {
    let user_id = user;
    let user = identity::update_last_sign_in(tx, user_id)
        .await?
        .ok_or(SignInError::InvalidCredentials)?;
    let memberships = membership::list(tx, user_id).await?;
    let org_id = match requested {
        Some(_) => Some(
            choose_org(&memberships, requested, None)
                .map_err(SignInError::Org)?
                .org_id,
        ),
        None => default_org(&memberships, None),
    };
    let (refresh_token, hash) = new_token();
    let session = identity::insert_session(tx, user_id, org_id, method, &hash).await?;
    Ok(grant(auth, user, org_id, &session, refresh_token)?)
}

/// Trades a refresh token for new tokens.
pub async fn with_refresh_token(auth: &AuthContext, presented: &str) -> Result<Grant, SignInError> {
    let (refresh_token, hash) = new_token();
    let mut tx = auth.db.system().await?;
    let session = match identity::rotate_refresh_token(
        &mut tx,
        &hash_of(presented),
        &hash,
        auth.lifetimes.refresh_reuse_window,
    )
    .await?
    {
        Rotation::Rotated(session) => session,
        Rotation::NotFound => return Err(SignInError::RefreshTokenNotFound),
        Rotation::AlreadyUsed => {
            tx.commit().await?;
            tracing::warn!("a refresh token came a second time; its session is ended");
            return Err(SignInError::RefreshTokenAlreadyUsed);
        }
    };
    let user_id = UserId(session.user_id);
    let user = identity::find_user(&mut tx, user_id)
        .await?
        .ok_or(SignInError::RefreshTokenNotFound)?;
    let memberships = membership::list(&mut tx, user_id).await?;
    let org_id = default_org(&memberships, session.org_id.map(OrgId));
    let grant = grant(auth, user, org_id, &session, refresh_token)?;
    tx.commit().await?;
    Ok(grant)
}

/// The person with this address, if the password is theirs. Guesses are counted, by person and network and by network
/// alone.
pub(crate) async fn prove_password(
    auth: &AuthContext,
    email: &str,
    password: &str,
    ip: ClientIp,
) -> Result<User, SignInError> {
    let (key, network) = (Key::new(email, ip), Key::of_network(ip));
    let (throttle, by_network) = (&auth.throttles.passwords, &auth.throttles.password_networks);
    let now = Instant::now();
    if !throttle.begin(&key, now) {
        return Err(SignInError::TooManyAttempts);
    }
    if !by_network.begin(&network, now) {
        throttle.refund(&key);
        return Err(SignInError::TooManyAttempts);
    }
    let result = check_password(auth, email, password).await;
    match &result {
        Ok(_) => throttle.clear(&key),
        Err(SignInError::InvalidCredentials) => return result,
        Err(_) => throttle.refund(&key),
    }
    by_network.refund(&network);
    result
}

async fn check_password(
    auth: &AuthContext,
    email: &str,
    password: &str,
) -> Result<User, SignInError> {
    // The transaction ends before the hashing: that takes long.
    let user = {
        let mut tx = auth.db.system().await?;
        let user = identity::find_user_by_email(&mut tx, email).await?;
        tx.commit().await?;
        user
    };
    let fits = password::verify(password, user.as_ref().map(|user| &user.password_hash)).await?;
    user.filter(|_| fits).ok_or(SignInError::InvalidCredentials)
}

/// The tenant chosen at sign-in while the person is still in it, else their only one. A person with several who named
/// none gets a token without, and names one with each request.
fn default_org(memberships: &[Membership], chosen: Option<OrgId>) -> Option<OrgId> {
    let chosen =
        choose_org(memberships, None, chosen).or_else(|_| choose_org(memberships, None, None));
    chosen.ok().map(|membership| membership.org_id)
}

fn grant(
    auth: &AuthContext,
    user: User,
    org_id: Option<OrgId>,
    session: &Session,
    refresh_token: String,
) -> Result<Grant, IssueError> {
    let subject = TokenSubject {
        user: &user,
        org_id,
        session_id: Some(session.id),
        method: session.method,
        authenticated_at: session.created_at,
    };
    let access = auth.tokens.issue(&subject, auth.lifetimes.access_token)?;
    Ok(Grant {
        access,
        expires_in: auth.lifetimes.access_token,
        refresh_token,
        user,
        org_id,
    })
}

/// A secret that nobody guesses, and what is stored of it.
pub(crate) fn new_token() -> (String, TokenHash) {
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let hash = hash_of(&token);
    (token, hash)
}

pub(crate) fn hash_of(token: &str) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::Role;
    use super::*;

    #[test]
    fn a_token_names_the_chosen_tenant_only_while_the_person_is_in_it() {
        let org = |n| OrgId(Uuid::from_u128(n));
        let member = |n| Membership {
            org_id: org(n),
            role: Role::Agent,
        };
        assert_eq!(default_org(&[], None), None);
        assert_eq!(default_org(&[member(1)], None), Some(org(1)));
        assert_eq!(default_org(&[member(1), member(2)], None), None);
        assert_eq!(
            default_org(&[member(1), member(2)], Some(org(2))),
            Some(org(2))
        );
        assert_eq!(default_org(&[member(1), member(2)], Some(org(9))), None);
        assert_eq!(default_org(&[member(1)], Some(org(9))), Some(org(1)));
    }

    #[test]
    fn refresh_tokens_differ_and_are_stored_as_their_sha_256() {
        let (token, hash) = new_token();
        assert_ne!(new_token().0, token);
        assert_eq!(hash_of(&token), hash);
        assert_eq!(
            hex::encode(hash_of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
