//! Workers: that they leave.

use orchestrion_history::ids::TaskQueueName;
use orchestrion_history::store::QueueKind;
use orchestrion_proto::temporal::api::enums::v1::TaskQueueType;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    ShutdownWorkerRequest, ShutdownWorkerResponse,
};
use tonic::{Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::engine::Leaving;

impl Temporal {
    /// A worker leaves: its polls end at once, also those still on their way, and its own queue is not waited for.
    pub(super) async fn worker_leaves(
        &self,
        request: Request<ShutdownWorkerRequest>,
    ) -> Result<Response<ShutdownWorkerResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let leaves = request.into_inner();
        let kinds = kinds(&leaves);
        let leaving = Leaving {
            worker: edge::poller(leaves.identity, leaves.worker_instance_key)?,
            queue: TaskQueueName::parse(&leaves.task_queue).ok(),
            sticky: TaskQueueName::parse(&leaves.sticky_task_queue).ok(),
            kinds,
        };
        self.api
            .handle
            .leave(namespace, leaving)
            .map_err(errors::of_call)?;
        Ok(Response::new(ShutdownWorkerResponse::default()))
    }
}

/// Which tasks the worker polled for. SDKs that do not say it may have polled for any.
fn kinds(leaves: &ShutdownWorkerRequest) -> Vec<QueueKind> {
    if leaves.task_queue_types.is_empty() {
        return vec![QueueKind::Workflow, QueueKind::Activity];
    }
    let types = leaves.task_queue_types();
    types
        .filter_map(|kind| match kind {
            TaskQueueType::Workflow => Some(QueueKind::Workflow),
            TaskQueueType::Activity => Some(QueueKind::Activity),
            TaskQueueType::Unspecified | TaskQueueType::Nexus => None,
        })
        .collect()
}
