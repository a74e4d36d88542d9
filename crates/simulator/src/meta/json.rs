//! JSON the way Meta writes it.

use serde_json::Value;

/// Serialises with every non-ASCII character as `\u00e4` (lower-case hex, surrogate pairs) and `/` as
/// `\/`. A receiver that parses and rewrites before checking the signature gets other bytes.
pub(crate) fn escape(value: &Value) -> String {
    let plain = value.to_string();
    let mut out = String::with_capacity(plain.len() + plain.len() / 4);
    let mut units = [0u16; 2];
    // Outside strings compact JSON has neither a slash nor anything beyond ASCII.
    for c in plain.chars() {
        match c {
            '/' => out.push_str("\\/"),
            c if c.is_ascii() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arabic_emoji_and_slashes_are_escaped_and_still_mean_the_same() {
        let value = json!({"body": "ä/مرحبا 🚀"});
        let text = escape(&value);
        assert!(
            text.contains(r"\u00e4\/\u0645") && text.contains(r"\ud83d\ude80"),
            "{text}"
        );
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value));
    }
}
