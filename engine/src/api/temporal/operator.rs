//! Search attributes of a namespace, and the one cluster there is.

use std::collections::{BTreeMap, HashMap};

use orchestrion_proto::temporal::api::operatorservice::v1::{
    AddSearchAttributesRequest, AddSearchAttributesResponse, ClusterMetadata, ListClustersRequest,
    ListClustersResponse, ListSearchAttributesRequest, ListSearchAttributesResponse,
    RemoveSearchAttributesRequest, RemoveSearchAttributesResponse,
};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    GetSearchAttributesRequest, GetSearchAttributesResponse,
};
use tonic::{Request, Response, Status};

use super::Temporal;
use super::namespace::refused;
use super::system::{CLUSTER_NAME, id_of};
use crate::api::access::DEFAULT_NAMESPACE;
use crate::engine::EngineOptions;
use crate::visibility::{Catalogue, ValueType};

impl Temporal {
    pub(super) async fn add_attributes(
        &self,
        request: Request<AddSearchAttributesRequest>,
    ) -> Result<Response<AddSearchAttributesResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let actor = self.actor(&request)?;
        let mut wanted = BTreeMap::new();
        for (name, number) in request.into_inner().search_attributes {
            let kind = ValueType::of(number).ok_or_else(|| {
                let known = ValueType::ALL.map(ValueType::name).join(", ");
                Status::invalid_argument(format!(
                    "search attribute {name} has no known type: give one of {known}"
                ))
            })?;
            wanted.insert(name, kind);
        }
        if wanted.is_empty() {
            return Err(Status::invalid_argument(
                "search_attributes is empty: name at least one",
            ));
        }
        self.api
            .registrar
            .add_search_attributes(&namespace, wanted, &actor)
            .await
            .map_err(refused)?;
        Ok(Response::new(AddSearchAttributesResponse {}))
    }

    pub(super) async fn remove_attributes(
        &self,
        request: Request<RemoveSearchAttributesRequest>,
    ) -> Result<Response<RemoveSearchAttributesResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let actor = self.actor(&request)?;
        let names = request.into_inner().search_attributes;
        if names.is_empty() {
            return Err(Status::invalid_argument(
                "search_attributes is empty: name at least one",
            ));
        }
        self.api
            .registrar
            .remove_search_attributes(&namespace, names, &actor)
            .await
            .map_err(refused)?;
        Ok(Response::new(RemoveSearchAttributesResponse {}))
    }

    pub(super) async fn list_attributes(
        &self,
        request: Request<ListSearchAttributesRequest>,
    ) -> Result<Response<ListSearchAttributesResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let catalogue = self.api.registrar.registry().catalogue(&namespace);
        Ok(Response::new(ListSearchAttributesResponse {
            custom_attributes: numbered(custom(&catalogue)),
            system_attributes: numbered(Catalogue::system()),
            storage_schema: HashMap::new(),
        }))
    }

    /// The old call names no namespace.
    pub(super) async fn get_attributes(
        &self,
        request: Request<GetSearchAttributesRequest>,
    ) -> Result<Response<GetSearchAttributesResponse>, Status> {
        let namespace = self.namespace(&request, DEFAULT_NAMESPACE)?;
        let catalogue = self.api.registrar.registry().catalogue(&namespace);
        let all = Catalogue::system().chain(custom(&catalogue));
        Ok(Response::new(GetSearchAttributesResponse {
            keys: numbered(all),
        }))
    }

    pub(super) async fn list_the_cluster(
        &self,
        _request: Request<ListClustersRequest>,
    ) -> Result<Response<ListClustersResponse>, Status> {
        let folder = self.api.settings.data_dir.display().to_string();
        Ok(Response::new(ListClustersResponse {
            clusters: vec![ClusterMetadata {
                cluster_name: CLUSTER_NAME.to_owned(),
                cluster_id: id_of("cluster", &folder),
                address: self.api.settings.grpc_addr.to_string(),
                initial_failover_version: 1,
                history_shard_count: EngineOptions::default().shards.into(),
                is_connection_enabled: true,
                ..Default::default()
            }],
            next_page_token: Vec::new(),
        }))
    }
}

fn custom(catalogue: &Catalogue) -> impl Iterator<Item = (&str, ValueType)> {
    catalogue
        .custom()
        .iter()
        .map(|(name, kind)| (name.as_str(), *kind))
}

fn numbered<'a>(all: impl Iterator<Item = (&'a str, ValueType)>) -> HashMap<String, i32> {
    all.map(|(name, kind)| (name.to_owned(), kind.wire().into()))
        .collect()
}
