//! Between runs: what one run asks of another is done in the round that asked for it, so it is in the same batch.
//!
//! ```text
//!  a run with something to ask (outward) --> the other run's step --> the asker's step, which takes it off
//! ```
//!
//! A round crosses between runs a bounded number of times. What is left, and what could not be done now, stays in the asker's state; such a
//! run is due, so the timer index brings it back, after a restart too.
//!
//! Invariant: what is asked and the record that it was done are in one batch: nobody is asked twice, and a child never runs that its parent
//! does not know of.

use std::time::Duration;

use orchestrion_history::ids::{RunId, Timestamp, WorkflowId};
use orchestrion_history::outward::{self, Destination, Outward};
use orchestrion_history::request::{
    ChildClosed, ChildStartFailed, ChildStarted, CloseFollowed, Delivered, ExecutionRef, Rejection,
    Request, RequestCancelWorkflow, StartWorkflow, TerminateWorkflow, Undeliverable,
};
use orchestrion_history::state::Parent;
use orchestrion_proto::temporal::api::enums::v1::StartChildWorkflowExecutionFailedCause;

use crate::engine::builtin;
use crate::engine::handle::{CallError, Target};
use crate::engine::round::{Round, RunKey};

use super::Core;
use super::start::is_taken;

/// Times a round crosses from one run to another.
const CROSSINGS_PER_ROUND: usize = 256;
/// Bytes of history that crossings may add to a round.
const CROSSED_BYTES_PER_ROUND: usize = 32 * 1024 * 1024;
/// What could not be asked of a run that cannot be read now is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What became of something asked.
enum Crossed {
    /// It is done, or never will be: the asker notes this.
    Noted(Box<Request>),
    /// The other run cannot be read now.
    Later,
}

impl Core {
    /// Does what a run asks of others, as far as this round may.
    pub(super) fn cross(&mut self, round: &mut Round, run: &RunKey) {
        let Some(execution) = self.executions.get(run) else {
            return;
        };
        let mut later = false;
        for id in outward::ids(&execution.state) {
            if round.crossings >= CROSSINGS_PER_ROUND
                || round.crossed_bytes >= CROSSED_BYTES_PER_ROUND
            {
                return; // It is still due: the next round goes on.
            }
            let Some(state) = self.executions.get(run).map(|execution| &execution.state) else {
                return;
            };
            let Some(asked) = outward::get(state, id) else {
                continue;
            };
            let is_closed = state.status.is_closed();
            let before = state.history_bytes;
            round.crossings += 1;
            match self.ask_other(round, run, asked, is_closed) {
                Crossed::Noted(note) => {
                    let noted = self.step(round, run, &note);
                    if matches!(*note, Request::ChildStarted(_)) {
                        // Asked for again after a reset, it may have ended long ago.
                        self.hear_of_children(round, run, vec![id]);
                    }
                    if let Err(error) = noted {
                        tracing::error!(%error, run_id = %run.1, event_id = id, "what was asked of another run cannot be noted");
                        later = true;
                    }
                }
                Crossed::Later => later = true,
            }
            let after = self
                .executions
                .get(run)
                .map_or(0, |execution| execution.state.history_bytes);
            round.crossed_bytes += usize::try_from(after.saturating_sub(before)).unwrap_or(0);
        }
        if later && let Some(execution) = self.executions.get(run) {
            round
                .ask_again
                .push((run.clone(), execution.workflow_id.clone()));
        }
    }

    /// Runs of which something could not be asked come back by themselves, but not at once.
    pub(super) fn ask_again_later(&mut self, now: Timestamp, runs: &[(RunKey, WorkflowId)]) {
        for (run, workflow_id) in runs {
            let due = now.plus(ASK_AGAIN);
            self.timers.set(&run.0, run.1, workflow_id, Some(due));
        }
    }

    fn ask_other(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        asked: Outward,
        is_closed: bool,
    ) -> Crossed {
        match asked {
            Outward::StartChild {
                initiated_event_id,
                namespace,
                start,
            } => {
                let bytes = start
                    .input
                    .as_ref()
                    .map_or(0, orchestrion_proto::prost::Message::encoded_len);
                round.crossed_bytes += bytes;
                self.start_child(
                    round,
                    run,
                    initiated_event_id,
                    &namespace,
                    *start,
                    is_closed,
                )
            }
            Outward::Signal {
                initiated_event_id,
                to,
                signal,
            } => self.deliver(
                round,
                run,
                initiated_event_id,
                &to,
                &Request::Signal(signal),
            ),
            Outward::Cancel {
                initiated_event_id,
                to,
                cancel,
            } => self.deliver(
                round,
                run,
                initiated_event_id,
                &to,
                &Request::RequestCancel(cancel),
            ),
            Outward::TellParent { parent, closed } => {
                self.tell_parent(round, run, &parent, *closed)
            }
            Outward::EndChild {
                initiated_event_id,
                child,
                terminate,
                ..
            } => self.end_child(round, run, initiated_event_id, &child, terminate),
        }
    }

