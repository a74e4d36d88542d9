//! The control API, `/sim/whatsapp-web/…`.
//!
//! | route | what |
//! |---|---|
//! | `GET POST /phones` | all [`WhatsappPhone`](super::WhatsappPhone)s; a [`NewWhatsappPhone`] → `{number}` |
//! | `POST /scan` | `{number, qr}` → the [`LinkedCompanion`](super::LinkedCompanion) |
//! | `POST /enter-code` | `{number, code}` → the same |
//! | `POST /unlink` | `{number}` → `{unlinked}` |
//! | `POST /send` | a [`WhatsappSend`] → `{id}` |
//! | `POST /read` | `{number, chat}` → `{read}` |
//! | `POST /typing` | `{from, to, state}`: `composing`, `recording`, `paused` |
//! | `POST /presence` | `{number, available}` |
//! | `GET /messages?phone=&chat=` | [`WhatsappMessage`](super::WhatsappMessage)s, oldest first |
//! | `GET /failures?phone=` | [`WhatsappFailure`](super::WhatsappFailure)s |
//! | `GET /media?phone=&id=` | a message's file, decrypted |
//! | `GET POST /groups` | all [`WhatsappGroup`](super::WhatsappGroup)s; `{creator, subject, members}` → the new one |
//! | `POST /groups/member` | `{group, number, member}` → the group |
//! | `GET PUT DELETE /faults` | the [`WhatsappFaults`] |
//! | `POST /disrupt` | `{number?, what}`: `drop`, `unavailable`, `replaced` → `{hit}` |
//! | `POST /ban` | `{number, seconds}`; 0 lifts it |
//! | `GET /url` | `{url, root_key}`: for `WHATSAPP_WEB_URL`, and the certificates' root in hexadecimal |
//!
//! Errors are `{error: {code, message}}`.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_http::cors::CorsLayer;

use crate::control::{Done, Given, Refusal};

use super::{
    NewWhatsappPhone, WhatsappDisruption, WhatsappFaults, WhatsappSend, WhatsappWeb,
    WhatsappWebError,
};

type Web = State<WhatsappWeb>;
type Answer = Result<Json<Value>, Refusal>;

pub(crate) fn router<S: Clone + Send + Sync + 'static>(web: WhatsappWeb) -> Router<S> {
    Router::new()
        .route("/phones", get(phones).post(register))
        .route("/scan", post(scan))
        .route("/enter-code", post(enter_code))
        .route("/unlink", post(unlink))
        .route("/send", post(send))
        .route("/read", post(read))
        .route("/typing", post(typing))
        .route("/presence", post(presence))
        .route("/messages", get(messages))
        .route("/failures", get(failures))
        .route("/media", get(media))
        .route("/groups", get(groups).post(create_group))
        .route("/groups/member", post(change_member))
        .route("/faults", get(faults).put(put_faults).delete(heal))
        .route("/disrupt", post(disrupt))
        .route("/ban", post(ban))
        .route("/url", get(url))
        .layer(DefaultBodyLimit::disable())
        .layer(CorsLayer::permissive())
        .with_state(web)
}

impl From<WhatsappWebError> for Refusal {
    fn from(error: WhatsappWebError) -> Self {
        let (status, code) = match error {
            WhatsappWebError::UnknownPhone => (StatusCode::NOT_FOUND, "unknown_phone"),
            WhatsappWebError::UnknownMessage => (StatusCode::NOT_FOUND, "unknown_message"),
            WhatsappWebError::UnknownGroup => (StatusCode::NOT_FOUND, "unknown_group"),
            WhatsappWebError::UnknownCode => (StatusCode::NOT_FOUND, "unknown_code"),
            WhatsappWebError::NotLinked(_) => (StatusCode::UNPROCESSABLE_ENTITY, "not_linked"),
            WhatsappWebError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
        };
        Self {
            status,
            code,
            message: error.to_string(),
        }
    }
}

async fn phones(State(web): Web) -> impl IntoResponse {
    Json(web.phones())
}

async fn register(State(web): Web, body: Given<NewWhatsappPhone>) -> Answer {
    let number = web.register(&body?.0)?;
    Ok(Json(json!({ "number": number })))
}

#[derive(Deserialize)]
struct Scan {
    number: String,
    qr: String,
}

async fn scan(State(web): Web, body: Given<Scan>) -> Result<Response, Refusal> {
    let Json(scan) = body?;
    let linked = web.scan(&scan.number, &scan.qr).await?;
    Ok(Json(linked).into_response())
}

