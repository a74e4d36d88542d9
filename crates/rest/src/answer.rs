//! From what the statement returned to the answer.

use crate::plan::{Plan, Request};
use crate::{MediaType, Preferences, RestError, Returning, limits};

/// The one row of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows in the body.
    pub page: i64,
    /// Rows in all, where they were counted; of a write: rows written.
    pub total: Option<i64>,
    /// Of an upsert: rows that are new.
    pub inserted: Option<i64>,
    /// Bytes of the body, also where it is too large to be there.
    pub size: i64,
    pub body: Option<String>,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `None` where there is no body.
    pub content_type: Option<&'static str>,
    pub content_range: Option<String>,
    /// `Preference-Applied`; empty for none.
    pub preference_applied: String,
    pub body: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Insert {
        is_upsert: bool,
    },
    Update,
    Delete,
    /// A function that returns a value.
    CallValue,
    CallVoid,
}

impl Verb {
    fn writes(self) -> bool {
        matches!(self, Self::Insert { .. } | Self::Update | Self::Delete)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Shape {
    verb: Verb,
    preferences: Preferences,
    media: MediaType,
    head: bool,
    offset: u64,
}

impl Shape {
    pub fn new(verb: Verb, request: &Request, offset: u64) -> Self {
        Self {
            verb,
            preferences: request.preferences.clone(),
            media: request.media,
            head: request.head,
            offset,
        }
    }
}

impl Plan {
    /// Decides the answer. After a refusal the transaction must not commit.
    pub fn judge(&self, outcome: Option<Outcome>) -> Result<Answer, RestError> {
        let shape = &self.shape;
        let preferences = &shape.preferences;
        let verb = shape.verb;
        let represents = !verb.writes() || preferences.returning == Some(Returning::Representation);
        let outcome = outcome.unwrap_or_else(|| Outcome {
            total: Some(0),
            inserted: Some(0),
            body: Some(match shape.media {
                MediaType::Json { .. } if represents => "[]".to_owned(),
                _ => String::new(),
            }),
            ..Outcome::default()
        });
        if let Some(most) = preferences
            .max_affected
            .filter(|_| preferences.strict && verb.writes())
        {
            let affected = outcome.total.unwrap_or_default();
            if u64::try_from(affected).is_ok_and(|affected| affected > most) {
                return Err(RestError::new(
                    400,
                    "PGRST124",
                    "Query result exceeds max-affected preference constraint",
                )
                .details(format!("The query affects {affected} rows")));
            }
        }
        let is_single = matches!(shape.media, MediaType::Single { .. });
        if is_single && represents && outcome.page != 1 && verb != Verb::CallValue {
            return Err(RestError::not_single(outcome.page));
        }
        let Some(body) = outcome.body else {
            return Err(RestError::new(
                413,
                "54000",
                format!("The answer has {} bytes", outcome.size),
            )
            .details(format!("At most {} are sent at once", limits::ANSWER))
            .hint("Ask for fewer rows or columns"));
        };
        let counted = outcome.total.filter(|_| preferences.count.is_some());
        if let (Verb::Read, Some(total)) = (verb, counted)
            && i64::try_from(shape.offset).is_ok_and(|offset| offset > total)
        {
            return Err(
                RestError::new(416, "PGRST103", "Requested range not satisfiable").details(
                    format!(
                        "An offset of {} was requested, but there are only {total} rows.",
                        shape.offset
                    ),
                ),
            );
        }
        let status = match verb {
            Verb::Read => match counted {
                Some(total) if outcome.page < total && !is_single => 206,
                _ => 200,
            },
            Verb::CallValue => 200,
            Verb::CallVoid => 204,
            Verb::Insert { is_upsert: true } if outcome.inserted == Some(0) => 200,
            Verb::Insert { .. } => 201,
            Verb::Update | Verb::Delete if represents => 200,
            Verb::Update | Verb::Delete => 204,
        };
        let has_body = !shape.head && represents && verb != Verb::CallVoid;
        Ok(Answer {
            status,
            content_type: (represents && verb != Verb::CallVoid).then(|| match verb {
                Verb::CallValue => "application/json; charset=utf-8",
                _ => shape.media.content_type(),
            }),
            content_range: range(verb, shape.offset, outcome.page, outcome.total, counted),
            preference_applied: preferences
                .applied(verb.writes(), matches!(verb, Verb::Insert { .. })),
            body: if has_body { body } else { String::new() },
        })
    }
}

fn range(
    verb: Verb,
    offset: u64,
    page: i64,
    total: Option<i64>,
    counted: Option<i64>,
) -> Option<String> {
    let (first, rows) = match verb {
        Verb::CallVoid => return None,
        Verb::Read | Verb::CallValue => (offset, page),
        Verb::Update => (0, total.unwrap_or_default()),
        Verb::Insert { .. } | Verb::Delete => (0, 0),
    };
    let total = counted.map_or("*".to_owned(), |total| total.to_string());
    Some(match u64::try_from(rows) {
        Ok(rows) if rows > 0 => format!("{first}-{}/{total}", first + rows - 1),
        _ => format!("*/{total}"),
    })
}
