//! The pure core of Orchestrion: three functions over a run's journal, and the contract of the store that keeps it.
//!
//! ```text
//!              decide                       apply
//!   Request ------------> journal records ----------> MutableState      what is true
//!                               |
//!                               '---- tasks::after --> Tasks            what must be done next
//! ```
//!
//! Invariant: nothing in this crate reads a clock or a random source, and only `store` does I/O.
//! Invariant: what `decide` yields, `apply` accepts; the fold of a journal equals the state it was decided on.

pub mod cron;
pub mod ids;
pub mod large;
pub mod limits;
pub mod machines;
pub mod outward;
pub mod priority;
pub mod record;
pub mod replay;
pub mod request;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod tasks;
pub mod wire;

mod draft;

pub use machines::{Context, Illegal, apply, apply_sized, decide};
