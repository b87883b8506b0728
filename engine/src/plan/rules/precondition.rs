//! `b only after a`: nobody runs `b` unless an `a` has completed.

use super::{Counterexample, Patterns, Subject};

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    /// What needs it.
    pub then: Patterns,
    /// What has to have completed.
    pub first: Patterns,
}

impl Precondition {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        let first = subject.tasks_of(&self.first);
        let then = subject.tasks_of(&self.then).into_iter().find(|&then| {
            !first
                .iter()
                .any(|&first| first != then && subject.graph.is_before(first, then))
        })?;
        let text = format!(
            "{} can start although no task of {} has completed: add one, and use a value that it returns",
            subject.name(then),
            self.first
        );
        Some(subject.counterexample(&[then], text))
    }
}
