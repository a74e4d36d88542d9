//! What only this folder does, beside the conformance table: raw payloads in, a socket that plays Twilio out.

mod outbound;
mod parse;
mod server;
mod signature;

use std::sync::Arc;
use wasel_domain::ChannelId;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;

use super::Twilio;
use crate::{ChannelKind, OpenChannel, Provider, ProviderConfig, WebhookRequest};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "12345";
const URL: &str = "https://wasel.example/api/webhooks/twilio";

fn twilio(api_base: &str) -> Twilio {
    Twilio::new(ProviderConfig {
        twilio_api_base: api_base.to_owned(),
        ..ProviderConfig::default()
    })
}

fn channel_at(api_base: &str, kind: ChannelKind) -> Arc<dyn OpenChannel> {
    let settings = json!({"account_sid": ACCOUNT, "from": "+12025550100"});
    twilio(api_base)
        .open(
            ChannelId::generate(),
            kind,
            &settings,
            &json!({"auth_token": TOKEN}),
        )
        .unwrap()
}

/// A request that owns its parts.
struct Webhook {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Webhook {
    fn post(body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            url: URL.to_owned(),
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    fn at(mut self, url: &str) -> Self {
        self.url = url.to_owned();
        self
    }

    fn signed(mut self, signature: &str) -> Self {
        self.headers
            .insert(super::signature::HEADER, signature.parse().unwrap());
        self
    }

    fn request(&self) -> WebhookRequest<'_> {
        WebhookRequest {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
            received_at: chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000),
        }
    }
}
