use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use wasel_db::identity::PasswordHash;

use super::super::test_support::{Ec, JwksServer, SECRET, http_client, tokens};
use super::*;

const USER: &str = "018f0000-0000-7000-8000-000000000001";
const ORG: &str = "018f0000-0000-7000-8000-00000000000a";

/// A public RSA key, and a token its private half once signed; the claims are a user's, valid until 2100.
const RSA_MODULUS: &str = "6aY1J5NiELgqsYSTv-_anVRDy-exL6wes6JqUfiB17bnh_CXJcjY0cjFaP5D_G3XzNk0VCBCUNA4ZgkcooH-752_TQzhifreG8O--kw_RUWXdle26Q1DEOFzXqZ7R_-PjGlK8HrVf9-nJ_Hr4FbWegIitAPuwVuBxfFkB7iObm6sqi5Eadh_Q8nImrI7XnJZKKvVGfCppMXRuLSZxoewRN2RdnFx8x7kAAdaUcbGYIpsyWogfClPAdybx9lWJt2XMWBFUSJGxHGzN9p-fyD4sQwEHoSQFPreNaRQmWShbnryoE1MOXOx-2ryyWRx_wG6t76JG0F5GHbBieMfKth_Ow";
const RSA_HEADER: &str = r#"{"alg":"RS256","typ":"JWT","kid":"rsa-1"}"#;
const RSA_CLAIMS: &str = r#"{"sub":"018f0000-0000-7000-8000-000000000001","role":"authenticated","aud":"authenticated","exp":4102444800}"#;
const RSA_SIGNATURE: &str = "GJcqazbFpUFjGB6S2IKAiWZoSQ4KwZWbDOa5RCwFMg9v10TvE-cFIg81eti25JHPln-ObhSVonU8rd6vkBVg8Qahut4znc38nDfOsXhAL6vCXKoWS-jOjn5yO43oEZjU6plfEr6I24f8c3NdoahieLyvrYGonvjpLD7Pf3WZoeTspQkwGDeaE5UO7ujIQ-kEGH4NxyrXbZymrC_4ta2jUwhI98IUzfoJx33NmlV7BZXeRt6BX0X3aO0c5wel-wAv7x8nSRyvjvUgdyRYhW_9D_KTrBDuhZdI3PxCVv3N-Ufg8saXSBn5juID4T2RA9XxAP91lYoTWsZiL2AM6tDn3Q";

fn rsa_jwk() -> Value {
    json!({ "kty": "RSA", "kid": "rsa-1", "alg": "RS256", "use": "sig", "n": RSA_MODULUS, "e": "AQAB" })
}

fn claims() -> Value {
    json!({
        "sub": USER, "role": "authenticated", "aud": "authenticated", "exp": Utc::now().timestamp() + 3600,
        "iat": Utc::now().timestamp(), "email": "a@example.test", "app_metadata": { "org_id": ORG },
    })
}

/// [`claims`] with one of them replaced, or taken out by null.
fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(claim);
    } else {
        claims[claim] = value;
    }
    claims
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, SECRET.as_bytes(), claims)
}

fn signed(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(
        &Header::new(algorithm),
        claims,
        &EncodingKey::from_secret(secret),
    )
    .unwrap()
}

