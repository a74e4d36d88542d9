//! Any bytes as a form, a query or an address: parsing gives events or an error, checking a signature says yes
//! or no, and neither panics. Nothing is ever believed, for nothing here is signed.

#![no_main]

use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use wasel_domain::ChannelId;
use wasel_providers::{ChannelKind, ProviderConfig, Providers, WebhookRequest};

fuzz_target!(|data: &[u8]| {
    // The first line is the address, the rest the body.
    let cut = data.iter().position(|byte| *byte == b'\n');
    let (url, body) = data.split_at(cut.unwrap_or(0));
    let raw_url = String::from_utf8_lossy(url);
    let as_query = format!("https://x.example/?{}", String::from_utf8_lossy(body));
    let body = Bytes::copy_from_slice(body);

    let providers = Providers::new(ProviderConfig::default(), None);
    let provider = providers.of(ChannelKind::TwilioWhatsapp);
    let channel = provider
        .open(
            ChannelId::generate(),
            ChannelKind::TwilioWhatsapp,
            &json!({"account_sid": "AC1", "from": "+12025550100"}),
            &json!({"auth_token": "token"}),
        )
        .expect("these settings make a channel");

    // A well-formed signature, so that the check goes all the way.
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-twilio-signature",
        HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    );
    for (method, url) in [
        (Method::POST, raw_url.as_ref()),
        (Method::POST, "https://x.example/?attempt=1"),
        (Method::GET, as_query.as_str()),
    ] {
        let request = WebhookRequest {
            method: &method,
            url,
            headers: &headers,
            body: &body,
            received_at: DateTime::UNIX_EPOCH,
        };
        for event in provider.parse(&request).into_iter().flatten() {
            assert!(!event.routes.is_empty(), "an event that belongs to nobody");
        }
        assert!(channel.verify(&request).is_err());
    }
});
