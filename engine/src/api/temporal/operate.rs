//! What operators ask of runs and of their pending activities: pause, unpause, reset, other options.
//!
//! Activities can be named in two ways: `PauseActivity` and its like choose among those of a run by id or type, the newer
//! `PauseActivityExecution` and its like name one. Activities without a workflow are not here.

use orchestrion_history::request::{
    ActivityChoice, OptionsChange, PauseActivity, PauseWorkflow, Reply, Request as Ask,
    ResetActivity, UnpauseActivity, UnpauseWorkflow, UpdateActivityOptions,
};
use orchestrion_proto::prost_wkt_types::{Duration, FieldMask};
use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    PauseActivityExecutionRequest, PauseActivityExecutionResponse, PauseActivityRequest,
    PauseActivityResponse, PauseWorkflowExecutionRequest, PauseWorkflowExecutionResponse,
    ResetActivityExecutionRequest, ResetActivityExecutionResponse, ResetActivityRequest,
    ResetActivityResponse, UnpauseActivityExecutionRequest, UnpauseActivityExecutionResponse,
    UnpauseActivityRequest, UnpauseActivityResponse, UnpauseWorkflowExecutionRequest,
    UnpauseWorkflowExecutionResponse, UpdateActivityExecutionOptionsRequest,
    UpdateActivityExecutionOptionsResponse, UpdateActivityOptionsRequest,
    UpdateActivityOptionsResponse, pause_activity_request, reset_activity_request,
    unpause_activity_request, update_activity_options_request,
};
use tonic::{Request, Response, Status};

use super::{Temporal, edge, errors};
use crate::engine::Target;
use crate::orchestration::is_builtin;

