//! `a before b`: where both are planned, every `b` comes after every `a`.

use super::{Counterexample, Patterns, Subject};

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What comes first.
    pub first: Patterns,
    /// What comes after it.
    pub then: Patterns,
}

impl Order {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        let (first, then) = (subject.tasks_of(&self.first), subject.tasks_of(&self.then));
        let pairs = then
            .iter()
            .flat_map(|&then| first.iter().map(move |&first| (first, then)));
        let (first, then) = pairs
            .filter(|(first, then)| first != then)
            .find(|&(first, then)| !subject.graph.is_before(first, then))?;
        let (a, b) = (subject.name(first), subject.name(then));
        let text = if subject.graph.is_before(then, first) {
            format!("{b} runs before {a}")
        } else {
            format!("nothing makes {b} wait for {a}: use a value that {a} returns in its input")
        };
        Some(subject.counterexample(&[first, then], text))
    }
}
