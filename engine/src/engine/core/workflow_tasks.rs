//! Turns of workflow code by workers outside: handed to a poll, answered, lost.
//!
//! ```text
//!  state: Scheduled --a poll takes it--> volatile start (in memory)  --answer or time-out: records--> over
//!                                        --caller gone, commit failed, engine restarted--> in its queue again
//! ```
//!
//! A run whose last worker keeps it cached is sticky: its tasks wait in that worker's queue first. Both are volatile.
//!
//! Invariant: at most one start of a run is out; another one's token is refused.

use std::collections::HashMap;
use std::time::Duration;

use orchestrion_history::ids::{TaskQueueName, Timestamp};
use orchestrion_history::record::Record;
use orchestrion_history::request::{Reply, Request, StartActivityAttempt, WorkflowTaskStart};
use orchestrion_history::state::WorkflowTask;
use orchestrion_history::store::QueueKind;
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::v1::note;

use crate::engine::call::GivenBack;
use crate::engine::handle::{CallError, Target};
use crate::engine::matching::{AttemptKey, Polled, QueueKey, Taker, Waiting};
use crate::engine::polling::{Completed, Completion, Started, Sticky, WorkflowTaskDispatch};
use crate::engine::round::{Inner, Outgoing, Round, RunKey};

use super::{Core, Execution};

/// A sticky queue's tasks wait for its worker no longer than this when it names no time.
const STICKY_WAIT: Duration = Duration::from_secs(10);

impl Execution {
    /// When something volatile of it is due: the worker's time is over, or the sticky worker's time to come.
    pub(super) fn volatile_due(&self) -> Option<Timestamp> {
        match &self.volatile_start {
            Some(start) => {
                let timeout = self.state.task_timeout_of(start.attempt);
                Some(Timestamp(start.at.0.saturating_add(timeout)))
            }
            None => self.sticky_until,
        }
    }

    /// When it is due by itself.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let due = [self.state.next_due(), self.volatile_due()];
        due.into_iter().flatten().min()
    }

    /// A start of a task that is over is forgotten; a failure ends stickiness. Answers whether a task came to nothing.
    pub(super) fn settle_volatile(&mut self, records: &[Record]) -> bool {
        let state = &self.state;
        self.volatile_start =
            self.volatile_start
                .take()
                .filter(|start| match state.workflow_task {
                    WorkflowTask::Scheduled {
                        scheduled_event_id,
                        attempt,
                        ..
                    } => scheduled_event_id == start.scheduled_event_id && attempt == start.attempt,
                    WorkflowTask::None => {
                        start.speculative
                            && state.is_running()
                            && start.scheduled_event_id == state.next_event_id
                    }
                    WorkflowTask::Started { .. } => false,
                });
        let lost = records.iter().any(came_to_nothing);
        if lost {
            self.sticky = None;
        }
        lost
    }
}

fn came_to_nothing(record: &Record) -> bool {
    match record {
        Record::Event(event) => matches!(
            event.event_type(),
            EventType::WorkflowTaskFailed | EventType::WorkflowTaskTimedOut
        ),
        Record::Note(note) => matches!(note.kind, Some(note::Kind::WorkflowTaskAttemptFailed(_))),
    }
}

impl Core {
    /// The queue in which a scheduled workflow task is to wait: its sticky worker's, if that one is there, else the run's own.
    pub(super) fn workflow_queue(
        &mut self,
        run: &RunKey,
        own: QueueKey,
        now: Timestamp,
    ) -> QueueKey {
        let Some(execution) = self.executions.get_mut(run) else {
            return own;
        };
        let sticky = execution.sticky.as_ref().map(|sticky| {
            let key = QueueKey {
                queue: sticky.queue.clone(),
                ..own.clone()
            };
            (key, sticky.timeout)
        });
        let attended = sticky.filter(|(key, _)| self.matching.is_attended(key, now));
        execution.sticky_until = attended.as_ref().map(|(_, timeout)| match timeout {
            ..=0 => now.plus(STICKY_WAIT),
            nanos => Timestamp(now.0.saturating_add(*nanos)),
        });
        let queue = attended.map_or(own, |(key, _)| key);
        execution.waits_at = Some(queue.clone());
        queue
    }

