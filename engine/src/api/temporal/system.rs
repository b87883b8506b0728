//! What clients ask before anything else: what this server can do, and whether their namespace is there.
//!
//! Invariant: a capability is true only where its calls are served.

use orchestrion_history::ids::RunId;
use orchestrion_proto::google::rpc;
use orchestrion_proto::prost::Message;
use orchestrion_proto::prost_wkt_types::Any;
use orchestrion_proto::temporal::api::errordetails::v1::NamespaceNotFoundFailure;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    GetClusterInfoResponse, GetSystemInfoResponse, get_system_info_response,
};
use tonic::{Code, Status};

use crate::api::access::Closed;
use crate::api::orra::Api;
use crate::engine::EngineOptions;
use crate::registry::ids::digest;

/// The version of Temporal's server whose behaviour clients find here; some choose by it.
pub const SERVER_VERSION: &str = "1.30.0";
/// What clients are shown as the only cluster.
pub const CLUSTER_NAME: &str = "active";

pub fn system_info() -> GetSystemInfoResponse {
    GetSystemInfoResponse {
        server_version: SERVER_VERSION.to_owned(),
        capabilities: Some(get_system_info_response::Capabilities {
            signal_and_query_header: true,
            internal_error_differentiation: true,
            activity_failure_include_heartbeat: true,
            encoded_failure_attributes: true,
            upsert_memo: true,
            sdk_metadata: true,
            count_group_by_execution_status: true,
            eager_workflow_start: true,
            ..Default::default()
        }),
    }
}

pub fn cluster_info(api: &Api) -> GetClusterInfoResponse {
    let folder = api.settings.data_dir.display().to_string();
    let clients = [
        ("temporal-cli", "<2.0.0"),
        ("temporal-go", "<2.0.0"),
        ("temporal-java", "<2.0.0"),
        ("temporal-php", "<3.0.0"),
        ("temporal-server", "<2.0.0"),
        ("temporal-typescript", "<2.0.0"),
        ("temporal-ui", "<3.0.0"),
    ];
    GetClusterInfoResponse {
        supported_clients: clients
            .map(|(name, versions)| (name.to_owned(), versions.to_owned()))
            .into(),
        server_version: SERVER_VERSION.to_owned(),
        cluster_id: id_of("cluster", &folder),
        cluster_name: CLUSTER_NAME.to_owned(),
        history_shard_count: EngineOptions::default().shards.into(),
        persistence_store: "rocksdb".to_owned(),
        visibility_store: "rocksdb".to_owned(),
        initial_failover_version: 1,
        failover_version_increment: 10,
        ..Default::default()
    }
}

/// NOT_FOUND as the SDKs read it: for them it is final.
pub fn namespace_not_found(name: &str, why: &Closed) -> Status {
    let details = NamespaceNotFoundFailure {
        namespace: name.to_owned(),
    };
    let message = why.to_string();
    status_with(
        Code::NotFound,
        message,
        "NamespaceNotFoundFailure",
        &details,
    )
}

/// An error with the details that the SDKs read: a message of `temporal.api.errordetails.v1`.
pub fn status_with(code: Code, message: String, name: &str, details: &impl Message) -> Status {
    let status = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details: vec![Any {
            type_url: format!("type.googleapis.com/temporal.api.errordetails.v1.{name}"),
            value: details.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// The id of the namespace of a name.
pub fn namespace_id(name: &str) -> String {
    id_of("namespace", name)
}

/// A UUID that is a function of the name.
pub fn id_of(domain: &str, name: &str) -> String {
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest(domain, &[name.as_bytes()])[..16]);
    // Version 8 of RFC 9562: its bits are the maker's own.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    RunId(bytes).to_string()
}
