//! The Temporal API: `WorkflowService` and `OperatorService`, as Temporal's SDKs, its command line and its UI speak them.
//!
//! A method that is not here answers UNIMPLEMENTED, by the stubs that the traits bring.
//!
//! Invariant: a namespace comes from [`Caller::open`] only.

mod activity_task;
mod describe;
mod edge;
mod errors;
mod execution;
mod history;
mod multi;
mod namespace;
mod operate;
mod operator;
mod query;
mod start;
mod system;
mod token;
mod update;
mod visibility;
mod workers;
mod workflow_task;

use std::sync::Arc;

use orchestrion_history::ids::Namespace;
use orchestrion_proto::services::operator::operator_service_server::OperatorService;
use orchestrion_proto::services::workflow::workflow_service_server::WorkflowService;
use orchestrion_proto::temporal::api::operatorservice::v1 as operatorservice;
use orchestrion_proto::temporal::api::workflowservice::v1 as workflowservice;
use orchestrion_proto::wire;
use tonic::{Code, Request, Response, Status};

use super::access::{Caller, Closed};
use super::orra::Api;
use crate::workers::Workers;

/// Answers Temporal's clients. Clones share everything.
#[derive(Clone)]
pub struct Temporal {
    api: Api,
    workers: Arc<Workers>,
}

impl Temporal {
    /// Over the same engine and registry as the other wires.
    pub fn new(api: Api) -> Self {
        Self {
            api,
            workers: Arc::default(),
        }
    }

    /// The namespace that a request names, if its caller may use it.
    fn namespace<T>(&self, request: &Request<T>, name: &str) -> Result<Namespace, Status> {
        let caller = request
            .extensions()
            .get::<Caller>()
            .ok_or_else(|| Status::internal("the server did not say who calls"))?;
        let opened = caller.open(name, self.api.registrar.registry());
        opened.map_err(|closed| {
            let code = match closed {
                Closed::Unnamed => Code::InvalidArgument,
                Closed::Unknown(_) => return system::namespace_not_found(name, &closed),
                Closed::Foreign(_) => Code::PermissionDenied,
            };
            Status::new(code, closed.to_string())
        })
    }
}

#[tonic::async_trait]
impl WorkflowService for Temporal {
    async fn get_system_info(
        &self,
        _request: Request<workflowservice::GetSystemInfoRequest>,
    ) -> Result<Response<workflowservice::GetSystemInfoResponse>, Status> {
        Ok(Response::new(system::system_info()))
    }

    async fn get_cluster_info(
        &self,
        _request: Request<workflowservice::GetClusterInfoRequest>,
    ) -> Result<Response<workflowservice::GetClusterInfoResponse>, Status> {
        Ok(Response::new(system::cluster_info(&self.api)))
    }

    async fn describe_namespace(
        &self,
        request: Request<workflowservice::DescribeNamespaceRequest>,
    ) -> Result<Response<workflowservice::DescribeNamespaceResponse>, Status> {
        self.describe_a_namespace(request).await
    }

    async fn list_namespaces(
        &self,
        request: Request<workflowservice::ListNamespacesRequest>,
    ) -> Result<Response<workflowservice::ListNamespacesResponse>, Status> {
        self.list_all_namespaces(request).await
    }

    async fn register_namespace(
        &self,
        request: Request<workflowservice::RegisterNamespaceRequest>,
    ) -> Result<Response<workflowservice::RegisterNamespaceResponse>, Status> {
        self.register_a_namespace(request).await
    }

    async fn update_namespace(
        &self,
        request: Request<workflowservice::UpdateNamespaceRequest>,
    ) -> Result<Response<workflowservice::UpdateNamespaceResponse>, Status> {
        self.update_a_namespace(request).await
    }

    async fn list_workflow_executions(
        &self,
        request: Request<workflowservice::ListWorkflowExecutionsRequest>,
    ) -> Result<Response<workflowservice::ListWorkflowExecutionsResponse>, Status> {
        self.list_runs(request).await
    }

    async fn scan_workflow_executions(
        &self,
        request: Request<workflowservice::ScanWorkflowExecutionsRequest>,
    ) -> Result<Response<workflowservice::ScanWorkflowExecutionsResponse>, Status> {
        self.scan_runs(request).await
    }

    async fn list_open_workflow_executions(
        &self,
        request: Request<workflowservice::ListOpenWorkflowExecutionsRequest>,
    ) -> Result<Response<workflowservice::ListOpenWorkflowExecutionsResponse>, Status> {
        self.list_open_runs(request).await
    }

