//! `at most 2 a`: no plan has more tasks of `a`.

use super::{Counterexample, Patterns, Subject};

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// How many are allowed.
    pub max: usize,
    /// Of what.
    pub of: Patterns,
}

impl Count {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        let tasks = subject.tasks_of(&self.of);
        let smallest = tasks.get(..=self.max)?;
        let names: Vec<_> = smallest.iter().map(|&task| subject.name(task)).collect();
        let text = format!("there are {} of them: {}", tasks.len(), names.join(", "));
        Some(subject.counterexample(smallest, text))
    }
}
