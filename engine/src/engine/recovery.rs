//! Recovery: take over the shards, and read back what waits: queues and timers. Runs are folded when they are needed.
//!
//! Attempts that were with a worker on a stream go back to their queues, uncounted: the connections ended with the process that held
//! them. Indexes that were dropped are rebuilt from the journals first.

use std::sync::Arc;

use bytes::Bytes;
use orchestrion_history::ids::{ShardId, Timestamp, WorkflowId};
use orchestrion_history::request::{Request, ReturnActivityAttempt};
use orchestrion_history::store::{Key, KeyRange, QueueKind, Store, StoreError, StoreErrorKind};
use orchestrion_history::tasks;
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::RunHead;

use super::builtin;
use super::core::Core;
use super::core::index::{lasting_lines, queue_value, read_queue_value, status_line, visibility};
use super::handle::Target;
use super::matching::{QueueKey, Waiting};
use super::round::{Inner, Round};
use super::{EngineOptions, Surroundings};
use crate::seams::Chance;

const PAGE: usize = 1_024;

impl Core {
    /// Takes over every shard and reads back what waits.
    pub fn recover(
        store: Arc<dyn Store>,
        chance: Box<dyn Chance>,
        surroundings: Box<dyn Surroundings>,
        options: EngineOptions,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut ranges = Vec::with_capacity(usize::from(options.shards));
        for shard in 0..options.shards {
            ranges.push(store.acquire(ShardId(shard))?);
        }
        let mut core = Self::new(store, chance, surroundings, options, ranges, now);
        core.rebuild_dropped(now)?;
        let mut round = Round::new(now);
        core.reload_indexes(&mut round)?;
        core.finish_recovery(round);
        Ok(core)
    }

    pub(super) fn reacquire(&mut self) -> Result<(), StoreError> {
        let mut held_throughout = true;
        for shard in 0..self.options.shards {
            let held = &mut self.ranges[usize::from(shard)];
            let taken = self.store.acquire(ShardId(shard))?;
            held_throughout &= taken.0 == held.0 + 1;
            *held = taken;
        }
        if !held_throughout {
            tracing::warn!("another engine held a shard meanwhile: nothing in memory counts");
            self.forget_everything();
        }
        Ok(())
    }

    /// Queues and timers, from their indexes.
    pub(super) fn reload_indexes(&mut self, round: &mut Round) -> Result<(), StoreError> {
        let now = round.now;
        self.matching.clear_waiting();
        self.timers.clear();
        for shard in (0..self.options.shards).map(ShardId) {
            let store = self.store.clone();
            each(&*store, KeyRange::timers(shard), |key, value| {
                let Key::Timer {
                    due,
                    namespace,
                    run_id,
                    ..
                } = key
                else {
                    return Ok(());
                };
                let text = std::str::from_utf8(value).map_err(|e| damaged(key, &e))?;
                let workflow_id = WorkflowId::parse(text).map_err(|e| damaged(key, &e))?;
                self.timers
                    .set(namespace, *run_id, &workflow_id, Some(*due));
                Ok(())
            })?;
            each(&*store, KeyRange::queues(shard), |key, value| {
                self.requeue(round, key, value, now)
            })?;
        }
        for queue in self.matching.busy_queues() {
            round.queues.push_back(queue);
        }
        self.keep_volatile_timers();
        self.offline_check_from(now);
        Ok(())
    }

    fn requeue(
        &mut self,
        round: &mut Round,
        key: &Key,
        value: &Bytes,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Key::Queue {
            namespace,
            kind,
            queue,
            at,
            run_id,
            event_id,
            ..
        } = key
        else {
            return Ok(());
        };
        let (workflow_id, attempt, is_waiting) =
            read_queue_value(value).ok_or_else(|| damaged(key, &"its value is too short"))?;
        let task = Waiting {
            namespace: namespace.clone(),
            workflow_id: workflow_id.clone(),
            run_id: *run_id,
            event_id: *event_id,
            attempt,
            at: *at,
            marked: false,
            look_at: Timestamp::ZERO,
        };
        // A session of this process still has it, unless another engine took it back meanwhile: then it waits.
        if !is_waiting && self.matching.is_owned(&task.key()) {
            return Ok(());
        }
        let run = (namespace.clone(), *run_id);
        if *kind == QueueKind::Workflow && self.has_volatile_start(&run, *event_id) {
            return Ok(()); // A worker's token is out.
        }
        if is_waiting {
            let tenant = (!builtin::is_shared_queue(queue.as_str())).then(|| namespace.clone());
            let key = QueueKey {
                namespace: tenant,
                kind: *kind,
                queue: queue.clone(),
            };
            if *kind == QueueKind::Workflow {
                self.waits_at(&run, &key);
            }
            self.matching.add(&key, task, now);
        } else {
            round.inner.push_back(Inner {
                namespace: namespace.clone(),
                workflow_id,
                run_id: *run_id,
                request: Request::ReturnActivityAttempt(ReturnActivityAttempt {
                    scheduled_event_id: *event_id,
                    attempt,
                    reason: "the engine restarted".to_owned(),
                }),
            });
        }
        Ok(())
    }

