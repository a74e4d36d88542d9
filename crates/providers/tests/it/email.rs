//! E-mail in the conformance table, and the tests that need a mail server.

use std::collections::BTreeSet;

use ring::hmac;
use serde_json::{Value, json};
use wasel_domain::event::{Identity, IdentityKind};
use wasel_providers::conformance::{Request, Subject};
use wasel_providers::email::Email;
use wasel_providers::{ChannelKind, ProviderConfig};

mod sending;
mod server;
mod simulated;

mod webhooks;

const SECRET: &str = "9a0364b9e99bb480dd25e1f0284c8555";
const OLD_SECRET: &str = "17e62166fc8586dfa4d1bc0e1742c08b";
const PASSWORD: &str = "correct-horse-battery";

/// A mailbox, while its secret is being rotated.
pub fn subject() -> Subject {
    Subject {
        name: "email",
        kind: ChannelKind::Email,
        provider: |_| Box::new(provider()),
        settings: json!({"from": "Shop <shop@example.com>"}),
        secrets: json!({
            "smtp_url": format!("smtps://shop:{PASSWORD}@mail.example.com"),
            "webhook_secret": [SECRET, OLD_SECRET],
        }),
        other_secrets: json!({"webhook_secret": "6f4922f45568161a8cdf4ad2299f6d23"}),
        sign,
        signature_header: "x-wasel-signature",
        webhooks: webhooks::cases(),
        recipient: Identity::new(IdentityKind::Email, "sara@customer.example"),
        http: None,
        private: vec![
            SECRET,
            OLD_SECRET,
            PASSWORD,
            "sara@customer.example",
            "The blue one",
        ],
    }
}

pub fn provider() -> Email {
    Email::new(ProviderConfig::default())
}

/// At the time the conformance requests come in.
fn sign(request: &mut Request, secrets: &Value) {
    let secret = match &secrets["webhook_secret"] {
        Value::Array(secrets) => secrets[0].as_str().unwrap(),
        secret => secret.as_str().unwrap(),
    };
    sign_at(request, secret, 1_728_000_000);
}

pub fn sign_at(request: &mut Request, secret: &str, seconds: i64) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut message = format!("{seconds}.").into_bytes();
    message.extend_from_slice(&request.body);
    let tag = hex::encode(hmac::sign(&key, &message));
    request.headers.insert(
        "x-wasel-signature",
        format!("t={seconds},v1={tag}").parse().unwrap(),
    );
}

#[test]
fn every_mail_on_file_is_a_case() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/payloads/email");
    let on_file: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    let cases: BTreeSet<String> = webhooks::cases()
        .into_iter()
        .map(|case| case.name.to_owned())
        .collect();
    assert_eq!(on_file, cases);
}
