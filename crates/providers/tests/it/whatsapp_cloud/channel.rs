//! Settings, routing, signatures and the handshake.

use bytes::Bytes;
use serde_json::{Value, json};
use wasel_domain::ChannelId;
use wasel_providers::conformance::{Request, summary};
use wasel_providers::whatsapp_cloud::{WhatsappCloud, classify};
use wasel_providers::{ChannelKind, ErrorClass, Provider, ProviderConfig, VerifyError};

use super::{APP_SECRET, VERIFY_TOKEN, WEBHOOK_URL, open, provider, secrets, settings, sign};

const NOWHERE: &str = "http://127.0.0.1:9";
const BODY: &[u8] = br#"{"object":"whatsapp_business_account","entry":[]}"#;

fn error_field(settings: &Value, secrets: &Value) -> &'static str {
    match provider(NOWHERE).open(
        ChannelId::generate(),
        ChannelKind::WhatsappCloud,
        settings,
        secrets,
    ) {
        Ok(_) => "none",
        Err(error) => error.field,
    }
}

fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn each_wrong_setting_is_named() {
    let with = |mut object: Value, field: &str, value: Value| {
        object[field] = value;
        object
    };
    for (field, value) in [
        ("waba_id", Value::Null),
        ("waba_id", json!("12a")),
        ("phone_number_id", json!("")),
        ("phone_number_id", json!("1/../2")),
        ("phone_number_id", json!(106_540_352_242_922_u64)),
        ("display_phone_number", json!(["1"])),
    ] {
        let broken = with(settings(), field, value.clone());
        assert_eq!(error_field(&broken, &secrets()), field, "{value}");
    }
    for (field, value) in [
        ("access_token", Value::Null),
        ("access_token", json!("  ")),
        ("access_token", json!("two words")),
        ("access_token", json!("line\nbreak")),
        ("app_secret", json!(5)),
        ("app_secret", json!(["good", 5])),
        ("app_secret", json!([""])),
        ("verify_token", json!({})),
    ] {
        let broken = with(secrets(), field, value.clone());
        assert_eq!(error_field(&settings(), &broken), field, "{value}");
    }
    assert_eq!(error_field(&json!([]), &secrets()), "waba_id");
    assert_eq!(error_field(&settings(), &json!("x")), "access_token");

    let wrong_base = provider("not an address");
    let error = wrong_base.open(
        ChannelId::generate(),
        ChannelKind::WhatsappCloud,
        &settings(),
        &secrets(),
    );
    assert_eq!(error.err().unwrap().field, "META_GRAPH_BASE");
    let other_kind = provider(NOWHERE).open(
        ChannelId::generate(),
        ChannelKind::TwilioSms,
        &settings(),
        &secrets(),
    );
    assert_eq!(other_kind.err().unwrap().field, "kind");
}

#[test]
fn a_channel_is_named_by_its_number_first_and_by_its_account() {
    assert_eq!(
        open(NOWHERE).routing_keys(),
        ["meta:phone:106540352242922", "meta:waba:102290129340398"]
    );
}

#[test]
fn each_event_of_a_batch_names_the_number_it_came_in_on() {
    let body = Bytes::from_static(include_bytes!("../../payloads/whatsapp_cloud/batch.json"));
    let mut request = Request::post(WEBHOOK_URL, b"");
    request.body = body;
    let events = provider(NOWHERE).parse(&request.as_webhook()).unwrap();
    let numbers: Vec<&str> = events
        .iter()
        .map(|event| event.routes[0].as_str())
        .collect();
    assert_eq!(numbers[..5], ["meta:phone:106540352242922"; 5]);
    assert_eq!(numbers[5..], ["meta:phone:106540352242923"]);
}

#[test]
fn a_body_that_is_no_webhook_is_refused_without_repeating_it() {
    for (body, reason) in [
        ("", "the JSON ends too early, at line 1 column 0"),
        (
            "{\"object\":",
            "the JSON ends too early, at line 1 column 10",
        ),
        (
            "From=%2B16505551234",
            "the body is not JSON, at line 1 column 1",
        ),
        (
            "{\"object\":16505551234}",
            "the JSON has another shape than a webhook, at line 1 column 21",
        ),
        ("{}", "`object` is not `whatsapp_business_account`"),
        (
            "{\"object\":\"page\",\"entry\":[]}",
            "`object` is not `whatsapp_business_account`",
        ),
        (
            "{\"object\":\"whatsapp_business_account\"}",
            "`entry` is missing",
        ),
    ] {
        let mut request = Request::post(WEBHOOK_URL, b"");
        request.body = Bytes::copy_from_slice(body.as_bytes());
        let error = provider(NOWHERE).parse(&request.as_webhook()).unwrap_err();
        assert_eq!(error.to_string(), reason, "{body}");
    }
}

