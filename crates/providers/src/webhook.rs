//! A webhook request as a provider's parser sees it: no framework types, raw body bytes.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, Method};

/// One request from a provider.
#[derive(Clone, Copy, Debug)]
pub struct WebhookRequest<'a> {
    pub method: &'a Method,
    /// The address as the provider has it configured: our public base, path and query. Not rebuilt from
    /// `Host` or `X-Forwarded-*`, which a caller can set.
    pub url: &'a str,
    pub headers: &'a HeaderMap,
    /// Exactly as received: signatures cover these bytes.
    pub body: &'a Bytes,
    /// When it came in; on a replay, when it first did. Stands for the time of events that carry none.
    pub received_at: DateTime<Utc>,
}

/// Why a request is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the {0} header is missing")]
    MissingSignature(&'static str),
    #[error("the {0} header is malformed")]
    MalformedSignature(&'static str),
    #[error("the signature does not match")]
    Mismatch,
    #[error("the channel has no secret to check signatures with")]
    NoSecret,
}

/// Why a request could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);
