//! The core loop's body, without threads or clocks: rounds over runs, queues and timers.
//!
//! ```text
//!  mod.rs: a round, and what a call asks    step.rs: decide, apply, gather    hand_out.rs: tasks meet sessions
//!  start.rs: who has a workflow id    between.rs: what one run asks of another    reset.rs: a run from another's history
//!  commit.rs: one batch, then everybody learns    load.rs: a run from the store    index.rs: what the indexes hold of it
//!  workflow_tasks.rs: turns of workflow code by workers outside    queries.rs: questions to it
//! ```
//!
//! A simulator drives this very code: `recover`, then `round` with a time of its own.

mod between;
mod commit;
mod hand_out;
pub(super) mod index;
mod leaving;
mod limits;
mod load;
mod queries;
mod reset;
mod start;
mod step;
mod updates;
mod workflow_tasks;

use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use orchestrion_history::ids::{
    Namespace, RangeId, RunId, ShardId, TaskQueueName, Timestamp, WorkflowId,
};
use orchestrion_history::outward;
use orchestrion_history::request::{Request, WorkflowTaskStart};
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{KeyRange, QueueKind, Store, StoreError};
use tokio::sync::oneshot;

use self::queries::PendingQuery;
use self::updates::{PendingUpdate, Speculative};
use crate::engine::call::{Call, GivenBack, ReplyTo};
use crate::engine::handle::{Accepted, CallError, Presence, Progress, SessionId, Target};
use crate::engine::matching::{Matching, QueueKey};
use crate::engine::names::Names;
use crate::engine::polling::Sticky;
use crate::engine::removal::Told;
use crate::engine::round::{Answer, Inner, Round, RunKey};
use crate::engine::tail::Tail;
use crate::engine::timers::Timers;
use crate::engine::{EngineOptions, Surroundings};
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
    /// The worker that has it cached.
    pub(super) sticky: Option<Sticky>,
    /// Until when its workflow task waits for that worker.
    sticky_until: Option<Timestamp>,
    /// The queue in which its workflow task waits.
    waits_at: Option<QueueKey>,
    /// Questions that wait for, or ride on, its workflow task.
    buffered_queries: Vec<u64>,
    /// Updates that somebody waits for.
    updates: Vec<PendingUpdate>,
    /// A workflow task that only updates ask for, in its queue.
    speculative: Option<Speculative>,
    /// What the timer index holds for it.
    pub(super) indexed_due: Option<Timestamp>,
    /// Whether its listing is out of date.
    pub(super) relist: bool,
    /// The status under which the index has it; none before its first commit.
    listed_status: Option<i32>,
    /// Records in its last snapshot.
    snapshot_records: u64,
    last_used: u64,
    used_at: Timestamp,
    /// Its newest entries, for those who are told of them.
    tail: Tail,
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
    queries: HashMap<u64, PendingQuery>,
    next_query: u64,
    /// Questions that wait for a sticky worker, and until when.
    sticky_queries: Vec<(Timestamp, u64)>,
    /// What was handed to polls that had ended.
    given_back: Vec<GivenBack>,
    chance: Box<dyn Chance>,
    rounds: u64,
    /// The time of this round.
    now: Timestamp,
    /// When idle executions are looked for.
    next_idle_look: Timestamp,
    /// The most executions that an idle look found in memory since the engine last came to rest.
    most_in_memory: usize,
    /// When the engine came to rest and what its executions took is given back.
    rest_at: Option<Timestamp>,
    /// The workers that have executions cached which are not in memory here.
    parked: HashMap<RunKey, Sticky>,
    /// The namespaces and queues of those.
    parked_names: (Names<Namespace>, Names<TaskQueueName>),
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
            queries: HashMap::new(),
            next_query: 0,
            sticky_queries: Vec::new(),
            given_back: Vec::new(),
            chance,
            rounds: 0,
            now,
            next_idle_look: now,
            most_in_memory: 0,
            rest_at: None,
            parked: HashMap::new(),
            parked_names: Default::default(),
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
        let again = (self.stale_indexes || !self.given_back.is_empty()).then_some(now);
        let idle_look = (!self.executions.is_empty()).then_some(self.next_idle_look);
        let due = [
            self.timers.next(),
            idle_look,
            self.rest_at,
            self.next_offline_check,
            self.next_unsticking(),
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
        self.now = now;
        let mut round = Round::new(now);
        // Before any call: what a call puts into a queue must not be taken for what the store does not hold.
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.read_again(&mut round);
        }
        for back in std::mem::take(&mut self.given_back) {
            self.take_given_back(&mut round, back);
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
            self.unstick_queries(&mut round);
            self.sweep(&mut round);
        }
        self.settle(&mut round);
        self.remove_leaving(&mut round);
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
            } else if let Some(run) = round.between.pop_front() {
                self.cross(round, &run);
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
                match reply {
                    ReplyTo::Caller(to) => round.answers.push(Answer::Accepted(to, result)),
                    ReplyTo::Numbered(number, to) => {
                        round.answers.push(Answer::Numbered(number, to, result));
                    }
                    ReplyTo::Nobody => {}
                }
            }
            Call::Recorded {
                target,
                request,
                ops,
                reply,
            } => {
                let result = self.ask(round, &target, *request);
                if result.is_ok() {
                    for op in ops {
                        round.add(ShardId::REGISTRY, op);
                    }
                }
                round.answers.push(Answer::Accepted(reply, result));
            }
            Call::Attach {
                namespace,
                queue,
                poller,
                reply,
            } => {
                let key = QueueKey {
                    namespace,
                    kind: QueueKind::Activity,
                    queue,
                };
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
            Call::Pause { session } => self.matching.pause(session),
            Call::Detach { session } => self.detach(round, session),
            Call::Presence {
                namespace,
                queue,
                reply,
            } => {
                let key = QueueKey {
                    namespace: Some(namespace),
                    kind: QueueKind::Activity,
                    queue,
                };
                let (sessions, absent_since) = self
                    .matching
                    .presence(&key, round.now)
                    .unwrap_or((0, Some(Timestamp::ZERO)));
                let _ = reply.send(Presence {
                    sessions,
                    absent_since,
                });
            }
            Call::Put { ops, reply } => {
                for op in ops {
                    round.add(ShardId::REGISTRY, op);
                }
                round.answers.push(Answer::Put(reply));
            }
            Call::Remove {
                target,
                beside,
                reply,
            } => self.ask_removal(round, &target, Told { beside, reply }),
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
            Call::Poll {
                namespace,
                kind,
                queue,
                poll,
            } => {
                let key = QueueKey {
                    namespace: Some(namespace),
                    kind,
                    queue,
                };
                self.matching.poll(&key, poll, round.now);
                round.queues.push_back(key);
            }
            Call::GiveBack(back) => self.take_given_back(round, back),
            Call::CompleteWorkflowTask { completion, reply } => {
                let result = self.complete_workflow_task(round, *completion);
                round.answers.push(Answer::Completed(reply, result));
            }
            Call::StartEagerly {
                target,
                start,
                identity,
                reply,
            } => {
                let result = self.start_eagerly(round, &target, *start, &identity);
                round.answers.push(Answer::Started(reply, result));
            }
            Call::TaskAtWork { target, reply } => {
                let task = self.find(&target).map(|run| self.task_at_work(&run));
                let _ = reply.send(task);
            }
            Call::Update {
                target,
                id,
                request,
                wait,
                reply,
            } => self.ask_update(round, &target, id, request.map(|r| *r), wait, reply),
            Call::Query {
                target,
                query,
                reply,
            } => self.ask_query(round, &target, *query, reply),
            Call::AnswerQuery {
                namespace,
                id,
                outcome,
                reply,
            } => {
                let _ = reply.send(self.answer_query(round, &namespace, id, *outcome));
            }
            Call::DescribeQueue {
                namespace,
                kind,
                queue,
                reply,
            } => {
                let key = QueueKey {
                    namespace: Some(namespace),
                    kind,
                    queue,
                };
                let _ = reply.send(self.matching.describe(&key));
            }
            Call::Leave { namespace, leaving } => {
                self.leave(round, &namespace, &leaving);
            }
            Call::ResetSticky { target } => {
                if let Ok(run) = self.find(&target)
                    && let Some(execution) = self.executions.get_mut(&run)
                {
                    execution.sticky = None;
                }
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
                tail: None,
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

    fn ask(
        &mut self,
        round: &mut Round,
        target: &Target,
        request: Request,
    ) -> Result<Accepted, CallError> {
        self.refuse_while_paused(round.now)?;
        if let Request::Start(start) = request {
            return self.start(round, target, *start);
        }
        if let Request::Reset(reset) = request {
            return self.reset(round, target, *reset);
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
        if inner.request == Request::FireTimers {
            let run = (target.namespace.clone(), inner.run_id);
            self.unstick_speculative(round, &run);
        }
        let result = self
            .find(&target)
            .and_then(|run| self.step(round, &run, &inner.request));
        match result {
            Ok(_) => {
                let run = (target.namespace.clone(), inner.run_id);
                let asks = |core: &Self| {
                    let execution = core.executions.get(&run)?;
                    outward::due(&execution.state)
                };
                if inner.request == Request::FireTimers && asks(self).is_some() {
                    round.between.push_back(run);
                }
            }
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
        let due = self.executions.get(&run).and_then(Execution::due);
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

    /// Time first, so that runs of one moment lie together on disk; the rest is chance.
    pub(super) fn new_run_id(&mut self, now: Timestamp) -> RunId {
        let mut bytes = [0u8; 16];
        self.chance.fill(&mut bytes[6..]);
        bytes[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        RunId(bytes)
    }
}
