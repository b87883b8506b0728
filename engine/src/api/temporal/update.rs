//! Updates: sent, awaited, asked for again.

use std::time::Duration;

use orchestrion_proto::temporal::api::common::v1::WorkflowExecution;
use orchestrion_proto::temporal::api::enums::v1::UpdateWorkflowExecutionLifecycleStage as Stage;
use orchestrion_proto::temporal::api::update::v1::{Meta, UpdateRef, WaitPolicy};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    PollWorkflowExecutionUpdateRequest, PollWorkflowExecutionUpdateResponse,
    UpdateWorkflowExecutionRequest, UpdateWorkflowExecutionResponse,
};
use tonic::{Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::engine::Target;
use crate::engine::polling::{UpdateProgress, UpdateStage};
use crate::seams;

/// How long an update is waited for before its caller is told how far it is and asks again.
const WAIT: Duration = Duration::from_secs(20);

impl Temporal {
    pub(super) async fn send_update(
        &self,
        request: Request<UpdateWorkflowExecutionRequest>,
    ) -> Result<Response<UpdateWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let target = edge::target(&namespace, r.workflow_execution.as_ref())?;
        let target = self.of_chain(target, &r.first_execution_run_id).await?;
        self.update(target, r).await.map(Response::new)
    }

    /// Sends an update to a run and waits for it.
    pub(super) async fn update(
        &self,
        target: Target,
        r: UpdateWorkflowExecutionRequest,
    ) -> Result<UpdateWorkflowExecutionResponse, Status> {
        let wait = wait_of(r.wait_policy.as_ref())?;
        let mut update = r.request.ok_or_else(|| {
            Status::invalid_argument("update request is not set: name an update handler")
        })?;
        if update
            .input
            .as_ref()
            .is_none_or(|input| input.name.is_empty())
        {
            return Err(Status::invalid_argument(
                "update name is empty: name an update handler",
            ));
        }
        edge::sized(
            "the update's request",
            update.input.as_ref(),
            self.blob_max(),
        )?;
        let meta = update.meta.get_or_insert_with(Meta::default);
        if meta.update_id.is_empty() {
            meta.update_id = self.new_request_id();
        }
        if meta.update_id.len() > orchestrion_history::ids::ID_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "update id has {} bytes, at most {} are allowed",
                meta.update_id.len(),
                orchestrion_history::ids::ID_BYTES_MAX
            )));
        }
        let id = meta.update_id.clone();
        let progress = self.await_update(&target, &id, Some(update), wait).await?;
        Ok(UpdateWorkflowExecutionResponse {
            update_ref: Some(reference(&target, &id, progress.as_ref())),
            stage: stage_of(progress.as_ref()).into(),
            outcome: progress.and_then(|progress| progress.outcome),
            ..Default::default()
        })
    }

    pub(super) async fn poll_update(
        &self,
        request: Request<PollWorkflowExecutionUpdateRequest>,
    ) -> Result<Response<PollWorkflowExecutionUpdateResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let named = r.update_ref.ok_or_else(|| {
            Status::invalid_argument(
                "update reference is not set: name the execution and the update",
            )
        })?;
        let target = edge::target(&namespace, named.workflow_execution.as_ref())?;
        let wait = match r.wait_policy.as_ref().map(WaitPolicy::lifecycle_stage) {
            Some(Stage::Completed) => UpdateStage::Completed,
            Some(Stage::Accepted) => UpdateStage::Accepted,
            _ => UpdateStage::Admitted,
        };
        let progress = self
            .await_update(&target, &named.update_id, None, wait)
            .await?;
        Ok(Response::new(PollWorkflowExecutionUpdateResponse {
            update_ref: Some(reference(&target, &named.update_id, progress.as_ref())),
            stage: stage_of(progress.as_ref()).into(),
            outcome: progress.and_then(|progress| progress.outcome),
        }))
    }

    /// `None`: it has not come as far as is waited for.
    async fn await_update(
        &self,
        target: &Target,
        id: &str,
        request: Option<orchestrion_proto::temporal::api::update::v1::Request>,
        wait: UpdateStage,
    ) -> Result<Option<UpdateProgress>, Status> {
        let mut stop = self.api.stop.clone();
        let update = self
            .api
            .handle
            .update(target.clone(), id.to_owned(), request, wait);
        tokio::select! {
            progress = update => progress.map(Some).map_err(errors::of_call),
            () = seams::sleep(WAIT) => Ok(None),
            _ = stop.wait_for(|stopped| *stopped) => Ok(None),
        }
    }
}

fn wait_of(policy: Option<&WaitPolicy>) -> Result<UpdateStage, Status> {
    match policy.map_or(Stage::Unspecified, WaitPolicy::lifecycle_stage) {
        Stage::Admitted => Err(Status::invalid_argument(
            "wait stage ADMITTED is not served, an admitted update is not durable: wait for ACCEPTED or COMPLETED",
        )),
        Stage::Completed => Ok(UpdateStage::Completed),
        Stage::Accepted | Stage::Unspecified => Ok(UpdateStage::Accepted),
    }
}

fn stage_of(progress: Option<&UpdateProgress>) -> Stage {
    match progress.map(|progress| progress.stage) {
        Some(UpdateStage::Completed) => Stage::Completed,
        Some(UpdateStage::Accepted) => Stage::Accepted,
        Some(UpdateStage::Admitted) | None => Stage::Admitted,
    }
}

fn reference(target: &Target, id: &str, progress: Option<&UpdateProgress>) -> UpdateRef {
    let run_id = progress.map(|progress| progress.run_id).or(target.run_id);
    UpdateRef {
        workflow_execution: Some(WorkflowExecution {
            workflow_id: target.workflow_id.to_string(),
            run_id: run_id.map(|run_id| run_id.to_string()).unwrap_or_default(),
        }),
        update_id: id.to_owned(),
    }
}
