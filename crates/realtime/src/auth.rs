//! Who a socket speaks for, and the words in which a refusal reaches the client.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Tenant. Without one nothing can be joined.
    pub org_id: Option<Uuid>,
    /// Database role, or any finer role that the catalog's `roles` name.
    pub role: String,
    /// The person, absent for keys.
    pub user_id: Option<Uuid>,
    /// End of validity; `None` never ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// Messaging channels whose rows may be seen; `None` means all of the tenant's.
    pub channels: Option<Arc<[Uuid]>>,
}

/// Verifies tokens. The server implements it over its own key material and database.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Verifies a token that a client sent in a join, in `access_token` or as its `apikey`, and again every few minutes while it is in
    /// use. [`ErrorCode::UnknownErrorOnChannel`] means that it could not be verified now (the database is away): a
    /// channel that is live then stays so. `org_id` is the tenant that the connection names, for people in several and
    /// for keys of none.
    async fn authorize(&self, token: &str, org_id: Option<Uuid>) -> Result<Claims, TokenError>;

    /// What the claims open on a private topic, named without `realtime:`; [`ErrorCode::Unauthorized`] when nothing.
    /// Asked at the join and whenever the token is verified again.
    async fn open_private(&self, claims: &Claims, topic: &str) -> Result<TopicRights, TokenError>;
}

/// What somebody may do on a topic they may listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRights {
    /// Send broadcasts and track presence.
    pub send: bool,
}

/// Codes that `@supabase/supabase-js` users see in front of the text of a refusal (Supabase's list of operational codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    InvalidJwtToken,
    MalformedJwt,
    JwtSignatureError,
    JwtSignerError,
    Unauthorized,
    TopicNameRequired,
    ChannelRateLimitReached,
    ClientJoinRateLimitReached,
    ClientPresenceRateLimitReached,
    UnknownErrorOnChannel,
}

impl ErrorCode {
    /// The code as written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJwtToken => "InvalidJWTToken",
            Self::MalformedJwt => "MalformedJWT",
            Self::JwtSignatureError => "JwtSignatureError",
            Self::JwtSignerError => "JwtSignerError",
            Self::Unauthorized => "Unauthorized",
            Self::TopicNameRequired => "TopicNameRequired",
            Self::ChannelRateLimitReached => "ChannelRateLimitReached",
            Self::ClientJoinRateLimitReached => "ClientJoinRateLimitReached",
            Self::ClientPresenceRateLimitReached => "ClientPresenceRateLimitReached",
            Self::UnknownErrorOnChannel => "UnknownErrorOnChannel",
        }
    }
}

/// Why a token was refused. Shown to the client: it must hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct TokenError {
    pub code: ErrorCode,
    pub message: String,
}

impl TokenError {
    /// A refusal with this code and text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The refusal of a token that ended before `now`.
    pub fn expired(expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        let seconds = (now - expires_at).num_seconds().max(0);
        Self::new(
            ErrorCode::InvalidJwtToken,
            format!("Token has expired {seconds} seconds ago"),
        )
    }
}

/// True for what clients send in the place of a token without meaning one: opaque keys of the new form.
pub(crate) fn is_opaque_key(token: &str) -> bool {
    token.is_empty() || token.starts_with("sb_")
}

/// What a channel may see, taken from claims that were found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub org_id: Uuid,
    pub user_id: Option<Uuid>,
    pub scope: Scope,
    pub expires_at: Option<DateTime<Utc>>,
}

/// The part of the claims on which the visibility of a change depends. Sockets with equal scopes share decisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub role: Arc<str>,
    /// Sorted, so that equal sets are equal.
    pub channels: Option<Arc<[Uuid]>>,
}

impl Scope {
    /// Whether a row of this messaging channel may be seen. Rows of no channel belong to the whole tenant.
    pub fn sees(&self, channel_id: Option<Uuid>) -> bool {
        match (&self.channels, channel_id) {
            (None, _) | (_, None) => true,
            (Some(channels), Some(id)) => channels.binary_search(&id).is_ok(),
        }
    }
}

impl Access {
    /// Checks that the claims open something. A refusal here makes the client come back with its newest token.
    pub fn from_claims(claims: &Claims, now: DateTime<Utc>) -> Result<Self, TokenError> {
        if let Some(expires_at) = claims.expires_at
            && expires_at <= now
        {
            return Err(TokenError::expired(expires_at, now));
        }
        let Some(org_id) = claims.org_id else {
            return Err(TokenError::new(
                ErrorCode::Unauthorized,
                "The token names no organization. Sign in, or use a token that carries one",
            ));
        };
        if claims.role == "anon" {
            return Err(TokenError::new(
                ErrorCode::Unauthorized,
                "The role anon may not join channels",
            ));
        }
        let channels = claims.channels.as_ref().map(|channels| {
            let mut sorted = channels.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            Arc::from(sorted)
        });
        Ok(Self {
            org_id,
            user_id: claims.user_id,
            scope: Scope {
                role: Arc::from(claims.role.as_str()),
                channels,
            },
            expires_at: claims.expires_at,
        })
    }
}
