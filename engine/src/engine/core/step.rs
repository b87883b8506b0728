//! A step: a request on a loaded run is decided, applied, and what follows from it gathered into the round.
//!
//! Invariant: a run on which the core contradicts itself is set aside, and nothing of its round is written.

use std::borrow::Cow;

use orchestrion_history::ids::{ShardId, TaskQueueName, Timestamp, WorkflowId};
use orchestrion_history::machines::SearchAttributeCheck;
use orchestrion_history::outward;
use orchestrion_history::record::Record;
use orchestrion_history::request::{Rejection, Reply, Request};
use orchestrion_history::store::{Key, QueueKind};
use orchestrion_history::tasks::{self, QueueEntry};
use orchestrion_history::{Context, apply, decide};

use crate::engine::builtin;
use crate::engine::handle::CallError;
use crate::engine::matching::{AttemptKey, QueueKey, Waiting};
use crate::engine::round::{Round, RunKey};

use super::index::queue_value;
use super::{Core, limits};
use crate::visibility::Derived;

impl Core {
    /// Decides a request on a loaded run and applies what comes of it; then the built-in code has its turn.
    pub(super) fn step(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        request: &Request,
    ) -> Result<Reply, CallError> {
        let execution = self
            .executions
            .get_mut(run)
            .expect("found or inserted by the caller");
        execution.last_used = self.rounds;
        execution.used_at = self.now;
        let request = match execution.interpreter {
            Some(_) => builtin::taken(request),
            None => Cow::Borrowed(request),
        };
        let request = request.as_ref();
        // Only workflow code names search attributes later than its start, which is checked where it comes in.
        let catalogue = match request {
            Request::CompleteWorkflowTask(_) => self.surroundings.catalogue(&run.0),
            _ => None,
        };
        let context = Context {
            now: round.now,
            volatile_start: execution.volatile_start.as_ref(),
            sticky: execution.sticky.is_some(),
            sticky_expired: execution.volatile_start.is_none()
                && execution
                    .sticky_until
                    .is_some_and(|until| until <= round.now),
            namespace: run.0.as_str(),
            search_attributes: catalogue
                .as_deref()
                .map(|known| known as &dyn SearchAttributeCheck),
            ..Context::new(round.now, &self.options.limits)
        };
        let transition =
            decide(&execution.state, &context, request).inspect_err(limits::refused)?;
        limits::failed_task(&transition.reply);
        limits::forced(&transition.records);
        if matches!(
            transition.reply,
            Reply::Updates {
                discarded: true,
                ..
            }
        ) {
            execution.volatile_start = None; // The task is over, and no record says that it was.
        }
        let before = limits::Size::of(&execution.state);
        if !transition.records.is_empty() {
            let followed = self
                .advance(round, run, transition.records)
                .and_then(|()| match transition.next_run {
                    Some(next) => self.begin_next(round, run, *next),
                    None => Ok(()),
                })
                .and_then(|()| builtin::take_turns(self, round, run))
                .and_then(|()| self.hold_limits(round, run, before));
            if let Err(error) = followed {
                return Err(self.contradicted(round, run, error));
            }
        }
        Ok(transition.reply)
    }

    /// The core contradicted itself on this run. What it drafted may not be written, so the whole round is not; the run is set aside until
    /// the next start, so that the others go on.
    pub(super) fn contradicted(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        error: CallError,
    ) -> CallError {
        tracing::error!(%error, run_id = %run.1, "set aside: the engine contradicts itself on this run");
        metrics::counter!("orchestrion_contradictions_total").increment(1);
        self.set_aside.insert(run.clone(), error.to_string());
        round.poisoned.get_or_insert_with(|| error.to_string());
        error
    }

