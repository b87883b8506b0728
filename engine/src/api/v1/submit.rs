//! `POST /v1/orchestrations`: an action goes in; what comes back is its plan, and when it may be done.
//!
//! Invariant: the body is parsed strictly here and then taken by the same code as orra's wire: one way in, two spellings.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::input::{Acting, Json, bounded, object, object_or_null, objects_or_null, whole_or_null};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use super::show::{ExecutionStatus, step_views};
use super::steps::{NewPlan, draft_of};
use crate::api::orra::Api;
use crate::api::orra::submission;
use crate::api::orra::submit::{Taken, take};
use crate::orchestration::view::View;
use crate::registry::Topic;

/// Characters of an action's text: below what the parser of submissions takes in bytes.
const ACTION_CHARS_MAX: usize = 65_536;

/// A submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewOrchestration {
    /// What is wanted.
    #[serde(deserialize_with = "object")]
    pub action: NewAction,
    /// Values that the action is about. Each field once.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "objects_or_null"
    )]
    #[schema(max_items = 1000)]
    pub data: Option<Vec<NewParameter>>,
    /// A plan to follow; without one the planner makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<NewPlan>)]
    pub plan: Option<Value>,
    /// How long one attempt of a task may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Span>)]
    pub timeout: Option<Span>,
    /// How long a task waits for a service that is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Span>)]
    pub health_check_grace_period: Option<Span>,
    /// Where this one's end is told, beside the project's webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048)]
    pub webhook: Option<String>,
    /// How patient to be otherwise.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "object_or_null"
    )]
    pub options: Option<NewOptions>,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAction {
    /// In plain language.
    #[schema(max_length = 65536)]
    pub content: String,
    /// Free text.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// One value of a submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewParameter {
    /// Its name.
    pub field: String,
    /// Any JSON.
    pub value: Value,
}

/// How patient to be. What is not given is as the server is set up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NewOptions {
    /// Attempts of a task.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_or_null"
    )]
    #[schema(minimum = 1, maximum = 1000000)]
    pub task_attempts: Option<u32>,
    /// The wait before the second attempt of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Span>)]
    pub retry_initial: Option<Span>,
    /// The longest wait between two attempts of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Span>)]
    pub retry_max: Option<Span>,
    /// The factor of each further wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub retry_factor: Option<f64>,
    /// Attempts of a revert.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_or_null"
    )]
    #[schema(minimum = 1, maximum = 1000000)]
    pub compensation_attempts: Option<u32>,
    /// How long one attempt of a revert may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Span>)]
    pub compensation_timeout: Option<Span>,
    /// Attempts of the planning.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "whole_or_null"
    )]
    #[schema(minimum = 1, maximum = 1000000)]
    pub planning_attempts: Option<u32>,
    /// How long one attempt of the planning may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Span>)]
    pub planning_timeout: Option<Span>,
}

/// A length of time: a number and `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(String);

impl Span {
    /// The length of time.
    pub fn duration(&self) -> Option<std::time::Duration> {
        crate::config::duration::parse(&self.0)
    }
}

impl utoipa::PartialSchema for Span {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[0-9]{1,6}(ms|s|m|h)$"))
            .description(Some(
                "A length of time: a number and `ms`, `s`, `m` or `h`, such as `45s`.",
            ))
            .into()
    }
}

impl ToSchema for Span {
    fn name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if matches!(digits, 1..=6) && matches!(&text[digits..], "ms" | "s" | "m" | "h") {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is no length of time: give a number of at most six digits and ms, s, m or h, such as 45s"
            ))
        }
    }
}

/// What was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// That it was.
    pub status: AcceptedStatus,
    /// The orchestration.
    pub execution_id: String,
    /// How it stands: another one than `PENDING` and `PROCESSING` where an idempotency key was used again.
    pub state: ExecutionStatus,
    /// In words.
    pub message: String,
    /// Who is told of its end.
    pub result_target: ResultTarget,
    /// What will be done; null while it is still being planned.
    pub plan: Option<PlanView>,
    /// When it may be done, judged by how long its services took before; null where that is not known.
    #[schema(format = DateTime)]
    pub estimated_completion_time: Option<String>,
}

/// That a submission was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub enum AcceptedStatus {
    /// It is durable, and will be carried out.
    #[serde(rename = "ACCEPTED")]
    Accepted,
}

/// Who is told of an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ResultTarget {
    /// The first webhook that is told, if there is one.
    pub webhook: Option<String>,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// In plan order.
    pub steps: Vec<StepView>,
    /// Ids of steps that may run at the same time, group after group.
    pub parallel_execution_groups: Vec<Vec<String>>,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Unique in the plan.
    pub id: String,
    /// The name of its service.
    pub component: String,
    /// The id of its service.
    pub component_id: String,
    /// What the service does, in its own words.
    pub action: String,
    /// Constants filled in; what other steps return is written `$step.member`.
    #[schema(value_type = Object)]
    pub input: Map<String, Value>,
    /// The JSON Schema of what the service returns.
    pub expected_output: Option<Value>,
    /// Steps that run before it.
    pub dependencies: Vec<String>,
}

