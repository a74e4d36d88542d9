//! `POST …/Messages.json`.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    TwilioError, TwilioExtra, account_for, callback, content, form, messages::describe, new_sid,
    opt_out, schedule, value,
};
use crate::world::{
    Customer, Event, MessagingService, NewMessage, Origin, Provider, Tick, TwilioAccount,
    TwilioChannel, World,
    media::StoredMedia,
    phone::{self, is_e164},
};

type Form = Vec<(String, String)>;

pub(super) async fn create(
    State(world): State<World>,
    Path(account_sid): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), TwilioError> {
    let account = account_for(&world, &headers, &account_sid)?;
    let form = form(&body);
    let order = Order::check(&world, &account, &form)?;
    Ok((StatusCode::CREATED, Json(take(&world, &account, order))))
}

/// A request that passed every check Twilio makes before it answers.
struct Order {
    customer: Customer,
    channel: TwilioChannel,
    to: String,
    /// Address the message leaves from.
    sender: String,
    service: Option<MessagingService>,
    body: String,
    media_urls: Vec<String>,
    is_template: bool,
    content_sid: Option<String>,
    status_callback: Option<String>,
    send_at: Option<DateTime<Utc>>,
    /// What goes wrong after the answer.
    failure: Option<u32>,
}

impl Order {
    fn check(world: &World, account: &TwilioAccount, form: &Form) -> Result<Self, TwilioError> {
        let get = |key| value(form, key).filter(|value| !value.is_empty());
        let to = get("To")
            .ok_or_else(|| TwilioError::bad(21_604, "A 'To' phone number is required."))?;
        let (channel, customer) = recipient(world, to)?;
        let service = match get("MessagingServiceSid") {
            None => None,
            Some(sid) => Some(service(account, sid)?),
        };
        let sender = sender(account, get("From"), service.as_ref(), channel, to)?;
        let (body, mut failure, content_sid) = words(account, form)?;
        let media_urls = media_urls(form)?;
        let is_template = content_sid.is_some();
        if body.is_empty() && media_urls.is_empty() && !is_template {
            return Err(TwilioError::bad(21_602, "Message body is required."));
        }
        let status_callback = get("StatusCallback").map(str::to_owned);
        if let Some(url) = &status_callback
            && !is_callback_url(url)
        {
            return Err(TwilioError::bad(
                21_609,
                "The 'StatusCallback' URL is not a valid URL.",
            ));
        }
        if let Some(period) = get("ValidityPeriod")
            && !period
                .parse()
                .is_ok_and(|seconds: u32| (1..=36_000).contains(&seconds))
        {
            return Err(TwilioError::bad(
                20_001,
                "ValidityPeriod must be between 1 and 36000 seconds.",
            ));
        }
        let send_at = schedule::check(world.now(), form, service.is_some())?;

        let state = world.lock();
        if opt_out::is_blocked(&state, &sender, service.as_ref(), &customer.number) {
            return Err(TwilioError::bad(
                21_610,
                "Attempt to send to unsubscribed recipient",
            ));
        }
        let window_open = state.window_is_open(&sender, &customer.number);
        drop(state);
        failure = match channel {
            _ if send_at.is_some() => failure,
            TwilioChannel::Sms => (!customer.reachable).then_some(30_003),
            TwilioChannel::Whatsapp if !customer.reachable => Some(63_024),
            TwilioChannel::Whatsapp if !is_template && !window_open => Some(63_016),
            TwilioChannel::Whatsapp => failure,
        };
        Ok(Self {
            customer,
            channel,
            to: to.to_owned(),
            sender,
            service,
            body,
            media_urls,
            is_template,
            content_sid,
            status_callback,
            send_at,
            failure,
        })
    }
}

fn recipient(world: &World, to: &str) -> Result<(TwilioChannel, Customer), TwilioError> {
    let invalid = || TwilioError::bad(21_211, format!("Invalid 'To' Phone Number: {}", masked(to)));
    let mut state = world.lock();
    let (channel, bare) = match to.strip_prefix("whatsapp:") {
        Some(bare) => (TwilioChannel::Whatsapp, bare),
        None => (TwilioChannel::Sms, to),
    };
    if channel == TwilioChannel::Whatsapp && phone::is_user_id(bare) {
        let customer = state.customer_by_user_id(bare).cloned();
        return Ok((channel, customer.ok_or_else(invalid)?));
    }
    let spaced: String = bare.chars().filter(|c| !" -().".contains(*c)).collect();
    if !is_e164(&spaced) {
        return Err(invalid());
    }
    Ok((channel, state.customer(&spaced).clone()))
}

/// Twilio hides most of the number in its messages.
fn masked(number: &str) -> String {
    let shown: String = number.chars().take(6).collect();
    format!("{shown}XXXX")
}

fn service(account: &TwilioAccount, sid: &str) -> Result<MessagingService, TwilioError> {
    account
        .messaging_services
        .iter()
        .find(|service| service.sid == sid)
        .cloned()
        .ok_or_else(|| TwilioError::bad(21_701, "The Messaging Service does not exist"))
}

