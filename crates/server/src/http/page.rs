//! The plain page on `/`: watch and answer conversations live. Its files are compiled in.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

/// What `wasel demo` tells the page, so that a newcomer need not type anything.
#[derive(Clone, Debug)]
pub struct DemoAccess {
    pub email: String,
    pub password: String,
    /// Where the simulated phone is.
    pub simulator_url: String,
}

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(index))
        .routes(routes!(script))
        .routes(routes!(style))
        .routes(routes!(settings))
}

fn file(content_type: &'static str, body: &'static str, state: &AppState) -> Response {
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    let simulator = state
        .demo
        .as_ref()
        .map_or("", |demo| demo.simulator_url.as_str());
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {simulator}; \
         img-src 'self' blob: data: {simulator}; media-src 'self' blob: {simulator}; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response.headers_mut().insert(
        HeaderName::from_static("cache-control"),
        HeaderValue::from_static("no-cache"),
    );
    response
}

/// The page.
#[utoipa::path(get, path = "/", tag = "operators", security(()), responses((status = 200, content_type = "text/html")))]
async fn index(State(state): State<AppState>) -> Response {
    file(
        "text/html; charset=utf-8",
        include_str!("../../assets/page/index.html"),
        &state,
    )
}

#[utoipa::path(get, path = "/page/app.js", tag = "operators", security(()), responses((status = 200, content_type = "text/javascript")))]
async fn script(State(state): State<AppState>) -> Response {
    file(
        "text/javascript; charset=utf-8",
        include_str!("../../assets/page/app.js"),
        &state,
    )
}

#[utoipa::path(get, path = "/page/style.css", tag = "operators", security(()), responses((status = 200, content_type = "text/css")))]
async fn style(State(state): State<AppState>) -> Response {
    file(
        "text/css; charset=utf-8",
        include_str!("../../assets/page/style.css"),
        &state,
    )
}

/// Whether this is the demo, and its sign-in.
#[utoipa::path(get, path = "/page/settings.json", tag = "operators", security(()), responses((status = 200)))]
async fn settings(State(state): State<AppState>) -> Json<Value> {
    Json(match &state.demo {
        Some(demo) => json!({ "demo": {
            "email": demo.email, "password": demo.password, "simulator_url": demo.simulator_url,
        }}),
        None => json!({ "demo": null }),
    })
}