#[test]
fn nesting_without_end_neither_overflows_the_stack_nor_loses_the_message() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"messages":[{{"from":"16505551234","id":"wamid.deep","timestamp":"1","type":"deep","deep":{deep}}}]}}}}]}}]}}"#
    );
    let mut request = Request::post(WEBHOOK_URL, b"");
    request.body = body.into();
    let events = provider(NOWHERE).parse(&request.as_webhook()).unwrap();
    assert_eq!(
        summary(&events[0]),
        r#"message wamid.deep from phone:+16505551234 at 1 unsupported {raw:null,type:"deep"}"#
    );
}

#[test]
fn what_goes_into_every_event_of_an_unproven_body_is_short() {
    let long = "9".repeat(10_000);
    let body = format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{long}","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"{long}"}},"contacts":[{{"wa_id":"16505551234","user_id":"US.{long}","profile":{{"name":"{long}"}}}}],"messages":[{{"from":"16505551234","id":"wamid.1","timestamp":"1","type":"text","text":{{"body":"hi"}}}}]}}}}]}}]}}"#
    );
    let mut request = Request::post(WEBHOOK_URL, b"");
    request.body = body.into();
    let events = provider(NOWHERE).parse(&request.as_webhook()).unwrap();
    assert!(events[0].routes.is_empty());
    let name = "9".repeat(256);
    assert_eq!(
        summary(&events[0]),
        format!("message wamid.1 from phone:+16505551234 ({name}) at 1 text \"hi\"")
    );
}

#[test]
fn a_body_of_more_events_than_meta_can_send_is_refused() {
    let parse = |count: usize| {
        let messages = vec!["1"; count].join(",");
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":"messages","value":{{"messages":[{messages}]}}}}]}}]}}"#
        );
        let mut request = Request::post(WEBHOOK_URL, b"");
        request.body = body.into();
        provider(NOWHERE).parse(&request.as_webhook())
    };
    assert_eq!(parse(50_000).unwrap().len(), 50_000);
    assert_eq!(
        parse(50_001).unwrap_err().to_string(),
        "holds more than 50000 events"
    );
}

#[test]
fn while_the_app_secret_is_rotated_both_are_believed() {
    let both = json!({"access_token": "t", "app_secret": ["new secret", APP_SECRET]});
    let channel = provider(NOWHERE)
        .open(
            ChannelId::generate(),
            ChannelKind::WhatsappCloud,
            &settings(),
            &both,
        )
        .unwrap();
    for (secret, expected) in [
        (APP_SECRET, Ok(())),
        ("new secret", Ok(())),
        ("older secret", Err(VerifyError::Mismatch)),
    ] {
        let mut request = Request::post(WEBHOOK_URL, BODY);
        sign(&mut request, &json!({"app_secret": secret}));
        assert_eq!(channel.verify(&request.as_webhook()), expected, "{secret}");
    }
}

#[test]
fn the_servers_own_secret_and_token_stand_in_for_those_a_channel_lacks() {
    let shared = WhatsappCloud::new(ProviderConfig {
        meta_app_secret: Some("shared secret".to_owned()),
        meta_verify_token: Some("shared token".to_owned()),
        ..ProviderConfig::default()
    });
    let open = |secrets: Value| {
        shared
            .open(
                ChannelId::generate(),
                ChannelKind::WhatsappCloud,
                &settings(),
                &secrets,
            )
            .unwrap()
    };
    let handshake = query(&[
        ("hub.mode", "subscribe"),
        ("hub.verify_token", "shared token"),
        ("hub.challenge", "42"),
    ]);
    let mut request = Request::post(WEBHOOK_URL, BODY);
    sign(&mut request, &json!({"app_secret": "shared secret"}));

    let without = open(json!({"access_token": "t"}));
    assert_eq!(without.verify(&request.as_webhook()), Ok(()));
    assert_eq!(without.challenge(&handshake).as_deref(), Some("42"));

    let with_its_own = open(secrets());
    assert_eq!(
        with_its_own.verify(&request.as_webhook()),
        Err(VerifyError::Mismatch)
    );
    assert_eq!(with_its_own.challenge(&handshake), None);
}

