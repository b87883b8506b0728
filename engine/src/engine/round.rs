//! A round: what the calls of one drain change, gathered into one batch, and what may leave once it is durable.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use foldhash::HashMap;
use orchestrion_history::ids::{Namespace, RangeId, RunId, ShardId, Timestamp, WorkflowId};
use orchestrion_history::record::Record;
use orchestrion_history::request::Request;
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{Batch, Key, Op, ShardWrite, Store, StoreError, entry_ops};
use tokio::sync::{mpsc, oneshot};

use super::call::NumberedAnswer;
use super::handle::{Accepted, CallError, Dispatch, Progress, SessionId};
use super::matching::{AttemptKey, Polled, QueueKey};
use super::polling::{Completed, QueryOutcome, Started, UpdateProgress, WorkflowTaskDispatch};
use super::removal::Leaving;

/// One run, in memory and in keys.
pub(super) type RunKey = (Namespace, RunId);

/// An answer that waits for the commit.
#[expect(
    clippy::large_enum_variant,
    reason = "an answer is moved twice and lives for one round"
)]
pub(super) enum Answer {
    Accepted(
        oneshot::Sender<Result<Accepted, CallError>>,
        Result<Accepted, CallError>,
    ),
    Numbered(
        u64,
        mpsc::UnboundedSender<NumberedAnswer>,
        Result<Accepted, CallError>,
    ),
    Put(oneshot::Sender<Result<(), CallError>>),
    Watched(
        oneshot::Sender<Result<Progress, CallError>>,
        Result<Progress, CallError>,
    ),
    Completed(
        oneshot::Sender<Result<Completed, CallError>>,
        Result<Completed, CallError>,
    ),
    Started(
        oneshot::Sender<Result<Started, CallError>>,
        Result<Started, CallError>,
    ),
    Updated(
        oneshot::Sender<Result<UpdateProgress, CallError>>,
        Result<UpdateProgress, CallError>,
    ),
    Queried(
        oneshot::Sender<Result<QueryOutcome, CallError>>,
        Result<QueryOutcome, CallError>,
    ),
    State(
        oneshot::Sender<Result<Box<MutableState>, CallError>>,
        Result<Box<MutableState>, CallError>,
    ),
}

impl Answer {
    /// The workflow task that goes with it.
    pub(super) fn workflow_task(&mut self) -> Option<&mut WorkflowTaskDispatch> {
        match self {
            Self::Completed(_, Ok(completed)) => completed.next.as_deref_mut(),
            Self::Started(_, Ok(started)) => started.task.as_deref_mut(),
            _ => None,
        }
    }

    /// Sends it. Whoever does not wait any more has hung up.
    pub(super) fn send(self) {
        match self {
            Self::Accepted(to, result) => _ = to.send(result),
            Self::Numbered(number, to, result) => _ = to.send((number, result)),
            Self::Put(to) => _ = to.send(Ok(())),
            Self::Watched(to, result) => _ = to.send(result),
            Self::Completed(to, result) => _ = to.send(result),
            Self::Started(to, result) => _ = to.send(result),
            Self::Updated(to, result) => _ = to.send(result),
            Self::Queried(to, result) => _ = to.send(result),
            Self::State(to, result) => _ = to.send(result),
        }
    }

    /// Says that the commit failed.
    pub(super) fn fail(self, error: &CallError) {
        match self {
            Self::Accepted(to, _) => _ = to.send(Err(error.clone())),
            Self::Numbered(number, to, _) => _ = to.send((number, Err(error.clone()))),
            Self::Put(to) => _ = to.send(Err(error.clone())),
            Self::Watched(to, _) => _ = to.send(Err(error.clone())),
            Self::Completed(to, _) => _ = to.send(Err(error.clone())),
            Self::Started(to, _) => _ = to.send(Err(error.clone())),
            Self::Updated(to, _) => _ = to.send(Err(error.clone())),
            Self::Queried(to, _) => _ = to.send(Err(error.clone())),
            Self::State(to, _) => _ = to.send(Err(error.clone())),
        }
    }
}

/// Something the engine asks of a run by itself, in the same round.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) namespace: Namespace,
    pub(super) workflow_id: WorkflowId,
    pub(super) run_id: RunId,
    pub(super) request: Request,
}

/// A task that leaves after the commit.
pub(super) enum Outgoing {
    /// A started attempt, to a session.
    Stream {
        session: SessionId,
        attempt: AttemptKey,
        dispatch: Box<Dispatch>,
    },
    /// Anything, to a poll.
    Polled {
        reply: oneshot::Sender<Polled>,
        polled: Polled,
    },
}

/// Records of one run in this round: one entry of its journal.
struct Appended {
    shard: ShardId,
    first_seq: u64,
    records: Vec<Record>,
}

