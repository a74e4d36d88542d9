//! The mail routes of the control API; [`crate::control`] lists them.

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::model::{CustomerEmail, EmailBounce, MailFaults, Mailbox};
use crate::{
    control::{Done, Given, Refusal},
    world::World,
};

/// Below `/sim/email`.
pub(crate) fn router() -> Router<World> {
    Router::new()
        .route(
            "/server",
            get(async |State(w): State<World>| Json(w.mail_server())),
        )
        .route(
            "/mailboxes",
            get(async |State(w): State<World>| Json(w.mailboxes())).put(put_mailbox),
        )
        .route(
            "/received",
            get(async |State(w): State<World>| Json(w.emails())),
        )
        .route("/send", post(send))
        .route("/bounce", post(bounce))
        .route(
            "/faults",
            get(async |State(w): State<World>| Json(w.mail_faults()))
                .put(put_faults)
                .delete(heal),
        )
}

async fn put_mailbox(State(world): State<World>, body: Given<Mailbox>) -> Done {
    world.register_mailbox(body?.0)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn send(
    State(world): State<World>,
    body: Given<CustomerEmail>,
) -> Result<Json<Value>, Refusal> {
    let id = world.send_email(body?.0)?;
    Ok(Json(json!({ "id": id })))
}

async fn bounce(State(world): State<World>, body: Given<EmailBounce>) -> Done {
    world.bounce_email(&body?.0)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn put_faults(State(world): State<World>, body: Given<MailFaults>) -> Done {
    world.set_mail_faults(body?.0);
    Ok(StatusCode::NO_CONTENT)
}

async fn heal(State(world): State<World>) -> StatusCode {
    world.set_mail_faults(MailFaults::default());
    StatusCode::NO_CONTENT
}
