//! Activities: polled, answered by token or by id, kept alive.

use std::time::Duration;

use orchestrion_history::request::{
    ActivityRef, CompleteActivity, ConfirmActivityCanceled, FailActivity, HeartbeatActivity,
    Rejection, Reply, Request as Ask,
};
use orchestrion_history::store::QueueKind;
use orchestrion_history::wire::{duration, timestamp};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::common::v1::{
    ActivityType, Payloads, WorkflowExecution, WorkflowType,
};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{
    ApplicationFailureInfo, Failure, ServerFailureInfo,
};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    PollActivityTaskQueueRequest, PollActivityTaskQueueResponse,
    RecordActivityTaskHeartbeatByIdRequest, RecordActivityTaskHeartbeatByIdResponse,
    RecordActivityTaskHeartbeatRequest, RecordActivityTaskHeartbeatResponse,
    RespondActivityTaskCanceledByIdRequest, RespondActivityTaskCanceledByIdResponse,
    RespondActivityTaskCanceledRequest, RespondActivityTaskCanceledResponse,
    RespondActivityTaskCompletedByIdRequest, RespondActivityTaskCompletedByIdResponse,
    RespondActivityTaskCompletedRequest, RespondActivityTaskCompletedResponse,
    RespondActivityTaskFailedByIdRequest, RespondActivityTaskFailedByIdResponse,
    RespondActivityTaskFailedRequest, RespondActivityTaskFailedResponse,
};
use tonic::{Request, Response, Status};

use super::token::TaskToken;
use super::{Temporal, edge, errors};
use crate::api::work::answering::{RESULT_REFUSED, late_result};
use crate::api::work::locate::{Ending, locate_event};
use crate::engine::{CallError, Dispatch, Polled, Target};
use crate::orchestration::submission::json_text;
use crate::orchestration::{NoTaskResult, REVERT_ID_PREFIX, is_builtin, task_result_of};
use crate::registry::ids::execution_id;

/// An attempt as the wire has it. All four durations are set: SDKs fail on an absent one.
pub fn on_the_wire(dispatch: Dispatch) -> PollActivityTaskQueueResponse {
    let span = |d: Duration| Some(duration(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)));
    PollActivityTaskQueueResponse {
        task_token: TaskToken::of_activity(&dispatch),
        workflow_namespace: dispatch.namespace.to_string(),
        workflow_type: Some(WorkflowType {
            name: dispatch.workflow_type,
        }),
        workflow_execution: Some(WorkflowExecution {
            workflow_id: dispatch.workflow_id.to_string(),
            run_id: dispatch.run_id.to_string(),
        }),
        activity_type: Some(ActivityType {
            name: dispatch.activity_type,
        }),
        activity_id: dispatch.activity_id,
        header: dispatch.header,
        input: dispatch.input,
        heartbeat_details: dispatch.heartbeat_details,
        scheduled_time: Some(timestamp(dispatch.scheduled_at.0)),
        current_attempt_scheduled_time: Some(timestamp(dispatch.attempt_scheduled_at.0)),
        started_time: Some(timestamp(dispatch.started_at.0)),
        attempt: dispatch.number,
        schedule_to_close_timeout: span(dispatch.schedule_to_close),
        start_to_close_timeout: span(dispatch.start_to_close),
        heartbeat_timeout: span(dispatch.heartbeat),
        retry_policy: Some(dispatch.retry.policy()),
        priority: dispatch.priority,
        ..Default::default()
    }
}

fn refusal(refused: &NoTaskResult) -> Option<Failure> {
    let info = ApplicationFailureInfo {
        r#type: RESULT_REFUSED.to_owned(),
        non_retryable: true,
        ..Default::default()
    };
    Some(Failure {
        message: refused.to_string(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
        ..Default::default()
    })
}

/// Which attempt of which run an answer is for.
struct Place {
    target: Target,
    activity: ActivityRef,
    /// What it is to the run.
    work: Work,
}

/// What an activity is to its run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// An activity of somebody's workflow.
    Foreign,
    /// A task of an orchestration.
    Task,
    /// The undoing of one.
    Revert,
}

impl Work {
    fn of(workflow_type: &str, revert: bool) -> Self {
        match (is_builtin(workflow_type), revert) {
            (false, _) => Self::Foreign,
            (true, false) => Self::Task,
            (true, true) => Self::Revert,
        }
    }
}

