//! Stand-in for Twilio's Messaging API: SMS and WhatsApp.
//!
//! [`create`] takes messages, [`schedule`] holds those for later, [`messages`] reads, redacts, cancels, deletes and lists them, [`files`]
//! serves media, [`content`] knows templates, [`inbound`] and [`callback`] write the webhooks,
//! [`opt_out`] does what Twilio does with STOP.

mod callback;
mod content;
mod create;
mod error;
mod files;
mod inbound;
mod messages;
mod opt_out;
mod schedule;
pub(crate) mod signature;

use axum::{
    Router,
    http::{HeaderMap, header::AUTHORIZATION},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub(crate) use callback::tell_status;
pub(crate) use error::TwilioError;
pub(crate) use files::storage_router;
pub(crate) use inbound::{receive, take_answer};
pub(crate) use schedule::release_scheduled;

use crate::world::{Tick, TwilioAccount, World};

pub(crate) const API_VERSION: &str = "2010-04-01";

/// What the stand-in remembers of a message beyond what people see.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TwilioExtra {
    pub(crate) account_sid: String,
    pub(crate) service_sid: Option<String>,
    /// Twilio's own word: `accepted`, `queued`, `undelivered`, `received`, …
    pub(crate) status: String,
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) body: String,
    /// `outbound-api`, `outbound-reply`, `inbound`.
    pub(crate) direction: &'static str,
    pub(crate) media: Vec<String>,
    pub(crate) segments: usize,
    pub(crate) date_sent: Option<DateTime<Utc>>,
    pub(crate) status_callback: Option<String>,
    /// When a scheduled message goes out, and how it will end.
    pub(crate) send_at: Option<DateTime<Utc>>,
    pub(crate) failure: Option<u32>,
}

impl TwilioExtra {
    /// Keeps Twilio's word in step with the tick.
    pub(crate) fn note_tick(&mut self, tick: Tick, error: Option<u32>, now: DateTime<Utc>) {
        let word = match tick {
            Tick::Scheduled => "scheduled",
            Tick::Accepted => "queued",
            Tick::Sent => "sent",
            Tick::Delivered => "delivered",
            Tick::Read => "read",
            Tick::Canceled => "canceled",
            // The network said no; `failed` is what never left Twilio.
            Tick::Failed if error.is_some_and(is_undelivered) => "undelivered",
            Tick::Failed => "failed",
        };
        word.clone_into(&mut self.status);
        if tick == Tick::Sent || self.status == "undelivered" {
            self.date_sent.get_or_insert(now);
        }
    }
}

fn is_undelivered(code: u32) -> bool {
    matches!(code, 30_003..=30_008 | 63_016 | 63_024 | 63_049)
}

pub(crate) fn router() -> Router<World> {
    Router::new()
        .route(
            "/2010-04-01/Accounts/{account}/Messages.json",
            post(create::create).get(messages::list),
        )
        .route(
            "/2010-04-01/Accounts/{account}/Messages/{message}",
            get(messages::fetch)
                .post(messages::update)
                .delete(messages::delete),
        )
        .route(
            "/2010-04-01/Accounts/{account}/Messages/{message}/Media.json",
            get(files::list),
        )
        .route(
            "/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}",
            get(files::fetch).delete(files::delete),
        )
        .route("/v1/Content", get(content::list))
        .route("/v1/ContentAndApprovals", get(content::list))
        .route("/v1/Content/{sid}", get(content::fetch))
        .route("/v2/Indicators/Typing.json", post(messages::typing))
}

/// The account whose token or API key the request carries.
fn authenticate(world: &World, headers: &HeaderMap) -> Result<TwilioAccount, TwilioError> {
    let (user, password) = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| {
            let (user, password) = text.split_once(':')?;
            Some((user.to_owned(), password.to_owned()))
        })
        .ok_or_else(TwilioError::authenticate)?;
    let state = world.lock();
    state
        .twilio_accounts
        .values()
        .find(|account| {
            (account.account_sid == user && account.auth_token == password)
                || account
                    .api_keys
                    .iter()
                    .any(|key| key.sid == user && key.secret == password)
        })
        .cloned()
        .ok_or_else(TwilioError::authenticate)
}

/// The account named in the path, which must be the one that authenticated.
fn account_for(
    world: &World,
    headers: &HeaderMap,
    account_sid: &str,
) -> Result<TwilioAccount, TwilioError> {
    let account = authenticate(world, headers)?;
    if account.account_sid == account_sid {
        Ok(account)
    } else {
        Err(TwilioError::authenticate())
    }
}

/// `SM`, `MM`, `ME`, … and 32 hex digits.
fn new_sid(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::new_v4().simple())
}

/// The form of a request, in order, repeated keys kept.
fn form(body: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

fn value<'a>(form: &'a [(String, String)], key: &str) -> Option<&'a str> {
    form.iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// What a fault may call the line of this request: account, sender, service.
pub(crate) fn lines_of_request(path: &str, body: &[u8]) -> Vec<String> {
    let account = path.split('/').nth(3).map(str::to_owned);
    let form = form(body);
    let senders = ["From", "MessagingServiceSid"]
        .iter()
        .filter_map(|key| value(&form, key).map(str::to_owned));
    account.into_iter().chain(senders).collect()
}
