//! Buttons and lists as text: linked phones cannot send them so that every recipient sees them.

use std::fmt::Write as _;

use serde_json::Value;

/// The words of an `interactive` message, its options numbered. `None` where it has no body and no options.
pub(super) fn text(interactive: &Value) -> Option<String> {
    let at = |path: &str| {
        interactive
            .pointer(path)
            .and_then(Value::as_str)
            .filter(|text| !text.trim().is_empty())
    };
    let mut options = String::new();
    for (index, option) in options_of(interactive).into_iter().enumerate() {
        // Into a string nothing fails.
        let _ = write!(options, "\n{}. {option}", index + 1);
    }
    let link = at("/action/parameters/url").map(|url| {
        let label = at("/action/parameters/display_text");
        label.map_or_else(|| url.to_owned(), |label| format!("{label}: {url}"))
    });
    let parts = [
        at("/header/text").map(|header| format!("*{header}*")),
        at("/body/text").map(str::to_owned),
        Some(options.trim_start().to_owned()).filter(|options| !options.is_empty()),
        link,
        at("/footer/text").map(|footer| format!("_{footer}_")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

fn options_of(interactive: &Value) -> Vec<String> {
    let list = |value: &Value, path: &str| -> Vec<Value> {
        value
            .pointer(path)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let word = |value: &Value, path: &str| {
        value
            .pointer(path)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let buttons = list(interactive, "/action/buttons")
        .into_iter()
        .filter_map(|button| word(&button, "/reply/title"));
    let rows = list(interactive, "/action/sections")
        .into_iter()
        .flat_map(|section| list(&section, "/rows"))
        .filter_map(|row| {
            let title = word(&row, "/title")?;
            Some(match word(&row, "/description") {
                Some(description) => format!("{title} – {description}"),
                None => title,
            })
        });
    buttons.chain(rows).collect()
}