/// What a worker learns when it heartbeats.
#[derive(Default)]
struct Told {
    /// The workflow wants the activity cancelled.
    cancel_requested: bool,
    /// An operator wants no further attempt to start.
    paused: bool,
    /// An operator wants it to begin anew.
    reset: bool,
}

impl Temporal {
    pub(super) async fn poll_activity_task(
        &self,
        request: Request<PollActivityTaskQueueRequest>,
    ) -> Result<Response<PollActivityTaskQueueResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let wait = edge::poll_time(request.metadata(), self.api.settings.grpc.poll_timeout)?;
        let poll = request.into_inner();
        let queue = edge::queue(poll.task_queue.as_ref())?;
        let worker = edge::poller(poll.identity, poll.worker_instance_key)?;
        let polled = self
            .wait_for_task(namespace, QueueKind::Activity, queue, worker, wait)
            .await?;
        Ok(Response::new(match polled {
            Some(Polled::Activity(dispatch)) => on_the_wire(*dispatch),
            Some(Polled::WorkflowTask(_) | Polled::Query(_)) | None => Default::default(),
        }))
    }

    fn by_token<T>(
        &self,
        request: &Request<T>,
        named: &str,
        token: &[u8],
    ) -> Result<Place, Status> {
        let token = TaskToken::activity(token)?;
        let namespace = self.task_namespace(request, named, &token.namespace)?;
        Ok(Place {
            target: token.target(namespace),
            activity: ActivityRef::Attempt {
                scheduled_event_id: token.scheduled_event_id,
                attempt: token.attempt,
            },
            work: Work::of(&token.workflow_type, token.revert),
        })
    }

    async fn by_id<T>(
        &self,
        request: &Request<T>,
        named: (&str, &str, &str),
        activity_id: &str,
    ) -> Result<Place, Status> {
        let (namespace, workflow_id, run_id) = named;
        let namespace = self.namespace(request, namespace)?;
        let target = edge::target_of(&namespace, workflow_id, run_id)?;
        if activity_id.is_empty() {
            return Err(Status::invalid_argument("activity id is not set: name one"));
        }
        let state = self.api.handle.state(target.clone()).await;
        let state = state.map_err(errors::of_call)?;
        Ok(Place {
            // No id of a task can begin so.
            work: Work::of(
                &state.workflow_type,
                activity_id.starts_with(REVERT_ID_PREFIX),
            ),
            target,
            activity: ActivityRef::Id(activity_id.to_owned()),
        })
    }

    async fn complete(
        &self,
        place: Place,
        result: Option<Payloads>,
        identity: String,
    ) -> Result<(), Status> {
        if place.work == Work::Task {
            return match task_result_of(result) {
                Ok(result) => self.complete_task(place, result, identity).await,
                // The worker holds it for done and would send the same again: better an error that says why.
                Err(refused) => self.fail(place, refusal(&refused), identity, None).await,
            };
        }
        if let Some(failure) = self.too_large(&place, "the result", result.as_ref()) {
            return self.fail(place, Some(failure), identity, None).await;
        }
        let complete = CompleteActivity {
            activity: place.activity,
            result,
            identity,
        };
        let ask = Ask::CompleteActivity(Box::new(complete));
        self.answer(place.target, ask).await.map(|_| ())
    }

    /// Why an answer counts as a failure: its worker could send no other, so another attempt would end the same way. What was done for an
    /// orchestration stays done, however long its result: taken for a failure, it would never be undone.
    fn too_large<M: Message>(
        &self,
        place: &Place,
        what: &str,
        piece: Option<&M>,
    ) -> Option<Failure> {
        if place.work != Work::Foreign {
            return None;
        }
        let (bytes, max) = (piece.map_or(0, Message::encoded_len), self.blob_max());
        (bytes > max).then(|| Failure {
            message: edge::oversized(what, bytes, max),
            source: "Server".to_owned(),
            failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo {
                non_retryable: true,
            })),
            ..Default::default()
        })
    }

    /// A success of a task counts whenever it comes: for the activity, if that is open, whichever attempt it waits for; and if it closed
    /// without a result, for the run, which has something to undo.
    async fn complete_task(
        &self,
        place: Place,
        result: Payloads,
        identity: String,
    ) -> Result<(), Status> {
        let (event, attempt) = match place.activity {
            ActivityRef::Attempt {
                scheduled_event_id,
                attempt,
            } => (scheduled_event_id, attempt),
            ref other => {
                let complete = CompleteActivity {
                    activity: other.clone(),
                    result: Some(result),
                    identity,
                };
                let ask = Ask::CompleteActivity(Box::new(complete));
                return self.answer(place.target, ask).await.map(|_| ());
            }
        };
        let complete = CompleteActivity {
            activity: ActivityRef::Scheduled(event),
            result: Some(result.clone()),
            identity: identity.clone(),
        };
        let ask = Ask::CompleteActivity(Box::new(complete));
        let accepted = self.api.handle.request(place.target.clone(), ask).await;
        let refused = match accepted {
            Ok(_) => return Ok(()),
            Err(refused @ CallError::Rejected(Rejection::NotFound { .. })) => refused,
            Err(error) => return Err(errors::of_call(error)),
        };
        let located = locate_event(&self.api.handle, None, &place.target, event);
        let (Ok(located), Some(run)) = (located, place.target.run_id) else {
            return Err(errors::of_call(refused));
        };
        if located.ending != Ending::WithoutResult {
            return Err(errors::of_call(refused));
        }
        let execution = execution_id(run, event, attempt, false);
        let text = json_text(Some(&result)).unwrap_or(b"null");
        let task = &located.assignment.activity_id;
        let late = late_result(task, text, identity, format!("late-{event}-{execution}"));
        self.answer(place.target, late).await.map(|_| ())
    }

    async fn fail(
        &self,
        place: Place,
        failure: Option<Failure>,
        identity: String,
        last_heartbeat: Option<Payloads>,
    ) -> Result<(), Status> {
        let failure = failure.unwrap_or_else(|| Failure {
            message: "the worker gave no reason".to_owned(),
            source: "Server".to_owned(),
            ..Default::default()
        });
        // A failure stays one: what is too large of it is left out.
        let failure = self
            .too_large(&place, "the failure", Some(&failure))
            .unwrap_or(failure);
        let last_heartbeat =
            last_heartbeat.filter(|details| details.encoded_len() <= self.blob_max());
        let fail = FailActivity {
            activity: place.activity,
            failure,
            identity,
            last_heartbeat,
        };
        let ask = Ask::FailActivity(Box::new(fail));
        self.answer(place.target, ask).await.map(|_| ())
    }

    async fn confirm_canceled(
        &self,
        place: Place,
        details: Option<Payloads>,
        identity: String,
    ) -> Result<(), Status> {
        if let Some(failure) = self.too_large(&place, "the details", details.as_ref()) {
            return self.fail(place, Some(failure), identity, None).await;
        }
        let confirm = ConfirmActivityCanceled {
            activity: place.activity,
            details,
            identity,
        };
        let ask = Ask::ConfirmActivityCanceled(Box::new(confirm));
        self.answer(place.target, ask).await.map(|_| ())
    }

    /// Answers what the worker is to be told.
    async fn heartbeat(&self, place: Place, details: Option<Payloads>) -> Result<Told, Status> {
        if let Some(failure) = self.too_large(&place, "the heartbeat", details.as_ref()) {
            self.fail(place, Some(failure), String::new(), None).await?;
            // Its attempt is over: the worker may stop.
            return Ok(Told {
                cancel_requested: true,
                ..Told::default()
            });
        }
        let beat = HeartbeatActivity {
            activity: place.activity,
            details,
        };
        let reply = self
            .answer(place.target, Ask::HeartbeatActivity(Box::new(beat)))
            .await?;
        Ok(match reply {
            Reply::Heartbeat {
                cancel_requested,
                paused,
                reset,
            } => Told {
                cancel_requested,
                paused,
                reset,
            },
            _ => Told::default(),
        })
    }

    async fn answer(&self, target: Target, ask: Ask) -> Result<Reply, Status> {
        let accepted = self.api.handle.request(target, ask).await;
        accepted.map(|a| a.reply).map_err(errors::of_call)
    }

    pub(super) async fn respond_completed(
        &self,
        request: Request<RespondActivityTaskCompletedRequest>,
    ) -> Result<Response<RespondActivityTaskCompletedResponse>, Status> {
        let r = request.get_ref();
        let place = self.by_token(&request, &r.namespace, &r.task_token)?;
        let r = request.into_inner();
        self.complete(place, r.result, r.identity).await?;
        Ok(Response::new(RespondActivityTaskCompletedResponse {}))
    }

    pub(super) async fn respond_completed_by_id(
        &self,
        request: Request<RespondActivityTaskCompletedByIdRequest>,
    ) -> Result<Response<RespondActivityTaskCompletedByIdResponse>, Status> {
        let r = request.get_ref();
        let named = (&*r.namespace, &*r.workflow_id, &*r.run_id);
        let place = self.by_id(&request, named, &r.activity_id).await?;
        let r = request.into_inner();
        self.complete(place, r.result, r.identity).await?;
        Ok(Response::new(RespondActivityTaskCompletedByIdResponse {}))
    }

    pub(super) async fn respond_failed(
        &self,
        request: Request<RespondActivityTaskFailedRequest>,
    ) -> Result<Response<RespondActivityTaskFailedResponse>, Status> {
        let r = request.get_ref();
        let place = self.by_token(&request, &r.namespace, &r.task_token)?;
        let r = request.into_inner();
        self.fail(place, r.failure, r.identity, r.last_heartbeat_details)
            .await?;
        Ok(Response::new(RespondActivityTaskFailedResponse::default()))
    }

    pub(super) async fn respond_failed_by_id(
        &self,
        request: Request<RespondActivityTaskFailedByIdRequest>,
    ) -> Result<Response<RespondActivityTaskFailedByIdResponse>, Status> {
        let r = request.get_ref();
        let named = (&*r.namespace, &*r.workflow_id, &*r.run_id);
        let place = self.by_id(&request, named, &r.activity_id).await?;
        let r = request.into_inner();
        self.fail(place, r.failure, r.identity, r.last_heartbeat_details)
            .await?;
        Ok(Response::new(
            RespondActivityTaskFailedByIdResponse::default(),
        ))
    }

    pub(super) async fn respond_canceled(
        &self,
        request: Request<RespondActivityTaskCanceledRequest>,
    ) -> Result<Response<RespondActivityTaskCanceledResponse>, Status> {
        let r = request.get_ref();
        let place = self.by_token(&request, &r.namespace, &r.task_token)?;
        let r = request.into_inner();
        self.confirm_canceled(place, r.details, r.identity).await?;
        Ok(Response::new(RespondActivityTaskCanceledResponse {}))
    }

    pub(super) async fn respond_canceled_by_id(
        &self,
        request: Request<RespondActivityTaskCanceledByIdRequest>,
    ) -> Result<Response<RespondActivityTaskCanceledByIdResponse>, Status> {
        let r = request.get_ref();
        let named = (&*r.namespace, &*r.workflow_id, &*r.run_id);
        let place = self.by_id(&request, named, &r.activity_id).await?;
        let r = request.into_inner();
        self.confirm_canceled(place, r.details, r.identity).await?;
        Ok(Response::new(RespondActivityTaskCanceledByIdResponse {}))
    }

    pub(super) async fn record_heartbeat(
        &self,
        request: Request<RecordActivityTaskHeartbeatRequest>,
    ) -> Result<Response<RecordActivityTaskHeartbeatResponse>, Status> {
        let r = request.get_ref();
        let place = self.by_token(&request, &r.namespace, &r.task_token)?;
        let told = self.heartbeat(place, request.into_inner().details).await?;
        Ok(Response::new(RecordActivityTaskHeartbeatResponse {
            cancel_requested: told.cancel_requested,
            activity_paused: told.paused,
            activity_reset: told.reset,
        }))
    }

    pub(super) async fn record_heartbeat_by_id(
        &self,
        request: Request<RecordActivityTaskHeartbeatByIdRequest>,
    ) -> Result<Response<RecordActivityTaskHeartbeatByIdResponse>, Status> {
        let r = request.get_ref();
        let named = (&*r.namespace, &*r.workflow_id, &*r.run_id);
        let place = self.by_id(&request, named, &r.activity_id).await?;
        let told = self.heartbeat(place, request.into_inner().details).await?;
        Ok(Response::new(RecordActivityTaskHeartbeatByIdResponse {
            cancel_requested: told.cancel_requested,
            activity_paused: told.paused,
            activity_reset: told.reset,
        }))
    }
}
