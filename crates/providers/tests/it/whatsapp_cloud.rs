//! WhatsApp Cloud: its entry in the conformance table, and what only it does.

use std::sync::Arc;

use ring::hmac;
use serde_json::{Value, json};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_providers::conformance::{Answer, HttpApi, Request, SendErrorCase, Subject};
use wasel_providers::whatsapp_cloud::WhatsappCloud;
use wasel_providers::{ChannelKind, ErrorClass, OpenChannel, ProviderConfig};

mod channel;
mod content;
mod media;
mod sending;
mod templates;
mod webhooks;

const TOKEN: &str = "EAAGtokenOfTheChannel";
const APP_SECRET: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const VERIFY_TOKEN: &str = "let-me-in";
const WEBHOOK_URL: &str = "https://wasel.example/api/webhooks/whatsapp";

pub fn subject() -> Subject {
    Subject {
        name: "whatsapp_cloud",
        kind: ChannelKind::WhatsappCloud,
        provider: |base| Box::new(provider(base)),
        settings: settings(),
        secrets: secrets(),
        other_secrets: json!({"access_token": "EAAGother", "app_secret": "another secret"}),
        sign,
        signature_header: "x-hub-signature-256",
        webhooks: webhooks::cases(),
        recipient: Identity::new(IdentityKind::Phone, "+16505551234"),
        http: Some(HttpApi {
            accepted: Answer::json(
                200,
                &json!({
                    "messaging_product": "whatsapp",
                    "contacts": [{"input": "+16505551234", "wa_id": "16505551234"}],
                    "messages": [{"id": "wamid.sent", "message_status": "accepted"}],
                }),
            ),
            accepted_id: "wamid.sent",
            send_errors: send_errors(),
        }),
        private: vec![TOKEN, APP_SECRET, VERIFY_TOKEN, "16505551234"],
    }
}

fn provider(base: &str) -> WhatsappCloud {
    WhatsappCloud::new(ProviderConfig {
        meta_graph_base: base.to_owned(),
        meta_graph_version: "v26.0".to_owned(),
        ..ProviderConfig::default()
    })
}

fn open(base: &str) -> Arc<dyn OpenChannel> {
    subject().open(base)
}

fn settings() -> Value {
    json!({
        "waba_id": "102290129340398",
        "phone_number_id": "106540352242922",
        "display_phone_number": "+1 555-078-3881",
    })
}

fn secrets() -> Value {
    json!({
        "access_token": TOKEN,
        "app_secret": APP_SECRET,
        "verify_token": VERIFY_TOKEN,
    })
}

fn sign(request: &mut Request, secrets: &Value) {
    let secret = secrets["app_secret"].as_str().unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, &request.body);
    let value = format!("sha256={}", hex::encode(tag));
    request
        .headers
        .insert("x-hub-signature-256", value.parse().unwrap());
}

fn send_errors() -> Vec<SendErrorCase> {
    use ErrorClass::*;
    let classes: [(ErrorClass, &[&str]); 10] = [
        (
            Transient,
            &["1", "2", "131000", "131016", "133004", "131057"],
        ),
        (ThrottledChannel, &["130429"]),
        (ThrottledPair, &["131056"]),
        (ThrottledAccount, &["4", "80007", "133016"]),
        (
            ChannelBlocked,
            &[
                "0", "3", "10", "190", "200", "250", "299", "131005", "131031", "131042", "131045",
                "133010", "368", "33", "131037",
            ],
        ),
        (NotNow, &["131049", "130472", "131048", "131064"]),
        (NeedsTemplate, &["131047"]),
        (OptedOutOfMarketing, &["131050"]),
        (
            Recipient,
            &[
                "131026", "131021", "130403", "130497", "131062", "137000", "131030",
            ],
        ),
        (
            Content,
            &[
                "100", "131008", "131009", "131051", "131053", "132000", "132001", "132005",
                "132007", "132012", "132015", "132016", "132018", "132068", "132069", "134011",
                "135000", "999999",
            ],
        ),
    ];
    let mut cases = Vec::new();
    for (class, codes) in classes {
        for code in codes.iter().copied() {
            cases.push(SendErrorCase {
                answer: refusal(400, code.parse().unwrap()),
                class,
                code: Some(code),
            });
        }
    }
    // The code decides, not the status.
    cases.push(error_case(refusal(500, 131047), NeedsTemplate, "131047"));
    cases.push(error_case(refusal(200, 190), ChannelBlocked, "190"));
    // The status decides where the code is new.
    cases.push(error_case(refusal(503, 999_999), Transient, "999999"));
    // The number or the token is wrong, not the message.
    let subcode = json!({"error": {"code": 100, "error_subcode": 33, "message": "Unsupported"}});
    cases.push(error_case(
        Answer::json(400, &subcode),
        ChannelBlocked,
        "100",
    ));
    for (status, class, code) in [
        (500, Transient, "http_500"),
        (502, Transient, "http_502"),
        (503, Transient, "http_503"),
        (429, ThrottledChannel, "http_429"),
        (401, ChannelBlocked, "http_401"),
        (404, ChannelBlocked, "http_404"),
        (307, ChannelBlocked, "http_307"),
        (413, Content, "http_413"),
    ] {
        let answer = Answer::new(status, "<html>not Meta</html>");
        cases.push(error_case(answer, class, code));
    }
    cases
}

/// An error as Meta words it, repeating what it should not: the recipient and the token.
fn refusal(status: u16, code: i64) -> Answer {
    Answer::json(
        status,
        &json!({"error": {
            "message": format!("(#{code}) Something about 16505551234"),
            "type": "OAuthException",
            "code": code,
            "error_data": {
                "messaging_product": "whatsapp",
                "details": format!("Message to +16505551234 with {TOKEN} failed"),
            },
            "fbtrace_id": "AJZ8o4sKsYy5Kfp0Xl1TgcB",
        }}),
    )
}

fn error_case(answer: Answer, class: ErrorClass, code: &'static str) -> SendErrorCase {
    SendErrorCase {
        answer,
        class,
        code: Some(code),
    }
}
