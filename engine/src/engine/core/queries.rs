//! Questions to workflow code. Nothing of them is kept: they change nothing.
//!
//! ```text
//!  asked --no workflow task pending--> Queued: a task of its own     --> Asked --> answered
//!        --one is pending-----------> Buffered: rides on that task --> Attached --> answered with its completion
//!                                                 (no answer came with it: Queued)
//! ```
//!
//! Invariant: no question reaches a worker before a workflow task of the run has completed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use orchestrion_history::ids::{Namespace, TaskQueueName, Timestamp};
use orchestrion_history::request::Rejection;
use orchestrion_history::state::WorkflowTask;
use orchestrion_history::store::QueueKind;
use orchestrion_proto::temporal::api::enums::v1::QueryResultType;
use orchestrion_proto::temporal::api::query::v1::{WorkflowQuery, WorkflowQueryResult};
use tokio::sync::oneshot;

use crate::engine::handle::{CallError, Target};
use crate::engine::matching::QueueKey;
use crate::engine::polling::{QueryOutcome, QueryTask};
use crate::engine::round::{Answer, Round, RunKey};

use super::Core;

/// A run whose workflow task has failed so often answers no question.
const ATTEMPTS_THAT_DOUBT: i32 = 3;
/// A sticky worker that does not answer a question for so long is not asked any more.
const STICKY_WAIT: Duration = Duration::from_secs(5);
/// After a start of the engine, or of a run, workers have so long to come before their absence counts.
const RETURN_WAIT: Duration = Duration::from_secs(20);

pub(super) type QueryReply = oneshot::Sender<Result<QueryOutcome, CallError>>;

/// A question nobody has answered yet.
pub(super) struct PendingQuery {
    run: RunKey,
    query: WorkflowQuery,
    reply: QueryReply,
    stage: QueryStage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum QueryStage {
    Buffered,
    Attached,
    Queued {
        at: QueueKey,
        sticky_until: Option<Timestamp>,
    },
    Asked,
}

/// Answers that wait for the commit of the completion they came with.
pub(super) type Held = Vec<(u64, WorkflowQueryResult)>;

impl Core {
    pub(super) fn ask_query(
        &mut self,
        round: &mut Round,
        target: &Target,
        query: WorkflowQuery,
        reply: QueryReply,
    ) {
        match self.place_query(round.now, target) {
            Ok((run, direct)) => {
                self.next_query += 1;
                let id = self.next_query;
                self.queries.retain(|_, pending| !pending.reply.is_closed());
                self.queries.insert(
                    id,
                    PendingQuery {
                        run: run.clone(),
                        query,
                        reply,
                        stage: QueryStage::Buffered,
                    },
                );
                if direct {
                    self.queue_query(round, id);
                } else if let Some(execution) = self.executions.get_mut(&run) {
                    execution.buffered_queries.push(id);
                }
            }
            Err(error) => round.answers.push(Answer::Queried(reply, Err(error))),
        }
    }

    /// The run, and whether the question can go to a worker by itself.
    fn place_query(
        &mut self,
        now: Timestamp,
        target: &Target,
    ) -> Result<(RunKey, bool), CallError> {
        let run = self.find(target)?;
        let execution = &self.executions[&run];
        let state = &execution.state;
        let not_ready = |why: &str| CallError::Rejected(Rejection::NotReady(why.to_owned()));
        if execution.interpreter.is_some() {
            return Err(CallError::Rejected(Rejection::Invalid(
                "a built-in workflow answers no queries: describe it, or read its history"
                    .to_owned(),
            )));
        }
        if state.paused.is_some() {
            return Err(not_ready(
                "the workflow is paused and answers no queries: unpause it first",
            ));
        }
        let closed = state.status.is_closed();
        let never = state.previous_started_event_id == 0;
        if closed && never {
            return Err(not_ready(
                "the workflow was closed before it had completed a workflow task",
            ));
        }
        let (pending, attempt) = match &state.workflow_task {
            WorkflowTask::None => (execution.volatile_start.is_some(), 1),
            WorkflowTask::Scheduled { attempt, .. } | WorkflowTask::Started { attempt, .. } => {
                (true, *attempt)
            }
        };
        if attempt >= ATTEMPTS_THAT_DOUBT {
            return Err(not_ready(
                "its workflow task keeps failing: see the failure in its history",
            ));
        }
        let direct = !never && (closed || !pending);
        let own = self.own_queue(&run)?;
        let sticky = execution.sticky.as_ref().map(|sticky| QueueKey {
            queue: sticky.queue.clone(),
            ..own.clone()
        });
        let attended = self.matching.is_attended(&own, now)
            || sticky.is_some_and(|key| self.matching.is_attended(&key, now));
        let new = now.since(Timestamp(state.started_at)) <= RETURN_WAIT;
        if !attended && !new && now.since(self.recovered_at) > RETURN_WAIT {
            return Err(not_ready(
                "no worker has polled its task queue lately: start one",
            ));
        }
        Ok((run, direct))
    }

