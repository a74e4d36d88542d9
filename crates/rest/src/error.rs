//! Refusals, in PostgREST's codes and words.

use serde::Serialize;
use serde_json::{Value, json};

/// A refused request. As JSON it has the four keys clients read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RestError {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// `PGRST…`, or an SQLSTATE.
    pub code: String,
    pub message: String,
    /// A text, or for an ambiguous relation the list of those to choose from.
    pub details: Value,
    pub hint: Option<String>,
}

impl std::fmt::Display for RestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for RestError {}

impl RestError {
    #[must_use]
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            details: Value::Null,
            hint: None,
        }
    }

    #[must_use]
    pub fn details(mut self, details: impl Into<Value>) -> Self {
        self.details = details.into();
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A part of the query string that cannot be read.
    pub(crate) fn unreadable(what: &str, text: &str, column: usize, details: &str) -> Self {
        let shown: String = text.chars().take(200).collect();
        Self::new(
            400,
            "PGRST100",
            format!("\"failed to parse {what} ({shown})\" (line 1, column {column})"),
        )
        .details(details)
    }

    /// More of something than [`crate::limits`] allows.
    pub(crate) fn too_much(what: &str, limit: usize) -> Self {
        Self::new(400, "PGRST100", format!("The request has too many {what}"))
            .details(format!("At most {limit} are allowed"))
    }

    pub(crate) fn unknown_table(name: &str, nearest: Option<&str>) -> Self {
        let mut error = Self::new(
            404,
            "PGRST205",
            format!("Could not find the table 'public.{name}' in the schema cache"),
        );
        if let Some(nearest) = nearest {
            error.hint = Some(format!("Perhaps you meant the table 'public.{nearest}'"));
        }
        error
    }

    /// A column named in the query.
    pub(crate) fn unknown_column(table: &str, column: &str) -> Self {
        Self::new(
            400,
            "42703",
            format!("column {table}.{column} does not exist"),
        )
    }

    /// A column named in the body, or in `columns`.
    pub(crate) fn unknown_body_column(table: &str, column: &str) -> Self {
        Self::new(
            400,
            "PGRST204",
            format!("Could not find the '{column}' column of '{table}' in the schema cache"),
        )
    }

    /// A table that the server alone writes.
    pub(crate) fn read_only(table: &str) -> Self {
        Self::new(403, "42501", format!("permission denied for table {table}"))
            .details("Only the server writes it")
    }

    /// More rows than [`crate::limits::LISTS`] allows.
    pub(crate) fn too_broad() -> Self {
        Self::new(
            400,
            "PGRST100",
            "The request has too many lists inside each other",
        )
        .hint("Set a limit on the relations")
    }

    pub(crate) fn bad_body(message: &str) -> Self {
        Self::new(400, "PGRST102", message)
    }

    pub(crate) fn not_embedded(name: &str) -> Self {
        Self::new(
            400,
            "PGRST108",
            format!("'{name}' is not an embedded resource in this request"),
        )
        .hint(format!(
            "Verify that '{name}' is included in the 'select' query parameter."
        ))
    }

    pub(crate) fn no_relation(parent: &str, target: &str, hint: Option<&str>) -> Self {
        let searched = match hint {
            Some(hint) => format!(" using the hint '{hint}'"),
            None => String::new(),
        };
        Self::new(
            400,
            "PGRST200",
            format!(
                "Could not find a relationship between '{parent}' and '{target}' in the schema cache"
            ),
        )
        .details(format!(
            "Searched for a foreign key relationship between '{parent}' and '{target}'{searched} in the schema 'public', but no matches were found."
        ))
    }

    pub(crate) fn ambiguous_relation(
        parent: &str,
        target: &str,
        choices: Vec<(&'static str, String, String)>,
    ) -> Self {
        let names: Vec<_> = choices
            .iter()
            .map(|(_, name, _)| format!("'{target}!{name}'"))
            .collect();
        let details: Vec<_> = choices
            .iter()
            .map(|(cardinality, _, relationship)| {
                json!({ "cardinality": cardinality, "embedding": format!("{parent} with {target}"),
                    "relationship": relationship })
            })
            .collect();
        Self::new(
            300,
            "PGRST201",
            format!("Could not embed because more than one relationship was found for '{parent}' and '{target}'"),
        )
        .details(details)
        .hint(format!(
            "Try changing '{target}' to one of the following: {}. Find the desired relationship in the 'details' key.",
            names.join(", ")
        ))
    }

    pub(crate) fn not_single(rows: i64) -> Self {
        Self::new(
            406,
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
        )
        .details(format!("The result contains {rows} rows"))
    }

    /// A schema other than `public`.
    #[must_use]
    pub fn unknown_schema(name: &str) -> Self {
        Self::new(406, "PGRST106", format!("Invalid schema: {name}"))
            .hint("Only the following schemas are exposed: public")
    }

    /// What Postgres refused. `signed_in`: for a stranger a missing right means "sign in first".
    #[must_use]
    pub fn of_database(
        sqlstate: &str,
        message: &str,
        details: Option<&str>,
        hint: Option<&str>,
        signed_in: bool,
    ) -> Self {
        Self {
            status: status_of(sqlstate, message, signed_in),
            code: sqlstate.to_owned(),
            message: message.to_owned(),
            details: details.map_or(Value::Null, Value::from),
            hint: hint.map(str::to_owned),
        }
    }

    /// Whether a newer copy of the schema may know better.
    #[must_use]
    pub fn may_be_outdated(&self) -> bool {
        matches!(
            self.code.as_str(),
            "PGRST200" | "PGRST202" | "PGRST204" | "PGRST205" | "42703" | "42P01" | "42883"
        )
    }
}

/// PostgREST's table (its page "Errors", HTTP status codes).
fn status_of(sqlstate: &str, message: &str, signed_in: bool) -> u16 {
    match sqlstate {
        "23503" | "23505" | "55006" => 409,
        "25006" => 405,
        "42501" if signed_in => 403,
        "42501" => 401,
        "42883" | "42P01" => 404,
        "42P17" => 500,
        "21000" if message.ends_with("requires a WHERE clause") => 400,
        "21000" => 500,
        "P0001" => 400,
        "53400" => 500,
        "57P01" | "57P02" | "57P03" => 503,
        // RAISE … USING ERRCODE = 'PT404': the function chooses the status.
        state if state.starts_with("PT") => state[2..]
            .parse()
            .ok()
            .filter(|status| (400..600).contains(status))
            .unwrap_or(500),
        state => match state.get(..2).unwrap_or_default() {
            "08" | "53" => 503,
            "0L" | "0P" | "28" => 403,
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0"
            | "HV" | "P0" | "XX" => 500,
            _ => 400,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_all_four_keys() {
        let error = RestError::new(404, "PGRST205", "no");
        assert_eq!(
            serde_json::to_value(&error).unwrap(),
            json!({ "code": "PGRST205", "message": "no", "details": null, "hint": null })
        );
    }

    #[test]
    fn a_state_of_the_database_has_postgrests_status() {
        for (state, message, signed_in, expected) in [
            ("22P02", "", true, 400),
            ("22P05", "", true, 400),
            ("22021", "", true, 400),
            ("23502", "", true, 400),
            ("23514", "", true, 400),
            ("23503", "", true, 409),
            ("23505", "", true, 409),
            ("42501", "", true, 403),
            ("42501", "", false, 401),
            ("42703", "", true, 400),
            ("42883", "", true, 404),
            ("57014", "", true, 500),
            ("25006", "", true, 405),
            ("21000", "UPDATE requires a WHERE clause", true, 400),
            ("21000", "more than one row returned", true, 500),
            ("PT418", "", true, 418),
            ("PTé", "", true, 500),
            ("", "", true, 400),
        ] {
            assert_eq!(status_of(state, message, signed_in), expected, "{state}");
        }
    }
}
