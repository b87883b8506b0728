//! Services of orchestrations, as orra's SDKs are: a connection with a window of slots, results remembered by idempotency key and sent again
//! until they are acknowledged. Their answers go the engine's own way (`api/work`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use orchestrion::api::work::answering::{Answering, Settled};
use orchestrion::api::work::{Assignment, Attempt, Outcome, Said, key, undoes};
use orchestrion::engine::Dispatch;
use orchestrion::registry::ids::execution_id;
use orchestrion::seams;
use orchestrion_history::ids::{Namespace, TaskQueueName};
use serde_json::{Value, json};

use super::shared::{Door, World};
use super::workers::{let_go, not_held_back, take};

/// What a handler came to: by idempotency key, the same whenever it is asked.
#[derive(Debug, Clone)]
struct Verdict(Outcome);

impl Said for Verdict {
    fn outcome(&self, _to: &Assignment, _default_ttl: Duration) -> Outcome {
        self.0.clone()
    }
}

/// One service of one tenant.
pub struct Service {
    world: World,
    namespace: Namespace,
    id: String,
    /// Successes, by idempotency key: the handler is not run twice for one.
    done: RefCell<BTreeMap<String, Verdict>>,
    /// Which connection is up.
    connection: RefCell<Option<(u64, u64)>>,
}

/// Connects, works, loses its connection and connects again, for ever.
pub async fn serve(world: World, namespace: Namespace, id: String) {
    let service = Rc::new(Service {
        world: world.clone(),
        namespace,
        id,
        done: RefCell::default(),
        connection: RefCell::default(),
    });
    loop {
        let door = world.open_door().await;
        connection(&service, &door).await;
        *service.connection.borrow_mut() = None;
        world
            .pause(if world.mishap(100) { 90_000 } else { 1_500 })
            .await;
    }
}

async fn connection(service: &Rc<Service>, door: &Door) {
    let world = &service.world;
    let queue = TaskQueueName::parse(&service.id).expect("a service's id names a queue");
    let window = 1 + world.roll(2) as u32;
    let attached = door.handle.attach(
        Some(service.namespace.clone()),
        queue,
        format!("service {}", service.id),
        window,
    );
    let Ok(mut session) = attached.await else {
        return;
    };
    world.say(|| format!("{} connects with {window} slots", service.id));
    *service.connection.borrow_mut() = Some((door.life, session.id.0));
    loop {
        let patience = Duration::from_millis(1 + world.roll(20_000));
        match seams::timeout(patience, session.tasks.recv()).await {
            Some(Some(dispatch)) => {
                if dispatch.namespace != service.namespace {
                    let what =
                        format!("{} got a task of {}", service.namespace, dispatch.namespace);
                    world.complain("namespaces", what);
                }
                take(world, &dispatch, door.life, Some(session.id.0));
                if world.door().is_some_and(|now| now.life == door.life) {
                    not_held_back(world, &dispatch);
                }
                let (service, session) = (service.clone(), session.id);
                world.spawn(async move {
                    handle(&service, dispatch, session.0).await;
                });
            }
            // The engine is gone.
            Some(None) => return,
            None => {}
        }
        if world.mishap(60) {
            world.say(|| format!("{} loses its connection", service.id));
            release_all(service, door.life, session.id.0);
            return door.handle.detach(session.id);
        }
    }
}

/// What the connection held goes back.
fn release_all(service: &Service, life: u64, session: u64) {
    let mut ledger = service.world.ledger.borrow_mut();
    ledger
        .holders
        .retain(|_, held| held.life != life || held.session != Some(session));
}

