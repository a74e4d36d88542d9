use http::Method;
use proptest::prelude::*;
use ring::{digest, hmac};

use super::{TOKEN, Webhook};
use crate::VerifyError;
use crate::twilio::signature::verify;

fn tokens() -> Vec<String> {
    vec![TOKEN.to_owned()]
}

/// Signs a text that the test itself put together, so that the code under test is not its own judge.
fn sign(text: &str) -> String {
    use base64::Engine as _;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TOKEN.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

fn check(webhook: &Webhook) -> Result<(), VerifyError> {
    verify(&webhook.request(), &tokens())
}

/// A request signed over `text` is believed.
fn believes(webhook: Webhook, text: &str) -> bool {
    check(&webhook.signed(&sign(text))).is_ok()
}

const DOCUMENTED_BODY: &str = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";

fn documented() -> Webhook {
    Webhook::post(DOCUMENTED_BODY).at("https://mycompany.com/myapp.php?foo=1&bar=2")
}

#[test]
fn the_example_of_twilios_own_documentation_is_believed() {
    let webhook = documented().signed("RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    assert_eq!(check(&webhook), Ok(()));
}

#[test]
fn the_order_of_parameters_on_the_wire_does_not_matter() {
    let reversed: Vec<&str> = DOCUMENTED_BODY.split('&').rev().collect();
    let webhook = Webhook::post(reversed.join("&"))
        .at("https://mycompany.com/myapp.php?foo=1&bar=2")
        .signed("RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    assert_eq!(check(&webhook), Ok(()));
}

#[test]
fn one_changed_byte_anywhere_is_not_believed() {
    let signature = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";
    let other_body = DOCUMENTED_BODY.replace("Digits=1234", "Digits=1235");
    let other_url = "https://mycompany.com/myapp.php?foo=1&bar=3";
    for webhook in [
        Webhook::post(other_body).at("https://mycompany.com/myapp.php?foo=1&bar=2"),
        Webhook::post(DOCUMENTED_BODY).at(other_url),
        documented().at("https://mycompany.com:8443/myapp.php?foo=1&bar=3"),
    ] {
        assert_eq!(
            check(&webhook.signed(signature)),
            Err(VerifyError::Mismatch)
        );
    }
    let flipped = documented().signed("rSOYDt4T1cUTdK1PDd93/VVr8B8=");
    assert_eq!(check(&flipped), Err(VerifyError::Mismatch));
}

#[test]
fn a_missing_and_a_malformed_signature_are_told_apart() {
    let missing = VerifyError::MissingSignature("X-Twilio-Signature");
    let malformed = VerifyError::MalformedSignature("X-Twilio-Signature");
    assert_eq!(check(&documented()), Err(missing));
    for signature in ["", "no base64!", "c2hvcnQ="] {
        assert_eq!(
            check(&documented().signed(signature)),
            Err(malformed),
            "{signature}"
        );
    }
    let unkeyed = documented().signed("RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    assert_eq!(verify(&unkeyed.request(), &[]), Err(VerifyError::NoSecret));
}

#[test]
fn during_a_rotation_either_token_may_have_signed() {
    let webhook = documented().signed("RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    let both = ["new-token".to_owned(), TOKEN.to_owned()];
    assert_eq!(verify(&webhook.request(), &both), Ok(()));
    assert_eq!(
        verify(&webhook.request(), &both[..1]),
        Err(VerifyError::Mismatch)
    );
}

#[test]
fn a_repeated_key_counts_once_for_each_distinct_value_in_order() {
    let webhook = || Webhook::post("k=b&k=a&k=b&a=1").at("https://x.example/h");
    assert!(believes(webhook(), "https://x.example/ha1kakb"));
    assert!(!believes(webhook(), "https://x.example/ha1kbkakb"));
}

#[test]
fn an_empty_value_counts_with_its_key_alone() {
    let webhook = Webhook::post("ToCity=&Body=&A").at("https://x.example/h");
    assert!(believes(webhook, "https://x.example/hABodyToCity"));
}

#[test]
fn keys_are_sorted_by_code_point_so_capitals_come_first() {
    let webhook = Webhook::post("b=2&B=1&a=3").at("https://x.example/h");
    assert!(believes(webhook, "https://x.example/hB1a3b2"));
}

#[test]
fn values_count_as_decoded_with_blanks_and_arabic() {
    let webhook =
        Webhook::post("Body=%D9%85%D8%B1%D8%AD%D8%A8%D8%A7+1%2B1%0A").at("https://x.example/h");
    assert!(believes(webhook, "https://x.example/hBodyمرحبا 1+1\n"));
}

#[test]
fn the_standard_port_may_be_signed_or_not_whether_configured_or_not() {
    for (configured, signed) in [
        ("https://x.example/h?q=1", "https://x.example:443/h?q=1"),
        ("https://x.example:443/h", "https://x.example/h"),
        ("http://x.example/h", "http://x.example:80/h"),
        ("http://x.example:80/h", "http://x.example/h"),
        ("https://x.example:8443/h", "https://x.example:8443/h"),
        // Twilio's own validators drop any port.
        ("https://x.example:8443/h", "https://x.example/h"),
        ("https://[2001:db8::1]/h", "https://[2001:db8::1]:443/h"),
        ("https://u:p@x.example:443/h", "https://u:p@x.example/h"),
        ("https://x.example?q=a:b@c", "https://x.example:443?q=a:b@c"),
    ] {
        let webhook = Webhook::post("A=1").at(configured);
        assert!(believes(webhook, &format!("{signed}A1")), "{configured}");
    }
    let other = Webhook::post("A=1").at("https://x.example/h");
    assert!(!believes(other, "https://x.example:8443/hA1"));
}

#[test]
fn a_fragment_is_never_signed() {
    let webhook = Webhook::post("A=1").at("https://x.example/h?x=1#rc=5&rp=all");
    assert!(believes(webhook, "https://x.example/h?x=1A1"));
}

#[test]
fn the_query_counts_as_it_stands_and_as_it_is_normally_encoded() {
    let configured = "https://x.example/h?name=O'Brien&t=a+b&u=%2f&t=2";
    for signed in [
        // As it stands.
        configured,
        // As a browser writes it.
        "https://x.example/h?name=O%27Brien&t=a+b&u=%2f&t=2",
        // Taken apart and put together again.
        "https://x.example/h?name=O'Brien&t=a%20b&t=2&u=%2F",
    ] {
        let webhook = Webhook::post("A=1").at(configured);
        assert!(believes(webhook, &format!("{signed}A1")), "{signed}");
    }
}

#[test]
fn a_json_body_is_covered_by_its_hash_in_the_query() {
    let body = r#"{"a":1}"#;
    let hash = hex::encode(digest::digest(&digest::SHA256, body.as_bytes()));
    let url = format!("https://x.example/h?bodySHA256={hash}");
    assert!(believes(Webhook::post(body).at(&url), &url));
    assert!(!believes(Webhook::post(r#"{"a":2}"#).at(&url), &url));
}

#[test]
fn a_body_that_nothing_covers_is_not_believed() {
    let url = "https://x.example/h";
    assert!(!believes(Webhook::post(r#"{"a":1}"#).at(url), url));
    let empty_hash = "https://x.example/h?bodySHA256=";
    assert!(!believes(
        Webhook::post(r#"{"a":1}"#).at(empty_hash),
        empty_hash
    ));
}

#[test]
fn a_get_is_signed_by_its_address_alone() {
    let url = "https://x.example/h?Body=hi&From=%2B12025550111";
    let mut webhook = Webhook::post("").at(url);
    webhook.method = Method::GET;
    assert!(believes(webhook, url));
}

proptest! {
    /// The rule said a second time, in other words: sort all (key, value) pairs, drop copies, write them out.
    #[test]
    fn any_form_is_believed_with_its_own_signature_and_no_other(
        pairs in prop::collection::vec(("[A-Za-z0-9]{1,8}", "\\PC{0,12}"), 0..12),
        path in "[a-z/]{0,10}",
    ) {
        let body: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let url = format!("https://x.example/{path}");
        let mut sorted = pairs;
        sorted.sort();
        sorted.dedup();
        let text: String = sorted.iter().flat_map(|(key, value)| [key.as_str(), value]).collect();
        let own = believes(Webhook::post(body.clone()).at(&url), &format!("{url}{text}"));
        let other = believes(Webhook::post(body).at(&url), &format!("{url}{text}x"));
        prop_assert!(own && !other);
    }

    #[test]
    fn no_address_and_no_header_makes_the_check_panic(
        url in "\\PC{0,40}",
        header in "[ -~]{0,40}",
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        prop_assert!(check(&Webhook::post(body).at(&url).signed(&header)).is_err());
    }
}
