//! Workers of Temporal's kind: they poll, run scripts and activities, and crash, stall, answer twice, late, or with a token that is none any
//! more.

use std::time::Duration;

use orchestrion::engine::polling::{
    Completion, QueryOutcome, QueryTask, Sticky, WorkflowTaskDispatch,
};
use orchestrion::engine::{CallError, Dispatch, Handle, Leaving, Polled, Poller, Target};
use orchestrion::seams;
use orchestrion_history::ids::{Namespace, TaskQueueName, Timestamp};
use orchestrion_history::record::Record;
use orchestrion_history::request::{
    ActivityRef, CompleteActivity, CompleteWorkflowTask, FailActivity, FailWorkflowTask,
    HeartbeatActivity, Reply, Request, SentUpdate,
};
use orchestrion_history::store::QueueKind;
use orchestrion_proto::prost::Message as _;
use orchestrion_proto::prost_wkt_types::Any;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::command::v1::{Command, ProtocolMessageCommandAttributes};
use orchestrion_proto::temporal::api::enums::v1::{QueryResultType, WorkflowTaskFailedCause};
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::protocol::v1::{Message, message::SequencingId};
use orchestrion_proto::temporal::api::query::v1::WorkflowQueryResult;
use orchestrion_proto::temporal::api::update::v1::{
    Acceptance, Outcome, Request as UpdateRequest, Response, outcome,
};

use super::ledger::{Held, Ledger, Turn, is_refusal};
use super::script;
use super::shared::{Missed, World};

/// How often a worker tries to hand in a turn while nobody takes it.
const TRIES_MAX: u32 = 3;

/// What is told beside the result of something asked.
type Said<T> = Result<T, Missed>;

/// Notes what an asker was told of a mark.
pub fn note<T>(world: &World, mark: &str, run: Option<super::ledger::Run>, said: &Said<T>) {
    let mut ledger = world.ledger.borrow_mut();
    match said {
        Ok(_) => {
            if let Some(run) = run {
                ledger.accepted(mark, run);
            }
            ledger.settled(mark, true);
        }
        Err(Missed::Said(error)) if is_refusal(error) => {
            ledger.refused(mark);
            ledger.settled(mark, true);
        }
        Err(Missed::Unreachable) => {
            ledger.refused(mark);
            ledger.settled(mark, true);
        }
        Err(Missed::Said(_) | Missed::Lost) => ledger.settled(mark, false),
    }
}

/// Runs scripts of a tenant for ever.
pub async fn of_scripts(world: World, namespace: Namespace, number: u64) {
    let own = format!("{}-own-{number}", script::QUEUE);
    let queues = [script::QUEUE.to_owned(), own.clone()];
    for queue in queues {
        let (world, namespace, own) = (world.clone(), namespace.clone(), own.clone());
        world.clone().spawn(async move {
            loop {
                if let Some((handle, polled)) =
                    poll(&world, &namespace, QueueKind::Workflow, &queue, number).await
                {
                    let (world, own) = (world.clone(), own.clone());
                    world.clone().spawn(async move {
                        work(&world, &handle, polled, &own).await;
                    });
                }
                world.pause(40).await;
            }
        });
    }
}

/// Runs activities of a queue for ever.
pub async fn of_activities(world: World, namespace: Namespace, queue: String, number: u64) {
    loop {
        if let Some((handle, polled)) =
            poll(&world, &namespace, QueueKind::Activity, &queue, number).await
        {
            let world = world.clone();
            world.clone().spawn(async move {
                work(&world, &handle, polled, "").await;
            });
        }
        world.pause(60).await;
    }
}