    fn start_child(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        initiated_event_id: i64,
        namespace: &str,
        start: StartWorkflow,
        parent_is_closed: bool,
    ) -> Crossed {
        use StartChildWorkflowExecutionFailedCause as Cause;
        let started = if !is_own(run, namespace) {
            Err(Cause::NamespaceNotFound)
        } else if builtin::is_builtin(&start.workflow_type) {
            // The engine's own type is begun by the engine's own wire.
            Err(Cause::Unspecified)
        } else {
            match WorkflowId::parse(&start.workflow_id) {
                Err(_) => Err(Cause::Unspecified),
                Ok(workflow_id) => {
                    let target = Target {
                        namespace: run.0.clone(),
                        workflow_id,
                        run_id: None,
                    };
                    match self.start(round, &target, start) {
                        Ok(accepted) => Ok(accepted.run_id),
                        Err(error) if is_taken(&error) => Err(Cause::WorkflowAlreadyExists),
                        Err(CallError::Rejected(rejection)) => {
                            tracing::warn!(%rejection, workflow_id = %target.workflow_id, "a child cannot be started");
                            Err(Cause::Unspecified)
                        }
                        Err(error) => return asked_too_early(&error),
                    }
                }
            }
        };
        Crossed::Noted(Box::new(match started {
            // Nobody is left to hear of it.
            _ if parent_is_closed => Request::CloseFollowed(CloseFollowed { initiated_event_id }),
            Ok(run_id) => Request::ChildStarted(ChildStarted {
                initiated_event_id,
                run_id: run_id.to_string(),
            }),
            Err(cause) => Request::ChildStartFailed(ChildStartFailed {
                initiated_event_id,
                cause,
            }),
        }))
    }

    fn deliver(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        initiated_event_id: i64,
        to: &Destination,
        request: &Request,
    ) -> Crossed {
        let result = if is_own(run, &to.namespace) {
            match self.deliver_to(round, run, to, request) {
                Ok(_) => Ok(()),
                Err(CallError::Rejected(Rejection::Limit { .. })) => {
                    Err(Undeliverable::SignalLimit)
                }
                Err(CallError::Rejected(_) | CallError::Quarantined { .. }) => {
                    Err(Undeliverable::ExecutionNotFound)
                }
                Err(error) => return asked_too_early(&error),
            }
        } else {
            Err(Undeliverable::NamespaceNotFound)
        };
        Crossed::Noted(Box::new(Request::Delivered(Delivered {
            initiated_event_id,
            result,
        })))
    }

    fn deliver_to(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        to: &Destination,
        request: &Request,
    ) -> Result<(), CallError> {
        let other = self.find(&self.target(run, &to.execution)?)?;
        let sender = &self.executions[run].state;
        let is_child = self.executions[&other]
            .state
            .parent
            .as_ref()
            .is_some_and(|parent| {
                parent.workflow_id == sender.workflow_id && parent.run_id == sender.run_id
            });
        // A run that asks itself would wait for itself.
        if other == *run || (to.child_only && !is_child) {
            return Err(not_found("is no other run, or no child of the sender"));
        }
        self.step(round, &other, request).map(|_| ())
    }

    fn tell_parent(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        parent: &Parent,
        closed: ChildClosed,
    ) -> Crossed {
        let execution = ExecutionRef {
            workflow_id: parent.workflow_id.clone(),
            run_id: parent.run_id.clone(),
        };
        let told = self
            .target(run, &execution)
            .and_then(|target| self.parent_now(run, &target, closed.initiated_event_id))
            .and_then(|other| {
                self.step(round, &other, &Request::ChildClosed(Box::new(closed)))
                    .map(|_| ())
            });
        match told {
            Ok(()) => {}
            // It closed before, or left after its retention, or does not wait for this child.
            Err(CallError::Rejected(rejection)) => {
                tracing::debug!(%rejection, run_id = %run.1, "a parent does not wait for its child");
            }
            Err(error) => return asked_too_early(&error),
        }
        followed(0)
    }

