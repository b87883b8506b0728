//! The gRPC server as its clients meet it: Temporal's own client, keys, TLS, health, reflection, and the stop.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use orchestrion_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    DescribeNamespaceRequest, DescribeNamespaceResponse, GetSystemInfoRequest,
    GetSystemInfoResponse,
};
use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::project::Project;
use orchestrion_tests::py_service::python;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tonic::codec::{CompressionEncoding, Streaming};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const ADMIN: &str = "an-admin-key-of-enough-letters-7d1f";

/// What `tests/clients/connect.py` says.
async fn connect(engine: &Engine, namespace: &str, key: Option<&str>) -> Value {
    let script = orchestrion_tests::root().join("tests/clients/connect.py");
    let output = tokio::process::Command::new(python())
        .arg("-B")
        .arg(script)
        .arg(engine.grpc_address())
        .arg(namespace)
        .args(key)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .await
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}\n{stderr}"))
}

async fn channel(engine: &Engine) -> Channel {
    let url = format!("http://{}", engine.grpc_address());
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

/// Any unary method.
async fn call<Q, A>(channel: Channel, path: &'static str, request: Request<Q>) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel).send_compressed(CompressionEncoding::Gzip);
    client.ready().await.unwrap();
    let path = path.parse().unwrap();
    let codec = ProstCodec::<Q, A>::default();
    Ok(client.unary(request, path, codec).await?.into_inner())
}

async fn describe(channel: Channel, namespace: &str, key: Option<&str>) -> Result<String, Status> {
    let mut request = Request::new(DescribeNamespaceRequest {
        namespace: namespace.to_owned(),
        ..Default::default()
    });
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let path = "/temporal.api.workflowservice.v1.WorkflowService/DescribeNamespace";
    let answer: DescribeNamespaceResponse = call(channel, path, request).await?;
    Ok(answer.namespace_info.unwrap().name)
}

#[tokio::test]
async fn temporals_own_client_connects() {
    let engine = Engine::start().await;
    let said = connect(&engine, "default", None).await;
    assert_eq!(said["name"], "default", "{said}");
    assert_eq!(said["healthy"], true, "{said}");
    assert_eq!(said["id"].as_str().unwrap().len(), 36, "{said}");
    let (status, text) = (&said["deprecate"][0], &said["deprecate"][1]);
    assert_eq!(status, "UNIMPLEMENTED", "{said}");
    assert!(
        text.as_str()
            .unwrap()
            .contains("unknown method DeprecateNamespace for service temporal"),
        "{said}"
    );
    // A project is a namespace, with its name as the description.
    let project = Project::add(&engine).await;
    let said = connect(&engine, &project.id, None).await;
    assert_eq!(said["name"], project.id.as_str(), "{said}");
    assert_eq!(said["description"], "shop", "{said}");
    let said = connect(&engine, "nowhere", None).await;
    assert_eq!(said["error"][0], "NOT_FOUND", "{said}");
}

#[tokio::test]
async fn a_projects_key_opens_its_namespace_and_no_other() {
    let engine = Launch::server()
        .env("ORCHESTRION_ADMIN_KEY", ADMIN)
        .start()
        .await;
    let add = |name: &'static str| {
        let request = engine
            .http
            .post(format!("{}/register/project", engine.url()))
            .bearer_auth(ADMIN)
            .json(&json!({ "name": name }));
        async move {
            let (status, body) = orchestrion_tests::engine::read(request).await;
            assert_eq!(status, 201, "{body}");
            let text = |member: &str| body[member].as_str().unwrap().to_owned();
            (text("id"), text("apiKey"))
        }
    };
    let ((shop, key), (other, _)) = (add("shop").await, add("other").await);
    let channel = channel(&engine).await;
    let code =
        async |namespace: &str, key: Option<&str>| match describe(channel.clone(), namespace, key)
            .await
        {
            Ok(name) => {
                assert_eq!(name, namespace);
                Code::Ok
            }
            Err(status) => status.code(),
        };
    assert_eq!(code(&shop, Some(&key)).await, Code::Ok);
    assert_eq!(code(&other, Some(&key)).await, Code::PermissionDenied);
    assert_eq!(code("default", Some(&key)).await, Code::PermissionDenied);
    assert_eq!(code(&shop, None).await, Code::Unauthenticated);
    assert_eq!(code(&shop, Some("guess")).await, Code::Unauthenticated);
    assert_eq!(code("default", Some(ADMIN)).await, Code::Ok);
    assert_eq!(code(&other, Some(ADMIN)).await, Code::Ok);
    assert_eq!(code("nowhere", Some(ADMIN)).await, Code::NotFound);
    // The real client, with its key; and health, which asks for none.
    let said = connect(&engine, &shop, Some(&key)).await;
    assert_eq!(said["name"], shop.as_str(), "{said}");
    let health: HealthCheckResponse = call(
        channel.clone(),
        "/grpc.health.v1.Health/Check",
        Request::new(HealthCheckRequest::default()),
    )
    .await
    .unwrap();
    assert_eq!(health.status, 1);
}

