//! `user_metadata`: what people say about themselves. It goes into every token, so it is kept small.

use serde_json::{Map, Value};
use wasel_db::identity::AboutUser;

use super::views::GoTrueError;

/// All of it as JSON, in bytes.
const MAX_BYTES: usize = 4096;
const MAX_NAME_CHARS: usize = 200;

/// What somebody says about themselves after a change: keys of `patch` go over those of `now`, `null` removes one.
pub(super) fn merged(
    mut now: Map<String, Value>,
    patch: Map<String, Value>,
) -> Result<AboutUser, GoTrueError> {
    for (key, value) in patch {
        if value.is_null() {
            now.remove(&key);
        } else {
            now.insert(key, value);
        }
    }
    let whole = Value::Object(now);
    if has_nul(&whole) {
        return Err(GoTrueError::invalid("data holds a NUL character"));
    }
    if whole.to_string().len() > MAX_BYTES {
        return Err(GoTrueError::invalid(format!(
            "data may have {MAX_BYTES} bytes of JSON in all"
        )));
    }
    let mut rest = match whole {
        Value::Object(rest) => rest,
        _ => Map::new(),
    };
    let full_name = take_text(&mut rest, "full_name")?;
    if full_name
        .as_ref()
        .is_some_and(|name| name.chars().count() > MAX_NAME_CHARS)
    {
        return Err(GoTrueError::invalid(format!(
            "full_name may have {MAX_NAME_CHARS} characters"
        )));
    }
    let locale = take_text(&mut rest, "locale")?;
    let is_tag = |text: &String| {
        text.len() <= 35 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if locale.as_ref().is_some_and(|text| !is_tag(text)) {
        return Err(GoTrueError::invalid(
            "locale must be a language tag such as ar or en-GB",
        ));
    }
    Ok(AboutUser {
        full_name,
        locale,
        user_metadata: rest,
    })
}

fn take_text(map: &mut Map<String, Value>, key: &str) -> Result<Option<String>, GoTrueError> {
    match map.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
        Some(_) => Err(GoTrueError::invalid(format!("{key} must be a text"))),
    }
}

/// Postgres' jsonb has no NUL.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_change_goes_over_what_there_was_and_null_removes() {
        let now = map(json!({ "full_name": "Sara", "theme": "dark", "a": { "b": 1 } }));
        let patch = json!({ "theme": null, "a": { "c": 2 }, "locale": "ar-EG", "n": 1 });
        let about = merged(now, map(patch)).unwrap();
        assert_eq!(about.full_name.as_deref(), Some("Sara"));
        assert_eq!(about.locale.as_deref(), Some("ar-EG"));
        assert_eq!(about.user_metadata, map(json!({ "a": { "c": 2 }, "n": 1 })));
    }

    #[test]
    fn what_is_too_large_or_cannot_be_stored_is_refused() {
        for patch in [
            json!({ "x": "a".repeat(MAX_BYTES) }),
            json!({ "x": ["a\0b"] }),
            json!({ "a\0": 1 }),
            json!({ "full_name": 7 }),
            json!({ "full_name": "a".repeat(MAX_NAME_CHARS + 1) }),
            json!({ "locale": "<script>" }),
        ] {
            assert!(merged(Map::new(), map(patch.clone())).is_err(), "{patch}");
        }
    }
}
