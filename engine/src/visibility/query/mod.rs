//! The query language of listings: the condition of an SQL WHERE, over the attributes of a namespace.
//!
//! ```text
//!  query   = [ or ] [ GROUP BY ExecutionStatus ] [ ORDER BY StartTime DESC ]
//!  or      = and { OR and }
//!  and     = not { AND not }
//!  not     = NOT not | "(" or ")" | test
//!  test    = name ( = | != | <> | < | <= | > | >= ) literal
//!          | name [ NOT ] IN "(" literal { "," literal } ")"
//!          | name [ NOT ] BETWEEN literal AND literal
//!          | name [ NOT ] STARTS_WITH literal
//!          | name IS [ NOT ] NULL
//! ```
//!
//! Names stand bare or between backticks; texts between single or double quotes; words of the language in any case. Listings come newest
//! start first, so that is the only order that may be asked for.
//!
//! As in SQL, a test of an attribute that a run does not have is neither true nor false, and neither is its NOT: such a run is in no
//! listing that asks for either. `IS NULL` asks for it.
//!
//! Invariant: no text makes this panic or recurse without bound.

mod check;
mod eval;
mod lexer;
mod parser;
#[cfg(test)]
mod properties;

pub(crate) use self::check::status_name;
pub use self::check::{Filter, Op, Test, status_of_name};
pub use self::eval::Fields;
use super::attributes::Catalogue;

/// Bytes of a query.
pub const QUERY_BYTES_MAX: usize = 64 * 1024;
/// Parentheses and NOTs within one another.
pub const QUERY_DEPTH_MAX: usize = 64;

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid query at position {at}: {message}")]
pub struct QueryError {
    /// The character, counted from 1.
    pub at: usize,
    /// What is wrong and what is accepted.
    pub message: String,
}

/// A query that names known attributes and compares each with values of its type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// What a run must satisfy; `None` is every run.
    pub filter: Option<Filter>,
    /// Whether runs are counted by status.
    pub by_status: bool,
}

impl Query {
    /// Reads a query over the attributes of a namespace.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(QueryError {
                at: 1,
                message: format!(
                    "the query has {} bytes: at most {QUERY_BYTES_MAX} are allowed",
                    text.len()
                ),
            });
        }
        let locate = |(offset, message): (usize, String)| {
            let before = text.get(..offset).unwrap_or(text);
            QueryError {
                at: before.chars().count() + 1,
                message,
            }
        };
        let tokens = lexer::tokens(text).map_err(locate)?;
        let parsed = parser::parse(&tokens, text.len()).map_err(locate)?;
        check::check(parsed, catalogue).map_err(locate)
    }
}

/// An error on its way: where, as a byte offset, and what.
type Located<T> = Result<T, (usize, String)>;
