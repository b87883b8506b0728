//! `must use a`: every plan has a task of `a`.

use super::{Counterexample, Patterns, Subject};

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obligation {
    /// What must be there.
    pub of: Patterns,
}

impl Obligation {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        if subject
            .plan
            .tasks
            .iter()
            .any(|task| self.of.stand_for(task))
        {
            return None;
        }
        let text = format!("no task of {} is planned", self.of);
        Some(subject.counterexample(&[], text))
    }
}
