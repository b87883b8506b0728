//! What clients ask of an execution: signal, cancel, terminate.

use orchestrion_history::request::{
    Rejection, Request as Ask, RequestCancelWorkflow, ResetWorkflow, SignalWorkflow,
    TerminateWorkflow,
};
use orchestrion_proto::temporal::api::enums::v1::{ResetReapplyExcludeType, ResetReapplyType};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    DeleteWorkflowExecutionRequest, DeleteWorkflowExecutionResponse,
    RequestCancelWorkflowExecutionRequest, RequestCancelWorkflowExecutionResponse,
    ResetStickyTaskQueueRequest, ResetStickyTaskQueueResponse, ResetWorkflowExecutionRequest,
    ResetWorkflowExecutionResponse, SignalWorkflowExecutionRequest,
    SignalWorkflowExecutionResponse, TerminateWorkflowExecutionRequest,
    TerminateWorkflowExecutionResponse,
};
use tonic::{Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::acts::{Act, What};
use crate::engine::Target;
use crate::engine::handle::CallError;

impl Temporal {
    pub(super) async fn signal(
        &self,
        request: Request<SignalWorkflowExecutionRequest>,
    ) -> Result<Response<SignalWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let target = edge::target(&namespace, r.workflow_execution.as_ref())?;
        edge::sized("the signal's input", r.input.as_ref(), self.blob_max())?;
        let signal = SignalWorkflow {
            name: r.signal_name,
            input: r.input,
            header: r.header,
            identity: r.identity,
            request_id: r.request_id,
            ..Default::default()
        };
        self.ask(target, Ask::Signal(Box::new(signal))).await?;
        Ok(Response::new(SignalWorkflowExecutionResponse::default()))
    }

    pub(super) async fn request_cancel(
        &self,
        request: Request<RequestCancelWorkflowExecutionRequest>,
    ) -> Result<Response<RequestCancelWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let target = edge::target(&namespace, r.workflow_execution.as_ref())?;
        let target = self.of_chain(target, &r.first_execution_run_id).await?;
        let cancel = RequestCancelWorkflow {
            reason: r.reason,
            identity: r.identity,
            request_id: r.request_id,
            ..Default::default()
        };
        self.ask(target, Ask::RequestCancel(Box::new(cancel)))
            .await?;
        Ok(Response::new(RequestCancelWorkflowExecutionResponse {}))
    }

    pub(super) async fn terminate(
        &self,
        request: Request<TerminateWorkflowExecutionRequest>,
    ) -> Result<Response<TerminateWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let target = edge::target(&namespace, r.workflow_execution.as_ref())?;
        let target = self.of_chain(target, &r.first_execution_run_id).await?;
        let terminate = TerminateWorkflow {
            reason: r.reason,
            details: r.details,
            identity: r.identity,
        };
        self.ask(target, Ask::Terminate(Box::new(terminate)))
            .await?;
        Ok(Response::new(TerminateWorkflowExecutionResponse {}))
    }

    /// Ends a run if it is open, and removes it with all that is kept of it. Without a run id it is the newest run.
    pub(super) async fn delete(
        &self,
        request: Request<DeleteWorkflowExecutionRequest>,
    ) -> Result<Response<DeleteWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let actor = self.actor(&request)?;
        let r = request.into_inner();
        let mut target = edge::target(&namespace, r.workflow_execution.as_ref())?;
        target.run_id = Some(self.run_of(&target)?);
        let terminate = TerminateWorkflow {
            reason: "it is deleted".to_owned(),
            details: None,
            identity: "orchestrion".to_owned(),
        };
        let ended = self
            .api
            .handle
            .request(target.clone(), Ask::Terminate(Box::new(terminate)));
        match ended.await {
            // A damaged run cannot be ended, but it can go.
            Ok(_) | Err(CallError::Rejected(Rejection::Closed) | CallError::Quarantined { .. }) => {
            }
            Err(error) => return Err(errors::of_call(error)),
        }
        let act = Act::new(What::ExecutionDeleted, target.workflow_id.as_str())
            .with("runId", target.run_id.map(|id| id.to_string()));
        let act = self.api.registrar.acts().record(&namespace, &actor, act);
        let removed = self.api.handle.remove(target, vec![act]).await;
        removed.map_err(errors::of_call)?;
        Ok(Response::new(DeleteWorkflowExecutionResponse {}))
    }

    /// Forks a history at the end of a workflow task; the run that is open ends.
    pub(super) async fn reset(
        &self,
        request: Request<ResetWorkflowExecutionRequest>,
    ) -> Result<Response<ResetWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let mut target = edge::target(&namespace, r.workflow_execution.as_ref())?;
        target.run_id = Some(self.run_of(&target)?);
        #[allow(deprecated, reason = "older clients send it")]
        let nothing = r.reset_reapply_type() == ResetReapplyType::None;
        let excluded = |kind| nothing || r.reset_reapply_exclude_types().any(|other| other == kind);
        let (skip_signals, skip_updates) = (
            excluded(ResetReapplyExcludeType::Signal),
            excluded(ResetReapplyExcludeType::Update),
        );
        let reset = ResetWorkflow {
            finish_event_id: r.workflow_task_finish_event_id,
            reason: r.reason,
            request_id: r.request_id,
            identity: r.identity,
            skip_signals,
            skip_updates,
            ..Default::default()
        };
        let accepted = self.ask(target, Ask::Reset(Box::new(reset))).await?;
        Ok(Response::new(ResetWorkflowExecutionResponse {
            run_id: accepted.run_id.to_string(),
        }))
    }

    /// The run that a request means, if it is of the chain that the request names.
    pub(super) async fn of_chain(
        &self,
        target: Target,
        first_run_id: &str,
    ) -> Result<Target, Status> {
        if first_run_id.is_empty() {
            return Ok(target);
        }
        let state = self.api.handle.state(target.clone()).await;
        let state = state.map_err(errors::of_call)?;
        if state.first_run_id == first_run_id {
            Ok(target)
        } else {
            Err(errors::not_found(format!(
                "workflow execution {} is not of the chain that began with run {first_run_id}",
                target.workflow_id
            )))
        }
    }

    pub(super) async fn reset_sticky(
        &self,
        request: Request<ResetStickyTaskQueueRequest>,
    ) -> Result<Response<ResetStickyTaskQueueResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let target = edge::target(&namespace, request.get_ref().execution.as_ref())?;
        self.api
            .handle
            .reset_sticky(target)
            .map_err(errors::of_call)?;
        Ok(Response::new(ResetStickyTaskQueueResponse {}))
    }

    pub(super) async fn ask(
        &self,
        target: Target,
        ask: Ask,
    ) -> Result<crate::engine::Accepted, Status> {
        self.api
            .handle
            .request(target, ask)
            .await
            .map_err(errors::of_call)
    }
}
