//! `a is irreversible`: nothing but other such tasks comes after `a`, unless an approval came before it. What fails later could not be
//! undone together with it.

use super::approval::is_approved;
use super::{Counterexample, Patterns, Subject};

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Irreversible {
    /// What cannot be undone.
    pub of: Patterns,
    /// Who may allow it earlier.
    pub approved_by: Patterns,
}

impl Irreversible {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        let irreversible = subject.tasks_of(&self.of);
        let approvals = subject.tasks_of(&self.approved_by);
        let ways = irreversible
            .iter()
            .filter(|&&task| !is_approved(subject, &approvals, task));
        let way = ways
            .filter_map(|&task| {
                subject
                    .graph
                    .way(task, |later| irreversible.binary_search(&later).is_err())
            })
            .min_by_key(Vec::len)?;
        let names: Vec<_> = way.iter().map(|&task| subject.name(task)).collect();
        let text = format!(
            "it is followed by other work: {}; put it last, or plan a task of {} before it",
            names.join(" -> "),
            self.approved_by
        );
        Some(subject.counterexample(&way, text))
    }
}