#[test]
fn a_channel_without_a_secret_believes_nobody_not_even_an_empty_key() {
    for secrets in [
        json!({"access_token": "t"}),
        json!({"access_token": "t", "app_secret": ""}),
        json!({"access_token": "t", "app_secret": []}),
    ] {
        let channel = provider(NOWHERE)
            .open(
                ChannelId::generate(),
                ChannelKind::WhatsappCloud,
                &settings(),
                &secrets,
            )
            .unwrap();
        let mut request = Request::post(WEBHOOK_URL, BODY);
        sign(&mut request, &json!({"app_secret": ""}));
        assert_eq!(
            channel.verify(&request.as_webhook()),
            Err(VerifyError::NoSecret)
        );
    }
}

#[test]
fn a_signature_of_another_form_is_malformed() {
    let channel = open(NOWHERE);
    let mut request = Request::post(WEBHOOK_URL, BODY);
    sign(&mut request, &secrets());
    let right = request.headers["x-hub-signature-256"]
        .to_str()
        .unwrap()
        .to_owned();
    let hex = right.strip_prefix("sha256=").unwrap();
    for signature in [
        "",
        "sha256=",
        hex,
        &format!("sha1={hex}"),
        &format!("sha256={hex}00"),
        &format!("sha256={}", &hex[2..]),
        &format!("sha256= {}", &hex[1..]),
        &format!("sha256={}", "z".repeat(64)),
    ] {
        let value = signature.parse().unwrap();
        request.headers.insert("x-hub-signature-256", value);
        assert_eq!(
            channel.verify(&request.as_webhook()),
            Err(VerifyError::MalformedSignature("X-Hub-Signature-256")),
            "{signature}"
        );
    }
}

#[test]
fn the_sha1_header_alone_proves_nothing() {
    let mut request = Request::post(WEBHOOK_URL, BODY);
    sign(&mut request, &secrets());
    let value = request.headers.remove("x-hub-signature-256").unwrap();
    request.headers.insert("x-hub-signature", value);
    assert_eq!(
        open(NOWHERE).verify(&request.as_webhook()),
        Err(VerifyError::MissingSignature("X-Hub-Signature-256"))
    );
}

#[test]
fn the_handshake_is_answered_only_to_who_knows_the_token() {
    let channel = open(NOWHERE);
    let mode = ("hub.mode", "subscribe");
    let token = ("hub.verify_token", VERIFY_TOKEN);
    let challenge = ("hub.challenge", "1158201444");
    let answer = |pairs: &[(&str, &str)]| channel.challenge(&query(pairs));
    assert_eq!(
        answer(&[mode, challenge, token]).as_deref(),
        Some("1158201444")
    );
    for refused in [
        vec![],
        vec![mode, token],
        vec![mode, challenge],
        vec![token, challenge],
        vec![("hub.mode", "unsubscribe"), token, challenge],
        vec![mode, ("hub.verify_token", ""), challenge],
        vec![mode, ("hub.verify_token", "let-me-i"), challenge],
        vec![mode, ("hub.verify_token", "let-me-in!"), challenge],
        vec![mode, ("hub_verify_token", VERIFY_TOKEN), challenge],
    ] {
        assert_eq!(answer(&refused), None, "{refused:?}");
    }

    let without = json!({"access_token": "t", "app_secret": "s"});
    let without = provider(NOWHERE)
        .open(
            ChannelId::generate(),
            ChannelKind::WhatsappCloud,
            &settings(),
            &without,
        )
        .unwrap();
    let empty = query(&[mode, ("hub.verify_token", ""), challenge]);
    assert_eq!(without.challenge(&empty), None);
}

#[test]
fn the_code_of_a_failed_status_has_the_same_class_as_in_an_answer() {
    for (code, class) in [
        ("131049", ErrorClass::NotNow),
        ("131026", ErrorClass::Recipient),
        ("131047", ErrorClass::NeedsTemplate),
        ("131050", ErrorClass::OptedOutOfMarketing),
        ("424242", ErrorClass::Content),
        ("", ErrorClass::Content),
    ] {
        assert_eq!(classify(code), class, "{code}");
    }
}
