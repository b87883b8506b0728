//! The commit: the last keys of each touched run, one batch, and what may leave once it is durable.
//!
//! Invariant: after a failed commit, memory holds nothing that the store does not.

use std::time::Duration;

use bytes::Bytes;
use orchestrion_history::ids::{Timestamp, WorkflowId};
use orchestrion_history::snapshot;
use orchestrion_history::store::{Key, StoreError};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::{CurrentRun, RunHead};

use crate::engine::handle::{CallError, Progress};
use crate::engine::matching::Polled;
use crate::engine::polling::{Sticky, WorkflowTaskDispatch};
use crate::engine::round::{Outgoing, Round, RunKey};

use super::index::{lasting_lines, status_line, visibility};
use super::{Core, Execution, PAUSE_AFTER_FAILURE};

/// When so many executions were in memory, and all but one in `MANY_LEAVE_OF` have left it since, the engine comes to rest: what they took
/// is given back.
const MANY_LEAVE: usize = 256;
const MANY_LEAVE_OF: usize = 8;
/// The store has written out by then what it only held in memory.
const REST_AFTER: Duration = Duration::from_secs(1);
/// A run that leaves memory gets a snapshot when so many records lie behind its last one.
const SNAPSHOT_RECORDS_AT_EVICTION: u64 = 64;

impl Core {
    pub(super) fn commit(&mut self, mut round: Round) {
        let touched = std::mem::take(&mut round.touched);
        for (run, _) in &touched {
            self.finish_run(&mut round, run);
        }
        if let Some(message) = round.poisoned.take() {
            let kind = orchestrion_history::store::StoreErrorKind::Unavailable;
            let error = StoreError {
                kind,
                operation: "commit",
                key: None,
                message,
            };
            return self.give_up(round, &touched, error);
        }
        // A round that writes nothing says nothing of the store's health.
        let written = round.batch(&*self.store, &self.ranges).and_then(|batch| {
            batch.map_or(Ok(false), |batch| self.store.commit(&batch).map(|()| true))
        });
        match written {
            Ok(true) => self.failure = None,
            Ok(false) => {}
            Err(error) => return self.give_up(round, &touched, error),
        }
        let ask_again = std::mem::take(&mut round.ask_again);
        let now = round.now;
        self.publish(round, &touched);
        self.ask_again_later(now, &ask_again);
    }

    /// Keys of a run that change with its state: head, current run, timer, listing, snapshot.
    fn finish_run(&mut self, round: &mut Round, run: &RunKey) {
        let Some(execution) = self.executions.get_mut(run) else {
            return;
        };
        let (namespace, run_id) = (&run.0, run.1);
        let shard = execution.shard;
        let state = &execution.state;
        let due = state.next_due();
        if due != execution.indexed_due {
            if let Some(old) = execution.indexed_due {
                round.index_delete(Key::Timer {
                    shard,
                    due: old,
                    namespace: namespace.clone(),
                    run_id,
                });
            }
            if let Some(due) = due {
                let value = Bytes::copy_from_slice(execution.workflow_id.as_str().as_bytes());
                round.index_put(
                    Key::Timer {
                        shard,
                        due,
                        namespace: namespace.clone(),
                        run_id,
                    },
                    value,
                );
            }
            execution.indexed_due = due;
        }
        let state = &execution.state;
        if execution.relist {
            let started = Timestamp(state.started_at);
            let key = Key::Visibility {
                shard,
                namespace: namespace.clone(),
                started,
                run_id,
            };
            round.put(
                shard,
                key,
                visibility(run, &execution.workflow_id, state)
                    .encode_to_vec()
                    .into(),
            );
            let status = i32::from(state.listed_status());
            if execution.listed_status.is_none() {
                let (id, of) = (&execution.workflow_id, &state.workflow_type);
                for line in lasting_lines(shard, run, id, of, started) {
                    round.index_put(line, Bytes::new());
                }
            }
            if execution.listed_status != Some(status) {
                if let Some(old) = execution.listed_status {
                    round.index_delete(status_line(shard, run, old, started));
                }
                round.index_put(status_line(shard, run, status, started), Bytes::new());
                execution.listed_status = Some(status);
            }
            let head = RunHead {
                workflow_id: execution.workflow_id.to_string(),
                status: state.status.wire().into(),
                closed_at: state.closed_at,
                quarantined: String::new(),
                started_at: state.started_at,
            };
            round.put(
                shard,
                Key::RunHead {
                    shard,
                    namespace: namespace.clone(),
                    run_id,
                },
                head.encode_to_vec().into(),
            );
            // A run that another follows in the same round leaves it the workflow id.
            let id = (namespace.clone(), execution.workflow_id.clone());
            let is_newest = self.current.get(&id).is_none_or(|newest| *newest == run_id);
            let current = CurrentRun {
                run_id: run_id.0.to_vec(),
                create_request_id: state.create_request_id.clone(),
                status: state.status.wire().into(),
                started_at: state.started_at,
                closed_at: state.closed_at,
            };
            let key = Key::CurrentRun {
                shard,
                namespace: namespace.clone(),
                workflow_id: execution.workflow_id.clone(),
            };
            if is_newest {
                round.put(shard, key, current.encode_to_vec().into());
            }
            execution.relist = false;
        }
        let snapshot_due = execution.interpreter.is_none()
            && state.is_running()
            && state.records >= execution.snapshot_records + self.options.snapshot_records;
        if snapshot_due && let Some(bytes) = snapshot::encode(state) {
            round.put(
                shard,
                Key::Snapshot {
                    shard,
                    namespace: namespace.clone(),
                    run_id,
                },
                bytes,
            );
            execution.snapshot_records = state.records;
        }
    }

