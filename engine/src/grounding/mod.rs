//! Groundings: what a project's actions may be, and the rules their plans must keep.
//!
//! ```text
//!  POST /groundings --Grounding::new--> kept by the registry, versioned, with a digest
//!  an action --Matcher::find--> Hit (use case, rules, who offers which capability) | NoHit
//!  Hit --> the prompt, and the Ruling that every plan is checked against (plan::rules)
//!      --> Applied: recorded with the plan
//! ```
//!
//! A project without groundings plans anything. One grounding makes an allow-list: an action that is like none of the use cases is not
//! planned.
//!
//! Invariant: what is kept has been checked by [`Grounding::new`]; a rule that is not understood is never kept.

mod asked;
mod hit;
mod matching;
mod spec;
#[cfg(test)]
mod tests;

pub use self::asked::Asked;
pub use self::hit::{Applied, Hit};
pub use self::matching::{Matcher, NoHit, Thresholds};
pub use self::spec::{Fault, Grounding, Spec, UseCase};

/// Groundings of one project.
pub const GROUNDINGS_PER_PROJECT_MAX: usize = 100;
