//! Twilio: its two entries in the conformance table, SMS and WhatsApp.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use serde_json::{Value, json};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_providers::conformance::{Answer, HttpApi, Request, SendErrorCase, Subject};
use wasel_providers::twilio::Twilio;
use wasel_providers::{ChannelKind, ErrorClass, ProviderConfig};

mod webhooks;

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const SERVICE: &str = "MG0123456789abcdef0123456789abcdef";
const TOKEN: &str = "8f14e45fceea167a5a36dedd4bea2543";
const OLD_TOKEN: &str = "c9f0f895fb98ab9159f51fd0297e236d";

/// A sender of a messaging service, while its token is being rotated.
pub fn subject_sms() -> Subject {
    Subject {
        name: "twilio_sms",
        kind: ChannelKind::TwilioSms,
        provider: |base| Box::new(provider(base)),
        settings: json!({
            "account_sid": ACCOUNT,
            "from": "+12025550100",
            "messaging_service_sid": SERVICE,
        }),
        secrets: json!({"auth_token": [TOKEN, OLD_TOKEN]}),
        other_secrets: json!({"auth_token": "45c48cce2e2d7fbdea1afc51c7c6ad26"}),
        sign,
        signature_header: "x-twilio-signature",
        webhooks: webhooks::sms(),
        recipient: Identity::new(IdentityKind::Phone, "+201012345678"),
        http: api(created("+201012345678", None, Some(SERVICE))),
        private: vec![TOKEN, OLD_TOKEN, ACCOUNT, "201012345678", "12025550100"],
    }
}

/// A number of its own.
pub fn subject_whatsapp() -> Subject {
    Subject {
        name: "twilio_whatsapp",
        kind: ChannelKind::TwilioWhatsapp,
        settings: json!({"account_sid": ACCOUNT, "from": "whatsapp:+12025550100"}),
        secrets: json!({"auth_token": TOKEN}),
        webhooks: webhooks::whatsapp(),
        http: api(created(
            "whatsapp:+201012345678",
            Some("whatsapp:+12025550100"),
            None,
        )),
        ..subject_sms()
    }
}

fn api(accepted: Answer) -> Option<HttpApi> {
    Some(HttpApi {
        accepted,
        accepted_id: "SM00000000000000000000000000000077",
        send_errors: send_errors(),
    })
}

fn provider(base: &str) -> Twilio {
    Twilio::new(ProviderConfig {
        twilio_api_base: base.to_owned(),
        ..ProviderConfig::default()
    })
}

/// The rule in other words than the product's: all distinct (key, value) pairs in order, written out after the
/// address without its fragment.
fn sign(request: &mut Request, secrets: &Value) {
    let token = match &secrets["auth_token"] {
        Value::Array(tokens) => tokens[0].as_str().unwrap(),
        token => token.as_str().unwrap(),
    };
    let pairs: BTreeSet<(String, String)> =
        form_urlencoded::parse(&request.body).into_owned().collect();
    let mut text = request.url.split('#').next().unwrap().to_owned();
    for (key, value) in pairs {
        text += &key;
        text += &value;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, text.as_bytes()));
    request
        .headers
        .insert("x-twilio-signature", signature.parse().unwrap());
}

/// A new message, as Twilio describes it. With a service the sender is chosen later.
fn created(to: &str, from: Option<&str>, service: Option<&str>) -> Answer {
    let sid = "SM00000000000000000000000000000077";
    Answer::json(
        201,
        &json!({
            "account_sid": ACCOUNT,
            "api_version": "2010-04-01",
            "body": "a text",
            "date_created": "Sat, 21 Nov 2026 09:15:00 +0000",
            "date_sent": null,
            "date_updated": "Sat, 21 Nov 2026 09:15:00 +0000",
            "direction": "outbound-api",
            "error_code": null,
            "error_message": null,
            "from": from,
            "messaging_service_sid": service,
            "num_media": "0",
            "num_segments": if service.is_some() { "0" } else { "1" },
            "price": null,
            "price_unit": null,
            "sid": sid,
            "status": if service.is_some() { "accepted" } else { "queued" },
            "subresource_uris": {
                "media": format!("/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}/Media.json"),
            },
            "to": to,
            "uri": format!("/2010-04-01/Accounts/{ACCOUNT}/Messages/{sid}.json"),
        }),
    )
}

