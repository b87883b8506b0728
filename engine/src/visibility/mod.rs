//! Visibility: which runs there are, by what is known of each without its journal.
//!
//! ```text
//!  query text --parse, check--> Filter --plan--> stretches of the indexes --merge, newest first--> rows --Filter--> page
//! ```
//!
//! Invariant: a listing reads index records only, and only those of its own namespace.

pub mod attributes;
mod commands;
mod derived;
pub mod listing;
pub mod query;
pub mod row;

pub use self::attributes::{Attribute, Catalogue, Field, Value, ValueType};
pub use self::derived::Derived;
pub use self::listing::{Counted, Index, ListError, Listed};
pub use self::query::{Filter, Query, QueryError};
