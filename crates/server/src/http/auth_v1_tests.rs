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

#[test]
fn every_route_is_in_the_openapi_document() {
    let (_, api) = router::<AuthContext>().split_for_parts();
    let paths: Vec<_> = api.paths.paths.keys().map(String::as_str).collect();
    assert_eq!(paths.len(), 7, "{paths:?}");
    let schemas = api.components.unwrap().schemas;
    for name in ["SessionView", "UserView", "ErrorView", "TokenRequest"] {
        assert!(schemas.contains_key(name), "{name}");
    }
}
