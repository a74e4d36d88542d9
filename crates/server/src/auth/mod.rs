//! Who is calling, and in which tenant.
//!
//! - [`Tokens`] verifies and issues JWTs; [`Jwks`] holds an identity provider's public keys.
//! - [`Caller`] is what a request handler asks for: tenant, person, role.
//! - [`sign_in`] is the built-in identity: e-mail and password, rotating refresh tokens.
//!
//! A tenant comes from the `X-Org-Id` header or the token's `app_metadata.org_id`, and either way only counts when
//! the person is a member. `user_metadata` is the user's own to edit and never asked.

mod caller;
mod claims;
#[cfg(test)]
mod database_tests;
mod keys;
mod membership;
pub mod password;
pub mod sign_in;
#[cfg(test)]
pub(crate) mod test_support;
mod throttle;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use wasel_db::Db;

pub use caller::{AuthError, Caller, CallerKind, Role, identify, resolve, resolve_token};
pub(crate) use caller::{bearer, requested_org};
pub use claims::{Claims, TokenError, Verified};
pub use keys::Jwks;
pub use membership::{Membership, choose_org};
pub use throttle::ClientIp;
pub use tokens::{AccessToken, ApiKeyRole, TokenSettings, TokenSubject, Tokens};
pub(crate) use tokens::{app_metadata, user_metadata};

/// What authentication needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuthContext {
    pub db: Db,
    pub tokens: Arc<Tokens>,
    lifetimes: Lifetimes,
    standings: Arc<membership::StandingCache>,
    throttle: Arc<throttle::SignInThrottle>,
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

    #[must_use]
    pub fn new(db: Db, tokens: Arc<Tokens>) -> Self {
        Self {
            db,
            tokens,
            lifetimes: Lifetimes::default(),
            standings: Arc::default(),
            throttle: Arc::default(),
        }
    }
}
