//! Callers: they start scripts and orchestrations, signal, cancel, terminate, reset, update and ask, and repeat themselves when they heard nothing.

use orchestrion::engine::polling::{QueryOutcome, UpdateStage};
use orchestrion::engine::{Accepted, CallError, Target};
use orchestrion::orchestration::submission::json_payloads;
use orchestrion::orchestration::{
    Action, Options, Rules, Submission, WORKFLOW_QUEUE, WORKFLOW_TYPE,
};
use orchestrion::plan::{self, draft};
use orchestrion_history::ids::{Namespace, RunId, WorkflowId};
use orchestrion_history::request::{
    Reply, Request, RequestCancelWorkflow, ResetWorkflow, SignalWorkflow, StartWorkflow,
    TerminateWorkflow,
};
use orchestrion_proto::temporal::api::enums::v1::{
    WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use orchestrion_proto::temporal::api::query::v1::WorkflowQuery;
use orchestrion_proto::temporal::api::update::v1::{Input, Meta, Request as UpdateRequest};
use serde_json::json;

use super::ledger::Wanted;
use super::planners;
use super::script::{self, Placed, Script};
use super::shared::{Missed, Tenant, World};
use super::workers::note;

/// Executions that callers of one world start.
const EXECUTIONS_MAX: usize = 14;
/// How often somebody who heard nothing asks again.
const REPEATS_MAX: u32 = 3;

/// The time limits of orchestrations here: short, so that they are met.
fn options() -> Options {
    Options {
        task_timeout_ms: 5_000,
        task_attempts: 3,
        retry_initial_ms: 500,
        grace_ms: 60_000,
        compensation_attempts: 4,
        compensation_timeout_ms: 5_000,
        planning_timeout_ms: 30_000,
        ..Options::default()
    }
}

/// A caller, for ever.
pub async fn call(world: World) {
    loop {
        world.pause(1_500).await;
        if !world.asking.get() {
            return;
        }
        let tenant = pick_tenant(&world);
        let known = world.ledger.borrow().executions.len();
        match world.roll(20) {
            0..=3 if known < EXECUTIONS_MAX => start_script(&world, &tenant).await,
            4..=7 if known < EXECUTIONS_MAX => start_plan(&world, &tenant).await,
            8..=11 => signal(&world).await,
            12 => cancel(&world).await,
            13 if world.roll(3) == 0 => terminate(&world).await,
            14 => intrude(&world).await,
            15 | 16 => update(&world).await,
            17 => query(&world).await,
            18 if world.roll(2) == 0 => reset(&world).await,
            _ => world.pause(3_000).await,
        }
    }
}

fn pick_tenant(world: &World) -> Tenant {
    let tenants = world.tenants.borrow();
    world.dice.borrow_mut().pick(&tenants).clone()
}

/// An execution that somebody asked for.
pub(super) fn pick(world: &World) -> Option<(String, Wanted)> {
    let ledger = world.ledger.borrow();
    let index = world.roll(ledger.executions.len() as u64) as usize;
    let (id, wanted) = ledger.executions.iter().nth(index)?;
    Some((id.clone(), wanted.clone()))
}

pub(super) fn target(namespace: &Namespace, id: &str) -> Target {
    Target {
        namespace: namespace.clone(),
        workflow_id: WorkflowId::parse(id).expect("ids of the simulation are ids"),
        run_id: None,
    }
}

pub(super) async fn ask(
    world: &World,
    target: &Target,
    request: &Request,
) -> Result<Accepted, Missed> {
    world
        .call(|handle| {
            let (target, request) = (target.clone(), request.clone());
            async move { handle.request(target, request).await }
        })
        .await
}

/// Asks until somebody answers, always with the same mark. The outcome counts that was heard last, unless one was lost before.
async fn ask_again(
    world: &World,
    mark: &str,
    target: &Target,
    request: &Request,
) -> Option<Accepted> {
    let mut lost = false;
    for _ in 0..REPEATS_MAX {
        let said = ask(world, target, request).await;
        // Joining a run that somebody else started leaves nothing in it.
        let kept = said
            .as_ref()
            .ok()
            .filter(|accepted| accepted.reply != Reply::Existing);
        let run = kept.map(|accepted| (target.namespace.clone(), accepted.run_id));
        match &said {
            Err(Missed::Lost) | Err(Missed::Said(CallError::ShuttingDown)) => {
                lost = true;
                world.ledger.borrow_mut().settled(mark, false);
            }
            Err(Missed::Unreachable) => {}
            Err(Missed::Said(CallError::Unavailable(_) | CallError::Busy { .. })) => {
                world.ledger.borrow_mut().refused(mark);
            }
            _ => {
                note(world, mark, run, &said);
                if lost && said.is_err() {
                    world.ledger.borrow_mut().settled(mark, false);
                }
                return said.ok();
            }
        }
        world.pause(2_000).await;
    }
    world.ledger.borrow_mut().settled(mark, !lost);
    None
}

async fn begin(world: &World, tenant: &Tenant, id: String, start: StartWorkflow, wanted: Wanted) {
    let mark = world.ledger.borrow_mut().mark("a start");
    let start = StartWorkflow {
        workflow_id: id.clone(),
        request_id: mark.clone(),
        identity: mark.clone(),
        ..start
    };
    world.say(|| format!("{id} is asked for in {}", tenant.namespace));
    (world.ledger.borrow_mut().executions).insert(id.clone(), wanted);
    let request = Request::Start(Box::new(start));
    let target = target(&tenant.namespace, &id);
    let accepted = ask_again(world, &mark, &target, &request).await;
    let Some(accepted) = accepted else {
        return world.say(|| format!("nobody heard of the start of {id}"));
    };
    world.say(|| format!("{id} is {}", accepted.run_id));
    if let Some(wanted) = world.ledger.borrow_mut().executions.get_mut(&id) {
        wanted.run = Some(accepted.run_id);
    }
    if world.roll(3) == 0 {
        // The same once more: it is the same run, or another has come since.
        let again = ask(world, &target, &request).await;
        match again {
            Ok(again) if again.run_id != accepted.run_id && is_there(world, &target, &accepted) => {
                let what = format!("{id} was started twice by one request");
                world.complain("acknowledged", what);
            }
            Err(Missed::Said(CallError::Rejected(why))) if is_newest(world, &target, &accepted) => {
                let what = format!("{id} was acknowledged, and the same start is refused: {why}");
                world.complain("acknowledged", what);
            }
            _ => {}
        }
    }
}

/// Whether the run has not left with its retention: nobody knows what started it then.
fn is_there(world: &World, target: &Target, accepted: &Accepted) -> bool {
    let target = Target {
        run_id: Some(accepted.run_id),
        ..target.clone()
    };
    let door = world.door();
    door.is_some_and(|door| matches!(door.handle.journal(&target), Ok(Some(_))))
}

fn is_newest(world: &World, target: &Target, accepted: &Accepted) -> bool {
    let Some(door) = world.door() else {
        return false;
    };
    let newest = door
        .handle
        .current_run(&target.namespace, &target.workflow_id);
    newest == Ok(Some(accepted.run_id))
}

async fn start_script(world: &World, tenant: &Tenant) {
    let others: Vec<String> = {
        let ledger = world.ledger.borrow();
        let scripts = ledger.executions.iter();
        scripts
            .filter(|(_, wanted)| wanted.script.is_some() && wanted.namespace == tenant.namespace)
            .map(|(id, _)| id.clone())
            .collect()
    };
    let script = Script::random(&mut world.dice.borrow_mut(), 2, &others);
    // Now and then an id that has a run already.
    let id = match (world.roll(6), others.first()) {
        (0, Some(first)) => first.clone(),
        _ => format!("w{}", world.ledger.borrow().executions.len()),
    };
    let conflict = match world.roll(4) {
        0 => WorkflowIdConflictPolicy::UseExisting,
        1 => WorkflowIdConflictPolicy::TerminateExisting,
        _ => WorkflowIdConflictPolicy::Fail,
    };
    let reuse = match world.roll(3) {
        0 => WorkflowIdReusePolicy::RejectDuplicate,
        _ => WorkflowIdReusePolicy::AllowDuplicate,
    };
    let input = Placed {
        script: script.clone(),
        place: String::new(),
    };
    let start = StartWorkflow {
        workflow_type: script::TYPE.to_owned(),
        task_queue: script::QUEUE.to_owned(),
        input: Some(json_payloads(&input)),
        task_timeout: 10_000_000_000,
        conflict,
        reuse,
        ..StartWorkflow::default()
    };
    let wanted = Wanted {
        namespace: tenant.namespace.clone(),
        script: Some(script),
        run: None,
    };
    if world.ledger.borrow().executions.contains_key(&id) {
        return restart(world, tenant, &id, start).await;
    }
    begin(world, tenant, id, start, wanted).await;
}

/// A start of an id that is taken: the policies decide.
async fn restart(world: &World, tenant: &Tenant, id: &str, start: StartWorkflow) {
    let mark = world.ledger.borrow_mut().mark("a further start");
    let start = StartWorkflow {
        workflow_id: id.to_owned(),
        request_id: mark.clone(),
        identity: mark.clone(),
        ..start
    };
    let existing = start.conflict == WorkflowIdConflictPolicy::UseExisting;
    let said = ask(
        world,
        &target(&tenant.namespace, id),
        &Request::Start(Box::new(start)),
    )
    .await;
    world.say(|| format!("{id} is asked for again: {}", said.is_ok()));
    let run = (said.as_ref().ok()).map(|accepted| (tenant.namespace.clone(), accepted.run_id));
    // Joining a run leaves nothing in it.
    note(world, &mark, run.filter(|_| !existing), &said);
}

async fn start_plan(world: &World, tenant: &Tenant) {
    let id = format!("o{}", world.ledger.borrow().executions.len());
    let kind = world.roll(4);
    let count = 1 + world.roll(5);
    let services: Vec<(String, String)> = (0..count)
        .map(|_| world.dice.borrow_mut().pick(&tenant.services).clone())
        .collect();
    let ids: Vec<String> = services.iter().map(|(id, _)| id.clone()).collect();
    let (content, plan) = match kind {
        0 => (planners::action(&id, &ids), None),
        // One of a few that others ask for as well, in both tenants.
        1 => {
            let shared: [&[&str]; 3] = [
                &["red", "blue"],
                &["blue", "plain", "red"],
                &["red", "blue", "red", "blue"],
            ];
            let names = *world.dice.borrow_mut().pick(&shared);
            (planners::shared_action(names), None)
        }
        _ => (
            format!("do {id}"),
            Some(random_plan(world, tenant, &services)),
        ),
    };
    let submission = Submission {
        action: Action {
            kind: String::new(),
            content,
        },
        plan,
        options: options(),
        rules: Rules::NEWEST,
        ..Submission::default()
    };
    let start = StartWorkflow {
        workflow_type: WORKFLOW_TYPE.to_owned(),
        task_queue: WORKFLOW_QUEUE.to_owned(),
        input: Some(json_payloads(&submission)),
        ..StartWorkflow::default()
    };
    let wanted = Wanted {
        namespace: tenant.namespace.clone(),
        script: None,
        run: None,
    };
    begin(world, tenant, id, start, wanted).await;
}

/// Tasks that depend on some of those before them.
fn random_plan(world: &World, tenant: &Tenant, services: &[(String, String)]) -> plan::Plan {
    let mut tasks = Vec::new();
    for (n, (service, _)) in services.iter().enumerate() {
        let mut input = json!({"n": n});
        for earlier in 1..=n {
            if world.roll(3) == 0 {
                input[format!("from{earlier}")] = json!(format!("$task{earlier}.value"));
            }
        }
        tasks.push(json!({"id": format!("task{}", n + 1), "service": service, "input": input}));
    }
    let draft = match draft::parse_submission(&json!({"tasks": tasks})) {
        Ok(draft::Parsed::Draft(draft)) => draft,
        other => panic!("a plan of the simulation is none: {other:?}"),
    };
    plan::validate(&draft, &super::life::services_of(tenant), &[])
        .unwrap_or_else(|reasons| panic!("{}", plan::describe(&reasons)))
}

async fn signal(world: &World) {
    let Some((id, wanted)) = pick(world) else {
        return;
    };
    if wanted.script.is_none() {
        return;
    }
    let mark = world.ledger.borrow_mut().mark("a signal");
    let signal = SignalWorkflow {
        name: script::SIGNAL.to_owned(),
        input: Some(script::text(&mark)),
        request_id: mark.clone(),
        ..SignalWorkflow::default()
    };
    let target = target(&wanted.namespace, &id);
    let request = Request::Signal(Box::new(signal));
    let accepted = ask_again(world, &mark, &target, &request).await;
    world.say(|| format!("{id} is signalled: {}", accepted.is_some()));
}

async fn cancel(world: &World) {
    let Some((id, wanted)) = pick(world) else {
        return;
    };
    let mark = world.ledger.borrow_mut().mark("a cancel request");
    let cancel = RequestCancelWorkflow {
        reason: mark.clone(),
        identity: mark.clone(),
        request_id: mark.clone(),
        sender: None,
    };
    let request = Request::RequestCancel(Box::new(cancel));
    let said = ask(world, &target(&wanted.namespace, &id), &request).await;
    world.say(|| format!("{id} is to be cancelled: {}", said.is_ok()));
    // A second request of that kind is granted without a word.
    note(world, &mark, None, &said);
}

async fn terminate(world: &World) {
    let Some((id, wanted)) = pick(world) else {
        return;
    };
    let mark = world.ledger.borrow_mut().mark("a termination");
    let terminate = TerminateWorkflow {
        reason: mark.clone(),
        details: None,
        identity: mark.clone(),
    };
    let request = Request::Terminate(Box::new(terminate));
    let said = ask(world, &target(&wanted.namespace, &id), &request).await;
    world.say(|| format!("{id} is to be terminated: {}", said.is_ok()));
    let run = (said.as_ref().ok()).map(|accepted| (wanted.namespace.clone(), accepted.run_id));
    note(world, &mark, run, &said);
}

/// Somebody of another tenant.
async fn intrude(world: &World) {
    let Some((id, wanted)) = pick(world) else {
        return;
    };
    let mark = world.ledger.borrow_mut().mark("an intrusion");
    let foreign = Namespace::parse("p_foreign").expect("it is a name");
    let other = Target {
        namespace: foreign,
        run_id: wanted.run.filter(|_| world.roll(2) == 0),
        ..target(&wanted.namespace, &id)
    };
    let signal = SignalWorkflow {
        name: script::SIGNAL.to_owned(),
        input: Some(script::text(&mark)),
        request_id: mark.clone(),
        ..SignalWorkflow::default()
    };
    let said = ask(world, &other, &Request::Signal(Box::new(signal))).await;
    if said.is_ok() {
        world.complain("namespaces", format!("a foreign tenant reached {id}"));
    }
    note(world, &mark, None, &said);
}

async fn update(world: &World) {
    let Some((id, wanted)) = pick(world) else {
        return;
    };
    if wanted.script.is_none() {
        return;
    }
    let mark = world.ledger.borrow_mut().mark("an update");
    let request = UpdateRequest {
        meta: Some(Meta {
            update_id: mark.clone(),
            identity: String::new(),
        }),
        input: Some(Input {
            name: "change".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let target = target(&wanted.namespace, &id);
    let said = world
        .call(|handle| {
            let (target, id, request) = (target.clone(), mark.clone(), request.clone());
            async move {
                handle
                    .update(target, id, Some(request), UpdateStage::Completed)
                    .await
            }
        })
        .await;
    world.say(|| format!("{id} is updated: {}", said.is_ok()));
    // One that was not accepted in time may be so later; one that failed is kept nowhere, or in its outcome.
    let run = said
        .as_ref()
        .ok()
        .map(|done| (wanted.namespace.clone(), done.run_id));
    let answered = matches!(&said, Ok(done) if succeeded(&mark, done.outcome.as_ref()));
    match answered {
        true => note(world, &mark, run, &said),
        false => world.ledger.borrow_mut().settled(&mark, false),
    }
}

fn succeeded(
    mark: &str,
    outcome: Option<&orchestrion_proto::temporal::api::update::v1::Outcome>,
) -> bool {
    use orchestrion_proto::temporal::api::update::v1::outcome::Value;
    match outcome.and_then(|outcome| outcome.value.as_ref()) {
        Some(Value::Success(text)) => script::read(Some(text)).as_deref() == Some(mark),
        _ => false,
    }
}

async fn query(world: &World) {
    let Some((id, wanted)) = pick(world) else {
        return;
    };
    if wanted.script.is_none() {
        return;
    }
    let target = target(&wanted.namespace, &id);
    let said = world
        .call(|handle| {
            let target = target.clone();
            let query = WorkflowQuery {
                query_type: "who".to_owned(),
                ..Default::default()
            };
            async move { handle.query(target, query).await }
        })
        .await;
    if let Ok(QueryOutcome::Answered(answer)) = said {
        let answer = script::read(answer.as_ref());
        if answer.as_deref() != Some(id.as_str()) {
            let what = format!("a question to {id} was answered by {answer:?}");
            world.complain("namespaces", what);
        }
    }
}

/// Back to some point of the newest run.
async fn reset(world: &World) {
    let Some((id, wanted)) = pick(world) else {
        return;
    };
    if wanted.script.is_none() {
        return;
    }
    let target = target(&wanted.namespace, &id);
    let Some(door) = world.door() else { return };
    let Ok(Some(run)) = door.handle.journal(&target) else {
        return;
    };
    let Some(finish) = point(world, &run.records) else {
        return;
    };
    let mark = world.ledger.borrow_mut().mark("a reset");
    let reset = ResetWorkflow {
        finish_event_id: finish,
        reason: mark.clone(),
        request_id: mark.clone(),
        ..ResetWorkflow::default()
    };
    let said = ask(world, &target, &Request::Reset(Box::new(reset))).await;
    world.say(|| format!("{id} is reset at {finish}: {said:?}"));
    let made: Option<RunId> = said.as_ref().ok().map(|accepted| accepted.run_id);
    let run = made.map(|run_id| (wanted.namespace.clone(), run_id));
    note(world, &mark, run, &said);
}

/// The end of some workflow task.
fn point(world: &World, records: &[orchestrion_history::record::Record]) -> Option<i64> {
    use orchestrion_proto::temporal::api::enums::v1::EventType;
    let events = records.iter().filter_map(|record| record.event());
    let ends: Vec<i64> = events
        .filter(|event| event.event_type() == EventType::WorkflowTaskCompleted)
        .map(|event| event.event_id)
        .collect();
    (!ends.is_empty()).then(|| *world.dice.borrow_mut().pick(&ends))
}
