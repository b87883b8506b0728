//! The Temporal API: `WorkflowService` and `OperatorService`, as Temporal's SDKs, its command line and its UI speak them.
//!
//! A method that is not here answers UNIMPLEMENTED, by the stubs that the traits bring.
//!
//! Invariant: a namespace comes from [`Caller::open`] only.

mod system;

use orchestrion_history::ids::Namespace;
use orchestrion_proto::services::operator::operator_service_server::OperatorService;
use orchestrion_proto::services::workflow::workflow_service_server::WorkflowService;
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
        let name = &request.get_ref().namespace;
        let namespace = if name.is_empty() {
            let id = &request.get_ref().id;
            let name = system::name_of_id(&self.api, id).unwrap_or_else(|| id.clone());
            self.namespace(&request, &name)?
        } else {
            self.namespace(&request, name)?
        };
        Ok(Response::new(system::describe(&self.api, &namespace)))
    }
}

#[tonic::async_trait]
impl OperatorService for Temporal {}