async fn poll(
    world: &World,
    namespace: &Namespace,
    kind: QueueKind,
    queue: &str,
    number: u64,
) -> Option<(Handle, Polled)> {
    let door = world.open_door().await;
    let identity = format!("worker {number}");
    let request_id = format!("poll {}", world.roll(u64::MAX));
    let name = TaskQueueName::parse(queue).expect("queues of the simulation have names");
    let worker = Poller {
        identity,
        // Who has left comes back as another.
        instance_key: request_id.clone(),
    };
    // To shut down is no fault: nothing heals what gets lost by it.
    let leaving = (world.roll(20) == 0).then(|| Leaving {
        worker: worker.clone(),
        queue: Some(name.clone()),
        kinds: vec![kind],
        // Whatever waits there is for others as well: none of it may get lost.
        sticky: (kind == QueueKind::Workflow).then(|| name.clone()),
    });
    let early = leaving.is_some() && world.roll(2) == 0;
    if let Some(leaving) = leaving.clone().filter(|_| early) {
        // It has stopped polling some time ago, and tasks that only it was to have were kept for it since.
        world.pause(3_000).await;
        door.handle.leave(namespace.clone(), leaving).ok()?;
    }
    let mut answer = door
        .handle
        .poll(namespace.clone(), kind, name, worker, request_id)
        .ok()?;
    if let Some(leaving) = leaving.filter(|_| !early) {
        world.pause(500).await;
        door.handle.leave(namespace.clone(), leaving).ok()?;
    }
    // A socket that drops while it waits gives back what comes too late.
    let patience = match world.mishap(30) {
        true => 1 + world.roll(500),
        false => 5_000 + world.roll(20_000),
    };
    let polled = match seams::timeout(Duration::from_millis(patience), answer.task()).await {
        Some(polled) => polled?,
        None => answer.last_chance()?,
    };
    if world.mishap(20) {
        // The socket broke before the task was read: what its owner does then.
        door.handle.give_back(polled);
        return None;
    }
    received(world, namespace, queue, &polled);
    if world.door().is_some_and(|now| now.life == door.life) {
        nothing_held_back(world, &polled);
    }
    Some((door.handle, polled))
}

fn received(world: &World, namespace: &Namespace, queue: &str, polled: &Polled) {
    let (of, at) = match polled {
        Polled::WorkflowTask(task) => (&task.namespace, Some(&task.task_queue)),
        Polled::Query(query) => (&query.namespace, None),
        Polled::Activity(dispatch) => (&dispatch.namespace, None),
    };
    if of != namespace {
        let what = format!("a poll of {namespace} brought a task of {of}");
        world.complain("namespaces", what);
    }
    if let Some(at) = at
        && queue == script::QUEUE
        && at != queue
    {
        world.complain("outcomes", format!("{queue} brought a task of {at}"));
    }
    if let Polled::Activity(dispatch) = polled {
        let life = 0; // A polled attempt is with its worker through every restart.
        take(world, dispatch, life, None);
    }
}

/// What was handed out was not paused by then, as far as an operator had been told.
fn nothing_held_back(world: &World, polled: &Polled) {
    match polled {
        Polled::WorkflowTask(task) => {
            let (id, run) = (task.workflow_id.as_str(), task.run_id);
            let since = (world.ledger.borrow().holds).since(&task.namespace, id, run, None);
            came_in_time(world, since, task.start.at, || {
                format!("a workflow task of {id}")
            });
        }
        Polled::Activity(dispatch) => not_held_back(world, dispatch),
        Polled::Query(_) => {}
    }
}

/// The same of an attempt.
pub fn not_held_back(world: &World, dispatch: &Dispatch) {
    let since = held_since(&world.ledger.borrow(), dispatch);
    came_in_time(world, since, dispatch.started_at, || {
        format!("{} of {}", dispatch.activity_id, dispatch.workflow_id)
    });
}

fn came_in_time(
    world: &World,
    since: Option<Timestamp>,
    at: Timestamp,
    what: impl FnOnce() -> String,
) {
    if let Some(since) = since.filter(|since| *since < at) {
        let late = at.since(since);
        let what = format!(
            "{} was handed out {late:?} after its pause was granted",
            what()
        );
        world.complain("held_back", what);
    }
}

/// Since when no further attempt of this activity may start, as an operator was told.
fn held_since(ledger: &Ledger, dispatch: &Dispatch) -> Option<Timestamp> {
    let (id, activity) = (dispatch.workflow_id.as_str(), &dispatch.activity_id);
    (ledger.holds).since(&dispatch.namespace, id, dispatch.run_id, Some(activity))
}

