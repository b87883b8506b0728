//! Starts of executions, alone or with a signal.

use orchestrion_history::ids::{Namespace, RunId, WorkflowId};
use orchestrion_history::request::{OnConflict, Rejection, Reply, SignalWorkflow, StartWorkflow};
use orchestrion_proto::temporal::api::enums::v1::{
    WorkflowExecutionStatus, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    SignalWithStartWorkflowExecutionRequest, SignalWithStartWorkflowExecutionResponse,
    StartWorkflowExecutionRequest,
};
use orchestrion_proto::wire::StartWorkflowExecutionResponse;
use tonic::{Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::engine::handle::{Accepted, CallError, Target};

impl Temporal {
    pub(super) async fn start(
        &self,
        request: Request<StartWorkflowExecutionRequest>,
    ) -> Result<Response<StartWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let eager = r.request_eager_execution;
        let identity = r.identity.clone();
        let start = self.start_of(&namespace, r)?;
        let target = edge::target_of(&namespace, &start.workflow_id, "")?;
        // A first task that has to wait is nobody's to take now.
        let eager = eager && start.first_task_backoff == 0 && start.cron_schedule.is_empty();
        let workflow_id = target.workflow_id.clone();
        let started = if eager {
            let started = self.api.handle.start_eagerly(target, start, identity).await;
            started.map(|started| (started.accepted, started.task))
        } else {
            let accepted = self.api.handle.start(namespace.clone(), start).await;
            accepted.map(|accepted| (accepted, None))
        };
        let (accepted, task) = match started {
            Ok(started) => started,
            Err(error) => return Err(self.start_refused(&namespace, error).await),
        };
        let first_execution_run_id = self.first_run(&namespace, &workflow_id, &accepted).await;
        let eager_workflow_task = match task {
            Some(task) => Some(self.workflow_task(*task).await?),
            None => None,
        };
        Ok(Response::new(StartWorkflowExecutionResponse {
            run_id: accepted.run_id.to_string(),
            first_execution_run_id,
            started: accepted.reply != Reply::Existing,
            status: WorkflowExecutionStatus::Running.into(),
            eager_workflow_task,
            ..Default::default()
        }))
    }

    /// A start, parsed.
    pub(super) fn start_of(
        &self,
        namespace: &Namespace,
        r: StartWorkflowExecutionRequest,
    ) -> Result<StartWorkflow, Status> {
        let workflow_type = r.workflow_type.clone().unwrap_or_default().name;
        edge::workflow_type(&workflow_type)?;
        let task_queue = edge::queue(r.task_queue.as_ref())?.to_string();
        let (reuse, conflict) = policies(
            r.workflow_id_reuse_policy(),
            r.workflow_id_conflict_policy(),
        )?;
        let request_id = match r.request_id.is_empty() {
            true => self.new_request_id(),
            false => r.request_id.clone(),
        };
        let max = self.blob_max();
        edge::sized("the input", r.input.as_ref(), max)?;
        edge::sized("the memo", r.memo.as_ref(), max)?;
        let start_delay = edge::nanos("start delay", r.workflow_start_delay.as_ref())?;
        if start_delay > 0 && !r.cron_schedule.is_empty() {
            return Err(Status::invalid_argument(
                "cron schedule and start delay cannot be combined: set one of them",
            ));
        }
        let on_conflict = r.on_conflict_options.unwrap_or_default();
        let limits = &self.api.settings.limits;
        limits
            .check_metadata(r.user_metadata.as_ref())
            .map_err(|why| {
                Status::invalid_argument(format!("workflow {}: {why}", r.workflow_id))
            })?;
        let mut search_attributes = r.search_attributes;
        let catalogue = self.api.registrar.registry().catalogue(namespace);
        if let Some(given) = &mut search_attributes {
            catalogue
                .admit(given)
                .map_err(|e| Status::invalid_argument(e.to_string()))?;
        }
        Ok(StartWorkflow {
            run_id: String::new(),
            workflow_id: r.workflow_id,
            workflow_type,
            task_queue,
            input: r.input,
            header: r.header,
            memo: r.memo,
            search_attributes,
            execution_timeout: edge::nanos(
                "execution timeout",
                r.workflow_execution_timeout.as_ref(),
            )?,
            run_timeout: edge::nanos("run timeout", r.workflow_run_timeout.as_ref())?,
            task_timeout: edge::nanos("task timeout", r.workflow_task_timeout.as_ref())?,
            retry_policy: r.retry_policy,
            request_id,
            identity: r.identity,
            first_task_backoff: start_delay,
            cron_schedule: r.cron_schedule,
            last_completion_result: r.last_completion_result,
            continued_failure: r.continued_failure,
            reuse,
            conflict,
            on_conflict: OnConflict {
                attach_request_id: on_conflict.attach_request_id,
                attach_completion_callbacks: on_conflict.attach_completion_callbacks,
                attach_links: on_conflict.attach_links,
            },
            priority: r.priority,
            versioning_override: r.versioning_override,
            completion_callbacks: r.completion_callbacks,
            links: r.links,
            user_metadata: r.user_metadata,
            eager: r.request_eager_execution,
            ..Default::default()
        })
    }

    #[allow(deprecated, reason = "older clients send it")]
    pub(super) async fn signal_with_start(
        &self,
        request: Request<SignalWithStartWorkflowExecutionRequest>,
    ) -> Result<Response<SignalWithStartWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        if r.signal_name.is_empty() {
            return Err(Status::invalid_argument(
                "signal name is not set: name a signal",
            ));
        }
        edge::sized(
            "the signal's input",
            r.signal_input.as_ref(),
            self.blob_max(),
        )?;
        let signal = SignalWorkflow {
            name: r.signal_name.clone(),
            input: r.signal_input.clone(),
            header: r.header.clone(),
            identity: r.identity.clone(),
            request_id: r.request_id.clone(),
            ..Default::default()
        };
        let conflict = match r.workflow_id_conflict_policy() {
            WorkflowIdConflictPolicy::Unspecified => WorkflowIdConflictPolicy::UseExisting,
            WorkflowIdConflictPolicy::Fail => {
                return Err(Status::invalid_argument(
                    "a signal with start cannot fail on an open run: use the existing one, or terminate it",
                ));
            }
            given => given,
        };
        let start = self.start_of(
            &namespace,
            StartWorkflowExecutionRequest {
                workflow_id: r.workflow_id,
                workflow_type: r.workflow_type,
                task_queue: r.task_queue,
                input: r.input,
                workflow_execution_timeout: r.workflow_execution_timeout,
                workflow_run_timeout: r.workflow_run_timeout,
                workflow_task_timeout: r.workflow_task_timeout,
                identity: r.identity,
                request_id: r.request_id,
                workflow_id_reuse_policy: r.workflow_id_reuse_policy,
                workflow_id_conflict_policy: match r.workflow_id_reuse_policy {
                    legacy if legacy == WorkflowIdReusePolicy::TerminateIfRunning as i32 => 0,
                    _ => conflict.into(),
                },
                retry_policy: r.retry_policy,
                cron_schedule: r.cron_schedule,
                memo: r.memo,
                search_attributes: r.search_attributes,
                header: r.header,
                workflow_start_delay: r.workflow_start_delay,
                user_metadata: r.user_metadata,
                links: r.links,
                versioning_override: r.versioning_override,
                priority: r.priority,
                ..Default::default()
            },
        )?;
        let start = StartWorkflow {
            signal: Some(Box::new(signal)),
            ..start
        };
        let target = edge::target_of(&namespace, &start.workflow_id, "")?;
        let accepted = match self.api.handle.start(namespace.clone(), start).await {
            Ok(accepted) => accepted,
            Err(error) => return Err(self.start_refused(&namespace, error).await),
        };
        let first_execution_run_id = self
            .first_run(&namespace, &target.workflow_id, &accepted)
            .await;
        Ok(Response::new(SignalWithStartWorkflowExecutionResponse {
            run_id: accepted.run_id.to_string(),
            first_execution_run_id,
            started: accepted.reply == Reply::Done,
            ..Default::default()
        }))
    }

    /// The first run of the chain that a start ended up with.
    pub(super) async fn first_run(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        accepted: &Accepted,
    ) -> String {
        if accepted.reply == Reply::Done {
            return accepted.run_id.to_string();
        }
        self.first_run_of(namespace, workflow_id, accepted.run_id)
            .await
    }

    async fn first_run_of(
        &self,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        run_id: RunId,
    ) -> String {
        let target = Target {
            namespace: namespace.clone(),
            workflow_id: workflow_id.clone(),
            run_id: Some(run_id),
        };
        match self.api.handle.state(target).await {
            Ok(state) => state.first_run_id.clone(),
            // It left meanwhile.
            Err(_) => run_id.to_string(),
        }
    }

    /// Why a start is refused. Of a run that is in its way, the chain is named too.
    pub(super) async fn start_refused(&self, namespace: &Namespace, error: CallError) -> Status {
        let CallError::Rejected(
            Rejection::AlreadyStarted {
                workflow_id,
                run_id,
                request_id,
            }
            | Rejection::IdUsed {
                workflow_id,
                run_id,
                request_id,
            },
        ) = &error
        else {
            return errors::of_call(error);
        };
        let first = match (WorkflowId::parse(workflow_id), RunId::parse(run_id)) {
            (Ok(workflow_id), Some(run)) => self.first_run_of(namespace, &workflow_id, run).await,
            _ => run_id.clone(),
        };
        errors::already_started(error.to_string(), request_id.clone(), run_id.clone(), first)
    }

    /// An id for something that its caller named none for.
    pub(super) fn new_request_id(&self) -> String {
        let mut bytes = [0u8; 16];
        self.api.ids.fill(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        orchestrion_history::ids::RunId(bytes).to_string()
    }
}

