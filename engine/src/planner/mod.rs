//! Planners: from an action in plain language to a validated plan.
//!
//! ```text
//!  PlanRequest {action, data, services, feedback} --plan_once--> Planned {Plan | not actionable} | PlanError
//! ```
//!
//! One call is one attempt: whoever calls records what came of it and asks again with the reasons as feedback if that may help.
//!
//! Invariant: nothing here remembers an action, its data or an answer; two requests never share values.

pub mod builtin;
pub mod llm;
mod prompt;

use serde::{Deserialize, Serialize};

use crate::grounding::Hit;
use crate::plan::draft::DraftError;
use crate::plan::rules::Ruling;
use crate::plan::{self, Parameter, Plan, Reason, Service};

/// What is to be planned.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// What is wanted, in plain language.
    pub action: &'a str,
    /// The values the caller sent with it.
    pub data: &'a [Parameter],
    /// The services there are.
    pub services: &'a [Service],
    /// The use case it is, and the rules its plan must keep.
    pub grounding: Option<&'a Hit>,
    /// What was wrong with the attempt before, from [`PlanError::feedback`].
    pub feedback: Option<&'a str>,
    /// The first attempt is 1.
    pub attempt: u32,
}

impl PlanRequest<'_> {
    /// What its plan is judged by.
    pub fn ruling(&self) -> Option<&Ruling> {
        self.grounding.map(|hit| &hit.ruling)
    }
}

/// What a planner says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A plan that is valid.
    Planned(Plan),
    /// The action cannot be done with these services and data, and why.
    NotActionable(String),
}

/// An answer and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What was said.
    pub answer: Answer,
    /// Who said it.
    pub model: String,
    /// SHA-256 of the prompt, in lower-case hex; empty if there was none.
    pub prompt_digest: String,
    /// Tokens of the prompt, as the model's server counts them.
    pub prompt_tokens: u64,
    /// Tokens of the answer, thinking included.
    pub completion_tokens: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// The attempt that succeeded.
    pub tries: u32,
}

/// What asking cost, whether or not an answer came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Who was asked.
    pub model: String,
    /// SHA-256 of the prompt, in lower-case hex; empty if there was none.
    pub prompt_digest: String,
    /// Tokens of the prompt, as far as the model's server told them.
    pub prompt_tokens: u64,
    /// Tokens of the answer, as far as the model's server told them.
    pub completion_tokens: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Which attempt it was, from 1.
    pub tries: u32,
}

/// An attempt that brought no answer, and what it cost all the same.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct FailedAttempt {
    /// Why.
    #[source]
    pub error: PlanError,
    /// What it cost.
    pub cost: Cost,
}

/// Why an attempt brought no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The plan is not valid.
    #[error("the plan is not valid: {}", plan::describe(.reasons))]
    Invalid {
        /// Everything that is wrong with it.
        reasons: Vec<Reason>,
    },
    /// The answer is no plan.
    #[error("the planner's answer is no plan: {0}")]
    Malformed(String),
    /// The answer is empty.
    #[error("the planner's answer is empty")]
    Empty,
    /// There was no answer in time.
    #[error("the planner did not answer within {limit_ms} ms")]
    TimedOut {
        /// How long it had.
        limit_ms: u64,
    },
    /// The model's server cannot answer now.
    #[error("the planner is not available: {0}")]
    Unavailable(String),
    /// The model's server will not answer this, now or later; the text says what to change.
    #[error("the planner refused: {0}")]
    Refused(String),
}

impl PlanError {
    /// Whether another attempt may bring an answer.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid { .. }
            | Self::Malformed(_)
            | Self::Empty
            | Self::TimedOut { .. }
            | Self::Unavailable(_) => true,
            Self::Refused(_) => false,
        }
    }

    /// What the next attempt should know.
    pub fn feedback(&self) -> Option<String> {
        match self {
            Self::Invalid { reasons } => Some(plan::describe(reasons)),
            Self::Malformed(text) => Some(text.clone()),
            Self::Empty => Some("the answer was empty".to_owned()),
            Self::TimedOut { .. } | Self::Unavailable(_) | Self::Refused(_) => None,
        }
    }
}

impl From<DraftError> for PlanError {
    fn from(error: DraftError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A planner.
#[derive(Debug)]
pub enum Planner {
    /// The one that needs nothing.
    Builtin(builtin::BuiltinPlanner),
    /// A model.
    Llm(Box<llm::LlmPlanner>),
}

impl Planner {
    /// Who plans: the model, or `builtin`.
    pub fn model(&self) -> &str {
        match self {
            Self::Builtin(_) => builtin::MODEL,
            Self::Llm(planner) => planner.model(),
        }
    }

    /// Plans once: at most one answer of a model.
    pub async fn plan_once(&self, request: PlanRequest<'_>) -> Result<Planned, FailedAttempt> {
        match self {
            Self::Builtin(planner) => Ok(planner.plan(request)),
            Self::Llm(planner) => planner.plan(request).await,
        }
    }
}
