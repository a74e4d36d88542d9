//! Any bytes as a WhatsApp Cloud webhook: the parser and the signature check answer, and never panic.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use wasel_domain::ChannelId;
use wasel_providers::whatsapp_cloud::WhatsappCloud;
use wasel_providers::{ChannelKind, OpenChannel, Provider, ProviderConfig, WebhookRequest};

static PROVIDER: LazyLock<WhatsappCloud> =
    LazyLock::new(|| WhatsappCloud::new(ProviderConfig::default()));

static CHANNEL: LazyLock<Arc<dyn OpenChannel>> = LazyLock::new(|| {
    let settings = json!({"waba_id": "1", "phone_number_id": "2"});
    let secrets = json!({"access_token": "token", "app_secret": "secret"});
    PROVIDER
        .open(
            ChannelId::generate(),
            ChannelKind::WhatsappCloud,
            &settings,
            &secrets,
        )
        .expect("these settings make a channel")
});

fuzz_target!(|data: &[u8]| {
    // The first line is the signature, the rest the body.
    let end = data.iter().position(|byte| *byte == b'\n');
    let (signature, body) = match end {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (&[][..], data),
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(signature) {
        headers.insert("x-hub-signature-256", value);
    }
    let body = Bytes::copy_from_slice(body);
    let request = WebhookRequest {
        method: &Method::POST,
        url: "https://wasel.example/api/webhooks/whatsapp",
        headers: &headers,
        body: &body,
        received_at: DateTime::UNIX_EPOCH,
    };
    let events = PROVIDER.parse(&request);
    assert_eq!(events, PROVIDER.parse(&request), "not the same twice");
    assert!(
        CHANNEL.verify(&request).is_err(),
        "a guess passed for a signature"
    );
});
