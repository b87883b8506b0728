//! A run comes into memory: its newest snapshot, and the fold of the journal behind it.
//!
//! Invariant: a journal that does not fold is kept as it is, and its run is not executed any further.

use orchestrion_history::ids::{Namespace, RunId, ShardId, Timestamp, WorkflowId};
use orchestrion_history::record::{self, CorruptEntry, Record};
use orchestrion_history::request::Rejection;
use orchestrion_history::state::{MutableState, Status};
use orchestrion_history::store::{Key, KeyRange, StoreError, StoreErrorKind, read_entry};
use orchestrion_history::{apply_sized, snapshot};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::{CurrentRun, RunHead};

use crate::engine::builtin;
use crate::engine::handle::{CallError, Target};
use crate::engine::round::{Round, RunKey};
use crate::engine::tail::Tail;
use crate::orchestration::Interpreter;

use super::{Core, Execution};

impl Core {
    /// The run a target means, loaded.
    pub(in crate::engine) fn find(&mut self, target: &Target) -> Result<RunKey, CallError> {
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
                    // Somebody may ask for another run than the newest, which this round may have begun.
                    let id = (target.namespace.clone(), target.workflow_id.clone());
                    if self.current.get(&id) == Some(&run_id) {
                        self.current.remove(&id);
                    }
                    return Err(error);
                }
            }
        }
        let execution = self.executions.get_mut(&run).expect("inserted above");
        if execution.workflow_id != target.workflow_id {
            return Err(not_found(target));
        }
        execution.last_used = self.rounds;
        execution.used_at = self.now;
        Ok(run)
    }

    pub(super) fn current_run(
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

    pub(super) fn read_current(
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
            Ok(Folded {
                state,
                interpreter,
                snapshot_records,
                tail,
            }) => Ok(Execution {
                workflow_id: target.workflow_id.clone(),
                shard,
                indexed_due: state.next_due(),
                snapshot_records,
                listed_status: Some(state.listed_status().into()),
                state,
                interpreter,
                volatile_start: None,
                sticky: self.parked.remove(&(namespace.clone(), run_id)),
                sticky_until: None,
                waits_at: None,
                buffered_queries: Vec::new(),
                updates: Vec::new(),
                speculative: None,
                relist: false,
                last_used: self.rounds,
                used_at: self.now,
                tail,
            }),
            Err(FoldError::Store(error)) if error.kind != StoreErrorKind::Corrupt => {
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
        let written = round
            .batch(&*self.store, &self.ranges)
            .and_then(|batch| batch.map_or(Ok(()), |batch| self.store.commit(&batch)));
        if let Err(error) = written {
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
    ) -> Result<Folded, FoldError> {
        let kept = self.store.get(&Key::Snapshot {
            shard,
            namespace: namespace.clone(),
            run_id,
        });
        let kept = match kept {
            Err(error) if error.kind == StoreErrorKind::Corrupt => {
                tracing::warn!(%error, "a snapshot is damaged: its run's journal is folded whole");
                None
            }
            kept => kept?,
        };
        let mut state = kept
            .and_then(|bytes| snapshot::decode(&bytes))
            .unwrap_or_default();
        let snapshot_records = state.records;
        let mut interpreter: Option<Box<Interpreter>> = None;
        let mut tail = Tail::default();
        let mut range = KeyRange::journal_from(shard, namespace, run_id, state.records + 1);
        loop {
            let page = self.store.scan(&range, 256, false)?;
            for (key, entry) in &page.entries {
                tail.push(state.records + 1, entry.clone());
                let mut fold = |record: &Record, bytes: usize| {
                    apply_sized(&mut state, record, bytes)
                        .map_err(|e| FoldError::Damaged(e.to_string()))?;
                    if state.records == 1 && builtin::is_builtin(&state.workflow_type) {
                        interpreter = Some(Box::new(Interpreter::new()));
                    }
                    if let (Some(interpreter), Record::Event(event)) = (&mut interpreter, record) {
                        interpreter
                            .apply(event)
                            .map_err(|e| FoldError::Damaged(e.to_string()))?;
                    }
                    Ok::<_, FoldError>(())
                };
                let damaged = |e: CorruptEntry| {
                    FoldError::Damaged(format!("{key}: {e}; restore the data folder from a backup"))
                };
                if record::references(entry).map_err(damaged)?.is_empty() {
                    for record in record::decode_each(entry) {
                        let (record, bytes) = record.map_err(damaged)?;
                        fold(&record, bytes)?;
                    }
                } else {
                    for record in read_entry(&*self.store, key, entry)? {
                        fold(&record, record.encoded_len())?;
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
        Ok(Folded {
            state,
            interpreter,
            snapshot_records,
            tail,
        })
    }
}

/// What a journal says.
struct Folded {
    state: MutableState,
    /// The built-in code, where the run is of such a type.
    interpreter: Option<Box<Interpreter>>,
    /// Records of its snapshot.
    snapshot_records: u64,
    /// The newest entries: whoever is handed a task of it asks for them next.
    tail: Tail,
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
