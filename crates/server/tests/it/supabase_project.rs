//! Beside a Supabase project: what is the project's is asked of it, and nothing else.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::any;
use reqwest::Method;
use serde_json::json;
use wasel_config::WebUrl;
use wasel_testkit::{Answer, TestApp};

/// Says what it was asked, as a project would answer.
async fn project() -> (String, tokio::task::JoinHandle<()>) {
    let echo = async |request: Request| {
        let asked = request.uri().to_string();
        let named = |name: &str, headers: &HeaderMap| {
            headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let apikey = named("apikey", request.headers());
        let host = named("host", request.headers());
        let client = named("x-forwarded-for", request.headers());
        let body = axum::body::to_bytes(request.into_body(), 1 << 20)
            .await
            .unwrap();
        let body = String::from_utf8_lossy(&body).into_owned();
        (
            StatusCode::IM_A_TEAPOT,
            [
                (
                    header::ACCESS_CONTROL_ALLOW_ORIGIN.as_str(),
                    "https://everybody.example",
                ),
                ("x-supabase-api-version", "2024-01-01"),
            ],
            axum::Json(json!({ "asked": asked, "apikey": apikey, "host": host, "client": client, "body": body })),
        )
            .into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(any(echo));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, serving)
}

#[tokio::test]
async fn sign_in_and_unknown_functions_are_the_projects_and_the_rest_is_ours() {
    let (address, serving) = project().await;
    let url = WebUrl::try_from(address.clone()).unwrap();
    let app = TestApp::builder()
        .configure(move |config| config.auth.supabase_url = Some(url))
        .start()
        .await;
    for path in [
        "/auth/v1/token?grant_type=password",
        "/auth/v1/otp",
        "/functions/v1/their-own?x=1",
    ] {
        let request = app
            .request(Method::POST, path)
            .header("apikey", "the project's")
            .header("origin", "https://app.example")
            .header("x-forwarded-for", "203.0.113.7")
            .body("{\"a\":1}");
        let answer = Answer::of(request).await;
        assert_eq!(
            answer.header("x-supabase-api-version"),
            "2024-01-01",
            "{path}"
        );
        let said = answer.expect(418);
        assert_eq!(said["asked"], *path);
        assert_eq!(said["apikey"], "the project's", "{path}");
        assert_eq!(
            said["client"], "127.0.0.1",
            "{path}: not what the client says"
        );
        assert_eq!(
            format!("http://{}", said["host"].as_str().unwrap()),
            address
        );
        assert_eq!(said["body"], "{\"a\":1}", "{path}");
    }
    app.get("", "/api/health").await.expect(200);
    app.get("", "/v1/nothing").await.expect(404);

    serving.abort();
    let gone = Answer::of(app.request(Method::POST, "/auth/v1/otp")).await;
    assert_eq!(gone.expect(502)["code"], "project_unreachable");
}

#[tokio::test]
async fn who_may_read_the_answer_is_said_once_and_by_us() {
    let (address, _serving) = project().await;
    let url = WebUrl::try_from(address).unwrap();
    let app = TestApp::builder()
        .configure(move |config| {
            config.auth.supabase_url = Some(url);
            config.server.allowed_origins = vec!["https://app.example".to_owned()];
        })
        .start()
        .await;
    let request = app
        .request(Method::GET, "/auth/v1/settings")
        .header("origin", "https://app.example");
    let answer = Answer::of(request).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://app.example"
    );
}
