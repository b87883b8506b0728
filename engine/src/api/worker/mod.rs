//! Our own stream for services and agents: `orchestrion.v1.WorkerService`, described in `worker.proto`.
//!
//! It is the gRPC equal of orra's socket: the same queues, the same answers. A stream is one future, polled by its connection: there is
//! no task of its own, none per message, and answers are put to the engine without waiting for those before them.
//!
//! Invariant: nobody is attached before the key, the project and the registration are known to be good, and durable.

mod message;
mod session;

use std::sync::Arc;
use std::time::Duration;

use orchestrion_history::ids::{Namespace, TaskQueueName};
use orchestrion_proto::worker::from_worker::Message;
use orchestrion_proto::worker::worker_service_server::WorkerService;
use orchestrion_proto::worker::{FromWorker, Open, Opened, ToWorker, WorkerKind, to_worker};
use serde_json::{Value, json};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::orra::Api;
use super::orra::auth::bearer;
use super::work::answering::Answering;
use super::work::{MESSAGE_BYTES_MAX, Standing};
use crate::acts::{Actor, Who};
use crate::engine::handle::CallError;
use crate::plan::schema::{join, validate_registration};
use crate::registry::ids::{KeyDigest, named_service_id};
use crate::registry::{RegisteredService, Registration, RegistryError, ServiceKind};

/// How long a worker may take to say who it is.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts one stream is given at once, at most.
pub const WINDOW_MAX: u32 = 10_000;
/// Bytes of what a worker says of itself.
const IDENTITY_BYTES_MAX: usize = 255;
/// Shown as the source of failures.
const WIRE: &str = "worker";

/// Serves streams. Clones share everything.
#[derive(Clone)]
pub struct Streams {
    api: Api,
}

impl Streams {
    /// Over the same engine and registry as the other wires.
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    async fn register(
        &self,
        project: &Namespace,
        actor: &Actor,
        open: &Open,
    ) -> Result<RegisteredService, Status> {
        let registration = registration(project, open)?;
        let registry = self.api.registrar.registry();
        let known = registration
            .id
            .as_ref()
            .and_then(|id| registry.service(project, id));
        // Workers come and go; only one that brings something new makes a version.
        if let Some(known) = known
            && registration.describes(&known)
        {
            return Ok((*known).clone());
        }
        let registered = self
            .api
            .registrar
            .register_service(project, registration, actor)
            .await
            .map_err(|error| match error {
                RegistryError::Engine(error) => unavailable(&error),
                RegistryError::Limit { .. } => Status::resource_exhausted(error.to_string()),
                error => Status::invalid_argument(error.to_string()),
            })?;
        tracing::info!(
            %project,
            service = %registered.service.id,
            name = %registered.service.name,
            version = registered.version,
            "service registered"
        );
        Ok(registered)
    }
}

#[tonic::async_trait]
impl WorkerService for Streams {
    type WorkStream = BoxStream<ToWorker>;

    async fn work(
        &self,
        request: Request<tonic::Streaming<FromWorker>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let key = bearer(request.metadata().as_ref())
            .map(KeyDigest::of)
            .ok_or_else(|| {
                Status::unauthenticated(
                    "send the key of the service's project as metadata: authorization: Bearer <api key>",
                )
            })?;
        let identity = self.api.registrar.registry().identify(key).ok_or_else(|| {
            Status::unauthenticated("the key is of no project: use a key of the service's project")
        })?;
        let actor = Actor {
            who: Who::Key(identity.key_id),
            peer: request.remote_addr(),
        };
        let project = identity.namespace;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(OPEN_TIMEOUT, inbound.message())
            .await
            .map_err(|_| {
                Status::deadline_exceeded("nothing was said: begin with the message open")
            })??;
        let Some(Message::Open(open)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument(
                "a stream begins with the message open: say who you are",
            ));
        };
        if *self.api.stop.borrow() {
            return Err(session::shutting_down());
        }
        let registered = self.register(&project, &actor, &open).await?;
        let service_id = registered.service.id.clone();
        let window = open.window.clamp(1, WINDOW_MAX);
        let queue = TaskQueueName::parse(&service_id)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let shown = if open.identity.is_empty() {
            format!("{} ({service_id})", registered.service.name)
        } else {
            open.identity.clone()
        };
        let open_stream = self.api.sockets.enter();
        let attached = self
            .api
            .handle
            .attach(Some(project.clone()), queue, shown.clone(), window)
            .await
            .map_err(|error| unavailable(&error))?;
        tracing::info!(service = %service_id, session = attached.id.0, sdk = %open.sdk, window, "worker connected");
        let standing = Standing::new(
            self.api.registrar.registry().clone(),
            project.clone(),
            service_id.clone(),
            key,
        );
        let answering = Answering {
            handle: self.api.handle.clone(),
            clock: Arc::clone(&self.api.clock),
            namespace: project,
            service_id: service_id.clone(),
            identity: shown,
            wire: WIRE,
            patience: self.api.settings.sockets.answer_patience,
            default_ttl: self.api.settings.compensation.default_ttl,
        };
        let opened = Opened {
            service_id,
            version: registered.version,
            window,
            message_bytes_max: MESSAGE_BYTES_MAX as u64,
        };
        let session = session::Session::new(session::Parts {
            inbound,
            attached,
            answering,
            standing,
            stop: self.api.stop.clone(),
            window,
            guard: Box::new(open_stream),
        });
        Ok(Response::new(Box::pin(
            session.stream(to_worker::Message::Opened(opened)),
        )))
    }
}

