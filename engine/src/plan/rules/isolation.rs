//! `parameters stay in their case`: what the caller sent under the name of another use case's parameter is no input here.

use super::reach::constants_of;
use super::{Counterexample, Subject};

/// A parameter that belongs to other cases alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignParameter {
    /// Its name.
    pub name: String,
    /// The action of the case it belongs to.
    pub case: String,
}

pub(super) fn broken_by(subject: &Subject<'_>) -> Option<Counterexample> {
    let given = |name: &str| subject.data.iter().any(|parameter| parameter.field == name);
    let tasks = subject.plan.tasks.iter().enumerate();
    let (at, foreign) = tasks.into_iter().find_map(|(at, task)| {
        let foreign = constants_of(task).find_map(|constant| {
            let mut foreign = subject.ruling.foreign_parameters.iter();
            foreign.find(|foreign| foreign.name == constant && given(&constant))
        })?;
        Some((at, foreign))
    })?;
    let text = format!(
        "{} uses `{}`, a parameter of the case {:?}",
        subject.name(at),
        foreign.name,
        foreign.case
    );
    Some(subject.counterexample(&[at], text))
}
