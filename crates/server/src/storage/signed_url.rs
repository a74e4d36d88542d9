//! Addresses that let whoever has them fetch or upload one file for a while.

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wasel_db::storage::BUCKET;
use wasel_domain::OrgId;
use wasel_domain::storage_path::ObjectName;

/// What a token is good for; never for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Download,
    Upload,
}

impl Use {
    fn audience(self) -> &'static str {
        match self {
            Self::Download => "wasel:storage:download",
            Self::Upload => "wasel:storage:upload",
        }
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUrl {
    /// Bucket and name. A token opens no other path than this one.
    url: String,
    pub org_id: Uuid,
    /// Who made an upload address, and owns what comes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Uuid>,
    /// Whether an upload may replace a file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upsert: bool,
    iat: i64,
    exp: i64,
    aud: String,
}

impl SignedUrl {
    #[must_use]
    pub fn new(purpose: Use, org: OrgId, name: &ObjectName, lifetime: TimeDelta) -> Self {
        let now = Utc::now();
        Self {
            url: format!("{BUCKET}/{name}"),
            org_id: org.0,
            owner: None,
            upsert: false,
            iat: now.timestamp(),
            exp: (now + lifetime).timestamp(),
            aud: purpose.audience().to_owned(),
        }
    }

    #[must_use]
    pub fn expires_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.exp, 0).unwrap_or_default()
    }
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("\"exp\" claim timestamp check failed")]
    Expired,
    #[error("the token is not one of this server, or not for this")]
    Invalid,
    #[error("the token is for another path")]
    OtherPath,
}

/// Makes and reads the tokens. Their key follows from the JWT secret and is another one, so that none of them is ever
/// taken for a person's token, nor the other way round. A new JWT secret ends them all.
#[derive(Clone)]
pub struct UrlSigner {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl UrlSigner {
    #[must_use]
    pub fn new(jwt_secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, jwt_secret.as_bytes());
        let derived = hmac::sign(&key, b"wasel storage addresses, version 1");
        Self {
            encoding: EncodingKey::from_secret(derived.as_ref()),
            decoding: DecodingKey::from_secret(derived.as_ref()),
        }
    }

    /// # Errors
    /// Only a defect in the signing library can do that.
    pub fn sign(&self, url: &SignedUrl) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), url, &self.encoding)
    }

    /// Reads a token that came with a request for `name`.
    ///
    /// # Errors
    /// When it was made by somebody else, for another use or path, or is too old.
    pub fn verify(
        &self,
        token: &str,
        purpose: Use,
        name: &ObjectName,
    ) -> Result<SignedUrl, BadToken> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[purpose.audience()]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        validation.leeway = 0;
        let url = jsonwebtoken::decode::<SignedUrl>(token, &self.decoding, &validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => BadToken::Expired,
                _ => BadToken::Invalid,
            })?
            .claims;
        if url.url != format!("{BUCKET}/{name}") {
            return Err(BadToken::OtherPath);
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    #[test]
    fn a_token_opens_its_path_for_its_use_until_its_time() {
        let signer = UrlSigner::new("a secret of at least thirty-two bytes, really");
        let org = OrgId(Uuid::now_v7());
        let url = SignedUrl::new(Use::Download, org, &name("a/b.jpg"), TimeDelta::seconds(60));
        let token = signer.sign(&url).unwrap();
        assert_eq!(
            signer.verify(&token, Use::Download, &name("a/b.jpg")),
            Ok(url)
        );
        let refused = |signer: &UrlSigner, token: &str, purpose, path: &str| {
            signer.verify(token, purpose, &name(path)).unwrap_err()
        };
        assert_eq!(
            refused(&signer, &token, Use::Download, "a/c.jpg"),
            BadToken::OtherPath
        );
        assert_eq!(
            refused(&signer, &token, Use::Upload, "a/b.jpg"),
            BadToken::Invalid
        );
        assert_eq!(
            refused(&signer, "x.y.z", Use::Download, "a/b.jpg"),
            BadToken::Invalid
        );
        let other = UrlSigner::new("another secret of at least thirty-two bytes");
        assert_eq!(
            refused(&other, &token, Use::Download, "a/b.jpg"),
            BadToken::Invalid
        );
        let old = SignedUrl::new(Use::Download, org, &name("a/b.jpg"), TimeDelta::seconds(-2));
        let old = signer.sign(&old).unwrap();
        assert_eq!(
            refused(&signer, &old, Use::Download, "a/b.jpg"),
            BadToken::Expired
        );
    }

    #[test]
    fn it_is_signed_with_another_key_than_peoples_tokens() {
        let secret = "a secret of at least thirty-two bytes, really";
        let url = SignedUrl::new(
            Use::Download,
            OrgId(Uuid::now_v7()),
            &name("a"),
            TimeDelta::seconds(60),
        );
        let forged = jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &url,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap();
        let signer = UrlSigner::new(secret);
        assert_eq!(
            signer.verify(&forged, Use::Download, &name("a")),
            Err(BadToken::Invalid)
        );
    }
}
