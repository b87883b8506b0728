//! Namespaces: what a worker asks of its own before it polls, and what operators do with them.
//!
//! Invariant: whoever has a project's key sees that project's namespace and no other.

use std::time::Duration as StdDuration;

use orchestrion_history::ids::Namespace;
use orchestrion_proto::prost_wkt_types::Duration;
use orchestrion_proto::temporal::api::enums::v1::{ArchivalState, NamespaceState as WireState};
use orchestrion_proto::temporal::api::errordetails::v1::NamespaceAlreadyExistsFailure;
use orchestrion_proto::temporal::api::namespace::v1::{
    NamespaceConfig, NamespaceInfo, namespace_info,
};
use orchestrion_proto::temporal::api::operatorservice::v1 as operator;
use orchestrion_proto::temporal::api::replication::v1::{
    ClusterReplicationConfig, NamespaceReplicationConfig,
};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    DescribeNamespaceRequest, DescribeNamespaceResponse, ListNamespacesRequest,
    ListNamespacesResponse, RegisterNamespaceRequest, RegisterNamespaceResponse,
    UpdateNamespaceRequest, UpdateNamespaceResponse,
};
use tonic::{Code, Request, Response, Status};

use super::Temporal;
use super::system::{self, CLUSTER_NAME, namespace_id};
use crate::acts::{Actor, Who};
use crate::api::access::Caller;
use crate::api::orra::Admission;
use crate::engine::handle::CallError;
use crate::registry::{NamespaceChange, NamespaceError, RegistryError};

/// Namespaces of a page, when nothing else is asked.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;

impl Temporal {
    pub(super) async fn describe_a_namespace(
        &self,
        request: Request<DescribeNamespaceRequest>,
    ) -> Result<Response<DescribeNamespaceResponse>, Status> {
        let asked = request.get_ref();
        let name = if asked.namespace.is_empty() {
            self.name_of_id(&asked.id)
        } else {
            asked.namespace.clone()
        };
        let namespace = self.namespace(&request, &name)?;
        Ok(Response::new(self.described(&namespace)))
    }

    pub(super) async fn list_all_namespaces(
        &self,
        request: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let all = match caller(&request)? {
            Caller::Trusted => self.api.registrar.registry().namespaces(),
            Caller::Project(own) => vec![own.namespace.clone()],
        };
        let asked = request.get_ref();
        let size = usize::try_from(asked.page_size).unwrap_or(0);
        let size = if size == 0 {
            PAGE_DEFAULT
        } else {
            size.min(PAGE_MAX)
        };
        let behind = std::str::from_utf8(&asked.next_page_token).map_err(|_| {
            Status::invalid_argument(
                "next_page_token is not one of this call: leave it out to begin anew",
            )
        })?;
        let mut page: Vec<Namespace> = all
            .into_iter()
            .filter(|namespace| namespace.as_str() > behind)
            .take(size + 1)
            .collect();
        let more = page.len() > size;
        page.truncate(size);
        let last = page.last().filter(|_| more);
        Ok(Response::new(ListNamespacesResponse {
            next_page_token: last.map_or_else(Vec::new, |last| last.as_str().as_bytes().to_vec()),
            namespaces: page
                .iter()
                .map(|namespace| self.described(namespace))
                .collect(),
        }))
    }

    pub(super) async fn register_a_namespace(
        &self,
        request: Request<RegisterNamespaceRequest>,
    ) -> Result<Response<RegisterNamespaceResponse>, Status> {
        self.operators_only(&request, "registering a namespace")?;
        let actor = self.actor(&request)?;
        let asked = request.into_inner();
        let change = NamespaceChange {
            description: Some(asked.description),
            owner_email: Some(asked.owner_email),
            data: asked.data.into_iter().collect(),
            retention: retention(asked.workflow_execution_retention_period.as_ref())?,
        };
        self.api
            .registrar
            .register_namespace(&asked.namespace, change, &actor)
            .await
            .map_err(refused)?;
        Ok(Response::new(RegisterNamespaceResponse {}))
    }

    pub(super) async fn update_a_namespace(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let actor = self.actor(&request)?;
        let asked = request.into_inner();
        let given = |text: String| (!text.is_empty()).then_some(text);
        let info = asked.update_info.unwrap_or_default();
        let ttl = asked
            .config
            .and_then(|config| config.workflow_execution_retention_ttl);
        let change = NamespaceChange {
            description: given(info.description),
            owner_email: given(info.owner_email),
            data: info.data.into_iter().collect(),
            retention: retention(ttl.as_ref())?,
        };
        self.api
            .registrar
            .update_namespace(&namespace, change, &actor)
            .await
            .map_err(refused)?;
        let described = self.described(&namespace);
        Ok(Response::new(UpdateNamespaceResponse {
            namespace_info: described.namespace_info,
            config: described.config,
            replication_config: described.replication_config,
            ..Default::default()
        }))
    }