    async fn list_closed_workflow_executions(
        &self,
        request: Request<workflowservice::ListClosedWorkflowExecutionsRequest>,
    ) -> Result<Response<workflowservice::ListClosedWorkflowExecutionsResponse>, Status> {
        self.list_closed_runs(request).await
    }

    async fn count_workflow_executions(
        &self,
        request: Request<workflowservice::CountWorkflowExecutionsRequest>,
    ) -> Result<Response<workflowservice::CountWorkflowExecutionsResponse>, Status> {
        self.count_runs(request).await
    }

    async fn get_search_attributes(
        &self,
        request: Request<workflowservice::GetSearchAttributesRequest>,
    ) -> Result<Response<workflowservice::GetSearchAttributesResponse>, Status> {
        self.get_attributes(request).await
    }

    async fn poll_workflow_task_queue(
        &self,
        request: Request<workflowservice::PollWorkflowTaskQueueRequest>,
    ) -> Result<Response<wire::PollWorkflowTaskQueueResponse>, Status> {
        self.poll_workflow_task(request).await
    }

    async fn respond_workflow_task_completed(
        &self,
        request: Request<workflowservice::RespondWorkflowTaskCompletedRequest>,
    ) -> Result<Response<wire::RespondWorkflowTaskCompletedResponse>, Status> {
        self.complete_workflow_task(request).await
    }

    async fn respond_workflow_task_failed(
        &self,
        request: Request<workflowservice::RespondWorkflowTaskFailedRequest>,
    ) -> Result<Response<workflowservice::RespondWorkflowTaskFailedResponse>, Status> {
        self.fail_workflow_task(request).await
    }

    async fn poll_activity_task_queue(
        &self,
        request: Request<workflowservice::PollActivityTaskQueueRequest>,
    ) -> Result<Response<workflowservice::PollActivityTaskQueueResponse>, Status> {
        self.poll_activity_task(request).await
    }

    async fn respond_activity_task_completed(
        &self,
        request: Request<workflowservice::RespondActivityTaskCompletedRequest>,
    ) -> Result<Response<workflowservice::RespondActivityTaskCompletedResponse>, Status> {
        self.respond_completed(request).await
    }

    async fn respond_activity_task_completed_by_id(
        &self,
        request: Request<workflowservice::RespondActivityTaskCompletedByIdRequest>,
    ) -> Result<Response<workflowservice::RespondActivityTaskCompletedByIdResponse>, Status> {
        self.respond_completed_by_id(request).await
    }

    async fn respond_activity_task_failed(
        &self,
        request: Request<workflowservice::RespondActivityTaskFailedRequest>,
    ) -> Result<Response<workflowservice::RespondActivityTaskFailedResponse>, Status> {
        self.respond_failed(request).await
    }

    async fn respond_activity_task_failed_by_id(
        &self,
        request: Request<workflowservice::RespondActivityTaskFailedByIdRequest>,
    ) -> Result<Response<workflowservice::RespondActivityTaskFailedByIdResponse>, Status> {
        self.respond_failed_by_id(request).await
    }

    async fn respond_activity_task_canceled(
        &self,
        request: Request<workflowservice::RespondActivityTaskCanceledRequest>,
    ) -> Result<Response<workflowservice::RespondActivityTaskCanceledResponse>, Status> {
        self.respond_canceled(request).await
    }

    async fn respond_activity_task_canceled_by_id(
        &self,
        request: Request<workflowservice::RespondActivityTaskCanceledByIdRequest>,
    ) -> Result<Response<workflowservice::RespondActivityTaskCanceledByIdResponse>, Status> {
        self.respond_canceled_by_id(request).await
    }

    async fn record_activity_task_heartbeat(
        &self,
        request: Request<workflowservice::RecordActivityTaskHeartbeatRequest>,
    ) -> Result<Response<workflowservice::RecordActivityTaskHeartbeatResponse>, Status> {
        self.record_heartbeat(request).await
    }

    async fn record_activity_task_heartbeat_by_id(
        &self,
        request: Request<workflowservice::RecordActivityTaskHeartbeatByIdRequest>,
    ) -> Result<Response<workflowservice::RecordActivityTaskHeartbeatByIdResponse>, Status> {
        self.record_heartbeat_by_id(request).await
    }

