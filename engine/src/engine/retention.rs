//! Retention: closed runs leave once they are old enough, a few at a time.

use std::time::Duration;

use orchestrion_history::ids::{ShardId, Timestamp, WorkflowId};
use orchestrion_history::request::{Request, TerminateWorkflow};
use orchestrion_history::store::{Key, KeyRange, StoreError};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::v1::RunHead;

use super::Keep;
use super::core::Core;
use super::removal::Leaving;
use super::round::{Inner, Round};

/// Run heads looked at in one round.
const HEADS_PER_PAGE: usize = 256;
/// Between two pages the engine does its work.
const BETWEEN_PAGES: Duration = Duration::from_millis(20);

impl Core {
    /// A few pages of run heads a round, from where the last sweep stopped.
    pub(super) fn sweep(&mut self, round: &mut Round) {
        if self.next_sweep > round.now {
            return;
        }
        self.matching.drop_silent(round.now);
        let (waiting, sessions) = self.matching.sizes();
        metrics::gauge!("orchestrion_tasks_waiting").set(waiting as f64);
        metrics::gauge!("orchestrion_sessions").set(sessions as f64);
        metrics::gauge!("orchestrion_timers").set(self.timers.len() as f64);
        metrics::gauge!("orchestrion_executions_cached").set(self.executions.len() as f64);

        let (shard, range) = self
            .sweep_at
            .take()
            .unwrap_or_else(|| (ShardId(0), KeyRange::run_heads(ShardId(0))));
        let next = match self.sweep_page(round, shard, &range) {
            Ok(Some(rest)) => Some((shard, rest)),
            Ok(None) => Some(ShardId(shard.0 + 1))
                .filter(|next| next.0 < self.options.shards)
                .map(|next| (next, KeyRange::run_heads(next))),
            Err(error) => {
                tracing::error!(%error, "the retention sweep stopped; it begins anew later");
                None
            }
        };
        let wait = if next.is_some() {
            BETWEEN_PAGES
        } else {
            self.options.retention_sweep
        };
        self.next_sweep = round.now.plus(wait);
        self.sweep_at = next;
    }

    /// Removes what is old enough on one page; answers the rest of the range.
    fn sweep_page(
        &mut self,
        round: &mut Round,
        shard: ShardId,
        range: &KeyRange,
    ) -> Result<Option<KeyRange>, StoreError> {
        let store = self.store.clone();
        let page = store.scan(range, HEADS_PER_PAGE, false)?;
        let mut removed = 0;
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
            let keep = self.surroundings.keep(namespace);
            let kept = match keep {
                Keep::AsSet => self.options.retention,
                Keep::For(kept) => kept,
                Keep::Nothing => Duration::ZERO,
            };
            let leaves = Timestamp(head.closed_at).plus(kept) <= round.now;
            // A run that cannot be executed cannot be ended either, nor tell anybody.
            let able = head.quarantined.is_empty();
            let stuck = keep == Keep::Nothing && !able;
            // Its parent is still to hear of its end, or its children are to end with it.
            let tells = able && self.timers.is_set(namespace, *run_id);
            if (!open && leaves && !tells) || stuck {
                round.leaving.push(Leaving {
                    shard,
                    namespace: namespace.clone(),
                    run_id: *run_id,
                    head,
                    told: None,
                });
                removed += 1;
            } else if open
                && keep == Keep::Nothing
                && let Ok(workflow_id) = WorkflowId::parse(&head.workflow_id)
            {
                // It leaves with the next sweep.
                round.inner.push_back(Inner {
                    namespace: namespace.clone(),
                    workflow_id,
                    run_id: *run_id,
                    request: Request::Terminate(Box::new(TerminateWorkflow {
                        reason: "its namespace was deleted".to_owned(),
                        details: None,
                        identity: "orchestrion".to_owned(),
                    })),
                });
            }
        }
        if removed > 0 {
            tracing::info!(
                shard = shard.0,
                removed,
                "closed runs left after their retention"
            );
        }
        Ok(page
            .entries
            .last()
            .filter(|_| page.more)
            .map(|(last, _)| range.after(last)))
    }
}
