//! A worker leaves: its polls end, and what waited for it alone goes to any worker.
//!
//! Only the worker that has a run cached looks into its own queue. When it is gone, a task would wait there until its time to come is over,
//! and its history would tell of a worker that was late.

use orchestrion_history::ids::Namespace;

use crate::engine::matching::{Leaving, QueueKey, Waiting};
use crate::engine::round::Round;

use super::Core;

impl Core {
    pub(super) fn leave(&mut self, round: &mut Round, namespace: &Namespace, leaving: &Leaving) {
        let (tasks, questions) = self.matching.leave(namespace, leaving, round.now);
        for (from, task) in tasks {
            self.unstick(round, from, task);
        }
        for question in questions {
            let run = (question.namespace.clone(), question.run_id);
            if let Some(execution) = self.executions.get_mut(&run) {
                execution.sticky = None;
            }
            self.requeue_query(round, question);
        }
    }

    /// A workflow task that was taken out of a queue goes to that of its run.
    fn unstick(&mut self, round: &mut Round, from: QueueKey, task: Waiting) {
        let run = (task.namespace.clone(), task.run_id);
        // A run whose task waits for its sticky worker is in memory; one that is not waits in its own queue, which the worker took for one.
        let in_memory = self.executions.get_mut(&run);
        let moves = in_memory.is_some_and(|execution| {
            execution.sticky = None;
            true
        });
        let own = moves.then(|| self.own_queue(&run)).and_then(Result::ok);
        let queue = match own {
            Some(own) => self.workflow_queue(&run, own, round.now),
            None => from,
        };
        let workflow_id = task.workflow_id.clone();
        self.matching.add(&queue, task, round.now);
        round.queues.push_back(queue);
        if let Some(execution) = self.executions.get(&run) {
            let due = execution.due();
            self.timers.set(&run.0, run.1, &workflow_id, due);
        }
    }
}
