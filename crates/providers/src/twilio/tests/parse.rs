use http::Method;
use proptest::prelude::*;
use serde_json::json;
use wasel_domain::ChannelId;
use wasel_domain::event::{Identity, IdentityKind};
use wasel_domain::{AttemptId, ProviderEvent, RoutedEvent};

use super::{ACCOUNT, TOKEN, URL, Webhook, channel_at, twilio};
use crate::{ChannelKind, ParseError, Provider};

const CUSTOMER: &str = "+201012345678";

fn payload(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/payloads/twilio");
    std::fs::read(format!("{folder}/{name}.form")).unwrap()
}

fn parse(webhook: &Webhook) -> Result<Vec<RoutedEvent>, ParseError> {
    twilio("").parse(&webhook.request())
}

fn events(name: &str) -> Vec<RoutedEvent> {
    parse(&Webhook::post(payload(name))).unwrap()
}

fn routes(name: &str) -> Vec<String> {
    events(name).remove(0).routes
}

fn phone(number: &str) -> Identity {
    Identity::new(IdentityKind::Phone, number)
}

// -- Routes -------------------------------------------------------------------------------------------------

#[test]
fn a_message_is_for_the_number_it_went_to_on_the_network_it_came_by() {
    assert_eq!(
        routes("sms_text"),
        [format!("twilio:{ACCOUNT}:sms:+12025550100")]
    );
    assert_eq!(
        routes("sms_service"),
        [
            format!("twilio:{ACCOUNT}:sms:+12025550100"),
            format!("twilio:{ACCOUNT}:sms:service:MG0123456789abcdef0123456789abcdef"),
        ]
    );
    for name in [
        "whatsapp_text",
        "whatsapp_without_prefix",
        "whatsapp_bsuid_only",
    ] {
        assert_eq!(
            routes(name),
            [format!("twilio:{ACCOUNT}:whatsapp:+12025550100")],
            "{name}"
        );
    }
}

#[test]
fn a_status_is_for_the_number_the_message_came_from() {
    assert_eq!(
        routes("status_sent"),
        [format!("twilio:{ACCOUNT}:sms:+12025550100")]
    );
    for name in [
        "whatsapp_status_delivered",
        "whatsapp_status_without_prefix",
    ] {
        assert_eq!(
            routes(name),
            [format!("twilio:{ACCOUNT}:whatsapp:+12025550100")],
            "{name}"
        );
    }
    assert_eq!(
        routes("status_accepted"),
        [format!(
            "twilio:{ACCOUNT}:sms:service:MG0123456789abcdef0123456789abcdef"
        )],
        "a service that has not chosen a sender yet"
    );
}

#[test]
fn a_channels_keys_are_spelled_as_its_webhooks_routes_are() {
    let secrets = json!({"auth_token": TOKEN});
    for (kind, from, name) in [
        (ChannelKind::TwilioSms, "+12025550100", "sms_service"),
        (ChannelKind::TwilioSms, "12025550100", "sms_service"),
        (
            ChannelKind::TwilioWhatsapp,
            "whatsapp:+12025550100",
            "whatsapp_text",
        ),
    ] {
        let settings = json!({
            "account_sid": ACCOUNT,
            "from": from,
            "messaging_service_sid": "MG0123456789abcdef0123456789abcdef",
        });
        let channel = twilio("")
            .open(ChannelId::generate(), kind, &settings, &secrets)
            .unwrap();
        let keys = channel.routing_keys();
        assert!(
            routes(name).iter().all(|route| keys.contains(route)),
            "{keys:?}"
        );
    }
}

// -- Messages -----------------------------------------------------------------------------------------------

#[test]
fn a_number_whose_plus_became_a_blank_gets_it_back() {
    let body = String::from_utf8(payload("sms_text")).unwrap();
    let webhook = Webhook::post(body.replace("%2B", "+"));
    let event = parse(&webhook).unwrap().remove(0);
    assert_eq!(event.routes, [format!("twilio:{ACCOUNT}:sms:+12025550100")]);
    let ProviderEvent::Message(message) = event.event else {
        panic!()
    };
    assert_eq!(message.customer.identities, [phone(CUSTOMER)]);
}

#[test]
fn an_empty_reaction_takes_the_last_one_back() {
    let form = String::from_utf8(payload("whatsapp_reaction")).unwrap();
    let form = form.replace("Body=%F0%9F%91%8D", "Body=");
    let event = parse(&Webhook::post(form)).unwrap().remove(0).event;
    let ProviderEvent::Reaction(reaction) = event else {
        panic!("{event:?}")
    };
    assert_eq!(reaction.emoji, None);
}

#[test]
fn only_what_cannot_be_anything_else_is_taken_for_base64() {
    for body in [
        // A short one, a hex digest, one long word, a JSON web token's header and claims.
        "aGVsbG8gd29ybGQ=",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4ifQ",
    ] {
        let form = String::from_utf8(payload("sms_text")).unwrap();
        let start = form.find("Body=").unwrap();
        let end = start + form[start..].find('&').unwrap();
        let form = format!("{}Body={body}{}", &form[..start], &form[end..]);
        let event = parse(&Webhook::post(form)).unwrap().remove(0).event;
        let ProviderEvent::Message(message) = event else {
            panic!()
        };
        assert_eq!(message.content.text.as_deref(), Some(body));
    }
}