/// Submit an action
///
/// Answers when there is a plan. With an `Idempotency-Key` a repeat of the same submission finds the same orchestration.
#[utoipa::path(
    post, path = "/orchestrations", operation_id = "submitOrchestration", tag = "orchestrations",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeats safe: 1 to 255 visible ASCII characters.",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body = NewOrchestration,
    responses(
        (status = 202, description = "It is durable and will be carried out.", body = Accepted),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "The plan is refused, the action cannot be done, or the key was used for another submission.",
         body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn submit(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    headers: HeaderMap,
    Json(new): Json<NewOrchestration>,
) -> Result<Response, Problem> {
    let request = parsed(&api, new)?;
    let taken = take(&api, &project, &actor, &headers, &request).await?;
    refuse_unplanned(&taken.view)?;
    let now = api.clock.now();
    let estimate = match &taken.view.plan {
        Some(plan) if !taken.view.closed => api
            .durations
            .estimate(&api.handle, &project, plan)?
            .map(|rest| now.plus(rest)),
        _ => None,
    };
    let webhooks = api
        .registrar
        .registry()
        .webhooks(&project, Topic::Orchestration);
    let first = webhooks.first().map(|hook| hook.url.clone());
    let webhook = request.webhook.clone().or(first);
    Ok(respond(
        StatusCode::ACCEPTED,
        &accepted(&taken, webhook, estimate),
    ))
}

/// The submission as orra's wire spells it, parsed by the one parser there is.
pub fn parsed(api: &Api, new: NewOrchestration) -> Result<submission::Request, Problem> {
    bounded("action", &new.action.content, ACTION_CHARS_MAX)?;
    let plan = new
        .plan
        .as_ref()
        .map(|plan| draft_of(plan, &new.action.content))
        .transpose()?;
    let body = json!(NewOrchestration { plan, ..new }).to_string();
    Ok(submission::parse(&body, &api.settings.options())?)
}

/// A planning that came to nothing is an orchestration, stored and listed; its submitter is told at once.
pub fn refuse_unplanned(view: &View) -> Result<(), Problem> {
    let text = || match &view.error {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "no reason was given".to_owned(),
    };
    match (view.status.as_str(), &view.error) {
        ("not_actionable", _) => Err(Problem::new(Code::NotActionable, text()).param("action")),
        ("failed", Some(Value::String(_))) => Err(Problem::new(Code::PlanningFailed, text())),
        _ if view.plan.is_none() && view.closed => Err(Problem::new(
            Code::PlanningFailed,
            "the orchestration was ended while it was planned",
        )),
        _ => Ok(()),
    }
}

fn accepted(
    taken: &Taken,
    webhook: Option<String>,
    estimate: Option<orchestrion_history::ids::Timestamp>,
) -> Accepted {
    let view = &taken.view;
    let message = match (taken.repeated, &view.plan) {
        (true, _) => "this submission was accepted before: it is the same orchestration".to_owned(),
        (false, Some(plan)) => format!(
            "accepted: {} to be carried out",
            match plan.tasks.len() {
                1 => "one step is".to_owned(),
                steps => format!("{steps} steps are"),
            }
        ),
        (false, None) => "accepted: it is still being planned".to_owned(),
    };
    Accepted {
        status: AcceptedStatus::Accepted,
        execution_id: view.id.clone(),
        state: ExecutionStatus::of(&view.status),
        message,
        result_target: ResultTarget { webhook },
        plan: view
            .plan
            .as_ref()
            .map(|plan| step_views(plan, &taken.services)),
        estimated_completion_time: estimate.map(crate::orchestration::effect::rfc3339),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<NewOrchestration, String> {
        serde_json::from_value(body).map_err(|e| e.to_string())
    }

    #[test]
    fn a_body_has_the_members_it_should_and_no_others() {
        let whole = json!({
            "action": {"content": "Order one lamp"}, "data": [{"field": "sku", "value": "lamp"}], "timeout": "45s",
            "healthCheckGracePeriod": "10m", "options": {"taskAttempts": 2, "retryInitial": "250ms"},
        });
        assert!(read(whole).is_ok());
        for wrong in [
            json!({}),
            json!({"action": "Order"}),
            json!({"action": {"Content": "x"}}),
            json!({"action": {"content": "x"}, "surprise": 1}),
            json!({"action": {"content": "x"}, "timeout": "1 hour"}),
            json!({"action": {"content": "x"}, "timeout": 5}),
            json!({"action": {"content": "x"}, "options": {"tries": 5}}),
            json!({"action": {"content": "x"}, "data": [{"value": 1}]}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_given_is_not_spelled_out() {
        let new = read(json!({"action": {"content": "x"}})).unwrap();
        assert_eq!(json!(new), json!({"action": {"content": "x"}}));
    }
}
