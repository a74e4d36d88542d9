//! What a token whose signature holds says, and whether it makes sense.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;
use wasel_domain::{OrgId, UserId};

/// Who a token may be for, where it says so.
const AUDIENCES: [&str; 3] = ["authenticated", "anon", "service_role"];

/// What a good bearer token says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verified {
    /// The anon or publishable key: nobody in particular.
    Anonymous,
    User(Claims),
    /// The service-role key: the operator's own servers.
    Service,
}

/// The claims of a user's token that count here.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    pub sub: UserId,
    pub role: String,
    pub expires_at: DateTime<Utc>,
    pub issued_at: Option<DateTime<Utc>>,
    /// `app_metadata.org_id`, which users cannot edit.
    pub org_id: Option<OrgId>,
    pub email: Option<String>,
    pub session_id: Option<Uuid>,
    /// This server issued it, so its session is one of ours and can end before the token does.
    pub is_ours: bool,
}

/// Why a bearer token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token's signature is wrong, or made with a key this server does not know")]
    BadSignature,
    /// Neither a JWT nor a key of ours; or a JWT we can make nothing of. Says what.
    #[error("the token cannot be used: {0}")]
    Malformed(&'static str),
    /// Temporary: answer 503.
    #[error("the identity provider's keys could not be fetched")]
    KeysUnavailable,
}

/// Claims as they arrive.
#[derive(Deserialize)]
pub(crate) struct RawClaims {
    sub: Option<String>,
    role: Option<String>,
    /// Not always a text; another issuer's is of no interest.
    iss: Option<Value>,
    aud: Option<Audience>,
    /// Seconds since 1970; some issuers write fractions. The decoder has insisted on it.
    exp: Option<f64>,
    iat: Option<f64>,
    #[serde(default, deserialize_with = "object_or_default")]
    app_metadata: AppMetadata,
    email: Option<String>,
    session_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct AppMetadata {
    org_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

fn object_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AppMetadata, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl RawClaims {
    /// `by_secret`: signed with our own secret and not by an identity provider. `issuer`: our name in tokens.
    pub(crate) fn judge(self, by_secret: bool, issuer: &str) -> Result<Verified, TokenError> {
        let ours = |audience: &String| AUDIENCES.contains(&audience.as_str());
        match &self.aud {
            None => {}
            Some(Audience::One(audience)) if audience.is_empty() || ours(audience) => {}
            Some(Audience::Many(audiences)) if audiences.iter().any(ours) => {}
            Some(_) => return Err(TokenError::Malformed("it is meant for another audience")),
        }
        match self.role.as_deref() {
            Some("authenticated") => {
                let is_ours =
                    by_secret && self.iss.as_ref().and_then(Value::as_str) == Some(issuer);
                self.user(is_ours).map(Verified::User)
            }
            Some("anon") => Ok(Verified::Anonymous),
            // A foreign identity provider vouches for people, not for the operator.
            Some("service_role") if by_secret => Ok(Verified::Service),
            Some(_) => Err(TokenError::Malformed(
                "its role is not one this server accepts",
            )),
            None => Err(TokenError::Malformed("claim role is missing")),
        }
    }

    fn user(self, is_ours: bool) -> Result<Claims, TokenError> {
        let sub = self
            .sub
            .as_deref()
            .ok_or(TokenError::Malformed("claim sub is missing"))?;
        let sub = sub
            .parse()
            .map_err(|_| TokenError::Malformed("claim sub is not a UUID"))?;
        let org_id = self.app_metadata.org_id.filter(|id| !id.is_empty());
        let org_id = org_id.map(|id| id.parse()).transpose();
        let org_id =
            org_id.map_err(|_| TokenError::Malformed("app_metadata.org_id is not a UUID"))?;
        let session_id = self.session_id.filter(|id| !id.is_empty());
        let session_id = session_id.map(|id| id.parse()).transpose();
        let session_id =
            session_id.map_err(|_| TokenError::Malformed("claim session_id is not a UUID"))?;
        Ok(Claims {
            sub,
            role: "authenticated".to_owned(),
            expires_at: self
                .exp
                .and_then(time)
                .ok_or(TokenError::Malformed("claim exp is no time"))?,
            issued_at: self.iat.and_then(time),
            org_id,
            email: self.email.filter(|email| !email.is_empty()),
            session_id,
            is_ours,
        })
    }
}

fn time(seconds: f64) -> Option<DateTime<Utc>> {
    // Saturates where it does not fit, and chrono refuses what is out of its range.
    DateTime::from_timestamp(seconds as i64, 0)
}
