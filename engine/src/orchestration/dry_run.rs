//! Planning without running: the attempts a submission would make, with nothing kept, recorded or started.
//!
//! Invariant: an attempt is told what was wrong with the one before, as in a real planning; so a dry run fails where that one would.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use orchestrion_history::ids::Namespace;
use serde_json::Value;

use super::desk::{Desk, Wanted};
use super::submission::{PlanningOutcome, PlanningResult};
use crate::grounding::{Grounding, UseCase};
use crate::plan::{Parameter, Plan};
use crate::planner::{FailedAttempt, PlanError};

/// Use cases of a grounding that are planned at once.
const TRIED_AT_ONCE: usize = 4;

/// What came of the attempts to plan an action.
#[derive(Debug)]
pub struct Tried {
    /// The last one's answer, or why there was none.
    pub outcome: Outcome,
    /// Who was asked; empty if nobody was.
    pub model: String,
    /// How often.
    pub attempts: u32,
    /// Tokens read in all attempts.
    pub prompt_tokens: u64,
    /// Tokens written in all attempts.
    pub completion_tokens: u64,
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a valid plan.
    Planned(Plan),
    /// The planner says that it cannot be done, and why.
    NotActionable(String),
    /// Without a plan.
    Failed(PlanError),
}

/// A use case that was tried out with its example values.
#[derive(Debug)]
pub struct TriedCase {
    /// The action, with the values in place.
    pub action: String,
    /// The values.
    pub data: Vec<Parameter>,
    /// What came of it.
    pub tried: Tried,
}

impl Desk {
    /// Plans an action under these groundings, in as many attempts as it takes and is allowed.
    pub async fn dry_run(
        &self,
        project: &Namespace,
        groundings: &[Arc<Grounding>],
        (action, data): (&str, &[Parameter]),
        attempts_max: u32,
    ) -> Tried {
        let mut feedback: Option<String> = None;
        let (mut attempts, mut prompt_tokens, mut completion_tokens) = (1, 0, 0);
        let (outcome, model) = loop {
            let wanted = Wanted {
                action,
                data,
                feedback: feedback.as_deref(),
                attempt: attempts,
            };
            match self.try_out(project, groundings, wanted).await {
                Ok(result) => {
                    prompt_tokens += result.prompt_tokens;
                    completion_tokens += result.completion_tokens;
                    break outcome(result);
                }
                Err(FailedAttempt { error, cost }) => {
                    prompt_tokens += cost.prompt_tokens;
                    completion_tokens += cost.completion_tokens;
                    if attempts >= attempts_max || !error.is_retryable() {
                        break (Outcome::Failed(error), cost.model);
                    }
                    feedback = error.feedback();
                    attempts += 1;
                }
            }
        };
        Tried {
            outcome,
            model,
            attempts,
            prompt_tokens,
            completion_tokens,
        }
    }

    /// Plans every use case of a grounding as if it alone were in force.
    pub async fn dry_run_cases(
        &self,
        project: &Namespace,
        grounding: &Arc<Grounding>,
        attempts_max: u32,
    ) -> Vec<TriedCase> {
        let mut cases = Vec::new();
        for case in &grounding.spec.use_cases {
            cases.push(self.dry_run_case(project, grounding, case, attempts_max));
        }
        stream::iter(cases).buffered(TRIED_AT_ONCE).collect().await
    }

    async fn dry_run_case(
        &self,
        project: &Namespace,
        grounding: &Arc<Grounding>,
        case: &UseCase,
        attempts_max: u32,
    ) -> TriedCase {
        let action = case.example();
        let values = case.params.iter();
        let data: Vec<Parameter> = values
            .map(|(name, value)| Parameter {
                field: name.clone(),
                value: Value::from(value.as_str()),
            })
            .collect();
        let alone = std::slice::from_ref(grounding);
        let tried = self
            .dry_run(project, alone, (&action, &data), attempts_max)
            .await;
        TriedCase {
            action,
            data,
            tried,
        }
    }

    /// What looks like a mistake in a grounding and is none for sure: rules that are about no registered service.
    pub fn doubts(&self, project: &Namespace, grounding: &Grounding) -> Vec<String> {
        let services = (self.services)(project);
        let mut doubts = Vec::new();
        for line in &grounding.rules.rules {
            for patterns in line.rule.patterns() {
                let known =
                    |service: &crate::plan::Service| patterns.fit(&service.name, &service.id);
                if !services.iter().any(known) {
                    doubts.push(format!(
                        "the rule {:?} names {patterns}, and no registered service is called that",
                        line.text
                    ));
                }
            }
        }
        doubts
    }
}

fn outcome(result: PlanningResult) -> (Outcome, String) {
    let outcome = match (result.outcome, result.plan) {
        (PlanningOutcome::Planned, Some(plan)) => Outcome::Planned(plan),
        _ => Outcome::NotActionable(result.reason.unwrap_or_default()),
    };
    (outcome, result.model)
}
