//! `never a with b`: a plan that has one of them does not have the other.

use super::{Counterexample, Patterns, Subject};

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// The one.
    pub one: Patterns,
    /// The other.
    pub other: Patterns,
}

impl Exclusion {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        let others = subject.tasks_of(&self.other);
        let pairs = subject
            .tasks_of(&self.one)
            .into_iter()
            .flat_map(|one| others.iter().map(move |&other| (one, other)));
        let (one, other) = pairs.into_iter().find(|(one, other)| one != other)?;
        let text = format!(
            "both {} and {} are planned",
            subject.name(one),
            subject.name(other)
        );
        Some(subject.counterexample(&[one, other], text))
    }
}
