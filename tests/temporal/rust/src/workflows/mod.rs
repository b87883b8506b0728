//! The workflows, by what they are about.

pub mod chains;
pub mod control;
pub mod load;
pub mod steps;
pub mod waits;
