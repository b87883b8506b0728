//! A start: who has the workflow id now, what the policies say to that, and the run that begins.

use orchestrion_history::ids::{Namespace, RunId, ShardId, WorkflowId};
use orchestrion_history::machines::workflow_id::{Holder, Verdict, arbitrate};
use orchestrion_history::request::{
    AttachStart, Rejection, Reply, Request, StartWorkflow, TerminateWorkflow,
};
use orchestrion_history::state::MutableState;
use orchestrion_history::{Context, decide};
use orchestrion_proto::temporal::api::enums::v1::{
    WorkflowExecutionStatus, WorkflowIdConflictPolicy,
};

use crate::engine::builtin;
use crate::engine::handle::{Accepted, CallError, Target};
use crate::engine::round::{Round, RunKey};
use crate::engine::tail::Tail;
use crate::orchestration::Interpreter;

use super::{Core, Execution};

impl Core {
    /// Starts a run, or finds the one that this request started before, or the one that the start is content with.
    pub(super) fn start(
        &mut self,
        round: &mut Round,
        target: &Target,
        mut start: StartWorkflow,
    ) -> Result<Accepted, CallError> {
        let shard = ShardId::of(&target.namespace, &target.workflow_id, self.options.shards);
        let holder = self.holder(shard, target, &start)?;
        let verdict = arbitrate(holder.as_ref().map(|(_, holder)| holder), &start)?;
        let new_run = |core: &mut Self, round: &mut Round, mut start: StartWorkflow| {
            let run_id = core.new_run_id(round.now);
            start.run_id = run_id.to_string();
            let reply = core.begin(round, &target.namespace, &target.workflow_id, run_id, start)?;
            Ok(Accepted { run_id, reply })
        };
        let run_id = match (verdict, &holder) {
            (Verdict::Start, _) | (_, None) => return new_run(self, round, start),
            (_, Some((run_id, _))) => *run_id,
        };
        let run = (target.namespace.clone(), run_id);
        let existing = Target {
            run_id: Some(run_id),
            ..target.clone()
        };
        match verdict {
            Verdict::Repeated | Verdict::Start => Ok(Accepted {
                run_id,
                reply: match &holder {
                    // It had only attached to what another start began.
                    Some((_, holder)) if holder.create_request_id != start.request_id => {
                        Reply::Existing
                    }
                    _ => Reply::Repeated,
                },
            }),
            Verdict::UseExisting => {
                self.find(&existing)?;
                self.use_existing(round, &run, start)?;
                Ok(Accepted {
                    run_id,
                    reply: Reply::Existing,
                })
            }
            Verdict::TerminateExisting => {
                // A start that will be refused must not have ended anything.
                start.run_id = run_id.to_string();
                let context = Context {
                    namespace: target.namespace.as_str(),
                    ..Context::new(round.now, &self.options.limits)
                };
                let void = MutableState::default();
                decide(&void, &context, &Request::Start(Box::new(start.clone())))?;
                self.find(&existing)?;
                let terminate = TerminateWorkflow {
                    reason: "terminated by a start with the conflict policy TERMINATE_EXISTING"
                        .to_owned(),
                    details: None,
                    identity: start.identity.clone(),
                };
                self.step(round, &run, &Request::Terminate(Box::new(terminate)))?;
                new_run(self, round, start)
            }
        }
    }

    /// A start met an open run that is good enough for it.
    fn use_existing(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        start: StartWorkflow,
    ) -> Result<(), CallError> {
        let wanted = start.on_conflict;
        if wanted.attach_request_id {
            let attach = AttachStart {
                request_id: start.request_id,
                identity: start.identity,
                completion_callbacks: if wanted.attach_completion_callbacks {
                    start.completion_callbacks
                } else {
                    Vec::new()
                },
                links: if wanted.attach_links {
                    start.links
                } else {
                    Vec::new()
                },
            };
            self.step(round, run, &Request::Attach(Box::new(attach)))?;
        }
        if let Some(mut signal) = start.signal {
            signal.ends_start_delay = true;
            self.step(round, run, &Request::Signal(signal))?;
        }
        Ok(())
    }

