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
use orchestrion_history::machines::update::{Admission, admit, outcome_of};
use orchestrion_history::record::Record;
use orchestrion_history::request::{
    Rejection, SentUpdate, UpdateReport, UpdateStage as Reported, WorkflowTaskStart,
};
use orchestrion_history::state::{Status, Update, WorkflowTask};
use orchestrion_history::store::{KeyRange, read_entry};
use orchestrion_proto::prost::Message as _;
use orchestrion_proto::prost_wkt_types::Any;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use orchestrion_proto::temporal::api::protocol::v1::{Message, message::SequencingId};
use orchestrion_proto::temporal::api::update::v1::{Outcome, Request, outcome};
use tokio::sync::oneshot;

use crate::engine::handle::{CallError, Target};
use crate::engine::matching::{AttemptKey, Waiting};
use crate::engine::polling::{UpdateProgress, UpdateStage};
use crate::engine::round::{Answer, Round, RunKey};

use super::Core;

const REQUEST_TYPE: &str = "type.googleapis.com/temporal.api.update.v1.Request";

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
        let run = match self
            .refuse_while_paused(round.now)
            .and_then(|()| self.find(target))
        {
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
                if wait == UpdateStage::Admitted {
                    let progress = UpdateProgress {
                        run_id: run.1,
                        stage: UpdateStage::Admitted,
                        outcome: None,
                    };
                    round.answers.push(Answer::Updated(reply, Ok(progress)));
                } else {
                    pending.waiting.push((wait, reply));
                }
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
        if let Some(progress) = self.known_update(run, id)? {
            return Ok(Some(progress).filter(|progress| progress.stage >= wait));
        }
        let limits = &self.options.limits;
        let execution = self.executions.get_mut(run).expect("found by the caller");
        if execution.interpreter.is_some() {
            return Err(CallError::Rejected(Rejection::Invalid(
                "a built-in workflow takes no updates: signal it, or cancel it".to_owned(),
            )));
        }
        if execution.updates.iter().any(|update| update.id == id) {
            return Ok(None);
        }
        if execution.state.paused.is_some() && request.is_some() {
            return Err(CallError::Rejected(Rejection::NotReady(
                "the workflow is paused and takes no updates: unpause it first".to_owned(),
            )));
        }
        if let Some(Update::Admitted { .. }) = execution.state.updates.get(id) {
            // A reset brought it over: the worker finds it in the history, and must not get it a second time.
            return match execution.state.is_running() {
                true => Ok(None),
                false => Err(Rejection::Closed.into()),
            };
        }
        let Some(request) = request else {
            return Err(CallError::Rejected(Rejection::NotFound {
                what: "update",
                why: format!(
                    "the run has none with the id {id:?}; one that was refused is forgotten"
                ),
            }));
        };
        let waiting = execution.updates.iter();
        let waiting = waiting.filter(|update| update.request.is_some()).count();
        match admit(&execution.state, limits, id, waiting) {
            Ok(Admission::Fresh | Admission::Known(_)) => {}
            Err(Rejection::Limit {
                what: "updates in flight",
                ..
            }) => {
                return Err(CallError::Busy {
                    retry_after: std::time::Duration::from_millis(200),
                });
            }
            Err(rejection) => return Err(rejection.into()),
        }
        execution.updates.push(PendingUpdate {
            id: id.to_owned(),
            request: Some(request),
            sent: false,
            waiting: Vec::new(),
        });
        Ok(None)
    }

    /// What the run's history says of an update.
    fn known_update(&self, run: &RunKey, id: &str) -> Result<Option<UpdateProgress>, CallError> {
        let Some(execution) = self.executions.get(run) else {
            return Ok(None);
        };
        let outcome = match execution.state.updates.get(id) {
            None | Some(Update::Admitted { .. }) => return Ok(None),
            Some(Update::Accepted { .. }) => execution.state.status.is_closed().then(|| {
                failed(
                    "AcceptedUpdateCompletedWorkflow",
                    "the workflow ended before the update was answered",
                )
            }),
            Some(Update::Completed {
                completed_event_id, ..
            }) => {
                let journal = self.committed_records(run)?;
                outcome_of(&journal, *completed_event_id)
            }
        };
        Ok(Some(UpdateProgress {
            run_id: run.1,
            stage: match outcome {
                Some(_) => UpdateStage::Completed,
                None => UpdateStage::Accepted,
            },
            outcome,
        }))
    }

    fn committed_records(&self, run: &RunKey) -> Result<Vec<Record>, CallError> {
        let shard = self.executions[run].shard;
        let mut records = Vec::new();
        let mut range = KeyRange::journal_of(shard, &run.0, run.1);
        loop {
            let page = self.store.scan(&range, 256, false)?;
            for (key, entry) in &page.entries {
                records.extend(read_entry(&*self.store, key, entry)?);
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => return Ok(records),
            }
        }
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
            && execution.state.paused.is_none()
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
                && execution
                    .sticky_until
                    .is_some_and(|until| until <= round.now)
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

    /// What the worker was given with its task: its answers name updates by id alone.
    pub(super) fn sent_updates(&self, run: &RunKey) -> Vec<SentUpdate> {
        let pending = self.executions.get(run).map(|execution| &execution.updates);
        let sent = pending.into_iter().flatten().filter(|update| update.sent);
        sent.filter_map(|update| {
            Some(SentUpdate {
                update_id: update.id.clone(),
                request: update.request.clone()?,
            })
        })
        .collect()
    }

    pub(super) fn hold_updates(&mut self, run: &RunKey) -> Vec<PendingUpdate> {
        let execution = self.executions.get_mut(run);
        execution.map_or_else(Vec::new, |execution| std::mem::take(&mut execution.updates))
    }

    pub(super) fn release_updates(&mut self, run: &RunKey, held: Vec<PendingUpdate>) {
        if let Some(execution) = self.executions.get_mut(run) {
            execution.updates = held;
        }
    }

    /// A workflow task was completed: those who wait for its updates learn what became of them.
    pub(super) fn settle_updates(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        reports: Vec<UpdateReport>,
    ) {
        let Some(execution) = self.executions.get_mut(run) else {
            return;
        };
        for report in reports {
            let Some(at) = execution
                .updates
                .iter()
                .position(|update| update.id == report.update_id)
            else {
                continue;
            };
            let (stage, outcome) = match report.stage {
                Reported::Accepted { .. } => (UpdateStage::Accepted, None),
                Reported::Completed { outcome, .. } => (UpdateStage::Completed, Some(*outcome)),
                Reported::Rejected(failure) => {
                    let value = Some(outcome::Value::Failure(*failure));
                    (UpdateStage::Completed, Some(Outcome { value }))
                }
            };
            let progress = UpdateProgress {
                run_id: run.1,
                stage,
                outcome,
            };
            let pending = &mut execution.updates[at];
            pending.request = None;
            for (wait, reply) in std::mem::take(&mut pending.waiting) {
                if stage >= wait {
                    round
                        .answers
                        .push(Answer::Updated(reply, Ok(progress.clone())));
                } else {
                    pending.waiting.push((wait, reply));
                }
            }
            if stage == UpdateStage::Completed || pending.waiting.is_empty() {
                execution.updates.remove(at);
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
            let accepted = matches!(
                execution.state.updates.get(&pending.id),
                Some(Update::Accepted { .. })
            );
            for (_, reply) in pending.waiting {
                let result = match accepted {
                    true => Ok(UpdateProgress {
                        run_id: run.1,
                        stage: UpdateStage::Completed,
                        outcome: Some(failed(
                            "AcceptedUpdateCompletedWorkflow",
                            "the workflow ended before the update was answered",
                        )),
                    }),
                    // The new run can take it: the same call again finds that one.
                    false if continued => Err(CallError::Unavailable(
                        "the workflow continues as new: ask again".to_owned(),
                    )),
                    false => Err(CallError::Rejected(Rejection::Closed)),
                };
                round.answers.push(Answer::Updated(reply, result));
            }
        }
    }
}
