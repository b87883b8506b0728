//! Calls of Temporal's API that are broken off, and asked again.

use std::error::Error as _;

use orchestrion_proto::prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::ANSWER_WITHIN;
use crate::wait::PAUSE;

/// The path of a method of the workflow service.
macro_rules! method {
    ($name:literal) => {
        concat!("/temporal.api.workflowservice.v1.WorkflowService/", $name)
    };
}
pub(super) use method;

/// Temporal's API over one connection, which is made again when it breaks.
pub(super) struct Client {
    channel: Channel,
}

impl Client {
    pub(super) fn to(address: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let endpoint = endpoint
            .connect_timeout(ANSWER_WITHIN)
            .timeout(ANSWER_WITHIN);
        Self {
            channel: endpoint.connect_lazy(),
        }
    }

    /// `None` if there was no answer, or one that says to ask again.
    pub(super) async fn try_call<Q, A>(&mut self, path: &'static str, request: Q) -> Option<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.ok()?;
        let codec = ProstCodec::<Q, A>::default();
        let name = path.parse().unwrap();
        match client.unary(Request::new(request), name, codec).await {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                assert!(says_to_ask_again(&status), "{path}: {status:?}");
                None
            }
        }
    }

    /// Until it is answered.
    pub(super) async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> A
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        loop {
            if let Some(answer) = self.try_call(path, request.clone()).await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The line broke or was silent for too long, or the engine says so itself. Anything else would be a wrong answer to a right call.
fn says_to_ask_again(status: &Status) -> bool {
    status.source().is_some()
        || matches!(status.code(), Code::Unavailable | Code::ResourceExhausted)
}