    async fn start_workflow_execution(
        &self,
        request: Request<workflowservice::StartWorkflowExecutionRequest>,
    ) -> Result<Response<wire::StartWorkflowExecutionResponse>, Status> {
        self.start(request).await
    }

    async fn signal_with_start_workflow_execution(
        &self,
        request: Request<workflowservice::SignalWithStartWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::SignalWithStartWorkflowExecutionResponse>, Status> {
        self.signal_with_start(request).await
    }

    async fn signal_workflow_execution(
        &self,
        request: Request<workflowservice::SignalWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::SignalWorkflowExecutionResponse>, Status> {
        self.signal(request).await
    }

    async fn request_cancel_workflow_execution(
        &self,
        request: Request<workflowservice::RequestCancelWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::RequestCancelWorkflowExecutionResponse>, Status> {
        self.request_cancel(request).await
    }

    async fn terminate_workflow_execution(
        &self,
        request: Request<workflowservice::TerminateWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::TerminateWorkflowExecutionResponse>, Status> {
        self.terminate(request).await
    }

    async fn delete_workflow_execution(
        &self,
        request: Request<workflowservice::DeleteWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::DeleteWorkflowExecutionResponse>, Status> {
        self.delete(request).await
    }

    async fn get_workflow_execution_history(
        &self,
        request: Request<workflowservice::GetWorkflowExecutionHistoryRequest>,
    ) -> Result<Response<wire::GetWorkflowExecutionHistoryResponse>, Status> {
        self.read_history(request).await
    }

    async fn get_workflow_execution_history_reverse(
        &self,
        request: Request<workflowservice::GetWorkflowExecutionHistoryReverseRequest>,
    ) -> Result<Response<workflowservice::GetWorkflowExecutionHistoryReverseResponse>, Status> {
        self.read_history_reverse(request).await
    }

    async fn query_workflow(
        &self,
        request: Request<workflowservice::QueryWorkflowRequest>,
    ) -> Result<Response<workflowservice::QueryWorkflowResponse>, Status> {
        self.ask_workflow(request).await
    }

    async fn respond_query_task_completed(
        &self,
        request: Request<workflowservice::RespondQueryTaskCompletedRequest>,
    ) -> Result<Response<workflowservice::RespondQueryTaskCompletedResponse>, Status> {
        self.answer_question(request).await
    }

    async fn describe_workflow_execution(
        &self,
        request: Request<workflowservice::DescribeWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::DescribeWorkflowExecutionResponse>, Status> {
        self.describe_execution(request).await
    }

    async fn describe_task_queue(
        &self,
        request: Request<workflowservice::DescribeTaskQueueRequest>,
    ) -> Result<Response<workflowservice::DescribeTaskQueueResponse>, Status> {
        self.describe_queue(request).await
    }

    async fn reset_sticky_task_queue(
        &self,
        request: Request<workflowservice::ResetStickyTaskQueueRequest>,
    ) -> Result<Response<workflowservice::ResetStickyTaskQueueResponse>, Status> {
        self.reset_sticky(request).await
    }

    async fn reset_workflow_execution(
        &self,
        request: Request<workflowservice::ResetWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::ResetWorkflowExecutionResponse>, Status> {
        self.reset(request).await
    }

    async fn execute_multi_operation(
        &self,
        request: Request<workflowservice::ExecuteMultiOperationRequest>,
    ) -> Result<Response<workflowservice::ExecuteMultiOperationResponse>, Status> {
        self.start_and_update(request).await
    }

    async fn update_workflow_execution(
        &self,
        request: Request<workflowservice::UpdateWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::UpdateWorkflowExecutionResponse>, Status> {
        self.send_update(request).await
    }

    async fn poll_workflow_execution_update(
        &self,
        request: Request<workflowservice::PollWorkflowExecutionUpdateRequest>,
    ) -> Result<Response<workflowservice::PollWorkflowExecutionUpdateResponse>, Status> {
        self.poll_update(request).await
    }

    async fn shutdown_worker(
        &self,
        request: Request<workflowservice::ShutdownWorkerRequest>,
    ) -> Result<Response<workflowservice::ShutdownWorkerResponse>, Status> {
        self.worker_leaves(request).await
    }

    async fn record_worker_heartbeat(
        &self,
        request: Request<workflowservice::RecordWorkerHeartbeatRequest>,
    ) -> Result<Response<workflowservice::RecordWorkerHeartbeatResponse>, Status> {
        self.record_workers(request).await
    }

    async fn list_workers(
        &self,
        request: Request<workflowservice::ListWorkersRequest>,
    ) -> Result<Response<workflowservice::ListWorkersResponse>, Status> {
        self.list_some_workers(request).await
    }

    async fn count_workers(
        &self,
        request: Request<workflowservice::CountWorkersRequest>,
    ) -> Result<Response<workflowservice::CountWorkersResponse>, Status> {
        self.count_some_workers(request).await
    }

    async fn describe_worker(
        &self,
        request: Request<workflowservice::DescribeWorkerRequest>,
    ) -> Result<Response<workflowservice::DescribeWorkerResponse>, Status> {
        self.describe_a_worker(request).await
    }

    async fn pause_workflow_execution(
        &self,
        request: Request<workflowservice::PauseWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::PauseWorkflowExecutionResponse>, Status> {
        self.pause_workflow(request).await
    }

    async fn unpause_workflow_execution(
        &self,
        request: Request<workflowservice::UnpauseWorkflowExecutionRequest>,
    ) -> Result<Response<workflowservice::UnpauseWorkflowExecutionResponse>, Status> {
        self.unpause_workflow(request).await
    }

    async fn pause_activity(
        &self,
        request: Request<workflowservice::PauseActivityRequest>,
    ) -> Result<Response<workflowservice::PauseActivityResponse>, Status> {
        self.pause_activities(request).await
    }

    async fn unpause_activity(
        &self,
        request: Request<workflowservice::UnpauseActivityRequest>,
    ) -> Result<Response<workflowservice::UnpauseActivityResponse>, Status> {
        self.unpause_activities(request).await
    }

    async fn reset_activity(
        &self,
        request: Request<workflowservice::ResetActivityRequest>,
    ) -> Result<Response<workflowservice::ResetActivityResponse>, Status> {
        self.reset_activities(request).await
    }

    async fn update_activity_options(
        &self,
        request: Request<workflowservice::UpdateActivityOptionsRequest>,
    ) -> Result<Response<workflowservice::UpdateActivityOptionsResponse>, Status> {
        self.update_options_of_activities(request).await
    }

    async fn pause_activity_execution(
        &self,
        request: Request<workflowservice::PauseActivityExecutionRequest>,
    ) -> Result<Response<workflowservice::PauseActivityExecutionResponse>, Status> {
        self.pause_one_activity(request).await
    }

    async fn unpause_activity_execution(
        &self,
        request: Request<workflowservice::UnpauseActivityExecutionRequest>,
    ) -> Result<Response<workflowservice::UnpauseActivityExecutionResponse>, Status> {
        self.unpause_one_activity(request).await
    }

    async fn reset_activity_execution(
        &self,
        request: Request<workflowservice::ResetActivityExecutionRequest>,
    ) -> Result<Response<workflowservice::ResetActivityExecutionResponse>, Status> {
        self.reset_one_activity(request).await
    }

    async fn update_activity_execution_options(
        &self,
        request: Request<workflowservice::UpdateActivityExecutionOptionsRequest>,
    ) -> Result<Response<workflowservice::UpdateActivityExecutionOptionsResponse>, Status> {
        self.update_options_of_one_activity(request).await
    }
}

#[tonic::async_trait]
impl OperatorService for Temporal {
    async fn add_search_attributes(
        &self,
        request: Request<operatorservice::AddSearchAttributesRequest>,
    ) -> Result<Response<operatorservice::AddSearchAttributesResponse>, Status> {
        self.add_attributes(request).await
    }

    async fn remove_search_attributes(
        &self,
        request: Request<operatorservice::RemoveSearchAttributesRequest>,
    ) -> Result<Response<operatorservice::RemoveSearchAttributesResponse>, Status> {
        self.remove_attributes(request).await
    }

    async fn list_search_attributes(
        &self,
        request: Request<operatorservice::ListSearchAttributesRequest>,
    ) -> Result<Response<operatorservice::ListSearchAttributesResponse>, Status> {
        self.list_attributes(request).await
    }

    async fn delete_namespace(
        &self,
        request: Request<operatorservice::DeleteNamespaceRequest>,
    ) -> Result<Response<operatorservice::DeleteNamespaceResponse>, Status> {
        self.delete_a_namespace(request).await
    }

    async fn list_clusters(
        &self,
        request: Request<operatorservice::ListClustersRequest>,
    ) -> Result<Response<operatorservice::ListClustersResponse>, Status> {
        self.list_the_cluster(request).await
    }
}
