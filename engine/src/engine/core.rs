//! The core loop's body, without threads or clocks: rounds over runs, queues and timers.
//!
//! A simulator drives this very code: `recover`, then `round` with a time of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrion_history::ids::{
    Namespace, RangeId, RunId, ShardId, TaskQueueName, Timestamp, WorkflowId,
};
use orchestrion_history::record::{Record, decode_entry};
use orchestrion_history::request::{
    Rejection, Reply, Request, RequestCancelWorkflow, StartActivityAttempt, StartWorkflow,
    TerminateWorkflow, WorkflowTaskStart,
};
use orchestrion_history::state::{MutableState, Stage, Status};
use orchestrion_history::store::{Key, KeyRange, QueueKind, Store, StoreError};
use orchestrion_history::tasks::{self, QueueEntry};
use orchestrion_history::{Context, apply, decide, snapshot};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::common::v1::{Memo, SearchAttributes};
use orchestrion_proto::v1::{CurrentRun, RunHead, Visibility};
use tokio::sync::oneshot;

use super::builtin;
use super::call::{Call, ReplyTo};
use super::handle::{Accepted, CallError, Dispatch, Presence, Progress, SessionId, Target};
use super::matching::{AttemptKey, Matching, QueueKey, Waiting};
use super::round::{Answer, Inner, Outgoing, Round, RunKey};
use super::timers::Timers;
use super::{EngineOptions, Surroundings};
use crate::orchestration::Interpreter;
use crate::seams::Chance;

/// After a failed commit the engine waits so long before it tries again by itself.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// A run whose timer fired and is still due is looked at again after so long.
const PAUSE_BETWEEN_FIRES: Duration = Duration::from_secs(1);
/// Runs whose timers fire in one round.
const TIMERS_PER_ROUND: usize = 512;

/// A run in memory: its committed state (within a round, the state to be committed).
pub(super) struct Execution {
    pub(super) workflow_id: WorkflowId,
    pub(super) shard: ShardId,
    pub(super) state: MutableState,
    /// The workflow code of a built-in type.
    pub(super) interpreter: Option<Box<Interpreter>>,
    pub(super) volatile_start: Option<WorkflowTaskStart>,
    /// What the timer index holds for it.
    pub(super) indexed_due: Option<Timestamp>,
    /// Whether its listing is out of date.
    pub(super) relist: bool,
    /// Records in its last snapshot.
    snapshot_records: u64,
    last_used: u64,
}

struct Watcher {
    seen: u64,
    reply: oneshot::Sender<Result<Progress, CallError>>,
}

/// The engine without its thread.
pub struct Core {
    pub(super) store: Arc<dyn Store>,
    pub(super) options: EngineOptions,
    pub(super) ranges: Vec<RangeId>,
    pub(super) executions: HashMap<RunKey, Execution>,
    pub(super) current: HashMap<(Namespace, WorkflowId), RunId>,
    pub(super) matching: Matching,
    pub(super) timers: Timers,
    pub(super) surroundings: Box<dyn Surroundings>,
    pub(super) next_offline_check: Option<Timestamp>,
    pub(super) next_sweep: Timestamp,
    /// Where the sweep under way goes on.
    pub(super) sweep_at: Option<(ShardId, KeyRange)>,
    /// When this process took over.
    pub(super) recovered_at: Timestamp,
    watchers: HashMap<RunKey, Vec<Watcher>>,
    chance: Box<dyn Chance>,
    rounds: u64,
    paused_until: Option<Timestamp>,
    failure: Option<StoreError>,
    /// Runs on which the core contradicted itself, and how.
    set_aside: HashMap<RunKey, String>,
    /// Queues and timers in memory may differ from the store: a commit failed.
    stale_indexes: bool,
}