#[allow(deprecated, reason = "older clients send it")]
/// Both policies, the old one that says two things at once taken apart.
fn policies(
    reuse: WorkflowIdReusePolicy,
    conflict: WorkflowIdConflictPolicy,
) -> Result<(WorkflowIdReusePolicy, WorkflowIdConflictPolicy), Status> {
    use {WorkflowIdConflictPolicy as Conflict, WorkflowIdReusePolicy as Reuse};
    match (reuse, conflict) {
        (Reuse::TerminateIfRunning, Conflict::Unspecified) => {
            Ok((Reuse::AllowDuplicate, Conflict::TerminateExisting))
        }
        (Reuse::TerminateIfRunning, _) => Err(Status::invalid_argument(
            "reuse policy TERMINATE_IF_RUNNING cannot be combined with a conflict policy: use TERMINATE_EXISTING alone",
        )),
        (Reuse::RejectDuplicate, Conflict::TerminateExisting) => Err(Status::invalid_argument(
            "reuse policy REJECT_DUPLICATE cannot be combined with conflict policy TERMINATE_EXISTING",
        )),
        (reuse, conflict) => Ok((
            match reuse {
                Reuse::Unspecified => Reuse::AllowDuplicate,
                given => given,
            },
            match conflict {
                Conflict::Unspecified => Conflict::Fail,
                given => given,
            },
        )),
    }
}