impl Temporal {
    pub(super) async fn pause_workflow(
        &self,
        request: Request<PauseWorkflowExecutionRequest>,
    ) -> Result<Response<PauseWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let target = edge::target_of(&namespace, &r.workflow_id, &r.run_id)?;
        let pause = PauseWorkflow {
            identity: r.identity,
            reason: r.reason,
            request_id: r.request_id,
        };
        self.ask(target, Ask::Pause(pause)).await?;
        Ok(Response::new(PauseWorkflowExecutionResponse {}))
    }

    pub(super) async fn unpause_workflow(
        &self,
        request: Request<UnpauseWorkflowExecutionRequest>,
    ) -> Result<Response<UnpauseWorkflowExecutionResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let target = edge::target_of(&namespace, &r.workflow_id, &r.run_id)?;
        let unpause = UnpauseWorkflow {
            identity: r.identity,
            reason: r.reason,
            request_id: r.request_id,
        };
        self.ask(target, Ask::Unpause(unpause)).await?;
        Ok(Response::new(UnpauseWorkflowExecutionResponse {}))
    }

    pub(super) async fn pause_activities(
        &self,
        request: Request<PauseActivityRequest>,
    ) -> Result<Response<PauseActivityResponse>, Status> {
        use pause_activity_request::Activity;
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let pause = PauseActivity {
            choice: match r.activity {
                Some(Activity::Id(id)) => ActivityChoice::Id(id),
                Some(Activity::Type(name)) => ActivityChoice::Type(name),
                None => return Err(nobody()),
            },
            identity: r.identity,
            reason: r.reason,
            request_id: r.request_id,
        };
        let target = edge::target(&namespace, r.execution.as_ref())?;
        self.ask(target, Ask::PauseActivity(pause)).await?;
        Ok(Response::new(PauseActivityResponse {}))
    }

    pub(super) async fn pause_one_activity(
        &self,
        request: Request<PauseActivityExecutionRequest>,
    ) -> Result<Response<PauseActivityExecutionResponse>, Status> {
        let r = request.get_ref();
        let target = self.owner(&request, &r.namespace, &r.workflow_id, &r.run_id)?;
        let r = request.into_inner();
        let pause = PauseActivity {
            choice: ActivityChoice::Id(r.activity_id),
            identity: r.identity,
            reason: r.reason,
            request_id: r.request_id,
        };
        self.ask(target, Ask::PauseActivity(pause)).await?;
        Ok(Response::new(PauseActivityExecutionResponse {}))
    }

    pub(super) async fn unpause_activities(
        &self,
        request: Request<UnpauseActivityRequest>,
    ) -> Result<Response<UnpauseActivityResponse>, Status> {
        use unpause_activity_request::Activity;
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let unpause = UnpauseActivity {
            choice: match r.activity {
                Some(Activity::Id(id)) => ActivityChoice::Id(id),
                Some(Activity::Type(name)) => ActivityChoice::Type(name),
                Some(Activity::UnpauseAll(true)) => ActivityChoice::All,
                Some(Activity::UnpauseAll(false)) | None => return Err(nobody()),
            },
            identity: r.identity,
            reset_attempts: r.reset_attempts,
            reset_heartbeat: r.reset_heartbeat,
            delay: self.jittered(r.jitter.as_ref())?,
        };
        let target = edge::target(&namespace, r.execution.as_ref())?;
        self.ask(target, Ask::UnpauseActivity(unpause)).await?;
        Ok(Response::new(UnpauseActivityResponse {}))
    }

    pub(super) async fn unpause_one_activity(
        &self,
        request: Request<UnpauseActivityExecutionRequest>,
    ) -> Result<Response<UnpauseActivityExecutionResponse>, Status> {
        let r = request.get_ref();
        let target = self.owner(&request, &r.namespace, &r.workflow_id, &r.run_id)?;
        let r = request.into_inner();
        let unpause = UnpauseActivity {
            choice: ActivityChoice::Id(r.activity_id),
            identity: r.identity,
            reset_attempts: false,
            reset_heartbeat: false,
            delay: self.jittered(r.jitter.as_ref())?,
        };
        self.ask(target, Ask::UnpauseActivity(unpause)).await?;
        Ok(Response::new(UnpauseActivityExecutionResponse {}))
    }

    pub(super) async fn reset_activities(
        &self,
        request: Request<ResetActivityRequest>,
    ) -> Result<Response<ResetActivityResponse>, Status> {
        use reset_activity_request::Activity;
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let reset = ResetActivity {
            choice: match r.activity {
                Some(Activity::Id(id)) => ActivityChoice::Id(id),
                Some(Activity::Type(name)) => ActivityChoice::Type(name),
                Some(Activity::MatchAll(true)) => ActivityChoice::All,
                Some(Activity::MatchAll(false)) | None => return Err(nobody()),
            },
            identity: r.identity,
            reset_heartbeat: r.reset_heartbeat,
            keep_paused: r.keep_paused,
            restore_options: r.restore_original_options,
            delay: self.jittered(r.jitter.as_ref())?,
        };
        let target = edge::target(&namespace, r.execution.as_ref())?;
        self.ask(target, Ask::ResetActivity(reset)).await?;
        Ok(Response::new(ResetActivityResponse {}))
    }

    pub(super) async fn reset_one_activity(
        &self,
        request: Request<ResetActivityExecutionRequest>,
    ) -> Result<Response<ResetActivityExecutionResponse>, Status> {
        let r = request.get_ref();
        let target = self.owner(&request, &r.namespace, &r.workflow_id, &r.run_id)?;
        let r = request.into_inner();
        let reset = ResetActivity {
            choice: ActivityChoice::Id(r.activity_id),
            identity: r.identity,
            reset_heartbeat: r.reset_heartbeat,
            keep_paused: r.keep_paused,
            restore_options: r.restore_original_options,
            delay: self.jittered(r.jitter.as_ref())?,
        };
        self.ask(target, Ask::ResetActivity(reset)).await?;
        Ok(Response::new(ResetActivityExecutionResponse {}))
    }

    pub(super) async fn update_options_of_activities(
        &self,
        request: Request<UpdateActivityOptionsRequest>,
    ) -> Result<Response<UpdateActivityOptionsResponse>, Status> {
        use update_activity_options_request::Activity;
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let r = request.into_inner();
        let choice = match r.activity {
            Some(Activity::Id(id)) => ActivityChoice::Id(id),
            Some(Activity::Type(name)) => ActivityChoice::Type(name),
            Some(Activity::MatchAll(true)) => ActivityChoice::All,
            Some(Activity::MatchAll(false)) | None => return Err(nobody()),
        };
        let target = edge::target(&namespace, r.execution.as_ref())?;
        let change = change(r.activity_options, r.update_mask, r.restore_original)?;
        let activity_options = self
            .update_options(target, choice, r.identity, change)
            .await?;
        Ok(Response::new(UpdateActivityOptionsResponse {
            activity_options,
        }))
    }

    pub(super) async fn update_options_of_one_activity(
        &self,
        request: Request<UpdateActivityExecutionOptionsRequest>,
    ) -> Result<Response<UpdateActivityExecutionOptionsResponse>, Status> {
        let r = request.get_ref();
        let target = self.owner(&request, &r.namespace, &r.workflow_id, &r.run_id)?;
        let r = request.into_inner();
        let choice = ActivityChoice::Id(r.activity_id);
        let change = change(r.activity_options, r.update_mask, r.restore_original)?;
        let activity_options = self
            .update_options(target, choice, r.identity, change)
            .await?;
        Ok(Response::new(UpdateActivityExecutionOptionsResponse {
            activity_options,
        }))
    }

    async fn update_options(
        &self,
        target: Target,
        choice: ActivityChoice,
        identity: String,
        change: OptionsChange,
    ) -> Result<Option<ActivityOptions>, Status> {
        if let OptionsChange::Fields { options, paths } = &change
            && paths.iter().any(|path| path.starts_with("task_queue"))
        {
            edge::queue(options.task_queue.as_ref())?;
            let state = self.api.handle.state(target.clone()).await;
            if is_builtin(&state.map_err(errors::of_call)?.workflow_type) {
                return Err(Status::invalid_argument(
                    "the tasks of an orchestration stay on the queues of their services: leave the task queue as it is",
                ));
            }
        }
        let update = UpdateActivityOptions {
            choice,
            identity,
            change,
        };
        let ask = Ask::UpdateActivityOptions(Box::new(update));
        match self.ask(target, ask).await?.reply {
            Reply::ActivityOptions(options) => Ok(Some(*options)),
            _ => Ok(None),
        }
    }

    /// The run whose activity a request names.
    fn owner<T>(
        &self,
        request: &Request<T>,
        namespace: &str,
        workflow_id: &str,
        run_id: &str,
    ) -> Result<Target, Status> {
        let namespace = self.namespace(request, namespace)?;
        if workflow_id.is_empty() {
            return Err(Status::unimplemented(
                "activities without a workflow are not served: name the workflow id",
            ));
        }
        edge::target_of(&namespace, workflow_id, run_id)
    }

    /// Nanoseconds, at random below the jitter.
    fn jittered(&self, jitter: Option<&Duration>) -> Result<i64, Status> {
        let jitter = edge::nanos("jitter", jitter)?;
        if jitter == 0 {
            return Ok(0);
        }
        let mut bytes = [0u8; 8];
        self.api.ids.fill(&mut bytes);
        let share = u64::from_be_bytes(bytes) % jitter.unsigned_abs();
        Ok(i64::try_from(share).unwrap_or(jitter))
    }
}

fn nobody() -> Status {
    Status::invalid_argument("no activity is named: give an id or a type, or ask for all")
}

fn change(
    options: Option<ActivityOptions>,
    mask: Option<FieldMask>,
    restore: bool,
) -> Result<OptionsChange, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    match (restore, options) {
        (true, None) if paths.is_empty() => Ok(OptionsChange::Restore),
        (true, _) => Err(Status::invalid_argument(
            "restoring the original options excludes new ones: ask for one of both",
        )),
        (false, Some(options)) => Ok(OptionsChange::Fields {
            options: Box::new(options),
            paths: paths.iter().map(|path| snake_case(path)).collect(),
        }),
        (false, None) => Err(Status::invalid_argument(
            "activity options are not set: send those that change, and name them in the update mask",
        )),
    }
}

/// A path of a field mask as protobuf's text names it; its JSON names it in camel case.
fn snake_case(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_mask_are_understood() {
        for path in [
            "retry_policy.maximum_attempts",
            "retryPolicy.maximumAttempts",
        ] {
            assert_eq!(snake_case(path), "retry_policy.maximum_attempts");
        }
    }
}
