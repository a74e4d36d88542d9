//! `X-Twilio-Signature`, as Twilio's own Python and Node validators compute it.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

/// base64(HMAC-SHA1(auth token, URL + each key with each of its values)): keys by code point, a
/// repeated key's distinct values sorted. `url` is the configured one without its fragment.
pub(crate) fn sign(auth_token: &str, url: &str, params: &[(String, String)]) -> String {
    let mut sorted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, value) in params {
        sorted.entry(key).or_default().insert(value);
    }
    let mut text = url.to_owned();
    for (key, values) in sorted {
        for value in values {
            text.push_str(key);
            text.push_str(value);
        }
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth_token.as_bytes());
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    /// The worked example of Twilio's documentation ("Validating requests are coming from Twilio"),
    /// which is also the fixture of its client libraries' tests.
    #[test]
    fn the_documented_example_has_the_documented_signature() {
        let params = pairs(&[
            ("Digits", "1234"),
            ("CallSid", "CA1234567890ABCDE"),
            ("To", "+18005551212"),
            ("Caller", "+14158675309"),
            ("From", "+14158675309"),
        ]);
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert_eq!(sign("12345", url, &params), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    }

    #[test]
    fn a_repeated_key_counts_once_for_each_distinct_value_in_order() {
        let url = "https://x.test/";
        let messy = pairs(&[("A", "2"), ("A", "1"), ("A", "2"), ("B", "")]);
        let tidy = pairs(&[("A", "1"), ("A", "2"), ("B", "")]);
        assert_eq!(sign("t", url, &messy), sign("t", url, &tidy));
    }
}
