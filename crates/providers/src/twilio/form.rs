//! The parameters of one webhook request: the form of a POST, the query of a GET.

use std::collections::BTreeMap;

use http::Method;

use crate::WebhookRequest;

/// Decoded parameters, keys in code-point order, repeated keys with all their values as sent.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, Vec<String>>);

impl Params {
    /// The parameters that make up the message. What is read here is what [`super::signature`] checks.
    pub fn of(request: &WebhookRequest<'_>) -> Self {
        if request.method == Method::GET {
            Self::decode(query(request.url).as_bytes())
        } else {
            Self::decode(request.body)
        }
    }

    pub fn decode(encoded: &[u8]) -> Self {
        let mut params: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(encoded) {
            params
                .entry(key.into_owned())
                .or_default()
                .push(value.into_owned());
        }
        Self(params)
    }

    /// Key after key with its values, exactly as decoded.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0
            .iter()
            .map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// The first value of a parameter, without NUL characters (old GSM gateways send them, Postgres refuses
    /// them); `None` if it is missing or empty.
    pub fn get(&self, name: &str) -> Option<String> {
        let value = self.0.get(name)?.first()?.replace('\0', "");
        Some(value).filter(|value| !value.is_empty())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The raw query of an address, without `?` and fragment; empty if it has none.
pub(super) fn query(url: &str) -> &str {
    let url = without_fragment(url);
    url.split_once('?').map_or("", |(_, query)| query)
}

pub(super) fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(url, _)| url)
}