    pub(super) fn own_queue(&self, run: &RunKey) -> Result<QueueKey, CallError> {
        let queue = TaskQueueName::parse(&self.executions[run].state.task_queue)
            .map_err(|e| Rejection::Invalid(e.to_string()))?;
        Ok(QueueKey {
            namespace: Some(run.0.clone()),
            kind: QueueKind::Workflow,
            queue,
        })
    }

    /// Gives a question a task of its own, for the sticky worker if it is there.
    fn queue_query(&mut self, round: &mut Round, id: u64) {
        let Some(pending) = self.queries.get(&id) else {
            return;
        };
        let (run, query) = (pending.run.clone(), pending.query.clone());
        let target = Target {
            namespace: run.0.clone(),
            workflow_id: match self.executions.get(&run) {
                Some(execution) => execution.workflow_id.clone(),
                None => return,
            },
            run_id: Some(run.1),
        };
        let Ok(own) = self.own_queue(&run) else {
            return;
        };
        let execution = &self.executions[&run];
        let sticky = execution.sticky.as_ref().map(|sticky| QueueKey {
            queue: sticky.queue.clone(),
            ..own.clone()
        });
        let sticky = sticky.filter(|key| self.matching.is_attended(key, round.now));
        let task = QueryTask {
            id,
            namespace: run.0.clone(),
            workflow_id: target.workflow_id,
            run_id: run.1,
            workflow_type: execution.state.workflow_type.clone(),
            task_queue: execution.state.task_queue.clone(),
            query,
            sticky: sticky.is_some(),
            previous_started_event_id: execution.state.previous_started_event_id,
            last_event_id: execution.state.next_event_id - 1,
        };
        let sticky_until = sticky.is_some().then(|| round.now.plus(STICKY_WAIT));
        let key = sticky.unwrap_or(own);
        self.matching.add_query(&key, task, round.now);
        if let Some(until) = sticky_until {
            self.sticky_queries.push((until, id));
        }
        if let Some(pending) = self.queries.get_mut(&id) {
            pending.stage = QueryStage::Queued {
                at: key.clone(),
                sticky_until,
            };
        }
        round.queues.push_back(key);
    }

    /// A question its sticky worker has not answered in time goes to any worker: who took it may be gone, and asking twice changes nothing.
    pub(super) fn unstick_queries(&mut self, round: &mut Round) {
        let now = round.now;
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sticky_queries)
            .into_iter()
            .partition(|(until, _)| *until <= now);
        self.sticky_queries = rest;
        for (_, id) in due {
            let Some(pending) = self.queries.get(&id) else {
                continue;
            };
            let run = pending.run.clone();
            let silent = match pending.stage.clone() {
                QueryStage::Queued {
                    at,
                    sticky_until: Some(_),
                } => self.matching.remove_query(&at, id).is_some(),
                QueryStage::Asked => true,
                QueryStage::Queued { .. } | QueryStage::Buffered | QueryStage::Attached => false,
            };
            if silent {
                if let Some(execution) = self.executions.get_mut(&run) {
                    execution.sticky = None;
                }
                self.queue_query(round, id);
            }
        }
    }

    /// The runs that somebody waits for an answer of. They stay in memory: where a question is to go next is said there.
    pub(super) fn asked_runs(&self) -> HashSet<&RunKey> {
        let waiting = self.queries.values();
        let waiting = waiting.filter(|pending| !pending.reply.is_closed());
        waiting.map(|pending| &pending.run).collect()
    }

    /// Whether a question that met a poll is still asked.
    pub(super) fn hand_out_query(&mut self, task: &QueryTask) -> bool {
        match self.queries.get_mut(&task.id) {
            Some(pending) if !pending.reply.is_closed() => {
                pending.stage = QueryStage::Asked;
                true
            }
            _ => {
                self.queries.remove(&task.id);
                false
            }
        }
    }

