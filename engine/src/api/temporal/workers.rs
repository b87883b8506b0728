//! Workers: how they say they are, who asks for it, and that they leave.

use orchestrion_history::ids::{Namespace, TaskQueueName};
use orchestrion_history::store::QueueKind;
use orchestrion_proto::temporal::api::enums::v1::TaskQueueType;
use orchestrion_proto::temporal::api::worker::v1::{WorkerHeartbeat, WorkerInfo, WorkerListInfo};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    CountWorkersRequest, CountWorkersResponse, DescribeWorkerRequest, DescribeWorkerResponse,
    ListWorkersRequest, ListWorkersResponse, RecordWorkerHeartbeatRequest,
    RecordWorkerHeartbeatResponse, ShutdownWorkerRequest, ShutdownWorkerResponse,
};
use tonic::{Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::engine::Leaving;
use crate::seams;
use crate::workers::{HeartbeatError, KEPT, query};

/// Workers of a page, when nothing else is asked.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;

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
        // First what may be refused: its caller would take the worker for one that has not left.
        if let Some(last) = leaves.worker_heartbeat {
            self.workers
                .record(&namespace, &[last], self.api.clock.now())
                .map_err(refused)?;
        }
        self.api
            .handle
            .leave(namespace, leaving)
            .map_err(errors::of_call)?;
        Ok(Response::new(ShutdownWorkerResponse::default()))
    }

    pub(super) async fn record_workers(
        &self,
        request: Request<RecordWorkerHeartbeatRequest>,
    ) -> Result<Response<RecordWorkerHeartbeatResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let heartbeats = request.into_inner().worker_heartbeat;
        self.workers
            .record(&namespace, &heartbeats, self.api.clock.now())
            .map_err(refused)?;
        Ok(Response::new(RecordWorkerHeartbeatResponse {}))
    }

    pub(super) async fn list_some_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let asked = request.into_inner();
        let size = match usize::try_from(asked.page_size) {
            Ok(0) => PAGE_DEFAULT,
            Ok(size) => size.min(PAGE_MAX),
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "page size is {}: give zero or more",
                    asked.page_size
                )));
            }
        };
        let behind = String::from_utf8(asked.next_page_token).map_err(|_| {
            Status::invalid_argument(
                "next_page_token is not one of this call: leave it out to begin anew",
            )
        })?;
        let mut found = self.found(namespace, behind, asked.query, size + 1).await?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more);
        let next_page_token = last.map(|last| last.worker_instance_key.clone().into_bytes());
        #[allow(deprecated, reason = "it is all that older clients read")]
        Ok(Response::new(ListWorkersResponse {
            next_page_token: next_page_token.unwrap_or_default(),
            workers: found.iter().cloned().map(in_short).collect(),
            workers_info: found.into_iter().map(in_full).collect(),
        }))
    }

    pub(super) async fn count_some_workers(
        &self,
        request: Request<CountWorkersRequest>,
    ) -> Result<Response<CountWorkersResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let query = request.into_inner().query;
        let found = self
            .found(namespace, String::new(), query, usize::MAX)
            .await?;
        Ok(Response::new(CountWorkersResponse {
            count: i64::try_from(found.len()).unwrap_or(i64::MAX),
        }))
    }

    pub(super) async fn describe_a_worker(
        &self,
        request: Request<DescribeWorkerRequest>,
    ) -> Result<Response<DescribeWorkerResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let key = request.into_inner().worker_instance_key;
        let now = self.api.clock.now();
        let worker = self.workers.get(&namespace, &key, now).ok_or_else(|| {
            Status::not_found(format!(
                "worker {key} is not known: it sends no heartbeats, or has sent none for {} s",
                KEPT.as_secs()
            ))
        })?;
        Ok(Response::new(DescribeWorkerResponse {
            worker_info: Some(in_full(worker)),
        }))
    }

    /// The first workers behind a key that satisfy a query. They are read on a thread that may take its time.
    async fn found(
        &self,
        namespace: Namespace,
        behind: String,
        query: String,
        max: usize,
    ) -> Result<Vec<WorkerHeartbeat>, Status> {
        let filter = query::filter(&query).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (workers, now) = (self.workers.clone(), self.api.clock.now());
        let found = seams::blocking(move || {
            workers
                .after(&namespace, &behind, now)
                .filter(|worker| filter.as_ref().is_none_or(|filter| filter.holds(worker)))
                .take(max)
                .collect()
        });
        found
            .await
            .map_err(|_| Status::unavailable("the server is shutting down"))
    }
}

fn refused(error: HeartbeatError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn in_full(worker: WorkerHeartbeat) -> WorkerInfo {
    WorkerInfo {
        worker_heartbeat: Some(worker),
    }
}

fn in_short(worker: WorkerHeartbeat) -> WorkerListInfo {
    let host = worker.host_info.unwrap_or_default();
    WorkerListInfo {
        worker_instance_key: worker.worker_instance_key,
        worker_identity: worker.worker_identity,
        task_queue: worker.task_queue,
        deployment_version: worker.deployment_version,
        sdk_name: worker.sdk_name,
        sdk_version: worker.sdk_version,
        status: worker.status,
        start_time: worker.start_time,
        host_name: host.host_name,
        worker_grouping_key: host.worker_grouping_key,
        process_id: host.process_id,
        plugins: worker.plugins,
        drivers: worker.drivers,
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
