//! A reset: a run begins with a part of another's journal, and whatever run is open ends, in one batch.

use orchestrion_history::Context;
use orchestrion_history::ids::{RunId, WorkflowId};
use orchestrion_history::machines::reset::fork;
use orchestrion_history::record::Record;
use orchestrion_history::request::{Rejection, Reply, Request, ResetWorkflow, TerminateWorkflow};
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
        let terminate = TerminateWorkflow {
            reason: format!("run {} was reset: {}", reset.base_run_id, reset.reason),
            details: None,
            identity: reset.identity.clone(),
        };
        self.step(round, &newest, &Request::Terminate(Box::new(terminate)))
            .map(|_| ())
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
