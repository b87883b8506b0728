//! Turns of workflow code: polled, completed, failed.

use std::time::Duration;

use orchestrion_history::request::{
    CompleteWorkflowTask, CompletedBy, FailWorkflowTask, Reply, Request as Ask,
};
use orchestrion_history::store::QueueKind;
use orchestrion_history::wire::timestamp;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::common::v1::{WorkflowExecution, WorkflowType};
use orchestrion_proto::temporal::api::deployment::v1::WorkerDeploymentVersion;
use orchestrion_proto::temporal::api::enums::v1::TaskQueueKind;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    PollWorkflowTaskQueueRequest, RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskFailedRequest, RespondWorkflowTaskFailedResponse,
};
use orchestrion_proto::wire::{
    PollWorkflowTaskQueueResponse, RespondWorkflowTaskCompletedResponse,
};
use tonic::{Request, Response, Status};

use super::token::{PageToken, TaskToken};
use super::{Temporal, activity_task, edge, errors};
use crate::engine::history::HistoryPage;
use crate::engine::polling::{Completion, QueryTask, Sticky, WorkflowTaskDispatch};
use crate::engine::{Polled, Poller};
use crate::seams;

impl Temporal {
    pub(super) async fn poll_workflow_task(
        &self,
        request: Request<PollWorkflowTaskQueueRequest>,
    ) -> Result<Response<PollWorkflowTaskQueueResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let wait = edge::poll_time(request.metadata(), self.api.settings.grpc.poll_timeout)?;
        let poll = request.into_inner();
        let queue = edge::queue(poll.task_queue.as_ref())?;
        let worker = edge::poller(poll.identity, poll.worker_instance_key)?;
        let polled = self
            .wait_for_task(namespace, QueueKind::Workflow, queue, worker, wait)
            .await?;
        Ok(Response::new(match polled {
            Some(Polled::WorkflowTask(task)) => self.workflow_task(*task).await?,
            Some(Polled::Query(query)) => self.query_task(*query)?,
            Some(Polled::Activity(_)) | None => PollWorkflowTaskQueueResponse::default(),
        }))
    }

    /// Waits for a task of a queue; `None` when none came in time, or the server stops.
    pub(super) async fn wait_for_task(
        &self,
        namespace: orchestrion_history::ids::Namespace,
        kind: QueueKind,
        queue: orchestrion_history::ids::TaskQueueName,
        worker: Poller,
        wait: Duration,
    ) -> Result<Option<Polled>, Status> {
        let request_id = self.new_request_id();
        let mut stop = self.api.stop.clone();
        let mut answer = self
            .api
            .handle
            .poll(namespace, kind, queue, worker, request_id)
            .map_err(errors::of_call)?;
        let polled = tokio::select! {
            biased;
            polled = answer.task() => return Ok(polled),
            () = seams::sleep(wait) => None,
            _ = stop.wait_for(|stopped| *stopped) => None::<Polled>,
        };
        Ok(polled.or_else(|| answer.last_chance()))
    }

    /// A workflow task as the wire has it, with the history its worker lacks.
    pub(super) async fn workflow_task(
        &self,
        task: WorkflowTaskDispatch,
    ) -> Result<PollWorkflowTaskQueueResponse, Status> {
        let suffix = super::history::unwritten_start(&task);
        let place = (&task.namespace, &task.workflow_id, task.run_id);
        let mut page = match &task.history {
            Some(history) => HistoryPage {
                bytes: history.to_vec(),
                ..HistoryPage::default()
            },
            None => self.history_page(place, None, task.first_event_id(), task.last_event_id)?,
        };
        let next_page_token = match page.next {
            None => {
                page.bytes.extend_from_slice(&suffix);
                Vec::new()
            }
            Some(seq) => {
                let token = PageToken {
                    until: task.last_event_id,
                    suffix,
                    ..PageToken::new(&task.workflow_id, task.run_id, seq)
                };
                prost::Message::encode_to_vec(&token)
            }
        };
        Ok(PollWorkflowTaskQueueResponse {
            task_token: TaskToken::of_workflow_task(&task),
            workflow_execution: Some(WorkflowExecution {
                workflow_id: task.workflow_id.to_string(),
                run_id: task.run_id.to_string(),
            }),
            workflow_type: Some(WorkflowType {
                name: task.workflow_type,
            }),
            previous_started_event_id: task.previous_started_event_id,
            started_event_id: task.started_event_id,
            attempt: task.start.attempt,
            history: Some(page.bytes.into()),
            next_page_token: next_page_token.into(),
            workflow_execution_task_queue: Some(normal_queue(task.task_queue)),
            scheduled_time: Some(timestamp(task.start.scheduled_at.0)),
            started_time: Some(timestamp(task.start.at.0)),
            queries: task.queries,
            messages: task.messages,
            ..Default::default()
        })
    }

    fn query_task(&self, query: QueryTask) -> Result<PollWorkflowTaskQueueResponse, Status> {
        let place = (&query.namespace, &query.workflow_id, query.run_id);
        let (history, next) = if query.sticky {
            (Default::default(), None)
        } else {
            let page = self.history_page(place, None, 1, query.last_event_id)?;
            (page.bytes, page.next)
        };
        let next_page_token = next.map_or_else(Vec::new, |seq| {
            let token = PageToken {
                until: query.last_event_id,
                ..PageToken::new(&query.workflow_id, query.run_id, seq)
            };
            prost::Message::encode_to_vec(&token)
        });
        Ok(PollWorkflowTaskQueueResponse {
            task_token: TaskToken::of_query(&query),
            workflow_execution: Some(WorkflowExecution {
                workflow_id: query.workflow_id.to_string(),
                run_id: query.run_id.to_string(),
            }),
            workflow_type: Some(WorkflowType {
                name: query.workflow_type,
            }),
            previous_started_event_id: query.previous_started_event_id,
            // 0 says that nothing was started: by it Core tells questions, of which it keeps any number, from tasks, of which it keeps one.
            started_event_id: 0,
            attempt: 1,
            history: Some(history.into()),
            next_page_token: next_page_token.into(),
            query: Some(query.query),
            workflow_execution_task_queue: Some(normal_queue(query.task_queue)),
            ..Default::default()
        })
    }

    pub(super) async fn complete_workflow_task(
        &self,
        request: Request<RespondWorkflowTaskCompletedRequest>,
    ) -> Result<Response<RespondWorkflowTaskCompletedResponse>, Status> {
        let token = TaskToken::workflow_task(&request.get_ref().task_token)?;
        let namespace =
            self.task_namespace(&request, &request.get_ref().namespace, &token.namespace)?;
        let respond = request.into_inner();
        let target = token.target(namespace);
        let sticky = respond.sticky_attributes.and_then(|sticky| {
            let queue = edge::queue(sticky.worker_task_queue.as_ref()).ok()?;
            let timeout = sticky.schedule_to_start_timeout.as_ref();
            let timeout = edge::nanos("sticky timeout", timeout).ok()?;
            Some(Sticky { queue, timeout })
        });
        let eager = respond
            .commands
            .iter()
            .filter_map(|command| match &command.attributes {
                Some(C::ScheduleActivityTaskCommandAttributes(a)) if a.request_eager_execution => {
                    Some(a.activity_id.clone())
                }
                _ => None,
            })
            .collect();
        #[expect(deprecated, reason = "older SDKs send the checksum and the stamp")]
        let by = CompletedBy {
            stamp: respond.worker_version_stamp,
            deployment_version: respond
                .deployment_options
                .map(|options| WorkerDeploymentVersion {
                    deployment_name: options.deployment_name,
                    build_id: options.build_id,
                }),
            binary_checksum: respond.binary_checksum,
            metering: respond.metering_metadata,
        };
        let worker = (by != CompletedBy::default()).then(|| Box::new(by));
        let completion = Completion {
            target,
            complete: CompleteWorkflowTask {
                start: token.start(),
                commands: respond.commands,
                messages: respond.messages,
                identity: respond.identity,
                sdk_metadata: respond.sdk_metadata,
                worker,
                force_new_task: respond.force_create_new_workflow_task,
                ..Default::default()
            },
            sticky,
            return_new: respond.return_new_workflow_task,
            eager,
            query_results: respond.query_results,
            request_id: self.new_request_id(),
        };
        let completed = self
            .api
            .handle
            .complete_workflow_task(completion)
            .await
            .map_err(errors::of_call)?;
        if let Reply::TaskFailed { cause, message } = completed.reply {
            let cause = cause.as_str_name();
            let cause = cause
                .strip_prefix("WORKFLOW_TASK_FAILED_CAUSE_")
                .unwrap_or(cause);
            return Err(Status::invalid_argument(format!("{cause}: {message}")));
        }
        let workflow_task = match completed.next {
            Some(task) => Some(self.workflow_task(*task).await?),
            None => None,
        };
        let activities = completed
            .activities
            .into_iter()
            .map(activity_task::on_the_wire);
        Ok(Response::new(RespondWorkflowTaskCompletedResponse {
            workflow_task,
            activity_tasks: activities.collect(),
            reset_history_event_id: completed.reset_to,
        }))
    }

    pub(super) async fn fail_workflow_task(
        &self,
        request: Request<RespondWorkflowTaskFailedRequest>,
    ) -> Result<Response<RespondWorkflowTaskFailedResponse>, Status> {
        let token = TaskToken::workflow_task(&request.get_ref().task_token)?;
        let namespace =
            self.task_namespace(&request, &request.get_ref().namespace, &token.namespace)?;
        let respond = request.into_inner();
        let target = token.target(namespace);
        let fail = FailWorkflowTask {
            start: token.start(),
            cause: respond.cause(),
            failure: respond.failure,
            identity: respond.identity,
        };
        let answer = self
            .api
            .handle
            .request(target, Ask::FailWorkflowTask(Box::new(fail)))
            .await;
        answer.map_err(errors::of_call)?;
        Ok(Response::new(RespondWorkflowTaskFailedResponse {}))
    }
}

fn normal_queue(name: String) -> TaskQueue {
    TaskQueue {
        name,
        kind: TaskQueueKind::Normal.into(),
        ..Default::default()
    }
}
