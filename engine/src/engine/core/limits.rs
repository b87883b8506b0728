//! Limits of runs, as operators see them: a warning before, a count and a reason when one is reached.
//!
//! Invariant: a run that reaches a limit never just stops: its request is refused, its workflow task fails, or it ends with the reason.

use orchestrion_history::Context;
use orchestrion_history::decide;
use orchestrion_history::limits::Limits;
use orchestrion_history::record::Record;
use orchestrion_history::request::{
    Rejection, Reply, Request, RequestCancelWorkflow, TerminateWorkflow,
};
use orchestrion_history::state::MutableState;
use orchestrion_proto::temporal::api::enums::v1::WorkflowTaskFailedCause as Cause;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;

use crate::engine::builtin;
use crate::engine::handle::CallError;
use crate::engine::round::{Round, RunKey};

use super::{Core, Execution};

/// How large a history is.
#[derive(Clone, Copy)]
pub(super) struct Size {
    events: i64,
    bytes: u64,
}

impl Size {
    pub(super) fn of(state: &MutableState) -> Self {
        Self {
            events: state.next_event_id - 1,
            bytes: state.history_bytes,
        }
    }

    /// Warns of what was passed since.
    fn warn(self, execution: &Execution, limits: &Limits) {
        let now = Self::of(&execution.state);
        let passed = [
            (
                "history_events_warn",
                self.events < limits.history_events_warn
                    && now.events >= limits.history_events_warn,
            ),
            (
                "history_bytes_warn",
                self.bytes < limits.history_bytes_warn && now.bytes >= limits.history_bytes_warn,
            ),
            (
                "request_bytes_warn",
                now.bytes.saturating_sub(self.bytes) > limits.request_bytes_warn,
            ),
        ];
        for (limit, _) in passed.into_iter().filter(|(_, passed)| *passed) {
            tracing::warn!(
                limit,
                workflow_id = %execution.workflow_id,
                workflow_type = %execution.state.workflow_type,
                events = now.events,
                bytes = now.bytes,
                added_bytes = now.bytes.saturating_sub(self.bytes),
                "a run grows large: continue as new, or pass references instead of data"
            );
            metrics::counter!("orchestrion_limit_warnings_total", "limit" => limit).increment(1);
        }
    }
}

/// Counts a limit that was reached.
pub(super) fn reached(limit: &'static str) {
    metrics::counter!("orchestrion_limits_reached_total", "limit" => limit).increment(1);
}

/// Counts a refusal that is because of a limit.
pub(super) fn refused(rejection: &Rejection) {
    if let Rejection::Limit { what, .. } = rejection {
        reached(what);
    }
}

/// Counts a workflow task that failed because of a limit.
pub(super) fn failed_task(reply: &Reply) {
    let Reply::TaskFailed { cause, .. } = reply else {
        return;
    };
    match cause {
        Cause::PendingActivitiesLimitExceeded => reached("pending activities"),
        Cause::PendingChildWorkflowsLimitExceeded => reached("pending children"),
        Cause::PendingSignalsLimitExceeded => reached("pending signals"),
        Cause::PendingRequestCancelLimitExceeded => reached("pending cancels"),
        Cause::PayloadsTooLarge => reached("command bytes"),
        _ => {}
    }
}

/// Counts a workflow task that failed because too much waited for its end.
pub(super) fn forced(records: &[Record]) {
    let full = records.iter().filter_map(Record::event).any(|event| {
        matches!(
            &event.attributes,
            Some(Attributes::WorkflowTaskFailedEventAttributes(failed))
                if failed.cause() == Cause::ForceCloseCommand
        )
    });
    if full {
        reached("buffered events");
    }
}

impl Core {
    /// A run whose journal has grown to a limit ends, and says why: it never just stops. A built-in run first undoes what it did; at twice
    /// the limit it is terminated like any other.
    pub(super) fn hold_limits(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        before: Size,
    ) -> Result<(), CallError> {
        let limits = &self.options.limits;
        let Some(execution) = self.executions.get(run) else {
            return Ok(());
        };
        let state = &execution.state;
        before.warn(execution, limits);
        let events = state.next_event_id - 1;
        let over = |times: u64| {
            events.unsigned_abs() >= limits.history_events_max.unsigned_abs() * times
                || state.history_bytes >= limits.history_bytes_max * times
                || state.note_bytes >= limits.note_bytes_max * times
        };
        if !over(1) || !state.is_running() {
            return Ok(());
        }
        let reason = format!(
            "history limit reached: {events} events of {} bytes and {} bytes of notes; at most {}, {} and {} are allowed",
            state.history_bytes,
            state.note_bytes,
            limits.history_events_max,
            limits.history_bytes_max,
            limits.note_bytes_max
        );
        let gently = execution.interpreter.is_some() && !over(2);
        if gently && state.cancel_requested.is_some() {
            return Ok(());
        }
        tracing::warn!(workflow_id = %execution.workflow_id, %reason, gently, "a run has grown too large");
        reached("history");
        let identity = "orchestrion".to_owned();
        let request = if gently {
            Request::RequestCancel(Box::new(RequestCancelWorkflow {
                reason,
                identity,
                ..RequestCancelWorkflow::default()
            }))
        } else {
            Request::Terminate(Box::new(TerminateWorkflow {
                reason,
                details: None,
                identity,
            }))
        };
        let context = Context::new(round.now, limits);
        let transition = decide(state, &context, &request)?;
        self.advance(round, run, transition.records)?;
        builtin::take_turns(self, round, run)
    }
}