    /// Applies records to a run and gathers what follows from them.
    pub(in crate::engine) fn advance(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        records: Vec<Record>,
    ) -> Result<(), CallError> {
        let execution = self.executions.get_mut(run).expect("loaded by the caller");
        let marks = tasks::marks(&execution.state, &records);
        let derived = Derived::of(&execution.state);
        let first_seq = execution.state.records + 1;
        for record in &records {
            let folded = apply(&mut execution.state, record)
                .map_err(|illegal| illegal.to_string())
                .and_then(|()| match (&mut execution.interpreter, record) {
                    (Some(interpreter), Record::Event(event)) => {
                        interpreter.apply(event).map_err(|e| e.to_string())
                    }
                    _ => Ok(()),
                });
            if let Err(reason) = folded {
                // The core contradicts itself. Nothing of it may be written; the run is read again from what is.
                let workflow_id = execution.workflow_id.to_string();
                tracing::error!(%workflow_id, %reason, "a decided record cannot be applied");
                self.forget(run);
                return Err(CallError::Unavailable(format!(
                    "workflow execution {workflow_id}: {reason}"
                )));
            }
            execution.relist |=
                matches!(record, Record::Event(event) if changes_listing(event.event_type()));
        }
        execution.relist |= derived != Derived::of(&execution.state);
        let lost = execution.settle_volatile(&records);
        let outdated = execution
            .speculative
            .is_some_and(|task| execution.state.next_event_id != task.event_id);
        let tasks = tasks::after(&marks, &execution.state);
        if outward::due(&execution.state).is_some() && !round.between.contains(run) {
            round.between.push_back(run.clone());
        }
        let workflow_id = execution.workflow_id.clone();
        let (shard, builtin) = (execution.shard, execution.interpreter.is_some());
        round.append(shard, run, &workflow_id, first_seq, records);

        if outdated {
            self.drop_speculative(run);
        }

        // A built-in workflow task is over before the round is: it never waits in a queue.
        let outside = |entry: &QueueEntry| !(builtin && entry.kind == QueueKind::Workflow);
        for entry in tasks.remove.iter().filter(|e| outside(e)) {
            let (queue, attempt, key) = places(shard, run, entry)?;
            if entry.kind == QueueKind::Workflow
                && let Some(place) = self.leave_queue(run)
            {
                self.matching.remove(&place, &attempt, entry.at);
            }
            self.matching.remove(&queue, &attempt, entry.at);
            round.index_delete(key);
        }
        for entry in tasks.put.iter().filter(|e| outside(e)) {
            let (_, _, key) = places(shard, run, entry)?;
            let value = queue_value(&workflow_id, entry);
            if marks.stood(entry) {
                round.index_replace(key, value)
            } else {
                round.index_put(key, value)
            }
        }
        for entry in tasks.dispatch.iter().filter(|e| outside(e)) {
            let (mut queue, _, _) = places(shard, run, entry)?;
            if entry.kind == QueueKind::Workflow {
                queue = self.workflow_queue(run, queue, round.now);
            }
            self.matching
                .add(&queue, waiting(run, &workflow_id, entry), round.now);
            round.queues.push_back(queue);
        }
        if lost {
            self.detach_updates(run);
        }
        if tasks.closed {
            self.redirect_queries(round, run);
            self.close_updates(round, run);
        } else {
            self.queue_for_updates(round, run);
        }
        Ok(())
    }

    /// Where the run's workflow task waits, which it does no longer.
    fn leave_queue(&mut self, run: &RunKey) -> Option<QueueKey> {
        let execution = self.executions.get_mut(run)?;
        execution.sticky_until = None;
        execution.waits_at.take()
    }
}

/// Where an entry stands: its queue, its attempt, its key in the index.
fn places(
    shard: ShardId,
    run: &RunKey,
    entry: &QueueEntry,
) -> Result<(QueueKey, AttemptKey, Key), CallError> {
    let queue =
        TaskQueueName::parse(&entry.queue).map_err(|e| Rejection::Invalid(e.to_string()))?;
    let namespace = (!builtin::is_shared_queue(queue.as_str())).then(|| run.0.clone());
    let attempt = AttemptKey {
        namespace: run.0.clone(),
        run_id: run.1,
        event_id: entry.event_id,
    };
    let key = Key::Queue {
        shard,
        namespace: run.0.clone(),
        kind: entry.kind,
        queue: queue.clone(),
        at: entry.at,
        run_id: run.1,
        event_id: entry.event_id,
    };
    let place = QueueKey {
        namespace,
        kind: entry.kind,
        queue,
    };
    Ok((place, attempt, key))
}

fn waiting(run: &RunKey, workflow_id: &WorkflowId, entry: &QueueEntry) -> Waiting {
    Waiting {
        namespace: run.0.clone(),
        workflow_id: workflow_id.clone(),
        run_id: run.1,
        event_id: entry.event_id,
        attempt: entry.attempt,
        at: entry.at,
        marked: false,
        look_at: Timestamp::ZERO,
    }
}

fn changes_listing(event: orchestrion_proto::temporal::api::enums::v1::EventType) -> bool {
    use orchestrion_proto::temporal::api::enums::v1::EventType;
    orchestrion_history::record::closes_run(event)
        || matches!(
            event,
            EventType::WorkflowExecutionStarted
                | EventType::WorkflowPropertiesModified
                | EventType::UpsertWorkflowSearchAttributes
                | EventType::WorkflowExecutionPaused
                | EventType::WorkflowExecutionUnpaused
        )
}
