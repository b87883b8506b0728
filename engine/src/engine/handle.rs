//! The door to the engine: what the wires may ask of it, and what they get back.
//!
//! Every call is a message to the one engine thread; its answer comes after the commit it depends on.
//!
//! Invariant: a full inbox is an answer (`Busy`), never memory; reads see committed state only.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use orchestrion_history::ids::{Namespace, RunId, TaskQueueName, Timestamp, WorkflowId};
use orchestrion_history::record::Record;
use orchestrion_history::request::{Rejection, Reply, Request, StartWorkflow};
use orchestrion_history::state::{MutableState, Retry};
use orchestrion_history::store::{
    Key, KeyRange, Op, Store, StoreError, StoreErrorKind, read_entry,
};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::common::v1::{Header, Payloads, Priority};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::v1::{CurrentRun, RunHead, Visibility};
use tokio::sync::{mpsc, oneshot};

pub use super::call::NumberedAnswer;
use super::call::{Call, Poller, ReplyTo};
use super::tail::Tail;
use crate::visibility::Index;

/// Which execution: without a run id, the newest run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The tenant.
    pub namespace: Namespace,
    /// The execution.
    pub workflow_id: WorkflowId,
    /// One run of it.
    pub run_id: Option<RunId>,
}

/// An accepted request.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The run it concerned.
    pub run_id: RunId,
    /// What the caller learns.
    pub reply: Reply,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The request is refused; it left no trace.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The engine's inbox is full; nothing was done.
    #[error("the engine is busy: ask again in {} ms", retry_after.as_millis())]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The commit failed, or the store cannot be read; nothing of the request is kept.
    #[error("{0}")]
    Unavailable(String),
    /// The engine stops; nothing was done.
    #[error("the engine is shutting down: ask again after its restart")]
    ShuttingDown,
    /// The execution's journal is damaged; it is kept as it is and not run any further.
    #[error("workflow execution {workflow_id} is quarantined: {reason}")]
    Quarantined {
        /// Which.
        workflow_id: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Says which attached worker a slot or a task belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A worker on a stream: tasks come while it has free slots.
#[derive(Debug)]
pub struct Session {
    /// Its id, for [`Handle::release`] and [`Handle::detach`].
    pub id: SessionId,
    /// Attempts, each committed as started; the channel ends when the engine stops.
    pub tasks: mpsc::UnboundedReceiver<Dispatch>,
}

/// An attempt of an activity, handed to a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The tenant.
    pub namespace: Namespace,
    /// The execution.
    pub workflow_id: WorkflowId,
    /// Its run.
    pub run_id: RunId,
    /// The type of the workflow that scheduled it.
    pub workflow_type: String,
    /// Its scheduling event.
    pub scheduled_event_id: i64,
    /// 1 for the first; no two attempts have the same.
    pub attempt: i32,
    /// Its number as workers see it: counted anew when somebody has the activity begin anew.
    pub number: i32,
    /// The id the workflow gave it.
    pub activity_id: String,
    /// What is to be done.
    pub activity_type: String,
    /// With what.
    pub input: Option<Payloads>,
    /// Travels beside the input.
    pub header: Option<Header>,
    /// Of the attempt before.
    pub heartbeat_details: Option<Payloads>,
    /// Of the attempt before.
    pub last_failure: Option<Failure>,
    /// When the activity was scheduled.
    pub scheduled_at: Timestamp,
    /// When this attempt was scheduled.
    pub attempt_scheduled_at: Timestamp,
    /// When this attempt started.
    pub started_at: Timestamp,
    /// Zero is unlimited.
    pub start_to_close: Duration,
    /// Zero is unlimited.
    pub schedule_to_close: Duration,
    /// Zero is none.
    pub heartbeat: Duration,
    /// What follows a failure.
    pub retry: Retry,
    /// Its own, with what it leaves open from its workflow.
    pub priority: Option<Priority>,
}

/// A run as its journal says.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The execution.
    pub workflow_id: WorkflowId,
    /// Its run.
    pub run_id: RunId,
    /// All records, in order.
    pub records: Vec<Record>,
}

