//! `parameter p only reaches a`: no other task is given the value of `p`, by reference, through another constant, or written out.

use serde_json::Value;

use super::{Counterexample, Patterns, Subject};
use crate::plan::PlanTask;
use crate::plan::reference::{Segment, is_task_zero, references};

/// Characters of the shortest text that is looked for inside others.
const TELLING_CHARS_MIN: usize = 4;

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The parameter.
    pub parameter: String,
    /// Who may have it.
    pub to: Patterns,
}

impl Reach {
    pub(super) fn broken_by(&self, subject: &Subject<'_>) -> Option<Counterexample> {
        let task_zero = &subject.plan.task_zero;
        let value = task_zero.get(&self.parameter);
        let carries = |constant: &str| {
            constant == self.parameter
                || task_zero
                    .get(constant)
                    .zip(value)
                    .is_some_and(|(other, value)| holds(other, value))
        };
        let tasks = subject.plan.tasks.iter().enumerate();
        let (at, how) = tasks
            .filter(|(_, task)| !self.to.stand_for(task))
            .find_map(|(at, task)| {
                if let Some(constant) = constants_of(task).find(|constant| carries(constant)) {
                    return Some((at, format!("refers to `$task0.{constant}`")));
                }
                let written =
                    value.is_some_and(|value| task.input.values().any(|input| holds(input, value)));
                written.then(|| (at, "has its value written into its input".to_owned()))
            })?;
        let text = format!("{} {how}", subject.name(at));
        Some(subject.counterexample(&[at], text))
    }
}

/// The constants that a task refers to.
pub(super) fn constants_of(task: &PlanTask) -> impl Iterator<Item = String> {
    let found = references(&task.input, &is_task_zero);
    found
        .into_iter()
        .filter(|found| is_task_zero(&found.reference.task))
        .filter_map(|found| match found.reference.path.into_iter().next() {
            Some(Segment::Field(field)) => Some(field),
            _ => None,
        })
}

/// Whether a value is, or has somewhere inside, another one. Short texts, small numbers, truth values and null are too common to tell.
fn holds(inside: &Value, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => return false,
        Value::Number(number) if number.to_string().len() < TELLING_CHARS_MIN => return false,
        Value::String(text) if text.chars().count() < TELLING_CHARS_MIN => return false,
        _ => {}
    }
    if inside == value {
        return true;
    }
    match (inside, value) {
        (Value::String(inside), Value::String(text)) => inside.contains(text.as_str()),
        (Value::String(inside), Value::Number(number)) => inside.contains(&number.to_string()),
        (Value::Array(elements), _) => elements.iter().any(|element| holds(element, value)),
        (Value::Object(members), _) => members.values().any(|member| holds(member, value)),
        _ => false,
    }
}
