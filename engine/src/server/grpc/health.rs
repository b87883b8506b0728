//! `grpc.health.v1.Health`: serving means what `GET /health` means, that the engine commits.

use std::time::Duration;

use futures_util::stream;
use orchestrion_proto::grpc::health::v1::health_check_response::ServingStatus;
use orchestrion_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use orchestrion_proto::services::health::health_server;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::api::orra::{Api, health};
use crate::seams;

/// How often a watcher's answer is looked at again.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What is asked after; the empty name is the whole server.
const SERVICES: [&str; 4] = [
    "",
    "temporal.api.workflowservice.v1.WorkflowService",
    "temporal.api.operatorservice.v1.OperatorService",
    "orchestrion.v1.WorkerService",
];

pub(super) struct Health {
    api: Api,
}

impl Health {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }
}

async fn status(api: &Api) -> ServingStatus {
    if *api.stop.borrow() || health::check(api).await.is_err() {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found(format!(
                "service {service} is not found: ask for one that reflection lists, or for none"
            )));
        }
        Ok(Response::new(answer(status(&self.api).await)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<BoxStream<HealthCheckResponse>>, Status> {
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let state = (self.api.clone(), None);
        let changes = stream::unfold(state, move |(api, last)| async move {
            loop {
                if last.is_some() {
                    let mut stop = api.stop.clone();
                    tokio::select! {
                        () = seams::sleep(WATCH_INTERVAL) => {}
                        // A watcher must not hold up the stop.
                        _ = stop.wait_for(|stopped| *stopped) => return None,
                    }
                }
                let now = if known {
                    status(&api).await
                } else {
                    ServingStatus::ServiceUnknown
                };
                if last != Some(now) {
                    return Some((Ok(answer(now)), (api, Some(now))));
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
