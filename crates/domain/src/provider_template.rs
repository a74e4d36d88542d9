//! Templates that a provider keeps and approves, and which of our variables fill them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a provider's template names its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterFormat {
    /// `{{1}}`, `{{2}}`.
    #[default]
    Positional,
    /// `{{customer_name}}`.
    Named,
}

impl ParameterFormat {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Positional => "positional",
            Self::Named => "named",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Positional, Self::Named]
            .into_iter()
            .find(|format| format.as_str().eq_ignore_ascii_case(text))
    }
}

/// The status in which a provider sends a template.
pub const APPROVED: &str = "APPROVED";

/// A template as its provider has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderTemplate {
    /// The provider's id; `None` before it was told.
    pub provider_id: Option<String>,
    pub name: String,
    /// As the provider's API writes it: `ar`, `en_US`.
    pub language: String,
    /// `UTILITY`, `MARKETING`, `AUTHENTICATION`.
    pub category: Option<String>,
    /// `APPROVED`, `PENDING`, `REJECTED`, `PAUSED`, `DISABLED` …
    pub status: String,
    pub parameter_format: ParameterFormat,
    /// In the provider's form; `None` while they are not known.
    pub components: Option<Vec<Value>>,
    pub quality: Option<String>,
    pub rejected_reason: Option<String>,
}

impl ProviderTemplate {
    #[must_use]
    pub fn is_approved(&self) -> bool {
        self.status == APPROVED
    }
}

/// Which of our variables fills which parameter of a provider's template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableMap {
    /// Parameter of the header's text (`1` or its name) → variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, String>,
    /// Parameter of the body → variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub body: BTreeMap<String, String>,
    /// Place of the button, from `0` → variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub buttons: BTreeMap<String, String>,
}

/// The components after a provider told of new texts: these replace the header's, the body's, the footer's and the
/// buttons; a header that is a file, and kinds that such news never name, stay.
#[must_use]
pub fn with_new_texts(old: &[Value], new: &[Value]) -> Vec<Value> {
    const KINDS: [&str; 4] = ["HEADER", "BODY", "FOOTER", "BUTTONS"];
    let kind = |component: &Value| {
        let kind = component.get("type").and_then(Value::as_str);
        kind.unwrap_or_default().to_ascii_uppercase()
    };
    let is_file = |component: &Value| {
        let format = component.get("format").and_then(Value::as_str);
        kind(component) == "HEADER"
            && !format.is_none_or(|format| format.eq_ignore_ascii_case("TEXT"))
    };
    let new_header = new.iter().any(|component| kind(component) == "HEADER");
    let mut merged: Vec<Value> = old
        .iter()
        .filter(|old| (is_file(old) && !new_header) || !KINDS.contains(&kind(old).as_str()))
        .chain(new)
        .cloned()
        .collect();
    merged.sort_by_key(|component| {
        let kind = kind(component);
        KINDS
            .iter()
            .position(|known| *known == kind)
            .unwrap_or(KINDS.len())
    });
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn new_texts_replace_the_old_ones_and_leave_a_picture_where_it_is() {
        let old = [
            json!({"type": "HEADER", "format": "IMAGE"}),
            json!({"type": "BODY", "text": "old"}),
            json!({"type": "FOOTER", "text": "old"}),
            json!({"type": "CAROUSEL", "cards": []}),
        ];
        let new = [json!({"type": "BODY", "text": "new"})];
        assert_eq!(
            with_new_texts(&old, &new),
            [old[0].clone(), new[0].clone(), old[3].clone()]
        );
        let header = [json!({"type": "HEADER", "format": "TEXT", "text": "h"})];
        assert_eq!(with_new_texts(&old[..1], &header), header);
        assert_eq!(with_new_texts(&header, &new), new);
    }
}
