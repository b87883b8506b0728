//! A reset: a run begins with a part of another's journal, and whatever run is open ends, in one batch.

use orchestrion_history::Context;
use orchestrion_history::ids::{RunId, WorkflowId};
use orchestrion_history::machines::reset::fork;
use orchestrion_history::outward;
use orchestrion_history::record::Record;
use orchestrion_history::request::{
    ChildClosed, ChildOutcome, ExecutionRef, Rejection, Reply, Request, ResetWorkflow,
};
use orchestrion_history::state::ChildStage;
use orchestrion_history::store::{KeyRange, read_entry};

use crate::engine::handle::{Accepted, CallError, Target};
use crate::engine::round::{Round, RunKey};

use super::Core;

impl Core {
    /// Makes a run of a part of another's history. A repeat of the request finds the run that it made.
    pub(super) fn reset(
        &mut self,
        round: &mut Round,
        target: &Target,
        mut reset: ResetWorkflow,
    ) -> Result<Accepted, CallError> {
        let base = self.find(target)?;
        let execution = &self.executions[&base];
        if execution.interpreter.is_some() {
            return Err(Rejection::Invalid(
                "an orchestration cannot be reset: submit its action again".to_owned(),
            )
            .into());
        }
        let state = &execution.state;
        if !reset.request_id.is_empty()
            && state.reset_request_id == reset.request_id
            && let Some(run_id) = RunId::parse(&state.reset_run_id)
        {
            return Ok(Accepted {
                run_id,
                reply: Reply::Repeated,
            });
        }
        let (workflow_id, workflow_type) =
            (execution.workflow_id.clone(), state.workflow_type.clone());
        let run_id = self.new_run_id(round.now);
        reset.base_run_id = base.1.to_string();
        reset.new_run_id = run_id.to_string();
        let journal = self.journal_of(round, &base)?;
        let context = Context {
            namespace: base.0.as_str(),
            ..Context::new(round.now, &self.options.limits)
        };
        let records = fork(&journal, &context, &reset)?;
        self.end_open_run(round, &base, &workflow_id, &reset)?;
        self.step(round, &base, &Request::Reset(Box::new(reset)))?;
        let run = (base.0.clone(), run_id);
        self.insert_void(&run, &workflow_id, &workflow_type);
        if let Err(error) = self.advance(round, &run, records) {
            return Err(self.contradicted(round, &run, error));
        }
        self.current.insert((base.0, workflow_id), run_id);
        let children = self.executions[&run].state.children.iter();
        let started = children
            .filter(|(_, child)| child.stage == ChildStage::Started)
            .map(|(id, _)| *id)
            .collect();
        self.hear_of_children(round, &run, started);
        Ok(Accepted {
            run_id,
            reply: Reply::Done,
        })
    }

    /// The base may be an earlier run than the one that is open now.
    fn end_open_run(
        &mut self,
        round: &mut Round,
        base: &RunKey,
        workflow_id: &WorkflowId,
        reset: &ResetWorkflow,
    ) -> Result<(), CallError> {
        let newest = self.find(&Target {
            namespace: base.0.clone(),
            workflow_id: workflow_id.clone(),
            run_id: None,
        })?;
        if newest == *base || !self.executions[&newest].state.is_running() {
            return Ok(());
        }
        // It has nothing of the new run's history, and its parent is not told: the new run has its part.
        let leave = ResetWorkflow {
            finish_event_id: 0,
            ..reset.clone()
        };
        self.step(round, &newest, &Request::Reset(Box::new(leave)))
            .map(|_| ())
    }

    /// Children that ended while the run could not hear of it: before a reset made it, or before it asked for them again.
    pub(super) fn hear_of_children(&mut self, round: &mut Round, run: &RunKey, ids: Vec<i64>) {
        for id in ids {
            let Some(closed) = self.end_of_child(round, run, id) else {
                continue;
            };
            if let Err(error) = self.step(round, run, &Request::ChildClosed(Box::new(closed))) {
                tracing::warn!(%error, run_id = %run.1, event_id = id, "a child's end cannot be told");
            }
        }
    }

    /// How a child's chain ended, if it has.
    fn end_of_child(&mut self, round: &Round, run: &RunKey, id: i64) -> Option<ChildClosed> {
        let child = self.executions.get(run)?.state.children.get(&id)?;
        let workflow_id = WorkflowId::parse(&child.workflow_id).ok()?;
        let mut run_id = RunId::parse(&child.run_id)?;
        let outcome = loop {
            let target = Target {
                namespace: run.0.clone(),
                workflow_id: workflow_id.clone(),
                run_id: Some(run_id),
            };
            let last = match self.find(&target) {
                Ok(last) => last,
                // It left after its retention, so it had ended; nobody knows how any more.
                Err(CallError::Rejected(_)) => break ChildOutcome::Terminated,
                Err(error) => {
                    tracing::warn!(%error, %workflow_id, "a child cannot be read");
                    return None;
                }
            };
            let state = &self.executions[&last].state;
            if state.is_running() {
                return None;
            }
            let next = [&state.next_run_id, &state.reset_run_id];
            if let Some(next) = next.into_iter().find_map(|id| RunId::parse(id)) {
                run_id = next;
                continue;
            }
            let journal = self.journal_of(round, &last).ok()?;
            let close = journal.iter().rev().find_map(Record::event)?;
            break outward::outcome_of(close.attributes.clone()?);
        };
        Some(ChildClosed {
            initiated_event_id: id,
            execution: ExecutionRef {
                workflow_id: workflow_id.to_string(),
                run_id: run_id.to_string(),
            },
            outcome,
        })
    }

    /// All records of a run, those of this round included.
    fn journal_of(&self, round: &Round, run: &RunKey) -> Result<Vec<Record>, CallError> {
        let shard = self.executions[run].shard;
        let mut records = Vec::new();
        let mut range = KeyRange::journal_of(shard, &run.0, run.1);
        loop {
            let page = self.store.scan(&range, 256, false)?;
            for (key, entry) in &page.entries {
                records.extend(read_entry(&*self.store, key, entry)?);
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => break,
            }
        }
        records.extend_from_slice(round.appended_to(run));
        Ok(records)
    }
}
