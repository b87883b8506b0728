//! `POST /v1/orchestrations/{id}/fork`: the same plan once more, from one step on; what does not depend on it is taken over.
//!
//! ```text
//!  runs anew:   the step, what had not completed, what was undone, and everything that depends on any of these
//!  taken over:  the recorded results of all other steps; no service is asked for them
//! ```
//!
//! What is taken over stays the original's: the fork neither undoes it nor keeps the original from having done so, which is why only an
//! orchestration whose undoing is over can be forked.
//!
//! Invariant: a result is taken over only if what it stands for was not undone.

use std::collections::HashSet;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use orchestrion_history::ids::WorkflowId;
use orchestrion_history::request::Reply;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::input::{Acting, Id, Json, pinned};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use super::show::{ForkedFrom, step_views};
use super::submit::PlanView;
use crate::api::orra::Api;
use crate::api::orra::submission;
use crate::api::orra::submit::{idempotency_key, own_hit, own_plan, start_of, view_of};
use crate::grounding::Asked;
use crate::orchestration::Submission;
use crate::orchestration::submission::{Origin, Rules, TakenOver, json_payloads};
use crate::orchestration::view::{TaskInspection, View};
use crate::plan::reference::{is_task_zero, references};
use crate::plan::{Parameter, Plan};
use crate::registry::ids::{digest, hex, keyed_orchestration_id, orchestration_id, run_id};

/// Where to fork.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fork {
    /// The step from which it runs anew.
    from: String,
    /// Members of that step's input, in place of those it had; literals or references.
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Option<Map<String, Value>>,
}

/// What was forked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forked {
    /// The new orchestration.
    execution_id: String,
    /// Where it comes from.
    forked_from: ForkedFrom,
    /// Steps whose results are taken over.
    taken_over: Vec<String>,
    /// Steps that run.
    to_run: Vec<String>,
    /// The plan, with the changed input.
    plan: PlanView,
}

