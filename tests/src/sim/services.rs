//! Simulated services: they take tasks on sessions, and answer well, badly, late, twice, or not at all.

use std::collections::BTreeMap;

use orchestrion::engine::call::{Call, Poller};
use orchestrion::engine::{CallError, Dispatch, SessionId, Target};
use orchestrion::orchestration::submission::{json_payload, json_payloads};
use orchestrion::orchestration::{ABORT_FAILURE_TYPE, LATE_RESULT_SIGNAL, REVERT_ID_PREFIX};
use orchestrion_history::ids::{Namespace, TaskQueueName};
use orchestrion_history::request::{
    ActivityRef, CompleteActivity, FailActivity, Rejection, ReportActivityProgress, Request,
    SignalWorkflow,
};
use orchestrion_proto::temporal::api::common::v1::Payloads;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::World;

/// The services of each tenant.
pub const NAMES: [&str; 3] = ["s_plain", "s_red", "s_blue"];

/// The tenants.
pub fn namespace(n: u64) -> Namespace {
    Namespace::parse(format!("p_{n}")).unwrap()
}

/// Every queue there is.
pub fn queues() -> Vec<(Namespace, String)> {
    (0..2)
        .flat_map(|n| {
            NAMES
                .iter()
                .map(move |name| (namespace(n), (*name).to_owned()))
        })
        .collect()
}

pub(super) fn attach_call(
    namespace: &Namespace,
    queue: &str,
    window: u32,
) -> (
    Call,
    oneshot::Receiver<SessionId>,
    mpsc::UnboundedReceiver<Dispatch>,
) {
    let (reply, answer) = oneshot::channel();
    let (tasks_tx, tasks) = mpsc::unbounded_channel();
    let call = Call::Attach {
        namespace: Some(namespace.clone()),
        queue: TaskQueueName::parse(queue).unwrap(),
        poller: Poller {
            identity: format!("sim {queue}"),
            window,
            tasks: tasks_tx,
        },
        reply,
    };
    (call, answer, tasks)
}

struct Connected {
    session: SessionId,
    tasks: mpsc::UnboundedReceiver<Dispatch>,
}

#[derive(Default)]
pub(super) struct Services {
    connected: BTreeMap<(Namespace, String), Connected>,
    /// What was taken and not answered; its session may be gone.
    unanswered: Vec<(Option<SessionId>, Dispatch)>,
}

impl Services {
    pub(super) fn session(&self, namespace: &Namespace, queue: &str) -> Option<SessionId> {
        self.connected
            .get(&(namespace.clone(), queue.to_owned()))
            .map(|c| c.session)
    }

    pub(super) fn gain(
        &mut self,
        namespace: &Namespace,
        queue: &str,
        session: SessionId,
        tasks: mpsc::UnboundedReceiver<Dispatch>,
    ) {
        self.connected.insert(
            (namespace.clone(), queue.to_owned()),
            Connected { session, tasks },
        );
    }

    pub(super) fn lose(&mut self, namespace: &Namespace, queue: &str) {
        if let Some(lost) = self
            .connected
            .remove(&(namespace.clone(), queue.to_owned()))
        {
            self.forget_session(lost.session);
        }
    }

    pub(super) fn lose_all_sessions(&mut self) {
        self.connected.clear();
        for (session, _) in &mut self.unanswered {
            *session = None;
        }
    }

    fn forget_session(&mut self, lost: SessionId) {
        for (session, _) in &mut self.unanswered {
            if *session == Some(lost) {
                *session = None;
            }
        }
    }

    fn receive(&mut self) {
        for connected in self.connected.values_mut() {
            while let Ok(dispatch) = connected.tasks.try_recv() {
                self.unanswered.push((Some(connected.session), dispatch));
            }
        }
    }

    /// Answers one task somehow.
    pub(super) fn serve(&mut self, world: &mut World) {
        self.receive();
        if self.unanswered.is_empty() {
            return;
        }
        let index = world.dice.roll(self.unanswered.len() as u64) as usize;
        let outcome = world.dice.roll(20);
        let (session, dispatch) = self.unanswered[index].clone();
        match outcome {
            0..=9 => self.answer(world, index, |d| succeed(d, false)),
            10..=12 => self.answer(world, index, fail),
            13 => self.answer(world, index, abort),
            14 => {
                // An answer that comes twice: the second must change nothing.
                self.answer(world, index, |d| succeed(d, false));
                ask(world, &dispatch, succeed(&dispatch, true));
            }
            15 => {
                let update = json_payload(&json!({"progress": 50}));
                let activity = ActivityRef::Scheduled(dispatch.scheduled_event_id);
                let request = Request::ReportActivityProgress(Box::new(ReportActivityProgress {
                    activity,
                    update,
                }));
                ask(world, &dispatch, request);
            }
            // Stalls: the slot is free again, the answer may come much later.
            16 => {
                if let Some(session) = session {
                    self.unanswered[index].0 = None;
                    world.round(vec![Call::Release { session }]);
                }
            }
            _ => {}
        }
    }

