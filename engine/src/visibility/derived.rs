//! Search attributes that nobody gives: what the engine says by them of a run that is open.
//!
//! `TemporalReportedProblems` names why its workflow tasks keep failing, `TemporalPauseInfo` what of it is paused; both are gone when that is.

use std::collections::BTreeSet;

use orchestrion_history::state::{MutableState, Problem};
use orchestrion_history::wire::camel_case;
use orchestrion_proto::temporal::api::common::v1::Payload;
use orchestrion_proto::temporal::api::enums::v1::WorkflowTaskFailedCause;

/// What is derived of a run's state; mostly nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Derived {
    problem: Option<Problem>,
    pauses: BTreeSet<String>,
}

impl Derived {
    /// Of a state as it is now.
    pub fn of(state: &MutableState) -> Self {
        let mut pauses = BTreeSet::new();
        if !state.is_running() {
            return Self::default();
        }
        if let Some(pause) = &state.paused {
            pauses.insert(format!("Workflow:{}", state.workflow_id));
            pauses.insert(format!("Reason:{}", pause.reason));
        }
        if state.activities_paused > 0 {
            let paused = state.activities.values();
            let paused = paused.filter(|activity| activity.paused.is_some());
            pauses.extend(paused.map(|of| format!("property:activityType={}", of.activity_type)));
        }
        Self {
            problem: state.problem,
            pauses,
        }
    }

    /// The attributes, by name.
    pub fn attributes(&self) -> impl Iterator<Item = (String, Payload)> + '_ {
        let problem = self.problem.map(|problem| {
            let (category, cause) = match problem {
                Problem::Failed(cause) => {
                    let cause = WorkflowTaskFailedCause::try_from(cause).unwrap_or_default();
                    ("WorkflowTaskFailed", camel_case(cause.as_str_name()))
                }
                Problem::TimedOut => (
                    "WorkflowTaskTimedOut",
                    "WorkflowTaskTimedOutCauseStartToClose".to_owned(),
                ),
            };
            let said = [format!("category={category}"), format!("cause={cause}")];
            ("TemporalReportedProblems".to_owned(), keywords(&said))
        });
        let pauses = (!self.pauses.is_empty()).then(|| {
            let said: Vec<String> = self.pauses.iter().cloned().collect();
            ("TemporalPauseInfo".to_owned(), keywords(&said))
        });
        problem.into_iter().chain(pauses)
    }
}

fn keywords(values: &[String]) -> Payload {
    let metadata = [("encoding", "json/plain"), ("type", "KeywordList")];
    Payload {
        metadata: metadata
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .collect(),
        data: serde_json::to_vec(values).unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_named_as_temporal_names_it() {
        let derived = Derived {
            problem: Some(Problem::Failed(
                WorkflowTaskFailedCause::NonDeterministicError.into(),
            )),
            pauses: BTreeSet::new(),
        };
        let attributes: Vec<_> = derived.attributes().collect();
        assert_eq!(attributes.len(), 1);
        let (name, payload) = &attributes[0];
        assert_eq!(name, "TemporalReportedProblems");
        assert_eq!(
            String::from_utf8_lossy(&payload.data),
            r#"["category=WorkflowTaskFailed","cause=WorkflowTaskFailedCauseNonDeterministicError"]"#
        );
    }

    #[test]
    fn of_a_run_as_most_are_nothing_is_derived() {
        assert_eq!(Derived::of(&MutableState::default()), Derived::default());
        assert_eq!(Derived::default().attributes().count(), 0);
    }
}
