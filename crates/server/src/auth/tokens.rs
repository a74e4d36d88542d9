//! JSON Web Tokens in the shape of Supabase Auth: verifying anybody's, issuing our own.

use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;
use wasel_db::identity::{SignInMethod, TokenHash, User};
use wasel_domain::OrgId;

use super::claims::{RawClaims, TokenError, Verified};
use super::keys::{Jwks, KeyError};

/// Clocks may differ by so much, in seconds. PostgREST's figure.
const LEEWAY: u64 = 30;
const KEY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What [`Tokens`] is made of.
#[derive(Clone)]
pub struct TokenSettings {
    /// The HS256 secret, as raw bytes (Supabase does not decode it).
    pub jwt_secret: String,
    /// Public keys of an identity provider whose tokens count too.
    pub jwks: Option<Jwks>,
    /// A key with no rights of its own: a JWT or `sb_publishable_…`.
    pub anon_key: Option<String>,
    /// The key of the operator's own servers: a JWT or `sb_secret_…`.
    pub service_role_key: Option<String>,
    /// Where this server is reached; the issuer of its tokens is `<public_url>/auth/v1`.
    pub public_url: Url,
}

/// Verifies bearer tokens and issues them.
pub struct Tokens {
    decoding: DecodingKey,
    encoding: EncodingKey,
    jwks: Option<Jwks>,
    anon_key: Option<Fingerprint>,
    service_role_key: Option<Fingerprint>,
    issuer: String,
    public_url: Url,
    /// Keys the hashes of short codes.
    codes: hmac::Key,
}

/// Issuing failed. Only a defect in the signing library can do that.
#[derive(Debug, thiserror::Error)]
#[error("signing a token failed: {0}")]
pub struct IssueError(#[from] jsonwebtoken::errors::Error);

/// Whom an access token is for.
#[derive(Clone, Copy, Debug)]
pub struct TokenSubject<'a> {
    pub user: &'a User,
    /// Goes into `app_metadata.org_id`.
    pub org_id: Option<OrgId>,
    /// `None` for a token that belongs to no sign-in and lives until it expires (`wasel token`).
    pub session_id: Option<Uuid>,
    pub method: SignInMethod,
    /// When the person showed who they are.
    pub authenticated_at: DateTime<Utc>,
}

#[derive(Clone, Debug)]
pub struct AccessToken {
    pub token: String,
    pub expires_at: DateTime<Utc>,
}

/// The two keys a Supabase client is set up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyRole {
    Anon,
    ServiceRole,
}

impl Tokens {
    #[must_use]
    pub fn new(settings: TokenSettings) -> Self {
        let secret = settings.jwt_secret.as_bytes();
        let of_secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let codes = hmac::sign(&of_secret, b"codes that are good once");
        let given = |key: Option<String>| {
            key.filter(|key| !key.is_empty())
                .map(|key| Fingerprint::new(&key))
        };
        Self {
            decoding: DecodingKey::from_secret(secret),
            encoding: EncodingKey::from_secret(secret),
            jwks: settings.jwks,
            anon_key: given(settings.anon_key),
            service_role_key: given(settings.service_role_key),
            issuer: format!(
                "{}/auth/v1",
                settings.public_url.as_str().trim_end_matches('/')
            ),
            public_url: settings.public_url,
            codes: hmac::Key::new(hmac::HMAC_SHA256, codes.as_ref()),
        }
    }

    pub(crate) fn public_url(&self) -> &Url {
        &self.public_url
    }

    /// Our name in tokens, which is also where our `/auth/v1` is.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What is stored of a short code sent to an address. Without the secret nobody finds the code by trying all.
    pub(crate) fn code_hash(&self, email: &str, code: &str) -> TokenHash {
        let tag = hmac::sign(
            &self.codes,
            format!("{}\n{code}", email.to_lowercase()).as_bytes(),
        );
        let mut hash = TokenHash::default();
        hash.copy_from_slice(tag.as_ref());
        hash
    }

