use std::path::PathBuf;

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};
use wasel_domain::consent::Consent;
use wasel_domain::event::{Identity, IdentityKind, InboundMessage, Reaction, StatusEvent};
use wasel_domain::{AttemptId, MessageKind, MessageStatus, ProviderEvent, RoutedEvent};

use super::{ACCOUNT, TOKEN, URL, Webhook, channel_at, twilio};
use crate::{ChannelKind, ParseError, Provider};

const CUSTOMER: &str = "+201012345678";
const BSUID: &str = "EG.13491208655302741918";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/payloads/twilio")
}

fn payload(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.form"))).unwrap()
}

fn all_payloads() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder()).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
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

fn message(name: &str) -> InboundMessage {
    match events(name).remove(0).event {
        ProviderEvent::Message(message) => message,
        other => panic!("{name} is no message: {other:?}"),
    }
}

fn status(name: &str) -> StatusEvent {
    match events(name).remove(0).event {
        ProviderEvent::Status(status) => status,
        other => panic!("{name} is no status: {other:?}"),
    }
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
        let channel = twilio("").open(kind, &settings, &secrets).unwrap();
        let keys = channel.routing_keys();
        assert!(
            routes(name).iter().all(|route| keys.contains(route)),
            "{keys:?}"
        );
    }
}

// -- Messages -----------------------------------------------------------------------------------------------

#[test]
fn a_text_message_has_its_words_its_id_and_its_sender() {
    let message = message("sms_text");
    assert_eq!(
        message.provider_message_id,
        "SM00000000000000000000000000000001"
    );
    assert_eq!(message.customer.identities, [phone(CUSTOMER)]);
    assert_eq!(message.customer.name, None);
    assert_eq!(message.content.kind, MessageKind::Text);
    assert_eq!(
        message.content.text.as_deref(),
        Some("Hello, is it open today? مرحبا +1 & more")
    );
    assert_eq!(message.content.detail, Value::Null);
    assert_eq!(message.quoted_message_id, None);
    assert!(!message.forwarded);
}

#[test]
fn a_message_without_a_body_is_still_a_message() {
    let message = message("sms_without_body");
    assert_eq!(message.content.kind, MessageKind::Text);
    assert_eq!(message.content.text, None);
}

#[test]
fn a_sender_may_be_a_short_code_or_letters() {
    for (name, sender) in [
        ("sms_from_short_code", "73737"),
        ("sms_from_letters", "MyBank"),
    ] {
        assert_eq!(message(name).customer.identities, [phone(sender)]);
    }
}

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
fn a_whatsapp_sender_has_a_name_and_is_one_person_under_every_identity() {
    let customer = message("whatsapp_text").customer;
    assert_eq!(customer.name.as_deref(), Some("منى"));
    assert_eq!(customer.identities, [phone(CUSTOMER)]);

    let bsuid = Identity::new(IdentityKind::Bsuid, BSUID);
    let both = message("whatsapp_bsuid_beside_number").customer.identities;
    assert_eq!(both, [phone(CUSTOMER), bsuid.clone()]);
    let hidden = message("whatsapp_bsuid_only").customer.identities;
    assert_eq!(hidden, [bsuid]);
}

#[test]
fn the_kind_of_a_file_is_read_from_its_content_type() {
    for (name, kind) in [
        ("whatsapp_image", MessageKind::Image),
        ("whatsapp_voice", MessageKind::Audio),
        ("whatsapp_video", MessageKind::Video),
        ("whatsapp_document", MessageKind::Document),
        ("whatsapp_contact", MessageKind::Document),
        ("whatsapp_sticker", MessageKind::Sticker),
        ("mms_two_files", MessageKind::Image),
    ] {
        let content = message(name).content;
        assert_eq!(content.kind, kind, "{name}");
        let url = content.media[0].url.as_deref().unwrap();
        assert!(
            url.starts_with("https://api.twilio.com/2010-04-01/"),
            "{url}"
        );
    }
    assert_eq!(
        message("whatsapp_image").content.text.as_deref(),
        Some("look")
    );
}

