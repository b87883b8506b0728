//! Removal: a closed run leaves the store with everything that is kept of it, because it is old enough or because somebody asks.
//!
//! Invariant: what a round removes, nothing else of the round writes to: removals come last, and a run that the round touched stays.

use orchestrion_history::ids::{Namespace, RunId, ShardId, Timestamp, WorkflowId};
use orchestrion_history::outward;
use orchestrion_history::request::Rejection;
use orchestrion_history::store::{Key, KeyRange, Op, Store, StoreError};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::v1::{CurrentRun, RunHead, Visibility};
use tokio::sync::oneshot;

use super::core::Core;
use super::core::index::{lasting_lines, status_line};
use super::handle::{CallError, Target};
use super::round::{Answer, Round};

/// A run that leaves with this round.
pub(super) struct Leaving {
    pub(super) shard: ShardId,
    pub(super) namespace: Namespace,
    pub(super) run_id: RunId,
    pub(super) head: RunHead,
    /// Who asked for it, and what is written beside it; nobody when it is old enough.
    pub(super) told: Option<Told>,
}

pub(super) struct Told {
    pub(super) beside: Vec<Op>,
    pub(super) reply: oneshot::Sender<Result<(), CallError>>,
}

impl Core {
    /// Somebody wants a run gone. It has to be closed, or damaged.
    pub(super) fn ask_removal(&mut self, round: &mut Round, target: &Target, told: Told) {
        match self.leaving(target) {
            Ok((shard, run_id, head)) => round.leaving.push(Leaving {
                shard,
                namespace: target.namespace.clone(),
                run_id,
                head,
                told: Some(told),
            }),
            Err(error) => _ = told.reply.send(Err(error)),
        }
    }

    fn leaving(&mut self, target: &Target) -> Result<(ShardId, RunId, RunHead), CallError> {
        let found = self.find(target);
        let run_id = match (&found, target.run_id) {
            (Ok(run), _) => run.1,
            // What cannot be run may still be removed.
            (Err(CallError::Quarantined { .. }), Some(run_id)) => run_id,
            (Err(error), _) => return Err(error.clone()),
        };
        let shard = ShardId::of(&target.namespace, &target.workflow_id, self.options.shards);
        let key = Key::RunHead {
            shard,
            namespace: target.namespace.clone(),
            run_id,
        };
        let bytes = self.store.get(&key)?.ok_or_else(|| later("it is new"))?;
        let head = RunHead::decode(bytes).map_err(|e| CallError::Unavailable(e.to_string()))?;
        if head.status == WorkflowExecutionStatus::Running as i32 && head.quarantined.is_empty() {
            return Err(later("it is open: end it first"));
        }
        let tells = found
            .ok()
            .and_then(|run| self.executions.get(&run))
            .is_some_and(|execution| outward::due(&execution.state).is_some());
        if tells {
            return Err(later("others are still told of its end"));
        }
        Ok((shard, run_id, head))
    }

    /// The last of a round.
    pub(super) fn remove_leaving(&mut self, round: &mut Round) {
        for leaving in std::mem::take(&mut round.leaving) {
            let run = (leaving.namespace.clone(), leaving.run_id);
            let removed = if round.appended_to(&run).is_empty() {
                remove_run(&*self.store, round, &leaving).map_err(CallError::from)
            } else {
                Err(later("something is written to it just now"))
            };
            match (removed, leaving.told) {
                (Ok(()), told) => {
                    self.forget(&run);
                    if let Some(told) = told {
                        for op in told.beside {
                            round.add(ShardId::REGISTRY, op);
                        }
                        round.answers.push(Answer::Put(told.reply));
                    }
                }
                (Err(error), Some(told)) => _ = told.reply.send(Err(error)),
                // A later sweep finds it again.
                (Err(CallError::Rejected(_)), None) => {}
                (Err(error), None) => {
                    tracing::error!(%error, run_id = %run.1, "a run whose retention is over stays for now");
                }
            }
        }
    }
}

fn later(why: &str) -> CallError {
    Rejection::NotReady(format!("the run cannot be removed now: {why}")).into()
}

/// Every key of a run, its index lines included.
fn remove_run(store: &dyn Store, round: &mut Round, leaving: &Leaving) -> Result<(), StoreError> {
    let Leaving {
        shard,
        namespace,
        run_id,
        head,
        ..
    } = leaving;
    let shard = *shard;
    for range in [
        KeyRange::journal_of(shard, namespace, *run_id),
        KeyRange::payloads_of(shard, namespace, *run_id),
    ] {
        let mut range = range;
        loop {
            let page = store.scan(&range, 1_024, false)?;
            for (key, _) in &page.entries {
                round.delete(shard, key.clone());
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => break,
            }
        }
    }
    if let Ok(workflow_id) = WorkflowId::parse(&head.workflow_id) {
        let current_key = Key::CurrentRun {
            shard,
            namespace: namespace.clone(),
            workflow_id,
        };
        let current = store
            .get(&current_key)?
            .and_then(|bytes| CurrentRun::decode(bytes).ok());
        if current.is_some_and(|current| current.run_id == run_id.0) {
            round.delete(shard, current_key);
        }
    }
    let started = Timestamp(head.started_at);
    let listing = Key::Visibility {
        shard,
        namespace: namespace.clone(),
        started,
        run_id: *run_id,
    };
    let run = (namespace.clone(), *run_id);
    let listed = store.get(&listing)?;
    if let Some(row) = listed.and_then(|bytes| Visibility::decode(bytes).ok())
        && let Ok(id) = WorkflowId::parse(&row.workflow_id)
    {
        for line in lasting_lines(shard, &run, &id, &row.workflow_type, started) {
            round.delete(shard, line);
        }
    }
    round.delete(shard, status_line(shard, &run, head.status, started));
    round.delete(shard, listing);
    round.delete(
        shard,
        Key::Snapshot {
            shard,
            namespace: namespace.clone(),
            run_id: *run_id,
        },
    );
    round.delete(
        shard,
        Key::RunHead {
            shard,
            namespace: namespace.clone(),
            run_id: *run_id,
        },
    );
    Ok(())
}
