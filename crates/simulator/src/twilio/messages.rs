//! Reading, redacting, canceling, deleting and listing messages; the typing indicator.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};

use super::{API_VERSION, TwilioError, account_for, authenticate, error::message_for, form, value};
use crate::world::{Event, Message, Provider, Tick, World};

type Answer = Result<Json<Value>, TwilioError>;
type Ids = Path<(String, String)>;

/// RFC 2822 with a numeric zone, as Twilio writes times.
fn date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// What one message costs; Twilio writes charges as negative numbers.
const PRICE: &str = "-0.00750";

/// A message as the API shows it.
pub(super) fn describe(message: &Message) -> Value {
    let Some(extra) = &message.twilio else {
        return Value::Null;
    };
    let uri = format!(
        "/{API_VERSION}/Accounts/{}/Messages/{}",
        extra.account_sid, message.id
    );
    json!({
        "sid": message.id,
        "account_sid": extra.account_sid,
        "messaging_service_sid": extra.service_sid,
        "status": extra.status,
        "to": extra.to,
        "from": extra.from,
        "body": extra.body,
        "num_segments": extra.segments.to_string(),
        "num_media": extra.media.len().to_string(),
        "direction": extra.direction,
        "error_code": message.error_code,
        "error_message": message.error_code.map(message_for),
        // Known some time after the message has gone out.
        "price": extra.date_sent.map(|_| PRICE),
        "price_unit": "USD",
        "date_created": date(message.at),
        "date_updated": date(message.updated_at),
        "date_sent": extra.date_sent.map(date),
        "api_version": API_VERSION,
        "subresource_uris": {"media": format!("{uri}/Media.json")},
        "uri": format!("{uri}.json"),
    })
}

/// The message, if it is this account's.
pub(super) fn find(world: &World, account: &str, sid: &str) -> Result<Message, TwilioError> {
    let state = world.lock();
    state
        .message(sid)
        .filter(|m| m.twilio.as_ref().is_some_and(|t| t.account_sid == account))
        .cloned()
        .ok_or_else(|| {
            TwilioError::not_found(&format!(
                "/{API_VERSION}/Accounts/{account}/Messages/{sid}.json"
            ))
        })
}

fn sid(file: &str) -> &str {
    file.strip_suffix(".json").unwrap_or(file)
}

pub(super) async fn fetch(
    State(world): State<World>,
    Path((account, file)): Ids,
    headers: HeaderMap,
) -> Answer {
    account_for(&world, &headers, &account)?;
    Ok(Json(describe(&find(&world, &account, sid(&file))?)))
}

/// `Body=""` redacts; `Status=canceled` stops a scheduled message.
pub(super) async fn update(
    State(world): State<World>,
    Path((account, file)): Ids,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    account_for(&world, &headers, &account)?;
    let id = sid(&file);
    let message = find(&world, &account, id)?;
    let form = form(&body);
    match (value(&form, "Status"), value(&form, "Body")) {
        (Some("canceled"), _) => {
            if message.tick != Tick::Scheduled || !world.step(id, Tick::Canceled, None) {
                return Err(TwilioError::new(
                    409,
                    20_409,
                    "Only a scheduled message can be canceled",
                ));
            }
        }
        (None, Some("")) => {
            require_complete(&message)?;
            let redacted = world.change_message(id, |message| {
                message.text = None;
                if let Some(extra) = &mut message.twilio {
                    extra.body.clear();
                }
            });
            redacted.map_err(|_| TwilioError::not_found(&file))?;
        }
        _ => {
            return Err(TwilioError::bad(
                20_001,
                "Only an empty Body or Status=canceled can be set",
            ));
        }
    }
    Ok(Json(describe(&find(&world, &account, id)?)))
}

fn require_complete(message: &Message) -> Result<(), TwilioError> {
    let on_its_way = matches!(message.tick, Tick::Accepted | Tick::Scheduled);
    if on_its_way && !message.is_from_customer() {
        return Err(TwilioError::new(
            409,
            20_009,
            "Cannot change this resource before it is complete",
        ));
    }
    Ok(())
}

pub(super) async fn delete(
    State(world): State<World>,
    Path((account, file)): Ids,
    headers: HeaderMap,
) -> Result<StatusCode, TwilioError> {
    account_for(&world, &headers, &account)?;
    let message = find(&world, &account, sid(&file))?;
    require_complete(&message)?;
    let mut state = world.lock();
    for media in message.twilio.iter().flat_map(|extra| &extra.media) {
        state.remove_media(media);
    }
    state.remove_message(&message.id);
    Ok(StatusCode::NO_CONTENT)
}