#[test]
fn a_message_with_several_files_keeps_them_all_in_order() {
    let content = message("mms_two_files").content;
    assert_eq!(content.text.as_deref(), Some("the two pages"));
    let types: Vec<_> = content
        .media
        .iter()
        .map(|m| m.mime_type.as_deref())
        .collect();
    assert_eq!(types, [Some("image/png"), Some("application/pdf")]);
}

#[test]
fn a_location_has_its_place_and_shows_its_name() {
    let content = message("whatsapp_location").content;
    assert_eq!(content.kind, MessageKind::Location);
    assert_eq!(content.text.as_deref(), Some("ميدان التحرير"));
    assert_eq!(
        content.detail,
        json!({"latitude": 30.0444, "longitude": 31.2357, "name": "ميدان التحرير", "address": "Cairo, Egypt"})
    );
}

#[test]
fn a_tapped_button_a_chosen_row_and_a_filled_in_flow_carry_the_choice() {
    let button = message("whatsapp_button");
    assert_eq!(button.content.kind, MessageKind::Button);
    assert_eq!(button.content.text.as_deref(), Some("Confirm"));
    assert_eq!(
        button.content.detail,
        json!({"payload": "confirm-17", "text": "Confirm"})
    );
    assert_eq!(
        button.quoted_message_id.as_deref(),
        Some("SM00000000000000000000000000000063")
    );

    let row = message("whatsapp_list").content;
    assert_eq!(row.kind, MessageKind::Interactive);
    assert_eq!(row.text.as_deref(), Some("Friday 10:00"));
    assert_eq!(
        row.detail,
        json!({"type": "list_reply", "id": "slot-3", "title": "Friday 10:00"})
    );

    let flow = message("whatsapp_flow").content;
    assert_eq!(flow.kind, MessageKind::Interactive);
    assert_eq!(
        flow.detail,
        json!({"type": "nfm_reply", "response": {"name": "x", "answers": [1, 2]}})
    );
}

#[test]
fn a_quoted_and_a_forwarded_message_say_so() {
    let message = message("whatsapp_quoted_forwarded");
    assert_eq!(
        message.quoted_message_id.as_deref(),
        Some("SM00000000000000000000000000000062")
    );
    assert!(message.forwarded);
}

#[test]
fn the_ad_that_brought_the_customer_is_kept() {
    assert_eq!(
        message("whatsapp_referral").referral,
        Some(json!({
            "body": "20 % off",
            "headline": "Summer sale",
            "source_id": "120212345",
            "source_type": "ad",
            "source_url": "https://fb.me/abc",
            "ctwa_clid": "Aff-x",
            "num_media": "1",
            "media_content_type": "image/jpeg",
            "media_url": "https://media.example/ad.jpg",
        }))
    );
    assert_eq!(message("whatsapp_text").referral, None);
}

#[test]
fn a_reaction_is_about_another_message_and_an_empty_one_takes_it_back() {
    let reaction = |body: Vec<u8>| -> Reaction {
        match parse(&Webhook::post(body)).unwrap().remove(0).event {
            ProviderEvent::Reaction(reaction) => reaction,
            other => panic!("{other:?}"),
        }
    };
    let body = payload("whatsapp_reaction");
    let given = reaction(body.clone());
    assert_eq!(given.emoji.as_deref(), Some("👍"));
    assert_eq!(
        given.target_message_id,
        "SM00000000000000000000000000000061"
    );
    assert!(!given.from_us);

    let without = String::from_utf8(body)
        .unwrap()
        .replace("Body=%F0%9F%91%8D", "Body=");
    assert_eq!(reaction(without.into()).emoji, None);
}

#[test]
fn what_has_no_shape_here_is_kept_as_unsupported_with_its_type() {
    for (name, kind) in [
        ("whatsapp_order", "order"),
        ("whatsapp_image_without_file", "image"),
    ] {
        let content = message(name).content;
        assert_eq!(content.kind, MessageKind::Unsupported);
        assert_eq!(content.detail, json!({"type": kind}));
    }
}

#[test]
fn an_opt_out_and_an_opt_in_are_told_beside_the_message_and_help_is_not() {
    for (name, consent) in [
        ("sms_stop", Consent::OptedOut),
        ("sms_start", Consent::OptedIn),
    ] {
        let events = events(name);
        assert!(matches!(events[0].event, ProviderEvent::Message(_)));
        let ProviderEvent::Consent(told) = &events[1].event else {
            panic!("{name}: {events:?}")
        };
        assert_eq!(told.consent, consent);
        assert_eq!(told.customer.identities, [phone(CUSTOMER)]);
        assert_eq!(told.category, "all");
        assert_eq!(events[1].routes, events[0].routes);
    }
    assert_eq!(events("sms_help").len(), 1);
}

