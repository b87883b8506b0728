//! The Temporal API: `WorkflowService` and `OperatorService`, as Temporal's SDKs, its command line and its UI speak them.
//!
//! A method that is not here answers UNIMPLEMENTED, by the stubs that the traits bring.
//!
//! Invariant: a namespace comes from [`Caller::open`] only.

mod namespace;
mod operator;
mod system;
mod visibility;

use orchestrion_history::ids::Namespace;
use orchestrion_proto::services::operator::operator_service_server::OperatorService;
use orchestrion_proto::services::workflow::workflow_service_server::WorkflowService;
use orchestrion_proto::temporal::api::operatorservice::v1 as operatorservice;
use orchestrion_proto::temporal::api::workflowservice::v1 as workflowservice;
use tonic::{Code, Request, Response, Status};

use super::access::{Caller, Closed};
use super::orra::Api;

/// Answers Temporal's clients. Clones share everything.
#[derive(Clone)]
pub struct Temporal {
    api: Api,
}

impl Temporal {
    /// Over the same engine and registry as the other wires.
    pub fn new(api: Api) -> Self {
        Self { api }
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
