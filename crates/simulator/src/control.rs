//! The control API, `/sim/…`: JSON, open to any origin (a page shows the simulated phone beside the inbox).
//!
//! | route | what |
//! |---|---|
//! | `GET PUT /sim/meta/numbers` | list; register one [`MetaNumber`] |
//! | `POST /sim/meta/verify` | `{phone_number_id}`: the GET handshake |
//! | `GET /sim/meta/templates?waba_id=` | templates of a WABA |
//! | `PUT /sim/meta/template-status` | `{waba_id, name, language, status, reason?}`, with its webhook |
//! | `PUT /sim/meta/template-quality` | `{waba_id, name, language, quality}`, with its webhook |
//! | `POST /sim/meta/field` | `{phone_number_id, field, value}`: any other webhook |
//! | `POST /sim/meta/echo` | a [`BusinessEcho`] |
//! | `GET PUT /sim/twilio/accounts` | list; register one [`TwilioAccount`] |
//! | `GET /sim/lines` | business addresses one can write to |
//! | `GET /sim/phones` | simulated phones with their threads |
//! | `PUT /sim/customers` | add or change a [`Customer`] |
//! | `GET /sim/thread?line=&customer=&limit=` | messages, oldest first, with ticks |
//! | `POST /sim/send` | a [`CustomerSend`] → `{id}` |
//! | `POST /sim/read` | `{line, customer}`: the customer opens the thread |
//! | `PUT /sim/messages/tick` | `{id, tick, error_code?}`: moves a message by hand |
//! | `POST /sim/messages/repeat-status` | `{id}`: the status webhook once more |
//! | `GET /sim/media/{id}` | the bytes, without credentials |
//! | `GET PUT /sim/settings` | [`Settings`](crate::Settings); `PUT` changes the fields given |
//! | `GET PUT DELETE /sim/faults` | the [`FaultPlan`] |
//! | `POST /sim/clock/advance` | `{seconds}` |
//! | `GET /sim/requests` `/sim/accepted?reference=` `/sim/double-sends` `/sim/webhooks` `/sim/alerts` | records |
//! | `DELETE /sim/records` | forgets the records |
//! | `POST /sim/clear` | forgets everything but registrations, settings and faults |
//! | `GET /sim/email/server` | a [`MailServer`](crate::MailServer): addresses and the root certificate |
//! | `GET PUT /sim/email/mailboxes` | list; register one [`Mailbox`](crate::Mailbox) |
//! | `GET /sim/email/received` | every [`ReceivedEmail`](crate::ReceivedEmail), the oldest first |
//! | `POST /sim/email/send` | a [`CustomerEmail`](crate::CustomerEmail), new or in reply → `{id}` |
//! | `POST /sim/email/bounce` | an [`EmailBounce`](crate::EmailBounce) |
//! | `GET PUT DELETE /sim/email/faults` | the [`MailFaults`](crate::MailFaults) |
//! | `GET /sim/s3` | `{objects: [{key, size}], uploads}` of the S3 service at `/s3` |
//! | `/sim/whatsapp-web/…` | the phones devices can be linked to; listed in `whatsapp_web::control` |
//! | `GET /sim/events` | server-sent events, each an [`Event`] |
//!
//! Errors are `{error: {code, message}}`.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
    routing::{delete, get, post, put},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tower_http::cors::CorsLayer;

use crate::{
    faults::FaultPlan,
    world::{
        AcceptedSend, BusinessEcho, Customer, CustomerSend, Event, Message, MetaNumber, Template,
        Tick, TwilioAccount, World, WorldError,
    },
};

