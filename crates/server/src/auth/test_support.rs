//! Keys, a loopback JWKS server and settings for tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use url::Url;
use wasel_db::{Db, PoolSizes};

use super::{AuthContext, Jwks, TokenSettings, Tokens};

pub(crate) const SECRET: &str = "a secret for tests, at least thirty-two bytes";

/// An ES256 key pair of an identity provider.
pub(crate) struct Ec {
    pub id: &'static str,
    pkcs8: Vec<u8>,
    /// 0x04, x, y.
    pub point: Vec<u8>,
}

impl Ec {
    pub(crate) fn generate(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        Self {
            id,
            pkcs8: pkcs8.as_ref().to_vec(),
            point: pair.public_key().as_ref().to_vec(),
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": encode(&self.point[1..33]), "y": encode(&self.point[33..]),
        })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.id.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8)).unwrap()
    }
}

/// Serves a key set on the loopback and counts how often it is asked.
#[derive(Clone)]
pub(crate) struct JwksServer {
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
    pub url: Url,
}

impl JwksServer {
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let server = Self {
            answer: Arc::default(),
            asked: Arc::default(),
            url,
        };
        server.serve(keys);
        let app = Router::new()
            .route("/jwks.json", get(Self::answer))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        server
    }

    async fn answer(State(server): State<Self>) -> (StatusCode, String) {
        server.asked.fetch_add(1, Ordering::SeqCst);
        server.answer.lock().unwrap().clone()
    }

    pub(crate) fn serve(&self, keys: &[Value]) {
        *self.answer.lock().unwrap() = (StatusCode::OK, json!({ "keys": keys }).to_string());
    }

    pub(crate) fn break_down(&self) {
        *self.answer.lock().unwrap() = (StatusCode::INTERNAL_SERVER_ERROR, "oops".to_owned());
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub(crate) fn http_client() -> reqwest::Client {
    // Twice is fine: the first provider stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn tokens(jwks: Option<Jwks>) -> Tokens {
    Tokens::new(TokenSettings {
        jwt_secret: SECRET.to_owned(),
        jwks,
        anon_key: Some("configured-anon-key".to_owned()),
        service_role_key: Some("sb_secret_configured".to_owned()),
        public_url: "https://wasel.example.test/".parse().unwrap(),
    })
}

/// A context whose database refuses every connection.
pub(crate) fn without_database() -> AuthContext {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(1)
        .username("nobody")
        .database("none");
    AuthContext::new(
        Db::new(options, PoolSizes::default()),
        Arc::new(tokens(None)),
    )
}
