//! How a plan came about: who was asked, how often, and what it cost, failed attempts included.

use orchestrion_history::ids::Timestamp;
use serde::Serialize;

use super::View;
use crate::grounding::Applied;
use crate::orchestration::effect::rfc3339;
use crate::orchestration::submission::PlanSource;
use crate::planner::Cost;

/// An attempt of a planning that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedPlanning {
    /// When it ended.
    pub at: Timestamp,
    /// Why.
    pub error: String,
    /// What it cost, if anybody was asked.
    pub cost: Option<Cost>,
}

/// A planning, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanningInspection {
    /// Who planned.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// SHA-256 of the prompt that was answered, hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt_digest: String,
    /// Where the plan came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PlanSource>,
    /// Tokens that were not spent because the plan was cached.
    #[serde(skip_serializing_if = "is_zero")]
    pub saved_tokens: u64,
    /// The grounding it was made under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grounding: Option<GroundingInspection>,
    /// What was said of the answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// Attempts that have ended.
    pub tries: usize,
    /// Tokens read in all attempts.
    pub prompt_tokens: u64,
    /// Tokens written in all attempts.
    pub completion_tokens: u64,
    /// What the planner took in all attempts, in milliseconds, waits between them not counted.
    pub duration_ms: u64,
    /// The attempts that brought no answer, oldest first.
    pub failed_attempts: Vec<FailedPlanningInspection>,
}

/// An attempt that brought no answer, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedPlanningInspection {
    /// When it ended, RFC 3339.
    pub timestamp: String,
    /// Why.
    pub error: String,
    /// What it cost, if anybody was asked.
    #[serde(flatten)]
    pub cost: Option<CostInspection>,
}

/// What an attempt cost, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CostInspection {
    /// Who was asked.
    pub model: String,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// A grounding as it was when a plan was checked, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroundingInspection {
    /// The grounding.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of it, hex.
    pub digest: String,
    /// SHA-256 of its constraints, hex.
    pub rules_digest: String,
    /// The action of the use case.
    pub use_case: String,
    /// Rules that the plan was checked against.
    pub enforced: Vec<String>,
    /// Constraints that only the planner was told.
    pub not_enforced: Vec<String>,
    /// Who compared action and use case.
    pub compared_by: String,
}

impl GroundingInspection {
    fn of(applied: &Applied) -> Self {
        Self {
            name: applied.name.clone(),
            version: applied.version.clone(),
            digest: applied.digest.clone(),
            rules_digest: applied.rules_digest.clone(),
            use_case: applied.use_case.action.clone(),
            enforced: applied.enforced.clone(),
            not_enforced: applied.not_enforced.clone(),
            compared_by: applied.compared_by.clone(),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl PlanningInspection {
    pub(super) fn of(view: &View) -> Option<Self> {
        let answered = view.planning.as_ref();
        let failed = &view.failed_plannings;
        if answered.is_none() && failed.is_empty() && view.grounding.is_none() {
            return None;
        }
        let sum = |of: fn(&Cost) -> u64| {
            failed
                .iter()
                .filter_map(|f| f.cost.as_ref())
                .map(of)
                .sum::<u64>()
        };
        Some(Self {
            model: answered.map(|a| a.model.clone()).unwrap_or_default(),
            prompt_digest: answered
                .map(|a| a.prompt_digest.clone())
                .unwrap_or_default(),
            source: answered.map(|a| a.source),
            saved_tokens: answered.map_or(0, |a| a.saved_tokens),
            grounding: view.grounding.as_ref().map(GroundingInspection::of),
            verdict: answered.map(|a| a.verdict.clone()).unwrap_or_default(),
            tries: failed.len() + usize::from(answered.is_some()),
            prompt_tokens: answered.map_or(0, |a| a.prompt_tokens) + sum(|c| c.prompt_tokens),
            completion_tokens: answered.map_or(0, |a| a.completion_tokens)
                + sum(|c| c.completion_tokens),
            duration_ms: answered.map_or(0, |a| a.duration_ms) + sum(|c| c.duration_ms),
            failed_attempts: failed.iter().map(FailedPlanningInspection::of).collect(),
        })
    }
}

impl FailedPlanningInspection {
    fn of(failed: &FailedPlanning) -> Self {
        Self {
            timestamp: rfc3339(failed.at),
            error: failed.error.clone(),
            cost: failed.cost.as_ref().map(|cost| CostInspection {
                model: cost.model.clone(),
                prompt_tokens: cost.prompt_tokens,
                completion_tokens: cost.completion_tokens,
                duration_ms: cost.duration_ms,
            }),
        }
    }
}