pub(crate) fn router() -> Router<World> {
    Router::new()
        .route(
            "/meta/numbers",
            get(async |State(w): State<World>| Json(w.meta_numbers())).put(put_number),
        )
        .route("/meta/verify", post(verify))
        .route("/meta/templates", get(templates))
        .route("/meta/template-status", put(template_status))
        .route("/meta/template-quality", put(template_quality))
        .route("/meta/field", post(meta_field))
        .route("/meta/echo", post(echo))
        .route(
            "/twilio/accounts",
            get(async |State(w): State<World>| Json(w.twilio_accounts())).put(put_account),
        )
        .route(
            "/lines",
            get(async |State(w): State<World>| Json(w.lines())),
        )
        .route(
            "/phones",
            get(async |State(w): State<World>| Json(w.phones())),
        )
        .route("/customers", put(put_customer))
        .route("/thread", get(thread))
        .route("/send", post(send))
        .route("/read", post(read))
        .route("/messages/tick", put(tick))
        .route("/messages/repeat-status", post(repeat_status))
        .route("/media/{id}", get(media))
        .route(
            "/settings",
            get(async |State(w): State<World>| Json(w.settings())).put(put_settings),
        )
        .route(
            "/faults",
            get(async |State(w): State<World>| Json(w.faults()))
                .put(put_faults)
                .delete(heal),
        )
        .route("/clock/advance", post(advance))
        .route(
            "/requests",
            get(async |State(w): State<World>| Json(w.requests())),
        )
        .route("/accepted", get(accepted))
        .route(
            "/double-sends",
            get(async |State(w): State<World>| Json(w.double_sends())),
        )
        .route(
            "/webhooks",
            get(async |State(w): State<World>| Json(w.webhooks())),
        )
        .route(
            "/alerts",
            get(async |State(w): State<World>| Json(w.alerts())),
        )
        .route("/records", delete(clear_records))
        .route("/clear", post(clear))
        .nest("/email", crate::smtp::router())
        .route("/events", get(events))
        .layer(CorsLayer::permissive())
}

/// An error as the control API shows it.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl From<WorldError> for Refusal {
    fn from(error: WorldError) -> Self {
        let (status, code) = match error {
            WorldError::UnknownLine => (StatusCode::NOT_FOUND, "unknown_line"),
            WorldError::UnknownMessage => (StatusCode::NOT_FOUND, "unknown_message"),
            WorldError::UnknownTemplate => (StatusCode::NOT_FOUND, "unknown_template"),
            WorldError::NotPossible(_) => (StatusCode::UNPROCESSABLE_ENTITY, "not_possible"),
            WorldError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
            WorldError::WebhookFailed(_) => (StatusCode::BAD_GATEWAY, "webhook_failed"),
        };
        Self {
            status,
            code,
            message: error.to_string(),
        }
    }
}

impl From<JsonRejection> for Refusal {
    fn from(error: JsonRejection) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "invalid",
            message: error.body_text(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        (self.status, Json(body)).into_response()
    }
}

pub(crate) type Done = Result<StatusCode, Refusal>;
pub(crate) type Given<T> = Result<Json<T>, JsonRejection>;

