//! The workflow code of a revert that is run again by itself: one activity, and its outcome.
//!
//! ```text
//!  Wanted   --turn------------------------------------> Asked     ActivityTaskScheduled revert:<task>
//!  Asked    --the activity closed---------------------> Answered
//!           --cancel requested, once------------------> Asked     ActivityTaskCancelRequested
//!  Answered --turn: completed, partial----------------> Closed    WorkflowExecutionCompleted
//!           --turn: failed, expired, unknown----------> Closed    WorkflowExecutionFailed
//! ```
//!
//! Invariant: it has no effects: whoever asked for it reads its end.

use std::collections::HashMap;

use orchestrion_proto::temporal::api::common::v1::{Header, Payload, Payloads};
use serde_json::Value;

use super::{Closed, DOUBLING, Draft, Interpreter, Node, Phase, commands};
use crate::orchestration::outcome::{RevertOutcome, RevertStatus};
use crate::orchestration::revert::{RevertAgain, told};
use crate::orchestration::submission::json_payload;
use crate::orchestration::{COMPENSATION_HEADER, IDEMPOTENCY_HEADER};

/// Where the revert stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Again {
    asked: RevertAgain,
    data: Payload,
    context: Payload,
    stage: Stage,
    cancel: Cancel,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Wanted,
    /// By its scheduling event, once that is written.
    Asked(Option<i64>),
    Answered(RevertOutcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    Wanted,
    Requested,
}

impl Again {
    pub(super) fn read(input: Option<&Payloads>) -> Result<Self, String> {
        let (asked, data, context) = RevertAgain::read(input).map_err(|bad| bad.to_string())?;
        Ok(Self {
            asked,
            data,
            context,
            stage: Stage::Wanted,
            cancel: Cancel::No,
        })
    }

    pub(super) fn options(&self) -> &crate::orchestration::Options {
        &self.asked.options
    }

    pub(super) fn scheduled(&mut self, event_id: i64) {
        self.stage = Stage::Asked(Some(event_id));
    }

    pub(super) fn cancel_requested(&mut self) {
        if self.cancel == Cancel::No {
            self.cancel = Cancel::Wanted;
        }
    }

    pub(super) fn close(&mut self, closed: &Closed<'_>) {
        self.stage = Stage::Answered(match *closed {
            Closed::Completed(result) => RevertOutcome::of_result(result),
            Closed::Failed(failure, retry_state) => RevertOutcome::of_failure(failure, retry_state),
            Closed::TimedOut(failure, _) => RevertOutcome::of_timeout(failure),
            Closed::Canceled => canceled(),
        });
    }
}

fn canceled() -> RevertOutcome {
    RevertOutcome::new(RevertStatus::Failed, "the revert was canceled".to_owned())
}

impl Interpreter {
    pub(super) fn decide_again(&mut self, mut again: Box<Again>, draft: &mut Draft) {
        match &again.stage {
            Stage::Wanted if again.cancel != Cancel::No => {
                return self.end_again(&canceled(), draft);
            }
            Stage::Wanted => {
                draft.push_node(self.ask_again(&again), Node::RevertAgain);
                again.stage = Stage::Asked(None);
            }
            Stage::Asked(Some(event_id)) if again.cancel == Cancel::Wanted => {
                draft.push(commands::request_cancel(*event_id));
                again.cancel = Cancel::Requested;
            }
            Stage::Asked(_) => {}
            Stage::Answered(outcome) => {
                let outcome = outcome.clone();
                return self.end_again(&outcome, draft);
            }
        }
        self.phase = Phase::Again(again);
    }

    fn ask_again(&self, again: &Again) -> super::Command {
        let (asked, o) = (&again.asked, &self.options);
        let mut fields = HashMap::from([(COMPENSATION_HEADER.to_owned(), again.context.clone())]);
        if !asked.idempotency_key.is_empty() {
            fields.insert(
                IDEMPOTENCY_HEADER.to_owned(),
                json_payload(&asked.idempotency_key),
            );
        }
        commands::schedule(commands::Activity {
            id: asked.activity_id(),
            kind: asked.activity_type(),
            queue: asked.service.clone(),
            input: Some(Payloads {
                payloads: vec![again.data.clone()],
            }),
            header: Some(Header { fields }),
            start_to_close_ms: o.compensation_timeout_ms,
            schedule_to_close_ms: Some(asked.time_ms.max(1)),
            retry: commands::retry(
                o.compensation_attempts,
                o.compensation_initial_ms,
                DOUBLING,
                o.compensation_max_ms,
                &[],
            ),
        })
    }

    fn end_again(&mut self, outcome: &RevertOutcome, draft: &mut Draft) {
        let said: Value = told(outcome);
        let memo = HashMap::from([("status".to_owned(), json_payload(outcome.status.as_str()))]);
        draft.push(commands::upsert_memo(memo));
        draft.push(if outcome.status.needs_attention() {
            let text = outcome.error.clone().unwrap_or_default();
            let message = format!("the revert is {}: {text}", outcome.status);
            commands::fail("RevertFailed", message, Some(&said))
        } else {
            commands::complete(&[said])
        });
        self.phase = Phase::Closed;
    }
}