    /// Reads a bearer token. Only a key set's address can make it wait, and HS256 never does.
    pub async fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        if self
            .service_role_key
            .as_ref()
            .is_some_and(|key| key.matches(token))
        {
            return Ok(Verified::Service);
        }
        if self.anon_key.as_ref().is_some_and(|key| key.matches(token)) {
            return Ok(Verified::Anonymous);
        }
        if token.starts_with("sb_publishable_") {
            // Opaque, public, and worth nothing: any is as good as none.
            return Ok(Verified::Anonymous);
        }
        if token.starts_with("sb_") {
            return Err(TokenError::BadSignature);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| refusal(&error))?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed(
                "it demands extensions this server does not know",
            ));
        }
        // The algorithm decides which kind of key is looked for, and only that kind is tried with it: a public key can
        // never be taken for a secret.
        let (key, by_secret) = match header.alg {
            Algorithm::HS256 => (self.decoding.clone(), true),
            Algorithm::ES256 | Algorithm::RS256 => (
                self.public_key(header.kid.as_deref(), header.alg).await?,
                false,
            ),
            _ => {
                return Err(TokenError::Malformed(
                    "its algorithm is not one of HS256, ES256, RS256",
                ));
            }
        };
        let claims = decode(token, &key, header.alg)?;
        claims.judge(by_secret, &self.issuer)
    }

    async fn public_key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, TokenError> {
        let Some(jwks) = &self.jwks else {
            return Err(TokenError::BadSignature);
        };
        jwks.find(id, algorithm).await.map_err(|error| match error {
            KeyError::Unknown => TokenError::BadSignature,
            KeyError::Unavailable => TokenError::KeysUnavailable,
        })
    }

    /// A user's access token, valid for `lifetime`.
    pub fn issue(
        &self,
        subject: &TokenSubject<'_>,
        lifetime: Duration,
    ) -> Result<AccessToken, IssueError> {
        let now = Utc::now();
        let expires_at = now + lifetime;
        let user = subject.user;
        let mut claims = json!({
            "iss": self.issuer,
            "aud": "authenticated",
            "sub": user.id,
            "iat": now.timestamp(),
            "exp": expires_at.timestamp(),
            "email": user.email,
            "phone": user.phone.as_deref().unwrap_or(""),
            "app_metadata": app_metadata(subject.org_id),
            "user_metadata": user_metadata(user),
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{ "method": subject.method.as_str(), "timestamp": subject.authenticated_at.timestamp() }],
            "is_anonymous": false,
        });
        if let Some(session) = subject.session_id {
            claims["session_id"] = json!(session);
        }
        Ok(AccessToken {
            token: self.sign(&claims)?,
            expires_at,
        })
    }

    /// An anon or service-role key, good for ten years.
    pub fn issue_key(&self, role: ApiKeyRole) -> Result<String, IssueError> {
        let now = Utc::now();
        let role = match role {
            ApiKeyRole::Anon => "anon",
            ApiKeyRole::ServiceRole => "service_role",
        };
        let expires_at = now + KEY_LIFETIME;
        self.sign(&json!({
            "iss": "wasel",
            "role": role,
            "iat": now.timestamp(),
            "exp": expires_at.timestamp(),
        }))
    }

    fn sign(&self, claims: &Value) -> Result<String, IssueError> {
        Ok(jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            claims,
            &self.encoding,
        )?)
    }
}

/// `app_metadata` as in tokens and in the User object.
pub(crate) fn app_metadata(org: Option<OrgId>) -> Value {
    let mut metadata = json!({ "provider": "email", "providers": ["email"] });
    if let Some(org) = org {
        metadata["org_id"] = json!(org);
    }
    metadata
}

/// `user_metadata` as in tokens and in the User object.
pub(crate) fn user_metadata(user: &User) -> Value {
    let mut metadata = user.user_metadata.0.clone();
    for (key, value) in [("full_name", &user.full_name), ("locale", &user.locale)] {
        if let Some(value) = value {
            metadata.insert(key.to_owned(), json!(value));
        }
    }
    Value::Object(metadata)
}

impl std::fmt::Debug for TokenSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSettings")
            .field("public_url", &self.public_url.as_str())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// A key to compare with, without keeping it and without telling by the time taken how much of it was right.
struct Fingerprint {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Fingerprint {
    fn new(secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        let tag = hmac::sign(&key, secret.as_bytes());
        Self { key, tag }
    }

    fn matches(&self, candidate: &str) -> bool {
        hmac::verify(&self.key, candidate.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

fn decode(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<RawClaims, TokenError> {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    // By hand: an audience may be absent, but not foreign.
    validation.validate_aud = false;
    jsonwebtoken::decode(token, key, &validation)
        .map(|data| data.claims)
        .map_err(|error| refusal(&error))
}

fn refusal(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::BadSignature,
        ErrorKind::MissingRequiredClaim(_) => TokenError::Malformed("claim exp is missing"),
        ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
            TokenError::Malformed("a claim has the wrong form")
        }
        _ => TokenError::Malformed("it is not a JWT"),
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