    /// The run that waits for this child now. The one that started it may have been reset, and may have left since with its retention: then
    /// nothing says any more which run followed it, but the newest knows its children.
    fn parent_now(
        &mut self,
        child: &RunKey,
        parent: &Target,
        initiated_event_id: i64,
    ) -> Result<RunKey, CallError> {
        let known = self.find(parent);
        let Err(CallError::Rejected(_)) = known else {
            return self.after_resets(child, known?, initiated_event_id);
        };
        let newest = self.find(&Target {
            run_id: None,
            ..parent.clone()
        })?;
        let first = &self.executions[child].state.first_run_id;
        let waiting = &self.executions[&newest].state.children;
        match waiting.get(&initiated_event_id) {
            Some(child) if child.run_id == *first => Ok(newest),
            _ => Err(not_found(
                "has left, and no run after it waits for this child",
            )),
        }
    }

    /// The run that has a parent's part now: a reset may have made others of it. One that was reset to before it asked for the child has no
    /// part in it, unless it has asked again and was given the same one.
    fn after_resets(
        &mut self,
        child: &RunKey,
        parent: RunKey,
        initiated_event_id: i64,
    ) -> Result<RunKey, CallError> {
        let first = self.executions[child].state.first_run_id.clone();
        let mut waits = parent.clone();
        let (mut at, mut kept) = (parent, true);
        loop {
            let state = &self.executions[&at].state;
            let Some(next) = RunId::parse(&state.reset_run_id) else {
                return Ok(waits);
            };
            kept &= initiated_event_id < state.reset_at_event_id;
            let workflow_id = self.executions[&at].workflow_id.clone();
            at = self.find(&Target {
                namespace: at.0,
                workflow_id,
                run_id: Some(next),
            })?;
            let asked_again = self.executions[&at].state.children.get(&initiated_event_id);
            kept |= asked_again.is_some_and(|again| again.run_id == first);
            if kept {
                waits = at.clone();
            }
        }
    }

    fn end_child(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        initiated_event_id: i64,
        child: &ExecutionRef,
        terminate: bool,
    ) -> Crossed {
        let reason = "the parent closed".to_owned();
        let identity = "orchestrion".to_owned();
        let request = if terminate {
            Request::Terminate(Box::new(TerminateWorkflow {
                reason,
                details: None,
                identity,
            }))
        } else {
            let parent = &self.executions[run].state;
            let sender = ExecutionRef {
                workflow_id: parent.workflow_id.clone(),
                run_id: parent.run_id.clone(),
            };
            Request::RequestCancel(Box::new(RequestCancelWorkflow {
                reason,
                identity,
                request_id: format!("{}:{initiated_event_id}", parent.run_id),
                sender: Some((sender, initiated_event_id)),
            }))
        };
        // The chain may be at a later run than the one that was started.
        let newest = ExecutionRef {
            workflow_id: child.workflow_id.clone(),
            run_id: String::new(),
        };
        let ended = self
            .target(run, &newest)
            .and_then(|target| self.find(&target))
            .and_then(|other| {
                if self.executions[&other].state.first_run_id == child.run_id {
                    self.step(round, &other, &request).map(|_| ())
                } else {
                    Ok(()) // Another chain has the workflow id: the child is over.
                }
            });
        match ended {
            Ok(()) | Err(CallError::Rejected(_)) => followed(initiated_event_id),
            Err(error) => asked_too_early(&error),
        }
    }

    fn target(&self, run: &RunKey, execution: &ExecutionRef) -> Result<Target, CallError> {
        let workflow_id = WorkflowId::parse(&execution.workflow_id)
            .map_err(|error| Rejection::Invalid(error.to_string()))?;
        let run_id = match execution.run_id.as_str() {
            "" => None,
            text => {
                Some(RunId::parse(text).ok_or_else(|| not_found("has a run id that is no UUID"))?)
            }
        };
        Ok(Target {
            namespace: run.0.clone(),
            workflow_id,
            run_id,
        })
    }
}

/// A namespace is a tenant: nothing crosses from one to another.
fn is_own(run: &RunKey, namespace: &str) -> bool {
    namespace.is_empty() || namespace == run.0.as_str()
}

fn followed(initiated_event_id: i64) -> Crossed {
    Crossed::Noted(Box::new(Request::CloseFollowed(CloseFollowed {
        initiated_event_id,
    })))
}

fn asked_too_early(error: &CallError) -> Crossed {
    tracing::warn!(%error, "a run cannot be asked now; it will be asked again");
    Crossed::Later
}

fn not_found(why: &str) -> CallError {
    CallError::Rejected(Rejection::NotFound {
        what: "workflow execution",
        why: format!("it {why}"),
    })
}
