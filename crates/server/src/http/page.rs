//! The plain page on `/`: watch and answer conversations live. Its files are compiled in.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::error::ApiError;
use crate::http::extract::PathParam;
use crate::state::AppState;

/// What `wasel demo` tells the page, so that a newcomer need not type anything.
#[derive(Clone, Debug)]
pub struct DemoAccess {
    pub email: String,
    pub password: String,
    /// Where the simulated phone is.
    pub simulator_url: String,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// A row of [`FILES`]; keeps the name served and the file compiled in the same.
macro_rules! page_file {
    ($name:literal, $content_type:expr) => {
        (
            $name,
            $content_type,
            include_str!(concat!("../../assets/page/", $name)),
        )
    };
}

/// The page's files under `/page/`: name, content type, body. `app.js` is where the page starts.
const FILES: &[(&str, &str, &str)] = &[
    page_file!("app.js", SCRIPT),
    page_file!("bubbles.js", SCRIPT),
    page_file!("dom.js", SCRIPT),
    page_file!("feed.js", SCRIPT),
    page_file!("inbox.js", SCRIPT),
    page_file!("linked.js", SCRIPT),
    page_file!("phone.js", SCRIPT),
    page_file!("rows.js", SCRIPT),
    page_file!("session.js", SCRIPT),
    page_file!("words.js", SCRIPT),
    page_file!("style.css", STYLE),
];

pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(index))
        .routes(routes!(asset))
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

/// A file of the page: its style sheet or one of its scripts.
#[utoipa::path(get, path = "/page/{file}", tag = "operators", security(()),
    params(("file" = String, Path, description = "the file's name, such as app.js")),
    responses(
        (status = 200, description = "the file", content((String = "text/javascript"), (String = "text/css"))),
        (status = 404, description = "no such file")))]
async fn asset(
    State(state): State<AppState>,
    PathParam(name): PathParam<String>,
) -> Result<Response, ApiError> {
    FILES
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|(_, content_type, body)| file(content_type, body, &state))
        .ok_or_else(|| ApiError::not_found("file"))
}

/// Whether this is the demo, and its sign-in.
#[utoipa::path(get, path = "/page/settings.json", tag = "operators", security(()), responses((status = 200)))]
async fn settings(State(state): State<AppState>) -> Json<Value> {
    Json(match &state.demo {
        Some(demo) => json!({ "demo": {
            "email": demo.email, "password": demo.password, "simulator_url": demo.simulator_url,
            // Without them the sessions speak to WhatsApp itself, and no simulated phone can scan their codes.
            "simulated_phones": cfg!(feature = "simulated-phones"),
        }}),
        None => json!({ "demo": null }),
    })
}
