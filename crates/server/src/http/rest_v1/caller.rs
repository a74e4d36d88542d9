//! With whose rights a request runs.

use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use wasel_db::{Actor, TenantClaims};
use wasel_rest::RestError;

use super::exchange::Refused;
use super::places::Holder;
use crate::auth::{self, AuthError, CallerKind, Verified, requested_org};
use crate::state::AppState;

/// How long a statement may take: Supabase's figures.
const ANONYMOUS_TIME: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(8);

pub(super) enum Who {
    /// The anon key, any publishable key, or none.
    Anonymous,
    Tenant {
        claims: TenantClaims,
        is_service: bool,
    },
    /// The service-role key without a tenant: it sees them all, as with PostgREST.
    Operator,
}

impl Who {
    pub async fn of(state: &AppState, headers: &HeaderMap) -> Result<Self, Refused> {
        if !headers.contains_key(AUTHORIZATION) && !headers.contains_key("apikey") {
            return Ok(Self::Anonymous);
        }
        match auth::identify(&state.auth, headers).await? {
            Verified::Anonymous => return Ok(Self::Anonymous),
            Verified::Service if requested_org(headers)?.is_none() => return Ok(Self::Operator),
            Verified::Service | Verified::User(_) => {}
        }
        let caller = auth::resolve(&state.auth, headers).await?;
        Ok(Self::Tenant {
            claims: caller.claims(),
            is_service: caller.kind == CallerKind::Service,
        })
    }

    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }

    pub fn is_service(&self) -> bool {
        matches!(
            self,
            Self::Operator
                | Self::Tenant {
                    is_service: true,
                    ..
                }
        )
    }

    pub fn actor(&self) -> Actor<'_> {
        match self {
            Self::Anonymous => Actor::Anonymous,
            Self::Tenant { claims, .. } => Actor::Tenant(claims),
            Self::Operator => Actor::Operator,
        }
    }

    pub fn holder(&self) -> Holder {
        match self {
            Self::Anonymous => Holder::Strangers,
            Self::Tenant { claims, .. } => Holder::Tenant(claims.org_id),
            Self::Operator => Holder::Operator,
        }
    }

    pub fn time(&self) -> Duration {
        if self.is_anonymous() {
            ANONYMOUS_TIME
        } else {
            TIME
        }
    }
}

impl From<AuthError> for Refused {
    fn from(error: AuthError) -> Self {
        let (code, message) = match error.code {
            "token_expired" => ("PGRST303", "JWT expired".to_owned()),
            "token_invalid" | "unauthenticated" => ("PGRST301", error.message),
            "unavailable" => ("PGRST001", error.message),
            // Ours: PostgREST knows no tenants.
            other => (other, error.message),
        };
        RestError::new(error.status.as_u16(), code, message).into()
    }
}