    /// A poll meets a workflow task.
    pub(super) fn match_workflow_queue(&mut self, round: &mut Round, queue: &QueueKey) {
        while let Some((query, poll)) = self.matching.next_query(queue) {
            match self.hand_out_query(&query) {
                true => round.outgoing.push(Outgoing::Polled {
                    reply: poll.reply,
                    polled: Polled::Query(Box::new(query)),
                }),
                false => self.matching.poll(queue, poll, round.now),
            }
        }
        while let Some(matched) = self.matching.next_match(queue) {
            let attempt = matched.waiting.key();
            let Taker::Poll(poll) = matched.taker else {
                self.matching.take_back(queue, matched.taker, &attempt);
                continue;
            };
            let task = self.take_workflow_task(
                round,
                &matched.waiting,
                queue,
                &poll.worker.identity,
                &poll.request_id,
            );
            match task {
                Some(task) => round.outgoing.push(Outgoing::Polled {
                    reply: poll.reply,
                    polled: Polled::WorkflowTask(Box::new(task)),
                }),
                None => self.matching.take_back(queue, Taker::Poll(poll), &attempt),
            }
        }
    }

    fn take_workflow_task(
        &mut self,
        round: &mut Round,
        waiting: &Waiting,
        queue: &QueueKey,
        identity: &str,
        request_id: &str,
    ) -> Option<WorkflowTaskDispatch> {
        let target = Target {
            namespace: waiting.namespace.clone(),
            workflow_id: waiting.workflow_id.clone(),
            run_id: Some(waiting.run_id),
        };
        let run = match self.find(&target) {
            Ok(run) => run,
            Err(CallError::Rejected(_) | CallError::Quarantined { .. }) => return None,
            Err(error) => {
                tracing::error!(%error, workflow_id = %target.workflow_id, "a queued workflow task cannot be read");
                self.read_later(round.now);
                return None;
            }
        };
        let speculative = self.speculative_start(&run, waiting.event_id).is_some();
        let execution = self.executions.get_mut(&run)?;
        let wanted = speculative
            || matches!(
                execution.state.workflow_task,
                WorkflowTask::Scheduled { scheduled_event_id, attempt, .. }
                    if scheduled_event_id == waiting.event_id && attempt == waiting.attempt
            );
        if !wanted || execution.volatile_start.is_some() {
            return None;
        }
        let sticky = execution
            .sticky
            .as_ref()
            .is_some_and(|sticky| sticky.queue == queue.queue);
        if !sticky {
            // Another worker has the run now.
            execution.sticky = None;
        }
        self.begin_workflow_task(round.now, &run, identity, request_id, sticky)
    }

    /// The start of the scheduled workflow task, volatile from here on.
    fn begin_workflow_task(
        &mut self,
        now: Timestamp,
        run: &RunKey,
        identity: &str,
        request_id: &str,
        sticky: bool,
    ) -> Option<WorkflowTaskDispatch> {
        let execution = self.executions.get(run)?;
        let next_event_id = execution.state.next_event_id;
        let scheduled = match execution.state.workflow_task {
            WorkflowTask::Scheduled {
                scheduled_event_id,
                attempt,
                at,
                ..
            } => WorkflowTaskStart {
                scheduled_event_id,
                attempt,
                scheduled_at: Timestamp(at),
                ..WorkflowTaskStart::default()
            },
            _ => self.speculative_start(run, next_event_id)?,
        };
        let limits = &self.options.limits;
        let execution = self.executions.get_mut(run)?;
        execution.speculative = None;
        let state = &execution.state;
        let last_event_id = state.next_event_id - 1;
        let start = WorkflowTaskStart {
            at: now,
            request_id: request_id.to_owned(),
            identity: identity.to_owned(),
            last_event_id,
            history_bytes: i64::try_from(state.history_bytes).unwrap_or(i64::MAX),
            suggest_continue_as_new: last_event_id >= limits.suggest_continue_events
                || state.history_bytes >= limits.suggest_continue_bytes,
            ..scheduled
        };
        execution.volatile_start = Some(start);
        execution.sticky_until = None;
        execution.waits_at = None;
        execution.last_used = self.rounds;
        let due = execution.due();
        let workflow_id = execution.workflow_id.clone();
        self.timers.set(&run.0, run.1, &workflow_id, due);
        let dispatch = self.task_at_work(run)?;
        let queries = self.attach_queries(run);
        let messages = self.attach_updates(run, dispatch.started_event_id);
        Some(WorkflowTaskDispatch {
            sticky,
            queries,
            messages,
            ..dispatch
        })
    }

    /// The workflow task whose start is out, as its worker got it.
    pub(super) fn task_at_work(&self, run: &RunKey) -> Option<WorkflowTaskDispatch> {
        let execution = self.executions.get(run)?;
        let start = execution.volatile_start.clone()?;
        let state = &execution.state;
        let unwritten = match state.workflow_task {
            WorkflowTask::Scheduled { transient, .. } => transient,
            WorkflowTask::None => start.speculative,
            WorkflowTask::Started { .. } => false,
        };
        let last_event_id = state.next_event_id - 1;
        Some(WorkflowTaskDispatch {
            namespace: run.0.clone(),
            workflow_id: execution.workflow_id.clone(),
            run_id: run.1,
            workflow_type: state.workflow_type.clone(),
            task_queue: state.task_queue.clone(),
            started_event_id: last_event_id + if unwritten { 2 } else { 1 },
            previous_started_event_id: state.previous_started_event_id,
            last_event_id,
            sticky: false,
            unwritten,
            timeout: state.task_timeout_of(start.attempt),
            start,
            queries: HashMap::new(),
            messages: Vec::new(),
            history: None,
        })
    }