    /// It is durable: everybody learns.
    fn publish(&mut self, mut round: Round, touched: &[(RunKey, WorkflowId)]) {
        self.matching.settled();
        for (run, first_seq, entry) in round.written.drain(..) {
            if let Some(execution) = self.executions.get_mut(&run) {
                execution.tail.push(first_seq, entry);
            }
        }
        for mut answer in round.answers.drain(..) {
            if let Some(task) = answer.workflow_task() {
                self.enclose_history(task);
            }
            answer.send();
        }
        for outgoing in round.outgoing.drain(..) {
            match outgoing {
                Outgoing::Stream {
                    session,
                    attempt,
                    dispatch,
                } => {
                    if !self.matching.send(session, *dispatch) {
                        let event_id = attempt.event_id;
                        tracing::debug!(event_id, "a worker left before its task came");
                    }
                }
                Outgoing::Polled { reply, mut polled } => {
                    if let Polled::WorkflowTask(task) = &mut polled {
                        self.enclose_history(task);
                    }
                    if let Err(polled) = reply.send(polled) {
                        self.given_back.push(polled.into());
                    }
                }
            }
        }
        if !round.outbox.is_empty() {
            self.surroundings
                .outbox_committed(std::mem::take(&mut round.outbox));
        }
        for (run, workflow_id) in touched {
            let Some(execution) = self.executions.get(run) else {
                continue;
            };
            let due = [execution.indexed_due, execution.volatile_due()];
            let due = due.into_iter().flatten().min();
            self.timers.set(&run.0, run.1, workflow_id, due);
            let closed = execution.state.status.is_closed();
            self.wake(run);
            if closed {
                self.forget(run);
            }
        }
        metrics::counter!("orchestrion_commits_total").increment(1);
        metrics::counter!("orchestrion_transitions_total").increment(touched.len() as u64);
    }

    /// The history that a worker lacks goes with its task, if it is at hand.
    fn enclose_history(&self, task: &mut WorkflowTaskDispatch) {
        let run = (task.namespace.clone(), task.run_id);
        let tail = self.executions.get(&run).map(|execution| &execution.tail);
        task.history = tail.and_then(|tail| tail.events(task.first_event_id(), task.last_event_id));
    }

    fn wake(&mut self, run: &RunKey) {
        let Some(watchers) = self.watchers.remove(run) else {
            return;
        };
        let Some(execution) = self.executions.get(run) else {
            return;
        };
        let closed = execution.state.status.is_closed();
        let progress = Progress {
            records: execution.state.records,
            closed,
            tail: closed.then(|| execution.tail.clone()),
        };
        let mut waiting = Vec::new();
        for watcher in watchers {
            if progress.records > watcher.seen || progress.closed {
                let _ = watcher.reply.send(Ok(progress.clone()));
            } else if !watcher.reply.is_closed() {
                waiting.push(watcher);
            }
        }
        if !waiting.is_empty() {
            self.watchers.insert(run.clone(), waiting);
        }
    }

    /// Nothing of it is durable: forget it, fence off whatever of it may still be under way, and read again.
    fn give_up(&mut self, round: Round, touched: &[(RunKey, WorkflowId)], error: StoreError) {
        tracing::error!(%error, kind = ?error.kind, runs = touched.len(), "a commit failed; its callers are told to ask again");
        metrics::counter!("orchestrion_commit_failures_total").increment(1);
        let answer: CallError = error.clone().into();
        let now = round.now;
        for waiting in round.answers {
            waiting.fail(&answer);
        }
        for (run, _) in touched {
            self.forget(run);
        }
        self.matching.restore();
        // Some of it was only ever in this round; what waits is read again before anybody is given it.
        self.matching.clear_waiting();
        for outgoing in round.outgoing {
            match outgoing {
                Outgoing::Stream {
                    session, attempt, ..
                } => self.matching.unmatch(session, &attempt),
                // Its poll learns that there is nothing; what it would have got is found again.
                Outgoing::Polled { polled, .. } => match polled {
                    Polled::Activity(_) => {}
                    Polled::WorkflowTask(_) | Polled::Query(_) => {
                        self.given_back.push(polled.into());
                    }
                },
            }
        }
        self.failure = Some(error);
        self.read_later(now);
    }