async fn handle(service: &Rc<Service>, dispatch: Dispatch, session: u64) {
    let world = &service.world;
    let revert = undoes(&dispatch);
    let attempt = Attempt {
        execution_id: execution_id(
            dispatch.run_id,
            dispatch.scheduled_event_id,
            dispatch.attempt,
            revert,
        ),
        idempotency_key: key::of_dispatch(&dispatch, revert),
    };
    let known = Assignment::of(&dispatch, revert);
    let began = service.connection.borrow().map(|(life, _)| life);
    if world.mishap(30) {
        // The handler hangs; its slot is given up.
        world.say(|| format!("{} hangs", dispatch.activity_id));
        world.pause(30_000).await;
        if let Some(door) = world.door()
            && Some(door.life) == began
        {
            door.handle.release(orchestrion::engine::SessionId(session));
        }
        return;
    }
    world
        .pause(if world.mishap(50) { 12_000 } else { 400 })
        .await;
    let remembered = service.done.borrow().get(&attempt.idempotency_key).cloned();
    let verdict = match remembered {
        Some(verdict) => verdict,
        None => {
            let verdict = judge(world, &dispatch, revert);
            if matches!(verdict.0, Outcome::Completed(_)) {
                service
                    .done
                    .borrow_mut()
                    .insert(attempt.idempotency_key.clone(), verdict.clone());
            }
            verdict
        }
    };
    answer(service, &dispatch, &attempt, &known, &verdict).await;
    if world.mishap(50) {
        // Its acknowledgement got lost.
        world.pause(2_000).await;
        answer(service, &dispatch, &attempt, &known, &verdict).await;
    }
    if let Some(door) = world.door()
        && *service.connection.borrow() == Some((door.life, session))
    {
        door.handle.release(orchestrion::engine::SessionId(session));
    }
}

fn judge(world: &World, dispatch: &Dispatch, revert: bool) -> Verdict {
    if revert {
        // Often for good: people look after it then.
        if world.mishap(300) {
            return failed(world, "the revert failed", 600);
        }
        let status = match world.mishap(60) {
            true => "partial",
            false => "completed",
        };
        return Verdict(Outcome::Completed(
            json!({"status": status}).to_string().into_bytes(),
        ));
    }
    if world.mishap(60) {
        let payload = json!({"why": "simulated"}).to_string();
        return Verdict(Outcome::Aborted(payload.into_bytes()));
    }
    if world.mishap(150) {
        return failed(world, "the service failed", 200);
    }
    let input: Value = dispatch
        .input
        .as_ref()
        .and_then(|input| serde_json::from_slice(&input.payloads.first()?.data).ok())
        .unwrap_or(Value::Null);
    let task = json!({"value": dispatch.activity_id});
    let result = json!({
        "task": task,
        "compensation": {"data": {"originalTask": input, "taskResult": task}, "ttl": 86_400_000},
    });
    Verdict(Outcome::Completed(result.to_string().into_bytes()))
}

fn failed(world: &World, text: &str, permanent: u64) -> Verdict {
    Verdict(Outcome::Failed {
        text: text.to_owned(),
        permanent: world.mishap(permanent),
    })
}

/// Offers an answer until the engine has taken or refused it, over whatever connection there is.
async fn answer(
    service: &Rc<Service>,
    dispatch: &Dispatch,
    attempt: &Attempt,
    known: &Assignment,
    verdict: &Verdict,
) {
    let world = &service.world;
    let life = world.door().map(|door| door.life);
    loop {
        let door = world.open_door().await;
        if world.mishap(40) {
            world.pause(5_000).await; // The frame got lost, or its acknowledgement.
        }
        let mark = world.ledger.borrow_mut().mark("a service's answer");
        let clock = Arc::new(world.clock.clone());
        let answering = Answering {
            handle: door.handle.clone(),
            clock,
            namespace: service.namespace.clone(),
            service_id: service.id.clone(),
            identity: mark.clone(),
            wire: "simulation",
            patience: Duration::from_secs(2),
            default_ttl: Duration::from_secs(86_400),
        };
        // Another connection remembers nothing of the attempt, and finds it by its key.
        let known = (Some(door.life) == life && world.roll(4) > 0).then(|| known.clone());
        let settled = answering.answer(attempt, known, verdict).await;
        world.say(|| {
            let id = &dispatch.activity_id;
            format!("{id} of {}: {settled:?}", dispatch.workflow_id)
        });
        if settled == Settled::Refused {
            world.ledger.borrow_mut().refused(&mark);
        }
        // What was noted may have been so before, by another answer.
        let known = settled == Settled::Refused;
        world.ledger.borrow_mut().settled(&mark, known);
        if settled != Settled::NotNow {
            let_go(world, dispatch);
            return;
        }
        world.pause(1_000).await;
    }
}