    /// What was handed out reached nobody: it waits again.
    pub(super) fn take_given_back(&mut self, round: &mut Round, back: GivenBack) {
        match back {
            GivenBack::WorkflowTask(task) => self.workflow_task_lost(round, &task),
            GivenBack::Query(query) => self.requeue_query(round, *query),
            GivenBack::Activity(dispatch) => round.inner.push_back(Inner {
                namespace: dispatch.namespace,
                workflow_id: dispatch.workflow_id,
                run_id: dispatch.run_id,
                request: Request::ReturnActivityAttempt(
                    orchestrion_history::request::ReturnActivityAttempt {
                        scheduled_event_id: dispatch.scheduled_event_id,
                        attempt: dispatch.attempt,
                        reason: "its poll had ended".to_owned(),
                    },
                ),
            }),
        }
    }

    /// A start that no worker holds: the task waits in the run's own queue again.
    pub(super) fn workflow_task_lost(&mut self, round: &mut Round, task: &WorkflowTaskDispatch) {
        let run = (task.namespace.clone(), task.run_id);
        let Some(execution) = self.executions.get_mut(&run) else {
            return;
        };
        if execution.volatile_start.as_ref() != Some(&task.start) {
            return;
        }
        execution.volatile_start = None;
        execution.sticky = None;
        self.detach_queries(&run, task.queries.keys());
        self.detach_updates(&run);
        if task.start.speculative {
            return self.queue_for_updates(round, &run);
        }
        let Ok(queue) = TaskQueueName::parse(&task.task_queue) else {
            return;
        };
        let key = QueueKey {
            namespace: Some(run.0.clone()),
            kind: QueueKind::Workflow,
            queue,
        };
        let key = self.workflow_queue(&run, key, round.now);
        let waiting = Waiting {
            namespace: run.0.clone(),
            workflow_id: task.workflow_id.clone(),
            run_id: run.1,
            event_id: task.start.scheduled_event_id,
            attempt: task.start.attempt,
            at: task.start.scheduled_at,
            marked: false,
            look_at: Timestamp::ZERO,
        };
        self.matching.add(&key, waiting, round.now);
        round.queues.push_back(key);
    }

    /// A worker's answer: commands carried out, the next task and eager activities handed over with the reply.
    pub(super) fn complete_workflow_task(
        &mut self,
        round: &mut Round,
        completion: Completion,
    ) -> Result<Completed, CallError> {
        self.refuse_while_paused(round.now)?;
        let run = self.find(&completion.target)?;
        let Completion {
            mut complete,
            sticky,
            return_new,
            eager,
            query_results,
            request_id,
            ..
        } = completion;
        let identity = complete.identity.clone();
        let answered = self.hold_answered(&run, query_results);
        let before = self.set_sticky(&run, sticky);
        complete.updates = self.sent_updates(&run);
        // Until it is known what became of them: the run may close in this very step.
        let updates = self.hold_updates(&run);
        let request = Request::CompleteWorkflowTask(Box::new(complete));
        let stepped = self.step(round, &run, &request);
        self.release_updates(&run, updates);
        let reply = match stepped {
            Ok(reply) => reply,
            Err(error) => {
                self.set_sticky(&run, before);
                self.rebuffer(&run, answered);
                return Err(error);
            }
        };
        let (reports, discarded) = match &reply {
            Reply::Done => (Vec::new(), false),
            Reply::Updates { reports, discarded } => (reports.clone(), *discarded),
            _ => {
                self.rebuffer(&run, answered);
                self.detach_updates(&run);
                self.queue_for_updates(round, &run);
                return Ok(Completed {
                    reply,
                    next: None,
                    activities: Vec::new(),
                    reset_to: 0,
                });
            }
        };
        let mut reset_to = 0;
        if discarded && let Some(execution) = self.executions.get_mut(&run) {
            execution.volatile_start = None;
            reset_to = execution.state.previous_started_event_id;
        }
        self.settle_updates(round, &run, reports);
        if !self
            .executions
            .get(&run)
            .is_some_and(|e| e.state.is_running())
        {
            self.close_updates(round, &run);
        }
        self.answer_held(round, answered);
        let mut activities = Vec::with_capacity(eager.len());
        for activity_id in eager {
            let started = self.start_eager(round, &run, &activity_id, &identity, &request_id);
            activities.extend(started?);
        }
        self.queue_for_updates(round, &run);
        let next = return_new
            .then(|| self.take_next(round.now, &run, &identity, &request_id))
            .flatten();
        if next.is_none() {
            self.redirect_queries(round, &run);
            self.queue_for_updates(round, &run);
        }
        Ok(Completed {
            reset_to,
            reply,
            next: next.map(Box::new),
            activities,
        })
    }

