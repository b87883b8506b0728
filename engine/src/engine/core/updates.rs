//! Updates on their way to workflow code. Until one is accepted nothing of it is kept.
//!
//! ```text
//!  Admitted --rides on a workflow task--> Sent --accepted: events--> the run's own     --> whoever waits learns
//!                                              --refused, or passed over--> gone       --> whoever waits learns
//!           <--the task failed or was lost--
//! ```
//!
//! When no workflow task is there to ride on, a speculative one is queued: no record speaks of it, so that an update which is refused leaves
//! no trace. Anything that happens meanwhile makes an ordinary task of it.

use orchestrion_history::ids::Timestamp;
use orchestrion_history::request::{CompleteWorkflowTask, Refused, Rejection, WorkflowTaskStart};
use orchestrion_history::state::{Status, WorkflowTask};
use orchestrion_proto::prost::Message as _;
use orchestrion_proto::prost_wkt_types::Any;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use orchestrion_proto::temporal::api::protocol::v1::{Message, message::SequencingId};
use orchestrion_proto::temporal::api::update::v1::{Acceptance, Outcome, Request, outcome};
use tokio::sync::oneshot;

use crate::engine::handle::{CallError, Target};
use crate::engine::matching::{AttemptKey, Waiting};
use crate::engine::polling::{UpdateProgress, UpdateStage};
use crate::engine::round::{Answer, Round, RunKey};

use super::{Core, Execution};

const REQUEST_TYPE: &str = "type.googleapis.com/temporal.api.update.v1.Request";
const ACCEPTANCE_TYPE: &str = "temporal.api.update.v1.Acceptance";

pub(super) type UpdateReply = oneshot::Sender<Result<UpdateProgress, CallError>>;

/// An update that somebody waits for.
pub(super) struct PendingUpdate {
    id: String,
    /// `None` once it is accepted.
    request: Option<Request>,
    sent: bool,
    waiting: Vec<(UpdateStage, UpdateReply)>,
}

/// A workflow task of which no record speaks, in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Speculative {
    pub(super) event_id: i64,
    pub(super) at: Timestamp,
}

impl Execution {
    /// What is known of an update by the run itself.
    fn known(&self, id: &str, run: &RunKey) -> Option<UpdateProgress> {
        let update = self.state.updates.get(id)?;
        let mut outcome = update.outcome.get();
        if outcome.is_none() && self.state.status.is_closed() {
            outcome = Some(failed(
                "AcceptedUpdateCompletedWorkflow",
                "the workflow ended before the update was answered",
            ));
        }
        let stage = match outcome {
            Some(_) => UpdateStage::Completed,
            None => UpdateStage::Accepted,
        };
        Some(UpdateProgress {
            run_id: run.1,
            stage,
            outcome,
        })
    }
}

fn failed(kind: &str, message: &str) -> Outcome {
    Outcome {
        value: Some(outcome::Value::Failure(Failure {
            message: message.to_owned(),
            source: "Server".to_owned(),
            failure_info: Some(FailureInfo::ApplicationFailureInfo(
                ApplicationFailureInfo {
                    r#type: kind.to_owned(),
                    non_retryable: true,
                    ..Default::default()
                },
            )),
            ..Default::default()
        })),
    }
}

impl Core {
    /// An update, or with no request a wish to hear of one that was sent before.
    pub(super) fn ask_update(
        &mut self,
        round: &mut Round,
        target: &Target,
        id: String,
        request: Option<Request>,
        wait: UpdateStage,
        reply: UpdateReply,
    ) {
        let run = match self.refuse_while_paused(round.now).and_then(|()| self.find(target)) {
            Ok(run) => run,
            Err(error) => return round.answers.push(Answer::Updated(reply, Err(error))),
        };
        match self.admit_update(&run, &id, request, wait) {
            Ok(Some(progress)) => round.answers.push(Answer::Updated(reply, Ok(progress))),
            Ok(None) => {
                let execution = self.executions.get_mut(&run).expect("found above");
                let pending = match execution.updates.iter().position(|update| update.id == id) {
                    Some(at) => &mut execution.updates[at],
                    None => {
                        execution.updates.push(PendingUpdate {
                            id,
                            request: None,
                            sent: true,
                            waiting: Vec::new(),
                        });
                        execution.updates.last_mut().expect("pushed above")
                    }
                };
                pending.waiting.retain(|(_, reply)| !reply.is_closed());
                pending.waiting.push((wait, reply));
                self.queue_for_updates(round, &run);
            }
            Err(error) => round.answers.push(Answer::Updated(reply, Err(error))),
        }
    }