/// A token with any header, signed with HMAC-SHA-256 whatever the header says.
fn forged(header: &Value, claims: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

async fn verify(token: &str) -> Result<Verified, TokenError> {
    tokens(None).verify(token).await
}

#[tokio::test]
async fn a_users_token_says_who_they_are_and_in_which_tenant() {
    let token = hs256(&with("session_id", json!(ORG)));
    let Ok(Verified::User(user)) = verify(&token).await else {
        panic!()
    };
    assert_eq!(user.sub.to_string(), USER);
    assert_eq!(user.org_id.unwrap().to_string(), ORG);
    assert_eq!(user.session_id.unwrap().to_string(), ORG);
    assert_eq!(user.email.as_deref(), Some("a@example.test"));
    assert_eq!(user.role, "authenticated");
    assert!(user.expires_at > Utc::now());
    assert!(user.issued_at.is_some());
}

#[tokio::test]
async fn a_tenant_in_user_metadata_is_nothing() {
    let mut claims = with("app_metadata", Value::Null);
    claims["user_metadata"] = json!({ "org_id": ORG });
    claims["org_id"] = json!(ORG);
    let Ok(Verified::User(user)) = verify(&hs256(&claims)).await else {
        panic!()
    };
    assert_eq!(user.org_id, None);
}

#[tokio::test]
async fn a_token_may_be_half_a_minute_late_and_no_more() {
    let late = |seconds: i64| hs256(&with("exp", json!(Utc::now().timestamp() - seconds)));
    assert!(verify(&late(15)).await.is_ok());
    assert_eq!(verify(&late(60)).await, Err(TokenError::Expired));
    assert_eq!(
        verify(&hs256(&with("exp", Value::Null))).await,
        Err(TokenError::Malformed("claim exp is missing"))
    );
    let early = hs256(&with("nbf", json!(Utc::now().timestamp() + 600)));
    assert_eq!(verify(&early).await, Err(TokenError::NotYetValid));
    assert!(
        verify(&hs256(&with("exp", json!(4_102_444_800.5))))
            .await
            .is_ok(),
        "some issuers write fractions"
    );
}

#[tokio::test]
async fn another_secret_another_hmac_or_a_changed_claim_is_refused() {
    let other = signed(Algorithm::HS256, b"another secret", &claims());
    assert_eq!(verify(&other).await, Err(TokenError::BadSignature));
    let empty = signed(Algorithm::HS256, b"", &claims());
    assert_eq!(verify(&empty).await, Err(TokenError::BadSignature));
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = signed(algorithm, SECRET.as_bytes(), &claims());
        assert!(
            matches!(verify(&token).await, Err(TokenError::Malformed(_))),
            "{algorithm:?}"
        );
    }
    let good = hs256(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let body = URL_SAFE_NO_PAD.encode(with("sub", json!(ORG)).to_string());
    assert_eq!(
        verify(&format!("{header}.{body}.{signature}")).await,
        Err(TokenError::BadSignature)
    );
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused_however_it_spells_none() {
    let body = URL_SAFE_NO_PAD.encode(claims().to_string());
    for name in ["none", "None", "NONE", "nOnE", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": name, "typ": "JWT" }).to_string());
        for token in [
            format!("{header}.{body}."),
            format!("{header}.{body}"),
            format!("{header}.{body}.AAAA"),
        ] {
            assert!(
                matches!(verify(&token).await, Err(TokenError::Malformed(_))),
                "{name}"
            );
        }
        let signed = forged(
            &json!({ "alg": name }),
            &claims().to_string(),
            SECRET.as_bytes(),
        );
        assert!(
            matches!(verify(&signed).await, Err(TokenError::Malformed(_))),
            "{name}"
        );
    }
    // HS256 with the signature left out.
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256" }).to_string());
    assert!(verify(&format!("{header}.{body}.")).await.is_err());
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_secret_nor_the_secret_for_a_public_key() {
    let key = Ec::generate("ec-1");
    // Even a key set that gives a symmetric key away must not make it count.
    let leaked = json!({ "kty": "oct", "kid": "oct-1", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode("leaked") });
    let server = JwksServer::start(&[key.jwk(), rsa_jwk(), leaked]).await;
    let tokens = tokens(Some(Jwks::new(server.url.clone(), http_client())));

    // The two halves of the check work.
    assert!(matches!(
        tokens.verify(&key.sign(&claims())).await,
        Ok(Verified::User(_))
    ));
    assert!(matches!(
        tokens.verify(&hs256(&claims())).await,
        Ok(Verified::User(_))
    ));

    // HS256 with what everybody knows as its secret, in each form an implementation might hold it.
    let jwk = key.jwk();
    let known: [&[u8]; 6] = [
        &key.point,
        &key.point[1..],
        jwk["x"].as_str().unwrap().as_bytes(),
        RSA_MODULUS.as_bytes(),
        &URL_SAFE_NO_PAD.decode(RSA_MODULUS).unwrap(),
        b"leaked",
    ];
    for (n, secret) in known.into_iter().enumerate() {
        for id in ["ec-1", "rsa-1", "oct-1"] {
            let header = json!({ "alg": "HS256", "kid": id });
            let token = forged(&header, &claims().to_string(), secret);
            assert_eq!(
                tokens.verify(&token).await,
                Err(TokenError::BadSignature),
                "{n} {id}"
            );
        }
    }
    // An HMAC by our own secret under the name of a public-key algorithm.
    for (algorithm, id) in [
        ("ES256", "ec-1"),
        ("RS256", "rsa-1"),
        ("ES256", "oct-1"),
        ("RS256", "ec-1"),
    ] {
        let header = json!({ "alg": algorithm, "kid": id });
        let token = forged(&header, &claims().to_string(), SECRET.as_bytes());
        assert!(tokens.verify(&token).await.is_err(), "{algorithm} {id}");
    }
}

#[tokio::test]
async fn an_rs256_token_counts_with_its_key_and_only_with_it() {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!(
        "{}.{}.{RSA_SIGNATURE}",
        encode(RSA_HEADER),
        encode(RSA_CLAIMS)
    );
    let server = JwksServer::start(&[rsa_jwk()]).await;
    let with_key = tokens(Some(Jwks::new(server.url.clone(), http_client())));
    assert!(matches!(
        with_key.verify(&token).await,
        Ok(Verified::User(_))
    ));
    let changed = format!(
        "{}.{}.{RSA_SIGNATURE}",
        encode(RSA_HEADER),
        encode(&RSA_CLAIMS.replace("01\"", "02\""))
    );
    assert_eq!(
        with_key.verify(&changed).await,
        Err(TokenError::BadSignature)
    );
    assert_eq!(
        tokens(None).verify(&token).await,
        Err(TokenError::BadSignature),
        "no key set configured"
    );
}

#[tokio::test]
async fn hs256_never_asks_for_the_key_set_and_a_lost_one_is_not_the_tokens_fault() {
    let key = Ec::generate("k");
    let server = JwksServer::start(&[key.jwk()]).await;
    server.break_down();
    let tokens = tokens(Some(Jwks::new(server.url.clone(), http_client())));
    assert!(tokens.verify(&hs256(&claims())).await.is_ok());
    assert_eq!(server.times_asked(), 0);
    assert_eq!(
        tokens.verify(&key.sign(&claims())).await,
        Err(TokenError::KeysUnavailable)
    );
}

#[tokio::test]
async fn the_two_keys_are_known_as_configured_and_as_issued() {
    let tokens = tokens(None);
    let of = async |key: &str| tokens.verify(key).await;
    assert_eq!(of("sb_secret_configured").await, Ok(Verified::Service));
    assert_eq!(
        of(&tokens.issue_key(ApiKeyRole::ServiceRole).unwrap()).await,
        Ok(Verified::Service)
    );
    assert_eq!(of("configured-anon-key").await, Ok(Verified::Anonymous));
    assert_eq!(of("sb_publishable_whatever").await, Ok(Verified::Anonymous));
    assert_eq!(
        of(&tokens.issue_key(ApiKeyRole::Anon).unwrap()).await,
        Ok(Verified::Anonymous)
    );

    assert_eq!(
        of("sb_secret_configuree").await,
        Err(TokenError::BadSignature)
    );
    assert_eq!(of("sb_secret_").await, Err(TokenError::BadSignature));
    assert!(matches!(
        of("configured-anon-ke").await,
        Err(TokenError::Malformed(_))
    ));
    assert!(matches!(of("").await, Err(TokenError::Malformed(_))));
}

#[tokio::test]
async fn an_unset_service_key_fits_nothing() {
    for unset in [None, Some(String::new())] {
        let tokens = Tokens::new(TokenSettings {
            jwt_secret: SECRET.to_owned(),
            jwks: None,
            anon_key: unset.clone(),
            service_role_key: unset,
            public_url: "https://wasel.example.test".parse().unwrap(),
        });
        assert!(tokens.verify("").await.is_err());
    }
}

#[tokio::test]
async fn an_identity_provider_cannot_vouch_for_the_service_role() {
    let key = Ec::generate("k");
    let server = JwksServer::start(&[key.jwk()]).await;
    let tokens = tokens(Some(Jwks::new(server.url.clone(), http_client())));
    let token = key.sign(&with("role", json!("service_role")));
    assert!(matches!(
        tokens.verify(&token).await,
        Err(TokenError::Malformed(_))
    ));
    assert_eq!(
        verify(&hs256(&with("role", json!("service_role")))).await,
        Ok(Verified::Service)
    );
}

#[tokio::test]
async fn claims_that_make_no_sense_are_refused_with_a_reason() {
    let cases = [
        ("role", Value::Null),
        ("role", json!("postgres")),
        ("sub", Value::Null),
        ("sub", json!("not a uuid")),
        ("sub", json!(7)),
        ("aud", json!("another-service")),
        ("aud", json!(["another-service", "third"])),
        ("app_metadata", json!({ "org_id": "acme" })),
        ("app_metadata", json!({ "org_id": 7 })),
        ("session_id", json!("abc")),
    ];
    for (claim, value) in cases {
        let answer = verify(&hs256(&with(claim, value.clone()))).await;
        assert!(
            matches!(answer, Err(TokenError::Malformed(_))),
            "{claim} {value} {answer:?}"
        );
    }
    for (claim, value) in [
        ("aud", Value::Null),
        ("aud", json!(["x", "authenticated"])),
        ("app_metadata", Value::Null),
        ("app_metadata", json!({ "org_id": null })),
        ("app_metadata", json!({ "org_id": "" })),
    ] {
        assert!(
            verify(&hs256(&with(claim, value.clone()))).await.is_ok(),
            "{claim} {value}"
        );
    }
    for text in ["a", "a.b", "a.b.c", "a.b.c.d", "..", "ey.ey.ey", "💥.💥.💥"] {
        assert!(
            matches!(verify(text).await, Err(TokenError::Malformed(_))),
            "{text}"
        );
    }
    let critical = forged(
        &json!({ "alg": "HS256", "crit": ["b64"] }),
        &claims().to_string(),
        SECRET.as_bytes(),
    );
    assert!(matches!(
        verify(&critical).await,
        Err(TokenError::Malformed(_))
    ));
}

#[tokio::test]
async fn an_issued_token_has_the_claims_of_supabase_auth() {
    let user = User {
        id: USER.parse().unwrap(),
        email: "سارة@example.test".to_owned(),
        password_hash: PasswordHash(String::new()),
        full_name: Some("سارة".to_owned()),
        phone: None,
        user_metadata: Default::default(),
        locale: None,
        email_confirmed_at: Some(Utc::now()),
        new_email: None,
        email_change_sent_at: None,
        created_at: Utc::now(),
        updated_at: Utc::now(),
        last_sign_in_at: None,
    };
    let session: Uuid = "018f0000-0000-7000-8000-0000000000ff".parse().unwrap();
    let authenticated_at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let subject = TokenSubject {
        user: &user,
        org_id: Some(ORG.parse().unwrap()),
        session_id: Some(session),
        method: SignInMethod::Otp,
        authenticated_at,
    };
    let issued = tokens(None)
        .issue(&subject, Duration::from_secs(3600))
        .unwrap();

    let body = URL_SAFE_NO_PAD
        .decode(issued.token.split('.').nth(1).unwrap())
        .unwrap();
    let mut claims: Value = serde_json::from_slice(&body).unwrap();
    let (issued_at, expires_at) = (claims["iat"].take(), claims["exp"].take());
    assert_eq!(
        expires_at.as_i64().unwrap() - issued_at.as_i64().unwrap(),
        3600
    );
    assert_eq!(expires_at.as_i64().unwrap(), issued.expires_at.timestamp());
    assert_eq!(
        claims,
        json!({
            "iss": "https://wasel.example.test/auth/v1", "aud": "authenticated", "sub": USER, "iat": null, "exp": null,
            "email": "سارة@example.test", "phone": "",
            "app_metadata": { "provider": "email", "providers": ["email"], "org_id": ORG },
            "user_metadata": { "full_name": "سارة" },
            "role": "authenticated", "aal": "aal1",
            "amr": [{ "method": "otp", "timestamp": 1_700_000_000 }],
            "session_id": session, "is_anonymous": false,
        })
    );
    let Ok(Verified::User(read)) = verify(&issued.token).await else {
        panic!()
    };
    assert_eq!(read.session_id, Some(session));
    assert_eq!(read.org_id.unwrap().to_string(), ORG);
}

#[test]
fn neither_settings_nor_tokens_print_their_secrets() {
    let tokens = tokens(None);
    let settings = TokenSettings {
        jwt_secret: SECRET.to_owned(),
        jwks: None,
        anon_key: None,
        service_role_key: Some("sb_secret_configured".to_owned()),
        public_url: "https://wasel.example.test".parse().unwrap(),
    };
    for text in [format!("{tokens:?}"), format!("{settings:?}")] {
        assert!(!text.contains("secret"), "{text}");
    }
}