    pub(super) async fn delete_a_namespace(
        &self,
        request: Request<operator::DeleteNamespaceRequest>,
    ) -> Result<Response<operator::DeleteNamespaceResponse>, Status> {
        self.operators_only(&request, "deleting a namespace")?;
        let asked = request.get_ref();
        let name = if asked.namespace.is_empty() {
            self.name_of_id(&asked.namespace_id)
        } else {
            asked.namespace.clone()
        };
        let namespace = self.namespace(&request, &name)?;
        let actor = self.actor(&request)?;
        self.api
            .registrar
            .delete_namespace(&namespace, &actor)
            .await
            .map_err(refused)?;
        Ok(Response::new(operator::DeleteNamespaceResponse {
            deleted_namespace: name,
        }))
    }

    /// The name of the namespace with this id; the id itself when there is none.
    fn name_of_id(&self, id: &str) -> String {
        let all = self.api.registrar.registry().namespaces();
        let known = all.iter().find(|known| namespace_id(known.as_str()) == id);
        known.map_or_else(|| id.to_owned(), ToString::to_string)
    }

    fn described(&self, namespace: &Namespace) -> DescribeNamespaceResponse {
        let name = namespace.to_string();
        let known = self.api.registrar.registry().known_namespace(namespace);
        let retention = known
            .retention
            .unwrap_or(self.api.settings.retention.closed_runs);
        let blob_max = i64::try_from(self.blob_max()).unwrap_or(i64::MAX);
        DescribeNamespaceResponse {
            namespace_info: Some(NamespaceInfo {
                id: namespace_id(&name),
                name,
                state: WireState::Registered.into(),
                description: known.description,
                owner_email: known.owner_email,
                data: known.data.into_iter().collect(),
                capabilities: Some(namespace_info::Capabilities {
                    eager_workflow_start: true,
                    sync_update: true,
                    async_update: true,
                    worker_heartbeats: true,
                    reported_problems_search_attribute: true,
                    worker_poll_complete_on_shutdown: true,
                    ..Default::default()
                }),
                limits: Some(namespace_info::Limits {
                    // The SDKs refuse more themselves.
                    blob_size_limit_error: blob_max,
                    memo_size_limit_error: blob_max,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            config: Some(NamespaceConfig {
                workflow_execution_retention_ttl: Some(Duration {
                    seconds: i64::try_from(retention.as_secs()).unwrap_or(i64::MAX),
                    nanos: i32::try_from(retention.subsec_nanos()).unwrap_or_default(),
                }),
                history_archival_state: ArchivalState::Disabled.into(),
                visibility_archival_state: ArchivalState::Disabled.into(),
                ..Default::default()
            }),
            replication_config: Some(NamespaceReplicationConfig {
                active_cluster_name: CLUSTER_NAME.to_owned(),
                clusters: vec![ClusterReplicationConfig {
                    cluster_name: CLUSTER_NAME.to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Refuses whoever has only a project's key.
    pub(super) fn operators_only<T>(&self, request: &Request<T>, what: &str) -> Result<(), Status> {
        match caller(request)? {
            Caller::Trusted => Ok(()),
            Caller::Project(_) => Err(Status::permission_denied(format!(
                "{what} takes the admin key: a project's key opens its own namespace only"
            ))),
        }
    }

    /// Who changes the registry, for its acts.
    pub(super) fn actor<T>(&self, request: &Request<T>) -> Result<Actor, Status> {
        let who = match (caller(request)?, &self.api.admission) {
            (Caller::Project(own), _) => Who::Key(own.key_id.clone()),
            (Caller::Trusted, Admission::Key(_)) => Who::Admin,
            (Caller::Trusted, Admission::Open) => Who::Anybody,
        };
        Ok(Actor {
            who,
            peer: request.remote_addr(),
        })
    }
}

fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    let known = request.extensions().get::<Caller>();
    known.ok_or_else(|| Status::internal("the server did not say who calls"))
}

/// What is not set stays as the server's setting says.
fn retention(given: Option<&Duration>) -> Result<Option<StdDuration>, Status> {
    let Some(given) = given.filter(|given| given.seconds != 0 || given.nanos != 0) else {
        return Ok(None);
    };
    let seconds = u64::try_from(given.seconds);
    match (seconds, u32::try_from(given.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => {
            Ok(Some(StdDuration::new(seconds, nanos)))
        }
        _ => Err(Status::invalid_argument(
            "the retention period is negative: give how long closed runs are kept",
        )),
    }
}

/// The registry's answer as the wire has it.
pub(super) fn refused(error: NamespaceError) -> Status {
    let text = error.to_string();
    match error {
        NamespaceError::Exists(_) => system::status_with(
            Code::AlreadyExists,
            text,
            "NamespaceAlreadyExistsFailure",
            &NamespaceAlreadyExistsFailure {},
        ),
        NamespaceError::Unknown(_) | NamespaceError::UnknownAttribute(_) => Status::not_found(text),
        NamespaceError::Leaving(_) | NamespaceError::Stays(_) => Status::failed_precondition(text),
        NamespaceError::AttributeExists { .. } => Status::already_exists(text),
        NamespaceError::Name { .. } | NamespaceError::Attribute(_) => {
            Status::invalid_argument(text)
        }
        NamespaceError::Registry(RegistryError::Engine(error)) => match error {
            CallError::Busy { .. } => Status::resource_exhausted(text),
            _ => Status::unavailable(text),
        },
        NamespaceError::Registry(_) => Status::invalid_argument(text),
    }
}
