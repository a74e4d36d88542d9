//! Stand-in for Meta's WhatsApp Cloud API (Graph).
//!
//! [`send`] takes messages, [`validate`] and [`template`] refuse bad ones, [`upload`] holds media,
//! [`manage`] answers about numbers and templates, [`inbound`] and [`outbound`] write the webhooks.

mod error;
mod inbound;
mod json;
mod manage;
mod outbound;
mod send;
mod template;
mod upload;
mod validate;

use axum::{
    Router,
    http::{HeaderMap, Uri, header::AUTHORIZATION},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use uuid::Uuid;

pub(crate) use error::MetaError;
pub(crate) use inbound::{echo, receive};
pub(crate) use outbound::{post_change, tell_status, tell_template_quality, tell_template_status};
pub(crate) use template::placeholders;

use crate::world::{MetaNumber, World, phone};

/// What the stand-in remembers of a message beyond what people see.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetaExtra {
    /// `service`, `utility`, `marketing`, `authentication`: decides the price.
    pub(crate) category: String,
}

pub(crate) fn router() -> Router<World> {
    Router::new()
        .route("/{version}/{id}/messages", post(send::post_message))
        .route("/{version}/{id}/media", post(upload::post_media))
        .route(upload::DOWNLOAD_PATH, get(upload::download))
        .route(
            "/{version}/{id}/message_templates",
            get(manage::list_templates)
                .post(manage::create_template)
                .delete(manage::delete_template),
        )
        .route("/{version}/{id}/phone_numbers", get(manage::list_numbers))
        .route("/{version}/{id}/register", post(manage::accept))
        .route("/{version}/{id}/deregister", post(manage::accept))
        .route("/{version}/{id}/subscribed_apps", post(manage::accept))
        .route(
            "/{version}/{id}",
            get(manage::get_object)
                .post(manage::edit_object)
                .delete(upload::delete_media),
        )
}

/// The bearer token of a request, known to at least one number.
fn token(world: &World, headers: &HeaderMap, uri: &Uri) -> Result<String, MetaError> {
    let header = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned);
    let token = header
        .or_else(|| {
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .find(|(key, _)| key == "access_token")
                .map(|(_, value)| value.into_owned())
        })
        .filter(|token| !token.is_empty())
        .ok_or_else(MetaError::bad_token)?;
    let state = world.lock();
    if state.meta_numbers.values().any(|n| n.access_token == token) {
        Ok(token)
    } else {
        Err(MetaError::bad_token())
    }
}

/// The number with this id, if the token opens it.
fn number_for(
    world: &World,
    token: &str,
    method: &str,
    phone_number_id: &str,
) -> Result<MetaNumber, MetaError> {
    let state = world.lock();
    state
        .meta_numbers
        .get(phone_number_id)
        .filter(|number| number.access_token == token)
        .cloned()
        .ok_or_else(|| MetaError::no_object(method, phone_number_id))
}

/// A message id of Meta's look. Like the real ones it may hold `/` and `+`.
pub(crate) fn new_wamid(customer: &str) -> String {
    let mut raw = vec![0x1d, 0x0c];
    raw.extend(phone::digits(customer).into_bytes());
    raw.extend([0x15, 0x02, 0x00]);
    raw.extend(Uuid::new_v4().as_bytes());
    format!("wamid.{}", STANDARD.encode(raw))
}

/// An object id of Meta's look: sixteen digits.
pub(crate) fn new_object_id() -> String {
    let number = Uuid::new_v4().as_u128() % 9_000_000_000_000_000;
    (number + 1_000_000_000_000_000).to_string()
}
