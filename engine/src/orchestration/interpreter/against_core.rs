//! The interpreter and the real core together: what one asks for the other carries out, and the history that comes of it replays.

use std::time::Duration;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::limits::Limits;
use orchestrion_history::record::Record;
use orchestrion_history::request::{
    ActivityRef, CompleteActivity, CompleteWorkflowTask, FailActivity, Request,
    RequestCancelWorkflow, SignalWorkflow, StartActivityAttempt, StartWorkflow, WorkflowTaskStart,
};
use orchestrion_history::state::{MutableState, Status, WorkflowTask};
use orchestrion_history::{Context, apply, decide};
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use serde_json::{Value, json};

use super::world::{RUN, application_failure, done, plan, replay, submission, task};
use super::{Effect, Interpreter};
use crate::orchestration::submission::json_payloads;
use crate::orchestration::{LATE_RESULT_SIGNAL, WORKFLOW_QUEUE, WORKFLOW_TYPE};
use crate::plan::PlanTask;

struct Engine {
    state: MutableState,
    interpreter: Interpreter,
    events: Vec<HistoryEvent>,
    effects: Vec<Effect>,
    now: Timestamp,
    limits: Limits,
}

impl Engine {
    fn of_tasks(tasks: &[PlanTask]) -> Self {
        let mut engine = Self {
            state: MutableState::default(),
            interpreter: Interpreter::new(),
            events: Vec::new(),
            effects: Vec::new(),
            now: Timestamp::from_millis(1_700_000_000_000),
            limits: Limits::default(),
        };
        engine.ask(Request::Start(Box::new(StartWorkflow {
            run_id: RUN.to_owned(),
            workflow_id: "o_1".to_owned(),
            workflow_type: WORKFLOW_TYPE.to_owned(),
            task_queue: WORKFLOW_QUEUE.to_owned(),
            input: Some(json_payloads(&submission(Some(plan(tasks))))),
            request_id: "request".to_owned(),
            ..Default::default()
        })));
        engine
    }

    /// One request, and then the turns it leads to.
    fn ask(&mut self, request: Request) -> &mut Self {
        self.now = self.now.plus(Duration::from_micros(50));
        self.decide(&request);
        while let WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            ..
        } = self.state.workflow_task
        {
            let turn = self.interpreter.turn(self.now);
            self.effects.extend(turn.effects);
            let start = WorkflowTaskStart {
                scheduled_event_id,
                attempt,
                at: self.now,
                last_event_id: self.state.next_event_id - 1,
                ..Default::default()
            };
            let complete = CompleteWorkflowTask {
                start,
                commands: turn.commands,
                ..Default::default()
            };
            self.decide(&Request::CompleteWorkflowTask(Box::new(complete)));
        }
        self
    }

    fn decide(&mut self, request: &Request) {
        let context = Context::new(self.now, &self.limits);
        let transition = decide(&self.state, &context, request).expect("the core accepts it");
        for record in transition.records {
            apply(&mut self.state, &record).expect("the core applies what it decides");
            let Record::Event(event) = record else {
                continue;
            };
            assert_ne!(
                event.event_type(),
                EventType::WorkflowTaskFailed,
                "the core refuses a command: {event:?}"
            );
            self.interpreter
                .apply(&event)
                .expect("the journal says what the interpreter asked for");
            self.events.push(*event);
        }
    }

    fn pending(&self) -> Vec<&str> {
        self.state
            .activities
            .values()
            .map(|activity| activity.activity_id.as_str())
            .collect()
    }

    fn take(&mut self, activity: &str) -> ActivityRef {
        let scheduled_event_id = self.state.activity_ids[activity];
        let attempt = self.state.activities[&scheduled_event_id].attempt;
        self.ask(Request::StartActivityAttempt(StartActivityAttempt {
            scheduled_event_id,
            attempt,
            identity: "worker".to_owned(),
            request_id: format!("{scheduled_event_id}-{attempt}"),
            on_stream: true,
        }));
        ActivityRef::Attempt {
            scheduled_event_id,
            attempt,
        }
    }

    fn complete(&mut self, activity: &str, result: &Value) -> &mut Self {
        let activity = self.take(activity);
        let result = Some(json_payloads(result));
        self.ask(Request::CompleteActivity(Box::new(CompleteActivity {
            activity,
            result,
            identity: String::new(),
        })))
    }

    fn fail(&mut self, activity: &str, kind: &str, message: &str) -> &mut Self {
        let activity = self.take(activity);
        let failure = application_failure(kind, message, Some(&json!({"why": message})));
        self.ask(Request::FailActivity(Box::new(FailActivity {
            activity,
            failure,
            identity: String::new(),
            last_heartbeat: None,
        })))
    }

    /// Whatever is due next by itself happens at its time.
    fn fire(&mut self) -> &mut Self {
        self.now = self
            .state
            .next_due()
            .expect("something is due")
            .max(self.now);
        self.ask(Request::FireTimers)
    }

    fn ends_with(&self, status: Status, last: &str) {
        assert_eq!(self.state.status, status);
        assert!(self.interpreter.is_closed());
        assert_eq!(replay(&self.events).expect("it replays"), self.interpreter);
        let last_event = Record::Event(Box::new(
            self.events.last().expect("there are events").clone(),
        ));
        assert_eq!(last_event.type_name(), last);
    }
}