    /// Answers everything, rightly.
    pub(super) fn serve_well(&mut self, world: &mut World) {
        self.receive();
        while !self.unanswered.is_empty() {
            self.answer(world, 0, |d| succeed(d, false));
        }
    }

    fn answer(
        &mut self,
        world: &mut World,
        index: usize,
        request: impl FnOnce(&Dispatch) -> Request,
    ) {
        let (session, dispatch) = self.unanswered.remove(index);
        let request = request(&dispatch);
        world.say(&format!(
            "{} answers {} of {}",
            dispatch.activity_type, dispatch.activity_id, dispatch.workflow_id
        ));
        let refused = ask(world, &dispatch, request.clone());
        if refused && is_success(&request) && !dispatch.activity_id.starts_with(REVERT_ID_PREFIX) {
            late_result(world, &dispatch, &request);
        }
        if let Some(session) = session {
            world.round(vec![Call::Release { session }]);
        }
    }
}

fn is_success(request: &Request) -> bool {
    matches!(request, Request::CompleteActivity(_))
}

/// As the socket does it: a result whose activity has closed goes on as a signal.
fn late_result(world: &mut World, dispatch: &Dispatch, request: &Request) {
    let Request::CompleteActivity(complete) = request else {
        return;
    };
    let result: Value = read(complete.result.as_ref());
    let signal = SignalWorkflow {
        name: LATE_RESULT_SIGNAL.to_owned(),
        input: Some(json_payloads(
            &json!({"task": dispatch.activity_id, "result": result}),
        )),
        request_id: format!("late-{}-{}", dispatch.activity_id, dispatch.attempt),
        ..Default::default()
    };
    ask(world, dispatch, Request::Signal(Box::new(signal)));
}

fn read(payloads: Option<&Payloads>) -> Value {
    payloads
        .and_then(|p| p.payloads.first())
        .and_then(|p| serde_json::from_slice(&p.data).ok())
        .unwrap_or(Value::Null)
}

/// Asks; `true` if the activity was not there any more.
fn ask(world: &mut World, dispatch: &Dispatch, request: Request) -> bool {
    let target = Target {
        namespace: dispatch.namespace.clone(),
        workflow_id: dispatch.workflow_id.clone(),
        run_id: Some(dispatch.run_id),
    };
    matches!(
        world.ask(target, request),
        Some(Err(CallError::Rejected(Rejection::NotFound { .. })))
    )
}

fn succeed(dispatch: &Dispatch, second: bool) -> Request {
    let result = if dispatch.activity_id.starts_with(REVERT_ID_PREFIX) {
        json!({"status": "completed"})
    } else {
        let task = json!({"value": format!("{}{}", dispatch.activity_id, if second { " again" } else { "" })});
        json!({"task": task, "compensation": {"data": {"originalTask": read(dispatch.input.as_ref()), "taskResult": task}, "ttl": 86_400_000}})
    };
    Request::CompleteActivity(Box::new(CompleteActivity {
        activity: ActivityRef::Scheduled(dispatch.scheduled_event_id),
        result: Some(json_payloads(&result)),
        identity: "sim".to_owned(),
    }))
}

fn failure(dispatch: &Dispatch, info: ApplicationFailureInfo) -> Request {
    Request::FailActivity(Box::new(FailActivity {
        activity: ActivityRef::Scheduled(dispatch.scheduled_event_id),
        failure: Failure {
            message: "no".to_owned(),
            failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
            ..Default::default()
        },
        identity: "sim".to_owned(),
        last_heartbeat: None,
    }))
}

fn fail(dispatch: &Dispatch) -> Request {
    failure(
        dispatch,
        ApplicationFailureInfo {
            r#type: "ServiceError".to_owned(),
            ..Default::default()
        },
    )
}

fn abort(dispatch: &Dispatch) -> Request {
    if dispatch.activity_id.starts_with(REVERT_ID_PREFIX) {
        return fail(dispatch);
    }
    failure(
        dispatch,
        ApplicationFailureInfo {
            r#type: ABORT_FAILURE_TYPE.to_owned(),
            non_retryable: true,
            details: Some(json_payloads(&json!({"why": "sim"}))),
            ..Default::default()
        },
    )
}
