use axum::Router;
use axum::body::{Body, to_bytes};
use http::Request;
use tower::ServiceExt;

use super::*;
use crate::auth::test_support::without_database;

fn app() -> Router {
    let (router, _) = router::<AuthContext>().split_for_parts();
    router.with_state(without_database())
}

async fn send(request: Request<Body>) -> (u16, http::HeaderMap, Value) {
    let answer = app().oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, 100_000).await.unwrap();
    (
        parts.status.as_u16(),
        parts.headers,
        serde_json::from_slice(&body).unwrap_or(Value::Null),
    )
}

fn post(path: &str, body: &str) -> Request<Body> {
    Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_in_the_clients_words() {
    let long = format!("{{\"email\":\"{}\"}}", "a".repeat(3_000_000));
    for (path, body, status, code) in [
        ("/auth/v1/token", "{}", 400, "validation_failed"),
        (
            "/auth/v1/token?grant_type=pkce",
            "{}",
            400,
            "validation_failed",
        ),
        (
            "/auth/v1/token?grant_type=password&grant_type=password",
            "{}",
            400,
            "validation_failed",
        ),
        ("/auth/v1/token?grant_type=password", "{", 400, "bad_json"),
        (
            "/auth/v1/token?grant_type=password",
            "{\"email\":7}",
            400,
            "bad_json",
        ),
        (
            "/auth/v1/token?grant_type=password",
            "{}",
            400,
            "validation_failed",
        ),
        (
            "/auth/v1/token?grant_type=password",
            "{\"phone\":\"+966\"}",
            422,
            "phone_provider_disabled",
        ),
        (
            "/auth/v1/token?grant_type=refresh_token",
            "{}",
            400,
            "validation_failed",
        ),
        ("/auth/v1/token?grant_type=password", &long, 413, "bad_json"),
        ("/auth/v1/signup", "{}", 422, "signup_disabled"),
        (
            "/auth/v1/signup",
            "{\"email\":\"a@example.test\",\"password\":\"long enough\",\"data\":{}}",
            422,
            "signup_disabled",
        ),
        (
            "/auth/v1/signup",
            "{\"email\":\"nonsense\",\"data\":{\"invitation\":\"x\"}}",
            400,
            "validation_failed",
        ),
        ("/auth/v1/recover", "{}", 400, "validation_failed"),
        (
            "/auth/v1/recover",
            "{\"email\":\"a@example.test\"}",
            422,
            "email_provider_disabled",
        ),
        (
            "/auth/v1/resend",
            "{\"type\":\"signup\",\"email\":\"a@example.test\"}",
            400,
            "validation_failed",
        ),
        (
            "/auth/v1/resend",
            "{\"type\":\"sms\",\"phone\":\"+966\"}",
            400,
            "validation_failed",
        ),
        ("/auth/v1/verify", "{}", 400, "validation_failed"),
        (
            "/auth/v1/verify",
            "{\"type\":\"recovery\"}",
            400,
            "validation_failed",
        ),
        (
            "/auth/v1/verify",
            "{\"type\":\"magiclink\",\"token_hash\":\"x\"}",
            403,
            "otp_expired",
        ),
        ("/auth/v1/otp", "{}", 422, "otp_disabled"),
        ("/auth/v1/magiclink", "{}", 422, "otp_disabled"),
        ("/auth/v1/invite", "{}", 401, "no_authorization"),
        ("/auth/v1/logout", "", 401, "no_authorization"),
    ] {
        let (got, headers, body) = send(post(path, body)).await;
        assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{path}");
        assert!(!body["message"].as_str().unwrap().is_empty(), "{path}");
        assert_eq!(headers["x-supabase-api-version"], "2024-01-01", "{path}");
    }
}

#[tokio::test]
async fn a_bad_body_is_not_repeated_in_the_answer() {
    let (_, _, body) = send(post(
        "/auth/v1/token?grant_type=password",
        "{\"email\":[\"hunter2\"]}",
    ))
    .await;
    assert_eq!(body["code"], "bad_json");
    assert!(!body.to_string().contains("hunter2"));
}

#[tokio::test]
async fn the_user_needs_a_users_token() {
    for (authorization, status, code) in [
        (None, 401, "no_authorization"),
        (Some("Basic YTpi"), 401, "no_authorization"),
        (Some("Bearer nonsense"), 403, "bad_jwt"),
        (Some("Bearer sb_publishable_x"), 403, "bad_jwt"),
        (Some("Bearer sb_secret_configured"), 403, "bad_jwt"),
    ] {
        let mut request = Request::get("/auth/v1/user");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let (got, headers, body) = send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (got, body["code"].as_str()),
            (status, Some(code)),
            "{authorization:?}"
        );
        assert_eq!(headers["x-supabase-api-version"], "2024-01-01");
    }
}

#[tokio::test]
async fn with_the_database_away_nobody_is_signed_out() {
    let refresh = send(post(
        "/auth/v1/token?grant_type=refresh_token",
        "{\"refresh_token\":\"abc\"}",
    ));
    let password = send(post(
        "/auth/v1/token?grant_type=password",
        "{\"email\":\"a@example.test\",\"password\":\"x\"}",
    ));
    let (refresh, password) = tokio::join!(refresh, password);
    assert_eq!(
        (refresh.0, refresh.2["code"].as_str()),
        (503, Some("unexpected_failure"))
    );
    assert_eq!(
        (password.0, password.2["code"].as_str()),
        (503, Some("unexpected_failure"))
    );
}

#[tokio::test]
async fn the_public_documents_answer() {
    let get = |path: &str| send(Request::get(path).body(Body::empty()).unwrap());
    let (status, _, keys) = get("/auth/v1/.well-known/jwks.json").await;
    assert_eq!((status, keys), (200, json!({ "keys": [] })));
    assert_eq!(get("/auth/v1/health").await.0, 200);
    assert_eq!(get("/auth/v1/settings").await.2["external"]["email"], true);
}

#[tokio::test]
async fn opening_a_link_shows_a_button_in_the_readers_language_and_uses_nothing() {
    let page = async |language: &str| {
        let request = Request::get("/auth/v1/verify?token=abc&type=recovery")
            .header("accept-language", language)
            .body(Body::empty())
            .unwrap();
        let answer = app().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        let body = to_bytes(answer.into_body(), 100_000).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert!(page("ar-EG,en;q=0.5").await.contains("dir=\"rtl\""));
    let english = page("de").await;
    assert!(english.contains("<form method=\"post\">") && !english.contains("abc"));
}

#[tokio::test]
async fn a_bad_form_leads_to_our_own_page_with_the_error_behind_the_hash() {
    let request = Request::post(
        "/auth/v1/verify?token=x&type=nonsense&redirect_to=https://evil.example.test/",
    )
    .header("content-type", "application/x-www-form-urlencoded")
    .body(Body::empty())
    .unwrap();
    let (status, headers, _) = send(request).await;
    assert_eq!(status, 303);
    let location = headers["location"].to_str().unwrap();
    assert!(
        location.starts_with("https://wasel.example.test/#error=access_denied&error_code=validation_failed&error_description="),
        "{location}"
    );
}

#[test]
fn every_route_is_in_the_openapi_document() {
    let (_, api) = router::<AuthContext>().split_for_parts();
    let paths: Vec<_> = api.paths.paths.keys().map(String::as_str).collect();
    assert_eq!(paths.len(), 14, "{paths:?}");
    let schemas = api.components.unwrap().schemas;
    for name in ["SessionView", "UserView", "ErrorView", "TokenRequest"] {
        assert!(schemas.contains_key(name), "{name}");
    }
}
