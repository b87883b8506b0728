//! Retention: closed runs leave once they are old enough, a few at a time.

use orchestrion_history::ids::{ShardId, Timestamp, WorkflowId};
use orchestrion_history::store::{Key, KeyRange, Store, StoreError};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::v1::{CurrentRun, RunHead};

use super::core::Core;
use super::round::Round;

/// Runs removed in one sweep; more wait for the next, which then comes soon.
const RUNS_PER_SWEEP: usize = 256;

impl Core {
    pub(super) fn sweep(&mut self, round: &mut Round) {
        if self.next_sweep > round.now {
            return;
        }
        self.next_sweep = round.now.plus(self.options.retention_sweep);
        let horizon =
            Timestamp(round.now.0.saturating_sub(
                i64::try_from(self.options.retention.as_nanos()).unwrap_or(i64::MAX),
            ));
        let mut left = RUNS_PER_SWEEP;
        for shard in (0..self.options.shards).map(ShardId) {
            match self.sweep_shard(round, shard, horizon, left) {
                Ok(removed) => left -= removed,
                Err(error) => {
                    tracing::error!(%error, "the retention sweep stopped; it goes on later")
                }
            }
        }
        if left == 0 {
            self.next_sweep = round.now;
        }
        let (waiting, sessions) = self.matching.sizes();
        metrics::gauge!("orchestrion_tasks_waiting").set(waiting as f64);
        metrics::gauge!("orchestrion_sessions").set(sessions as f64);
        metrics::gauge!("orchestrion_timers").set(self.timers.len() as f64);
        metrics::gauge!("orchestrion_executions_cached").set(self.executions.len() as f64);
    }

    fn sweep_shard(
        &mut self,
        round: &mut Round,
        shard: ShardId,
        horizon: Timestamp,
        max: usize,
    ) -> Result<usize, StoreError> {
        let store = self.store.clone();
        let mut range = KeyRange::run_heads(shard);
        let mut removed = 0;
        while removed < max {
            let page = store.scan(&range, 1_024, false)?;
            for (key, value) in &page.entries {
                let Key::RunHead {
                    namespace, run_id, ..
                } = key
                else {
                    continue;
                };
                let Ok(head) = RunHead::decode(&value[..]) else {
                    continue;
                };
                let open = head.status == WorkflowExecutionStatus::Running as i32;
                if open || head.closed_at > horizon.0 || removed == max {
                    continue;
                }
                self.forget(&(namespace.clone(), *run_id));
                remove_run(&*store, round, shard, key, &head)?;
                removed += 1;
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => break,
            }
        }
        if removed > 0 {
            tracing::info!(
                shard = shard.0,
                removed,
                "closed runs left after their retention"
            );
        }
        Ok(removed)
    }
}

fn remove_run(
    store: &dyn Store,
    round: &mut Round,
    shard: ShardId,
    key: &Key,
    head: &RunHead,
) -> Result<(), StoreError> {
    let Key::RunHead {
        namespace, run_id, ..
    } = key
    else {
        return Ok(());
    };
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
    round.delete(
        shard,
        Key::Visibility {
            shard,
            namespace: namespace.clone(),
            started,
            run_id: *run_id,
        },
    );
    round.delete(
        shard,
        Key::Snapshot {
            shard,
            namespace: namespace.clone(),
            run_id: *run_id,
        },
    );
    round.delete(shard, key.clone());
    Ok(())
}