/// Every code that may answer a request. The carriers' verdicts (30001 and on) come in callbacks only; the
/// folder's own tests have them.
fn send_errors() -> Vec<SendErrorCase> {
    use ErrorClass::*;
    let classes: [(ErrorClass, &[&str]); 8] = [
        (Transient, &["20500", "20503", "63010", "63012", "63019"]),
        (ThrottledChannel, &["20429", "21611", "63017", "63018"]),
        (
            ChannelBlocked,
            &[
                "20003", "20005", "21606", "21607", "63001", "63002", "63007", "63008", "63020",
                "63022", "63038",
            ],
        ),
        (OptedOut, &["21610"]),
        (
            Recipient,
            &[
                "21211", "21217", "21401", "21408", "21612", "21614", "63003", "63013", "63014",
                "63015", "63024", "63032", "63033",
            ],
        ),
        (
            Content,
            &[
                "21602", "21603", "21604", "21609", "21617", "21620", "21623", "21655", "21656",
                "21910", "35111", "35114", "35118", "63005", "63021", "63027", "63028", "63030",
                "63034", "63040", "63041", "99999",
            ],
        ),
        (NeedsTemplate, &["63016"]),
        (NotNow, &["63049"]),
    ];
    let mut cases = Vec::new();
    for (class, codes) in classes {
        for code in codes.iter().copied() {
            cases.push(error_case(refusal(400, code.parse().unwrap()), class, code));
        }
    }
    // With the statuses Twilio gives them; the code decides all the same.
    for (status, code, class) in [
        (401, "20003", ChannelBlocked),
        (403, "21610", OptedOut),
        (403, "20005", ChannelBlocked),
        (429, "20429", ThrottledChannel),
        (429, "63038", ChannelBlocked),
        (500, "20500", Transient),
        (503, "21211", Recipient),
        // The status decides where the code is new.
        (404, "20404", ChannelBlocked),
        (429, "99999", ThrottledChannel),
        (503, "99999", Transient),
    ] {
        let answer = refusal(status, code.parse().unwrap());
        cases.push(error_case(answer, class, code));
    }
    for (status, class, code) in [
        (500, Transient, "http_500"),
        (502, Transient, "http_502"),
        (503, Transient, "http_503"),
        (429, ThrottledChannel, "http_429"),
        (400, Content, "http_400"),
        (401, ChannelBlocked, "http_401"),
        (403, ChannelBlocked, "http_403"),
        (404, ChannelBlocked, "http_404"),
        (307, ChannelBlocked, "http_307"),
        (413, Content, "http_413"),
        // Somebody gave up waiting: Twilio may have it, and there is no idempotency key.
        (408, Ambiguous, "http_408"),
        (504, Ambiguous, "http_504"),
    ] {
        let answer = Answer::new(status, "<html>not Twilio</html>");
        cases.push(error_case(answer, class, code));
    }
    cases
}

/// An error as Twilio words it, repeating what it should not: numbers, the account and the token.
fn refusal(status: u16, code: u32) -> Answer {
    let message = format!(
        "The 'To' number whatsapp:+201012345678 (20 10 1234 5678, 201012345678) is not for \
         +12025550100 of {ACCOUNT} with {TOKEN} or {OLD_TOKEN}."
    );
    Answer::json(
        status,
        &json!({
            "code": code,
            "message": message,
            "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
            "status": status,
        }),
    )
}

fn error_case(answer: Answer, class: ErrorClass, code: &'static str) -> SendErrorCase {
    SendErrorCase {
        answer,
        class,
        code: Some(code),
    }
}

#[test]
fn every_payload_on_file_is_a_case() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/payloads/twilio");
    let on_file: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    let cases: Vec<_> = webhooks::sms()
        .into_iter()
        .chain(webhooks::whatsapp())
        .collect();
    let missing: Vec<_> = on_file
        .iter()
        .filter(|name| cases.iter().all(|case| case.name != name.as_str()))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
