//! The gRPC listener: Temporal's services, our stream for workers, health and reflection on one address.
//!
//! ```text
//!  connection --TLS?--> HTTP/2 --> front (who calls; the words of errors; compression) --> services
//! ```
//!
//! Invariant: after the stop nothing new is accepted, and what is under way is answered or cut off by the caller's budget.
//! Invariant: no service is reached before its caller is known.

mod compress;
mod front;
mod health;
mod incoming;

use std::fs;
use std::path::Path;

use orchestrion_proto::services::FILE_DESCRIPTORS;
use orchestrion_proto::services::health::health_server::HealthServer;
use orchestrion_proto::services::operator::operator_service_server::OperatorServiceServer;
use orchestrion_proto::services::workflow::workflow_service_server::WorkflowServiceServer;
use orchestrion_proto::worker::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tower::layer;
use tower::layer::util::Stack;

use self::front::FrontLayer;
use self::health::Health;
use super::ServerError;
use crate::api::access::Access;
use crate::api::orra::Api;
use crate::api::temporal::Temporal;
use crate::api::work::MESSAGE_BYTES_MAX;
use crate::api::worker::Streams;
use crate::config::GrpcSettings;

/// What one stream may have in flight towards us: a payload of ten megabytes must not wait for a dozen round trips.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A server that has not begun.
pub(super) struct Grpc {
    router: Router<Stack<FrontLayer, layer::util::Identity>>,
    connections_max: u32,
    tls: bool,
}

impl Grpc {
    /// Reads certificates and puts the services together.
    pub(super) fn new(api: &Api, access: Access) -> Result<Self, ServerError> {
        let settings = &api.settings.grpc;
        let message_bytes_max = settings.message_bytes_max as usize;
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(settings.keepalive_interval))
            .http2_keepalive_timeout(Some(settings.keepalive_timeout))
            .max_concurrent_streams(settings.streams_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let tls = tls(settings)?;
        let with_tls = tls.is_some();
        if let Some(tls) = tls {
            server = server
                .tls_config(tls)
                .map_err(|e| unusable(&with_causes(&e)))?;
        }
        let registry = api.registrar.registry().clone();
        let temporal = Temporal::new(api.clone());
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTORS)
                .with_service_name("temporal.api.workflowservice.v1.WorkflowService")
                .with_service_name("temporal.api.operatorservice.v1.OperatorService")
                .with_service_name("orchestrion.v1.WorkerService")
                .with_service_name("grpc.health.v1.Health")
        };
        let unreadable = |e: tonic_reflection::server::Error| unusable(&with_causes(&e));
        let router = server
            .layer(FrontLayer::new(
                access,
                registry,
                settings.compress_above_bytes as usize,
            ))
            .add_service(
                WorkflowServiceServer::new(temporal.clone())
                    .accept_compressed(Gzip)
                    .max_decoding_message_size(message_bytes_max),
            )
            .add_service(
                OperatorServiceServer::new(temporal)
                    .accept_compressed(Gzip)
                    .max_decoding_message_size(message_bytes_max),
            )
            .add_service(
                WorkerServiceServer::new(Streams::new(api.clone()))
                    .accept_compressed(Gzip)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(HealthServer::new(Health::new(api.clone())).accept_compressed(Gzip))
            .add_service(
                described()
                    .build_v1()
                    .map_err(unreadable)?
                    .accept_compressed(Gzip),
            )
            .add_service(
                described()
                    .build_v1alpha()
                    .map_err(unreadable)?
                    .accept_compressed(Gzip),
            );
        Ok(Self {
            router,
            connections_max: settings.connections_max,
            tls: with_tls,
        })
    }

    /// Whether it speaks TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls
    }

    /// Serves until the stop, then until every connection has ended.
    pub(super) async fn serve(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let connections = incoming::connections(listener, self.connections_max);
        let stopped = async move {
            // The sender is dropped only after a stop.
            let _ = stop.wait_for(|stopped| *stopped).await;
        };
        let served = self
            .router
            .serve_with_incoming_shutdown(connections, stopped)
            .await;
        if let Err(error) = served {
            tracing::error!(error = %with_causes(&error), "the gRPC server ended");
        }
    }
}

fn tls(settings: &GrpcSettings) -> Result<Option<ServerTlsConfig>, ServerError> {
    let read = |setting: &str, path: &Path| {
        fs::read(path).map_err(|e| unusable(&format!("setting {setting} names {path:?}: {e}")))
    };
    let (certificate, key) = match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) if settings.tls_client_ca.is_none() => return Ok(None),
        _ => {
            return Err(unusable(
                "TLS takes both settings grpc.tls_certificate and grpc.tls_key: set the missing one",
            ));
        }
    };
    let identity = Identity::from_pem(
        read("grpc.tls_certificate", certificate)?,
        read("grpc.tls_key", key)?,
    );
    let mut tls = ServerTlsConfig::new()
        .identity(identity)
        .timeout(settings.handshake_timeout);
    if let Some(authorities) = &settings.tls_client_ca {
        let authorities = read("grpc.tls_client_ca", authorities)?;
        tls = tls.client_ca_root(Certificate::from_pem(authorities));
    }
    Ok(Some(tls))
}

fn unusable(why: &str) -> ServerError {
    ServerError::Start {
        what: "the gRPC server",
        why: why.to_owned(),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn a_certificate_without_its_key_is_named() {
        let mut settings = Settings::default().grpc;
        assert!(tls(&settings).unwrap().is_none());
        settings.tls_client_ca = Some("ca.pem".into());
        let error = tls(&settings).unwrap_err().to_string();
        assert!(error.contains("grpc.tls_key"), "{error}");
        settings.tls_certificate = Some("/nowhere/cert.pem".into());
        settings.tls_key = Some("/nowhere/key.pem".into());
        let error = tls(&settings).unwrap_err().to_string();
        assert!(
            error.contains("grpc.tls_certificate") && error.contains("/nowhere/cert.pem"),
            "{error}"
        );
    }
}
