//! The harness every provider must pass: one [`Subject`] per kind of channel, the same checks for all.
//!
//! For tests: a check panics with the subject's and the case's name. The checks here need no network; those that
//! send against a loopback stand-in are in this crate's `tests/it/conformance.rs`, driven by the same subjects.

mod summary;

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use wasel_domain::ChannelId;
use wasel_domain::event::Identity;

pub use summary::summary;

use crate::{ChannelKind, ErrorClass, OpenChannel, Provider, VerifyError, WebhookRequest};

/// One kind of channel, configured, with its cases.
pub struct Subject {
    pub name: &'static str,
    pub kind: ChannelKind,
    /// Builds the provider with its API at this base address.
    pub provider: fn(base: &str) -> Box<dyn Provider>,
    pub settings: Value,
    pub secrets: Value,
    /// The secrets of a neighbour: what they sign is not ours.
    pub other_secrets: Value,
    /// Signs a request with these secrets as the provider does, setting `signature_header`.
    pub sign: fn(request: &mut Request, secrets: &Value),
    pub signature_header: &'static str,
    pub webhooks: Vec<WebhookCase>,
    /// Whom the send checks write to.
    pub recipient: Identity,
    /// How it answers a send over HTTP. `None` for a channel that sends otherwise; its own tests then check the same.
    pub http: Option<HttpApi>,
    /// Texts that no error may repeat: tokens, secrets, phone numbers.
    pub private: Vec<&'static str>,
}

/// An HTTP API's answers to a send.
pub struct HttpApi {
    /// To a text message it takes.
    pub accepted: Answer,
    pub accepted_id: &'static str,
    pub send_errors: Vec<SendErrorCase>,
}

/// A request a provider sent, and what is to be read out of it.
pub struct WebhookCase {
    pub name: &'static str,
    pub request: Request,
    /// One [`summary`] per event, in order. Empty where the request is understood but says nothing.
    pub expected: Vec<&'static str>,
    /// The routing keys of the events that are for other channels, in order, where a provider puts several channels
    /// into one request. Every other event is ours.
    pub neighbours: Vec<&'static str>,
}

/// An answer of the provider's API.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// The connection breaks after the body, before its declared end.
    pub is_cut: bool,
}

/// What an answer to a send must be taken for.
pub struct SendErrorCase {
    pub answer: Answer,
    pub class: ErrorClass,
    pub code: Option<&'static str>,
}

/// A webhook request that owns its parts.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    #[must_use]
    pub fn post(url: &str, body: &'static [u8]) -> Self {
        Self {
            method: Method::POST,
            url: url.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body),
        }
    }

    /// # Panics
    /// If the name or value is no header's.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    #[must_use]
    pub fn as_webhook(&self) -> WebhookRequest<'_> {
        WebhookRequest {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
            received_at: chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000),
        }
    }
}

impl Answer {
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            is_cut: false,
        }
    }

    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string()).header("content-type", "application/json")
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn cut(mut self) -> Self {
        self.is_cut = true;
        self
    }
}

/// Where the subject's provider is when nothing is sent: a port nobody listens on.
const NOWHERE: &str = "http://127.0.0.1:9";

impl Subject {
    /// The subject's channel, with its API at `base`.
    #[must_use]
    pub fn open(&self, base: &str) -> Arc<dyn OpenChannel> {
        self.open_with(base, &self.secrets)
    }

    fn open_with(&self, base: &str, secrets: &Value) -> Arc<dyn OpenChannel> {
        (self.provider)(base)
            .open(ChannelId::generate(), self.kind, &self.settings, secrets)
            .unwrap_or_else(|error| panic!("{}: does not open: {error}", self.name))
    }

    fn signed(&self, case: &WebhookCase) -> Request {
        let mut request = case.request.clone();
        (self.sign)(&mut request, &self.secrets);
        request
    }

    /// Panics if an error's words hold anything private.
    pub fn assert_discreet(&self, what: &str, error: &(impl Display + std::fmt::Debug)) {
        let words = format!("{error} {error:?}");
        for private in &self.private {
            assert!(
                !words.contains(private),
                "{}: {what}: the error repeats `{private}`: {words}",
                self.name
            );
        }
    }
}

/// Missing or mistyped settings are refused by name or do without, and never printed.
pub fn check_settings(subject: &Subject) {
    let provider = (subject.provider)(NOWHERE);
    for is_secret in [false, true] {
        let whole = if is_secret {
            &subject.secrets
        } else {
            &subject.settings
        };
        let fields = whole.as_object().map(|object| object.keys().cloned());
        for field in fields.into_iter().flatten() {
            for broken in [Value::Null, Value::Bool(true), Value::from("")] {
                let mut changed = whole.clone();
                changed[&field] = broken.clone();
                let result = if is_secret {
                    provider.open(
                        ChannelId::generate(),
                        subject.kind,
                        &subject.settings,
                        &changed,
                    )
                } else {
                    provider.open(
                        ChannelId::generate(),
                        subject.kind,
                        &changed,
                        &subject.secrets,
                    )
                };
                if let Err(error) = result {
                    subject.assert_discreet(&field, &error);
                    assert!(
                        !error.field.is_empty(),
                        "{}: an error without its field",
                        subject.name
                    );
                } else {
                    assert!(
                        broken != Value::Bool(true),
                        "{}: `{field}` may be a boolean",
                        subject.name
                    );
                }
            }
        }
    }
}