    /// After a failed commit: fence off what may still be under way, and take queues and timers from the store again.
    pub(super) fn read_again(&mut self, round: &mut Round) {
        if !self.stale_indexes {
            return;
        }
        match self.reacquire().and_then(|()| self.reload_indexes(round)) {
            Ok(()) => self.stale_indexes = false,
            Err(error) => {
                tracing::error!(%error, "the store cannot be read again yet");
                self.paused_until = Some(round.now.plus(PAUSE_AFTER_FAILURE));
            }
        }
    }

    /// Commits what a recovery asks of runs.
    pub(in crate::engine) fn finish_recovery(&mut self, mut round: Round) {
        self.settle(&mut round);
        self.offline_check_from(round.now);
        self.commit(round);
    }

    pub(in crate::engine) fn forget(&mut self, run: &RunKey) {
        if let Some(execution) = self.executions.remove(run) {
            let key = (run.0.clone(), execution.workflow_id);
            if self.current.get(&key) == Some(&run.1) {
                self.current.remove(&key);
            }
        }
    }

    /// Somebody else may have written to any run: all of them are read again when they are needed.
    pub(in crate::engine) fn forget_everything(&mut self) {
        self.executions.clear();
        self.current.clear();
        self.parked.clear();
    }

    /// Keeps runs on disk only that nothing has happened to for a while, or the longest unused ones when there are too many.
    pub(super) fn evict(&mut self) {
        if self.rest_at.is_some_and(|at| at <= self.now) {
            self.rest_at = None;
            crate::memory::give_back();
        }
        if self.now >= self.next_idle_look {
            self.next_idle_look = self.now.plus(self.options.idle_after / 2);
            let idle = |execution: &Execution| {
                self.now.since(execution.used_at) >= self.options.idle_after
            };
            let idle = self.executions.iter().filter(|(_, e)| idle(e));
            let mut idle: Vec<RunKey> = idle.map(|(run, _)| run.clone()).collect();
            idle.sort_unstable();
            self.most_in_memory = self.most_in_memory.max(self.executions.len());
            self.leave_memory(idle);
            let left = self.executions.len();
            if self.most_in_memory >= MANY_LEAVE && left < self.most_in_memory / MANY_LEAVE_OF {
                self.most_in_memory = left;
                self.store.rest();
                self.rest_at = Some(self.now.plus(REST_AFTER));
            }
        }
        if self.executions.len() <= self.options.cached_executions_max {
            return;
        }
        let mut used: Vec<(u64, RunKey)> = self
            .executions
            .iter()
            .map(|(run, execution)| (execution.last_used, run.clone()))
            .collect();
        let keep = (self.options.cached_executions_max * 9 / 10).max(1);
        let leave = used.len() - keep;
        // By name where the use is the same: the same calls give the same journals.
        used.select_nth_unstable(leave);
        self.leave_memory(used.drain(..leave).map(|(_, run)| run).collect());
    }

    /// Those that hold nothing which only memory has leave it. Which worker has them cached is remembered.
    fn leave_memory(&mut self, mut runs: Vec<RunKey>) {
        let asked = self.asked_runs();
        runs.retain(|run| {
            let execution = &self.executions[run];
            execution.volatile_start.is_none()
                && execution.sticky_until.is_none()
                && execution.buffered_queries.is_empty()
                && execution.updates.is_empty()
                && !asked.contains(run)
        });
        self.keep_snapshots(&runs);
        for run in &runs {
            if let Some(execution) = self.executions.get_mut(run)
                && let Some(sticky) = execution.sticky.take()
            {
                let key = (self.parked_names.0.shared(&run.0), run.1);
                let queue = self.parked_names.1.shared(&sticky.queue);
                self.parked.insert(key, Sticky { queue, ..sticky });
            }
            self.forget(run);
        }
        if !runs.is_empty() {
            self.executions.shrink_to(self.executions.len() * 2);
            self.current.shrink_to(self.current.len() * 2);
        }
    }

    /// Runs that leave memory come back faster from a snapshot than from a long journal. A snapshot that cannot be written is only missed.
    fn keep_snapshots(&mut self, leaving: &[RunKey]) {
        let mut round = Round::new(Timestamp::ZERO);
        for run in leaving {
            let Some(execution) = self.executions.get(run) else {
                continue;
            };
            let behind = execution.state.records - execution.snapshot_records;
            if execution.interpreter.is_some() || behind < SNAPSHOT_RECORDS_AT_EVICTION {
                continue;
            }
            if let Some(bytes) = snapshot::encode(&execution.state) {
                let key = Key::Snapshot {
                    shard: execution.shard,
                    namespace: run.0.clone(),
                    run_id: run.1,
                };
                round.put(execution.shard, key, bytes);
            }
        }
        let written = round
            .batch(&*self.store, &self.ranges)
            .and_then(|batch| batch.map_or(Ok(()), |batch| self.store.commit(&batch)));
        if let Err(error) = written {
            tracing::warn!(%error, "snapshots of evicted runs were not written; their journals will be folded whole");
        }
    }
}
