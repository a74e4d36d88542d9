//! From a request and the schema to one statement.
//!
//! Every statement answers one row of five columns: rows on the page, rows in all (or rows written), rows inserted
//! rather than updated, bytes of the body, the body. Values are binds of type text, cast in the text of the statement to
//! what they are compared with; requests of one shape thus have one text.

mod call;
mod condition;
mod embed;
mod level;
mod read;
mod sql;
mod write;

pub use call::call;
pub use read::read;
pub use write::{delete, insert, update};

use crate::answer::Shape;
use crate::{MediaType, Preferences};

/// What the headers of a request and the server's settings say.
#[derive(Clone, Debug)]
pub struct Request {
    pub preferences: Preferences,
    pub media: MediaType,
    /// HEAD: no body is made.
    pub head: bool,
    /// Rows of one page at most, here and in each embedded relation.
    pub max_rows: u64,
}

/// SQL to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub sql: String,
    /// `$1`, `$2`, …, all of type text.
    pub binds: Vec<String>,
    /// Begin the transaction so that it cannot write.
    pub read_only: bool,
}

/// What to run for a request, and how to answer it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `None`: there is nothing to do, such as no rows to insert.
    pub statement: Option<Statement>,
    /// The table or view written to; `None` for a read. A function may write anywhere: then it is empty.
    pub writes: Option<String>,
    /// Undo the transaction after the answer is made.
    pub rollback: bool,
    pub(crate) shape: Shape,
}

#[cfg(test)]
mod tests;