/// What a worker says of its service, checked.
fn registration(project: &Namespace, open: &Open) -> Result<Registration, Status> {
    let refused = |why: String| Status::invalid_argument(why);
    let schema = |side: &str, text: &[u8]| {
        serde_json::from_slice::<Value>(text)
            .map_err(|e| refused(format!("the {side} schema is not JSON: {e}")))
    };
    let (input, output) = (
        schema("input", &open.input_schema)?,
        schema("output", &open.output_schema)?,
    );
    if open.identity.len() > IDENTITY_BYTES_MAX || open.sdk.len() > IDENTITY_BYTES_MAX {
        return Err(refused(format!(
            "identity and sdk may have {IDENTITY_BYTES_MAX} bytes each"
        )));
    }
    let schemas = json!({"input": input, "output": output});
    validate_registration(&open.name, &open.description, &schemas)
        .map_err(|faults| refused(join(&faults)))?;
    let id = if open.service_id.is_empty() {
        named_service_id(project, &open.name)
    } else {
        open.service_id.clone()
    };
    Ok(Registration {
        id: Some(id),
        kind: match open.kind() {
            WorkerKind::Agent => ServiceKind::Agent,
            WorkerKind::Service | WorkerKind::Unspecified => ServiceKind::Service,
        },
        name: open.name.clone(),
        description: open.description.clone(),
        input_schema: input,
        output_schema: output,
        revertible: open.revertible,
    })
}

fn unavailable(error: &CallError) -> Status {
    Status::unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Open {
        let schema = r#"{"type":"object","properties":{"a":{"type":"string"}}}"#;
        Open {
            name: "echo".into(),
            description: "says it again".into(),
            input_schema: schema.into(),
            output_schema: schema.into(),
            window: 4,
            ..Default::default()
        }
    }

    #[test]
    fn a_name_is_enough_and_always_the_same_service() {
        let project = Namespace::parse("p_1").unwrap();
        let first = registration(&project, &open()).unwrap();
        let again = registration(&project, &open()).unwrap();
        assert_eq!(first, again);
        let id = first.id.unwrap();
        assert!(id.starts_with("s_") && id.len() == 30, "{id}");
        let elsewhere = registration(&Namespace::parse("p_2").unwrap(), &open()).unwrap();
        assert_ne!(elsewhere.id.unwrap(), id);
    }

    #[test]
    fn what_cannot_be_planned_with_is_refused_by_name() {
        let project = Namespace::parse("p_1").unwrap();
        type Spoil = fn(&mut Open);
        let cases: [(Spoil, &str); 4] = [
            (|open| open.name = "No!".into(), "name"),
            (|open| open.description.clear(), "description"),
            (|open| open.output_schema = "{".into(), "output schema"),
            (|open| open.identity = "x".repeat(300), "identity"),
        ];
        for (spoil, named) in cases {
            let mut open = open();
            spoil(&mut open);
            let status = registration(&project, &open).unwrap_err();
            assert!(status.message().contains(named), "{status}");
        }
    }
}