    /// A question that reached nobody waits again.
    pub(super) fn requeue_query(&mut self, round: &mut Round, task: QueryTask) {
        if self.queries.contains_key(&task.id) {
            let target = Target {
                namespace: task.namespace,
                workflow_id: task.workflow_id,
                run_id: Some(task.run_id),
            };
            if self.find(&target).is_ok() {
                self.queue_query(round, task.id);
            }
        }
    }

    pub(super) fn answer_query(
        &mut self,
        round: &mut Round,
        namespace: &Namespace,
        id: u64,
        outcome: QueryOutcome,
    ) -> bool {
        let asked = self
            .queries
            .get(&id)
            .is_some_and(|pending| pending.run.0 == *namespace);
        let Some(pending) = asked.then(|| self.queries.remove(&id)).flatten() else {
            return false;
        };
        round
            .answers
            .push(Answer::Queried(pending.reply, Ok(outcome)));
        true
    }

    /// The questions that ride on a run's next workflow task.
    pub(super) fn attach_queries(&mut self, run: &RunKey) -> HashMap<String, WorkflowQuery> {
        let Some(execution) = self.executions.get(run) else {
            return HashMap::new();
        };
        let mut attached = HashMap::new();
        for id in &execution.buffered_queries {
            if let Some(pending) = self.queries.get_mut(id)
                && !pending.reply.is_closed()
            {
                pending.stage = QueryStage::Attached;
                attached.insert(id.to_string(), pending.query.clone());
            }
        }
        attached
    }

    /// The task they rode on was lost.
    pub(super) fn detach_queries<'a>(
        &mut self,
        _run: &RunKey,
        ids: impl Iterator<Item = &'a String>,
    ) {
        for id in ids {
            if let Some(pending) = id
                .parse()
                .ok()
                .and_then(|id: u64| self.queries.get_mut(&id))
            {
                pending.stage = QueryStage::Buffered;
            }
        }
    }

    /// Takes the answers of a completion out of the run's buffer, before the completion is decided.
    pub(super) fn hold_answered(
        &mut self,
        run: &RunKey,
        results: HashMap<String, WorkflowQueryResult>,
    ) -> Held {
        let Some(execution) = self.executions.get_mut(run) else {
            return Held::new();
        };
        let mut held = Held::new();
        for (id, result) in results {
            let Ok(id) = id.parse::<u64>() else { continue };
            if let Some(at) = execution
                .buffered_queries
                .iter()
                .position(|other| *other == id)
            {
                execution.buffered_queries.remove(at);
                held.push((id, result));
            }
        }
        held
    }

    /// The completion was refused: its answers count for nothing.
    pub(super) fn rebuffer(&mut self, run: &RunKey, held: Held) {
        if let Some(execution) = self.executions.get_mut(run) {
            execution
                .buffered_queries
                .extend(held.into_iter().map(|(id, _)| id));
        }
    }

    pub(super) fn answer_held(&mut self, round: &mut Round, held: Held) {
        for (id, result) in held {
            let Some(pending) = self.queries.remove(&id) else {
                continue;
            };
            let outcome = match result.result_type() {
                QueryResultType::Answered => QueryOutcome::Answered(result.answer),
                _ => QueryOutcome::Failed {
                    message: result.error_message,
                    failure: result.failure.map(Box::new),
                },
            };
            round
                .answers
                .push(Answer::Queried(pending.reply, Ok(outcome)));
        }
    }

    /// No workflow task takes them along now: what is buffered gets tasks of its own, if the run can be asked at all.
    pub(super) fn redirect_queries(&mut self, round: &mut Round, run: &RunKey) {
        let Some(execution) = self.executions.get_mut(run) else {
            return;
        };
        let state = &execution.state;
        let pending = !matches!(state.workflow_task, WorkflowTask::None);
        if execution.buffered_queries.is_empty() || (pending && state.is_running()) {
            return;
        }
        let answerable = state.previous_started_event_id > 0;
        for id in std::mem::take(&mut execution.buffered_queries) {
            if answerable {
                self.queue_query(round, id);
            } else if let Some(pending) = self.queries.remove(&id) {
                let closed = CallError::Rejected(Rejection::NotReady(
                    "the workflow was closed before it had completed a workflow task".to_owned(),
                ));
                round
                    .answers
                    .push(Answer::Queried(pending.reply, Err(closed)));
            }
        }
    }

    /// The earliest instant at which a question leaves its sticky worker.
    pub(super) fn next_unsticking(&self) -> Option<Timestamp> {
        self.sticky_queries.iter().map(|(until, _)| *until).min()
    }
}
