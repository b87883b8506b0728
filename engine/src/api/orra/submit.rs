//! `POST /orchestrations`: an action goes in, and a plan comes back, or the reason why there is none.
//!
//! ```text
//!  own plan   --validate--> refused, no trace | started --> 202
//!  no plan    --started--> planning (an activity) --> 202 with the plan | 400 not actionable | 500 cannot be planned
//!  a repeat of an Idempotency-Key --> the same orchestration, whatever became of it
//!  Prefer: wait=SECONDS --> the answer comes with the end, or as it stands when the time is over
//! ```
//!
//! Invariant: once started, a run goes on whether or not its submitter still waits.
//! Invariant: a key answers for one submission only; another body under the same key is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use orchestrion_history::ids::{Namespace, WorkflowId};
use orchestrion_history::record::Record;
use orchestrion_history::request::{Reply, StartWorkflow};
use orchestrion_proto::temporal::api::common::v1::Memo;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, Kind, code};
use super::submission::{Request, parse};
use super::webhooks::webhook_url;
use super::{Api, respond};
use crate::acts::Actor;
use crate::config::duration;
use crate::engine::handle::{CallError, Target};
use crate::grounding::{Applied, Asked, Hit, UseCase};
use crate::orchestration::effect::rfc3339;
use crate::orchestration::submission::{Rules, json_payload, json_payloads};
use crate::orchestration::view::View;
use crate::orchestration::{
    Action, GROUNDING_MEMO, Submission, UNKEYED_MEMO, WORKFLOW_QUEUE, WORKFLOW_TYPE,
};
use crate::plan::draft::{Parsed, parse_submission};
use crate::plan::{Parameter, Plan, Service, describe, validate_under};
use crate::planner::PlanError;
use crate::registry::ids::{keyed_orchestration_id, orchestration_id, run_id};
use crate::seams;

const IDEMPOTENCY_HEADER: &str = "idempotency-key";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
const IDENTITY: &str = "http";
/// The memo field by which a repeated key is told from a reused one.
const DIGEST_MEMO: &str = "submission_digest";
const PENDING: &str = "pending";
const PREFER_HEADER: &str = "prefer";

/// Takes a submission.
pub async fn submit(
    State(api): State<Api>,
    Caller { project, actor }: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let request = parse(body.as_str(), &api.settings.options())?;
    let taken = take(&api, &project, &actor, &headers, &request).await?;
    answer(
        &project,
        &request,
        &taken.view,
        taken.repeated,
        taken.waited,
        &taken.services,
    )
}

/// A submission that was started, now or by the first use of its key, and has come as far as its plan.
pub(crate) struct Taken {
    /// As it stands.
    pub view: View,
    /// Whether the key had been used before.
    pub repeated: bool,
    /// Whether its end was waited for.
    pub waited: bool,
    /// The services it was judged by.
    pub services: Arc<[Service]>,
}