/// A worker holds this attempt now: nobody else may.
pub fn take(world: &World, dispatch: &Dispatch, life: u64, session: Option<u64>) {
    let place = (
        dispatch.namespace.clone(),
        dispatch.run_id,
        dispatch.scheduled_event_id,
    );
    let held = Held {
        attempt: dispatch.attempt,
        life,
        session,
    };
    let mut ledger = world.ledger.borrow_mut();
    let before = ledger.holders.insert(place, held.clone());
    if let Some(before) = before
        && before.attempt == held.attempt
        && before.life == life
    {
        let what = format!(
            "attempt {} of {} in {} was handed out twice: {before:?}, {held:?}",
            dispatch.attempt, dispatch.activity_id, dispatch.workflow_id
        );
        ledger.complain("outcomes", what);
    }
}

/// The attempt is not with its worker any more.
pub fn let_go(world: &World, dispatch: &Dispatch) {
    let place = (
        dispatch.namespace.clone(),
        dispatch.run_id,
        dispatch.scheduled_event_id,
    );
    let mut ledger = world.ledger.borrow_mut();
    if ledger
        .holders
        .get(&place)
        .is_some_and(|held| held.attempt == dispatch.attempt)
    {
        ledger.holders.remove(&place);
    }
}

async fn work(world: &World, handle: &Handle, polled: Polled, own: &str) {
    match polled {
        Polled::WorkflowTask(task) => turn(world, handle, *task, own).await,
        Polled::Query(query) => answer(world, *query).await,
        Polled::Activity(dispatch) => act(world, *dispatch).await,
    }
}

async fn answer(world: &World, query: QueryTask) {
    world.pause(200).await;
    if world.mishap(100) {
        return;
    }
    let text = script::text(query.workflow_id.as_str());
    let _ = world
        .call(|handle| {
            let (namespace, id) = (query.namespace.clone(), query.id);
            let outcome = QueryOutcome::Answered(Some(text.clone()));
            async move { handle.answer_query(namespace, id, outcome).await }
        })
        .await;
}

fn history(handle: &Handle, task: &WorkflowTaskDispatch) -> Option<Vec<HistoryEvent>> {
    let target = Target {
        namespace: task.namespace.clone(),
        workflow_id: task.workflow_id.clone(),
        run_id: Some(task.run_id),
    };
    let run = handle.journal(&target).ok()??;
    let events = run.records.iter().filter_map(Record::event);
    Some(
        events
            .filter(|event| event.event_id <= task.last_event_id)
            .cloned()
            .collect(),
    )
}

fn protocol(
    id: &str,
    update: &str,
    body: &impl orchestrion_proto::prost::Message,
    name: &str,
) -> (Message, Command) {
    let id = format!("{id}{update}");
    let body = Any {
        type_url: format!("type.googleapis.com/temporal.api.update.v1.{name}"),
        value: body.encode_to_vec(),
    };
    let message = Message {
        id: id.clone(),
        protocol_instance_id: update.to_owned(),
        body: Some(body),
        sequencing_id: None::<SequencingId>,
    };
    let command = Command {
        attributes: Some(C::ProtocolMessageCommandAttributes(
            ProtocolMessageCommandAttributes { message_id: id },
        )),
        ..Command::default()
    };
    (message, command)
}