fn three() -> [PlanTask; 3] {
    [
        task("task1", &[]),
        task("task2", &[]),
        task("task3", &["task1", "task2"]),
    ]
}

#[test]
fn a_plan_completes_after_retries() {
    let mut engine = Engine::of_tasks(&three());
    assert_eq!(engine.pending(), ["task1", "task2"]);
    engine
        .complete("task2", &done(2))
        .fail("task1", "Failed", "busy");
    engine
        .fire()
        .complete("task1", &done(1))
        .complete("task3", &done(3));
    engine.ends_with(Status::Completed, "WorkflowExecutionCompleted");
}

#[test]
fn a_task_that_fails_five_times_is_undone() {
    let mut engine = Engine::of_tasks(&three());
    engine
        .complete("task1", &done(1))
        .complete("task2", &done(2));
    for _ in 1..5 {
        engine.fail("task3", "Failed", "card declined").fire();
    }
    engine.fail("task3", "Failed", "card declined");
    assert_eq!(engine.pending(), ["revert:task2"]);
    engine
        .fail("revert:task2", "Failed", "busy")
        .fire()
        .complete("revert:task2", &json!({"status": "completed"}));
    engine.complete(
        "revert:task1",
        &json!({"status": "failed", "error": "shipped"}),
    );
    engine.ends_with(Status::Failed, "WorkflowExecutionFailed");
    let Some(Effect::StatusChanged(change)) = engine.effects.first() else {
        panic!("callers learn it first")
    };
    assert_eq!(
        change.error.as_ref().unwrap()["error"],
        "too many consecutive failures: card declined"
    );
    assert!(
        matches!(&engine.effects[1], Effect::CompensationFailed(record) if record.failure == "shipped")
    );
}

#[test]
fn an_abort_cancels_what_waits_and_waits_for_what_runs() {
    let mut engine =
        Engine::of_tasks(&[task("task1", &[]), task("task2", &[]), task("task3", &[])]);
    let running = engine.take("task2");
    engine.fail("task1", "abort", "out of stock");
    assert_eq!(engine.pending(), ["task2"], "nobody had taken task3");
    let result = Some(json_payloads(&done(2)));
    engine.ask(Request::CompleteActivity(Box::new(CompleteActivity {
        activity: running,
        result,
        identity: String::new(),
    })));
    engine.complete("revert:task2", &json!({"status": "completed"}));
    engine.ends_with(Status::Failed, "WorkflowExecutionFailed");
    let Some(Effect::StatusChanged(change)) = engine.effects.first() else {
        panic!("callers learn it")
    };
    assert_eq!(change.abort_reason, Some(json!({"why": "out of stock"})));
}

#[test]
fn a_service_that_never_answers_is_waited_for_until_nobody_knows() {
    let mut engine = Engine::of_tasks(&[task("task1", &[])]);
    for _ in 1..5 {
        engine.take("task1");
        engine.fire().fire();
    }
    engine.take("task1");
    engine.fire();
    assert_eq!(
        engine.state.timers.keys().collect::<Vec<_>>(),
        ["late:task1"]
    );
    engine.fire();
    engine.ends_with(Status::Failed, "WorkflowExecutionFailed");
    assert!(
        matches!(&engine.effects[1], Effect::CompensationFailed(r) if r.status == "unknown" && r.attempts_made == 5)
    );
}

#[test]
fn a_late_result_by_signal_is_undone() {
    let mut engine = Engine::of_tasks(&[task("task1", &[])]);
    for _ in 1..5 {
        engine.take("task1");
        engine.fire().fire();
    }
    engine.take("task1");
    engine.fire().ask(Request::Signal(Box::new(SignalWorkflow {
        name: LATE_RESULT_SIGNAL.to_owned(),
        input: Some(json_payloads(&json!({"task": "task1", "result": done(1)}))),
        request_id: "late".to_owned(),
        ..Default::default()
    })));
    assert!(engine.state.timers.is_empty());
    engine.complete("revert:task1", &json!({"status": "completed"}));
    engine.ends_with(Status::Failed, "WorkflowExecutionFailed");
}

#[test]
fn a_revert_that_is_never_answered_expires_with_its_time() {
    let mut engine = Engine::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    let result = json!({"task": {"n": 1}, "compensation": {"data": [], "ttl": 10_000}});
    engine
        .complete("task1", &result)
        .fail("task2", "abort", "no");
    engine.take("revert:task1");
    let scheduled = engine
        .events
        .iter()
        .rev()
        .find_map(|event| match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(a)) => Some(a.clone()),
            _ => None,
        });
    let close = scheduled.unwrap().schedule_to_close_timeout.unwrap();
    assert_eq!(close.seconds, 10, "rounded up to whole milliseconds");
    engine.fire();
    engine.ends_with(Status::Failed, "WorkflowExecutionFailed");
    assert!(
        matches!(&engine.effects[1], Effect::CompensationFailed(record) if record.status == "expired")
    );
}

#[test]
fn a_cancelled_run_ends_cancelled() {
    let mut engine = Engine::of_tasks(&three());
    engine
        .complete("task1", &done(1))
        .ask(Request::RequestCancel(Box::new(RequestCancelWorkflow {
            reason: "changed my mind".to_owned(),
            request_id: "cancel".to_owned(),
            ..Default::default()
        })));
    engine.complete("revert:task1", &json!({"status": "completed"}));
    engine.ends_with(Status::Canceled, "WorkflowExecutionCanceled");
}