/// Takes a parsed submission of any wire.
pub(crate) async fn take(
    api: &Api,
    project: &Namespace,
    actor: &Actor,
    headers: &HeaderMap,
    request: &Request,
) -> Result<Taken, ApiError> {
    let key = idempotency_key(headers)?;
    if let Some(url) = &request.webhook {
        webhook_url(url, &api.settings).map_err(|e| e.param("webhook"))?;
    }
    let services = api.registrar.registry().services(project);
    let id = key.as_ref().map_or_else(
        || orchestration_id(&*api.ids),
        |key| keyed_orchestration_id(project.as_str(), key),
    );
    let workflow_id = WorkflowId::parse(&id).map_err(|e| ApiError::internal(&e))?;
    let (plan, hit) = match judge(api, project, request, &services).await {
        Ok(judged) => judged,
        // A repeat is not refused for what was right before: services may have changed since.
        Err(_) if key.is_some() && api.handle.current_run(project, &workflow_id)?.is_some() => {
            (None, None)
        }
        Err(refused) => return Err(refused),
    };
    if request.webhook.is_some() {
        // Before the start: what ends at once is told as well.
        api.registrar.submission_signer(project, actor).await?;
    }
    let request_id = key.clone().unwrap_or_else(|| run_id(&*api.ids).to_string());
    let mut start = start_of(&id, key.is_some(), request_id, request, plan);
    if let (Some(hit), Some(memo)) = (&hit, &mut start.memo) {
        let applied = json_payload(&hit.applied());
        memo.fields.insert(GROUNDING_MEMO.to_owned(), applied);
    }
    let accepted = api.handle.start(project.clone(), start).await?;
    let target = Target {
        namespace: project.clone(),
        workflow_id,
        run_id: Some(accepted.run_id),
    };
    let repeated = accepted.reply == Reply::Repeated;
    tracing::info!(%project, orchestration = %id, repeated, "action submitted");
    if let (true, Some(key)) = (repeated, &key)
        && digest_of(api, &target)?.is_some_and(|digest| digest != request.digest)
    {
        let message = format!(
            "the idempotency key {key:?} was used for another submission: use a new key for a new one"
        );
        return Err(ApiError::new(Kind::InvalidRequest, message).param("Idempotency-Key"));
    }
    let wait = preferred_wait(headers);
    let ended = async |wait: Duration| {
        let wait = wait.min(api.settings.http.submit_wait);
        ended(api, &target, wait).await
    };
    let view = match wait {
        None => planned(api, &target).await?,
        // Its plan is there.
        Some(wait) if request.plan.is_some() => ended(wait).await?,
        Some(wait) => match planned(api, &target).await? {
            view if view.closed => view,
            _ => ended(wait).await?,
        },
    };
    Ok(Taken {
        view,
        repeated,
        waited: wait.is_some(),
        services,
    })
}

/// The caller's own plan, if there is one, and the use case that it was judged under.
async fn judge(
    api: &Api,
    project: &Namespace,
    request: &Request,
    services: &[Service],
) -> Result<(Option<Plan>, Option<Hit>), ApiError> {
    let Some(draft) = &request.plan else {
        return Ok((None, None));
    };
    let hit = own_hit(api, project, request.asked(), services).await?;
    let data = request.data.as_deref().unwrap_or_default();
    let plan = own_plan(draft, services, data, hit.as_ref())?;
    Ok((Some(plan), hit))
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .map(str::trim)
        .filter(|key| !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        let message = format!("the Idempotency-Key header must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ascii characters");
        ApiError::new(Kind::InvalidRequest, message).param("Idempotency-Key")
    })
}

/// The use case that the action of a plan of the caller's own is: the groundings hold for those as well.
pub(crate) async fn own_hit(
    api: &Api,
    project: &Namespace,
    asked: Asked<'_>,
    services: &[Service],
) -> Result<Option<Hit>, ApiError> {
    let groundings = api.registrar.registry().groundings(project);
    let hit = api.desk.hit(&groundings, asked, services).await;
    hit.map_err(|error| {
        let kind = match &error {
            PlanError::Unavailable(_) => Kind::Unavailable,
            _ => Kind::InvalidRequest,
        };
        ApiError::new(kind, error.to_string())
            .code(code::CANNOT_EXECUTE)
            .param("action")
    })
}

/// The caller's own plan, validated like any other. Whatever is wrong with it is said at once.
pub(crate) fn own_plan(
    draft: &Value,
    services: &[Service],
    data: &[Parameter],
    hit: Option<&Hit>,
) -> Result<Plan, ApiError> {
    let refused = |reasons: String| {
        let message = format!("the plan is refused:\n{reasons}");
        ApiError::new(Kind::InvalidRequest, message)
            .code(code::CANNOT_EXECUTE)
            .param("plan")
    };
    match parse_submission(draft).map_err(|e| refused(e.to_string()))? {
        Parsed::Draft(draft) => validate_under(&draft, services, data, hit.map(|hit| &hit.ruling))
            .map_err(|reasons| refused(describe(&reasons))),
        Parsed::NotActionable(reason) => Err(ApiError::new(
            Kind::InvalidRequest,
            format!("preparation failed with status not_actionable: {reason}"),
        )
        .code(code::NOT_ACTIONABLE)),
    }
}