/// Each case gives its events, the same ones each time, and each names our channel or a neighbour the case tells of.
pub fn check_events(subject: &Subject) {
    let provider = (subject.provider)(NOWHERE);
    let ours = subject.open(NOWHERE).routing_keys();
    assert!(!ours.is_empty(), "{}: no routing keys", subject.name);
    for case in &subject.webhooks {
        let label = format!("{}: {}", subject.name, case.name);
        let request = subject.signed(case);
        let events = provider
            .parse(&request.as_webhook())
            .unwrap_or_else(|error| panic!("{label}: {error}"));
        let again = provider.parse(&request.as_webhook());
        assert_eq!(again.as_ref(), Ok(&events), "{label}: not the same twice");

        let found: Vec<String> = events.iter().map(summary).collect();
        assert!(
            found == case.expected,
            "{label}:\nexpected {:#?}\nfound    {found:#?}",
            case.expected
        );
        let for_others: Vec<_> = events
            .iter()
            .filter(|event| !event.routes.iter().any(|route| ours.contains(route)))
            .flat_map(|event| &event.routes)
            .collect();
        assert!(
            for_others == case.neighbours,
            "{label}: what names none of {ours:?} names {for_others:?}, not {:?}",
            case.neighbours
        );
    }
}

/// Only the right secret over the very same bytes is believed.
pub fn check_signatures(subject: &Subject) {
    let channel = subject.open(NOWHERE);
    let neighbour = subject.open_with(NOWHERE, &subject.other_secrets);
    let header = subject.signature_header;
    for case in &subject.webhooks {
        let label = format!("{}: {}", subject.name, case.name);
        let signed = subject.signed(case);
        assert_eq!(
            channel.verify(&signed.as_webhook()),
            Ok(()),
            "{label}: the right signature"
        );
        assert_eq!(
            neighbour.verify(&signed.as_webhook()),
            Err(VerifyError::Mismatch),
            "{label}: signed for another channel"
        );

        let mut missing = signed.clone();
        missing.headers.remove(header);
        assert!(
            matches!(
                channel.verify(&missing.as_webhook()),
                Err(VerifyError::MissingSignature(_))
            ),
            "{label}: no signature"
        );

        let right = signed.headers[header].as_bytes().to_vec();
        for length in 0..right.len() {
            let refused = verify_with(&channel, &signed, header, &right[..length]);
            assert!(refused.is_err(), "{label}: signature cut to {length} bytes");
        }
        for at in 0..right.len() {
            let mut wrong = right.clone();
            // Another letter or digit, so that the header stays well-formed where it can.
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            let refused = verify_with(&channel, &signed, header, &wrong);
            assert!(refused.is_err(), "{label}: signature changed at byte {at}");
        }

        for at in 0..signed.body.len() {
            let mut changed = signed.clone();
            let mut body = signed.body.to_vec();
            body[at] ^= 1;
            changed.body = body.into();
            assert!(
                channel.verify(&changed.as_webhook()).is_err(),
                "{label}: body changed at byte {at}"
            );
        }
    }
}

fn verify_with(
    channel: &Arc<dyn OpenChannel>,
    signed: &Request,
    header: &'static str,
    signature: &[u8],
) -> Result<(), VerifyError> {
    let mut request = signed.clone();
    if let Ok(value) = HeaderValue::from_bytes(signature) {
        request.headers.insert(header, value);
    }
    channel.verify(&request.as_webhook())
}

/// Any bytes give events or a discreet error: cut at every length, changed at random, random altogether.
pub fn check_totality(subject: &Subject) {
    let provider = (subject.provider)(NOWHERE);
    let parse = |template: &Request, body: Vec<u8>| {
        let request = Request {
            body: body.into(),
            ..template.clone()
        };
        if let Err(error) = provider.parse(&request.as_webhook()) {
            subject.assert_discreet("parsing", &error);
        }
    };
    let mut random = Random(0x5EED_1234_ABCD_0001);
    for case in &subject.webhooks {
        let body = &case.request.body;
        for length in 0..body.len() {
            parse(&case.request, body[..length].to_vec());
        }
        for _ in 0..200 {
            let mut changed = body.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(changed.len().max(1));
                if let Some(byte) = changed.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            parse(&case.request, changed);
        }
        for _ in 0..50 {
            let length = random.below(256);
            parse(
                &case.request,
                (0..length).map(|_| random.next() as u8).collect(),
            );
        }
    }
}

/// A xorshift generator: the same bytes in every run, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
