//! What every provider request passes: it is recorded, then struck by whatever fault is switched on.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode, header::CONTENT_TYPE, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chrono::DateTime;

use crate::{
    faults::FaultKind,
    listener::Plug,
    meta::MetaError,
    twilio::{self, TwilioError},
    world::{Event, Provider, RecordedRequest, World},
};

/// The largest upload either provider takes is 100 MB; a little more for the envelope.
const LARGEST_BODY: usize = 110 * 1024 * 1024;
const RECORDED_BODY: usize = 16 * 1024;

/// State of the middleware: the world, and whose API the router stands in for.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) world: World,
    pub(crate) provider: Provider,
}

pub(crate) async fn pass(
    State(gate): State<Gate>,
    ConnectInfo(plug): ConnectInfo<Plug>,
    request: Request,
    next: Next,
) -> Response {
    let Gate { world, provider } = gate;
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let number = record(&world, provider, &parts, &body);

    let path = parts.uri.path();
    let is_send = parts.method == Method::POST
        && (path.ends_with("/messages") || path.ends_with("/Messages.json"));
    let lines = match provider {
        Provider::Meta => path
            .split('/')
            .nth(2)
            .map(str::to_owned)
            .into_iter()
            .collect(),
        Provider::Twilio => twilio::lines_of_request(path, &body),
    };
    let verdict = world.judge_request(provider, &lines, is_send);
    if !verdict.delay.is_zero() {
        tokio::time::sleep(verdict.delay).await;
    }
    let response = match verdict.outcome {
        Some(FaultKind::ResetBeforeAccept) => {
            plug.pull();
            return StatusCode::BAD_GATEWAY.into_response();
        }
        Some(FaultKind::RateLimited) => match provider {
            Provider::Meta => MetaError::throughput().into_response(),
            Provider::Twilio => TwilioError::too_many_requests().into_response(),
        },
        Some(FaultKind::ServerError) => match provider {
            Provider::Meta => MetaError::internal().into_response(),
            Provider::Twilio => TwilioError::internal().into_response(),
        },
        Some(FaultKind::ExpiredToken) => match provider {
            Provider::Meta => MetaError::expired_token().into_response(),
            Provider::Twilio => TwilioError::authenticate().into_response(),
        },
        outcome => {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            if !verdict.answer_delay.is_zero() {
                tokio::time::sleep(verdict.answer_delay).await;
            }
            if outcome == Some(FaultKind::ResetAfterAccept) && response.status().is_success() {
                plug.pull();
                return response;
            }
            response
        }
    };
    world
        .lock()
        .record_answer(number, response.status().as_u16());
    response
}

fn record(world: &World, provider: Provider, parts: &Parts, body: &Bytes) -> u64 {
    let content_type = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let is_text = content_type
        .as_deref()
        .is_some_and(|t| t.starts_with("application/"));
    let text = (is_text && !body.is_empty()).then(|| {
        let head = &body[..body.len().min(RECORDED_BODY)];
        String::from_utf8_lossy(head).into_owned()
    });
    // A token may travel in the query; records are shown on screens.
    let query = parts.uri.query().map(|query| {
        query
            .split('&')
            .filter(|pair| !pair.starts_with("access_token="))
            .collect::<Vec<_>>()
            .join("&")
    });
    let request = world.lock().record_request(RecordedRequest {
        provider,
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query,
        content_type,
        body: text,
        body_bytes: body.len(),
        answered: None,
        at: DateTime::UNIX_EPOCH,
        number: 0,
    });
    let number = request.number;
    world.emit(Event::Request { request });
    number
}