#[derive(Deserialize)]
struct EnterCode {
    number: String,
    code: String,
}

async fn enter_code(State(web): Web, body: Given<EnterCode>) -> Result<Response, Refusal> {
    let Json(typed) = body?;
    let linked = web.enter_code(&typed.number, &typed.code).await?;
    Ok(Json(linked).into_response())
}

#[derive(Deserialize)]
struct Number {
    number: String,
}

async fn unlink(State(web): Web, body: Given<Number>) -> Answer {
    let count = web.unlink(&body?.number)?;
    Ok(Json(json!({ "unlinked": count })))
}

async fn send(State(web): Web, body: Given<WhatsappSend>) -> Answer {
    let id = web.send(&body?.0)?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize)]
struct Chat {
    number: String,
    chat: String,
}

async fn read(State(web): Web, body: Given<Chat>) -> Answer {
    let Json(chat) = body?;
    let count = web.read(&chat.number, &chat.chat)?;
    Ok(Json(json!({ "read": count })))
}

#[derive(Deserialize)]
struct Typing {
    from: String,
    to: String,
    state: String,
}

async fn typing(State(web): Web, body: Given<Typing>) -> Done {
    let Json(typing) = body?;
    web.typing(&typing.from, &typing.to, &typing.state)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Presence {
    number: String,
    available: bool,
}

async fn presence(State(web): Web, body: Given<Presence>) -> Done {
    let Json(presence) = body?;
    web.presence(&presence.number, presence.available)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct OfPhone {
    phone: String,
    chat: Option<String>,
    id: Option<String>,
}

async fn messages(State(web): Web, Query(asked): Query<OfPhone>) -> Result<Response, Refusal> {
    let mut messages = web.messages(&asked.phone)?;
    if let Some(chat) = &asked.chat {
        let chat = web.chat(chat)?;
        messages.retain(|message| message.chat == chat);
    }
    Ok(Json(messages).into_response())
}

async fn failures(State(web): Web, Query(asked): Query<OfPhone>) -> Result<Response, Refusal> {
    Ok(Json(web.failures(&asked.phone)?).into_response())
}

async fn media(State(web): Web, Query(asked): Query<OfPhone>) -> Response {
    let message = asked.id.and_then(|id| web.message(&asked.phone, &id));
    let Some((message, file)) = message.and_then(|mut message| {
        let file = message.file.take()?;
        Some((message, file))
    }) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mime = message.mime.unwrap_or_default();
    ([(CONTENT_TYPE, mime)], file).into_response()
}

async fn groups(State(web): Web) -> impl IntoResponse {
    Json(web.groups())
}

#[derive(Deserialize)]
struct NewGroup {
    creator: String,
    subject: String,
    members: Vec<String>,
}

async fn create_group(State(web): Web, body: Given<NewGroup>) -> Result<Response, Refusal> {
    let Json(new) = body?;
    let members: Vec<&str> = new.members.iter().map(String::as_str).collect();
    let group = web.create_group(&new.creator, &new.subject, &members)?;
    Ok(Json(group).into_response())
}

#[derive(Deserialize)]
struct Member {
    group: String,
    number: String,
    member: bool,
}

async fn change_member(State(web): Web, body: Given<Member>) -> Result<Response, Refusal> {
    let Json(change) = body?;
    let group = web.change_member(&change.group, &change.number, change.member)?;
    Ok(Json(group).into_response())
}

async fn faults(State(web): Web) -> Json<WhatsappFaults> {
    Json(web.faults())
}

async fn put_faults(State(web): Web, body: Given<WhatsappFaults>) -> Done {
    web.set_faults(body?.0);
    Ok(StatusCode::NO_CONTENT)
}

async fn heal(State(web): Web) -> StatusCode {
    web.set_faults(WhatsappFaults::default());
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Disrupt {
    number: Option<String>,
    what: WhatsappDisruption,
}

async fn disrupt(State(web): Web, body: Given<Disrupt>) -> Answer {
    let Json(wish) = body?;
    let hit = web.disrupt(wish.number.as_deref(), wish.what)?;
    Ok(Json(json!({ "hit": hit })))
}

#[derive(Deserialize)]
struct Ban {
    number: String,
    seconds: u32,
}

async fn ban(State(web): Web, body: Given<Ban>) -> Done {
    let Json(ban) = body?;
    web.ban(&ban.number, ban.seconds)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn url(State(web): Web) -> Json<Value> {
    Json(json!({ "url": web.url(), "root_key": web.root_key() }))
}
