//! Twilio's webhooks, incoming messages and status callbacks, in the domain's words.
//!
//! Sources: Twilio, "Twilio's request to your incoming message webhook URL" and "Outbound message status in
//! status callbacks". Twilio adds parameters without notice, so unknown ones never matter.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use wasel_domain::consent::Consent;
use wasel_domain::event::{
    ConsentEvent, InboundMessage, Party, ProviderError, ProviderEvent, Reaction, RoutedEvent,
    StatusEvent,
};
use wasel_domain::{AttemptId, E164, MessageStatus};

use super::address::{self, Network};
use super::form::{self, Params};
use super::{errors, inbound};
use crate::{ParseError, WebhookRequest};

/// Turns one request into events: one message, perhaps with a consent, or one status.
pub(super) fn events(
    request: &WebhookRequest<'_>,
    received_at: DateTime<Utc>,
) -> Result<Vec<RoutedEvent>, ParseError> {
    let params = Params::of(request);
    let envelope = Envelope::read(&params)?;
    match status_word(&params) {
        None => incoming(&params, &envelope, received_at),
        Some(word) => {
            let query = Params::decode(form::query(request.url).as_bytes());
            status(&params, &envelope, &word, &query, received_at)
        }
    }
}

/// What every request has.
struct Envelope {
    account_sid: String,
    message_sid: String,
    network: Network,
    messaging_service_sid: Option<String>,
}

impl Envelope {
    fn read(params: &Params) -> Result<Self, ParseError> {
        let account_sid = params
            .get("AccountSid")
            .ok_or_else(|| missing("AccountSid"))?;
        let message_sid = params
            .get("MessageSid")
            .or_else(|| params.get("SmsMessageSid"))
            .or_else(|| params.get("SmsSid"))
            .ok_or_else(|| missing("MessageSid"))?;
        for name in ["From", "To"] {
            if params.get(name).is_some_and(|it| address::is_foreign(&it)) {
                return Err(ParseError(format!(
                    "{name}: belongs to a network other than SMS and WhatsApp"
                )));
            }
        }
        Ok(Self {
            account_sid,
            message_sid,
            network: network(params),
            messaging_service_sid: params.get("MessagingServiceSid"),
        })
    }

    /// The channel is named by our number, and by the service it belongs to.
    fn routes(&self, our_number: Option<&str>) -> Vec<String> {
        let our_number =
            our_number.map(|number| address::normalise(address::without_prefix(number)));
        address::routes(
            &self.account_sid,
            self.network,
            our_number.as_deref(),
            self.messaging_service_sid.as_deref(),
        )
    }
}

fn missing(name: &str) -> ParseError {
    ParseError(format!("{name}: is missing"))
}

/// The prefix tells, but is at times missing; then WhatsApp's own parameters tell.
fn network(params: &Params) -> Network {
    let has_prefix = ["From", "To"].iter().any(|name| {
        params
            .get(name)
            .is_some_and(|it| address::has_whatsapp_prefix(&it))
    });
    let is_whatsapp = has_prefix
        || params
            .get("ChannelPrefix")
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("whatsapp"))
        || params.get("WaId").is_some()
        || bsuid(params).is_some();
    if is_whatsapp {
        Network::Whatsapp
    } else {
        Network::Sms
    }
}

fn bsuid(params: &Params) -> Option<String> {
    let id = params
        .get("ExternalUserId")
        .or_else(|| params.get("ExternalUserIdentifier"))?;
    Some(address::without_prefix(&id).to_owned()).filter(|id| address::is_bsuid(id))
}

/// The status of one of our messages; `None` for a message that came in.
fn status_word(params: &Params) -> Option<String> {
    if params
        .get("EventType")
        .is_some_and(|event| event.eq_ignore_ascii_case("read"))
    {
        return Some("read".to_owned());
    }
    twilios_word(params).filter(|word| word != "received" && word != "receiving")
}

fn twilios_word(params: &Params) -> Option<String> {
    let word = params
        .get("MessageStatus")
        .or_else(|| params.get("SmsStatus"))?;
    Some(word.to_ascii_lowercase())
}

// -- Status callbacks ---------------------------------------------------------------------------------------

fn status(
    params: &Params,
    envelope: &Envelope,
    word: &str,
    query: &Params,
    received_at: DateTime<Utc>,
) -> Result<Vec<RoutedEvent>, ParseError> {
    // Not echoed: an unknown word is a stranger's text.
    let status = status_of(word)
        .ok_or_else(|| ParseError("MessageStatus: is not a status known here".to_owned()))?;
    // A message to a service that found no sender for it has none.
    let routes = envelope.routes(params.get("From").as_deref());
    if routes.is_empty() {
        return Err(missing("From"));
    }
    let event = StatusEvent {
        provider_message_id: envelope.message_sid.clone(),
        attempt_id: query
            .get("attempt")
            .and_then(|id| id.parse::<AttemptId>().ok()),
        status,
        at: received_at,
        error: failure(params, status, word),
        detail: status_detail(params),
    };
    Ok(vec![RoutedEvent {
        routes,
        event: ProviderEvent::Status(event),
    }])
}