pub(crate) fn start_of(
    id: &str,
    keyed: bool,
    request_id: String,
    request: &Request,
    plan: Option<Plan>,
) -> StartWorkflow {
    let status = if plan.is_some() {
        "processing"
    } else {
        PENDING
    };
    let mut memo = HashMap::from([
        ("action".to_owned(), json_payload(&request.action.content)),
        ("status".to_owned(), json_payload(status)),
        (DIGEST_MEMO.to_owned(), json_payload(&request.digest)),
    ]);
    if !keyed {
        memo.insert(UNKEYED_MEMO.to_owned(), json_payload(&true));
    }
    let submission = Submission {
        action: request.action.clone(),
        data: request.data.clone().unwrap_or_default(),
        plan,
        options: request.options.clone(),
        webhook: request.webhook.clone(),
        rules: Rules::NEWEST,
        taken_over: Vec::new(),
        forked_from: None,
    };
    StartWorkflow {
        workflow_id: id.to_owned(),
        workflow_type: WORKFLOW_TYPE.to_owned(),
        task_queue: WORKFLOW_QUEUE.to_owned(),
        input: Some(json_payloads(&submission)),
        memo: Some(Memo { fields: memo }),
        request_id,
        identity: IDENTITY.to_owned(),
        ..StartWorkflow::default()
    }
}

/// Waits until there is a plan, or none to be had. A planner that takes too long is not waited for, nor is one of an engine that stops.
async fn planned(api: &Api, target: &Target) -> Result<View, ApiError> {
    let mut stop = api.stop.clone();
    let wait = async {
        loop {
            let (view, records) = view_of(api, target)?;
            if view.plan.is_some() || view.closed || view.status != PENDING {
                return Ok(view);
            }
            api.handle.watch(target.clone(), records).await?;
        }
    };
    tokio::select! {
        view = wait => view,
        () = seams::sleep(api.settings.http.submit_wait) => Ok(view_of(api, target)?.0),
        _ = stop.wait_for(|stopped| *stopped) => Err(CallError::ShuttingDown.into()),
    }
}

/// `Prefer: wait=SECONDS` (RFC 7240): the caller would rather have the end than an early answer.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers
        .get_all(PREFER_HEADER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']));
    preferences
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok())
        .map(Duration::from_secs)
}

/// Waits until nothing of the orchestration goes on any more, at most for so long; then as it stands.
async fn ended(api: &Api, target: &Target, wait: Duration) -> Result<View, ApiError> {
    let mut stop = api.stop.clone();
    let progress = tokio::select! {
        progress = api.handle.watch(target.clone(), u64::MAX) => Some(progress?),
        () = seams::sleep(wait) => None,
        _ = stop.wait_for(|stopped| *stopped) => return Err(CallError::ShuttingDown.into()),
    };
    let tail = progress.and_then(|progress| progress.tail);
    let records = tail.and_then(|tail| tail.records());
    match records.and_then(|records| View::fold(&records)) {
        Some(view) => Ok(view),
        None => Ok(view_of(api, target)?.0),
    }
}

/// An orchestration as it stands, and how many records say so.
pub(crate) fn view_of(api: &Api, target: &Target) -> Result<(View, u64), ApiError> {
    let id = target.workflow_id.as_str();
    let run = api
        .handle
        .journal(target)?
        .ok_or_else(|| ApiError::unknown_orchestration(id))?;
    let view = View::fold(&run.records)
        .ok_or_else(|| ApiError::internal(&format!("the journal of {id} has no beginning")))?;
    Ok((view, run.records.len() as u64))
}

/// What the first one to use a key submitted.
fn digest_of(api: &Api, target: &Target) -> Result<Option<String>, ApiError> {
    let run = api.handle.journal(target)?;
    let mut events = run
        .iter()
        .flat_map(|run| &run.records)
        .filter_map(Record::event);
    let memo = events.find_map(|event| match &event.attributes {
        Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => started.memo.as_ref(),
        _ => None,
    });
    let digest = memo.and_then(|memo| memo.fields.get(DIGEST_MEMO));
    Ok(digest.and_then(|payload| serde_json::from_slice(&payload.data).ok()))
}