/// Newest first, with `To`, `From` and `DateSent` (`=`, `<`, `>`) as filters.
pub(super) async fn list(
    State(world): State<World>,
    Path(account): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    account_for(&world, &headers, &account)?;
    let query = form(uri.query().unwrap_or_default().as_bytes());
    let size = value(&query, "PageSize")
        .and_then(|size| size.parse::<usize>().ok())
        .unwrap_or(50)
        .clamp(1, 1_000);
    let page = value(&query, "Page")
        .and_then(|page| page.parse::<usize>().ok())
        .unwrap_or(0);
    let start = page.saturating_mul(size);
    let filter = Filter::of(&query)?;
    let mut found: Vec<Value> = {
        let state = world.lock();
        state
            .messages_newest_first()
            .filter(|message| message.provider == Provider::Twilio)
            .filter(|message| filter.lets_through(&account, message))
            .skip(start)
            .take(size + 1)
            .map(describe)
            .collect()
    };
    let more = found.len() > size;
    found.truncate(size);

    let path = uri.path();
    let address = |page: usize| {
        let mut query_out = url::form_urlencoded::Serializer::new(String::new());
        query_out.extend_pairs(
            query
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "Page" | "PageSize" | "PageToken")),
        );
        query_out
            .append_pair("PageSize", &size.to_string())
            .append_pair("Page", &page.to_string());
        format!("{path}?{}", query_out.finish())
    };
    let last = found.last().and_then(|m| m["sid"].as_str());
    let next = more.then(|| format!("{}&PageToken=PA{}", address(page + 1), last.unwrap_or("")));
    Ok(Json(json!({
        "first_page_uri": address(0),
        "next_page_uri": next,
        "previous_page_uri": page.checked_sub(1).map(address),
        "page": page,
        "page_size": size,
        "start": start,
        "end": (start + found.len()).saturating_sub(1),
        "uri": address(page),
        "messages": found,
    })))
}

struct Filter {
    to: Option<String>,
    from: Option<String>,
    on: Option<NaiveDate>,
    after: Option<DateTime<Utc>>,
    before: Option<DateTime<Utc>>,
}

impl Filter {
    fn of(query: &[(String, String)]) -> Result<Self, TwilioError> {
        let text = |key| value(query, key).map(str::to_owned);
        // `DateSent>=2026-01-01` reads as the key `DateSent>` with that value.
        let bound = |key| value(query, key).map(moment).transpose();
        Ok(Self {
            to: text("To"),
            from: text("From"),
            on: bound("DateSent")?.map(|at| at.date_naive()),
            after: bound("DateSent>")?,
            before: bound("DateSent<")?,
        })
    }

    fn lets_through(&self, account: &str, message: &Message) -> bool {
        let Some(extra) = &message.twilio else {
            return false;
        };
        let sent = extra.date_sent.unwrap_or(message.at);
        extra.account_sid == account
            && self.to.as_ref().is_none_or(|to| *to == extra.to)
            && self
                .from
                .as_ref()
                .is_none_or(|from| extra.from.as_ref() == Some(from))
            && self.on.is_none_or(|day| sent.date_naive() == day)
            && self.after.is_none_or(|at| sent >= at)
            && self.before.is_none_or(|at| sent <= at)
    }
}

/// A day or a time, UTC.
fn moment(text: &str) -> Result<DateTime<Utc>, TwilioError> {
    let day = text
        .parse::<NaiveDate>()
        .ok()
        .and_then(|day| day.and_hms_opt(0, 0, 0))
        .map(|time| time.and_utc());
    day.or_else(|| text.parse().ok())
        .ok_or_else(|| TwilioError::bad(20_001, "DateSent is not a date"))
}

/// `messageId` and `channel=whatsapp`: shows typing and marks the message read.
pub(super) async fn typing(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Answer {
    let account = authenticate(&world, &headers)?;
    let form = form(&body);
    if value(&form, "channel") != Some("whatsapp") {
        return Err(TwilioError::bad(20_001, "channel must be whatsapp"));
    }
    let id = value(&form, "messageId").unwrap_or_default();
    find(&world, &account.account_sid, id)?;
    let (line, customer) = world
        .business_read(id)
        .ok_or_else(|| TwilioError::bad(20_001, "messageId is not a received message"))?;
    world.emit(Event::Typing { line, customer });
    Ok(Json(json!({"success": true})))
}
