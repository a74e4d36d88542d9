//! Who is calling, and in which tenant.
//!
//! - [`Tokens`] verifies and issues JWTs; [`Jwks`] holds an identity provider's public keys.
//! - [`Caller`] is what a request handler asks for: tenant, person, role.
//! - [`sign_in`] is the built-in identity: e-mail and password, rotating refresh tokens; `invitations` and `recovery`
//!   are the ways in without a password; `mail` sends what `letters` writes.
//!
//! A tenant comes from the `X-Org-Id` header or the token's `app_metadata.org_id`, and either way only counts when
//! the person is a member. `user_metadata` is the user's own to edit and never asked.

mod caller;
mod claims;
#[cfg(test)]
mod database_tests;
pub(crate) mod invitations;
mod keys;
mod letters;
mod mail;
mod membership;
pub mod password;
pub(crate) mod recovery;
pub mod sign_in;
mod site;
#[cfg(test)]
pub(crate) mod test_support;
mod throttle;
mod tokens;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

pub use wasel_db::identity::SignInMethod;
use wasel_db::one_time_tokens::Kind;
use wasel_db::{Db, SystemTx};
use wasel_domain::{OrgId, UserId};
use wasel_realtime::Hub;

pub use caller::{AuthError, Caller, CallerKind, Role, identify, resolve, resolve_token};
pub(crate) use caller::{bearer, requested_org};
pub use claims::{Claims, TokenError, Verified};
pub use keys::Jwks;
pub(crate) use letters::{Tongue, escape};
pub use mail::Mailer;
pub use membership::{Membership, choose_org};
pub use site::Site;
pub use throttle::ClientIp;
pub(crate) use throttle::Key as ThrottleKey;
pub use tokens::{AccessToken, ApiKeyRole, TokenSettings, TokenSubject, Tokens};
pub(crate) use tokens::{app_metadata, user_metadata};

/// What authentication needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuthContext {
    pub db: Db,
    pub tokens: Arc<Tokens>,
    lifetimes: Lifetimes,
    standings: Arc<membership::StandingCache>,
    pub(crate) throttles: Arc<throttle::Throttles>,
    pub(crate) mailer: Mailer,
    pub(crate) site: Arc<Site>,
    /// Whose sockets close when somebody is signed out; set once the hub, which asks us who may listen, exists.
    hub: Arc<OnceLock<Weak<Hub>>>,
}

/// How long what a sign-in gives is good for.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    pub access_token: Duration,
    /// How long a used refresh token is accepted again, for tabs that refresh at once.
    pub refresh_reuse_window: Duration,
}

/// Supabase's.
impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access_token: Duration::from_secs(3600),
            refresh_reuse_window: Duration::from_secs(10),
        }
    }
}

impl AuthContext {
    /// To be called when somebody's membership or limits changed: what was found for them no longer counts.
    pub fn forget_standing(&self, user: wasel_domain::UserId) {
        self.standings.forget(user);
    }

    #[must_use]
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// With mails in the server's own name.
    #[must_use]
    pub fn with_mailer(self, mailer: Mailer) -> Self {
        Self { mailer, ..self }
    }

    /// With the pages that may be handed a session.
    #[must_use]
    pub fn with_site(self, site: Site) -> Self {
        Self {
            site: Arc::new(site),
            ..self
        }
    }

    /// Lets this hub close the sockets of people who are signed out. To be called once.
    pub fn tell(&self, hub: &Arc<Hub>) {
        if self.hub.set(Arc::downgrade(hub)).is_err() {
            tracing::error!("authentication was given a second hub");
        }
    }

    /// The person was signed out somewhere or may do something else now: requests and sockets are checked anew at
    /// once on this node, and within half a minute on others. After the commit.
    pub(crate) fn people_changed(&self, user: UserId, orgs: &[OrgId]) {
        self.standings.forget(user);
        if let Some(hub) = self.hub.get().and_then(Weak::upgrade) {
            for org in orgs {
                hub.recheck(org.0, Some(user.0));
            }
        }
    }

    /// The tenants a person is in.
    pub(crate) async fn orgs_of(
        &self,
        tx: &mut SystemTx,
        user: UserId,
    ) -> wasel_db::Result<Vec<OrgId>> {
        let memberships = membership::list(tx, user).await?;
        Ok(memberships
            .iter()
            .map(|membership| membership.org_id)
            .collect())
    }

    /// Where a mail's link leads.
    pub(crate) fn link(&self, token: &str, kind: Kind, redirect_to: Option<&str>) -> String {
        let landing = redirect_to.and_then(|asked| self.site.allowed(asked));
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("token", token);
        query.append_pair("type", kind.as_str());
        if let Some(landing) = landing {
            query.append_pair("redirect_to", landing.as_str());
        }
        format!("{}/verify?{}", self.tokens.issuer(), query.finish())
    }

    #[must_use]
    pub fn new(db: Db, tokens: Arc<Tokens>) -> Self {
        let site = Site::new(tokens.public_url().clone(), &[]);
        Self {
            db,
            tokens,
            lifetimes: Lifetimes::default(),
            standings: Arc::default(),
            throttles: Arc::default(),
            mailer: Mailer::default(),
            site: Arc::new(site),
            hub: Arc::default(),
        }
    }
}