async fn put_number(State(world): State<World>, body: Given<MetaNumber>) -> Done {
    world.register_meta_number(body?.0)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_account(State(world): State<World>, body: Given<TwilioAccount>) -> Done {
    world.register_twilio_account(body?.0)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_customer(State(world): State<World>, body: Given<Customer>) -> Done {
    world.put_customer(body?.0)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct NumberId {
    phone_number_id: String,
}

async fn verify(State(world): State<World>, body: Given<NumberId>) -> Done {
    world.verify_meta_webhook(&body?.phone_number_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct WabaId {
    waba_id: String,
}

async fn templates(State(world): State<World>, Query(asked): Query<WabaId>) -> Json<Vec<Template>> {
    Json(world.templates(&asked.waba_id))
}

#[derive(Deserialize)]
struct TemplateStatus {
    waba_id: String,
    name: String,
    language: String,
    status: String,
    reason: Option<String>,
}

async fn template_status(State(world): State<World>, body: Given<TemplateStatus>) -> Done {
    let Json(to) = body?;
    let reason = to.reason.as_deref();
    world.set_template_status(&to.waba_id, &to.name, &to.language, &to.status, reason)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct TemplateQuality {
    waba_id: String,
    name: String,
    language: String,
    quality: String,
}

async fn template_quality(State(world): State<World>, body: Given<TemplateQuality>) -> Done {
    let Json(to) = body?;
    world.set_template_quality(&to.waba_id, &to.name, &to.language, &to.quality)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct MetaField {
    phone_number_id: String,
    field: String,
    value: Value,
}

async fn meta_field(State(world): State<World>, body: Given<MetaField>) -> Done {
    let Json(given) = body?;
    world.send_meta_field(&given.phone_number_id, &given.field, given.value)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn echo(
    State(world): State<World>,
    body: Given<BusinessEcho>,
) -> Result<Json<Value>, Refusal> {
    let id = world.send_as_business_app(body?.0)?;
    Ok(Json(json!({ "id": id })))
}

async fn send(
    State(world): State<World>,
    body: Given<CustomerSend>,
) -> Result<Json<Value>, Refusal> {
    let id = world.send_as_customer(body?.0)?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize)]
struct ThreadQuery {
    line: String,
    customer: String,
    limit: Option<usize>,
}

async fn thread(
    State(world): State<World>,
    Query(asked): Query<ThreadQuery>,
) -> Json<Vec<Message>> {
    let limit = asked.limit.unwrap_or(200);
    Json(world.thread(&asked.line, &asked.customer, limit))
}

#[derive(Deserialize)]
struct ThreadName {
    line: String,
    customer: String,
}

async fn read(State(world): State<World>, body: Given<ThreadName>) -> Result<Json<Value>, Refusal> {
    let Json(thread) = body?;
    let count = world.mark_read(&thread.line, &thread.customer);
    Ok(Json(json!({ "read": count })))
}

#[derive(Deserialize)]
struct TickChange {
    id: String,
    tick: Tick,
    error_code: Option<u32>,
}

async fn tick(State(world): State<World>, body: Given<TickChange>) -> Result<Json<Value>, Refusal> {
    let Json(change) = body?;
    let moved = match (change.tick, change.error_code) {
        (Tick::Failed, Some(code)) => world.fail_message(&change.id, code)?,
        (tick, _) => world.set_tick(&change.id, tick)?,
    };
    Ok(Json(json!({ "moved": moved })))
}

#[derive(Deserialize)]
struct MessageId {
    id: String,
}

async fn repeat_status(State(world): State<World>, body: Given<MessageId>) -> Done {
    world.repeat_status(&body?.id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn media(State(world): State<World>, Path(id): Path<String>) -> Response {
    let state = world.lock();
    match state.media(&id) {
        Some(media) => (
            [(CONTENT_TYPE, media.mime_type.clone())],
            media.bytes.clone(),
        )
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Fields left out keep their value; `null` is a value.
async fn put_settings(
    State(world): State<World>,
    body: Given<serde_json::Map<String, Value>>,
) -> Result<Response, Refusal> {
    let invalid = |error: serde_json::Error| WorldError::Invalid(error.to_string());
    let mut merged = serde_json::to_value(world.settings()).map_err(invalid)?;
    for (key, value) in body?.0 {
        merged[key] = value;
    }
    let settings = serde_json::from_value(merged).map_err(invalid)?;
    world.set_settings(settings);
    Ok(Json(world.settings()).into_response())
}

async fn put_faults(State(world): State<World>, body: Given<FaultPlan>) -> Done {
    world.set_faults(body?.0);
    Ok(StatusCode::NO_CONTENT)
}

async fn heal(State(world): State<World>) -> StatusCode {
    world.set_faults(FaultPlan::default());
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Seconds {
    seconds: u64,
}

async fn advance(State(world): State<World>, body: Given<Seconds>) -> Result<Json<Value>, Refusal> {
    world.advance(Duration::from_secs(body?.seconds));
    Ok(Json(json!({ "now": world.now() })))
}

#[derive(Deserialize)]
struct Reference {
    reference: Option<String>,
}

async fn accepted(
    State(world): State<World>,
    Query(asked): Query<Reference>,
) -> Json<Vec<AcceptedSend>> {
    Json(match asked.reference {
        Some(reference) => world.accepted_with(&reference),
        None => world.accepted(),
    })
}

async fn clear_records(State(world): State<World>) -> StatusCode {
    world.clear_records();
    StatusCode::NO_CONTENT
}

async fn clear(State(world): State<World>) -> StatusCode {
    world.clear();
    StatusCode::NO_CONTENT
}

/// Each event is one `data:` line of JSON; the stream ends with the simulator.
async fn events(
    State(world): State<World>,
) -> Sse<impl Stream<Item = Result<axum::response::sse::Event, Infallible>>> {
    let receiver = world.events();
    let stop = world.stopping().clone();
    let stream = stream::unfold((receiver, stop), async |(mut receiver, stop)| {
        let event = tokio::select! {
            () = stop.cancelled() => return None,
            event = receiver.recv() => event,
        };
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Lagged(count)) => Event::Missed { count },
            Err(RecvError::Closed) => return None,
        };
        let text = serde_json::to_string(&event).ok()?;
        let event = axum::response::sse::Event::default().data(text);
        Some((Ok(event), (receiver, stop)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