/// Source: `status` of the Message resource in Twilio's OpenAPI description.
pub(super) fn status_of(word: &str) -> Option<MessageStatus> {
    Some(match word {
        "accepted" | "scheduled" | "queued" | "sending" => MessageStatus::Sending,
        // Some recipients of a group have it: proof of sending, not of delivery.
        "sent" | "partially_delivered" => MessageStatus::Sent,
        "delivered" => MessageStatus::Delivered,
        "read" => MessageStatus::Read,
        "undelivered" | "failed" => MessageStatus::Failed,
        "canceled" => MessageStatus::Cancelled,
        _ => return None,
    })
}

fn failure(params: &Params, status: MessageStatus, word: &str) -> Option<ProviderError> {
    if status != MessageStatus::Failed {
        return None;
    }
    let code = params.get("ErrorCode").filter(|code| code != "0");
    let words = params
        .get("ErrorMessage")
        .or_else(|| params.get("ChannelStatusMessage"))
        .map(|words| errors::redacted(&words));
    let message = match (&code, words) {
        (_, Some(words)) => words,
        (Some(code), None) => errors::classify_status_code(code).advice().to_owned(),
        (None, None) => format!("Twilio reports the message as {word} and gives no reason."),
    };
    Some(ProviderError {
        code: code.unwrap_or_else(|| word.to_owned()),
        message,
    })
}

fn status_detail(params: &Params) -> Value {
    let mut detail = Map::new();
    if let Some(word) = twilios_word(params) {
        detail.insert("provider_status".to_owned(), word.into());
    }
    for (name, key) in [
        // The carrier's clock, YYMMDDhhmm without a zone: kept as it is, never used as a time.
        ("RawDlrDoneDate", "raw_dlr_done_date"),
        ("EventType", "event_type"),
        ("ErrorCode", "error_code"),
        ("MessagingServiceSid", "messaging_service_sid"),
        ("ChannelPrefix", "channel_prefix"),
        ("ChannelInstallSid", "channel_install_sid"),
    ] {
        if let Some(value) = params.get(name) {
            detail.insert(key.to_owned(), value.into());
        }
    }
    Value::Object(detail)
}

// -- Incoming messages --------------------------------------------------------------------------------------

fn incoming(
    params: &Params,
    envelope: &Envelope,
    received_at: DateTime<Utc>,
) -> Result<Vec<RoutedEvent>, ParseError> {
    let customer = customer(params)?;
    let our_number = params.get("To").ok_or_else(|| missing("To"))?;
    let routes = envelope.routes(Some(&our_number));

    let mut events = vec![match reaction(params, envelope, &customer, received_at) {
        Some(reaction) => ProviderEvent::Reaction(reaction),
        None => ProviderEvent::Message(InboundMessage {
            provider_message_id: envelope.message_sid.clone(),
            customer: customer.clone(),
            sent_at: received_at,
            content: inbound::content(params, envelope.network),
            quoted_message_id: params.get("OriginalRepliedMessageSid"),
            thread_ids: Vec::new(),
            forwarded: is_true(params, "Forwarded") || is_true(params, "FrequentlyForwarded"),
            referral: inbound::referral(params),
            group_id: None,
            from_history: false,
        }),
    }];
    events.extend(consent(params).map(|consent| {
        ProviderEvent::Consent(ConsentEvent {
            about_attempt: None,
            customer,
            consent,
            category: "all".to_owned(),
            at: received_at,
        })
    }));
    Ok(events
        .into_iter()
        .map(|event| RoutedEvent {
            routes: routes.clone(),
            event,
        })
        .collect())
}

fn customer(params: &Params) -> Result<Party, ParseError> {
    let from = params.get("From").ok_or_else(|| missing("From"))?;
    // `From` first: it is what Twilio takes as `To`.
    let mut identities = vec![address::identity(&from).ok_or_else(|| missing("From"))?];
    let wa_id = params
        .get("WaId")
        .and_then(|id| E164::from_wa_id(&id).ok())
        .and_then(|number| address::identity(number.as_str()));
    let bsuid = bsuid(params).and_then(|id| address::identity(&id));
    for identity in wa_id.into_iter().chain(bsuid) {
        if !identities.contains(&identity) {
            identities.push(identity);
        }
    }
    Ok(Party {
        identities,
        name: params.get("ProfileName"),
    })
}

/// Under Advanced Opt-Out Twilio says what it understood. `HELP` decides nothing.
fn consent(params: &Params) -> Option<Consent> {
    match params.get("OptOutType")?.to_ascii_uppercase().as_str() {
        "STOP" => Some(Consent::OptedOut),
        "START" => Some(Consent::OptedIn),
        _ => None,
    }
}

fn reaction(
    params: &Params,
    envelope: &Envelope,
    customer: &Party,
    received_at: DateTime<Utc>,
) -> Option<Reaction> {
    if inbound::message_type(params).as_deref() != Some("reaction") {
        return None;
    }
    Some(Reaction {
        provider_message_id: envelope.message_sid.clone(),
        target_message_id: params.get("OriginalRepliedMessageSid")?,
        customer: customer.clone(),
        emoji: params.get("Body"),
        at: received_at,
        from_us: false,
    })
}

fn is_true(params: &Params, name: &str) -> bool {
    params
        .get(name)
        .is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
}
