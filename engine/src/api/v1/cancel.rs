//! `POST /v1/orchestrations/{id}/cancel`: its end is asked for; what was done is undone, unless the caller wants to keep it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::request::{
    Rejection, Request as EngineRequest, RequestCancelWorkflow, SignalWorkflow,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::input::{Acting, Id, Json, bounded, pinned};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use super::show::ExecutionStatus;
use crate::acts::{Act, What};
use crate::api::orra::Api;
use crate::api::orra::submit::view_of;
use crate::engine::handle::CallError;
use crate::orchestration::submission::json_payloads;
use crate::orchestration::{CANCEL_SIGNAL, UNREASONED};
use crate::registry::ids::run_id;

const IDENTITY: &str = "http";
/// Characters of a reason.
const REASON_CHARS_MAX: usize = 1_024;

/// How to end it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cancellation {
    /// Why; services that undo their work and webhooks are told.
    #[serde(default)]
    #[schema(max_length = 1024)]
    reason: Option<String>,
    /// Whether what was done is undone.
    #[serde(default = "yes")]
    compensate: bool,
}

fn yes() -> bool {
    true
}

/// That its end was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancelling {
    /// The orchestration.
    execution_id: String,
    /// How it stands now.
    status: ExecutionStatus,
    /// In words.
    message: String,
}

/// Cancel an orchestration
///
/// Steps that run are told to stop and waited for; then what was done is undone, newest first, unless `compensate` is false.
/// Webhooks are told with the event `orchestration.cancelled`.
#[utoipa::path(
    post, path = "/orchestrations/{id}/cancel", operation_id = "cancelOrchestration", tag = "orchestrations",
    params(("id" = String, Path, description = "The orchestration.")),
    request_body = Cancellation,
    responses(
        (status = 202, description = "Its end was asked for.", body = Cancelling),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is no such orchestration.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "It has ended already.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn cancel(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Id(id): Id,
    Json(cancellation): Json<Cancellation>,
) -> Result<Response, Problem> {
    let reason = cancellation.reason.unwrap_or_default();
    bounded("reason", &reason, REASON_CHARS_MAX)?;
    let reason = match reason.trim() {
        "" => UNREASONED.to_owned(),
        reason => reason.to_owned(),
    };
    let target = pinned(&api, &project, &id)?;
    let (view, _) = view_of(&api, &target)?;
    if view.closed || ExecutionStatus::of(&view.status).is_final() {
        return Err(ended(&id, &view.status));
    }
    // In the batch of the cancel itself: neither is there without the other.
    let act = Act::new(What::OrchestrationCancelled, &id)
        .with("reason", reason.clone())
        .with("compensate", cancellation.compensate);
    let act = api.registrar.acts().record(&project, &actor, act);
    let request_id = run_id(&*api.ids).to_string();
    let identity = IDENTITY.to_owned();
    let request = if cancellation.compensate {
        EngineRequest::RequestCancel(Box::new(RequestCancelWorkflow {
            reason,
            identity,
            request_id,
            ..Default::default()
        }))
    } else {
        EngineRequest::Signal(Box::new(SignalWorkflow {
            name: CANCEL_SIGNAL.to_owned(),
            input: Some(json_payloads(
                &json!({"reason": reason, "compensate": false}),
            )),
            identity,
            request_id,
            ..Default::default()
        }))
    };
    let asked = api.handle.request_with(target.clone(), request, vec![act]);
    match asked.await {
        Ok(_) => {}
        Err(CallError::Rejected(Rejection::Closed)) => return Err(ended(&id, "closed")),
        Err(error) => return Err(super::input::unknown_or(&id, error)),
    }
    tracing::info!(%project, orchestration = %id, compensate = cancellation.compensate, "cancel asked for");
    let (view, _) = view_of(&api, &target)?;
    let message = if cancellation.compensate {
        "its end was asked for; what was done is undone"
    } else {
        "its end was asked for; what was done stays"
    };
    Ok(respond(
        StatusCode::ACCEPTED,
        &Cancelling {
            execution_id: id,
            status: ExecutionStatus::of(&view.status),
            message: message.to_owned(),
        },
    ))
}

fn ended(id: &str, status: &str) -> Problem {
    let detail = format!("orchestration {id} has ended already: it is {status}");
    Problem::new(Code::Conflict, detail).param("id")
}