#[test]
fn a_long_sms_that_came_as_base64_is_read_and_nothing_else_is_touched() {
    let decoded = message("sms_base64").content.text.unwrap();
    assert_eq!(
        decoded,
        "عرض خاص لعملائنا الكرام: خصم عشرون بالمائة حتى نهاية الأسبوع، see the shop"
    );
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
fn every_status_of_twilios_has_its_place() {
    for (name, expected) in [
        ("status_accepted", MessageStatus::Sending),
        ("status_scheduled", MessageStatus::Sending),
        ("status_queued", MessageStatus::Sending),
        ("status_sending", MessageStatus::Sending),
        ("status_sent", MessageStatus::Sent),
        ("status_partially_delivered", MessageStatus::Sent),
        ("status_delivered", MessageStatus::Delivered),
        ("status_undelivered", MessageStatus::Failed),
        ("status_failed", MessageStatus::Failed),
        ("status_canceled", MessageStatus::Cancelled),
        ("whatsapp_status_delivered", MessageStatus::Delivered),
        ("whatsapp_status_read", MessageStatus::Read),
        ("whatsapp_status_read_by_event", MessageStatus::Read),
    ] {
        let event = status(name);
        assert_eq!(event.status, expected, "{name}");
        assert_eq!(event.error.is_some(), expected == MessageStatus::Failed);
        assert_eq!(event.attempt_id, None);
    }
}

#[test]
fn a_failure_tells_its_code_and_words_and_no_number() {
    let error = status("status_undelivered").error.unwrap();
    assert_eq!(error.code, "30003");
    assert_eq!(error.message, "Unreachable destination handset");

    let error = status("whatsapp_status_failed").error.unwrap();
    assert_eq!(error.code, "63016");
    assert!(
        error
            .message
            .starts_with("Failed to send freeform message to [number]")
    );

    let error = status("status_failed").error.unwrap();
    assert_eq!(error.code, "30006");
    assert!(
        error.message.contains("cannot be reached"),
        "{}",
        error.message
    );

    assert_eq!(
        status("status_failed_without_reason").error.unwrap().code,
        "failed"
    );
}

#[test]
fn the_carriers_receipt_and_twilios_own_word_are_kept() {
    assert_eq!(
        status("status_undelivered").detail,
        json!({"provider_status": "undelivered", "raw_dlr_done_date": "2611210915", "error_code": "30003"})
    );
}

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

// -- Everything that is on file -----------------------------------------------------------------------------

#[test]
fn every_payload_on_file_parses_and_every_cut_of_it_gives_events_or_an_error() {
    let payloads = all_payloads();
    assert!(payloads.len() >= 46, "the payloads are missing");
    for (name, body) in payloads {
        assert!(parse(&Webhook::post(body.clone())).is_ok(), "{name}");
        for length in 0..body.len() {
            if let Err(error) = parse(&Webhook::post(body[..length].to_vec())) {
                assert!(error.0.contains(": "), "{name} cut at {length}: {error}");
            }
        }
    }
}

#[test]
fn every_payload_on_file_says_the_same_when_it_comes_again() {
    for (name, body) in all_payloads() {
        let ids = || -> Vec<String> {
            let events = parse(&Webhook::post(body.clone())).unwrap();
            events.iter().map(id).collect()
        };
        assert_eq!(ids(), ids(), "{name}");
        assert!(ids().iter().all(|id| !id.is_empty()), "{name}");
    }
}

fn id(event: &RoutedEvent) -> String {
    match &event.event {
        ProviderEvent::Message(message) => message.provider_message_id.clone(),
        ProviderEvent::Status(status) => status.provider_message_id.clone(),
        ProviderEvent::Reaction(reaction) => reaction.provider_message_id.clone(),
        ProviderEvent::Consent(consent) => consent.customer.identities[0].value.clone(),
        other => panic!("Twilio tells no {other:?}"),
    }
}

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