/// The door. Clones share it.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inbox: Sender<Call>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shards: u16,
}

impl Handle {
    /// A door without a loop behind it: whoever drives a [`Core`](super::Core) by hand takes the calls from the other end.
    pub fn detached(
        store: Arc<dyn Store>,
        shards: u16,
        calls_max: usize,
    ) -> (Self, Receiver<Call>) {
        let (inbox, calls) = crossbeam_channel::bounded(calls_max);
        let handle = Self {
            inbox,
            store,
            shards,
        };
        (handle, calls)
    }

    /// Asks something of an existing execution; answered after its commit.
    pub async fn request(&self, target: Target, request: Request) -> Result<Accepted, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Request {
            target,
            request: Box::new(request),
            reply: ReplyTo::Caller(reply),
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Asks like [`Handle::request`]; the operations are in the batch of what is accepted, and nowhere if it is not.
    pub async fn request_with(
        &self,
        target: Target,
        request: Request,
        ops: Vec<Op>,
    ) -> Result<Accepted, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Recorded {
            target,
            request: Box::new(request),
            ops,
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Asks like [`Handle::request`], without waiting: the answer comes to `answers` under this number.
    pub fn ask(
        &self,
        target: Target,
        request: Request,
        number: u64,
        answers: &mpsc::UnboundedSender<NumberedAnswer>,
    ) -> Result<(), CallError> {
        self.send(Call::Request {
            target,
            request: Box::new(request),
            reply: ReplyTo::Numbered(number, answers.clone()),
        })
    }

    /// Starts a run. A repeat of the creating request id is answered `Reply::Repeated` with the first one's run;
    /// another start while a run is open is [`Rejection::AlreadyStarted`].
    pub async fn start(
        &self,
        namespace: Namespace,
        start: StartWorkflow,
    ) -> Result<Accepted, CallError> {
        let workflow_id =
            WorkflowId::parse(&start.workflow_id).map_err(|e| Rejection::Invalid(e.to_string()))?;
        let target = Target {
            namespace,
            workflow_id,
            run_id: None,
        };
        self.request(target, Request::Start(Box::new(start))).await
    }

    /// Attaches a worker to a queue with `window` free slots. `namespace` is `None` only for the engine's own workers,
    /// which serve every tenant.
    pub async fn attach(
        &self,
        namespace: Option<Namespace>,
        queue: TaskQueueName,
        identity: String,
        window: u32,
    ) -> Result<Session, CallError> {
        let (tasks_tx, tasks) = mpsc::unbounded_channel();
        let (reply, answer) = oneshot::channel();
        self.send(Call::Attach {
            namespace,
            queue,
            poller: Poller {
                identity,
                window,
                tasks: tasks_tx,
            },
            reply,
        })?;
        let id = answer.await.map_err(|_| CallError::ShuttingDown)?;
        Ok(Session { id, tasks })
    }

    /// Gives back one slot of a session: its attempt was answered, or its worker showed that it is free.
    pub fn release(&self, session: SessionId) {
        // A lost release is harmless only when the engine stops, which is the only way this can fail.
        let _ = self.inbox.send(Call::Release { session });
    }

    /// Gives a session no more tasks; those it has it may still answer.
    pub fn pause(&self, session: SessionId) {
        let _ = self.inbox.send(Call::Pause { session });
    }

    /// Ends a session: what it was given and nobody answered returns to its queue, uncounted.
    pub fn detach(&self, session: SessionId) {
        let _ = self.inbox.send(Call::Detach { session });
    }

    /// How many sessions are attached to a queue now, and since when there are none (`None` while there are some).
    pub async fn presence(
        &self,
        namespace: Namespace,
        queue: TaskQueueName,
    ) -> Result<Presence, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Presence {
            namespace,
            queue,
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)
    }

    /// Commits operations on the registry shard (projects, keys, services, webhooks, compensation records).
    pub async fn put(&self, ops: Vec<Op>) -> Result<(), CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Put { ops, reply })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Removes a closed run with all that is kept of it, and commits `beside` to the registry shard in the same batch. An open run is
    /// [`Rejection::NotReady`].
    pub async fn remove(&self, target: Target, beside: Vec<Op>) -> Result<(), CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Remove {
            target,
            beside,
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Waits until the run's journal holds more than `seen` records, or the run is closed; answers how many it holds
    /// and whether it is closed. Drop the future to stop waiting.
    pub async fn watch(&self, target: Target, seen: u64) -> Result<Progress, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Watch {
            target,
            seen,
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// The committed state of a run, as the engine holds it.
    pub async fn state(&self, target: Target) -> Result<MutableState, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Inspect { target, reply })?;
        answer
            .await
            .map_err(|_| CallError::ShuttingDown)?
            .map(|state| *state)
    }