/// Accepts and answers every update that came with a task, before anything else.
fn updates_of(task: &WorkflowTaskDispatch) -> (Vec<Message>, Vec<Command>, Vec<SentUpdate>) {
    let (mut messages, mut commands, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for message in &task.messages {
        let id = &message.protocol_instance_id;
        let request = (message.body.as_ref())
            .and_then(|body| UpdateRequest::decode(&body.value[..]).ok())
            .unwrap_or_default();
        let acceptance = Acceptance {
            accepted_request_message_id: message.id.clone(),
            accepted_request: Some(request.clone()),
            ..Default::default()
        };
        let response = Response {
            meta: request.meta.clone(),
            outcome: Some(Outcome {
                value: Some(outcome::Value::Success(script::text(id))),
            }),
        };
        for (message, command) in [
            protocol("accept ", id, &acceptance, "Acceptance"),
            protocol("respond ", id, &response, "Response"),
        ] {
            messages.push(message);
            commands.push(command);
        }
        sent.push(SentUpdate {
            update_id: id.clone(),
            request,
        });
    }
    (messages, commands, sent)
}

async fn turn(world: &World, handle: &Handle, task: WorkflowTaskDispatch, own: &str) {
    let target = Target {
        namespace: task.namespace.clone(),
        workflow_id: task.workflow_id.clone(),
        run_id: Some(task.run_id),
    };
    let Some(events) = history(handle, &task) else {
        return;
    };
    if world.mishap(40) {
        return world.say(|| format!("the worker of a turn of {} crashes", task.workflow_id));
    }
    // Longer than it may.
    world
        .pause(if world.mishap(40) { 25_000 } else { 300 })
        .await;
    if world.mishap(30) {
        let fail = FailWorkflowTask {
            start: task.start.clone(),
            cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure,
            failure: Some(script::failure("the code has a bug", false)),
            identity: "worker".to_owned(),
        };
        let request = Request::FailWorkflowTask(Box::new(fail));
        let _ = world
            .call(|handle| {
                let (target, request) = (target.clone(), request.clone());
                async move { handle.request(target, request).await }
            })
            .await;
        return;
    }
    let (messages, mut commands, updates) = updates_of(&task);
    commands.extend(script::turn(&events));
    let mark = world.ledger.borrow_mut().mark("a turn");
    let made_of = Turn {
        scheduled_event_id: task.start.scheduled_event_id,
        seen: events.last().map_or(0, |event| event.event_id),
    };
    (world.ledger.borrow_mut().turns).insert(mark.clone(), made_of);
    let complete = CompleteWorkflowTask {
        start: task.start.clone(),
        commands,
        identity: mark.clone(),
        messages,
        updates,
        ..CompleteWorkflowTask::default()
    };
    let sticky = (world.roll(2) == 0).then(|| Sticky {
        queue: TaskQueueName::parse(own).expect("workers' own queues have names"),
        timeout: 5_000_000_000,
    });
    let results = task.queries.keys().map(|id| {
        let result = WorkflowQueryResult {
            result_type: QueryResultType::Answered.into(),
            answer: Some(script::text(task.workflow_id.as_str())),
            ..Default::default()
        };
        (id.clone(), result)
    });
    let results: std::collections::HashMap<_, _> = results.collect();
    let times = if world.mishap(30) { 2 } else { 1 };
    for _ in 0..times {
        world.ledger.borrow_mut().asks_again(&mark);
        let said = patiently(world, |handle| {
            let completion = Completion {
                target: target.clone(),
                complete: complete.clone(),
                sticky: sticky.clone(),
                return_new: false,
                eager: Vec::new(),
                query_results: results.clone(),
                request_id: mark.clone(),
            };
            async move { handle.complete_workflow_task(completion).await }
        })
        .await;
        world.say(|| {
            format!(
                "a turn of {} is answered: {}",
                task.workflow_id,
                brief(&said)
            )
        });
        // A turn that only refuses, or one that was judged, leaves no record of its own.
        let kept = matches!(&said, Ok(done) if matches!(
            done.reply,
            Reply::Done | Reply::Updates { discarded: false, .. }
        ));
        let discarded = said.is_ok() && !kept;
        let run = kept.then(|| (task.namespace.clone(), task.run_id));
        match discarded {
            true => world.ledger.borrow_mut().settled(&mark, false),
            false => note(world, &mark, run, &said),
        }
        if times == 2 {
            world.pause(2_000).await;
        }
    }
}

/// Asks an engine that is down once more when it is up, as the clients of workers do.
async fn patiently<T, F>(world: &World, ask: impl Fn(Handle) -> F) -> Said<T>
where
    F: Future<Output = Result<T, CallError>>,
{
    for _ in 0..TRIES_MAX {
        match world.call(&ask).await {
            Err(Missed::Unreachable) => _ = world.open_door().await,
            said => return said,
        }
    }
    Err(Missed::Unreachable)
}

fn brief<T>(said: &Said<T>) -> String {
    match said {
        Ok(_) => "taken".to_owned(),
        Err(missed) => format!("{missed:?}"),
    }
}

async fn act(world: &World, dispatch: Dispatch) {
    let target = Target {
        namespace: dispatch.namespace.clone(),
        workflow_id: dispatch.workflow_id.clone(),
        run_id: Some(dispatch.run_id),
    };
    let run = (dispatch.namespace.clone(), dispatch.run_id);
    let activity = match world.roll(2) {
        0 => ActivityRef::Scheduled(dispatch.scheduled_event_id),
        _ => ActivityRef::Attempt {
            scheduled_event_id: dispatch.scheduled_event_id,
            attempt: dispatch.attempt,
        },
    };
    let asked = script::read(dispatch.input.as_ref()).unwrap_or_default();
    if asked != dispatch.activity_id {
        let what = format!("{} was given the input of {asked}", dispatch.activity_id);
        world.complain("outcomes", what);
    }
    if world.mishap(60) {
        return world.say(|| format!("the worker of {} crashes", dispatch.activity_id));
    }
    let budget = dispatch.start_to_close.as_millis() as u64;
    let beat = dispatch.heartbeat.as_millis() as u64;
    let work = match world.mishap(60) {
        true => budget * 2,
        false => world.roll(budget / 2),
    };
    // Who hears that it is paused, or is to begin anew, may stop at once.
    let mut stops = false;
    if beat > 0 {
        let mut left = work;
        while left > beat / 2 {
            world.pause(beat / 2).await;
            left -= beat / 2;
            if world.mishap(100) {
                continue;
            }
            let request = Request::HeartbeatActivity(Box::new(HeartbeatActivity {
                activity: activity.clone(),
                details: None,
            }));
            let held = held_since(&world.ledger.borrow(), &dispatch);
            let said = world
                .call(|handle| {
                    let (target, request) = (target.clone(), request.clone());
                    async move { handle.request(target, request).await }
                })
                .await;
            let still = held.is_some() && held == held_since(&world.ledger.borrow(), &dispatch);
            let Ok(Reply::Heartbeat { paused, reset, .. }) = said.map(|accepted| accepted.reply)
            else {
                continue;
            };
            if still && !paused {
                let id = &dispatch.activity_id;
                let what = format!("{id} of {} is not told of its pause", dispatch.workflow_id);
                world.complain("held_back", what);
            }
            if (paused || reset) && world.roll(2) == 0 {
                stops = true;
                break;
            }
        }
    } else {
        world.pause(work + 1).await;
    }
    let fails = stops || world.mishap(150);
    // The same answer may come twice: under one mark, since it is one answer.
    let mark = world.ledger.borrow_mut().mark("an activity's answer");
    let request = match fails {
        true => Request::FailActivity(Box::new(FailActivity {
            activity,
            failure: script::failure(&mark, world.mishap(30)),
            identity: mark.clone(),
            last_heartbeat: None,
        })),
        false => Request::CompleteActivity(Box::new(CompleteActivity {
            activity,
            result: Some(script::text(&script::activity_result(
                &dispatch.activity_id,
            ))),
            identity: mark.clone(),
        })),
    };
    let times = if world.mishap(60) { 2 } else { 1 };
    for _ in 0..times {
        world.ledger.borrow_mut().asks_again(&mark);
        let said = world
            .call(|handle| {
                let (target, request) = (target.clone(), request.clone());
                async move { handle.request(target, request).await }
            })
            .await;
        world.say(|| {
            let verb = if fails { "fails" } else { "is done" };
            let id = &dispatch.activity_id;
            format!("{id} of {} {verb}: {}", dispatch.workflow_id, brief(&said))
        });
        note(world, &mark, Some(run.clone()), &said);
        if times == 2 {
            world.pause(3_000).await;
        }
    }
}