    /// What can be said of an update at once; `None`: it is on its way.
    fn admit_update(
        &mut self,
        run: &RunKey,
        id: &str,
        request: Option<Request>,
        wait: UpdateStage,
    ) -> Result<Option<UpdateProgress>, CallError> {
        let limits = self.options.limits.clone();
        let execution = self.executions.get_mut(run).expect("found by the caller");
        if execution.interpreter.is_some() {
            return Err(CallError::Rejected(Rejection::Invalid(
                "a built-in workflow takes no updates: signal it, or cancel it".to_owned(),
            )));
        }
        if let Some(progress) = execution.known(id, run) {
            return Ok(Some(progress).filter(|progress| progress.stage >= wait));
        }
        let pending = execution.updates.iter().any(|update| update.id == id);
        if pending {
            return Ok(None);
        }
        let Some(request) = request else {
            return Err(CallError::Rejected(Rejection::NotFound {
                what: "update",
                why: format!("the run has none with the id {id:?}; one that was refused is forgotten"),
            }));
        };
        if execution.state.status.is_closed() {
            return Err(CallError::Rejected(Rejection::Closed));
        }
        let state = &execution.state;
        let running = state.updates.values().filter(|update| update.outcome.is_empty());
        let admitted = execution.updates.iter().filter(|update| update.request.is_some());
        if running.count() + admitted.count() >= limits.updates_in_flight_max {
            return Err(CallError::Busy {
                retry_after: std::time::Duration::from_millis(200),
            });
        }
        if state.updates.len() >= limits.updates_max {
            return Err(CallError::Rejected(Rejection::NotReady(format!(
                "the run has had {} updates, no more are allowed: let it continue as new",
                limits.updates_max
            ))));
        }
        execution.updates.push(PendingUpdate {
            id: id.to_owned(),
            request: Some(request),
            sent: false,
            waiting: Vec::new(),
        });
        Ok(None)
    }

    /// Updates that wait need a workflow task to ride on.
    pub(super) fn queue_for_updates(&mut self, round: &mut Round, run: &RunKey) {
        let Some(execution) = self.executions.get_mut(run) else {
            return;
        };
        let waiting = execution.updates.iter().any(|update| !update.sent);
        let idle = execution.state.workflow_task == WorkflowTask::None
            && execution.volatile_start.is_none()
            && execution.speculative.is_none()
            && execution.state.first_task_at == 0
            && execution.state.is_running();
        if !waiting || !idle {
            return;
        }
        let speculative = Speculative {
            event_id: execution.state.next_event_id,
            at: round.now,
        };
        execution.speculative = Some(speculative);
        let workflow_id = execution.workflow_id.clone();
        let Ok(own) = self.own_queue(run) else {
            return;
        };
        let queue = self.workflow_queue(run, own, round.now);
        let task = Waiting {
            namespace: run.0.clone(),
            workflow_id: workflow_id.clone(),
            run_id: run.1,
            event_id: speculative.event_id,
            attempt: 1,
            at: speculative.at,
            marked: false,
            look_at: Timestamp::ZERO,
        };
        self.matching.add(&queue, task, round.now);
        round.queues.push_back(queue);
        if let Some(execution) = self.executions.get(run) {
            let due = execution.due();
            self.timers.set(&run.0, run.1, &workflow_id, due);
        }
    }

    /// Something happened: a speculative task that nobody has taken is none any more.
    pub(super) fn drop_speculative(&mut self, run: &RunKey) {
        let Some(execution) = self.executions.get_mut(run) else {
            return;
        };
        let Some(speculative) = execution.speculative.take() else {
            return;
        };
        let attempt = AttemptKey {
            namespace: run.0.clone(),
            run_id: run.1,
            event_id: speculative.event_id,
        };
        if let Some(queue) = execution.waits_at.take() {
            execution.sticky_until = None;
            self.matching.remove(&queue, &attempt, speculative.at);
        }
    }

    /// A speculative task that its sticky worker has not taken in time goes to any worker.
    pub(super) fn unstick_speculative(&mut self, round: &mut Round, run: &RunKey) {
        let overdue = self.executions.get(run).is_some_and(|execution| {
            execution.speculative.is_some()
                && execution.volatile_start.is_none()
                && execution.sticky_until.is_some_and(|until| until <= round.now)
        });
        if overdue {
            self.drop_speculative(run);
            if let Some(execution) = self.executions.get_mut(run) {
                execution.sticky = None;
            }
            self.queue_for_updates(round, run);
        }
    }

    /// The start of the speculative task, if it is this one that a poll met.
    pub(super) fn speculative_start(
        &mut self,
        run: &RunKey,
        event_id: i64,
    ) -> Option<WorkflowTaskStart> {
        let execution = self.executions.get_mut(run)?;
        let speculative = execution.speculative?;
        let valid = execution.state.workflow_task == WorkflowTask::None
            && speculative.event_id == event_id
            && execution.state.next_event_id == event_id;
        valid.then(|| WorkflowTaskStart {
            scheduled_event_id: event_id,
            attempt: 1,
            scheduled_at: speculative.at,
            speculative: true,
            ..Default::default()
        })
    }