impl Core {
    pub(super) fn new(
        store: Arc<dyn Store>,
        chance: Box<dyn Chance>,
        surroundings: Box<dyn Surroundings>,
        options: EngineOptions,
        ranges: Vec<RangeId>,
        now: Timestamp,
    ) -> Self {
        let next_sweep = now.plus(options.retention_sweep);
        Self {
            store,
            options,
            ranges,
            executions: HashMap::new(),
            current: HashMap::new(),
            matching: Matching::default(),
            timers: Timers::default(),
            surroundings,
            next_offline_check: None,
            next_sweep,
            sweep_at: None,
            recovered_at: now,
            watchers: HashMap::new(),
            chance,
            rounds: 0,
            paused_until: None,
            failure: None,
            set_aside: HashMap::new(),
            stale_indexes: false,
        }
    }

    /// Calls a round may take.
    pub fn round_calls_max(&self) -> usize {
        self.options.round_calls_max
    }

    /// How long nothing happens by itself; `None` is for ever.
    pub fn idle_for(&self, now: Timestamp) -> Option<Duration> {
        let again = self.stale_indexes.then_some(now);
        let due = [
            self.timers.next(),
            self.next_offline_check,
            again,
            Some(self.next_sweep),
        ]
        .into_iter()
        .flatten()
        .min()?;
        Some(
            self.paused_until
                .map_or(due, |until| due.max(until))
                .since(now),
        )
    }