    /// Which run a workflow id has now.
    pub fn current_run(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
    ) -> Result<Option<RunId>, CallError> {
        let key = Key::CurrentRun {
            shard: self.shard_of(namespace, workflow_id),
            namespace: namespace.clone(),
            workflow_id: workflow_id.clone(),
        };
        let Some(bytes) = self.store.get(&key)? else {
            return Ok(None);
        };
        let current = CurrentRun::decode(bytes).map_err(|e| corrupt(&key, &e))?;
        let run_id = <[u8; 16]>::try_from(&current.run_id[..]).map_err(|e| corrupt(&key, &e))?;
        Ok(Some(RunId(run_id)))
    }

    /// The committed journal of a run.
    pub fn journal(&self, target: &Target) -> Result<Option<Run>, CallError> {
        let shard = self.shard_of(&target.namespace, &target.workflow_id);
        let run_id = match target.run_id {
            Some(run_id) => run_id,
            None => match self.current_run(&target.namespace, &target.workflow_id)? {
                Some(run_id) => run_id,
                None => return Ok(None),
            },
        };
        let head = Key::RunHead {
            shard,
            namespace: target.namespace.clone(),
            run_id,
        };
        let Some(bytes) = self.store.get(&head)? else {
            return Ok(None);
        };
        let owner = RunHead::decode(bytes).map_err(|e| corrupt(&head, &e))?;
        if owner.workflow_id != target.workflow_id.as_str() {
            return Ok(None);
        }
        let mut records = Vec::new();
        let mut range = KeyRange::journal_of(shard, &target.namespace, run_id);
        loop {
            let page = self.store.scan(&range, 256, false)?;
            for (key, entry) in &page.entries {
                records.extend(read_entry(&*self.store, key, entry)?);
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => {
                    return Ok(Some(Run {
                        workflow_id: target.workflow_id.clone(),
                        run_id,
                        records,
                    }));
                }
            }
        }
    }

    /// The newest `limit` runs of a namespace, newest first.
    pub fn list(&self, namespace: &Namespace, limit: usize) -> Result<Vec<Visibility>, CallError> {
        Ok(self.index().newest(namespace, limit)?)
    }

    /// The listings, to be asked with queries.
    pub fn index(&self) -> Index<'_> {
        Index {
            store: &*self.store,
            shards: self.shards,
        }
    }

    /// The store, for reads of committed records.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How many shards the key space has.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    pub(crate) fn shard_of(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
    ) -> orchestrion_history::ids::ShardId {
        orchestrion_history::ids::ShardId::of(namespace, workflow_id, self.shards)
    }

    pub(super) fn send(&self, call: Call) -> Result<(), CallError> {
        self.inbox.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => CallError::Busy {
                retry_after: Duration::from_millis(200),
            },
            TrySendError::Disconnected(_) => CallError::ShuttingDown,
        })
    }
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Records in its journal.
    pub records: u64,
    /// Whether it has ended.
    pub closed: bool,
    /// The end of its journal, for those who waited for its end.
    pub tail: Option<Tail>,
}

/// Who serves a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Sessions attached now.
    pub sessions: usize,
    /// Since when none is attached; `None` while one is.
    pub absent_since: Option<Timestamp>,
}

pub(super) fn corrupt(key: &Key, error: &dyn std::fmt::Display) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Corrupt,
        operation: "get",
        key: Some(key.to_string()),
        message: format!(
            "the value does not decode: {error}; restore the data folder from a backup"
        ),
    }
}