    /// The newest run of the workflow id.
    fn holder(
        &mut self,
        shard: ShardId,
        target: &Target,
        start: &StartWorkflow,
    ) -> Result<Option<(RunId, Holder)>, CallError> {
        let key = (target.namespace.clone(), target.workflow_id.clone());
        let Some(run_id) = self.current_run(shard, &key)? else {
            return Ok(None);
        };
        let run = (target.namespace.clone(), run_id);
        // Who attached to an open run only its state knows.
        let attaches = start.conflict == WorkflowIdConflictPolicy::UseExisting;
        if attaches && !self.executions.contains_key(&run) {
            let _ = self.find(&Target {
                run_id: Some(run_id),
                ..target.clone()
            });
        }
        if let Some(execution) = self.executions.get(&run) {
            let state = &execution.state;
            let holder = Holder {
                run_id: run_id.to_string(),
                create_request_id: state.create_request_id.clone(),
                asked_before: state.was_asked_by(&start.request_id),
                status: state.status.wire(),
            };
            return Ok(Some((run_id, holder)));
        }
        let current = self.read_current(shard, &key)?.unwrap_or_default();
        // Known from the store alone: the map is for runs in memory.
        self.current.remove(&key);
        let holder = Holder {
            run_id: run_id.to_string(),
            asked_before: !start.request_id.is_empty()
                && current.create_request_id == start.request_id,
            status: WorkflowExecutionStatus::try_from(current.status).unwrap_or_default(),
            create_request_id: current.create_request_id,
        };
        Ok(Some((run_id, holder)))
    }

    /// A run begins. It is the workflow id's newest from now on.
    pub(super) fn begin(
        &mut self,
        round: &mut Round,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        run_id: RunId,
        start: StartWorkflow,
    ) -> Result<Reply, CallError> {
        let run = (namespace.clone(), run_id);
        self.insert_void(&run, workflow_id, &start.workflow_type);
        match self.step(round, &run, &Request::Start(Box::new(start))) {
            Ok(reply) => {
                self.current
                    .insert((namespace.clone(), workflow_id.clone()), run_id);
                Ok(reply)
            }
            Err(error) => {
                self.executions.remove(&run);
                Err(error)
            }
        }
    }

    /// A place in memory for a run that has no record yet.
    pub(super) fn insert_void(
        &mut self,
        run: &RunKey,
        workflow_id: &WorkflowId,
        workflow_type: &str,
    ) {
        let interpreter = builtin::is_builtin(workflow_type).then(|| Box::new(Interpreter::new()));
        let execution = Execution {
            workflow_id: workflow_id.clone(),
            shard: ShardId::of(&run.0, workflow_id, self.options.shards),
            state: MutableState::default(),
            interpreter,
            volatile_start: None,
            sticky: None,
            sticky_until: None,
            waits_at: None,
            buffered_queries: Vec::new(),
            updates: Vec::new(),
            speculative: None,
            indexed_due: None,
            relist: true,
            listed_status: None,
            snapshot_records: 0,
            last_used: self.rounds,
            used_at: self.now,
            tail: Tail::default(),
        };
        self.executions.insert(run.clone(), execution);
    }

    /// The run that begins with another's end, in the same commit.
    pub(super) fn begin_next(
        &mut self,
        round: &mut Round,
        run: &RunKey,
        start: StartWorkflow,
    ) -> Result<(), CallError> {
        let contradiction = |what: String| CallError::Unavailable(format!("the next run: {what}"));
        let run_id = RunId::parse(&start.run_id)
            .ok_or_else(|| contradiction(format!("{} is no run id", start.run_id)))?;
        let workflow_id = self.executions[run].workflow_id.clone();
        self.begin(round, &run.0, &workflow_id, run_id, start)
            .map(|_| ())
            .map_err(|error| contradiction(error.to_string()))
    }
}

/// Whether another run has the workflow id.
pub(super) fn is_taken(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Rejected(Rejection::AlreadyStarted { .. } | Rejection::IdUsed { .. })
            | CallError::Quarantined { .. }
    )
}
