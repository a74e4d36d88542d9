//! PostgREST's dialect: an HTTP request about a table becomes one SQL statement. Knows neither HTTP nor a connection.
//!
//! [`Query`] reads the query string, [`Preferences`] and [`MediaType`] the headers, [`Payload`] the body. With a
//! [`Schema`] the functions of [`plan`] make a [`Plan`]: the text of a statement and its binds. A value never becomes
//! part of the text, an identifier only when the schema knows it. What the statement returned goes to [`Plan::judge`],
//! which decides the answer before the transaction ends.

mod answer;
mod describe;
mod error;
mod headers;
mod payload;
pub mod plan;
mod query;
mod schema;

pub use answer::{Answer, Outcome};
pub use describe::describe;
pub use error::RestError;
pub use headers::{Count, MediaType, Preferences, Resolution, Returning, RowRange};
pub use payload::Payload;
pub use plan::{Plan, Request, Statement};
pub use query::Query;
pub use schema::{Argument, Column, ForeignKey, Function, Relation, RelationKind, Returns, Schema};

/// What one request may ask for at most. Beyond it the request is refused, so that its cost has a bound.
pub mod limits {
    /// Characters of a query string.
    pub const QUERY: usize = 60_000;
    /// Conditions, counting those inside `and` and `or`.
    pub const CONDITIONS: usize = 200;
    /// `and` and `or` inside each other.
    pub const LOGIC_DEPTH: usize = 12;
    /// Columns and relations in all of `select`.
    pub const ITEMS: usize = 300;
    /// Relations inside each other.
    pub const EMBED_DEPTH: usize = 4;
    /// Relations in all of `select`.
    pub const EMBEDS: usize = 16;
    /// Values of one `in` list.
    pub const LIST: usize = 5_000;
    /// Steps of a JSON path.
    pub const PATH: usize = 16;
    /// Columns to order by.
    pub const ORDER: usize = 32;
    /// Rows of one request's body.
    pub const ROWS: usize = 10_000;
    /// Lists inside each other with pages of the server's size; with smaller pages there may be more.
    pub const LISTS: u32 = 3;
    /// Bytes of an answer.
    pub const ANSWER: usize = 16 << 20;
}
