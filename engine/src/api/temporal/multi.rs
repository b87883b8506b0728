//! A start and an update in one call.
//!
//! A newest run that has the update already is answered for, open or closed. Else the start comes first and uses the run that is open, if its
//! policy says so; a repeat of the call finds both again by their ids. When the
//! update cannot be sent, a run that was started for it stays: it is a run like any other.

use orchestrion_proto::google::rpc;
use orchestrion_proto::prost_wkt_types::Any;
use orchestrion_proto::temporal::api::enums::v1::{
    WorkflowExecutionStatus, WorkflowIdConflictPolicy,
};
use orchestrion_proto::temporal::api::errordetails::v1::MultiOperationExecutionFailure;
use orchestrion_proto::temporal::api::errordetails::v1::multi_operation_execution_failure::OperationStatus;
use orchestrion_proto::temporal::api::workflowservice::v1::execute_multi_operation_request::operation::Operation;
use orchestrion_proto::temporal::api::workflowservice::v1::execute_multi_operation_response::{
    Response as Part, response::Response as Done,
};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    ExecuteMultiOperationRequest, ExecuteMultiOperationResponse, StartWorkflowExecutionResponse,
    UpdateWorkflowExecutionRequest,
};
use orchestrion_history::ids::RunId;
use orchestrion_history::request::Reply;
use prost::Message;
use tonic::{Code, Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::engine::Target;
use crate::engine::handle::Accepted;
use crate::engine::polling::UpdateStage;

impl Temporal {
    pub(super) async fn start_and_update(
        &self,
        request: Request<ExecuteMultiOperationRequest>,
    ) -> Result<Response<ExecuteMultiOperationResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let operations = request.into_inner().operations;
        let mut operations = operations.into_iter().map(|one| one.operation);
        let (start, update) = match (operations.next(), operations.next(), operations.next()) {
            (
                Some(Some(Operation::StartWorkflow(start))),
                Some(Some(Operation::UpdateWorkflow(update))),
                None,
            ) => (start, update),
            _ => {
                return Err(Status::invalid_argument(
                    "operations are not a start and an update: send these two, in this order",
                ));
            }
        };
        let named = update.workflow_execution.as_ref();
        if named.is_none_or(|execution| execution.workflow_id != start.workflow_id) {
            return Err(Status::invalid_argument(
                "the update names another workflow id than the start: name the same",
            ));
        }
        if named.is_some_and(|execution| !execution.run_id.is_empty()) {
            return Err(Status::invalid_argument(
                "the update names a run id: leave it empty, it goes to the run of the start",
            ));
        }
        if start.workflow_id_conflict_policy() == WorkflowIdConflictPolicy::Unspecified {
            return Err(Status::invalid_argument(
                "conflict policy is not set: FAIL or USE_EXISTING says what becomes of a run that is open",
            ));
        }
        let start = self.start_of(&namespace, start)?;
        let mut target = edge::target_of(&namespace, &start.workflow_id, "")?;
        let accepted = match self.updated_before(&target, &update).await {
            Some(run_id) => Accepted {
                run_id,
                reply: Reply::Existing,
            },
            None => match self.api.handle.start(namespace.clone(), start).await {
                Ok(accepted) => accepted,
                Err(error) => return Err(failed(self.start_refused(&namespace, error).await, 0)),
            },
        };
        target.run_id = Some(accepted.run_id);
        let first_execution_run_id = self
            .first_run(&namespace, &target.workflow_id, &accepted)
            .await;
        let updated = self.update(target, update).await;
        let updated = updated.map_err(|status| failed(status, 1))?;
        let started = StartWorkflowExecutionResponse {
            run_id: accepted.run_id.to_string(),
            first_execution_run_id,
            started: accepted.reply != Reply::Existing,
            status: WorkflowExecutionStatus::Running.into(),
            ..Default::default()
        };
        let parts = [Done::StartWorkflow(started), Done::UpdateWorkflow(updated)];
        Ok(Response::new(ExecuteMultiOperationResponse {
            responses: parts
                .map(|part| Part {
                    response: Some(part),
                })
                .into(),
        }))
    }
}

impl Temporal {
    /// The newest run, when it has this very update, closed or not: nothing is to be started for it then.
    async fn updated_before(
        &self,
        target: &Target,
        update: &UpdateWorkflowExecutionRequest,
    ) -> Option<RunId> {
        let meta = update.request.as_ref()?.meta.as_ref()?;
        let id = Some(meta.update_id.clone()).filter(|id| !id.is_empty())?;
        let known = self
            .api
            .handle
            .update(target.clone(), id, None, UpdateStage::Admitted);
        Some(known.await.ok()?.run_id)
    }
}

/// The failure of one of the two, as the SDKs read it: the other was aborted for it.
fn failed(why: Status, which: usize) -> Status {
    const ABORTED: &str =
        "type.googleapis.com/temporal.api.failure.v1.MultiOperationExecutionAborted";
    let details = rpc::Status::decode(why.details()).map(|status| status.details);
    let cause = OperationStatus {
        code: why.code() as i32,
        message: why.message().to_owned(),
        details: details.unwrap_or_default(),
    };
    let aborted = OperationStatus {
        code: Code::Aborted as i32,
        message: "operation was aborted".to_owned(),
        details: vec![Any {
            type_url: ABORTED.to_owned(),
            value: Vec::new(),
        }],
    };
    let mut statuses = vec![aborted; 2];
    statuses[which] = cause;
    errors::detailed(
        why.code(),
        format!("update-with-start could not be executed: {}", why.message()),
        "MultiOperationExecutionFailure",
        &MultiOperationExecutionFailure { statuses },
    )
}
