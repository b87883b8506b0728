//! The Temporal API as a client and a worker need it: calls by name, payloads, ids of methods.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::common::v1::{Payload, Payloads};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::Result;

pub const NAMESPACE: &str = "default";
pub const QUEUE: &str = "load";
/// An engine that is not there is asked again after so long.
const PAUSE: Duration = Duration::from_millis(5);

/// A method of the workflow service: `method!("PollActivityTaskQueue")`.
#[macro_export]
macro_rules! method {
    ($name:literal) => {
        concat!("/temporal.api.workflowservice.v1.WorkflowService/", $name)
    };
}

/// A connection. Clones share it.
#[derive(Clone)]
pub struct Temporal {
    grpc: Grpc<Channel>,
    key: Option<MetadataValue<Ascii>>,
    errors: Rc<Cell<usize>>,
}

impl Temporal {
    /// Connects with the first call.
    pub fn to(url: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .tcp_nodelay(true)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024);
        let grpc = Grpc::new(endpoint.connect_lazy()).max_decoding_message_size(64 * 1024 * 1024);
        Ok(Self {
            grpc,
            key: None,
            errors: Rc::default(),
        })
    }

    /// The same for whoever has a project's key.
    pub fn keyed(self, key: &str) -> Result<Self> {
        let key = Some(format!("Bearer {key}").parse()?);
        Ok(Self { key, ..self })
    }

    /// Calls that came to nothing, and were made again.
    pub fn errors(&self) -> usize {
        self.errors.get()
    }

    pub async fn call<Q, A>(
        &self,
        method: &'static str,
        request: Q,
    ) -> std::result::Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone();
        let unready = |e: tonic::transport::Error| Status::unavailable(e.to_string());
        grpc.ready().await.map_err(unready)?;
        let path = PathAndQuery::from_static(method);
        let codec = ProstCodec::<Q, A>::default();
        let mut request = Request::new(request);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
        let answer = grpc.unary(request, path, codec).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Asks until the engine is there.
    pub async fn insist<Q, A>(
        &self,
        method: &'static str,
        request: Q,
    ) -> std::result::Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        loop {
            match self.call(method, request.clone()).await {
                Err(status) if is_away(&status) => {
                    self.errors.set(self.errors.get() + 1);
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}

/// Whether the engine is not there now, or has no room.
pub fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted
    ) || status.message().contains("h2 protocol error")
}

/// A text as SDKs write it.
pub fn payloads(text: &str) -> Payloads {
    json_payloads(format!("\"{text}\""))
}

/// One value as SDKs write it.
pub fn json_payloads(json: String) -> Payloads {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let payload = Payload {
        metadata,
        data: json.into_bytes(),
        ..Default::default()
    };
    Payloads {
        payloads: vec![payload],
    }
}