    /// One round: answers these calls and what is due, with one commit. `true`: stop.
    pub fn round(&mut self, now: Timestamp, calls: impl Iterator<Item = Call>) -> bool {
        self.rounds += 1;
        let mut round = Round::new(now);
        // Before any call: what a call puts into a queue must not be taken for what the store does not hold.
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.read_again(&mut round);
        }
        let mut stop = false;
        for call in calls {
            stop |= self.take(&mut round, call);
        }
        if self.paused_until.is_none() {
            for (namespace, workflow_id, run_id) in self.timers.due(now, TIMERS_PER_ROUND) {
                round.inner.push_back(Inner {
                    namespace,
                    workflow_id,
                    run_id,
                    request: Request::FireTimers,
                });
            }
            self.check_offline(&mut round);
            self.sweep(&mut round);
        }
        self.settle(&mut round);
        self.offline_check_from(now);
        self.commit(round);
        self.evict();
        stop
    }

    /// Works until nothing follows from what was done: matches, and what the engine asks of runs by itself.
    fn settle(&mut self, round: &mut Round) {
        loop {
            if let Some(inner) = round.inner.pop_front() {
                self.ask_inner(round, inner);
            } else if let Some(queue) = round.queues.pop_front() {
                self.match_queue(round, &queue);
            } else {
                return;
            }
        }
    }

    fn take(&mut self, round: &mut Round, call: Call) -> bool {
        match call {
            Call::Request {
                target,
                request,
                reply,
            } => {
                let result = self.ask(round, &target, *request);
                if let ReplyTo::Caller(to) = reply {
                    round.answers.push(Answer::Accepted(to, result));
                }
            }
            Call::Attach {
                namespace,
                queue,
                poller,
                reply,
            } => {
                let key = QueueKey { namespace, queue };
                let id = self.matching.attach(
                    key.clone(),
                    poller.identity,
                    poller.window,
                    poller.tasks,
                    round.now,
                );
                round.queues.push_back(key);
                if reply.send(id).is_err() {
                    self.detach(round, id);
                }
            }
            Call::Release { session } => round.queues.extend(self.matching.release(session)),
            Call::Detach { session } => self.detach(round, session),
            Call::Presence {
                namespace,
                queue,
                reply,
            } => {
                let key = QueueKey {
                    namespace: Some(namespace),
                    queue,
                };
                let (sessions, absent_since) = self
                    .matching
                    .presence(&key)
                    .unwrap_or((0, Some(Timestamp::ZERO)));
                let _ = reply.send(Presence {
                    sessions,
                    absent_since,
                });
            }
            Call::Put { ops, reply } => {
                for op in ops {
                    match op {
                        orchestrion_history::store::Op::Put(key, value) => {
                            round.put(ShardId::REGISTRY, key, value)
                        }
                        orchestrion_history::store::Op::Delete(key) => {
                            round.delete(ShardId::REGISTRY, key)
                        }
                    }
                }
                round.answers.push(Answer::Put(reply));
            }
            Call::Watch {
                target,
                seen,
                reply,
            } => self.watch(round, &target, seen, reply),
            Call::Inspect { target, reply } => {
                let state = self
                    .find(&target)
                    .map(|run| Box::new(self.executions[&run].state.clone()));
                round.answers.push(Answer::State(reply, state));
            }
            Call::Stop => return true,
        }
        false
    }

    fn watch(
        &mut self,
        round: &mut Round,
        target: &Target,
        seen: u64,
        reply: oneshot::Sender<Result<Progress, CallError>>,
    ) {
        let run = match self.find(target) {
            Ok(run) => run,
            Err(error) => return round.answers.push(Answer::Watched(reply, Err(error))),
        };
        let state = &self.executions[&run].state;
        if state.records > seen || state.status.is_closed() {
            let progress = Progress {
                records: state.records,
                closed: state.status.is_closed(),
            };
            round.answers.push(Answer::Watched(reply, Ok(progress)));
        } else {
            let waiting = self.watchers.entry(run).or_default();
            waiting.retain(|watcher| !watcher.reply.is_closed());
            waiting.push(Watcher { seen, reply });
        }
    }

    fn detach(&mut self, round: &mut Round, session: SessionId) {
        for (attempt, workflow_id, number) in self.matching.detach(session, round.now) {
            round.inner.push_back(Inner {
                namespace: attempt.namespace,
                workflow_id,
                run_id: attempt.run_id,
                request: Request::ReturnActivityAttempt(
                    orchestrion_history::request::ReturnActivityAttempt {
                        scheduled_event_id: attempt.event_id,
                        attempt: number,
                        reason: "the worker's connection ended".to_owned(),
                    },
                ),
            });
        }
    }

    // ---- requests ----------------------------------------------------------------------------------

    fn ask(
        &mut self,
        round: &mut Round,
        target: &Target,
        request: Request,
    ) -> Result<Accepted, CallError> {
        if let Some(error) = &self.failure
            && self.paused_until.is_some_and(|until| until > round.now)
        {
            return Err(error.clone().into());
        }
        if let Request::Start(start) = request {
            return self.start(round, target, *start);
        }
        let run = self.find(target)?;
        let reply = self.step(round, &run, &request)?;
        Ok(Accepted {
            run_id: run.1,
            reply,
        })
    }

    fn ask_inner(&mut self, round: &mut Round, inner: Inner) {
        let target = Target {
            namespace: inner.namespace,
            workflow_id: inner.workflow_id,
            run_id: Some(inner.run_id),
        };
        let result = self
            .find(&target)
            .and_then(|run| self.step(round, &run, &inner.request));
        match result {
            Ok(_) => {}
            // Overtaken: the run or the activity closed meanwhile.
            Err(CallError::Rejected(rejection)) => {
                tracing::debug!(%rejection, workflow_id = %target.workflow_id, "overtaken")
            }
            Err(error @ CallError::Quarantined { .. }) => {
                tracing::error!(%error, "the engine's own request failed");
            }
            Err(error) => {
                tracing::error!(%error, workflow_id = %target.workflow_id, "the engine's own request failed");
                self.read_later(round.now);
            }
        }
        if inner.request == Request::FireTimers {
            self.rearm(round.now, &target, inner.run_id);
        }
    }

    /// What was due has fired, or never will: the entry in memory follows the state, and cannot spin.
    fn rearm(&mut self, now: Timestamp, target: &Target, run_id: RunId) {
        let run = (target.namespace.clone(), run_id);
        let due = self
            .executions
            .get(&run)
            .and_then(|execution| execution.state.next_due());
        let due = due.map(|due| {
            if due <= now {
                now.plus(PAUSE_BETWEEN_FIRES)
            } else {
                due
            }
        });
        self.timers
            .set(&target.namespace, run_id, &target.workflow_id, due);
    }

    /// What the store did not give now is taken from it again soon.
    fn read_later(&mut self, now: Timestamp) {
        self.stale_indexes = true;
        self.paused_until = Some(now.plus(PAUSE_AFTER_FAILURE));
    }

    /// Starts a run, or finds the one that this request started before.
    fn start(
        &mut self,
        round: &mut Round,
        target: &Target,
        mut start: StartWorkflow,
    ) -> Result<Accepted, CallError> {
        let shard = ShardId::of(&target.namespace, &target.workflow_id, self.options.shards);
        let key = (target.namespace.clone(), target.workflow_id.clone());
        match self.current_run(shard, &key)? {
            Some(run_id)
                if self
                    .executions
                    .contains_key(&(target.namespace.clone(), run_id)) =>
            {
                let open = &self.executions[&(target.namespace.clone(), run_id)];
                if open.state.is_running() || open.state.create_request_id == start.request_id {
                    let reply = self.step(
                        round,
                        &(target.namespace.clone(), run_id),
                        &Request::Start(Box::new(start)),
                    )?;
                    return Ok(Accepted { run_id, reply });
                }
            }
            Some(run_id) => {
                let current = self.read_current(shard, &key)?.unwrap_or_default();
                // Known from the store alone: the map is for runs in memory.
                self.current.remove(&key);
                if !start.request_id.is_empty() && current.create_request_id == start.request_id {
                    return Ok(Accepted {
                        run_id,
                        reply: Reply::Repeated,
                    });
                }
                if current.status == Status::Running.wire() as i32 {
                    return Err(CallError::Rejected(Rejection::AlreadyStarted {
                        workflow_id: start.workflow_id,
                        run_id: run_id.to_string(),
                        request_id: current.create_request_id,
                    }));
                }
            }
            None => {}
        }
        let run_id = self.new_run_id(round.now);
        start.run_id = run_id.to_string();
        let run = (target.namespace.clone(), run_id);
        let interpreter =
            builtin::is_builtin(&start.workflow_type).then(|| Box::new(Interpreter::new()));
        self.executions.insert(
            run.clone(),
            Execution {
                workflow_id: target.workflow_id.clone(),
                shard,
                state: MutableState::default(),
                interpreter,
                volatile_start: None,
                indexed_due: None,
                relist: true,
                snapshot_records: 0,
                last_used: self.rounds,
            },
        );
        match self.step(round, &run, &Request::Start(Box::new(start))) {
            Ok(reply) => {
                self.current.insert(key, run_id);
                Ok(Accepted { run_id, reply })
            }
            Err(error) => {
                self.executions.remove(&run);
                Err(error)
            }
        }
    }

    /// Time first, so that runs of one moment lie together on disk; the rest is chance.
    fn new_run_id(&mut self, now: Timestamp) -> RunId {
        let mut bytes = [0u8; 16];
        self.chance.fill(&mut bytes[6..]);
        bytes[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        RunId(bytes)
    }

    /// Decides a request on a loaded run and applies what comes of it; then the built-in code has its turn.
    fn step(
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
        let context = Context {
            now: round.now,
            volatile_start: execution.volatile_start.as_ref(),
            limits: &self.options.limits,
        };
        let transition = decide(&execution.state, &context, request)?;
        if !transition.records.is_empty() {
            let followed = self
                .advance(round, run, transition.records)
                .and_then(|()| builtin::take_turns(self, round, run))
                .and_then(|()| self.hold_limits(round, run));
            if let Err(error) = followed {
                return Err(self.contradicted(round, run, error));
            }
        }
        Ok(transition.reply)
    }

    /// The core contradicted itself on this run. What it drafted may not be written, so the whole round is not; the run is set aside until
    /// the next start, so that the others go on.
    fn contradicted(&mut self, round: &mut Round, run: &RunKey, error: CallError) -> CallError {
        tracing::error!(%error, run_id = %run.1, "set aside: the engine contradicts itself on this run");
        metrics::counter!("orchestrion_contradictions_total").increment(1);
        self.set_aside.insert(run.clone(), error.to_string());
        round.poisoned.get_or_insert_with(|| error.to_string());
        error
    }

    /// A run whose journal has grown to a limit ends, and says why: it never just stops. A built-in run first undoes what it did; at twice
    /// the limit it is terminated like any other.
    fn hold_limits(&mut self, round: &mut Round, run: &RunKey) -> Result<(), CallError> {
        let limits = &self.options.limits;
        let Some(execution) = self.executions.get(run) else {
            return Ok(());
        };
        let state = &execution.state;
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
        metrics::counter!("orchestrion_history_limits_total").increment(1);
        let identity = "orchestrion".to_owned();
        let request = if gently {
            Request::RequestCancel(Box::new(RequestCancelWorkflow {
                reason,
                identity,
                request_id: String::new(),
            }))
        } else {
            Request::Terminate(Box::new(TerminateWorkflow {
                reason,
                details: None,
                identity,
            }))
        };
        let context = Context {
            now: round.now,
            volatile_start: None,
            limits,
        };
        let transition = decide(state, &context, &request)?;
        self.advance(round, run, transition.records)?;
        builtin::take_turns(self, round, run)
    }

    /// Applies records to a run and gathers what follows from them.
    pub(super) fn advance(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        records: Vec<Record>,
    ) -> Result<(), CallError> {
        let execution = self.executions.get_mut(run).expect("loaded by the caller");
        let marks = tasks::marks(&execution.state, &records);
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
        let tasks = tasks::after(&marks, &execution.state);
        let workflow_id = execution.workflow_id.clone();
        let (shard, builtin) = (execution.shard, execution.interpreter.is_some());
        round.append(shard, run, &workflow_id, first_seq, records);

        // A built-in workflow task is over before the round is: it never waits in a queue.
        let outside = |entry: &QueueEntry| !(builtin && entry.kind == QueueKind::Workflow);
        for entry in tasks.remove.iter().filter(|e| outside(e)) {
            let (queue, attempt, key) = places(shard, run, entry)?;
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
            if entry.kind == QueueKind::Workflow {
                continue; // Polled workflow tasks come with the Temporal API.
            }
            let (queue, _, _) = places(shard, run, entry)?;
            self.matching
                .add(&queue, waiting(run, &workflow_id, entry), round.now);
            round.queues.push_back(queue);
        }
        Ok(())
    }

    // ---- matching -----------------------------------------------------------------------------------

    fn match_queue(&mut self, round: &mut Round, queue: &QueueKey) {
        while let Some(matched) = self.matching.next_match(queue) {
            let waiting = &matched.waiting;
            if let Some(inner) = builtin::interrupted(self, waiting) {
                self.matching.unmatch(matched.session, &waiting.key());
                round.inner.push_back(inner);
                continue;
            }
            let attempt = waiting.key();
            let target = Target {
                namespace: waiting.namespace.clone(),
                workflow_id: waiting.workflow_id.clone(),
                run_id: Some(waiting.run_id),
            };
            let request = Request::StartActivityAttempt(StartActivityAttempt {
                scheduled_event_id: waiting.event_id,
                attempt: waiting.attempt,
                identity: matched.identity.clone(),
                request_id: format!("{}-{}", matched.session.0, self.rounds),
                on_stream: true,
            });
            let started = self.find(&target).and_then(|run| {
                self.step(round, &run, &request)?;
                Ok(run)
            });
            match started {
                Ok(run) => {
                    let dispatch = self.dispatch(&run, waiting.event_id);
                    match dispatch {
                        Some(dispatch) => round.outgoing.push(Outgoing {
                            session: matched.session,
                            attempt,
                            dispatch,
                        }),
                        None => self.matching.unmatch(matched.session, &attempt),
                    }
                }
                Err(error @ (CallError::Rejected(_) | CallError::Quarantined { .. })) => {
                    tracing::debug!(%error, workflow_id = %target.workflow_id, "a queued attempt is over");
                    self.matching.unmatch(matched.session, &attempt);
                }
                Err(error) => {
                    tracing::error!(%error, workflow_id = %target.workflow_id, "a queued attempt cannot be read");
                    self.matching.unmatch(matched.session, &attempt);
                    self.read_later(round.now);
                }
            }
        }
    }

    fn dispatch(&self, run: &RunKey, event_id: i64) -> Option<Dispatch> {
        let execution = self.executions.get(run)?;
        let activity = execution.state.activities.get(&event_id)?;
        let Stage::Started { at, .. } = activity.stage else {
            return None;
        };
        let span = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        Some(Dispatch {
            namespace: run.0.clone(),
            workflow_id: execution.workflow_id.clone(),
            run_id: run.1,
            workflow_type: execution.state.workflow_type.clone(),
            scheduled_event_id: event_id,
            attempt: activity.attempt,
            activity_id: activity.activity_id.clone(),
            activity_type: activity.activity_type.clone(),
            input: activity.input.get(),
            header: activity.header.get(),
            heartbeat_details: activity.heartbeat_details.get(),
            last_failure: activity.last_failure.get(),
            scheduled_at: Timestamp(activity.scheduled_at),
            attempt_scheduled_at: Timestamp(activity.attempt_scheduled_at),
            started_at: Timestamp(at),
            start_to_close: span(activity.start_to_close),
            schedule_to_close: span(activity.schedule_to_close),
            heartbeat: span(activity.heartbeat),
        })
    }

    // ---- commit -------------------------------------------------------------------------------------

    fn commit(&mut self, mut round: Round) {
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
        if let Some(batch) = round.batch(&self.ranges) {
            if let Err(error) = self.store.commit(&batch) {
                return self.give_up(round, &touched, error);
            }
            self.failure = None;
        }
        self.publish(round, &touched);
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
            round.put(shard, key, current.encode_to_vec().into());
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
        for answer in round.answers.drain(..) {
            answer.send();
        }
        for outgoing in round.outgoing.drain(..) {
            if !self.matching.send(outgoing.session, outgoing.dispatch) {
                tracing::debug!(
                    event_id = outgoing.attempt.event_id,
                    "a worker left before its task came"
                );
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
            self.timers
                .set(&run.0, run.1, workflow_id, execution.indexed_due);
            let progress = Progress {
                records: execution.state.records,
                closed: execution.state.status.is_closed(),
            };
            self.wake(run, progress);
            if progress.closed {
                self.forget(run);
            }
        }
        metrics::counter!("orchestrion_commits_total").increment(1);
        metrics::counter!("orchestrion_transitions_total").increment(touched.len() as u64);
    }

    fn wake(&mut self, run: &RunKey, progress: Progress) {
        let Some(watchers) = self.watchers.remove(run) else {
            return;
        };
        let mut waiting = Vec::new();
        for watcher in watchers {
            if progress.records > watcher.seen || progress.closed {
                let _ = watcher.reply.send(Ok(progress));
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
        for outgoing in round.outgoing {
            self.matching.unmatch(outgoing.session, &outgoing.attempt);
        }
        self.failure = Some(error);
        self.read_later(now);
    }

    /// After a failed commit: fence off what may still be under way, and take queues and timers from the store again.
    fn read_again(&mut self, round: &mut Round) {
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
    pub(super) fn finish_recovery(&mut self, mut round: Round) {
        self.settle(&mut round);
        self.offline_check_from(round.now);
        self.commit(round);
    }

    pub(super) fn forget(&mut self, run: &RunKey) {
        if let Some(execution) = self.executions.remove(run) {
            let key = (run.0.clone(), execution.workflow_id);
            if self.current.get(&key) == Some(&run.1) {
                self.current.remove(&key);
            }
        }
    }

    /// Keeps the longest unused runs on disk only.
    fn evict(&mut self) {
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
        used.select_nth_unstable_by_key(leave, |(last_used, _)| *last_used);
        for (_, run) in &used[..leave] {
            if self
                .executions
                .get(run)
                .is_some_and(|execution| execution.volatile_start.is_none())
            {
                self.forget(run);
            }
        }
    }

    // ---- loading ------------------------------------------------------------------------------------

    /// The run a target means, loaded.
    pub(super) fn find(&mut self, target: &Target) -> Result<RunKey, CallError> {
        let shard = ShardId::of(&target.namespace, &target.workflow_id, self.options.shards);
        let run_id = match target.run_id {
            Some(run_id) => run_id,
            None => self
                .current_run(
                    shard,
                    &(target.namespace.clone(), target.workflow_id.clone()),
                )?
                .ok_or_else(|| not_found(target))?,
        };
        let run = (target.namespace.clone(), run_id);
        if let Some(reason) = self.set_aside.get(&run) {
            let workflow_id = target.workflow_id.to_string();
            return Err(CallError::Quarantined {
                workflow_id,
                reason: reason.clone(),
            });
        }
        if !self.executions.contains_key(&run) {
            match self.load(shard, target, run_id) {
                Ok(execution) => _ = self.executions.insert(run.clone(), execution),
                Err(error) => {
                    self.current
                        .remove(&(target.namespace.clone(), target.workflow_id.clone()));
                    return Err(error);
                }
            }
        }
        let execution = self.executions.get_mut(&run).expect("inserted above");
        if execution.workflow_id != target.workflow_id {
            return Err(not_found(target));
        }
        execution.last_used = self.rounds;
        Ok(run)
    }

    fn current_run(
        &mut self,
        shard: ShardId,
        key: &(Namespace, WorkflowId),
    ) -> Result<Option<RunId>, CallError> {
        if let Some(run_id) = self.current.get(key) {
            return Ok(Some(*run_id));
        }
        let Some(current) = self.read_current(shard, key)? else {
            return Ok(None);
        };
        let run_id = <[u8; 16]>::try_from(&current.run_id[..]).map_err(|_| {
            CallError::Unavailable(format!("the current run of {} is damaged", key.1))
        })?;
        self.current.insert(key.clone(), RunId(run_id));
        Ok(Some(RunId(run_id)))
    }

    fn read_current(
        &self,
        shard: ShardId,
        key: &(Namespace, WorkflowId),
    ) -> Result<Option<CurrentRun>, CallError> {
        let key = Key::CurrentRun {
            shard,
            namespace: key.0.clone(),
            workflow_id: key.1.clone(),
        };
        let Some(bytes) = self.store.get(&key)? else {
            return Ok(None);
        };
        CurrentRun::decode(bytes)
            .map(Some)
            .map_err(|e| CallError::Unavailable(format!("{key} does not decode: {e}")))
    }

    fn load(
        &mut self,
        shard: ShardId,
        target: &Target,
        run_id: RunId,
    ) -> Result<Execution, CallError> {
        let namespace = &target.namespace;
        let key = Key::RunHead {
            shard,
            namespace: namespace.clone(),
            run_id,
        };
        let head = self.store.get(&key)?.ok_or_else(|| not_found(target))?;
        let head = RunHead::decode(head)
            .map_err(|e| CallError::Unavailable(format!("{key} does not decode: {e}")))?;
        if head.workflow_id != target.workflow_id.as_str() {
            return Err(not_found(target));
        }
        if !head.quarantined.is_empty() {
            return Err(CallError::Quarantined {
                workflow_id: head.workflow_id,
                reason: head.quarantined,
            });
        }
        match self.fold(shard, namespace, run_id) {
            Ok((state, interpreter)) => Ok(Execution {
                workflow_id: target.workflow_id.clone(),
                shard,
                indexed_due: state.next_due(),
                snapshot_records: state.records,
                state,
                interpreter,
                volatile_start: None,
                relist: false,
                last_used: self.rounds,
            }),
            Err(FoldError::Store(error))
                if error.kind != orchestrion_history::store::StoreErrorKind::Corrupt =>
            {
                Err(error.into())
            }
            Err(damage) => Err(self.quarantine(shard, target, run_id, head, &damage)),
        }
    }

    /// A journal that cannot be folded is kept as it is; the run is not executed any further, and says why.
    fn quarantine(
        &mut self,
        shard: ShardId,
        target: &Target,
        run_id: RunId,
        mut head: RunHead,
        damage: &FoldError,
    ) -> CallError {
        let reason = damage.to_string();
        tracing::error!(workflow_id = %target.workflow_id, %run_id, %reason, "quarantined: its journal does not fold");
        metrics::counter!("orchestrion_quarantined_total").increment(1);
        head.quarantined.clone_from(&reason);
        let mut round = Round::new(Timestamp::ZERO);
        let key = Key::RunHead {
            shard,
            namespace: target.namespace.clone(),
            run_id,
        };
        round.put(shard, key, head.encode_to_vec().into());
        if let Some(batch) = round.batch(&self.ranges)
            && let Err(error) = self.store.commit(&batch)
        {
            tracing::error!(%error, "the quarantine could not be written; it will be tried again");
        }
        self.timers
            .set(&target.namespace, run_id, &target.workflow_id, None);
        CallError::Quarantined {
            workflow_id: target.workflow_id.to_string(),
            reason,
        }
    }

    fn fold(
        &self,
        shard: ShardId,
        namespace: &Namespace,
        run_id: RunId,
    ) -> Result<(MutableState, Option<Box<Interpreter>>), FoldError> {
        let kept = self.store.get(&Key::Snapshot {
            shard,
            namespace: namespace.clone(),
            run_id,
        })?;
        let mut state = kept
            .and_then(|bytes| snapshot::decode(&bytes))
            .unwrap_or_default();
        let mut interpreter: Option<Box<Interpreter>> = None;
        let mut range = KeyRange::journal_from(shard, namespace, run_id, state.records + 1);
        loop {
            let page = self.store.scan(&range, 256, false)?;
            for (key, entry) in &page.entries {
                let records =
                    decode_entry(entry).map_err(|e| FoldError::Damaged(format!("{key}: {e}")))?;
                for record in &records {
                    apply(&mut state, record).map_err(|e| FoldError::Damaged(e.to_string()))?;
                    if state.records == 1 && builtin::is_builtin(&state.workflow_type) {
                        interpreter = Some(Box::new(Interpreter::new()));
                    }
                    if let (Some(interpreter), Record::Event(event)) = (&mut interpreter, record) {
                        interpreter
                            .apply(event)
                            .map_err(|e| FoldError::Damaged(e.to_string()))?;
                    }
                }
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => break,
            }
        }
        if state.status == Status::Void {
            return Err(FoldError::Damaged("its journal is empty".to_owned()));
        }
        Ok((state, interpreter))
    }
}

#[derive(Debug, thiserror::Error)]
enum FoldError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Damaged(String),
}

fn not_found(target: &Target) -> CallError {
    CallError::Rejected(Rejection::NotFound {
        what: "workflow execution",
        why: format!("{} has no such run in this namespace", target.workflow_id),
    })
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
    Ok((QueueKey { namespace, queue }, attempt, key))
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

/// `attempt: i32 | waiting: u8 | workflow id`, big endian.
pub(super) fn queue_value(workflow_id: &WorkflowId, entry: &QueueEntry) -> Bytes {
    let mut value = Vec::with_capacity(5 + workflow_id.as_str().len());
    value.extend_from_slice(&entry.attempt.to_be_bytes());
    value.push(u8::from(entry.waiting));
    value.extend_from_slice(workflow_id.as_str().as_bytes());
    value.into()
}

/// Reads [`queue_value`].
pub(super) fn read_queue_value(value: &[u8]) -> Option<(WorkflowId, i32, bool)> {
    let (attempt, rest) = value.split_first_chunk::<4>()?;
    let (waiting, id) = rest.split_first()?;
    let workflow_id = WorkflowId::parse(std::str::from_utf8(id).ok()?).ok()?;
    Some((workflow_id, i32::from_be_bytes(*attempt), *waiting != 0))
}

pub(super) fn visibility(
    run: &RunKey,
    workflow_id: &WorkflowId,
    state: &MutableState,
) -> Visibility {
    let memo = state
        .memo
        .iter()
        .filter_map(|(name, payload)| Some((name.clone(), payload.get()?)));
    let attributes = state
        .search_attributes
        .iter()
        .filter_map(|(name, payload)| Some((name.clone(), payload.get()?)));
    Visibility {
        workflow_id: workflow_id.to_string(),
        run_id: run.1.0.to_vec(),
        workflow_type: state.workflow_type.clone(),
        task_queue: state.task_queue.clone(),
        status: state.status.wire().into(),
        started_at: state.started_at,
        closed_at: state.closed_at,
        history_length: state.next_event_id - 1,
        history_bytes: i64::try_from(state.history_bytes).unwrap_or(i64::MAX),
        memo: Some(Memo {
            fields: memo.collect(),
        }),
        search_attributes: Some(SearchAttributes {
            indexed_fields: attributes.collect(),
        }),
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
        )
}