    /// Rebuilds queues, timers and listings from the journals when the store has runs but no listing at all.
    fn rebuild_dropped(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let store = self.store.clone();
        for shard in (0..self.options.shards).map(ShardId) {
            let heads = store.scan(&KeyRange::run_heads(shard), 1, false)?;
            if heads.entries.is_empty() || self.has_listing(shard)? {
                continue;
            }
            tracing::warn!(
                shard = shard.0,
                "indexes are missing: rebuilding them from the journals"
            );
            // Listings are written last: as long as there is none, the rebuild is not done.
            let (mut round, mut listings) = (Round::new(now), Round::new(now));
            let mut seen = 0;
            each(&*store, KeyRange::run_heads(shard), |key, value| {
                self.reindex(&mut round, &mut listings, shard, key, value);
                seen += 1;
                if seen % PAGE == 0
                    && let Some(batch) = round.batch(&*store, &self.ranges)?
                {
                    store.commit(&batch)?;
                }
                Ok(())
            })?;
            for batch in [
                round.batch(&*store, &self.ranges)?,
                listings.batch(&*store, &self.ranges)?,
            ]
            .into_iter()
            .flatten()
            {
                store.commit(&batch)?;
            }
        }
        self.executions.clear();
        self.current.clear();
        Ok(())
    }

    fn has_listing(&self, shard: ShardId) -> Result<bool, StoreError> {
        // Every run stands in the listing and in the line of its workflow id.
        let [by_workflow, ..] = KeyRange::lines(shard);
        for range in [KeyRange::listings(shard), by_workflow] {
            if self.store.scan(&range, 1, false)?.entries.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One run's entries. A run whose journal does not fold is quarantined by the attempt to load it.
    fn reindex(
        &mut self,
        round: &mut Round,
        listings: &mut Round,
        shard: ShardId,
        key: &Key,
        value: &Bytes,
    ) {
        let Key::RunHead {
            namespace, run_id, ..
        } = key
        else {
            return;
        };
        let Ok(head) = RunHead::decode(&value[..]) else {
            return;
        };
        let Ok(workflow_id) = WorkflowId::parse(&head.workflow_id) else {
            return;
        };
        let target = Target {
            namespace: namespace.clone(),
            workflow_id: workflow_id.clone(),
            run_id: Some(*run_id),
        };
        let run = match self.find(&target) {
            Ok(run) => run,
            Err(error) => {
                tracing::error!(%error, %workflow_id, "left out of the rebuilt indexes");
                return;
            }
        };
        let state = &self.executions[&run].state;
        let key = Key::Visibility {
            shard,
            namespace: namespace.clone(),
            started: Timestamp(state.started_at),
            run_id: *run_id,
        };
        listings.index_put(
            key,
            visibility(&run, &workflow_id, state).encode_to_vec().into(),
        );
        let started = Timestamp(state.started_at);
        let lasting = lasting_lines(shard, &run, &workflow_id, &state.workflow_type, started);
        let status = status_line(shard, &run, state.listed_status().into(), started);
        for line in lasting.into_iter().chain([status]) {
            listings.index_put(line, Bytes::new());
        }
        if let Some(due) = state.next_due() {
            let value = Bytes::copy_from_slice(workflow_id.as_str().as_bytes());
            round.index_put(
                Key::Timer {
                    shard,
                    due,
                    namespace: namespace.clone(),
                    run_id: *run_id,
                },
                value,
            );
        }
        for entry in tasks::all(state) {
            let Ok(queue) = orchestrion_history::ids::TaskQueueName::parse(&entry.queue) else {
                continue;
            };
            let key = Key::Queue {
                shard,
                namespace: namespace.clone(),
                kind: entry.kind,
                queue,
                at: entry.at,
                run_id: *run_id,
                event_id: entry.event_id,
            };
            round.index_put(key, queue_value(&workflow_id, &entry));
        }
        self.forget(&run);
    }
}

fn each(
    store: &dyn Store,
    range: KeyRange,
    mut visit: impl FnMut(&Key, &Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut range = range;
    loop {
        let page = store.scan(&range, PAGE, false)?;
        for (key, value) in &page.entries {
            visit(key, value)?;
        }
        match page.entries.last() {
            Some((last, _)) if page.more => range = range.after(last),
            _ => return Ok(()),
        }
    }
}

fn damaged(key: &Key, why: &dyn std::fmt::Display) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Corrupt,
        operation: "recover",
        key: Some(key.to_string()),
        message: format!(
            "the index entry does not read: {why}; restore the data folder from a backup"
        ),
    }
}
