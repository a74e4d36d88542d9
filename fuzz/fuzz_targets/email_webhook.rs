//! Any bytes as a mail: the parser and the signature check answer, and never panic.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use wasel_domain::ChannelId;
use wasel_providers::email::Email;
use wasel_providers::{ChannelKind, OpenChannel, Provider, ProviderConfig, WebhookRequest};

static PROVIDER: LazyLock<Email> = LazyLock::new(|| Email::new(ProviderConfig::default()));

static CHANNEL: LazyLock<Arc<dyn OpenChannel>> = LazyLock::new(|| {
    PROVIDER
        .open(
            ChannelId::generate(),
            ChannelKind::Email,
            &json!({"from": "shop@example.com"}),
            &json!({"webhook_secret": "secret"}),
        )
        .expect("these settings make a channel")
});

fuzz_target!(|data: &[u8]| {
    // The first line is the signature, the rest the mail.
    let end = data.iter().position(|byte| *byte == b'\n');
    let (signature, body) = match end {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (&[][..], data),
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(signature) {
        headers.insert("x-wasel-signature", value.clone());
        headers.insert("authorization", value);
    }
    let body = Bytes::copy_from_slice(body);
    let request = WebhookRequest {
        method: &Method::POST,
        url: "https://wasel.example/api/webhooks/email",
        headers: &headers,
        body: &body,
        received_at: DateTime::UNIX_EPOCH,
    };
    let events = PROVIDER.parse(&request);
    assert_eq!(events, PROVIDER.parse(&request), "not the same twice");
    for event in events.into_iter().flatten() {
        assert!(!event.routes.is_empty(), "an event that belongs to nobody");
    }
    assert!(
        CHANNEL.verify(&request).is_err(),
        "a guess passed for a signature"
    );
});