#[tokio::test]
async fn what_is_not_served_and_what_is_too_large_is_said_in_words_that_clients_know() {
    let engine = Launch::dev()
        .set("grpc.message_bytes_max", 65_536)
        .start()
        .await;
    let channel = channel(&engine).await;
    let unknown = call::<_, GetSystemInfoResponse>(
        channel.clone(),
        "/no.such.Service/Dance",
        Request::new(GetSystemInfoRequest::default()),
    )
    .await
    .unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert_eq!(
        unknown.message(),
        "unknown method Dance for service no.such.Service"
    );
    let large = describe(channel.clone(), &"x".repeat(100_000), None)
        .await
        .unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted, "{large}");
    assert!(
        large
            .message()
            .starts_with("grpc: received message larger than max"),
        "{large}"
    );
    // The connection is as good as before.
    assert_eq!(describe(channel, "default", None).await.unwrap(), "default");
}

#[tokio::test]
async fn reflection_lists_the_services_and_their_messages() {
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let engine = Engine::start().await;
    let asked = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(
            "temporal.api.workflowservice.v1.PollWorkflowTaskQueueResponse".to_owned(),
        ),
    ];
    let requests = asked.map(|request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    });
    let mut client = tonic::client::Grpc::new(channel(&engine).await);
    client.ready().await.unwrap();
    let mut answers: Streaming<ServerReflectionResponse> = client
        .streaming(
            Request::new(futures_util::stream::iter(requests)),
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
                .parse()
                .unwrap(),
            ProstCodec::default(),
        )
        .await
        .unwrap()
        .into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = next().await else {
        panic!("no list")
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(
        names.contains(&"temporal.api.workflowservice.v1.WorkflowService"),
        "{names:?}"
    );
    let Some(MessageResponse::FileDescriptorResponse(file)) = next().await else {
        panic!("no file")
    };
    assert!(!file.file_descriptor_proto.is_empty());
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_stop() {
    let mut engine = Engine::start().await;
    let mut client = tonic::client::Grpc::new(channel(&engine).await);
    client.ready().await.unwrap();
    let mut watched: Streaming<HealthCheckResponse> = client
        .server_streaming(
            Request::new(HealthCheckRequest::default()),
            "/grpc.health.v1.Health/Watch".parse().unwrap(),
            ProstCodec::default(),
        )
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
    assert!(engine.stop().await.success());
    assert!(
        !engine.log().contains("shutdown budget"),
        "{}",
        engine.log()
    );
}

#[tokio::test]
async fn tls_and_client_certificates_by_configuration() {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("{path:?}")
    };
    let (certificate, key) = signed("localhost");
    let engine = Launch::dev()
        .set("grpc.tls_certificate", write("server.pem", &certificate))
        .set("grpc.tls_key", write("server.key", &key))
        .set("grpc.tls_client_ca", write("ca.pem", &authority.pem()))
        .start()
        .await;
    let connect = |tls: ClientTlsConfig| {
        let url = format!("https://{}", engine.grpc_address());
        let tls = tls
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(authority.pem()));
        let endpoint = Channel::from_shared(url)
            .unwrap()
            .connect_timeout(Duration::from_secs(10))
            .tls_config(tls)
            .unwrap();
        async move {
            let channel = endpoint.connect().await.ok()?;
            describe(channel, "default", None).await.ok()
        }
    };
    let (certificate, key) = signed("worker");
    let known = ClientTlsConfig::new().identity(Identity::from_pem(certificate, key));
    assert_eq!(connect(known).await.as_deref(), Some("default"));
    assert_eq!(connect(ClientTlsConfig::new()).await, None);
    // And nothing in clear.
    let clear = Channel::from_shared(format!("http://{}", engine.grpc_address())).unwrap();
    let answer = match clear.connect().await {
        Ok(channel) => describe(channel, "default", None).await.ok(),
        Err(_) => None,
    };
    assert_eq!(answer, None);
}