#[derive(Default)]
pub(super) struct Round {
    pub(super) now: Timestamp,
    pub(super) answers: Vec<Answer>,
    pub(super) inner: VecDeque<Inner>,
    /// Runs that ask something of others.
    pub(super) between: VecDeque<RunKey>,
    /// How often this round crossed from one run to another.
    pub(super) crossings: usize,
    /// What that added to histories, about.
    pub(super) crossed_bytes: usize,
    /// Runs of which something could not be asked.
    pub(super) ask_again: Vec<(RunKey, WorkflowId)>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) outbox: Vec<Key>,
    /// Runs whose last keys go.
    pub(super) leaving: Vec<Leaving>,
    /// Why nothing of this round may be written.
    pub(super) poisoned: Option<String>,
    /// Queues in which a task or a slot became free.
    pub(super) queues: VecDeque<QueueKey>,
    appended: HashMap<RunKey, Appended>,
    /// What was appended to each run, and from which record on, as it was written.
    pub(super) written: Vec<(RunKey, u64, Bytes)>,
    /// Runs in the order in which they were first touched.
    pub(super) touched: Vec<(RunKey, WorkflowId)>,
    ops: BTreeMap<ShardId, Vec<Op>>,
    /// Index operations; the last one of a key counts.
    index: HashMap<Key, (Option<Bytes>, bool)>,
}

impl Round {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    /// What this round has appended to a run.
    pub(super) fn appended_to(&self, run: &RunKey) -> &[Record] {
        self.appended
            .get(run)
            .map_or(&[], |appended| &appended.records)
    }

    /// Adds records to a run's entry. Answers whether the run is new to this round.
    pub(super) fn append(
        &mut self,
        shard: ShardId,
        run: &RunKey,
        workflow_id: &WorkflowId,
        first_seq: u64,
        records: Vec<Record>,
    ) {
        if let Some(appended) = self.appended.get_mut(run) {
            appended.records.extend(records);
            return;
        }
        self.touched.push((run.clone(), workflow_id.clone()));
        self.appended.insert(
            run.clone(),
            Appended {
                shard,
                first_seq,
                records,
            },
        );
    }

    pub(super) fn put(&mut self, shard: ShardId, key: Key, value: Bytes) {
        self.ops.entry(shard).or_default().push(Op::Put(key, value));
    }

    pub(super) fn add(&mut self, shard: ShardId, op: Op) {
        self.ops.entry(shard).or_default().push(op);
    }

    pub(super) fn delete(&mut self, shard: ShardId, key: Key) {
        self.ops.entry(shard).or_default().push(Op::Delete(key));
    }

    /// Puts an index key. What is put and deleted in one round never reaches the disk.
    pub(super) fn index_put(&mut self, key: Key, value: Bytes) {
        let born_here = self.index.get(&key).is_none_or(|(_, born_here)| *born_here);
        self.index.insert(key, (Some(value), born_here));
    }

    /// Replaces or removes an index key that stood before this round.
    pub(super) fn index_delete(&mut self, key: Key) {
        match self.index.get(&key) {
            Some((Some(_), true)) => _ = self.index.remove(&key),
            _ => _ = self.index.insert(key, (None, false)),
        }
    }

    /// Replaces an index key that stands already: a later removal has to be written.
    pub(super) fn index_replace(&mut self, key: Key, value: Bytes) {
        self.index
            .entry(key)
            .and_modify(|(old, _)| *old = Some(value.clone()))
            .or_insert((Some(value), false));
    }

    /// The batch, and what it holds for each shard; `None` when there is nothing to write.
    pub(super) fn batch(
        &mut self,
        store: &dyn Store,
        ranges: &[RangeId],
    ) -> Result<Option<Batch>, StoreError> {
        for ((namespace, run_id), appended) in self.appended.drain() {
            let key = Key::Journal {
                shard: appended.shard,
                namespace: namespace.clone(),
                run_id,
                first_seq: appended.first_seq,
            };
            let ops = entry_ops(store, key, &appended.records)?;
            if let Some(Op::Put(Key::Journal { .. }, entry)) = ops.last() {
                self.written
                    .push(((namespace, run_id), appended.first_seq, entry.clone()));
            }
            self.ops.entry(appended.shard).or_default().extend(ops);
        }
        for (key, (value, _)) in self.index.drain() {
            let Some(shard) = key.shard() else { continue };
            let op = match value {
                Some(value) => Op::Put(key, value),
                None => Op::Delete(key),
            };
            self.ops.entry(shard).or_default().push(op);
        }
        if self.ops.is_empty() {
            return Ok(None);
        }
        let ops = std::mem::take(&mut self.ops);
        let shards = ops.into_iter().map(|(shard, ops)| ShardWrite {
            shard,
            range: ranges[usize::from(shard.0)],
            ops,
        });
        Ok(Some(Batch {
            shards: shards.collect(),
        }))
    }
}
