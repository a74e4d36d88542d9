//! What wraps every request: an id, a log line, CORS, limits on size, the caller's address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use uuid::Uuid;

use super::limits::client_address;
use crate::auth::ClientIp;
use crate::state::AppState;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id, tells handlers the caller's address, and logs the outcome: never a body, a token, a query.
pub async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    if let Some(ip) = client_address(
        request.headers(),
        peer,
        state.config.server.trusted_proxy_hops,
    ) {
        request.extensions_mut().insert(ClientIp(ip));
    }
    let method = request.method().clone();
    // The pattern, not the path: a path may hold a customer's id.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("-".to_owned(), |path| path.as_str().to_owned());
    let started = Instant::now();
    let mut response = next.run(request).await;
    let status = response.status();
    let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    if status.is_server_error() {
        tracing::warn!(request.id = %id, http.method = %method, http.route = %route, http.status = status.as_u16(), http.elapsed_ms = elapsed_ms);
    } else {
        tracing::debug!(request.id = %id, http.method = %method, http.route = %route, http.status = status.as_u16(), http.elapsed_ms = elapsed_ms);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// CORS of S4.11: an allow-list of origins with credentials. Headers are named, because `*` does not cover
/// Authorization; they are those of the documents and of `@supabase/supabase-js`.
pub fn cors(origins: &[String]) -> CorsLayer {
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let exposed = [
        "content-disposition",
        "content-range",
        "content-location",
        "accept-ranges",
        "etag",
        "x-relay-error",
        "x-supabase-api-version",
        "x-request-id",
        "retry-after",
    ];
    let any = origins.iter().any(|origin| origin == "*");
    let layer = CorsLayer::new()
        .allow_methods(methods)
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_secs(86_400));
    if any {
        return layer.allow_origin(AllowOrigin::any());
    }
    let origins: Vec<HeaderValue> = origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok())
        .collect();
    layer.allow_origin(origins).allow_credentials(true)
}

/// Our own pages and API are never framed, sniffed or cached by accident.
pub async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    headers
        .entry(header::X_FRAME_OPTIONS)
        .or_insert(HeaderValue::from_static("DENY"));
    headers
        .entry(header::REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_page_on_a_listed_origin_reads_what_a_download_is_called() {
        let app: axum::Router = axum::Router::new()
            .route("/", get(|| async { "file" }))
            .layer(cors(&["https://app.example".to_owned()]));
        let request = Request::builder()
            .uri("/")
            .header(header::ORIGIN, "https://app.example")
            .body(Body::empty())
            .unwrap();
        let response = app.oneshot(request).await.unwrap();
        let exposed = response.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS]
            .to_str()
            .unwrap();
        assert!(
            exposed.split(',').any(|name| name == "content-disposition"),
            "{exposed}"
        );
    }
}
