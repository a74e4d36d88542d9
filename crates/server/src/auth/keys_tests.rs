use jsonwebtoken::{Algorithm, Validation};
use serde_json::json;

use super::super::test_support::{Ec, JwksServer, http_client};
use super::*;

fn jwks(server: &JwksServer) -> Jwks {
    Jwks::new(server.url.clone(), http_client())
}

/// The same, fetching as often as it likes.
fn eager(server: &JwksServer) -> Jwks {
    Jwks::with_gap(server.url.clone(), http_client(), Duration::ZERO)
}

async fn knows(jwks: &Jwks, key: &Ec) -> bool {
    let Ok(decoding) = jwks.find(Some(key.id), Algorithm::ES256).await else {
        return false;
    };
    let token = key.sign(&json!({ "exp": 4_102_444_800_i64 }));
    jsonwebtoken::decode::<serde_json::Value>(&token, &decoding, &Validation::new(Algorithm::ES256))
        .is_ok()
}

#[tokio::test]
async fn after_a_rotation_the_new_key_counts_and_the_old_one_no_more() {
    let (old, new) = (Ec::generate("old"), Ec::generate("new"));
    let server = JwksServer::start(&[old.jwk()]).await;
    let jwks = eager(&server);
    assert!(knows(&jwks, &old).await);
    assert!(!knows(&jwks, &new).await);

    server.serve(&[new.jwk()]);
    assert!(knows(&jwks, &new).await);
    assert!(!knows(&jwks, &old).await);
}

#[tokio::test]
async fn known_keys_are_not_fetched_again_and_unknown_ids_fetch_once_in_a_while() {
    let key = Ec::generate("known");
    let server = JwksServer::start(&[key.jwk()]).await;
    let jwks = jwks(&server);
    for _ in 0..20 {
        assert!(knows(&jwks, &key).await);
    }
    assert_eq!(server.times_asked(), 1);
    for n in 0..20 {
        let answer = jwks
            .find(Some(&format!("made-up-{n}")), Algorithm::ES256)
            .await;
        assert_eq!(answer.map(drop), Err(KeyError::Unknown));
    }
    assert_eq!(server.times_asked(), 1, "thirty seconds have not passed");
}

#[tokio::test]
async fn fifty_requests_at_once_fetch_once() {
    let key = Ec::generate("k");
    let server = JwksServer::start(&[key.jwk()]).await;
    let jwks = eager(&server);
    let answers = futures_util::future::join_all((0..50).map(|_| knows(&jwks, &key))).await;
    assert!(answers.into_iter().all(|known| known));
    assert_eq!(server.times_asked(), 1);
}

#[tokio::test]
async fn old_keys_stay_when_fetching_fails() {
    let key = Ec::generate("k");
    let server = JwksServer::start(&[key.jwk()]).await;
    let jwks = eager(&server);
    assert!(knows(&jwks, &key).await);
    server.break_down();
    let answer = jwks.find(Some("other"), Algorithm::ES256).await;
    assert_eq!(answer.map(drop), Err(KeyError::Unknown));
    assert_eq!(server.times_asked(), 2);
    assert!(knows(&jwks, &key).await);
}

#[tokio::test]
async fn keys_never_fetched_are_unavailable_and_not_unknown() {
    let server = JwksServer::start(&[]).await;
    server.break_down();
    let jwks = eager(&server);
    let answer = jwks.find(Some("k"), Algorithm::ES256).await;
    assert_eq!(answer.map(drop), Err(KeyError::Unavailable));
    let key = Ec::generate("k");
    server.serve(&[key.jwk()]);
    assert!(
        knows(&jwks, &key).await,
        "and are there as soon as the provider is"
    );
}

#[tokio::test]
async fn stale_keys_work_while_they_are_fetched_again_in_the_background() {
    let (old, new) = (Ec::generate("old"), Ec::generate("new"));
    let server = JwksServer::start(&[old.jwk()]).await;
    let jwks = eager(&server);
    assert!(knows(&jwks, &old).await);
    server.serve(&[new.jwk()]);
    jwks.0.lock().fetched_at = Instant::now().checked_sub(FRESH_FOR);
    assert!(knows(&jwks, &old).await);
    let fetched = async {
        while jwks.0.lock().find(Some("new"), Algorithm::ES256).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), fetched)
        .await
        .unwrap();
    assert_eq!(server.times_asked(), 2);
}

#[tokio::test]
async fn a_token_without_a_key_id_is_clear_only_where_there_is_one_key() {
    let (one, two) = (Ec::generate("one"), Ec::generate("two"));
    let server = JwksServer::start(&[one.jwk()]).await;
    let jwks = eager(&server);
    assert!(jwks.find(None, Algorithm::ES256).await.is_ok());
    assert!(jwks.find(None, Algorithm::RS256).await.is_err());
    server.serve(&[one.jwk(), two.jwk()]);
    assert!(jwks.find(Some("two"), Algorithm::ES256).await.is_ok());
    assert!(jwks.find(None, Algorithm::ES256).await.is_err());
}

#[test]
fn only_es256_and_rs256_signature_keys_are_taken() {
    let good = Ec::generate("good").jwk();
    let with = |field: &str, value: serde_json::Value| {
        let mut key = good.clone();
        key[field] = value;
        key
    };
    let set = json!({ "keys": [
        { "kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0" },
        { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
        { "kty": "new-and-strange", "kid": "strange" },
        "no object",
        with("use", json!("enc")),
        with("alg", json!("HS256")),
        with("crv", json!("P-384")),
        with("x", json!("not base64!")),
        good,
    ] });
    let keys = parse(set.to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].id.as_deref(), Some("good"));
    assert!(parse(b"<html>").is_err());
    assert!(parse(b"{}").is_err());
}