    fn set_sticky(&mut self, run: &RunKey, sticky: Option<Sticky>) -> Option<Sticky> {
        let execution = self.executions.get_mut(run)?;
        std::mem::replace(&mut execution.sticky, sticky)
    }

    /// The workflow task that is scheduled now, for the worker that has just answered.
    fn take_next(
        &mut self,
        now: Timestamp,
        run: &RunKey,
        identity: &str,
        request_id: &str,
    ) -> Option<WorkflowTaskDispatch> {
        let execution = self.executions.get_mut(run)?;
        let (scheduled_event_id, at) = match (&execution.state.workflow_task, execution.speculative)
        {
            (
                WorkflowTask::Scheduled {
                    scheduled_event_id,
                    at,
                    ..
                },
                _,
            ) => (*scheduled_event_id, Timestamp(*at)),
            (WorkflowTask::None, Some(speculative)) => (speculative.event_id, speculative.at),
            _ => return None,
        };
        if let Some(queue) = execution.waits_at.take() {
            let attempt = AttemptKey {
                namespace: run.0.clone(),
                run_id: run.1,
                event_id: scheduled_event_id,
            };
            self.matching.remove(&queue, &attempt, at);
        }
        let sticky = self.executions.get(run)?.sticky.is_some();
        self.begin_workflow_task(now, run, identity, request_id, sticky)
    }

    fn start_eager(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        activity_id: &str,
        identity: &str,
        request_id: &str,
    ) -> Result<Option<crate::engine::handle::Dispatch>, CallError> {
        let Some(execution) = self.executions.get(run) else {
            return Ok(None);
        };
        let Some(&scheduled_event_id) = execution.state.activity_ids.get(activity_id) else {
            return Ok(None);
        };
        let request = Request::StartActivityAttempt(StartActivityAttempt {
            scheduled_event_id,
            attempt: 1,
            identity: identity.to_owned(),
            request_id: format!("{request_id}-{scheduled_event_id}"),
            on_stream: false,
        });
        match self.step(round, run, &request) {
            Ok(_) => Ok(self.dispatch(run, scheduled_event_id)),
            // Already over, or with somebody else: it takes the ordinary way.
            Err(CallError::Rejected(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a run and hands its first workflow task to whoever started it.
    pub(super) fn start_eagerly(
        &mut self,
        round: &mut Round,
        target: &Target,
        start: orchestrion_history::request::StartWorkflow,
        identity: &str,
    ) -> Result<Started, CallError> {
        self.refuse_while_paused(round.now)?;
        let request_id = format!("eager-{}", start.request_id);
        let accepted = self.start(round, target, start)?;
        let run = (target.namespace.clone(), accepted.run_id);
        let task = match accepted.reply {
            Reply::Done => self.take_next(round.now, &run, identity, &request_id),
            _ => None,
        };
        Ok(Started {
            accepted,
            task: task.map(Box::new),
        })
    }

    pub(super) fn refuse_while_paused(&self, now: Timestamp) -> Result<(), CallError> {
        match &self.failure {
            Some(error) if self.paused_until.is_some_and(|until| until > now) => {
                Err(error.clone().into())
            }
            _ => Ok(()),
        }
    }

    /// After queues and timers were read again: what is volatile in memory goes on.
    pub(in crate::engine) fn keep_volatile_timers(&mut self) {
        let volatile = self.executions.iter().filter_map(|(run, execution)| {
            execution.volatile_due()?;
            Some((run.clone(), execution.workflow_id.clone(), execution.due()))
        });
        for (run, workflow_id, due) in volatile.collect::<Vec<_>>() {
            self.timers.set(&run.0, run.1, &workflow_id, due);
        }
    }

    /// Whether a worker outside has the workflow task of this event.
    pub(in crate::engine) fn has_volatile_start(&self, run: &RunKey, event_id: i64) -> bool {
        let start = self
            .executions
            .get(run)
            .and_then(|execution| execution.volatile_start.as_ref());
        start.is_some_and(|start| start.scheduled_event_id == event_id)
    }

    /// Notes where a run's workflow task waits.
    pub(in crate::engine) fn waits_at(&mut self, run: &RunKey, queue: &QueueKey) {
        if let Some(execution) = self.executions.get_mut(run) {
            execution.waits_at = Some(queue.clone());
            execution.sticky_until = None;
        }
    }
}
