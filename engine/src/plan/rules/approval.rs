//! `a requires approval by b`: nobody runs `a` unless a task of `b` has completed. Without `by`, `b` is any service called `approval`,
//! `approval-…` or `…-approval`.

use super::{Counterexample, Patterns, Subject};

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// What needs it.
    pub of: Patterns,
    /// Who gives it.
    pub by: Patterns,
}

impl Approval {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        let approvals = subject.tasks_of(&self.by);
        let task = subject
            .tasks_of(&self.of)
            .into_iter()
            .find(|&task| !is_approved(subject, &approvals, task))?;
        let text = match approvals.first() {
            None => format!(
                "{} runs unapproved: plan a task of {} and use what it returns",
                subject.name(task),
                self.by
            ),
            Some(&approval) => format!(
                "{} does not wait for the approval {}: use what that returns in its input",
                subject.name(task),
                subject.name(approval)
            ),
        };
        Some(subject.counterexample(&[task], text))
    }
}

/// Whether one of these has completed before the task starts.
pub(super) fn is_approved(subject: &Subject<'_>, approvals: &[usize], task: usize) -> bool {
    let mut approvals = approvals.iter();
    approvals.any(|&approval| approval != task && subject.graph.is_before(approval, task))
}
