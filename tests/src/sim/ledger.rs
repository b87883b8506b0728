//! What the world outside knows: what it asked for, what it was told, what it holds. The invariants compare it with the journals.
//!
//! Whatever is asked carries a mark of its own (`#17#`), which any record that comes of it carries too.
//!
//! Invariant: the ledger is written by those outside only, when they learn something.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion::engine::CallError;
use orchestrion_history::ids::{Namespace, RunId, Timestamp};

use super::holds::Holds;
use super::operators::Operated;
use super::script::Script;

/// One run of a tenant.
pub type Run = (Namespace, RunId);

/// What its askers know of a mark.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// A run that was told to hold it.
    pub accepted: Option<Run>,
    /// It is still under way.
    pub under_way: bool,
    /// Somebody who asked will never know what became of it.
    pub lost: bool,
    /// At least one asker was refused.
    pub refused: bool,
    /// What was asked, for people.
    pub what: &'static str,
}

/// An execution that was asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its tenant.
    pub namespace: Namespace,
    /// What its code does; none is an orchestration.
    pub script: Option<Script>,
    /// The run, once a caller was told of it.
    pub run: Option<RunId>,
}

/// An attempt that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub attempt: i32,
    /// In which life of the engine it was handed out.
    pub life: u64,
    /// The connection it came on; none is a poll.
    pub session: Option<u64>,
}

/// An answer to a workflow task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The event that scheduled the task.
    pub scheduled_event_id: i64,
    /// The last event that the worker had when it made the answer.
    pub seen: i64,
}

/// What those outside know.
#[derive(Debug, Default)]
pub struct Ledger {
    marks: u64,
    /// By mark.
    pub asked: BTreeMap<String, Asked>,
    /// Marks whose fate was told since the last look.
    pub news: BTreeSet<String>,
    /// By workflow id.
    pub executions: BTreeMap<String, Wanted>,
    /// What each answer to a workflow task was made of, by mark.
    pub turns: BTreeMap<String, Turn>,
    /// Reverts that somebody was told would be run again: tenant, record, execution.
    pub retries: BTreeSet<(Namespace, String, String)>,
    /// Descriptions of services that their owners were told are registered, by tenant and service: which, and since when.
    pub described: BTreeMap<(Namespace, String), Vec<(u64, Timestamp)>>,
    /// Plans of a tenant that somebody was told are forgotten: what was kept before the first moment, from the second on.
    pub forgotten: Vec<(Namespace, Timestamp, Timestamp)>,
    /// What operators hold back.
    pub holds: Holds,
    /// What operators were granted of activities, by mark.
    pub operated: BTreeMap<String, Operated>,
    /// By tenant, run and scheduling event.
    pub holders: BTreeMap<(Namespace, RunId, i64), Held>,
    /// Workflow ids that somebody was told are out of service.
    pub quarantined: BTreeSet<String>,
    /// What somebody outside saw that must not be.
    pub complaints: Vec<(&'static str, String)>,
}

impl Ledger {
    /// A mark for something that is about to be asked.
    pub fn mark(&mut self, what: &'static str) -> String {
        self.marks += 1;
        let mark = format!("#{}#", self.marks);
        self.asked.insert(
            mark.clone(),
            Asked {
                what,
                under_way: true,
                ..Asked::default()
            },
        );
        mark
    }

    /// The same is asked once more: what was told before is not the last word.
    pub fn asks_again(&mut self, mark: &str) {
        if let Some(asked) = self.asked.get_mut(mark) {
            asked.under_way = true;
        }
    }

    /// The asker was told yes.
    pub fn accepted(&mut self, mark: &str, run: Run) {
        if let Some(asked) = self.asked.get_mut(mark) {
            asked.accepted = Some(run);
            self.news.insert(mark.to_owned());
        }
    }

    /// The asker was told no: nothing of it may be kept.
    pub fn refused(&mut self, mark: &str) {
        if let Some(asked) = self.asked.get_mut(mark) {
            asked.refused = true;
        }
    }

    /// Nobody asks with this mark any more; `known`: every asker was answered.
    pub fn settled(&mut self, mark: &str, known: bool) {
        if let Some(asked) = self.asked.get_mut(mark) {
            asked.under_way = false;
            asked.lost |= !known;
            self.news.insert(mark.to_owned());
        }
    }

    /// Something that must not be.
    pub fn complain(&mut self, invariant: &'static str, what: String) {
        self.complaints.push((invariant, what));
    }
}

/// Whether an answer says that nothing of the request is kept.
pub fn is_refusal(error: &CallError) -> bool {
    !matches!(error, CallError::ShuttingDown)
}

/// The marks in some bytes.
pub fn marks_in(bytes: &[u8]) -> impl Iterator<Item = String> {
    let mut marks = Vec::new();
    let mut rest = bytes;
    while let Some(start) = rest.iter().position(|byte| *byte == b'#') {
        rest = &rest[start + 1..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && rest.get(digits) == Some(&b'#') {
            marks.push(format!("#{}#", String::from_utf8_lossy(&rest[..digits])));
            rest = &rest[digits + 1..];
        }
    }
    marks.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_they_stand() {
        let found: Vec<String> = marks_in(b"a#1#b##22#3#4 #5").collect();
        assert_eq!(found, ["#1#", "#22#"]);
    }
}
