//! The public keys of an identity provider, from its JWKS address (RFC 7517).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

/// Keys older than this are fetched again, in the background.
const FRESH_FOR: Duration = Duration::from_secs(10 * 60);
/// A token may name any key id it likes: it makes us fetch no oftener than this.
const GAP: Duration = Duration::from_secs(30);
/// The same before the first success, when every token is waiting for it.
const FIRST_GAP: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A real key set has some hundred bytes per key.
const MAX_BYTES: usize = 256 * 1024;

/// Keys of one JWKS address: cached, fetched again when old or when a token names an unknown one, kept when fetching
/// fails.
#[derive(Clone, Debug)]
pub struct Jwks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: Url,
    http: reqwest::Client,
    gap: Duration,
    state: Mutex<State>,
    /// One fetch at a time; those who need its result wait for it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<Key>,
    fetched_at: Option<Instant>,
    tried_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// Why there is no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("no such key")]
    Unknown,
    #[error("the keys have never been fetched")]
    Unavailable,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("the answer is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the answer is no key set: {0}")]
    Json(#[from] serde_json::Error),
}

impl Jwks {
    /// Fetches nothing yet.
    #[must_use]
    pub fn new(url: Url, http: reqwest::Client) -> Self {
        Self::with_gap(url, http, GAP)
    }

    fn with_gap(url: Url, http: reqwest::Client, gap: Duration) -> Self {
        Self(Arc::new(Inner {
            url,
            http,
            gap,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }))
    }

    /// The key a token's header asks for. It must suit the algorithm: a symmetric key in a key set is never one.
    pub(crate) async fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, KeyError> {
        let found = self.0.lock().find(id, algorithm);
        match found {
            Some(key) => {
                if self.0.lock().wants_refresh() {
                    let inner = Arc::clone(&self.0);
                    tokio::spawn(async move { inner.refresh(|state| state.wants_refresh()).await });
                }
                Ok(key)
            }
            None => {
                self.0
                    .refresh(|state| state.find(id, algorithm).is_none())
                    .await;
                let state = self.0.lock();
                let missing = if state.fetched_at.is_some() {
                    KeyError::Unknown
                } else {
                    KeyError::Unavailable
                };
                state.find(id, algorithm).ok_or(missing)
            }
        }
    }
}

impl Inner {
    /// Fetches, unless it was tried a moment ago or, once it is our turn, nobody needs it any more.
    async fn refresh(&self, needed: impl Fn(&State) -> bool) {
        let _turn = self.fetching.lock().await;
        {
            let mut state = self.lock();
            let gap = if state.fetched_at.is_some() {
                self.gap
            } else {
                self.gap.min(FIRST_GAP)
            };
            let recent = state.tried_at.is_some_and(|tried| tried.elapsed() < gap);
            if recent || !needed(&state) {
                return;
            }
            state.tried_at = Some(Instant::now());
        }
        match self.fetch().await {
            Ok(keys) => {
                let mut state = self.lock();
                state.keys = keys;
                state.fetched_at = Some(Instant::now());
            }
            Err(error) => {
                tracing::warn!(%error, "fetching the identity provider's keys failed; keeping the old ones")
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        let request = self.http.get(self.url.clone()).timeout(FETCH_TIMEOUT);
        let mut answer = request.send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(parse(&body)?)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut suitable = self.keys.iter().filter(|key| key.algorithm == algorithm);
        let key = match id {
            Some(id) => suitable.find(|key| key.id.as_deref() == Some(id)),
            // A token without a key id is clear only where there is one key.
            None => suitable.next().filter(|_| suitable.next().is_none()),
        };
        key.map(|key| key.decoding.clone())
    }

    fn wants_refresh(&self) -> bool {
        self.fetched_at
            .is_none_or(|fetched| fetched.elapsed() >= FRESH_FOR)
    }
}

/// Takes the ES256 and RS256 signature keys and leaves the rest, known or not.
fn parse(body: &[u8]) -> Result<Vec<Key>, serde_json::Error> {
    #[derive(Deserialize)]
    struct KeySet<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }

    let set: KeySet = serde_json::from_slice(body)?;
    Ok(set
        .keys
        .into_iter()
        .filter_map(|raw| serde_json::from_str(raw.get()).ok())
        .filter_map(usable)
        .collect())
}

fn usable(jwk: Jwk) -> Option<Key> {
    let (algorithm, declared) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        _ => return None,
    };
    let for_signatures = jwk
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let as_declared = jwk.common.key_algorithm.is_none_or(|name| name == declared);
    if !for_signatures || !as_declared {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key {
        id: jwk.common.key_id,
        algorithm,
        decoding,
    })
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
