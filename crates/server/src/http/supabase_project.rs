//! Beside a Supabase project (`SUPABASE_URL`): its sign-in and its own Edge Functions are asked of it, so that a front end
//! needs one address only. What Wasel serves itself never gets here.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;
use wasel_config::WebUrl;

use crate::auth::ClientIp;
use crate::state::AppState;

/// An Edge Function may work so long; Supabase ends it after 150 s without an answer.
/// <https://supabase.com/docs/guides/functions/limits>
const LIMIT: Duration = Duration::from_secs(150);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// About one connection, not about the request (RFC 9110, 7.6.1).
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Marks an answer that is the project's own, whatever it looks like.
#[derive(Clone, Copy, Debug)]
pub struct FromProject;

/// The project's address, where it answers this path.
#[must_use]
pub fn answering<'a>(state: &'a AppState, path: &str) -> Option<&'a WebUrl> {
    let project = state.config.auth.supabase_url.as_ref()?;
    ["/auth/v1/", "/functions/v1/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
        .then_some(project)
}

/// Asks the project and passes its answer on, both as they come.
pub async fn forward(state: &AppState, project: &WebUrl, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", |path_and_query| path_and_query.as_str());
    let asked = state
        .http
        .request(parts.method, format!("{}{path}", project.as_str()))
        .timeout(LIMIT)
        .headers(passed_on(&parts.headers, |name| {
            // The project's host and the length of what is streamed are named anew; whom a request is forwarded for is
            // not the client's to say.
            [header::HOST, header::CONTENT_LENGTH, FORWARDED_FOR].contains(name)
        }))
        .headers(forwarded_for(parts.extensions.get()))
        .body(reqwest::Body::wrap_stream(body.into_data_stream()));
    match asked.send().await {
        Ok(answer) => {
            let status = answer.status();
            let headers = passed_on(answer.headers(), |name| {
                // Ours say who may read it; two answers to that are refused by browsers.
                name.as_str().starts_with("access-control-")
            });
            let body = Body::from_stream(answer.bytes_stream());
            (status, Extension(FromProject), headers, body).into_response()
        }
        Err(error) => {
            tracing::warn!(error = %error.without_url(), "the Supabase project did not answer");
            let message = "The Supabase project did not answer.";
            let body = Json(json!({ "code": "project_unreachable", "message": message }));
            (StatusCode::BAD_GATEWAY, body).into_response()
        }
    }
}

fn forwarded_for(client: Option<&ClientIp>) -> HeaderMap {
    client
        .and_then(|client| HeaderValue::from_str(&client.0.to_string()).ok())
        .map(|address| (FORWARDED_FOR, address))
        .into_iter()
        .collect()
}

fn passed_on(headers: &HeaderMap, is_ours: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| !OF_THE_CONNECTION.contains(name) && !is_ours(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
