//! The wires. Each is a thin translation: parse, one call of the engine's door, map the answer.
//!
//! Invariant: no wire decides anything about an execution; what it refuses, it refuses before the engine hears of it.

pub mod access;
pub mod orra;
pub mod temporal;
pub mod v1;
pub mod work;
pub mod worker;