    /// The updates that ride on a task, as the worker gets them.
    pub(super) fn attach_updates(&mut self, run: &RunKey, started_event_id: i64) -> Vec<Message> {
        let Some(execution) = self.executions.get_mut(run) else {
            return Vec::new();
        };
        let waiting = execution.updates.iter_mut().filter(|update| !update.sent);
        let messages = waiting.filter_map(|update| {
            let request = update.request.as_ref()?;
            update.sent = true;
            Some(Message {
                id: format!("{}/request", update.id),
                protocol_instance_id: update.id.clone(),
                sequencing_id: Some(SequencingId::EventId(started_event_id - 1)),
                body: Some(Any {
                    type_url: REQUEST_TYPE.to_owned(),
                    value: request.encode_to_vec(),
                }),
            })
        });
        messages.collect()
    }

    /// The task they rode on came to nothing: they wait for the next.
    pub(super) fn detach_updates(&mut self, run: &RunKey) {
        if let Some(execution) = self.executions.get_mut(run) {
            let pending = execution.updates.iter_mut();
            pending
                .filter(|update| update.request.is_some())
                .for_each(|update| update.sent = false);
        }
    }

    /// Workers say which update they accept, not what it was: the event has to.
    pub(super) fn complete_acceptances(&self, run: &RunKey, complete: &mut CompleteWorkflowTask) {
        let Some(execution) = self.executions.get(run) else {
            return;
        };
        for message in &mut complete.messages {
            let Some(body) = message
                .body
                .as_mut()
                .filter(|body| body.type_url.ends_with(ACCEPTANCE_TYPE))
            else {
                continue;
            };
            let known = execution
                .updates
                .iter()
                .find(|update| update.id == message.protocol_instance_id)
                .and_then(|update| update.request.clone());
            let Some(request) = known else { continue };
            if let Ok(acceptance) = Acceptance::decode(&body.value[..]) {
                body.value = Acceptance {
                    accepted_request: Some(request),
                    ..acceptance
                }
                .encode_to_vec();
            }
        }
    }

    /// A workflow task was completed: those who wait for its updates learn what became of them. What was sent and got no answer is refused.
    pub(super) fn settle_updates(&mut self, round: &mut Round, run: &RunKey, refused: Vec<Refused>) {
        let Some(execution) = self.executions.get_mut(run) else {
            return;
        };
        for pending in std::mem::take(&mut execution.updates) {
            if let Some(progress) = execution.known(&pending.id, run) {
                let mut waiting = Vec::new();
                for (wait, reply) in pending.waiting {
                    if progress.stage >= wait {
                        round.answers.push(Answer::Updated(reply, Ok(progress.clone())));
                    } else {
                        waiting.push((wait, reply));
                    }
                }
                if progress.stage < UpdateStage::Completed && !waiting.is_empty() {
                    execution.updates.push(PendingUpdate {
                        request: None,
                        waiting,
                        ..pending
                    });
                }
                continue;
            }
            let refusal = refused.iter().find(|refused| refused.update_id == pending.id);
            if refusal.is_none() && !pending.sent {
                execution.updates.push(pending);
                continue;
            }
            let outcome = match refusal.and_then(|refusal| refusal.failure.clone()) {
                Some(failure) => Outcome {
                    value: Some(outcome::Value::Failure(failure)),
                },
                None => failed(
                    "UpdateUnanswered",
                    "the worker passed the update over: its SDK may not know updates",
                ),
            };
            for (_, reply) in pending.waiting {
                let progress = UpdateProgress {
                    run_id: run.1,
                    stage: UpdateStage::Completed,
                    outcome: Some(outcome.clone()),
                };
                round.answers.push(Answer::Updated(reply, Ok(progress)));
            }
        }
    }

    /// The run has ended: nobody waits any longer.
    pub(super) fn close_updates(&mut self, round: &mut Round, run: &RunKey) {
        let Some(execution) = self.executions.get_mut(run) else {
            return;
        };
        let continued = execution.state.status == Status::ContinuedAsNew;
        for pending in std::mem::take(&mut execution.updates) {
            let known = execution.known(&pending.id, run);
            for (_, reply) in pending.waiting {
                let result = match &known {
                    Some(progress) => Ok(progress.clone()),
                    // The new run can take it: the same call again finds that one.
                    None if continued => Err(CallError::Unavailable(
                        "the workflow continues as new: ask again".to_owned(),
                    )),
                    None => Err(CallError::Rejected(Rejection::Closed)),
                };
                round.answers.push(Answer::Updated(reply, result));
            }
        }
    }
}