/// Fork an orchestration
///
/// Starts a new one with the same plan that takes over the recorded results of everything that does not depend on the step, and runs
/// only the rest. Steps that had not completed or were undone run again as well.
#[utoipa::path(
    post, path = "/orchestrations/{id}/fork", operation_id = "forkOrchestration", tag = "orchestrations",
    params(("id" = String, Path, description = "The orchestration."),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes repeats safe: 1 to 255 visible ASCII characters.",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    request_body = Fork,
    responses(
        (status = 202, description = "The fork runs.", body = Forked),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is no such orchestration, or no such step in it.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "It still goes on, or it never had a plan.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "The changed plan is refused.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn fork(
    State(api): State<Api>,
    Acting { project, .. }: Acting,
    Id(id): Id,
    headers: HeaderMap,
    Json(fork): Json<Fork>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let target = pinned(&api, &project, &id)?;
    let run = target.run_id.map(|run| run.to_string()).unwrap_or_default();
    let (view, _) = view_of(&api, &target)?;
    let (Some(plan), Some(original)) = (&view.plan, &view.submission) else {
        let detail = format!("orchestration {id} never had a plan: there is nothing to fork");
        return Err(Problem::new(Code::Conflict, detail).param("id"));
    };
    if !view.closed {
        let detail = format!(
            "orchestration {id} still goes on ({}): wait for its end, or cancel it first",
            view.status
        );
        return Err(Problem::new(Code::Conflict, detail).param("id"));
    }
    if !plan.tasks.iter().any(|task| task.id == fork.from) {
        let known: Vec<&str> = plan.tasks.iter().map(|task| task.id.as_str()).collect();
        let detail = format!(
            "orchestration {id} has no step {:?}: it has {}",
            fork.from,
            known.join(", ")
        );
        return Err(Problem::new(Code::NotFound, detail).param("from"));
    }
    let tasks = view.inspection(api.clock.now()).tasks.unwrap_or_default();
    let services = api.registrar.registry().services(&project);
    let (draft, data) = changed(plan, &original.data, &fork);
    // The rules that hold now: a fork is no way around them.
    let asked = Asked {
        action: &original.action.content,
        data: &original.data,
    };
    let hit = own_hit(&api, &project, asked, &services).await?;
    let plan = own_plan(&draft, &services, &data, hit.as_ref())?;
    let taken_over = taken_over(&plan, &tasks, &fork.from);
    let given = json!({"fork": fork, "of": run}).to_string();
    let request = submission::Request {
        digest: hex(&digest("fork", &[given.as_bytes()])),
        ..submission::parse(
            &json!({"action": original.action}).to_string(),
            &original.options,
        )?
    };
    let new_id = key.as_ref().map_or_else(
        || orchestration_id(&*api.ids),
        |key| keyed_orchestration_id(project.as_str(), key),
    );
    let request_id = key.clone().unwrap_or_else(|| run_id(&*api.ids).to_string());
    let mut start = start_of(
        &new_id,
        key.is_some(),
        request_id,
        &request,
        Some(plan.clone()),
    );
    start.input = Some(json_payloads(&Submission {
        action: original.action.clone(),
        data,
        plan: Some(plan.clone()),
        options: original.options.clone(),
        rules: Rules::NEWEST,
        taken_over: taken_over.clone(),
        forked_from: Some(Origin {
            orchestration: id.clone(),
            run_id: run,
            task: fork.from.clone(),
        }),
        ..Submission::default()
    }));
    let accepted = api.handle.start(project.clone(), start).await?;
    if accepted.reply == Reply::Repeated {
        let workflow_id = WorkflowId::parse(&new_id).map_err(|e| Problem::internal(&e))?;
        let first = crate::engine::handle::Target {
            namespace: project.clone(),
            workflow_id,
            run_id: Some(accepted.run_id),
        };
        if !is_same(&view_of(&api, &first)?.0, &id, &fork.from, &plan) {
            return Err(Problem::new(
                Code::IdempotencyKeyReused,
                "the idempotency key was used for another request: use a new key for a new one",
            )
            .param("Idempotency-Key"));
        }
    }
    tracing::info!(%project, orchestration = %new_id, of = %id, from = %fork.from, "forked");
    let over: Vec<String> = taken_over.into_iter().map(|result| result.task).collect();
    let to_run = plan.tasks.iter().map(|task| task.id.clone());
    Ok(respond(
        StatusCode::ACCEPTED,
        &Forked {
            execution_id: new_id,
            forked_from: ForkedFrom {
                execution_id: id,
                step: fork.from,
            },
            to_run: to_run.filter(|task| !over.contains(task)).collect(),
            taken_over: over,
            plan: step_views(&plan, &services),
        },
    ))
}

/// Whether what an idempotency key stands for is this very fork.
fn is_same(first: &View, of: &str, from: &str, plan: &Plan) -> bool {
    let origin = first
        .submission
        .as_ref()
        .and_then(|submission| submission.forked_from.as_ref());
    origin.is_some_and(|origin| origin.orchestration == of && origin.task == from)
        && first.plan.as_ref() == Some(plan)
}

/// The plan as a draft with the changed input, and the parameters it still uses: the others would be objected to.
fn changed(plan: &Plan, data: &[Parameter], fork: &Fork) -> (Value, Vec<Parameter>) {
    let mut used = HashSet::new();
    let tasks: Vec<Value> = plan
        .tasks
        .iter()
        .map(|task| {
            let mut input = task.input.clone();
            if task.id == fork.from {
                input.extend(fork.input.clone().unwrap_or_default());
            }
            for found in references(&input, &is_task_zero) {
                if let Some(crate::plan::reference::Segment::Field(name)) =
                    found.reference.path.first()
                {
                    used.insert(name.clone());
                }
            }
            json!({"id": task.id, "service": task.service, "input": input, "after": task.depends_on})
        })
        .collect();
    let data: Vec<Parameter> = data
        .iter()
        .filter(|parameter| used.contains(&parameter.field))
        .cloned()
        .collect();
    let constants: Map<String, Value> = plan
        .task_zero
        .iter()
        .filter(|(name, _)| used.contains(*name) && !data.iter().any(|p| p.field == **name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (json!({"task_zero": constants, "tasks": tasks}), data)
}

/// The results of the steps that need not run.
fn taken_over(plan: &Plan, tasks: &[TaskInspection], from: &str) -> Vec<TakenOver> {
    let result_of = |id: &str| {
        let task = tasks.iter().find(|task| task.id == id)?;
        let stands = task.status == "completed" && task.compensation.is_none();
        task.output.clone().filter(|_| stands)
    };
    let mut anew: HashSet<&str> = plan
        .tasks
        .iter()
        .map(|task| task.id.as_str())
        .filter(|id| *id == from || result_of(id).is_none())
        .collect();
    // What depends on a step that runs anew runs anew; as often as that finds another one.
    loop {
        let more: Vec<&str> = plan
            .tasks
            .iter()
            .filter(|task| !anew.contains(task.id.as_str()))
            .filter(|task| task.depends_on.iter().any(|id| anew.contains(id.as_str())))
            .map(|task| task.id.as_str())
            .collect();
        if more.is_empty() {
            break;
        }
        anew.extend(more);
    }
    let over = plan
        .tasks
        .iter()
        .filter(|task| !anew.contains(task.id.as_str()));
    over.filter_map(|task| {
        Some(TakenOver {
            task: task.id.clone(),
            output: result_of(&task.id)?,
        })
    })
    .collect()
}