fn answer(
    project: &Namespace,
    request: &Request,
    view: &View,
    repeated: bool,
    waited: bool,
    services: &[Service],
) -> Result<Response, ApiError> {
    // A failed planning says why in a string, a failed task in an object: that one had a plan.
    match (view.status.as_str(), &view.error) {
        ("not_actionable", error) => {
            let message = error.as_ref().map_or_else(String::new, text_of);
            return Err(ApiError::new(Kind::InvalidRequest, message).code(code::NOT_ACTIONABLE));
        }
        ("failed", Some(Value::String(message))) => {
            return Err(
                ApiError::new(Kind::Unanticipated, message.clone()).code(code::CANNOT_EXECUTE)
            );
        }
        (_, _) if view.plan.is_none() && view.closed => {
            let message = "the orchestration was ended while it was planned";
            return Err(ApiError::new(Kind::Unanticipated, message).code(code::CANNOT_EXECUTE));
        }
        _ => {}
    }
    let body = OrchestrationJson {
        id: &view.id,
        project_id: project.as_str(),
        action: &request.action,
        data: request.data.as_deref(),
        plan: view.plan.as_ref().map(|plan| PlanJson::of(plan, services)),
        results: view.results.as_deref().filter(|_| waited),
        error: view.error.as_ref().filter(|_| waited),
        // orra's clients know a new one as pending, whatever became of it since; who waited for its end is told.
        status: if repeated || waited {
            &view.status
        } else {
            PENDING
        },
        timestamp: rfc3339(view.started_at),
        timeout: request.timeout.map(duration::format),
        health_check_grace_period: request.grace_period.map(duration::format),
        task_zero: view.plan.as_ref().map(|plan| &plan.task_zero),
        grounding_hit: view.grounding.as_ref().map(GroundingHitJson::of),
        webhook: request.webhook.as_deref(),
    };
    Ok(respond(StatusCode::ACCEPTED, &body))
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrchestrationJson<'a> {
    id: &'a str,
    #[serde(rename = "projectID")]
    project_id: &'a str,
    action: &'a Action,
    data: Option<&'a [Parameter]>,
    plan: Option<PlanJson<'a>>,
    results: Option<&'a [Value]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Value>,
    status: &'a str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check_grace_period: Option<String>,
    task_zero: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grounding_hit: Option<GroundingHitJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<&'a str>,
}

/// The grounding a plan was made under, as orra's clients know it: `useCases` is one of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroundingHitJson<'a> {
    name: &'a str,
    domain: &'a str,
    version: &'a str,
    use_cases: &'a UseCase,
    constraints: &'a [String],
}

impl<'a> GroundingHitJson<'a> {
    fn of(applied: &'a Applied) -> Self {
        Self {
            name: &applied.name,
            domain: &applied.domain,
            version: &applied.version,
            use_cases: &applied.use_case,
            constraints: &applied.constraints,
        }
    }
}

#[derive(Serialize)]
struct PlanJson<'a> {
    tasks: Vec<TaskJson<'a>>,
    parallel_groups: &'a [Vec<String>],
}

#[derive(Serialize)]
struct TaskJson<'a> {
    id: &'a str,
    service: &'a str,
    input: &'a Map<String, Value>,
    service_name: &'a str,
    capabilities: Vec<&'a str>,
    expected_input: Option<&'a Value>,
    expected_output: Option<&'a Value>,
}

impl<'a> PlanJson<'a> {
    fn of(plan: &'a Plan, services: &'a [Service]) -> Self {
        let tasks = plan.tasks.iter().map(|task| {
            let service = services.iter().find(|service| service.id == task.service);
            TaskJson {
                id: &task.id,
                service: &task.service,
                input: &task.input,
                service_name: &task.service_name,
                capabilities: service
                    .map(|service| service.description.as_str())
                    .into_iter()
                    .collect(),
                expected_input: service.map(|service| &*service.input_schema),
                expected_output: service.map(|service| &service.output_schema),
            }
        });
        Self {
            tasks: tasks.collect(),
            parallel_groups: &plan.parallel_groups,
        }
    }
}