/// The address the message leaves from: `From`, else the service's first sender of the channel.
fn sender(
    account: &TwilioAccount,
    from: Option<&str>,
    service: Option<&MessagingService>,
    channel: TwilioChannel,
    to: &str,
) -> Result<String, TwilioError> {
    let owned = |address: &str| account.numbers.iter().any(|n| n.address() == address);
    let is_whatsapp = |address: &str| address.starts_with("whatsapp:");
    let Some(from) = from else {
        let Some(service) = service else {
            return Err(TwilioError::bad(
                21_603,
                "A 'From' phone number is required.",
            ));
        };
        let wants_whatsapp = channel == TwilioChannel::Whatsapp;
        return service
            .senders
            .iter()
            .find(|address| is_whatsapp(address) == wants_whatsapp && owned(address))
            .cloned()
            .ok_or_else(|| {
                TwilioError::bad(
                    21_703,
                    "The Messaging Service does not have a phone number available to send a message",
                )
            });
    };
    if is_whatsapp(from) != (channel == TwilioChannel::Whatsapp) {
        return Err(TwilioError::bad(
            21_910,
            "Invalid From and To pair. From and To should be of the same channel",
        ));
    }
    if from == to {
        return Err(TwilioError::bad(
            21_266,
            "'To' and 'From' number cannot be the same",
        ));
    }
    if owned(from) {
        return Ok(from.to_owned());
    }
    Err(if is_whatsapp(from) {
        TwilioError::bad(
            63_007,
            "Twilio could not find a Channel with the specified From address",
        )
    } else {
        TwilioError::bad(
            21_606,
            "The 'From' phone number provided is not a valid message-capable Twilio phone number for this account.",
        )
    })
}

/// Body (given or filled in), what filling in will fail with later, and the template.
fn words(
    account: &TwilioAccount,
    form: &Form,
) -> Result<(String, Option<u32>, Option<String>), TwilioError> {
    let get = |key| value(form, key).filter(|value| !value.is_empty());
    if let Some(sid) = get("ContentSid") {
        let filled = content::fill(account, sid, get("ContentVariables"))?;
        return Ok((filled.body, filled.failure, Some(sid.to_owned())));
    }
    let body = get("Body").unwrap_or_default();
    if body.chars().count() > 1_600 {
        return Err(TwilioError::bad(
            21_617,
            "The concatenated message body exceeds the 1600 character limit",
        ));
    }
    Ok((body.to_owned(), None, None))
}

fn media_urls(form: &Form) -> Result<Vec<String>, TwilioError> {
    let urls: Vec<String> = form
        .iter()
        .filter(|(key, value)| key == "MediaUrl" && !value.is_empty())
        .map(|(_, value)| value.clone())
        .collect();
    if urls.len() > 10 {
        return Err(TwilioError::bad(
            21_623,
            "Number of media files exceeds allowed limit",
        ));
    }
    let is_web =
        |url: &String| url::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https"));
    if !urls.iter().all(is_web) {
        return Err(TwilioError::bad(21_620, "Invalid media URL(s)"));
    }
    Ok(urls)
}

/// A web address whose host has no underscore.
fn is_callback_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| !host.contains('_'))
    })
}

/// Stores the message, starts its course, and describes it as the answer does.
fn take(world: &World, account: &TwilioAccount, order: Order) -> Value {
    let id = new_sid(if order.media_urls.is_empty() {
        "SM"
    } else {
        "MM"
    });
    let scheduled = order.send_at.is_some();
    let status = match (&order.service, scheduled) {
        (_, true) => "scheduled",
        (Some(_), false) => "accepted",
        (None, false) => "queued",
    };
    let (message, described) = {
        let mut state = world.lock();
        let now = state.now();
        let mut media = Vec::new();
        for url in &order.media_urls {
            let sid = new_sid("ME");
            state.insert_media(StoredMedia {
                id: sid.clone(),
                provider: Provider::Twilio,
                owner: account.account_sid.clone(),
                parent: Some(id.clone()),
                mime_type: guess_type(url).to_owned(),
                filename: None,
                bytes: Bytes::new(),
                external_url: Some(url.clone()),
                created_at: now,
                expires_at: None,
            });
            media.push(sid);
        }
        let mut message = state.insert_message(NewMessage {
            id: id.clone(),
            provider: Provider::Twilio,
            line: order.sender.clone(),
            customer: order.customer.number.clone(),
            origin: Origin::Api,
            kind: if order.is_template {
                "template"
            } else if media.is_empty() {
                "text"
            } else {
                "media"
            }
            .to_owned(),
            text: (!order.body.is_empty()).then(|| order.body.clone()),
            content: json!({"media_urls": order.media_urls, "content_sid": order.content_sid}),
            tick: if scheduled {
                Tick::Scheduled
            } else {
                Tick::Accepted
            },
            context_id: None,
            reference: order.status_callback.clone(),
            meta: None,
            twilio: Some(TwilioExtra {
                account_sid: account.account_sid.clone(),
                service_sid: order.service.as_ref().map(|service| service.sid.clone()),
                status: status.to_owned(),
                from: Some(order.sender.clone()),
                to: order.to.clone(),
                segments: callback::segments(&order.body, order.channel),
                body: order.body,
                direction: "outbound-api",
                media,
                date_sent: None,
                status_callback: order.status_callback,
                send_at: order.send_at,
                failure: order.failure,
            }),
        });
        let stored = message.clone();
        // With a service neither sender nor segments are known yet when Twilio answers.
        if order.service.is_some()
            && let Some(extra) = &mut message.twilio
        {
            extra.from = None;
            extra.segments = 0;
        }
        (stored, describe(&message))
    };
    world.emit(Event::Message { message });
    if !scheduled {
        if order.service.is_some() {
            callback::tell_word(world, &id, "queued");
        }
        callback::start_course(world, id, order.failure);
    }
    described
}

fn guess_type(url: &str) -> &'static str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    match path.rsplit('.').next().unwrap_or_default() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "pdf" => "application/pdf",
        "mp4" => "video/mp4",
        "ogg" => "audio/ogg",
        _ => "application/octet-stream",
    }
}