#[test]
fn a_nul_character_never_reaches_the_database() {
    let form = String::from_utf8(payload("whatsapp_flow")).unwrap();
    let form = form
        .replace("Body=", "Body=a%00b")
        .replace("%22x%22", "%22%5Cu0000%22")
        + "&ProfileName=x%00&ReferralBody=%00y&Referral%00Nul=z";
    let events = parse(&Webhook::post(form)).unwrap();
    assert!(!format!("{events:?}").contains("\\0"), "{events:?}");
    assert!(!format!("{events:?}").contains("\\u{0}"), "{events:?}");
}

#[test]
fn a_get_carries_its_parameters_in_the_address() {
    let query = String::from_utf8(payload("sms_text")).unwrap();
    let mut webhook = Webhook::post("").at(&format!("{URL}?{query}#rc=5"));
    webhook.method = Method::GET;
    let posted = events("sms_text").remove(0);
    let got = parse(&webhook).unwrap().remove(0);
    assert_eq!(got.routes, posted.routes);
    assert!(matches!(got.event, ProviderEvent::Message(_)));
}

// -- Statuses -----------------------------------------------------------------------------------------------

#[test]
fn a_status_names_our_attempt_if_the_callback_address_carried_it() {
    let attempt = AttemptId::generate();
    let at = |query: &str| {
        let webhook = Webhook::post(payload("status_sent")).at(&format!("{URL}{query}"));
        match parse(&webhook).unwrap().remove(0).event {
            ProviderEvent::Status(status) => status.attempt_id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(at(&format!("?attempt={attempt}")), Some(attempt));
    assert_eq!(at(&format!("?x=1&attempt={attempt}#rc=5")), Some(attempt));
    assert_eq!(at("?attempt=rubbish"), None);
    assert_eq!(at(""), None);
}

// -- Refusals -----------------------------------------------------------------------------------------------

#[test]
fn what_is_missing_is_named_and_nothing_of_the_request_is_quoted() {
    for (body, field) in [
        ("", "AccountSid"),
        ("MessageSid=SM1&Body=secret", "AccountSid"),
        ("AccountSid=AC1&Body=secret", "MessageSid"),
        (
            "AccountSid=AC1&MessageSid=SM1&To=%2B12025550100&Body=secret",
            "From",
        ),
        (
            "AccountSid=AC1&MessageSid=SM1&From=%2B12025550100&Body=secret",
            "To",
        ),
        (
            "AccountSid=AC1&MessageSid=SM1&MessageStatus=sent&Body=secret",
            "From",
        ),
        (
            "AccountSid=AC1&MessageSid=SM1&From=%2B1&MessageStatus=secret",
            "MessageStatus",
        ),
        (
            "AccountSid=AC1&MessageSid=SM1&From=messenger:1&To=messenger:2&Body=secret",
            "From",
        ),
        (r#"{"AccountSid":"AC1","Body":"secret"}"#, "AccountSid"),
    ] {
        let error = parse(&Webhook::post(body)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{field}:")), "{body}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn an_old_requests_sms_sid_names_the_message_too() {
    let body = "AccountSid=AC1&SmsSid=SM7&From=%2B12025550111&To=%2B12025550100&Body=x";
    let events = parse(&Webhook::post(body)).unwrap();
    let ProviderEvent::Message(message) = &events[0].event else {
        panic!()
    };
    assert_eq!(message.provider_message_id, "SM7");
}

// -- The rest -----------------------------------------------------------------------------------------------

#[test]
fn twilio_has_no_handshake() {
    let channel = channel_at("", ChannelKind::TwilioWhatsapp);
    let query = [("hub.challenge".to_owned(), "1".to_owned())];
    assert_eq!(channel.challenge(&query), None);
}

proptest! {
    #[test]
    fn any_bytes_at_any_address_give_events_or_an_error(
        body in prop::collection::vec(any::<u8>(), 0..300),
        url in "\\PC{0,60}",
    ) {
        // The result does not matter, only that there is one.
        let _ = parse(&Webhook::post(body).at(&url));
    }

    #[test]
    fn any_values_of_the_known_parameters_give_events_or_an_error(
        values in prop::collection::vec((prop::sample::select(vec![
            "From", "To", "Body", "NumMedia", "MediaUrl0", "MediaContentType0", "Latitude", "Longitude",
            "WaId", "ExternalUserId", "ChannelPrefix", "MessageType", "ButtonText", "ListId", "OptOutType",
            "InteractiveData", "OriginalRepliedMessageSid", "MessageStatus", "ErrorCode", "ErrorMessage",
            "EventType", "MessagingServiceSid", "ReferralBody",
        ]), "\\PC{0,20}"), 0..20),
    ) {
        let mut form = form_urlencoded::Serializer::new("AccountSid=AC1&MessageSid=SM1".to_owned());
        let body = form.extend_pairs(values).finish();
        let _ = parse(&Webhook::post(body));
    }
}
